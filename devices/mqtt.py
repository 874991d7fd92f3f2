"""MqttLink: paho-mqtt 2 driven by the running asyncio loop, MQTT 5, manual acknowledgement.

paho opens the session, subscribes and pings; PUBLISH and PUBACK, nearly all of the traffic, are read and written by
`mqtt_packets`. Everything happens on the event loop's thread; only the opening of the TCP (and TLS) connection runs in
an executor. Nothing is sent twice by this file: a publish that was not acknowledged before its connection ended fails,
and who wanted it (the outbox, the session's screen revision) sends it again.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from paho.mqtt.client import Client, ConnectFlags, DisconnectFlags
from paho.mqtt.enums import MQTTErrorCode
from paho.mqtt.properties import Properties
from paho.mqtt.reasoncodes import ReasonCode

from devices.link import Delivery, DeliveryReceipt, LinkError, LinkListener, Outgoing
from devices.mqtt_packets import (
    PUBACK,
    PUBLISH,
    IncomingPublish,
    counted,
    frame,
    puback_packet,
    publish_packet,
    publish_properties,
    read_puback,
    read_publish,
)
from devices.mqtt_paho import (
    LinkConfig,
    Will,
    close_late,
    make_client,
    open_socket,
    set_will,
    subscription,
)
from devices.mqtt_socket import BufferedSocket
from devices.mqtt_window import Acknowledgements, PublishWindow
from devices.topics import filters_before

__all__ = ["LinkConfig", "LinkCounts", "MqttLink", "Will"]

SESSION_TAKEN_OVER = 0x8E
_READ_PACKETS_MAX = 256
_FILTERS_PER_SUBSCRIBE_MAX = 64
_HEADER_BYTES_MAX = 5


@dataclass(slots=True)
class LinkCounts:
    """Plain counters, read by health and metrics."""

    connections: int = 0
    connect_failures: int = 0
    takeovers: int = 0
    deliveries: int = 0
    acks: int = 0
    acks_dropped: int = 0
    publishes: int = 0
    publish_failures: int = 0
    protocol_errors: int = 0


class MqttLink:
    """One MQTT client. Implements `devices.link.Link`."""

    def __init__(self, config: LinkConfig, will: Callable[[], Will] | None = None) -> None:
        """`will` is asked before every connection, because a Will names its connection."""
        self.config = config
        self.counts = LinkCounts()
        self.epoch = 0
        self._will = will
        self._listener: LinkListener | None = None
        self._filters: tuple[str, ...] = ()
        self._client = make_client(config, self._take_socket)
        self._bind()
        self._socket: BufferedSocket | None = None
        self._opened: BufferedSocket | None = None
        self._online = False
        self._closing = False
        self._reading = True
        self._allowed = asyncio.Event()
        self._allowed.set()
        self._down = asyncio.Event()
        self._connack: asyncio.Future[bool] | None = None
        self._subacks: dict[int, asyncio.Future[None]] = {}
        self._window = PublishWindow(config.receive_messages_max, config.publish_waiting_max)
        self._peer_packet_bytes_max = 2**28 - 1
        self._flush_scheduled = False
        self._writer_on = False
        self._ended_by = 0
        self._task: asyncio.Task[None] | None = None
        self._ticker: asyncio.Task[None] | None = None

    # ------------------------------------------------------------ life

    def listen(self, listener: LinkListener, filters: Sequence[str]) -> None:
        for text in filters:
            if "#" in text.removesuffix("/#") or not text:
                raise ValueError(f"{text!r} is no topic filter")
        self._listener = listener
        self._filters = tuple(filters)

    @property
    def online(self) -> bool:
        """True between the broker's CONNACK and the end of the connection."""
        return self._online

    async def start(self) -> None:
        if self._listener is None:
            raise RuntimeError("listen() comes before start()")
        self._loop = asyncio.get_running_loop()
        self._task = self._loop.create_task(self._run(), name=f"mqtt {self.config.client_id}")
        self._ticker = self._loop.create_task(self._tick(), name=f"mqtt tick {self.config.client_id}")

    async def stop(self) -> None:
        self._closing = True
        if self._socket is not None and self._online:
            self._client.disconnect()
            self._flush()
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._down.wait(), 1.0)
        for task in (self._task, self._ticker):
            if task is not None:
                task.cancel()
                with contextlib.suppress(asyncio.CancelledError):
                    await task
        self._abort()

    def drop(self) -> None:
        """Cut the network: the socket closes without a DISCONNECT, so the Will will be published. Until restore()."""
        self._allowed.clear()
        self._loop.call_soon(self._abort)

    def restore(self) -> None:
        """The network is back; connect now."""
        self._allowed.set()

    async def _run(self) -> None:
        attempt = 0
        while True:
            await self._allowed.wait()
            began = self._loop.time()
            self._ended_by = 0
            try:
                await self._connect()
            except Exception as error:  # noqa: BLE001 - whatever it is, a link goes on trying, and says why
                self.counts.connect_failures += 1
                self._abort()
                self._listener_().disconnected(f"not connected: {type(error).__name__} {error}")
                lost = False
            else:
                await self._down.wait()
                lost = True
            if self._closing:
                return
            attempt = 0 if self._loop.time() - began >= self.config.stable_after_s else attempt + 1
            if lost and not await self._may_reconnect(attempt):
                return
            if self._allowed.is_set():
                await self._pause(attempt)

    async def _may_reconnect(self, attempt: int) -> bool:
        taken_over = self._ended_by == SESSION_TAKEN_OVER
        self.counts.takeovers += taken_over
        while True:
            try:
                return await self._listener_().may_reconnect(taken_over)
            except Exception:  # noqa: BLE001 - it cannot know now (a database is away): ask again
                self.counts.connect_failures += 1
                await self._pause(attempt)

    async def _pause(self, attempt: int) -> None:
        """Full jitter: thousands of clients must not come back in step. Not a secret."""
        ceiling = min(self.config.reconnect_s_max, self.config.reconnect_s_min * 2.0 ** min(attempt, 16))
        await asyncio.sleep(random.uniform(0, ceiling))  # noqa: S311

    async def _tick(self) -> None:
        """Pings, and notices a peer that has gone silent."""
        while True:
            await asyncio.sleep(min(1.0, self.config.keepalive_s / 4))
            if self._socket is not None:
                self._client.loop_misc()

    # ------------------------------------------------------------ connecting

    async def _connect(self) -> None:
        opening = self._loop.run_in_executor(None, open_socket, self.config)
        try:
            sock = await asyncio.shield(opening)
        except asyncio.CancelledError:
            opening.add_done_callback(close_late)
            raise
        self._opened = BufferedSocket(sock)
        self._opened.paused = not self._reading
        self._down.clear()
        self._connack = self._loop.create_future()
        if self._will is not None:
            set_will(self._client, self._will())
        self._client.reconnect()
        async with asyncio.timeout(self.config.connect_timeout_s):
            session_present = await self._connack
            # In on_connect's wake, on every connection; a retained message comes only with a new subscription.
            for first in range(0, len(self._filters), _FILTERS_PER_SUBSCRIBE_MAX):
                await self._subscribe(self._filters[first : first + _FILTERS_PER_SUBSCRIBE_MAX])
        if session_present:
            self._unsubscribe(filters_before(self._filters))
        self.counts.connections += 1
        self._listener_().connected(self.epoch, session_present)

    async def _subscribe(self, filters: tuple[str, ...]) -> None:
        code, mid = self._client.subscribe([subscription(text) for text in filters])
        if code != MQTTErrorCode.MQTT_ERR_SUCCESS or mid is None:
            raise LinkError("not_connected", "the connection ended before the subscription")
        self._subacks[mid] = self._loop.create_future()
        await self._subacks[mid]

    def _unsubscribe(self, filters: list[str]) -> None:
        """Nobody waits for it: if it gets lost, the next connection does it."""
        for first in range(0, len(filters), _FILTERS_PER_SUBSCRIBE_MAX):
            self._client.unsubscribe(filters[first : first + _FILTERS_PER_SUBSCRIBE_MAX])

    def _take_socket(self) -> BufferedSocket:
        opened = self._opened
        assert opened is not None, "paho connects only through _connect()"
        self._opened = None
        return opened

    def _listener_(self) -> LinkListener:
        assert self._listener is not None, "start() checked it"
        return self._listener

    # ------------------------------------------------------------ publishing and acknowledging

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
        packed = publish_properties(expiry_s, content_type, response_topic, correlation, properties)
        name = counted(topic.encode())
        try:
            async with asyncio.timeout(self.config.publish_timeout_s if timeout_s is None else timeout_s):
                while qos and self._window.full:
                    await self._window.place()
                acknowledged = Acknowledgements(1)
                self._publish(name, packed, payload, qos, retain, acknowledged)
                if qos:
                    await acknowledged.all
        except TimeoutError:
            self.counts.publish_failures += 1
            raise LinkError("publish_timeout", f"no PUBACK in time for {topic}") from None
        except LinkError:
            self.counts.publish_failures += 1
            raise
        if acknowledged.error is not None:
            self.counts.publish_failures += 1
            raise acknowledged.error

    async def publish_all(self, messages: Sequence[Outgoing]) -> int:
        acknowledged = Acknowledgements(len(messages))
        for message in messages:
            packed = publish_properties(message.expiry_s, correlation=message.correlation)
            try:
                while self._window.full:
                    await self._window.place()
                self._publish(message.topic, packed, message.payload, 1, False, acknowledged)
            except LinkError as error:
                acknowledged.one(error)
        if messages:
            await acknowledged.all
        self.counts.publish_failures += acknowledged.failed
        return acknowledged.failed

    def _publish(
        self,
        topic: bytes,
        properties: bytes,
        payload: bytes,
        qos: int,
        retain: bool,
        acknowledged: Acknowledgements,
    ) -> None:
        sock = self._socket
        if not self._online or sock is None:
            raise LinkError("not_connected", "no connection to the broker")
        if len(topic) + len(properties) + len(payload) + _HEADER_BYTES_MAX + 2 > self._peer_packet_bytes_max:
            raise LinkError("packet_too_large", f"the broker takes {self._peer_packet_bytes_max} bytes at most")
        mid = self._window.take(acknowledged) if qos else 0
        sock.send(publish_packet(topic, properties, payload, qos, mid, retain))
        self._want_write()
        self.counts.publishes += 1

    def ack(self, receipt: DeliveryReceipt) -> bool:
        if receipt.epoch != self.epoch or not self._online:
            self.counts.acks_dropped += 1
            return False
        assert self._socket is not None, "online"
        self._socket.send(puback_packet(receipt.mid))
        self._want_write()
        self.counts.acks += 1
        return True

    # ------------------------------------------------------------ the socket, by the event loop

    def pause_reading(self) -> None:
        if self._reading:
            self._reading = False
            if self._socket is not None:
                self._socket.paused = True
                self._loop.remove_reader(self._socket.fileno())

    def resume_reading(self) -> None:
        if not self._reading:
            self._reading = True
            if self._socket is not None:
                self._socket.paused = False
                self._loop.add_reader(self._socket.fileno(), self._readable)
                self._loop.call_soon(self._readable)

    def _readable(self) -> None:
        sock = self._socket
        if sock is None or sock.paused:
            return
        try:
            while sock.fill():
                pass
            for _ in range(_READ_PACKETS_MAX):
                found = frame(sock.ahead, sock.at) if sock.at < len(sock.ahead) else None
                if found is None:
                    break
                self._packet(sock, *found)
                if self._socket is not sock or sock.paused:
                    return
            else:
                self._loop.call_soon(self._readable)
                return
            if sock.ended:
                self._client.loop_read()
            elif len(sock.ahead) - sock.at > self.config.packet_bytes_max + _HEADER_BYTES_MAX:
                self.counts.protocol_errors += 1
                self._abort()
        except Exception:  # noqa: BLE001 - a packet that nobody can take apart: this connection is of no use
            self.counts.protocol_errors += 1
            self._abort()

    def _packet(self, sock: BufferedSocket, body: int, end: int) -> None:
        first = sock.ahead[sock.at]
        kind = first & 0xF0
        if kind == PUBLISH and self._online:
            sock.at = end
            self._incoming(read_publish(first, sock.ahead, body, end))
        elif kind == PUBACK and self._online:
            sock.at = end
            self._window.acknowledged(*read_puback(sock.ahead, body, end))
        else:
            sock.give_to_paho(end)
            self._client.loop_read()

    def _want_write(self) -> None:
        # At the end of this turn of the loop, so that what one batch publishes leaves in one call.
        if not self._flush_scheduled:
            self._flush_scheduled = True
            self._loop.call_soon(self._flush)

    def _flush(self) -> None:
        self._flush_scheduled = False
        sock = self._socket
        if sock is None:
            return
        self._client.loop_write()
        if self._socket is not sock:
            return
        try:
            done = sock.flush()
        except OSError:
            self._abort()
            return
        if not done and not self._writer_on:
            self._writer_on = True
            self._loop.add_writer(sock.fileno(), self._flush)
        elif done and self._writer_on:
            self._writer_on = False
            self._loop.remove_writer(sock.fileno())

    def _abort(self) -> None:
        """End the connection without a word. Never from inside one of paho's callbacks: it holds a lock there."""
        if self._opened is not None:
            self._opened.close()
            self._opened = None
        if self._socket is not None:
            self._socket.paused = False
            self._socket.kill()
            self._client.loop_read()

    # ------------------------------------------------------------ the two busy packets

    def _incoming(self, packet: IncomingPublish) -> None:
        self.counts.deliveries += 1
        self._listener_().delivered(
            Delivery(
                topic=packet.topic,
                payload=packet.payload,
                retained=packet.retained,
                correlation=packet.correlation,
                response_topic=packet.response_topic,
                properties=packet.properties,
                receipt=None if packet.mid is None else DeliveryReceipt(self.epoch, packet.mid),
            )
        )

    # ------------------------------------------------------------ paho's callbacks: short, never raising

    def _bind(self) -> None:
        client = self._client
        client.on_connect = self._on_connect
        client.on_disconnect = self._on_disconnect
        client.on_subscribe = self._on_subscribe
        client.on_socket_open = self._on_socket_open
        client.on_socket_close = self._on_socket_close
        client.on_socket_register_write = lambda *_: self._want_write()
        client.on_socket_unregister_write = lambda *_: None

    def _on_socket_open(self, _client: Client, _userdata: Any, sock: Any) -> None:
        self._socket = sock
        self._writer_on = False
        if self._reading:
            self._loop.add_reader(sock.fileno(), self._readable)

    def _on_socket_close(self, _client: Client, _userdata: Any, sock: Any) -> None:
        self._loop.remove_reader(sock.fileno())
        self._loop.remove_writer(sock.fileno())
        self._socket = None

    def _on_connect(
        self, _client: Client, _userdata: Any, flags: ConnectFlags, code: ReasonCode, properties: Properties | None
    ) -> None:
        connack = self._connack
        if connack is None or connack.done():
            return
        if code.is_failure:
            connack.set_exception(LinkError("connect_refused", f"the broker refused the connection: {code}"))
            return
        self.epoch += 1
        self._online = True
        server_max = getattr(properties, "ReceiveMaximum", 65535)
        self._window.opened(min(server_max, self.config.receive_messages_max))
        self._peer_packet_bytes_max = getattr(properties, "MaximumPacketSize", 2**28 - 1)
        connack.set_result(flags.session_present)

    def _on_disconnect(
        self, _client: Client, _userdata: Any, flags: DisconnectFlags, code: ReasonCode, _properties: Properties | None
    ) -> None:
        was_online, self._online = self._online, False
        if flags.is_disconnect_packet_from_server:
            self._ended_by = code.value
        lost = LinkError("not_connected", f"the connection ended: {code}")
        waiting = [self._connack, *self._subacks.values()]
        self._subacks.clear()
        for future in waiting:
            if future is not None and not future.done():
                future.set_exception(lost)
                # Its caller may have given up already; then nobody is left to hear of it.
                future.exception()
        self._window.closed(lost)
        self._down.set()
        if was_online:
            self._listener_().disconnected(str(code))

    def _on_subscribe(
        self, _client: Client, _userdata: Any, mid: int, codes: list[ReasonCode], _properties: Properties | None
    ) -> None:
        subscribed = self._subacks.pop(mid, None)
        if subscribed is None or subscribed.done():
            return
        refused = [str(code) for code in codes if code.is_failure]
        if refused:
            subscribed.set_exception(LinkError("subscribe_refused", f"the broker refused: {refused[0]}"))
        else:
            subscribed.set_result(None)
