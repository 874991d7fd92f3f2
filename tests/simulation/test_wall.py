"""The wall forgets a retired terminal: whoever watches gets the whole picture once, without it."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime

from models.domain.ids import LaneId, StoreId, TerminalId
from models.domain.live import TerminalTile
from runtime.tiles import Tiles

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
