"""What the notification endpoint asks of the providers' desk, which the runtime implements."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

from models.domain.notices import Distrusted


class ProviderDesk(Protocol):
    """Receives what payment providers send unasked."""

    async def receive(self, provider: str, headers: Mapping[str, str], body: bytes) -> bytes | Distrusted | None:
        """What to answer the provider, once the notification is durable and what waits for its number was hastened.

        Distrusted when it proves nothing: nothing was kept. None: there is no such provider here. Repeated: the same
        answer, no second effect. Raises what the database raises; the provider then sends again.
        """
