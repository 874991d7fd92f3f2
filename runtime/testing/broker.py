"""A broker in memory that does what brokers do to messages: late, twice, in another order, and lost with a connection.

Order is kept per terminal and connection only, as MQTT promises; between terminals anything goes.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from devices.link import Delivery, DeliveryReceipt, LinkError, LinkListener, Outgoing
from devices.topics import qos_of

RECONNECT_S = (0.2, 3.0)


@dataclass(frozen=True, slots=True)
class Faults:
    """How often what goes wrong, in thousandths of the messages concerned; spans in seconds."""

    duplicate: int = 0
    drop_connection: int = 0
    """After a publish of the host: its connection ends, what is not acknowledged comes again."""
    lose_down: int = 0
    """A reply or screen that never reaches its terminal (it expired, or the broker was killed)."""
    forget: int = 0
    """With a lost connection: the broker was killed and has forgotten the session and what it held."""
    delay_s: tuple[float, float] = (0.001, 0.02)


CALM = Faults()


@dataclass(slots=True)
class _Held:
    """A message that the host has not acknowledged."""

    topic: str
    payload: bytes
    properties: Mapping[str, str]
    mid: int


@dataclass(slots=True)
class LossyBroker:
    """One host session, any number of terminals. `down` receives what a terminal is sent."""

    rng: random.Random
    down: Callable[[str, bytes], None]
    faults: Faults = CALM
    link: MemoryLink | None = None
    held: dict[int, _Held] = field(default_factory=dict)
    _mids: int = 0
    _busy_until: dict[str, float] = field(default_factory=dict)
    known_session: bool = False

    def _chance(self, thousandths: int) -> bool:
        return thousandths > 0 and self.rng.randrange(1000) < thousandths

    def _later(self, way: str, call: Callable[[], None]) -> None:
        """After a delay, in order per way."""
        loop = asyncio.get_running_loop()
        at = max(loop.time() + self.rng.uniform(*self.faults.delay_s), self._busy_until.get(way, 0.0))
        self._busy_until[way] = at + 1e-6
        loop.call_at(at, call)

    # ------------------------------------------------------------ up

    def publish_up(self, topic: str, payload: bytes, properties: Mapping[str, str]) -> None:
        """A terminal's publish. The broker's PUBACK says nothing: the terminal keeps the event until its reply."""
        for _ in range(2 if self._chance(self.faults.duplicate) else 1):
            self._later(topic, lambda: self._accept(topic, payload, properties))

    def _accept(self, topic: str, payload: bytes, properties: Mapping[str, str]) -> None:
        if not self.known_session:
            return  # nobody has subscribed since the broker forgot: the message goes nowhere
        if not qos_of(topic):
            if self.link is not None and self.link.connected:
                self.link.deliver(None, topic, payload, properties)
            return
        self._mids += 1
        held = _Held(topic, payload, properties, self._mids)
        self.held[held.mid] = held
        if self.link is not None and self.link.connected:
            self.link.deliver(held.mid, topic, payload, properties)

    # ------------------------------------------------------------ down

    def publish_down(self, topic: str, payload: bytes) -> None:
        """A publish of the host."""
        if not self._chance(self.faults.lose_down):
            self._later(topic, lambda: self.down(topic, payload))
        if self._chance(self.faults.drop_connection) and self.link is not None:
            self.drop(forget=self._chance(self.faults.forget))

    def drop(self, *, forget: bool = False) -> None:
        """End the host's connection; with `forget` the broker was killed and lost all that it held."""
        if forget:
            self.held.clear()
            self.known_session = False
        link = self.link
        if link is not None:
            asyncio.get_running_loop().call_soon(link.lost)


