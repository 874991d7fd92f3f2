"""What the API asks of the price desk, which the runtime implements."""

from __future__ import annotations

from datetime import datetime
from typing import Any, Protocol

PATH_ENDING = "/prices"
"""Requests whose path ends so may be as long as a price file."""


class PriceDesk(Protocol):
    """Raises Refused `unknown_chain`, `prices_wrong` (with the lines), `price_jumps`."""

    async def take(
        self, chain: str, body: bytes, *, effective: str, dry_run: bool, force: bool, jump_percent: int, now: datetime
    ) -> dict[str, Any]:
        """Check a price file and make it the chain's next book; what changed, as a document."""
