"""The wall forgets a retired terminal: whoever watches gets the whole picture once, without it."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime

from models.domain.ids import LaneId, StoreId, TerminalId
from models.domain.live import TerminalTile
from runtime.tiles import CHANGES_EVERY_S, Tiles

NOW = datetime(2026, 5, 1, 2, 0, tzinfo=UTC)


def tile(name: str) -> TerminalTile:
    return TerminalTile(TerminalId(name), StoreId("s1"), LaneId("l1"), "face", "dragonfly-2", True)


async def test_a_retired_terminal_leaves_the_wall() -> None:
    tiles = Tiles(epoch=1)
    tiles.put([tile("a"), tile("b")], [])
    before = await tiles.changes(1, 0, NOW)
    assert {one.terminal for one in before.terminals} == {"a", "b"}
    watching = asyncio.create_task(tiles.changes(1, before.version, NOW))
    await asyncio.sleep(0)
    tiles.forget(TerminalId("a"))
    tiles.forget(TerminalId("never seen"))
    changed = await watching
    assert (changed.full, [one.terminal for one in changed.terminals]) == (True, ["b"])
    tiles.put([tile("b")], [])
    after = await tiles.changes(1, changed.version, NOW)
    assert (after.full, [one.terminal for one in after.terminals]) == (False, ["b"])


async def test_a_busy_wall_is_told_in_few_answers_and_a_quiet_one_at_once() -> None:
    tiles = Tiles(epoch=1)
    loop = asyncio.get_running_loop()
    tiles.put([tile("a")], [])
    version = (await tiles.changes(1, 0, NOW)).version
    began, answers = loop.time(), 0
    while version < 40:
        tiles.put([tile("a")], [])
        tiles.put([tile("b")], [])
        told = asyncio.create_task(tiles.changes(1, version, NOW))
        await asyncio.sleep(0)
        for _ in range(8):  # while the answer waits for its turn
            tiles.put([tile("a")], [])
        version, answers = (await told).version, answers + 1
    assert answers <= 5
    assert loop.time() - began >= (answers - 1) * CHANGES_EVERY_S
    await asyncio.sleep(CHANGES_EVERY_S)
    began = loop.time()
    watching = asyncio.create_task(tiles.changes(1, version, NOW))
    await asyncio.sleep(0)
    tiles.put([tile("a")], [])
    await watching
    assert loop.time() - began < CHANGES_EVERY_S
