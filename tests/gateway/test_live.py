"""The wall's stream: one encoding for all, a bounded queue each, and a fresh start for who fell behind."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import replace

import pytest

from gateway.live import Wall
from gateway.settings import GatewaySettings, ServedRegion
from models.domain.errors import RetryLater
from models.domain.live import Changes
from tests.gateway.shop import SmallShop, tiles
from tests.gateway.test_api import until

SETTINGS = GatewaySettings(stream_frame_s=0.0, stream_keepalive_s=0.05, stream_clients_max=3)
TILES = tuple(tiles(2))


def changes(version: int, *, full: bool = False, epoch: int = 1, n: int = 0) -> Changes:
    tile = replace(TILES[n], state="open", changed_ms=version)
    return Changes(epoch, version, full, TILES if full else (tile,), (), f"2026-11-22T04:00:{version % 60:02}Z")


def wall() -> Wall:
    made = Wall(SETTINGS, lambda: None)
    made.apply("local", 0, changes(1, full=True))
    return made


def parse(event: bytes) -> tuple[str, str, dict[str, object]]:
    fields = dict(line.split(": ", 1) for line in event.decode().strip().splitlines())
    return fields["event"], fields["id"], json.loads(fields["data"])


async def test_a_new_console_begins_with_everything() -> None:
    name, _, frame = parse(await anext(await wall().stream()))
    assert name == "resync"
    assert frame["full"] is True
    assert len(frame["terminals"]) == len(TILES)  # type: ignore[arg-type]


async def test_all_consoles_get_the_same_bytes_object() -> None:
    live = wall()
    streams = [await live.stream() for _ in range(3)]
    for stream in streams:
        await anext(stream)
    live.apply("local", 0, changes(2))
    events = [await anext(stream) for stream in streams]
    assert events[0] is events[1] is events[2]
    name, _, frame = parse(events[0])
    assert name == "delta"
    assert [tile["terminal"] for tile in frame["terminals"]] == ["t-001-1"]  # type: ignore[attr-defined]


async def test_who_falls_behind_loses_the_oldest_and_starts_over() -> None:
    live = wall()
    slow, quick = await live.stream(), await live.stream()
    await anext(slow)
    await anext(quick)
    seen = []
    for version in range(2, 2 + SETTINGS.stream_queue_events_max + 3):
        live.apply("local", 0, changes(version))
        seen.append(parse(await anext(quick))[0])
    assert set(seen) == {"delta"}
    assert live.dropped == 3
    name, event_id, frame = parse(await anext(slow))
    assert name == "resync"
    assert frame["n"] == live.n
    assert event_id.endswith(f"-{live.n}")
    live.apply("local", 0, changes(40))
    assert parse(await anext(slow))[0] == "delta"


async def test_a_full_queue_without_loss_is_told_in_order() -> None:
    live = wall()
    stream = await live.stream()
    await anext(stream)
    for version in range(2, 2 + SETTINGS.stream_queue_events_max):
        live.apply("local", 0, changes(version))
    numbers = [parse(await anext(stream))[2]["n"] for _ in range(SETTINGS.stream_queue_events_max)]
    assert numbers == list(range(2, 10))
    assert live.dropped == 0


async def test_last_event_id_brings_only_what_was_missed() -> None:
    live = wall()
    _, seen, _ = parse(await anext(await live.stream()))
    live.apply("local", 0, changes(2))
    live.apply("local", 0, changes(3, n=1))
    stream = await live.stream(seen)
    missed = [parse(await anext(stream)) for _ in range(2)]
    assert [name for name, _, _ in missed] == ["delta", "delta"]
    assert [frame["n"] for _, _, frame in missed] == [2, 3]


@pytest.mark.parametrize("last", ["", "another-1", "nonsense", "-", "x-99999999999999999999"])
async def test_an_id_that_is_not_ours_brings_everything(last: str) -> None:
    assert parse(await anext(await wall().stream(last)))[0] == "resync"


async def test_too_old_an_id_brings_everything() -> None:
    live = wall()
    _, seen, _ = parse(await anext(await live.stream()))
    for version in range(2, 2 + SETTINGS.stream_queue_events_max + 1):
        live.apply("local", 0, changes(version))
    assert parse(await anext(await live.stream(seen)))[0] == "resync"


async def test_a_ring_that_has_moved_on_brings_everything_not_a_gap() -> None:
    live = Wall(replace(SETTINGS, stream_ring_events_max=4), lambda: None)
    live.apply("local", 0, changes(1, full=True))
    _, seen, _ = parse(await anext(await live.stream()))
    for version in range(2, 8):
        live.apply("local", 0, changes(version))
    assert parse(await anext(await live.stream(seen)))[0] == "resync"


async def test_tiles_that_are_gone_leave_every_console() -> None:
    live = wall()
    stream = await live.stream()
    await anext(stream)
    live.apply("local", 0, Changes(2, 1, True, TILES[1:], (), "2026-11-22T05:00:00Z"))
    name, _, frame = parse(await anext(stream))
    assert name == "resync"
    assert "t-001-1" not in {tile["terminal"] for tile in frame["terminals"]}  # type: ignore[attr-defined]


async def test_nothing_new_sends_nothing_but_a_comment_now_and_then() -> None:
    live = wall()
    stream = await live.stream()
    await anext(stream)
    n = live.n
    live.apply("local", 0, Changes(1, 1, False, (), (), live.business_now))
    assert live.n == n
    assert await anext(stream) == b": ping\n\n"


async def test_consoles_are_bounded_and_leave_their_place() -> None:
    live = wall()
    streams = [await live.stream() for _ in range(3)]
    for stream in streams:
        await anext(stream)
    with pytest.raises(RetryLater) as refused:
        await live.stream()
    assert refused.value.code == "too_many_consoles"
    await streams[0].aclose()  # type: ignore[attr-defined]
    assert live.consoles == 2
    await live.stream()


async def test_close_ends_open_and_new_streams_at_once() -> None:
    live = wall()
    stream = await live.stream()
    await anext(stream)
    live.close()
    with pytest.raises(StopAsyncIteration):
        await anext(stream)
    assert [event async for event in await live.stream()] == []


@asynccontextmanager
async def following(shop: SmallShop) -> AsyncIterator[Wall]:
    live = Wall(SETTINGS, lambda: shop)
    task = asyncio.create_task(live.follow())
    try:
        yield live
    finally:
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task


async def test_a_host_that_restarts_is_shown_waiting_and_comes_back_whole() -> None:
    shop = SmallShop(TILES)
    async with following(shop) as live, asyncio.timeout(30):
        stream = await live.stream()
        while len(live.terminals) < len(TILES):
            await anext(stream)
        assert not live.waiting
        await shop.go_away()
        while not live.waiting:
            await anext(stream)
        shop.come_back()
        await shop.change("t-001-2", state="paying")
        while live.waiting or live.terminals[TILES[1].terminal].state != "paying":
            await anext(stream)


async def test_slots_that_come_and_go_are_followed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gateway.live.LAYOUT_LOOK_S", 0.01)
    shop = SmallShop(TILES)
    shop.slots_now = 2
    async with following(shop) as live, asyncio.timeout(30):

        async def both() -> bool:
            return not live.waiting and len(live.terminals) == len(TILES) and shop.changes_asked >= 2

        async def one() -> bool:
            return len(live._slots) == 1

        await until(both)
        assert set(live._slots) == {("local", 0), ("local", 1)}
        shop.slots_now = 1
        await until(one)
        assert len(live.terminals) == len(TILES), "what another slot has meanwhile stays"


async def test_a_tile_that_moved_to_another_slot_stays() -> None:
    live = Wall(replace(SETTINGS, regions=(ServedRegion(slots=2),)), lambda: None)
    live.apply("local", 0, changes(1, full=True))
    live.apply("local", 1, changes(1, full=True, epoch=9))
    live.apply("local", 0, Changes(2, 1, True, TILES[1:], (), "2026-11-22T05:00:00Z"))
    assert TILES[0].terminal in live.terminals, "slot 1 has it"
    live.apply("local", 1, Changes(10, 1, True, (), (), "2026-11-22T05:00:00Z"))
    assert TILES[0].terminal not in live.terminals


async def test_regions_have_clocks_and_tiles_of_their_own() -> None:
    live = Wall(replace(SETTINGS, regions=(ServedRegion("south"), ServedRegion("east"))), lambda: None)
    assert live.waiting == ("south/0", "east/0")
    live.apply("south", 0, Changes(1, 1, True, TILES[:1], (), "2026-11-22T05:00:00Z"))
    stream = await live.stream()
    await anext(stream)
    live.apply("east", 0, Changes(1, 1, True, TILES[1:], (), "2026-12-22T05:00:00Z"))
    _, _, frame = parse(await anext(stream))
    assert (frame["clocks"], frame["waiting"]) == ({"east": "2026-12-22T05:00:00Z"}, [])
    assert live.frame().clocks == {"south": "2026-11-22T05:00:00Z", "east": "2026-12-22T05:00:00Z"}
    assert live.business_now == "2026-12-22T05:00:00Z"
    assert live.terminals_in("south") == {TILES[0].terminal}
    assert live.waiting_in("east") == ()
