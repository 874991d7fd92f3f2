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


@dataclass(frozen=True, slots=True)
class Frame:
    """One message to a console: tiles to replace, or with `full` all there are.

    `waiting` names the slots that do not answer now: their tiles are the last ones known.
    """

    n: int
    business_now: str
    full: bool
    waiting: tuple[int, ...]
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

    epoch: int = 0
    version: int = 0
    waiting: bool = True
    terminals: set[TerminalId] = field(default_factory=set)
    stores: set[StoreId] = field(default_factory=set)


class Wall:
    """The tiles of a region as the hosts last told them, and the consoles that watch."""

    def __init__(self, settings: GatewaySettings, hosts: Callable[[], Hosts | None]) -> None:
        self._settings = settings
        self._hosts = hosts
        self._slots = [_Slot() for _ in range(settings.slots)]
        self._listeners: set[Listener] = set()
        self._ring: deque[tuple[int, bytes]] = deque(maxlen=settings.stream_ring_events_max)
        self._generation = uuid.uuid4().hex[:12]
        self._full: tuple[int, bytes] | None = None
        self._closed = False
        self.n = 0
        self.business_now = ""
        self.terminals: dict[TerminalId, TerminalTile] = {}
        self.stores: dict[StoreId, StoreTile] = {}
        self.dropped = 0

    @property
    def consoles(self) -> int:
        """Open streams."""
        return len(self._listeners)

    @property
    def waiting(self) -> tuple[int, ...]:
        """Slots that do not answer now."""
        return tuple(k for k, slot in enumerate(self._slots) if slot.waiting)

    async def follow(self) -> None:
        """Follow every slot until cancelled. A host that is away or fails is asked again, and shown as waiting."""
        async with asyncio.TaskGroup() as group:
            for k in range(len(self._slots)):
                group.create_task(self._follow_slot(k))

    async def _follow_slot(self, k: int) -> None:
        slot = self._slots[k]
        while not self._closed:
            hosts = self._hosts()
            if hosts is None:
                await asyncio.sleep(self._settings.stream_frame_s)
                continue
            try:
                changes = await hosts.changes(RegionId(self._settings.region), k, slot.epoch, slot.version)
            except StoreOpsError as error:
                self._lost(slot, k, error)
                await asyncio.sleep(min(error.after_s, RETRY_S) if isinstance(error, RetryLater) else RETRY_S)
            except Exception as error:  # noqa: BLE001 - whatever the engine raises, the wall goes on
                self._lost(slot, k, error)
                await asyncio.sleep(RETRY_S)
            else:
                self.apply(k, changes)
                await asyncio.sleep(self._settings.stream_frame_s)

    def _lost(self, slot: _Slot, k: int, error: Exception) -> None:
        if slot.waiting:
            return
        log.warning("host_away", slot=k, error=repr(error))
        slot.waiting = True
        self._publish(Frame(0, self.business_now, False, self.waiting, (), ()))

    def apply(self, k: int, changes: Changes) -> None:
        """Take over what host `k` told and tell every console."""
        slot = self._slots[k]
        came_back, slot.waiting = slot.waiting, False
        slot.epoch, slot.version = changes.epoch, changes.version
        moved = changes.business_now != self.business_now
        self.business_now = changes.business_now
        terminals = {tile.terminal for tile in changes.terminals}
        stores = {tile.store for tile in changes.stores}
        gone = False
        if changes.full:
            for terminal in slot.terminals - terminals:
                gone = self.terminals.pop(terminal, None) is not None or gone
            for store in slot.stores - stores:
                gone = self.stores.pop(store, None) is not None or gone
            slot.terminals, slot.stores = terminals, stores
        else:
            slot.terminals |= terminals
            slot.stores |= stores
        self.terminals.update((tile.terminal, tile) for tile in changes.terminals)
        self.stores.update((tile.store, tile) for tile in changes.stores)
        if gone:
            self._publish_everything()
        elif terminals or stores or came_back or moved:
            self._publish(
                Frame(0, self.business_now, False, self.waiting, changes.terminals, changes.stores),
            )

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
