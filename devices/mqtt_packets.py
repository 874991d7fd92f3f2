"""PUBLISH and PUBACK of MQTT 5 as bytes, both ways: the two packets that a busy link exchanges.

paho builds an object with a lock and a condition for each message that goes out, a reason code and a property table
for each acknowledgement that comes back: more than everything else a host does for a message. So these two packets
are written and read here (MQTT 5.0 sections 3.3 and 3.4); every other packet is paho's.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping
from typing import NamedTuple

PUBLISH, PUBACK = 0x30, 0x40
SUCCESS = 0x00
REFUSED_FROM = 0x80
"""Reason codes from here on say that the broker did not take it."""
_NO_PROPERTIES: Mapping[str, str] = {}


class MalformedPacket(Exception):
    """What came is no MQTT 5 packet: its connection is of no use any more."""


class IncomingPublish(NamedTuple):
    """One PUBLISH as it came. `topic` is empty when it is no UTF-8. `mid` is None for QoS 0."""

    topic: str
    payload: bytes
    mid: int | None
    retained: bool
    correlation: bytes | None
    response_topic: str | None
    properties: Mapping[str, str]


def varint(number: int) -> bytes:
    """MQTT 5 section 1.5.5: seven bits a byte, the least first."""
    if number < 0x80:
        return number.to_bytes(1, "big")
    out = bytearray()
    while True:
        number, low = divmod(number, 128)
        out.append(low | (0x80 if number else 0))
        if not number:
            return bytes(out)


def counted(data: bytes) -> bytes:
    """Data with its length in two bytes before it. Raises struct.error above 65,535 bytes."""
    return struct.pack("!H", len(data)) + data


def publish_properties(
    expiry_s: int | None = None,
    content_type: str | None = None,
    response_topic: str | None = None,
    correlation: bytes | None = None,
    user: Mapping[str, str] | None = None,
) -> bytes:
    """The properties of a PUBLISH, their length before them."""
    packed = b"" if expiry_s is None else b"\x02" + expiry_s.to_bytes(4, "big")
    if content_type is not None:
        packed += b"\x03" + counted(content_type.encode())
    if response_topic is not None:
        packed += b"\x08" + counted(response_topic.encode())
    if correlation is not None:
        packed += b"\x09" + counted(correlation)
    for name, value in (user or _NO_PROPERTIES).items():
        packed += b"\x26" + counted(name.encode()) + counted(value.encode())
    return varint(len(packed)) + packed


def publish_packet(topic: bytes, properties: bytes, payload: bytes, qos: int, mid: int, retain: bool) -> bytes:
    """A whole PUBLISH of QoS 0 or 1. `topic` and `properties` come with their lengths before them."""
    first = PUBLISH | qos << 1 | (1 if retain else 0)
    number = mid.to_bytes(2, "big") if qos else b""
    size = varint(len(topic) + len(number) + len(properties) + len(payload))
    return b"".join((first.to_bytes(1, "big"), size, topic, number, properties, payload))


def puback_packet(mid: int) -> bytes:
    """A whole PUBACK: success, which needs no reason code (section 3.4.2.1)."""
    return b"\x40\x02" + mid.to_bytes(2, "big")


def read_puback(packet: bytes, at: int, end: int) -> tuple[int, int]:
    """Packet identifier and reason code. Raises MalformedPacket."""
    if end - at < 2:
        raise MalformedPacket("a PUBACK without a packet identifier")
    return packet[at] << 8 | packet[at + 1], packet[at + 2] if end - at > 2 else SUCCESS


def read_publish(first: int, packet: bytes, at: int, end: int) -> IncomingPublish:
    """What stands between `at` and `end` of a packet whose first byte is `first`. Raises MalformedPacket."""
    try:
        name_end = at + 2 + (packet[at] << 8 | packet[at + 1])
        topic = _topic(packet[at + 2 : name_end])
        mid = None
        at = name_end
        if first & 0x06:
            if first & 0x04:
                raise MalformedPacket("nobody asked for QoS 2")
            mid = packet[at] << 8 | packet[at + 1]
            at += 2
        size, at = _varint(packet, at, end)
        body = at + size
        if body > end:
            raise MalformedPacket("properties longer than their packet")
        retained = bool(first & 0x01)
        if not size:
            return IncomingPublish(topic, packet[at:end], mid, retained, None, None, _NO_PROPERTIES)
        return IncomingPublish(topic, packet[body:end], mid, retained, *_properties(packet, at, body))
    except (IndexError, struct.error) as error:
        raise MalformedPacket(f"a PUBLISH that ends too early: {error}") from error


def frame(packet: bytes, at: int) -> tuple[int, int] | None:
    """Where the body of the packet that begins at `at` begins and ends; None until all of it is there.

    Raises MalformedPacket for a length of more than four bytes.
    """
    size, shift, body, there = 0, 0, at + 1, len(packet)
    while True:
        if body >= there:
            return None
        byte = packet[body]
        body += 1
        size |= (byte & 0x7F) << shift
        if byte < 0x80:
            break
        shift += 7
        if shift > 21:
            raise MalformedPacket("a packet length of more than four bytes")
    return (body, body + size) if body + size <= there else None


def _topic(name: bytes) -> str:
    try:
        return name.decode()
    except UnicodeDecodeError:
        return ""


def _varint(packet: bytes, at: int, end: int) -> tuple[int, int]:
    number, shift = 0, 0
    while True:
        byte = packet[at]
        at += 1
        number |= (byte & 0x7F) << shift
        if byte < 0x80:
            return number, at
        shift += 7
        if shift > 21 or at >= end:
            raise MalformedPacket("a length of more than four bytes")


def _properties(packet: bytes, at: int, end: int) -> tuple[bytes | None, str | None, Mapping[str, str]]:
    """Correlation data, response topic and user properties; the rest is stepped over (section 3.3.2.3)."""
    correlation: bytes | None = None
    response_topic: str | None = None
    user: dict[str, str] = {}
    while at < end:
        kind = packet[at]
        at += 1
        if kind in (0x03, 0x08, 0x09):
            value, at = _counted(packet, at, end)
            if kind == 0x09:
                correlation = value
            elif kind == 0x08:
                response_topic = value.decode(errors="replace")
        elif kind == 0x26:
            name, at = _counted(packet, at, end)
            value, at = _counted(packet, at, end)
            user[name.decode(errors="replace")] = value.decode(errors="replace")
        elif kind == 0x01:
            at += 1
        elif kind == 0x02:
            at += 4
        elif kind == 0x23:
            at += 2
        elif kind == 0x0B:
            _, at = _varint(packet, at, end)
        else:
            raise MalformedPacket(f"a PUBLISH has no property 0x{kind:02x}")
    if at != end:
        raise MalformedPacket("a property longer than its packet")
    return correlation, response_topic, user


def _counted(packet: bytes, at: int, end: int) -> tuple[bytes, int]:
    (size,) = struct.unpack_from("!H", packet, at)
    if at + 2 + size > end:
        raise MalformedPacket("a string longer than its packet")
    return packet[at + 2 : at + 2 + size], at + 2 + size
