"""What a host does after a batch's commit: publish, then acknowledge, then ask. The next batch runs meanwhile."""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Awaitable, Callable

import structlog

from devices.bridge import Bridge
from models.domain.presence import Birth
from runtime.ask_desk import AskDesk
from runtime.door import Door, Source
from runtime.engine import Item, Work
from runtime.orders import Orders
from runtime.publisher import Publisher
from runtime.telemetry import HostCounts
from runtime.terminal_care import TerminalCare
from runtime.tiles import Wall

log = structlog.get_logger()

BATCHES_AT_ONCE_MAX = 2
"""Batches whose replies the broker has not acknowledged yet. A batch has two messages for each of its 256."""


class Afterwards:
    """Performs what batches ask for, in their order; a batch is acknowledged after the one before it.

    A crash between any two steps is repaired: by a duplicate, which gets the same reply, or by the outbox's sweep.
    """

    def __init__(
        self,
        counts: HostCounts,
        *,
        bridge: Callable[[], Bridge],
        publisher: Publisher,
        desk: AskDesk,
        door: Door,
        care: TerminalCare,
        orders: Orders,
        wall: Callable[[], Wall],
        spawn: Callable[[Awaitable[None]], None],
    ) -> None:
        """`bridge` and `wall` are there once the host has started; `spawn` runs what nobody waits for."""
        self._counts = counts
        self._bridge, self._publisher, self._desk, self._door = bridge, publisher, desk, door
        self._care, self._orders, self._wall, self._spawn = care, orders, wall, spawn
        self._running: deque[asyncio.Task[None]] = deque()

    async def begin(self, items: list[Item], work: Work) -> None:
        """Begin with a committed batch. Waits while too many before it are not through."""
        while len(self._running) >= BATCHES_AT_ONCE_MAX:
            await asyncio.wait({self._running[0]})
        counts = self._counts
        counts.batches += 1
        counts.messages += len(items)
        counts.duplicates += work.duplicates
        counts.refused += work.refused
        counts.dead_letters += work.crashed
        counts.refused_outbox += work.refused_outbox
        for dead in work.commit.dead:
            entity = f"{dead.address.kind} {dead.address.id}"
            log.error("dead_letter", trace=dead.id, store=dead.address.store, entity=entity, error=dead.error)
        before = self._running[-1] if self._running else None
        task = asyncio.create_task(self._perform(items, work, before), name=f"after-{counts.batches}")
        self._running.append(task)
        task.add_done_callback(self._running.remove)

    async def finish(self) -> None:
        """Return when all of them are through."""
        while self._running:
            await asyncio.wait({self._running[0]})

    async def _perform(self, items: list[Item], work: Work, before: asyncio.Task[None] | None) -> None:
        try:
            await self._publisher.publish(self._bridge(), work.screens, work.replies)
            if before is not None and not before.done():
                await asyncio.wait({before})
            self._settle(items, work)
        except Exception:
            # A bug: what was not acknowledged comes again, and finds its reply in the inbox.
            log.exception("after_commit")

    def _settle(self, items: list[Item], work: Work) -> None:
        bridge, now = self._bridge(), time.monotonic()
        for item in items:
            if isinstance(item.source, Source) and item.source.inbound is not None:
                bridge.ack(item.source.inbound)
                if item.key is not None:
                    kind = "face" if item.kind == "FaceShown" else "event"
                    self._counts.took(kind, (now - item.source.inbound.at_s) * 1000)
        for address, ask in work.asks:
            self._desk.dispatch(address, ask, 1)
        if work.told:
            self._spawn(self._care.tell(bridge, work.told))
        self._care.after(items, work)
        self._orders.after(items, work)
        self._door.forget_images(items, work.asks)
        self._wall().moved(work)
        born = [item.terminal for item in items if isinstance(item.message, Birth) and item.terminal is not None]
        if born:
            self._spawn(self._care.greet(bridge, born))
