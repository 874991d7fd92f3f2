"""What a link has sent and the broker has not acknowledged: bounded by its Receive Maximum, the rest waits its turn."""

from __future__ import annotations

import asyncio
from collections import deque

from devices.link import LinkError
from devices.mqtt_packets import REFUSED_FROM


class Acknowledgements:
    """What several messages wait for together: one future for all their PUBACKs."""

    __slots__ = ("all", "error", "failed", "open")

    def __init__(self, messages: int) -> None:
        self.all: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.open = messages
        self.failed = 0
        self.error: LinkError | None = None

    def one(self, error: LinkError | None) -> None:
        """One of them is acknowledged, or never will be."""
        self.open -= 1
        if error is not None:
            self.failed += 1
            self.error = error
        if not self.open and not self.all.done():
            self.all.set_result(None)


class PublishWindow:
    """Packet identifiers in use, and who waits for one."""

    def __init__(self, in_flight_max: int, waiting_max: int) -> None:
        self._in_flight_max = in_flight_max
        self._waiting_max = waiting_max
        self._open = False
        self._pubacks: dict[int, Acknowledgements] = {}
        self._waiting: deque[asyncio.Future[None]] = deque()
        self._mid = 0

    def opened(self, in_flight_max: int) -> None:
        """A connection began; the broker takes so many unacknowledged messages."""
        self._open = True
        self._in_flight_max = in_flight_max

    def closed(self, lost: LinkError) -> None:
        """The connection ended: what it did not acknowledge has failed, and who waits is told on trying."""
        self._open = False
        pubacks, self._pubacks = self._pubacks, {}
        for acknowledged in pubacks.values():
            acknowledged.one(lost)
        self._free(len(self._waiting))

    @property
    def full(self) -> bool:
        """True while the next message has to wait."""
        return self._open and len(self._pubacks) >= self._in_flight_max

    async def place(self) -> None:
        """Return when there may be a place; look at `full` again. Raises LinkError `publish_queue_full`."""
        if len(self._waiting) >= self._waiting_max:
            raise LinkError("publish_queue_full", f"{len(self._waiting)} messages wait for the broker")
        place: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.append(place)
        try:
            await place
        except asyncio.CancelledError:
            if place.done() and not place.cancelled():
                self._free(1)
            raise

    def take(self, acknowledged: Acknowledgements) -> int:
        """A packet identifier that no unacknowledged message has: the window is far smaller than their number."""
        while True:
            self._mid = self._mid % 65_535 + 1
            if self._mid not in self._pubacks:
                self._pubacks[self._mid] = acknowledged
                return self._mid

    def acknowledged(self, mid: int, reason: int) -> None:
        """A PUBACK came; one for a message that nobody sent is ignored."""
        acknowledged = self._pubacks.pop(mid, None)
        if acknowledged is None:
            return
        refused = reason >= REFUSED_FROM
        acknowledged.one(
            LinkError("publish_refused", f"the broker refused a message: 0x{reason:02x}") if refused else None
        )
        if self._waiting:
            self._free(1)

    def _free(self, places: int) -> None:
        while places > 0 and self._waiting:
            place = self._waiting.popleft()
            if not place.done():
                place.set_result(None)
                places -= 1
