"""MQTT 5 control packets as a device sends them, taken apart: only what the terminal protocol has rules about."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties

PACKET_BYTES_MAX = 1024 * 1024
"""What is longer is no packet of a terminal: the tap ends the connection."""
MQTT_5 = 5


class NotMqtt(ValueError):
    """Bytes that are no MQTT packet."""


@dataclass(frozen=True, slots=True)
class Will:
    """The last will of a CONNECT."""

    topic: str
    payload: bytes
    qos: int
    retain: bool
    delay_s: int


@dataclass(frozen=True, slots=True)
class Connect:
    """CONNECT. Session expiry 0: the session ends with the connection."""

    level: int
    client_id: str
    username: str | None
    clean_start: bool
    keepalive_s: int
    session_expiry_s: int
    will: Will | None


@dataclass(frozen=True, slots=True)
class Subscribe:
    """SUBSCRIBE: (filter, QoS) each."""

    filters: tuple[tuple[str, int], ...]


@dataclass(frozen=True, slots=True)
class Publish:
    """PUBLISH. `expiry_s` None: it says none."""

    topic: str
    payload: bytes
    qos: int
    retain: bool
    expiry_s: int | None
    correlation: bytes | None
    content_type: str | None
    properties: tuple[tuple[str, str], ...]


@dataclass(frozen=True, slots=True)
class Other:
    """A packet without a rule of ours."""

    kind: int


Packet = Connect | Subscribe | Publish | Other


class PacketReader:
    """Cuts a byte stream into packets. Raises NotMqtt."""

    def __init__(self) -> None:
        self._bytes = bytearray()
        self._level = MQTT_5

    def feed(self, data: bytes) -> list[tuple[Packet, int]]:
        """The packets that are complete now, each with its length in bytes."""
        self._bytes += data
        found = []
        while (cut := self._next()) is not None:
            found.append(cut)
        return found

    def _next(self) -> tuple[Packet, int] | None:
        length, at = 0, 1
        while True:
            if at >= len(self._bytes):
                return None
            byte = self._bytes[at]
            length |= (byte & 0x7F) << (7 * (at - 1))
            at += 1
            if not byte & 0x80:
                break
            if at > 4:
                raise NotMqtt("a packet's length has at most four bytes")
        if length > PACKET_BYTES_MAX:
            raise NotMqtt(f"a packet of {length} bytes")
        if len(self._bytes) < at + length:
            return None
        head, body = self._bytes[0], bytes(self._bytes[at : at + length])
        del self._bytes[: at + length]
        try:
            return self._parse(head, body), at + length
        except (IndexError, UnicodeDecodeError, ValueError, KeyError) as error:
            raise NotMqtt(f"a packet of kind {head >> 4} cannot be read: {error}") from error

    def _parse(self, head: int, body: bytes) -> Packet:
        match head >> 4:
            case PacketTypes.CONNECT:
                connect = _connect(_Cursor(body))
                self._level = connect.level
                return connect
            case PacketTypes.SUBSCRIBE if self._level == MQTT_5:
                return _subscribe(_Cursor(body))
            case PacketTypes.PUBLISH if self._level == MQTT_5:
                return _publish(head, _Cursor(body))
            case kind:
                return Other(kind)


class _Cursor:
    def __init__(self, data: bytes) -> None:
        self._data = data
        self._at = 0

    def take(self, count: int) -> bytes:
        if self._at + count > len(self._data):
            raise ValueError("it ends too early")
        self._at += count
        return self._data[self._at - count : self._at]

    def number(self, count: int) -> int:
        return int.from_bytes(self.take(count), "big")

    def blob(self) -> bytes:
        return self.take(self.number(2))

    def text(self) -> str:
        return self.blob().decode()

    def properties(self, kind: int) -> Any:
        found = Properties(kind)  # type: ignore[no-untyped-call]
        try:
            _, used = found.unpack(self._data[self._at :])  # type: ignore[no-untyped-call]
        except Exception as error:  # paho raises several kinds, its own among them
            raise ValueError(f"properties: {error}") from error
        self._at += used
        return found

    @property
    def rest(self) -> bytes:
        return self._data[self._at :]


def _connect(cursor: _Cursor) -> Connect:
    cursor.text()
    level, flags, keepalive = cursor.number(1), cursor.number(1), cursor.number(2)
    properties = cursor.properties(PacketTypes.CONNECT) if level == MQTT_5 else None
    client_id = cursor.text()
    will = None
    if flags & 0x04:
        will_properties = cursor.properties(PacketTypes.WILLMESSAGE) if level == MQTT_5 else None
        topic, payload = cursor.text(), cursor.blob()
        delay_s = getattr(will_properties, "WillDelayInterval", 0)
        will = Will(topic, payload, flags >> 3 & 3, bool(flags & 0x20), delay_s)
    username = cursor.text() if flags & 0x80 else None
    expiry_s = getattr(properties, "SessionExpiryInterval", 0)
    return Connect(level, client_id, username, bool(flags & 0x02), keepalive, expiry_s, will)


def _subscribe(cursor: _Cursor) -> Subscribe:
    cursor.take(2)
    cursor.properties(PacketTypes.SUBSCRIBE)
    filters = []
    while cursor.rest:
        name = cursor.text()
        filters.append((name, cursor.number(1) & 3))
    return Subscribe(tuple(filters))


def _publish(head: int, cursor: _Cursor) -> Publish:
    topic, qos = cursor.text(), head >> 1 & 3
    if qos:
        cursor.take(2)
    properties = cursor.properties(PacketTypes.PUBLISH)
    return Publish(
        topic,
        cursor.rest,
        qos,
        bool(head & 1),
        getattr(properties, "MessageExpiryInterval", None),
        getattr(properties, "CorrelationData", None),
        getattr(properties, "ContentType", None),
        tuple(getattr(properties, "UserProperty", ())),
    )
