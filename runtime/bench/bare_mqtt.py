"""The barest of MQTT beside a fleet: round trips through the same broker, and how fast a queue empties into nothing."""

from __future__ import annotations

import asyncio
import itertools
import time
import uuid
from collections.abc import Callable

from devices.link import Delivery, LinkError
from devices.mqtt import MqttLink
from devices.mqtt_paho import LinkConfig
from models.domain.errors import Bug
from runtime.plant import Plant

ECHO_EVERY_S = 0.02
CONNECT_S_MAX = 30.0


class Peer:
    """A client of the host's user that hears one filter and acknowledges at once."""

    def __init__(self, plant: Plant, name: str, heard: Callable[[Delivery], None]) -> None:
        self.link = MqttLink(
            LinkConfig(
                plant.broker_host,
                plant.broker_port,
                f"bench-{name}-{uuid.uuid4().hex[:8]}",
                username=plant.broker_user,
                password=plant.broker_password,
                session_expiry_s=600,
                reconnect_s_min=0.05,
                reconnect_s_max=0.2,
            )
        )
        self._heard = heard
        self._up = asyncio.Event()
        self._cut = asyncio.Event()

    async def start(self, topic_filter: str) -> None:
        """Returns when it is connected and subscribed. Raises TimeoutError."""
        self.link.listen(self, (topic_filter,))
        await self.link.start()
        await self.online()

    async def online(self) -> None:
        """Returns once connected. Raises TimeoutError."""
        async with asyncio.timeout(CONNECT_S_MAX):
            await self._up.wait()

    async def offline(self) -> None:
        """Returns once it is cut off. Raises TimeoutError."""
        async with asyncio.timeout(CONNECT_S_MAX):
            await self._cut.wait()

    def delivered(self, delivery: Delivery) -> None:
        """Heard, acknowledged."""
        if delivery.receipt is not None:
            self.link.ack(delivery.receipt)
        self._heard(delivery)

    def connected(self, epoch: int, session_present: bool) -> None:  # noqa: ARG002 - either way
        """It hears."""
        self._up.set()
        self._cut.clear()

    def disconnected(self, reason: str) -> None:  # noqa: ARG002 - it tries again
        """It does not."""
        self._up.clear()
        self._cut.set()

    async def may_reconnect(self, taken_over: bool) -> bool:  # noqa: ARG002 - nobody else has its name
        """Always."""
        return True


class RoundTrips:
    """A ping and its answer, QoS 1, 50 a second, until stopped: what the broker alone costs an event and its screen."""

    def __init__(self, plant: Plant) -> None:
        self.samples_ms: list[float] = []
        self._open: dict[bytes, float] = {}
        self._here = Peer(plant, "here", self._back)
        self._there = Peer(plant, "there", self._answer)
        self._tasks: set[asyncio.Task[None]] = set()
        self._loop: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Connect both and begin."""
        await self._here.start("bench/back")
        await self._there.start("bench/forth")
        self._loop = asyncio.create_task(self._ping_forever())

    async def stop(self) -> list[float]:
        """The samples in milliseconds."""
        if self._loop is not None:
            self._loop.cancel()
            await asyncio.gather(self._loop, return_exceptions=True)
        await asyncio.gather(self._here.link.stop(), self._there.link.stop())
        return self.samples_ms

    async def _ping_forever(self) -> None:
        for n in itertools.count():
            name = str(n).encode()
            self._open[name] = time.monotonic()
            try:
                await self._here.link.publish("bench/forth", name)
            except LinkError:
                self._open.clear()
            await asyncio.sleep(ECHO_EVERY_S)

    def _answer(self, delivery: Delivery) -> None:
        task = asyncio.create_task(self._send_back(delivery.payload))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _send_back(self, payload: bytes) -> None:
        try:
            await self._there.link.publish("bench/back", payload)
        except LinkError:
            return

    def _back(self, delivery: Delivery) -> None:
        began = self._open.pop(delivery.payload, None)
        if began is not None:
            self.samples_ms.append((time.monotonic() - began) * 1000)


class Queue:
    """A client that goes away while events pile up for it, and takes them all when it comes back."""

    def __init__(self, plant: Plant) -> None:
        self._heard = 0
        self._moved = asyncio.Event()
        self._region = plant.region
        self._peer = Peer(plant, "queue", self._count)

    async def leave(self) -> None:
        """Subscribe to every event of the region, then be cut off; the broker keeps what comes."""
        await self._peer.start(f"so/1/{self._region}/+/+/+/up/event")
        self._peer.link.drop()
        await self._peer.offline()
        self._heard = 0

    async def empty(self, messages: int, deadline_s: float) -> float:
        """Come back; the seconds until so many had come, the connection among them.

        Raises TimeoutError, and Bug `queue_not_away` when some came before: then nothing was measured.
        """
        if self._heard:
            raise Bug("queue_not_away", f"{self._heard} messages came while the client was away")
        began = time.monotonic()
        self._peer.link.restore()
        async with asyncio.timeout(deadline_s):
            while self._heard < messages:
                self._moved.clear()
                await self._moved.wait()
        return time.monotonic() - began

    async def stop(self) -> None:
        """Disconnect."""
        await self._peer.link.stop()

    def _count(self, delivery: Delivery) -> None:  # noqa: ARG002 - only how many
        self._heard += 1
        self._moved.set()
