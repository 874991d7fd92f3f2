"""The privacy desk of a house that runs: for the gateway and the command line, made from its plants."""

from __future__ import annotations

import asyncio
import base64
import binascii
import hashlib
import hmac
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import structlog

from models.domain.errors import Refused
from models.domain.privacy import RetentionPolicy
from runtime.datadir import open_data_dir
from runtime.privacy import Privacy
from runtime.privacy_checkpoints import Checkpoints
from runtime.privacy_export import as_html, as_json

if TYPE_CHECKING:
    from runtime.plant import Plant
    from runtime.settings import Privacy as PrivacySettings

log = structlog.get_logger()

SCRUB_EVERY_S = 2.0
SWEEP_EVERY_S = 3_600.0
FIRST_SWEEP_AFTER_S = 60.0
CHECKPOINTS_FILE = "audit-checkpoints.jsonl"


def retention_of(settings: PrivacySettings) -> RetentionPolicy:
    """The rule's figures from the settings."""
    return RetentionPolicy(settings.template_idle_days, settings.after_membership_days, settings.decision_days)


def privacy_of(plants: Sequence[Plant], *, scrubs: bool = True) -> Privacy:
    """The verbs over the databases of a deployment. Reads its secrets: call it in a thread of a loop."""
    data = open_data_dir(plants[0].data_dir, create=False)
    checkpoints = Checkpoints(data.root / CHECKPOINTS_FILE, data.secret("audit-key").encode())
    urls = [plant.database_url for plant in plants]
    return Privacy(urls, policy=plants[0].retention, checkpoints=checkpoints, scrubs=scrubs)


@dataclass(frozen=True, slots=True)
class MemberLinks:
    """Tokens that open one member's page for a while: the member's id and the end, signed by HMAC-SHA-256."""

    key: bytes
    hours: int = 72

    def make(self, member: str, now: datetime) -> str:
        """A token that lasts `hours`. It cannot be guessed or changed to another member's."""
        until = int((now + timedelta(hours=self.hours)).timestamp())
        said = f"{until}.{member}".encode()
        return _text(self._sign(said) + said)

    def member_of(self, token: str, now: datetime) -> str:
        """Whose page it opens. Raises Refused `link_wrong` for a token that is not ours, `link_over` after its end."""
        try:
            data = base64.urlsafe_b64decode(token + "=" * (-len(token) % 4))
            signed, said = data[:32], data[32:]
            until, _, member = said.decode().partition(".")
        except (binascii.Error, ValueError):
            signed, said, until, member = b"", b"", "0", ""
        if not hmac.compare_digest(signed, self._sign(said)):
            raise Refused("link_wrong", "this link is not one of ours", "ask at the store for a new one")
        if now >= datetime.fromtimestamp(int(until), UTC):
            raise Refused("link_over", "this link has expired", "ask at the store for a new one")
        return member

    def _sign(self, said: bytes) -> bytes:
        return hmac.digest(self.key, b"member link\x00" + said, hashlib.sha256)


def _text(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def links_of(plants: Sequence[Plant]) -> MemberLinks:
    """The deployment's links."""
    key = open_data_dir(plants[0].data_dir, create=False).secret("member-links").encode()
    return MemberLinks(key, plants[0].member_link_hours)


class Desk:
    """`Privacy` as the gateway uses it (gateway.privacy.PrivacyDesk), and the duties that come by themselves."""

    def __init__(self, privacy: Privacy, links: MemberLinks) -> None:
        self._privacy = privacy
        self._links = links
        self.withdraw = privacy.withdraw
        self.ask_erasure = privacy.ask_erasure
        self.approve = privacy.approve
        self.refuse = privacy.refuse
        self.mark_age = privacy.mark_age
        self.report = privacy.report
        self.verify = privacy.verify
        self.person = privacy.person

    def link(self, member: str, now: datetime) -> str:
        """The token of the member's page."""
        return self._links.make(member, now)

    def member_of(self, token: str, now: datetime) -> str:
        """See MemberLinks."""
        return self._links.member_of(token, now)

    async def export(
        self, member: str, *, by: str, via: str, reason: str, now: datetime, language: str | None = None
    ) -> AsyncIterator[bytes]:
        """The person's data in pieces: JSON, or with `language` a page to read. Audited before the first piece."""
        rows = await self._privacy.export(member, by=by, via=via, reason=reason)
        return as_json(member, now, rows) if language is None else as_html(member, now, language, rows)

    async def watch(self) -> None:
        """For ever: what was erased leaves the databases' files within seconds; retention once an hour."""
        loop = asyncio.get_running_loop()
        next_sweep = loop.time() + FIRST_SWEEP_AFTER_S
        while True:
            try:
                await self._privacy.scrub_due()
                if loop.time() >= next_sweep:
                    next_sweep = loop.time() + SWEEP_EVERY_S
                    await self._privacy.sweep()
            except Exception as error:  # noqa: BLE001 - the database is away: the duty waits, it is never given up
                log.warning("privacy_duty", error=f"{type(error).__name__}: {error}")
            await asyncio.sleep(SCRUB_EVERY_S)


def desk_of(plants: Sequence[Plant]) -> Desk:
    """The desk of the gateway's process. Reads secrets: call it in a thread."""
    return Desk(privacy_of(plants, scrubs=False), links_of(plants))