class MemoryLink:
    """A host's link to the broker. Implements `devices.link.Link`. `point` is where its process may die."""

    def __init__(self, broker: LossyBroker, point: Callable[[str], None]) -> None:
        self._broker = broker
        self._point = point
        self._listener: LinkListener | None = None
        self._epoch = 0
        self._paused = False
        self._waiting: list[Delivery] = []
        self._stopped = False
        self.connected = False
        self.on_ack: Callable[[str, bytes, Mapping[str, str]], None] = lambda *_: None
        self.on_publish: Callable[[str, bytes], None] = lambda *_: None
        self._tasks: set[asyncio.Task[None]] = set()

    def listen(self, listener: LinkListener, filters: Sequence[str]) -> None:
        self._listener = listener

    async def start(self) -> None:
        self._spawn_connect(0.0)

    async def stop(self) -> None:
        self.kill()

    def kill(self) -> None:
        """The process is gone: its socket with it."""
        self._stopped = True
        self.connected = False
        if self._broker.link is self:
            self._broker.link = None

    def _spawn_connect(self, after_s: float) -> None:
        task = asyncio.get_running_loop().create_task(self._connect(after_s))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _connect(self, after_s: float) -> None:
        assert self._listener is not None
        while True:
            await asyncio.sleep(after_s)
            if self._epoch == 0:
                break
            try:
                if not await self._listener.may_reconnect(False):
                    return
                break
            except Exception:  # noqa: BLE001 - asked again after a pause, as the real link does
                after_s = 1.0
        if self._stopped:
            return
        broker = self._broker
        if broker.link is not None and broker.link is not self:
            broker.link.lost()
        present, broker.known_session, broker.link = broker.known_session, True, self
        self._epoch += 1
        self._waiting.clear()
        self.connected = True
        self._listener.connected(self._epoch, present)
        for held in list(broker.held.values()):
            self.deliver(held.mid, held.topic, held.payload, held.properties)

    def lost(self) -> None:
        """The connection ended; comes back by itself."""
        if not self.connected:
            return
        self.connected = False
        if self._broker.link is self:
            self._broker.link = None
        if not self._stopped:
            assert self._listener is not None
            self._listener.disconnected("lost")
            self._spawn_connect(self._broker.rng.uniform(*RECONNECT_S))

    def deliver(self, mid: int | None, topic: str, payload: bytes, properties: Mapping[str, str]) -> None:
        """A message for the host."""
        assert self._listener is not None
        receipt = None if mid is None else DeliveryReceipt(self._epoch, mid)
        delivery = Delivery(topic, payload, properties=properties, receipt=receipt)
        if self._paused:
            self._waiting.append(delivery)
        else:
            self._listener.delivered(delivery)

    async def publish(
        self,
        topic: str,
        payload: bytes,
        *,
        qos: int = 1,
        retain: bool = False,
        expiry_s: int | None = None,
        correlation: bytes | None = None,
        response_topic: str | None = None,
        content_type: str | None = None,
        properties: Mapping[str, str] | None = None,
        timeout_s: float | None = None,
    ) -> None:
        self._point("before_publish")
        if not self.connected:
            raise LinkError("not_connected", "no connection")
        self.on_publish(topic, payload)
        self._broker.publish_down(topic, payload)
        self._point("after_publish")
        await asyncio.sleep(0.001)
        if not self.connected:
            raise LinkError("publish_timeout", "no PUBACK")

    async def publish_all(self, messages: Sequence[Outgoing]) -> int:
        failed = 0
        for message in messages:
            self._point("before_publish")
            if not self.connected:
                failed += 1
                continue
            topic = message.topic[2:].decode()
            self.on_publish(topic, message.payload)
            self._broker.publish_down(topic, message.payload)
            self._point("after_publish")
        await asyncio.sleep(0.001)
        return failed if self.connected else len(messages)

    def ack(self, receipt: DeliveryReceipt) -> bool:
        self._point("before_ack")
        if not self.connected or receipt.epoch != self._epoch:
            return False
        held = self._broker.held.pop(receipt.mid, None)
        if held is not None:
            self.on_ack(held.topic, held.payload, held.properties)
        self._point("after_ack")
        return True

    def pause_reading(self) -> None:
        self._paused = True

    def resume_reading(self) -> None:
        self._paused = False
        waiting, self._waiting = self._waiting, []
        for delivery in waiting:
            if delivery.receipt is not None and delivery.receipt.epoch == self._epoch and self._listener is not None:
                self._listener.delivered(delivery)
