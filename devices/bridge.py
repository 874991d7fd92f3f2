"""Bridge: a host's side of the wire. Its shards' messages come in through a bounded queue; screens, replies,
desired documents and commands go out, each with the QoS, expiry and correlation of the terminal protocol."""

from __future__ import annotations

import asyncio
import time
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from functools import lru_cache
from typing import Protocol, TypeVar

from devices import codec
from devices.fair_queue import FairQueue
from devices.link import Delivery, DeliveryReceipt, Link, Outgoing
from devices.mqtt_packets import counted
from devices.refusals import Undecodable
from devices.topics import Down, Topic, Up, host_filters, parse, topic_of
from devices.wire import SoftwareRelease
from models.domain.ids import MessageId, RegionId, TerminalId
from models.domain.registry import RegisteredTerminal
from models.domain.screen import ReplyBody, ReplyError, Screen

INBOUND_MESSAGES_HIGH = 4_096
"""Over the hosts' Receive Maximum of 1000; it bounds a broker that does not keep to that. iotcore ignores it, and
mosquitto 2.0.11 sends the whole of a long queue at the first acknowledgement. See `Bridge._publishing`."""
INBOUND_MESSAGES_LOW = 256
TERMINAL_MESSAGES_MAX = 64
"""Of one terminal; what it sends beyond is not taken."""
FACES_WAITING_MAX = 256
"""48 MiB: the broker's Receive Maximum does not bound what comes with QoS 0."""
TURN_MESSAGES = 8
"""Of one terminal, before the next one's turn."""
SCREEN_EXPIRY_S = 60
REPLY_EXPIRY_S = 60
REPEATED = frozenset({Up.EVENT, Up.FACE})
"""What a terminal sends again until its reply."""
COMMAND_DEADLINE_S_MAX = 30
UNDECODABLE_REPLY_EVERY_S = 1.0
_QUIET_TERMINALS_MAX = 10_000

T = TypeVar("T")


@lru_cache(maxsize=65_536)
def _down(terminal: RegisteredTerminal, channel: Down) -> bytes:
    """A topic as a PUBLISH carries it: made once for each terminal, not once for each message."""
    return counted(str(topic_of(terminal, channel)).encode())


@dataclass(frozen=True, slots=True)
class Inbound:
    """One message of a terminal, its topic checked. `ack` it once its effect is durable; None: QoS 0."""

    topic: Topic
    payload: bytes
    correlation: bytes | None
    properties: Mapping[str, str]
    receipt: DeliveryReceipt | None
    retained: bool = False
    at_s: float = field(default_factory=time.monotonic)
    """When it arrived, on the monotonic clock."""


@dataclass(slots=True)
class BridgeCounts:
    """Plain counters, read by health and metrics."""

    inbound: int = 0
    bad_topics: int = 0
    cleared: int = 0
    telemetry_dropped: int = 0
    pauses: int = 0
    undecodable: int = 0
    joined: int = 0
    """Events sent again while the same bytes still waited here."""
    flooded: int = 0
    """Messages of terminals that had TERMINAL_MESSAGES_MAX waiting."""


class BridgeOwner(Protocol):
    """Who hears of the connection. The plain methods run on the event loop and must not block or raise."""

    def connected(self, epoch: int, session_present: bool) -> None:
        """Subscribed. Without `session_present`: publish `desired` and send `resync` to the terminals."""

    def disconnected(self, reason: str) -> None:
        """The bridge connects again by itself; what was not acknowledged comes again."""

    async def may_reconnect(self, taken_over: bool) -> bool:
        """The connection was lost: read the epoch. True to connect again, False when fenced.

        `taken_over`: the broker said that somebody has this host's client id; mosquitto 2.0.11 does not say it.
        If it raises, it is asked again after a jittered pause.
        """


