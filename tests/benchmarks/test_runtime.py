"""What `storeops bench runtime` says about what it measured; the measuring itself is not a test."""

from __future__ import annotations

import pytest

from runtime.bench import durable
from runtime.bench.durable import Figures
from runtime.bench.lean_mqtt import LeanClient, text, varint


def figures(rate: float = 2_500.0, cpu_us: float = 300.0, p50_ms: float = 5.0, p99_ms: float = 20.0) -> Figures:
    waits = [p50_ms] * 98 + [p99_ms] * 2
    return Figures([rate], [cpu_us], list(waits), list(waits), 0.1)


def test_the_promises_of_a_durable_message() -> None:
    rows = durable.rows(figures(), Figures([3_000.0, 4_000.0], [100.0, 90.0], [1.0], [1.0], 0.05))
    assert {one.what: one.target for one in rows if one.target is not None} == {
        "messages, durable, flat out": ">= 2000",
        "messages, durable, by the bare host": ">= 0.6 x",
        "host's CPU for a durable message": "<= 400",
        "event to reply at 200 messages/s, p50": "<= 8",
        "event to reply at 200 messages/s, p99": "<= 30",
        "event to screen at 200 messages/s, p50": "<= 8",
        "event to screen at 200 messages/s, p99": "<= 30",
    }
    assert all(one.ok for one in rows)
    assert rows[1].ratio == pytest.approx(2_500 / 3_500, rel=0.001)


@pytest.mark.parametrize(
    ("slow", "missed"),
    [
        (figures(rate=1_900.0), 2),
        (figures(cpu_us=401.0), 1),
        (figures(p50_ms=8.1), 2),
        (figures(p99_ms=30.1), 2),
    ],
)
def test_a_missed_promise_is_said(slow: Figures, missed: int) -> None:
    rows = durable.rows(slow, Figures([3_500.0], [100.0], [1.0], [1.0], 0.05))
    assert sum(not one.ok for one in rows) == missed


class _Wire:
    def __init__(self) -> None:
        self.out = b""

    def write(self, data: bytes) -> None:
        self.out += data


@pytest.mark.parametrize("cut", [1, 2, 3, 7, 1_000])
async def test_the_lean_client_reads_whatever_comes_in_pieces(cut: int) -> None:
    heard: list[tuple[bytes, bytes]] = []
    client = LeanClient(lambda topic, payload: heard.append((topic, payload)))
    wire = client._transport = _Wire()  # type: ignore[assignment]
    client.in_flight = 1
    properties = b"\x02\x00\x00\x00\x3c"
    payloads = [b"a", b"b" * 300, b"c" * 20_000]
    stream = b"\x40\x02\x00\x01"
    for n, payload in enumerate(payloads):
        body = text("so/1/x") + n.to_bytes(2, "big") + varint(len(properties)) + properties + payload
        stream += b"\x32" + varint(len(body)) + body
    for first in range(0, len(stream), cut):
        client.data_received(stream[first : first + cut])
    client._flush()
    assert heard == [(b"so/1/x", payload) for payload in payloads]
    assert client.in_flight == 0
    assert wire.out == b"\x40\x02\x00\x00\x40\x02\x00\x01\x40\x02\x00\x02"
