"""PUBLISH and PUBACK by hand: what paho writes is read, what is written is what paho writes, garbage is refused."""

from __future__ import annotations

import contextlib

from hypothesis import given
from hypothesis import strategies as st
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties

from devices.mqtt_packets import (
    MalformedPacket,
    counted,
    frame,
    puback_packet,
    publish_packet,
    publish_properties,
    read_puback,
    read_publish,
)

USER = st.lists(st.tuples(st.text(max_size=70), st.text(max_size=70)), max_size=5)


def paho_publish(payload: bytes, correlation: bytes, user: list[tuple[str, str]]) -> bytes:
    """A PUBLISH body's properties as paho writes them."""
    theirs = Properties(PacketTypes.PUBLISH)  # type: ignore[no-untyped-call]
    theirs.MessageExpiryInterval = 86_400
    theirs.PayloadFormatIndicator = 1
    theirs.ContentType = "image/jpeg"
    theirs.SubscriptionIdentifier = 300
    theirs.CorrelationData = correlation
    theirs.ResponseTopic = "a/b"
    theirs.UserProperty = user
    packed: bytes = theirs.pack()  # type: ignore[no-untyped-call]
    return publish_packet(counted(b"so/1/x"), packed, payload, 1, 513, True)


@given(st.binary(max_size=40), st.binary(max_size=40), USER)
def test_a_publish_is_read_whatever_it_carries(payload: bytes, correlation: bytes, user: list[tuple[str, str]]) -> None:
    packet = paho_publish(payload, correlation, user)
    assert all(frame(packet[:n], 0) is None for n in range(0, len(packet), 7)), "not before all of it is there"
    found = frame(b"before" + packet + b"after", 6)
    assert found is not None
    body, end = found
    assert end == 6 + len(packet)
    read = read_publish(packet[0], packet, body - 6, end - 6)
    assert (read.topic, read.payload, read.mid, read.retained) == ("so/1/x", payload, 513, True)
    assert (read.correlation, read.response_topic, read.properties) == (correlation, "a/b", dict(user))


@given(st.binary(max_size=64), st.integers(0x30, 0x3F))
def test_whatever_bytes_come_only_one_error_comes_out(garbage: bytes, first: int) -> None:
    with contextlib.suppress(MalformedPacket):
        read_publish(first, garbage, 0, len(garbage))
    with contextlib.suppress(MalformedPacket):
        read_puback(garbage, 0, len(garbage))
    with contextlib.suppress(MalformedPacket):
        frame(garbage, 0)


def test_a_puback_says_why() -> None:
    assert read_puback(puback_packet(513), 2, 4) == (513, 0)
    assert read_puback(b"\x02\x01\x97\x00", 0, 4) == (513, 0x97)


def test_properties_are_packed_as_paho_packs_them() -> None:
    theirs = Properties(PacketTypes.PUBLISH)  # type: ignore[no-untyped-call]
    theirs.MessageExpiryInterval = 60
    theirs.ContentType = "image/jpeg"
    theirs.ResponseTopic = "a/b"
    theirs.CorrelationData = b"c" * 36
    theirs.UserProperty = [("id", "é" * 100)]
    ours = publish_properties(60, "image/jpeg", "a/b", b"c" * 36, {"id": "é" * 100})
    assert ours == theirs.pack()  # type: ignore[no-untyped-call]
    assert publish_properties() == b"\x00"
