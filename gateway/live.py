"""The wall, live: deltas from the hosts, each encoded once and its bytes fanned out to every open console."""

from __future__ import annotations

import asyncio
import uuid
from collections import deque
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field, replace

import msgspec
import structlog
from fastapi.sse import KEEPALIVE_COMMENT, format_sse_event

from actors.hosts import Hosts
from gateway.settings import GatewaySettings
from models.domain.errors import RetryLater, StoreOpsError
from models.domain.ids import RegionId, StoreId, TerminalId
from models.domain.live import Changes, StoreTile, TerminalTile

log = structlog.get_logger()

RETRY_S = 1.0
"""Pause after a host that did not answer."""
LAYOUT_LOOK_S = 2.0
"""How long a changed number of hosts may go unnoticed."""


@dataclass(frozen=True, slots=True)
class Frame:
    """One message to a console: tiles to replace, or with `full` all there are.

    `waiting` names the slots, `region/k`, that do not answer now: their tiles are the last ones known. `clocks` is
    business time by region: regions with databases of their own have clocks of their own; `business_now` is the latest.
    """

    n: int
    business_now: str
    clocks: dict[str, str]
    full: bool
    waiting: tuple[str, ...]
    terminals: tuple[TerminalTile, ...]
    stores: tuple[StoreTile, ...]


class Listener:
    """One console's bounded queue: when it is full the oldest frame goes, and the console starts over."""

    def __init__(self, events_max: int) -> None:
        self._queue: deque[bytes] = deque()
        self._events_max = events_max
        self._wake = asyncio.Event()
        self._closed = False
        self._lagged = False
        self.dropped = 0

    def push(self, event: bytes) -> None:
        """Add a frame, never waiting for the console."""
        if len(self._queue) >= self._events_max:
            self._queue.popleft()
            self._lagged = True
            self.dropped += 1
        self._queue.append(event)
        self._wake.set()

    def close(self) -> None:
        """End the stream now, whatever is still queued."""
        self._closed = True
        self._wake.set()

    async def events(self, everything: Callable[[], bytes], keepalive_s: float) -> AsyncIterator[bytes]:
        """Frames in order; `everything()` in place of a queue that lost one; a comment when nothing moves."""
        while not self._closed:
            if self._lagged:
                self._lagged = False
                self._queue.clear()
                yield everything()
            elif self._queue:
                yield self._queue.popleft()
            else:
                self._wake.clear()
                try:
                    async with asyncio.timeout(keepalive_s):
                        await self._wake.wait()
                except TimeoutError:
                    yield KEEPALIVE_COMMENT


@dataclass(slots=True)
class _Slot:
    """What one host last told."""

    region: RegionId
    k: int
    epoch: int = 0
    version: int = 0
    waiting: bool = True
    terminals: set[TerminalId] = field(default_factory=set)
    stores: set[StoreId] = field(default_factory=set)


