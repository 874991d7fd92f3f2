"""What the rest of `devices` needs of an MQTT client, so that a simulation can stand in for one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple, Protocol

from models.domain.errors import RetryLater


class LinkError(RetryLater):
    """The broker did not take a message, or will not: nothing is known to have happened; try again later.

    Codes: not_connected, publish_timeout, publish_refused (a reason code >= 0x80), packet_too_large,
    publish_queue_full, connect_refused, subscribe_refused.
    """


@dataclass(frozen=True, slots=True)
class DeliveryReceipt:
    """What an acknowledgement needs. Worth nothing once the connection `epoch` has ended."""

    epoch: int
    mid: int


@dataclass(frozen=True, slots=True)
class Delivery:
    """One message as the broker delivered it. `receipt` is None for QoS 0: there is nothing to acknowledge."""

    topic: str
    payload: bytes
    retained: bool = False
    correlation: bytes | None = None
    response_topic: str | None = None
    properties: Mapping[str, str] = field(default_factory=dict)
    receipt: DeliveryReceipt | None = None


class Outgoing(NamedTuple):
    """One QoS 1 message of a batch. `topic` comes as bytes with its length before it, made once for each terminal."""

    topic: bytes
    payload: bytes
    expiry_s: int | None = None
    correlation: bytes | None = None


class LinkListener(Protocol):
    """Who hears from a link. The plain methods are called on the event loop: they must not block or raise."""

    def delivered(self, delivery: Delivery) -> None:
        """A message. It stays the broker's until it is acknowledged."""

    def connected(self, epoch: int, session_present: bool) -> None:
        """Connected and subscribed. Without `session_present` the broker has forgotten what it held for us."""

    def disconnected(self, reason: str) -> None:
        """The connection ended or could not be made; the link tries again by itself."""

    async def may_reconnect(self, taken_over: bool) -> bool:
        """Asked after each connection that ended by itself, before the next attempt; False: never connect again.

        `taken_over`: another client came with our client id (0x8E). Not every broker says so (mosquitto 2.0.11 only
        closes the socket), so whoever must not fight a successor looks after every loss. If it raises, it is asked
        again after a jittered pause.
        """


class Link(Protocol):
    """An MQTT 5 client with manual acknowledgement and its own reconnection."""

    def listen(self, listener: LinkListener, filters: Sequence[str]) -> None:
        """Name the listener and the subscriptions of every connection (QoS: `topics.qos_of`); once, before start()."""

    async def start(self) -> None:
        """Begin to connect, and keep connected until stop(). Returns at once."""

    async def stop(self) -> None:
        """Disconnect in order: the broker discards the Will."""

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
        """Return when the broker has acknowledged (QoS 1) or the bytes were queued (QoS 0). Raises LinkError.

        PUBACK means that the broker has it, nothing more.
        """

    async def publish_all(self, messages: Sequence[Outgoing]) -> int:
        """Publish a batch in this order, QoS 1; return at the last PUBACK how many were not taken. Raises nothing of
        its own and has no time-out: who calls bounds it.
        """
        ...

    def ack(self, receipt: DeliveryReceipt) -> bool:
        """Acknowledge a delivery. False, and nothing is sent, when its connection has ended: it comes again."""

    def pause_reading(self) -> None:
        """Back-pressure: stop reading the socket."""

    def resume_reading(self) -> None:
        """Read again."""
