"""What a host publishes stays on its way however slow the broker is, and no reply goes out twice meanwhile."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

import pytest

from devices.bridge import Bridge
from devices.link import Outgoing
from models.domain.ids import LaneId, MessageId, RegionId, StoreId, TerminalId
from models.domain.registry import RegisteredTerminal
from models.domain.screen import ReplyBody
from runtime import publisher as publishing
from runtime.directory import Directory
from runtime.publisher import Publisher
from runtime.telemetry import HostCounts

REGION, STORE = RegionId("south"), StoreId("s1")
TILL = RegisteredTerminal(TerminalId("t1"), STORE, REGION, LaneId("l1"), "face", "dragonfly-2")


class SlowLink:
    """A broker that acknowledges when it is told to."""

    def __init__(self) -> None:
        self.sent: list[bytes] = []
        self.acknowledge = asyncio.Event()
        self.failed = 0

    def listen(self, listener: object, filters: Sequence[str]) -> None: ...

    async def start(self) -> None: ...

    async def stop(self) -> None: ...

    async def publish(self, topic: str, payload: bytes, **options: Any) -> None: ...

    async def publish_all(self, messages: Sequence[Outgoing]) -> int:
        self.sent += [one.payload for one in messages]
        await self.acknowledge.wait()
        return self.failed

    def ack(self, receipt: object) -> bool: ...  # type: ignore[empty-body]

    def pause_reading(self) -> None: ...

    def resume_reading(self) -> None: ...


class OneTill(Directory):
    """One registered terminal."""

    def terminal(self, terminal: TerminalId) -> RegisteredTerminal | None:
        return TILL if terminal == TILL.terminal else None


def scene() -> tuple[SlowLink, Bridge, Publisher, HostCounts]:
    link, counts = SlowLink(), HostCounts()
    return (
        link,
        Bridge(link, REGION, [TILL.shard]),
        Publisher(OneTill(REGION), counts, lambda store, lane: None),
        counts,
    )


def reply(n: int) -> tuple[TerminalId, ReplyBody]:
    return TILL.terminal, ReplyBody(MessageId(f"00000000-0000-0000-0000-{n:012d}"), ok=True)


async def test_a_slow_broker_delays_a_batch_and_loses_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(publishing, "PUBLISH_S_MAX", 0.01)
    link, bridge, publisher, counts = scene()
    await publisher.publish(bridge, {}, [reply(1)])  # returns: nobody waits longer than that
    await publisher.publish(bridge, {}, [reply(1), reply(2), reply(2)])  # 1 was asked for again, 2 came twice
    assert len(link.sent) == 2
    link.acknowledge.set()
    await publisher.publish(bridge, {}, [reply(3)])
    assert counts.publish_failures == 0
    await publisher.publish(bridge, {}, [reply(1)])  # asked for again after it had arrived
    assert len(link.sent) == 4


async def test_what_the_broker_does_not_take_at_all_is_bounded_and_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(publishing, "PUBLISH_S_MAX", 0.01)
    monkeypatch.setattr(publishing, "UNACKNOWLEDGED_MESSAGES_MAX", 2)
    link, bridge, publisher, counts = scene()
    await publisher.publish(bridge, {}, [reply(1), reply(2)])
    await publisher.publish(bridge, {}, [reply(3)])
    assert (len(link.sent), counts.publish_failures) == (2, 1)
    link.failed = 2
    link.acknowledge.set()
    await publisher.publish(bridge, {}, [])
    await publisher.stop()
    await asyncio.sleep(0)
    assert counts.publish_failures == 3
    link.failed = 0
    await publisher.publish(bridge, {}, [reply(1)])  # its first sending failed: it may go again
    assert len(link.sent) == 3
