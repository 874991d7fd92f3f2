"""The counter while the network is away: prices and leases kept on the disk, sales stored until they are sent.

A sale and what it used of a lease are one commit: a power cut leaves both or neither.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import Mapping
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import Any

import httpx
import msgspec
import uuid_utils

from devices.offline import HeldLease, OfflineTill, PriceList
from devices.software import SoftwareStore
from devices.terminal import TerminalAgent, require_ok
from devices.wire import SoftwareRelease
from models.domain.chain_settings import get
from models.domain.errors import Refused, StoreOpsError
from models.domain.ids import MessageId, SessionId
from models.domain.kill_switch import CONFIG_KEY, Switch
from models.domain.screen import LeaseGrant, ReplyBody

PRICE_LIST_BYTES_MAX = 8 * 1024 * 1024
HTTP_TIMEOUT_S = 30.0
_LEASES = "leases"


class OfflineDesk:
    """One terminal's offline till. All calls on the agent's event loop."""

    def __init__(self, agent: TerminalAgent) -> None:
        self.agent = agent
        self.till = OfflineTill()
        agent.on_late_reply = self._late
        self._loaded = False
        self.price_error = ""
        """Why the newest price list is not in use; empty when it is."""

    @property
    def open(self) -> bool:
        """The network is away, or a basket that was begun without it is not paid yet."""
        return not self.agent.online or bool(self.till.lines)

    def load(self) -> None:
        """What an earlier process held. The agent has started. Once; again changes nothing."""
        if self._loaded:
            return
        self._loaded = True
        stored = json.loads(self.agent.outbox.setting(_LEASES) or "[]")
        for document in stored:
            self.till = self.till.hold(HeldLease.read(document))

    # ------------------------------------------------------------ before the outage

    async def take_prices(self, config: Mapping[str, Any]) -> None:
        """The price list of a configuration, inside it or the file that it names; else the last good one stays.

        While the kill switch of benefits is thrown it has none: leases stay, and count again after the lift. Where it
        may not sell alone it has no prices.
        """
        if not get(config, "offline_sales.enabled"):
            self.till = OfflineTill(leases=self.till.leases)
            return
        offline = config.get("offline")
        if not isinstance(offline, Mapping):
            return
        try:
            document = await self._fetched(offline) if "url" in offline else offline
            prices = PriceList.read(document)
            if Switch.BENEFITS in config.get(CONFIG_KEY, ()):
                prices = replace(prices, benefits={})
            given = self.till.given if self.till.given is not None and self.till.given[0] in prices.benefits else None
            self.till = OfflineTill(prices, self.till.leases, self.till.lines, given, self.till.aged)
            self.price_error = ""
        except (ValueError, OSError, StoreOpsError) as error:
            self.price_error = str(error)[:200]

    async def _fetched(self, place: Mapping[str, Any]) -> Mapping[str, Any]:
        folder = self.agent.config.folder
        if folder is None:
            raise ValueError("a terminal without a folder keeps no price list")
        release = SoftwareRelease("prices", str(place["url"]), str(place.get("sha256")), int(place.get("size", 0)))
        if release.size > PRICE_LIST_BYTES_MAX:
            raise ValueError(f"a price list has at most {PRICE_LIST_BYTES_MAX} bytes")
        store = SoftwareStore(folder / "prices", "none")
        async with httpx.AsyncClient(timeout=HTTP_TIMEOUT_S) as http:
            await store.fetch(release, http)
        return await asyncio.to_thread(_read, store, release)

    async def lease(self, benefit: str, uses: int, session: SessionId | None, member: str = "") -> HeldLease:
        """Reserve uses of the benefit of the member who stands here. Raises Refused with the server's code."""
        reply = require_ok(await self.agent.request("lease", {"benefit": benefit, "uses": uses}, session=session))
        if reply.lease is None:
            raise Refused("lease_pending", "the lease was not told in time", "ask for it again")
        held = self._granted(reply.lease, member)
        await self.agent.outbox.flush()
        return held

    def _granted(self, granted: LeaseGrant, member: str = "") -> HeldLease:
        until = datetime.fromisoformat(granted.until)
        held = HeldLease(granted.id, granted.membership, granted.benefit, granted.uses, until, 0, member)
        self.till = self.till.hold(held)
        self._write_leases()
        return held

    def _late(self, reply: ReplyBody) -> None:
        """A lease whose reply came after all is held: otherwise its uses would be kept for nobody until its end."""
        if reply.lease is not None:
            self.load()  # before the first write, or what an earlier process held would be forgotten
            with contextlib.suppress(Refused):
                self._granted(reply.lease)

    async def give_back(self) -> list[str]:
        """End every lease: what was not used is the member's again. Sent later when the network is away."""
        ended = [one.id for one in self.till.leases]
        for lease in ended:
            self.till = self.till.release(lease)
            self._write_leases()
            await self.agent.store("lease.end", {"lease": lease})
        return ended

    # ------------------------------------------------------------ during it

    async def sell(self, kind: str, *, tendered_fen: int | None = None, clerk: str | None = None) -> MessageId:
        """Take the money for the basket. On the disk when this returns; sent until its reply. Raises Refused."""
        number = str(uuid_utils.uuid7())
        after, body = self.till.sell(kind, self.agent.now(), tendered_fen=tendered_fen, till_txn=number)
        before, self.till = self.till, after
        self._write_leases()  # no await between the two: one commit
        try:
            return await self.agent.store("sale", body, clerk=clerk)
        except ValueError:
            self.till = before
            self._write_leases()
            raise Refused("basket_full", "the sale does not fit into one message", "split the basket") from None

    def _write_leases(self) -> None:
        documents = [one.document() for one in self.till.leases]
        self.agent.outbox.set_setting(_LEASES, msgspec.json.encode(documents).decode())

    def reconnected(self) -> None:
        """The outage is over."""
        self.till = self.till.back_online()


def _read(store: SoftwareStore, release: SoftwareRelease) -> dict[str, Any]:
    image: Path | None = store.activate(release).image
    assert image is not None, "activate() returns an image"
    document = json.loads(image.read_bytes())
    if not isinstance(document, dict):
        raise ValueError("a price list is one JSON object")  # noqa: TRY004 - bad content, not a bad argument
    return document
