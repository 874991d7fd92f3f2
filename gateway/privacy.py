"""What the console and a member's own page ask of the privacy desk, which the runtime implements."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import datetime
from typing import Protocol

from models.domain.privacy import Age
from models.tables.persons import PrivacyRequest
from models.tables.privacy import ChainCheck

REASON_CHARACTERS_MAX = 400


class PrivacyDesk(Protocol):
    """Every verb is audited. Raises Refused: `unknown_member`, `unknown_request`, `reason_missing`, `membership_open`,
    `four_eyes`, `request_over`, `link_wrong`, `link_over`."""

    async def withdraw(self, member: str, *, by: str, via: str, reason: str) -> PrivacyRequest:
        """Erase every template and key of the member, now."""

    async def ask_erasure(self, member: str, *, by: str, via: str, reason: str) -> PrivacyRequest:
        """A request that somebody else must approve; the face goes at once."""

    async def approve(self, request: str, *, by: str) -> PrivacyRequest:
        """Erase the person."""

    async def refuse(self, request: str, *, by: str, reason: str) -> PrivacyRequest:
        """Say no, with the reason that the person is told."""

    async def mark_age(self, member: str, age: Age, *, by: str) -> int:
        """Keep what is known of the age; how many templates had to go."""

    async def export(
        self, member: str, *, by: str, via: str, reason: str, now: datetime, language: str | None = None
    ) -> AsyncIterator[bytes]:
        """The person's data in pieces: JSON, or with `language` a page to read."""

    async def verify(self) -> list[ChainCheck]:
        """Walk the audit of each database."""

    def link(self, member: str, now: datetime) -> str:
        """The token of the member's own page."""

    def member_of(self, token: str, now: datetime) -> str:
        """Whose page a token opens."""
