"""The Hosts port of one host: wire messages that come through the gateway instead of the broker."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence

from actors.hosts import COMMAND_CHANNEL, DESIRED_CHANNEL, REGISTRY_CHANNEL, Delivered, Delivery
from devices import codec
from devices.refusals import Undecodable
from models.domain.errors import Refused, RetryLater
from models.domain.ids import LaneId, StoreId, TerminalId
from models.domain.registry import RegisteredTerminal
from models.domain.screen import ReplyBody, ReplyError
from runtime.directory import Directory
from runtime.door import Door
from runtime.engine import Item
from runtime.host_database import Connect
from runtime.orders import Orders
from runtime.publisher import Publisher
from runtime.telemetry import HostCounts
from runtime.terminal_care import TerminalCare

INTERNAL_MESSAGES_MAX = 4_096
"""In the host's queue, and deliveries whose reply is awaited."""
LANE_MESSAGES_MAX = 64
"""Deliveries of one lane whose reply is awaited."""
DELIVER_S_MAX = 11.0


class Deliveries:
    """Puts what the gateway brings into the host's queue and waits for the replies. Bounded: full is said loudly."""

    def __init__(
        self,
        directory: Directory,
        door: Door,
        publisher: Publisher,
        counts: HostCounts,
        connect: Connect,
        care: TerminalCare,
        orders: Orders,
        *,
        put: Callable[[Item], None],
        waiting: Callable[[], int],
    ) -> None:
        """`put` takes an item into the host's queue; `waiting` says how many wait there."""
        self._directory, self._door, self._publisher, self._counts = directory, door, publisher, counts
        self._connect = connect
        self._care, self._orders = care, orders
        self._put = put
        self._waiting = waiting
        self._open: dict[tuple[StoreId, LaneId], int] = {}
        self._open_total = 0

    async def deliver(self, batch: Sequence[Delivery]) -> list[Delivered]:
        """Handle wire messages of the gateway's virtual terminals. Returns after the commit, with the replies."""
        return list(await asyncio.gather(*(self._one(delivery) for delivery in batch)))

    async def _one(self, delivery: Delivery) -> Delivered:
        record = self._directory.terminal(delivery.terminal)
        if record is None:
            record = await self._directory.look_up_by(self._connect, delivery.terminal)
        if record is None:
            raise Refused("unknown_terminal", "no such terminal", "register it: storeops terminal add")
        lane = (record.store, record.lane)
        open_here = self._open.get(lane, 0)
        waiting = max(self._waiting(), self._open_total)
        if waiting >= INTERNAL_MESSAGES_MAX or open_here >= LANE_MESSAGES_MAX:
            self._counts.refused_full += 1
            raise RetryLater("host_full", "the host is busy", "try again", after_s=5.0)
        self._open[lane] = open_here + 1
        self._open_total += 1
        try:
            return await self._handle(delivery, record)
        finally:
            self._open_total -= 1
            self._open[lane] -= 1
            if not self._open[lane]:
                del self._open[lane]

    async def _handle(self, delivery: Delivery, record: RegisteredTerminal) -> Delivered:
        if delivery.channel == REGISTRY_CHANNEL:
            self._care.refresh()
            return Delivered(b"", b"")
        if delivery.channel in (COMMAND_CHANNEL, DESIRED_CHANNEL):
            return await self._orders.give(record, delivery)
        try:
            item = self._door.admit_delivery(delivery, record)
        except Undecodable as refusal:
            self._counts.undecodable += 1
            told = ReplyBody(refusal.id, False, error=ReplyError(refusal.code, refusal.message, refusal.do))
            return Delivered(codec.encode_reply(told), self._publisher.screen_bytes(record))
        waiter = self._publisher.wait_reply(record.terminal, item.cause)
        self._put(item)
        try:
            async with asyncio.timeout(DELIVER_S_MAX):
                reply = await waiter
        except TimeoutError:
            self._publisher.forget(record.terminal, item.cause)
            raise RetryLater("no_reply", "the host did not answer in time", "send the same bytes again") from None
        return Delivered(codec.encode_reply(reply), self._publisher.screen_bytes(record))

    async def screen(self, terminal: TerminalId, session: str, rev: int) -> bytes:
        """The lane's screen once it is newer than (session, rev); after 20 s the same one."""
        record = self._directory.terminal(terminal)
        return b"" if record is None else await self._publisher.newer_screen(record, session, rev)
