"""The host's side: what comes in, when it stops reading, and how each document goes out."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any

import pytest

from devices.bridge import FACES_WAITING_MAX, TERMINAL_MESSAGES_MAX, TURN_MESSAGES, Bridge
from devices.link import Delivery, DeliveryReceipt, Link, LinkListener, Outgoing
from devices.refusals import Undecodable, WireCode
from devices.topics import Down, Up, host_filters, qos_of, topic_of
from models.domain.ids import MessageId, SessionId
from models.domain.screen import ReplyBody, Screen, ScreenState
from runtime.broker import EmbeddedBroker
from tests.devices.support import (
    ALL_SHARDS,
    JPEG,
    REGION,
    Recorder,
    SmallHost,
    encoded,
    event_document,
    fresh,
    link_config,
    linked,
    registered,
    until,
)


@dataclass
class PaperLink:
    """A link without a broker: what a simulation hands to a Bridge."""

    listener: LinkListener | None = None
    filters: Sequence[str] = ()
    published: list[tuple[str, bytes, dict[str, Any]]] = field(default_factory=list)
    acked: list[DeliveryReceipt] = field(default_factory=list)
    reading: bool = True
    slow: asyncio.Event | None = None
    """Until it is set the broker acknowledges nothing."""

    def listen(self, listener: LinkListener, filters: Sequence[str]) -> None:
        self.listener, self.filters = listener, filters

    async def start(self) -> None: ...

    async def stop(self) -> None: ...

    async def publish(self, topic: str, payload: bytes, **options: Any) -> None:
        self.published.append((topic, payload, options))

    async def publish_all(self, messages: Sequence[Outgoing]) -> int:
        for message in messages:
            options = {"expiry_s": message.expiry_s, "correlation": message.correlation}
            self.published.append((message.topic[2:].decode(), message.payload, options))
        if self.slow is not None:
            await self.slow.wait()
        return 0

    def ack(self, receipt: DeliveryReceipt) -> bool:
        self.acked.append(receipt)
        return True

    def pause_reading(self) -> None:
        self.reading = False

    def resume_reading(self) -> None:
        self.reading = True


TERMINAL = registered()


def paper_bridge(inbound_messages_high: int = 512, inbound_messages_low: int = 128) -> tuple[PaperLink, Bridge]:
    link = PaperLink()
    as_link: Link = link
    bridge = Bridge(
        as_link,
        REGION,
        ALL_SHARDS,
        inbound_messages_high=inbound_messages_high,
        inbound_messages_low=inbound_messages_low,
    )
    return link, bridge


def reads(link: PaperLink) -> bool:
    return link.reading


def delivery(n: int, channel: Up = Up.EVENT, payload: bytes | None = None, **changes: Any) -> Delivery:
    settings: dict[str, Any] = {
        "topic": str(topic_of(TERMINAL, channel)),
        "payload": b"x%d" % n if payload is None else payload,
        "receipt": DeliveryReceipt(1, n),
    }
    return Delivery(**(settings | changes))


async def test_over_the_mark_it_stops_reading_and_under_the_other_it_reads_again() -> None:
    link, bridge = paper_bridge(inbound_messages_high=4, inbound_messages_low=1)
    for n in range(4):
        assert reads(link)
        bridge.delivered(delivery(n))
    assert not reads(link)
    bridge.delivered(delivery(9, Up.TELEMETRY, receipt=None))
    assert bridge.counts.telemetry_dropped == 1
    assert [item.receipt for item in bridge.take(2)] == [DeliveryReceipt(1, 0), DeliveryReceipt(1, 1)]
    assert not reads(link)
    bridge.take(1)
    assert reads(link)
    assert (bridge.waiting, bridge.counts.pauses) == (1, 1)


async def test_one_terminal_that_floods_leaves_room_for_the_others() -> None:
    link, bridge = paper_bridge()
    quiet = registered("t-2")
    for n in range(500):
        bridge.delivered(delivery(n))
    bridge.delivered(delivery(999, topic=str(topic_of(quiet, Up.EVENT))))
    assert (bridge.waiting, bridge.counts.flooded) == (TERMINAL_MESSAGES_MAX + 1, 500 - TERMINAL_MESSAGES_MAX)
    assert [one.mid for one in link.acked] == list(range(TERMINAL_MESSAGES_MAX, 500)), "it sends them again later"
    assert reads(link)
    assert "t-2" in {one.topic.terminal for one in bridge.take(TURN_MESSAGES + 1)}


async def test_faces_that_no_broker_holds_back_are_bounded_and_events_are_not_in_their_way() -> None:
    _, bridge = paper_bridge(inbound_messages_high=4, inbound_messages_low=1)
    for n in range(FACES_WAITING_MAX + 7):
        topic = str(topic_of(registered(f"t-{n}"), Up.FACE))
        bridge.delivered(delivery(n, topic=topic, receipt=None))
    bridge.delivered(delivery(9))
    assert (bridge.waiting, bridge.counts.flooded) == (FACES_WAITING_MAX + 1, 7)
    assert bridge.counts.telemetry_dropped == 0
    bridge.take(FACES_WAITING_MAX)
    bridge.delivered(delivery(0, Up.FACE, receipt=None))
    assert (bridge.waiting, bridge.counts.flooded) == (2, 7)


async def test_of_what_a_flooding_terminal_says_of_itself_the_newest_stays() -> None:
    link, bridge = paper_bridge()
    for n in range(TERMINAL_MESSAGES_MAX):
        bridge.delivered(delivery(n, Up.PRESENCE if n % 2 else Up.EVENT))
    bridge.delivered(delivery(1_000, Up.PRESENCE))
    assert [one.mid for one in link.acked] == [1], "the oldest presence"
    bridge.delivered(delivery(1_001, Up.REPORTED))
    bridge.delivered(delivery(1_002, Up.REPORTED))
    assert [one.mid for one in link.acked] == [1, 1_001], "the report before"
    waiting = [one.receipt.mid for one in bridge.take(1_000) if one.receipt is not None]
    assert len(waiting) == TERMINAL_MESSAGES_MAX + 1
    assert waiting[-2:] == [1_000, 1_002]


async def test_what_cannot_be_answered_is_counted_and_acknowledged() -> None:
    link, bridge = paper_bridge()
    foreign = str(topic_of(TERMINAL, Up.EVENT)).replace("/s-1/", "/s-2/")
    north = str(topic_of(TERMINAL, Up.EVENT)).replace("/south/", "/north/")
    down = str(topic_of(TERMINAL, Down.SCREEN))
    for n, text in enumerate((foreign, north, down, "", "so/1")):
        bridge.delivered(delivery(n, topic=text))
    bridge.delivered(delivery(5, Up.PRESENCE, b""))
    assert (bridge.waiting, bridge.counts.bad_topics, bridge.counts.cleared) == (0, 5, 1)
    assert len(link.acked) == 6


async def test_who_waits_for_acknowledgements_reads_on_although_too_much_waits() -> None:
    """They come on the same socket behind the messages: a host that stopped reading would wait for itself."""
    link, bridge = paper_bridge(inbound_messages_high=2, inbound_messages_low=0)
    link.slow = asyncio.Event()
    for n in range(2):
        bridge.delivered(delivery(n))
    assert not reads(link)
    publishing = asyncio.create_task(bridge.publish_all([Outgoing(b"\0\1t", b"reply", 1, None)]))
    await until(lambda: bool(link.published))
    assert reads(link)
    bridge.delivered(delivery(3))
    assert reads(link)
    link.slow.set()
    await publishing
    assert not reads(link)
    bridge.take(3)
    assert reads(link)


async def test_an_event_sent_again_while_it_still_waits_is_taken_once() -> None:
    link, bridge = paper_bridge()
    bridge.delivered(delivery(1, payload=b"scan"))
    bridge.delivered(delivery(2, payload=b"scan"))
    bridge.delivered(delivery(3, payload=b"other"))
    taken = bridge.take(9)
    assert [item.receipt for item in taken] == [DeliveryReceipt(1, 1), DeliveryReceipt(1, 3)]
    assert link.acked == []
    bridge.ack(taken[0])
    assert sorted(one.mid for one in link.acked) == [1, 2]
    bridge.delivered(delivery(4, payload=b"scan"))
    assert (bridge.waiting, bridge.counts.joined) == (1, 1)


async def test_only_its_own_shards_are_taken() -> None:
    link = PaperLink()
    bridge = Bridge(link, REGION, [TERMINAL.shard ^ 1])
    assert link.filters == host_filters(REGION, [TERMINAL.shard ^ 1])
    bridge.delivered(delivery(1))
    assert (bridge.waiting, bridge.counts.bad_topics) == (0, 1)


async def test_a_new_connection_forgets_what_waits_of_the_old_one() -> None:
    link, bridge = paper_bridge(inbound_messages_high=2, inbound_messages_low=1)
    bridge.delivered(delivery(1))
    bridge.delivered(delivery(2))
    bridge.delivered(delivery(1, receipt=DeliveryReceipt(2, 1)))
    assert not reads(link)
    bridge.connected(2, True)
    assert [item.receipt for item in bridge.take(9)] == [DeliveryReceipt(2, 1)]
    assert reads(link)


async def test_a_batch_is_bounded_and_waits_for_its_first() -> None:
    _, bridge = paper_bridge()
    collecting = asyncio.create_task(bridge.batch(messages_max=2, collect_s=0.0))
    await asyncio.sleep(0)
    assert not collecting.done()
    for n in range(3):
        bridge.delivered(delivery(n))
    assert [item.receipt.mid for item in await collecting if item.receipt] == [0, 1]
    assert bridge.waiting == 1


async def test_every_document_goes_out_with_the_published_options() -> None:
    link, bridge = paper_bridge()
    command = MessageId(str(uuid.uuid4()))
    await bridge.publish_reply(TERMINAL, ReplyBody(command, ok=True))
    await bridge.publish_reply(TERMINAL, ReplyBody(None, ok=False))
    await bridge.publish_screen(TERMINAL, Screen(SessionId("s"), 1, ScreenState.OPEN))
    await bridge.publish_desired(TERMINAL, 3, {})
    await bridge.publish_command(TERMINAL, command, "resync", {}, timedelta(seconds=90))
    await bridge.clear_retained(TERMINAL)
    sent = [(topic.rpartition("/t-1/")[2], options) for topic, _, options in link.published]
    assert sent == [
        ("down/reply", {"expiry_s": 60, "correlation": command.encode()}),
        ("down/reply", {"expiry_s": 60, "correlation": None}),
        ("down/screen", {"expiry_s": 60}),
        ("down/desired", {"retain": True}),
        (
            "down/command",
            {
                "expiry_s": 30,
                "correlation": command.encode(),
                "response_topic": str(topic_of(TERMINAL, Up.RESPONSE)),
            },
        ),
        ("up/presence", {"retain": True}),
        ("up/reported", {"retain": True}),
        ("down/desired", {"retain": True}),
    ]
    assert [payload for _, payload, _ in link.published[-3:]] == [b"", b"", b""]


async def test_bytes_without_an_id_are_answered_once_a_second() -> None:
    link, bridge = paper_bridge()
    time = [100.0]

    def clock() -> float:
        return time[0]

    refusal = Undecodable(WireCode.BAD_JSON, "m", "d")
    assert await bridge.publish_undecodable(TERMINAL, refusal, clock)
    time[0] += 0.5
    assert not await bridge.publish_undecodable(TERMINAL, refusal, clock)
    assert await bridge.publish_undecodable(registered("t-2"), refusal, clock)
    named = Undecodable(WireCode.BAD_FIELD, "m", "d", MessageId(str(uuid.uuid4())))
    assert await bridge.publish_undecodable(TERMINAL, named, clock)
    time[0] += 0.6
    assert await bridge.publish_undecodable(TERMINAL, refusal, clock)
    assert bridge.counts.undecodable == 5
    assert len(link.published) == 4


def test_the_marks_must_make_sense() -> None:
    with pytest.raises(ValueError, match="inbound_messages_low"):
        paper_bridge(inbound_messages_high=5, inbound_messages_low=5)


GARBAGE: list[tuple[str, Up, bytes, str, bool]] = [
    ("not json", Up.EVENT, b"\x00\xff\x13garbage", "bad_json", False),
    ("unknown version", Up.EVENT, encoded(event_document(v=7)), "unsupported_version", True),
    ("unknown type", Up.EVENT, encoded(event_document("teleport", {})), "unknown_type", True),
    ("oversize", Up.EVENT, encoded(event_document(padding="x" * 70_000)), "too_large", True),
    ("no face", Up.FACE, b"not a jpeg", "bad_id", False),
]


@pytest.mark.parametrize(("what", "channel", "payload", "code", "named"), GARBAGE)
async def test_garbage_from_a_real_client_is_answered_with_a_code(
    shared_broker: EmbeddedBroker, what: str, channel: Up, payload: bytes, code: str, named: bool
) -> None:
    terminal, recorder = fresh(), Recorder()
    down = f"{topic_of(terminal, Down.REPLY)!s}"
    async with (
        SmallHost(shared_broker, terminal) as host,
        linked(link_config(shared_broker), down, recorder=recorder) as client,
    ):
        await client.publish(str(topic_of(terminal, channel)), payload)
        await until(lambda: len(recorder.deliveries) == 1)
        assert f'"code":"{code}"'.encode() in recorder.deliveries[0].payload
        assert (recorder.deliveries[0].correlation is not None) is named
        # The host lives, and nothing is left unacknowledged.
        await client.publish(str(topic_of(terminal, Up.EVENT)), encoded(event_document()))
        await until(lambda: len(host.events) == 1)
        await until(lambda: host.link.counts.acks == 1 + qos_of(str(topic_of(terminal, channel))))


async def test_a_face_of_200_kb_is_refused_with_its_id(shared_broker: EmbeddedBroker) -> None:
    terminal, recorder = fresh(), Recorder()
    face = str(uuid.uuid4())
    properties = {"id": face, "boot": str(uuid.uuid4()), "seq": "1", "kind": "frame"}
    async with (
        SmallHost(shared_broker, terminal),
        linked(link_config(shared_broker), str(topic_of(terminal, Down.REPLY)), recorder=recorder) as client,
    ):
        await client.publish(str(topic_of(terminal, Up.FACE)), JPEG + bytes(200 * 1024), properties=properties)
        await until(lambda: len(recorder.deliveries) == 1)
    assert recorder.deliveries[0].correlation == face.encode()
    assert b"too_large" in recorder.deliveries[0].payload