class Bridge:
    """What a host uses. Implements `devices.link.LinkListener`."""

    def __init__(
        self,
        link: Link,
        region: RegionId,
        shards: Collection[int],
        owner: BridgeOwner | None = None,
        *,
        inbound_messages_high: int = INBOUND_MESSAGES_HIGH,
        inbound_messages_low: int = INBOUND_MESSAGES_LOW,
    ) -> None:
        """Over `inbound_messages_high` waiting messages the bridge stops reading, until `inbound_messages_low`, unless
        it waits for acknowledgements itself.

        The link's Receive Maximum bounds what may still arrive then.
        """
        if not 0 <= inbound_messages_low < inbound_messages_high:
            raise ValueError("0 <= inbound_messages_low < inbound_messages_high")
        self.counts = BridgeCounts()
        self._link = link
        self._region = region
        self._shards = frozenset(shards)
        self._owner = owner
        self._high = inbound_messages_high
        self._low = inbound_messages_low
        self._queue: FairQueue[TerminalId, Inbound] = FairQueue(TERMINAL_MESSAGES_MAX, TURN_MESSAGES)
        self._again: dict[DeliveryReceipt, list[DeliveryReceipt]] = {}
        self._arrived = asyncio.Event()
        self._paused = False
        self._faces = 0
        self._publishing = 0
        """What waits for the broker's acknowledgement. Those come on the same socket, behind the messages: while any
        is waited for the bridge reads on, or a host that thaws before a long queue would never get one."""
        self._quiet_until: OrderedDict[str, float] = OrderedDict()
        link.listen(self, host_filters(region, self._shards))

    async def start(self) -> None:
        """Begin to connect. Returns at once; `owner.connected` says when."""
        await self._link.start()

    async def stop(self) -> None:
        """Disconnect in order. What was not acknowledged comes again to the next connection of this client id."""
        await self._link.stop()

    # ------------------------------------------------------------ in

    @property
    def waiting(self) -> int:
        """Messages in the queue."""
        return len(self._queue)

    async def arrival(self) -> None:
        """Return once a message waits; takes nothing."""
        while not self._queue:
            self._arrived.clear()
            await self._arrived.wait()

    async def receive(self) -> Inbound:
        """The next message, waiting for it."""
        await self.arrival()
        return self._take(1)[0]

    def take(self, messages_max: int) -> list[Inbound]:
        """What waits now, at most so many; possibly nothing. Terminals in turn, each one's messages in their order."""
        return self._take(messages_max)

    async def batch(self, messages_max: int = 256, collect_s: float = 0.002) -> list[Inbound]:
        """At least one message: waits for the first, then collects for `collect_s` or until the batch is full."""
        first = await self.receive()
        if len(self._queue) + 1 < messages_max and collect_s > 0:
            await asyncio.sleep(collect_s)
        return [first, *self._take(messages_max - 1)]

    def ack(self, inbound: Inbound) -> bool:
        """Acknowledge after the commit. False when its connection has ended: it will be delivered again."""
        if inbound.receipt is None:
            return False
        if self._again:
            for again in self._again.pop(inbound.receipt, ()):
                self._link.ack(again)
        return self._link.ack(inbound.receipt)

    def _take(self, messages_max: int) -> list[Inbound]:
        taken = self._queue.take(messages_max)
        self._faces -= sum(one.topic.channel is Up.FACE for one in taken)
        if self._paused and len(self._queue) <= self._low:
            self._paused = False
            self._link.resume_reading()
        return taken

    async def _acknowledged(self, publishing: Awaitable[T]) -> T:
        self._publishing += 1
        if self._paused:
            self._link.resume_reading()
        try:
            return await publishing
        finally:
            self._publishing -= 1
            if self._paused and not self._publishing:
                self._link.pause_reading()

    def delivered(self, delivery: Delivery) -> None:
        try:
            topic = parse(delivery.topic)
        except Undecodable:
            self.counts.bad_topics += 1
            self._drop(delivery)
            return
        if topic.region != self._region or topic.shard not in self._shards or not isinstance(topic.channel, Up):
            self.counts.bad_topics += 1
            self._drop(delivery)
        elif not delivery.payload and topic.channel in (Up.PRESENCE, Up.REPORTED):
            # An empty retained message clears the topic of a retired terminal; it says nothing.
            self.counts.cleared += 1
            self._drop(delivery)
        elif delivery.receipt is None and self._paused and topic.channel not in REPEATED:
            self.counts.telemetry_dropped += 1
        elif topic.channel is Up.FACE and self._faces >= FACES_WAITING_MAX:
            self.counts.flooded += 1
            self._drop(delivery)
        elif topic.channel is Up.EVENT and self._joins(topic, delivery):
            self.counts.joined += 1
        elif self._queue.full(topic.terminal) and not self._make_room(topic):
            self._drop(delivery)
        else:
            self._queue.put(
                topic.terminal,
                Inbound(
                    topic,
                    delivery.payload,
                    delivery.correlation,
                    delivery.properties,
                    delivery.receipt,
                    delivery.retained,
                ),
            )
            self.counts.inbound += 1
            self._faces += topic.channel is Up.FACE
            self._arrived.set()
            if not self._paused and len(self._queue) >= self._high:
                self._paused = True
                self.counts.pauses += 1
                if not self._publishing:
                    self._link.pause_reading()

    def _joins(self, topic: Topic, delivery: Delivery) -> bool:
        """True for an event sent again whose first bytes nobody has looked at yet: one reply answers both, and it is
        acknowledged with the first. What came on a connection that has ended is about to be forgotten.
        """
        again = delivery.receipt
        if again is None:
            return False
        for one in self._queue.line(topic.terminal):
            if one.payload == delivery.payload and one.topic == topic:
                first = one.receipt
                if first is not None and first.epoch == again.epoch:
                    self._again.setdefault(first, []).append(again)
                    return True
        return False

    def _make_room(self, topic: Topic) -> bool:
        """A terminal that floods. An event or a face is left out: it is sent again until its reply, 5 s later and
        later. Of what a terminal says of itself the oldest is left out: the newest counts, and nobody repeats it.
        """
        self.counts.flooded += 1
        if topic.channel in REPEATED:
            return False
        old = self._queue.take_first(topic.terminal, lambda one: one.topic.channel is topic.channel)
        if old is not None:
            self.ack(old)
        return True  # at most one of each channel beyond the bound

    def _drop(self, delivery: Delivery) -> None:
        """Nobody can be answered and nothing can be done: counted, and off the broker's books."""
        if delivery.receipt is not None:
            self._link.ack(delivery.receipt)

    # ------------------------------------------------------------ the connection

    def connected(self, epoch: int, session_present: bool) -> None:
        # What waits belongs to a connection that has ended; it is delivered again on this one. A face is not: it is
        # left to its terminal all the same, for the consent before it may be among what comes again.
        self._again.clear()
        self._queue.keep(lambda item: item.receipt is not None and item.receipt.epoch == epoch)
        self._faces = 0
        self._take(0)
        if self._owner is not None:
            self._owner.connected(epoch, session_present)

    def disconnected(self, reason: str) -> None:
        if self._owner is not None:
            self._owner.disconnected(reason)

    async def may_reconnect(self, taken_over: bool) -> bool:
        return True if self._owner is None else await self._owner.may_reconnect(taken_over)

    # ------------------------------------------------------------ out: each returns at the broker's PUBACK

    async def publish_reply(self, terminal: RegisteredTerminal, reply: ReplyBody) -> None:
        """`down/reply`: QoS 1, 60 s, correlation data = the event's id. Raises LinkError."""
        await self._acknowledged(
            self._link.publish(
                str(topic_of(terminal, Down.REPLY)),
                codec.encode_reply(reply),
                expiry_s=REPLY_EXPIRY_S,
                correlation=None if reply.id is None else reply.id.encode("ascii"),
            )
        )

    async def publish_screen(self, terminal: RegisteredTerminal, screen: Screen) -> None:
        """`down/screen`: QoS 1, 60 s, not retained. Raises LinkError."""
        await self.publish_screen_bytes(terminal, codec.encode_screen(screen))

    async def publish_screen_bytes(self, terminal: RegisteredTerminal, encoded: bytes) -> None:
        """The same, encoded once for all screens of a lane."""
        await self._acknowledged(
            self._link.publish(str(topic_of(terminal, Down.SCREEN)), encoded, expiry_s=SCREEN_EXPIRY_S)
        )

    def screen_message(self, terminal: RegisteredTerminal, encoded: bytes) -> Outgoing:
        """A screen for `publish_all`."""
        return Outgoing(_down(terminal, Down.SCREEN), encoded, SCREEN_EXPIRY_S)

    def reply_message(self, terminal: RegisteredTerminal, reply: ReplyBody) -> Outgoing:
        """A reply for `publish_all`."""
        correlation = None if reply.id is None else reply.id.encode("ascii")
        return Outgoing(_down(terminal, Down.REPLY), codec.encode_reply(reply), REPLY_EXPIRY_S, correlation)

    async def publish_all(self, messages: Sequence[Outgoing]) -> int:
        """A batch's screens and replies, in this order; returns how many the broker did not take. No time-out."""
        return await self._acknowledged(self._link.publish_all(messages))

    async def publish_desired(
        self,
        terminal: RegisteredTerminal,
        gen: int,
        config: Mapping[str, object],
        software: SoftwareRelease | None = None,
    ) -> None:
        """`down/desired`: QoS 1, retained, the whole document. Raises LinkError."""
        await self._acknowledged(
            self._link.publish(
                str(topic_of(terminal, Down.DESIRED)), codec.encode_desired(gen, config, software), retain=True
            )
        )

    async def publish_command(
        self,
        terminal: RegisteredTerminal,
        command: MessageId,
        verb: str,
        args: Mapping[str, str | int],
        deadline: timedelta,
    ) -> None:
        """`down/command`: QoS 1, never retained, expiry = the deadline (1 to 30 s). Raises LinkError.

        Its response topic is the terminal's own `up/response`: a terminal ignores any other.
        """
        expiry_s = min(COMMAND_DEADLINE_S_MAX, max(1, int(deadline.total_seconds())))
        await self._acknowledged(
            self._link.publish(
                str(topic_of(terminal, Down.COMMAND)),
                codec.encode_command(command, verb, args),
                expiry_s=expiry_s,
                correlation=command.encode("ascii"),
                response_topic=str(topic_of(terminal, Up.RESPONSE)),
            )
        )

    async def clear_retained(self, terminal: RegisteredTerminal) -> None:
        """A terminal was retired: clear what the broker retains for it. Raises LinkError."""
        for channel in (Up.PRESENCE, Up.REPORTED, Down.DESIRED):
            await self._acknowledged(self._link.publish(str(topic_of(terminal, channel)), b"", retain=True))

    async def publish_undecodable(
        self,
        terminal: RegisteredTerminal,
        refusal: Undecodable,
        monotonic: Callable[[], float] | None = None,
    ) -> bool:
        """Answer bytes that could not be decoded. With an id: a reply as to any event.

        Without one: `id: null`, at most one a second for each terminal; False when it was left out. Raises LinkError.
        """
        self.counts.undecodable += 1
        if refusal.id is None:
            now = (monotonic or asyncio.get_running_loop().time)()
            if now < self._quiet_until.get(terminal.terminal, now):
                return False
            self._quiet_until[terminal.terminal] = now + UNDECODABLE_REPLY_EVERY_S
            self._quiet_until.move_to_end(terminal.terminal)
            while len(self._quiet_until) > _QUIET_TERMINALS_MAX:
                self._quiet_until.popitem(last=False)
        error = ReplyError(refusal.code, refusal.message, refusal.do)
        await self.publish_reply(terminal, ReplyBody(refusal.id, ok=False, error=error))
        return True
