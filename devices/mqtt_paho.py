"""What MqttLink needs around paho-mqtt: its settings, a client over our socket, connecting."""

from __future__ import annotations

import asyncio
import socket
import ssl
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from paho.mqtt.client import Client
from paho.mqtt.enums import CallbackAPIVersion, MQTTProtocolVersion
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties
from paho.mqtt.subscribeoptions import SubscribeOptions

from devices.mqtt_socket import BufferedSocket
from devices.topics import qos_of


@dataclass(frozen=True, slots=True)
class Will:
    """What the broker publishes, retained, when this connection ends without a DISCONNECT."""

    topic: str
    payload: bytes
    delay_s: int = 15


@dataclass(frozen=True, slots=True)
class LinkConfig:
    """How to connect. The defaults are those of a host; a terminal's session lasts 3600 s (terminal protocol)."""

    host: str
    port: int
    client_id: str
    username: str | None = None
    password: str | None = None
    tls: ssl.SSLContext | None = None
    keepalive_s: int = 30
    session_expiry_s: int = 600
    clean_start: bool = False
    """Have the broker forget what it kept for this client id: every connection of this link begins anew."""
    receive_messages_max: int = 1000
    packet_bytes_max: int = 300 * 1024
    publish_waiting_max: int = 20_000
    publish_timeout_s: float = 5.0
    connect_timeout_s: float = 5.0
    reconnect_s_min: float = 1.0
    reconnect_s_max: float = 60.0
    stable_after_s: float = 10.0
    """A connection that lasted this long makes the pauses short again; two clients that share an id back off."""


class PahoClient(Client):
    """paho's client over a socket that was opened elsewhere."""

    take_socket: Callable[[], BufferedSocket]

    def _create_socket(self) -> Any:
        return self.take_socket()


def make_client(config: LinkConfig, take_socket: Callable[[], BufferedSocket]) -> PahoClient:
    """A client that speaks MQTT 5, never acknowledges and never reconnects by itself."""
    client = PahoClient(
        CallbackAPIVersion.VERSION2,
        client_id=config.client_id,
        protocol=MQTTProtocolVersion.MQTTv5,
        manual_ack=True,
        reconnect_on_failure=False,
    )
    client.take_socket = take_socket
    # The bound is ours (in flight and waiting); paho's own queue would hide it.
    client.max_inflight_messages_set(0)
    client.max_queued_messages_set(0)
    if config.username is not None:
        client.username_pw_set(config.username, config.password)
    properties = Properties(PacketTypes.CONNECT)  # type: ignore[no-untyped-call]
    properties.SessionExpiryInterval = config.session_expiry_s
    properties.ReceiveMaximum = config.receive_messages_max
    properties.MaximumPacketSize = config.packet_bytes_max
    client.connect_async(
        config.host, config.port, config.keepalive_s, clean_start=config.clean_start, properties=properties
    )
    return client


def set_will(client: Client, will: Will) -> None:
    """Takes effect with the next connection."""
    delay = Properties(PacketTypes.WILLMESSAGE)  # type: ignore[no-untyped-call]
    delay.WillDelayInterval = will.delay_s
    client.will_set(will.topic, will.payload, qos=1, retain=True, properties=delay)


def subscription(text: str) -> tuple[str, SubscribeOptions]:
    """Retained messages come with a new subscription only, not with a repeated one."""
    return text, SubscribeOptions(qos=qos_of(text), retainHandling=SubscribeOptions.RETAIN_SEND_IF_NEW_SUB)


def open_socket(config: LinkConfig) -> socket.socket:
    """Connect TCP and TLS; blocking, so in an executor. Nagle's algorithm off: p50 51 -> 5 ms (architecture.md)."""
    sock = socket.create_connection((config.host, config.port), timeout=config.connect_timeout_s)
    try:
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if config.tls is not None:
            sock = config.tls.wrap_socket(sock, server_hostname=config.host)
        sock.setblocking(False)
    except BaseException:
        sock.close()
        raise
    return sock


def close_late(opening: asyncio.Future[socket.socket]) -> None:
    """Nobody waits any more for this connection."""
    if not opening.cancelled() and opening.exception() is None:
        opening.result().close()