class Wall:
    """The tiles of all regions as the hosts last told them, and the consoles that watch."""

    def __init__(self, settings: GatewaySettings, hosts: Callable[[], Hosts | None]) -> None:
        self._settings = settings
        self._hosts = hosts
        self._slots = {
            (region.name, k): _Slot(RegionId(region.name), k)
            for region in settings.regions
            for k in range(region.slots)
        }
        self._listeners: set[Listener] = set()
        self._ring: deque[tuple[int, bytes]] = deque(maxlen=settings.stream_ring_events_max)
        self._generation = uuid.uuid4().hex[:12]
        self._full: tuple[int, bytes] | None = None
        self._closed = False
        self.n = 0
        self.clocks: dict[str, str] = {}
        self.terminals: dict[TerminalId, TerminalTile] = {}
        self.stores: dict[StoreId, StoreTile] = {}
        self.dropped = 0

    @property
    def consoles(self) -> int:
        """Open streams."""
        return len(self._listeners)

    @property
    def waiting(self) -> tuple[str, ...]:
        """Slots that do not answer now, as `region/k`."""
        return tuple(f"{region}/{k}" for (region, k), slot in self._slots.items() if slot.waiting)

    def waiting_in(self, region: str) -> tuple[int, ...]:
        """One region's slots that do not answer now."""
        return tuple(slot.k for slot in self._slots.values() if slot.waiting and slot.region == region)

    def stores_in(self, region: str) -> set[StoreId]:
        """Stores that a region's hosts told of."""
        return {store for slot in self._slots.values() if slot.region == region for store in slot.stores}

    def terminals_in(self, region: str) -> set[TerminalId]:
        """Terminals that a region's hosts told of."""
        return {terminal for slot in self._slots.values() if slot.region == region for terminal in slot.terminals}

    @property
    def business_now(self) -> str:
        """The latest of all regions' business times; empty while none is known."""
        return max(self.clocks.values(), default="")

    async def follow(self) -> None:
        """Follow every slot until cancelled. A host that is away or fails is asked again, and shown as waiting."""
        async with asyncio.TaskGroup() as group:
            for region in self._settings.regions:
                group.create_task(self._follow_region(RegionId(region.name)))

    async def _follow_region(self, region: RegionId) -> None:
        """As many slots as the region's layout has, looked at every LAYOUT_LOOK_S."""
        following: dict[int, asyncio.Task[None]] = {}
        async with asyncio.TaskGroup() as group:
            while not self._closed:
                wanted = await self._slots_of(region)
                for k in wanted - following.keys():
                    slot = self._slots.setdefault((region, k), _Slot(region, k))
                    following[k] = group.create_task(self._follow_slot(slot))
                for k in following.keys() - wanted:
                    following.pop(k).cancel()
                    self._end_slot(region, k)
                await asyncio.sleep(LAYOUT_LOOK_S)

    async def _slots_of(self, region: RegionId) -> set[int]:
        """The slots that the hosts name; while nobody answers those that we know."""
        known = {slot.k for slot in self._slots.values() if slot.region == region}
        hosts = self._hosts()
        if hosts is None:
            return known
        try:
            return set(range(await hosts.slots(region)))
        except Exception as error:  # noqa: BLE001 - whatever the engine raises, the wall goes on
            log.warning("layout_unknown", region=region, error=repr(error))
            return known

    def _end_slot(self, region: RegionId, k: int) -> None:
        """A slot of an older layout: what it alone told of is gone."""
        slot = self._slots.pop((region, k))
        if self._forget(slot, slot.terminals, slot.stores):
            self._publish_everything()

    def _forget(self, slot: _Slot, terminals: set[TerminalId], stores: set[StoreId]) -> bool:
        """Tiles that a slot has no more, unless another slot has them meanwhile; True when one went."""
        others = [other for other in self._slots.values() if other is not slot and other.region == slot.region]
        gone = False
        for terminal in terminals:
            if not any(terminal in other.terminals for other in others):
                gone = self.terminals.pop(terminal, None) is not None or gone
        for store in stores:
            if not any(store in other.stores for other in others):
                gone = self.stores.pop(store, None) is not None or gone
        return gone

    async def _follow_slot(self, slot: _Slot) -> None:
        while not self._closed:
            hosts = self._hosts()
            if hosts is None:
                await asyncio.sleep(self._settings.stream_frame_s)
                continue
            try:
                changes = await hosts.changes(slot.region, slot.k, slot.epoch, slot.version)
            except StoreOpsError as error:
                self._lost(slot, error)
                await asyncio.sleep(min(error.after_s, RETRY_S) if isinstance(error, RetryLater) else RETRY_S)
            except Exception as error:  # noqa: BLE001 - whatever the engine raises, the wall goes on
                self._lost(slot, error)
                await asyncio.sleep(RETRY_S)
            else:
                self.apply(slot.region, slot.k, changes)
                await asyncio.sleep(self._settings.stream_frame_s)

    def _lost(self, slot: _Slot, error: Exception) -> None:
        if slot.waiting:
            return
        log.warning("host_away", region=slot.region, slot=slot.k, error=repr(error))
        slot.waiting = True
        self._publish(self._delta(slot.region))

    def apply(self, region: str, k: int, changes: Changes) -> None:
        """Take over what a region's host `k` told and tell every console."""
        slot = self._slots[region, k]
        came_back, slot.waiting = slot.waiting, False
        slot.epoch, slot.version = changes.epoch, changes.version
        moved = changes.business_now != self.clocks.get(region)
        self.clocks[region] = changes.business_now
        terminals = {tile.terminal for tile in changes.terminals}
        stores = {tile.store for tile in changes.stores}
        gone = False
        if changes.full:
            gone = self._forget(slot, slot.terminals - terminals, slot.stores - stores)
            slot.terminals, slot.stores = terminals, stores
        else:
            slot.terminals |= terminals
            slot.stores |= stores
        self.terminals.update((tile.terminal, tile) for tile in changes.terminals)
        self.stores.update((tile.store, tile) for tile in changes.stores)
        if gone:
            self._publish_everything()
        elif terminals or stores or came_back or moved:
            self._publish(self._delta(region, changes.terminals, changes.stores))

    def _delta(
        self, region: str, terminals: tuple[TerminalTile, ...] = (), stores: tuple[StoreTile, ...] = ()
    ) -> Frame:
        clock = {region: self.clocks[region]} if region in self.clocks else {}
        return Frame(0, self.business_now, clock, False, self.waiting, terminals, stores)

    def _event(self, name: str, frame: Frame) -> bytes:
        return format_sse_event(
            event=name, data_str=msgspec.json.encode(frame).decode(), id=f"{self._generation}-{frame.n}"
        )

    def _publish(self, frame: Frame) -> None:
        self.n += 1
        self._send(self._event("delta", replace(frame, n=self.n)))

    def _publish_everything(self) -> None:
        self.n += 1
        self._send(self.everything())

    def _send(self, event: bytes) -> None:
        self._ring.append((self.n, event))
        for listener in self._listeners:
            before = listener.dropped
            listener.push(event)
            self.dropped += listener.dropped - before

    def frame(self) -> Frame:
        """Everything there is now."""
        return Frame(
            self.n,
            self.business_now,
            dict(self.clocks),
            True,
            self.waiting,
            tuple(self.terminals.values()),
            tuple(self.stores.values()),
        )

    def everything(self) -> bytes:
        """Everything there is now as one `resync` event, encoded once per change."""
        if self._full is None or self._full[0] != self.n:
            self._full = (self.n, self._event("resync", self.frame()))
        return self._full[1]

    async def stream(self, last_event_id: str = "") -> AsyncIterator[bytes]:
        """The events for one console: what it missed since `last_event_id` while we still know, else everything.

        Raises RetryLater when too many consoles watch already.
        """
        if len(self._listeners) >= self._settings.stream_clients_max:
            raise RetryLater("too_many_consoles", "too many consoles are open", "close one, or wait", after_s=30)
        listener = Listener(self._settings.stream_queue_events_max)
        for event in self._missed(last_event_id):
            listener.push(event)
        self._listeners.add(listener)
        return self._until_closed(listener)

    async def _until_closed(self, listener: Listener) -> AsyncIterator[bytes]:
        if self._closed:
            listener.close()
        try:
            async for event in listener.events(self.everything, self._settings.stream_keepalive_s):
                yield event
        finally:
            self._listeners.discard(listener)

    def _missed(self, last_event_id: str) -> list[bytes]:
        generation, _, number = last_event_id.partition("-")
        if generation == self._generation and number.isdigit():
            n = int(number)
            missed = [event for at, event in self._ring if at > n]
            if n <= self.n and len(missed) == self.n - n <= self._settings.stream_queue_events_max:
                return missed
        return [self.everything()]

    def close(self) -> None:
        """End every stream at once; new ones end as soon as they begin."""
        self._closed = True
        for listener in self._listeners:
            listener.close()
