"""What the console and the API ask of the memberships' desk, which the runtime implements."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol

from models.domain.events import ProviderAuth
from models.domain.membership_actions import Asked, Done

VERBS = ("cancel", "change", "renew", "suspend", "resume", "freeze", "lapse")
"""What may be done with a membership besides using it."""


class MembershipDesk(Protocol):
    """Raises Refused with the rule's code (`cancel_refused`, …), `unknown_membership`, `number_reused`."""

    async def foresee(self, membership: str, asked: Asked) -> Mapping[str, Any]:
        """What would happen now, in figures and in words; nothing does."""

    async def do(
        self, number: str, membership: str, asked: Asked, *, by: str, auth: ProviderAuth | None = None
    ) -> Done:
        """Do it, once under this number; asked again, the same answer."""
