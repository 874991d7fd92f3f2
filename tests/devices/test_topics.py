"""Topics are built and taken apart exactly; nothing else is a topic."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from devices.refusals import Undecodable
from devices.topics import Down, Topic, Up, filters_before, host_filters, parse, qos_of, require_registered, topic_of
from models.domain.ids import RegionId, StoreId, TerminalId, shard_of
from tests.devices.support import registered

LEVEL = st.text("abcdefghijklmnopqrstuvwxyz0123456789-", min_size=1, max_size=48)


def test_the_topic_of_a_terminal_is_the_published_form() -> None:
    # sha256("store-1")[0] worked out by hand with sha256sum.
    assert str(topic_of(registered("till-1", "store-1"), Up.EVENT)) == "so/1/south/cd/store-1/till-1/up/event"
    assert str(topic_of(registered("till-1", "store-1"), Down.SCREEN)).endswith("/till-1/down/screen")


@given(LEVEL, LEVEL, LEVEL, st.sampled_from([*Up, *Down]))
def test_what_is_built_is_parsed_to_the_same(region: str, store: str, terminal: str, channel: Up | Down) -> None:
    topic = Topic(RegionId(region), StoreId(store), TerminalId(terminal), channel)
    assert parse(str(topic)) == topic


@given(st.text(max_size=120))
def test_any_text_is_a_topic_or_refused_with_a_code(text: str) -> None:
    try:
        topic = parse(text)
    except Undecodable as refusal:
        assert refusal.code in {"bad_topic", "wrong_shard"}  # noqa: PT017 - most texts are refused, not all
        assert refusal.do  # noqa: PT017
    else:
        assert str(topic) == text


@pytest.mark.parametrize(
    ("change", "code"),
    [
        (lambda t: t.replace("so/1/", "so/2/"), "bad_topic"),
        (lambda t: t.replace("/south/", "/South/"), "bad_topic"),
        (lambda t: t.replace("/south/", "//"), "bad_topic"),
        (lambda t: t.replace("/t-1/", "/" + "x" * 49 + "/"), "bad_topic"),
        (lambda t: t.replace("/up/", "/sideways/"), "bad_topic"),
        (lambda t: t.replace("/event", "/screen"), "bad_topic"),
        (lambda t: t + "/more", "bad_topic"),
        (lambda t: t + "\n", "bad_topic"),
        (lambda t: t.replace("/s-1/", "/s-2/"), "wrong_shard"),
    ],
)
def test_a_bad_level_or_a_foreign_shard_is_refused(change, code: str) -> None:  # type: ignore[no-untyped-def]
    good = str(topic_of(registered(), Up.EVENT))
    assert parse(good).channel is Up.EVENT
    with pytest.raises(Undecodable) as refused:
        parse(change(good))
    assert refused.value.code == code


def test_the_registry_outranks_the_topic() -> None:
    terminal = registered("t-1", "s-1")
    require_registered(topic_of(terminal, Up.EVENT), terminal)
    for stranger in (registered("t-1", "s-2"), registered("t-2", "s-1")):
        with pytest.raises(Undecodable) as refused:
            require_registered(topic_of(stranger, Up.EVENT), terminal)
        assert refused.value.code == "wrong_store"


def test_a_host_subscribes_its_shards_explicitly_or_all_of_them_at_once() -> None:
    region = RegionId("south")
    channels = {"presence", "reported", "event", "face", "telemetry", "response"}
    assert set(host_filters(region, [255, 0])) == {
        f"so/1/south/{s}/+/+/up/{one}" for s in ("00", "ff") for one in channels
    }
    assert set(host_filters(region, range(256))) == {f"so/1/south/+/+/+/up/{one}" for one in channels}
    assert len(host_filters(region, range(0, 256, 2))) == 128 * len(channels)
    for shards in ([], [256], [-1]):
        with pytest.raises(ValueError, match="shards"):
            host_filters(region, shards)
    with pytest.raises(ValueError, match="region"):
        host_filters(RegionId("a/#"), [1])


def test_no_broker_keeps_a_face_for_a_host() -> None:
    filters = host_filters(RegionId("south"), [0, 255])
    assert {text.rpartition("/")[2] for text in filters if qos_of(text) == 0} == {"face"}
    assert filters_before(filters) == ["so/1/south/00/+/+/up/#", "so/1/south/ff/+/+/up/#"]


def test_the_shard_is_the_first_byte_of_sha256() -> None:
    assert shard_of(StoreId("store-1")) == 0xCD
