"""What a host forgets of messages that it has handled: bounded, and nothing that was never seen is taken for seen."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from psycopg import AsyncConnection

from models.domain.ids import RegionId, StoreId, TerminalId, shard_of
from models.domain.messages import Address
from models.tables import journal, pruning
from models.tables.columns import quick_columns
from models.tables.journal import Commit, DeadLetter, InboxKey, Slot
from models.tables.pruning import INBOX_KEPT_HOURS, MARKS_KEPT_DAYS
from runtime.plant import HOST_PLANNER_OPTIONS

pytestmark = pytest.mark.integration
NOW = datetime(2026, 5, 1, 2, 0, tzinfo=UTC)
OLD = NOW - timedelta(hours=INBOX_KEPT_HOURS, minutes=1)
ANCIENT = NOW - timedelta(days=MARKS_KEPT_DAYS, minutes=1)
REGION, STORE, TERMINAL = RegionId("north"), StoreId("s1"), TerminalId("t1")
LANE = Address(REGION, STORE, "session", "l1")


class Inbox:
    """One slot's, in a database of its own."""

    def __init__(self, conn: AsyncConnection[Any], slot: Slot) -> None:
        self.conn, self.slot = conn, slot

    async def handled(self, boot: str, seqs: range, at: datetime, *, replied: bool = True) -> None:
        rows = [
            (InboxKey(TERMINAL, boot, seq, f"{boot}-{seq}"), shard_of(STORE), "Scan", b"{}" if replied else None)
            for seq in seqs
        ]
        await journal.commit_batch(self.conn, self.slot, Commit(inbox=rows), 15.0, at)

    async def prune(
        self, at: datetime = NOW, rows_max: int = 1_000, after: pruning.PruneKey = pruning.FIRST_PRUNE
    ) -> tuple[int, pruning.PruneKey]:
        return await journal.prune_inbox(self.conn, self.slot, at, rows_max, after)

    async def rows(self) -> dict[str, list[int]]:
        cursor = await self.conn.execute("SELECT boot, array_agg(seq ORDER BY seq) FROM inbox GROUP BY boot")
        return dict(await cursor.fetchall())

    async def marks(self) -> dict[str, int]:
        return dict(await (await self.conn.execute("SELECT boot, seq FROM inbox_mark")).fetchall())


@pytest.fixture
async def inbox(migrated_database_url: str) -> AsyncIterator[Inbox]:
    options = HOST_PLANNER_OPTIONS  # as a host asks
    async with await AsyncConnection.connect(migrated_database_url, autocommit=True, options=options) as conn:
        quick_columns(conn)
        yield Inbox(conn, await journal.claim(conn, REGION, 0, 1, "test"))


async def test_what_is_old_goes_behind_a_mark_and_a_gap_holds_what_follows(inbox: Inbox) -> None:
    await inbox.handled("whole", range(1, 4), OLD)
    await inbox.handled("whole", range(4, 5), NOW)
    await inbox.handled("gap", range(1, 2), OLD)
    await inbox.handled("gap", range(3, 6), OLD)
    await inbox.handled("asked", range(1, 2), OLD, replied=False)
    assert await inbox.prune() == (4, pruning.FIRST_PRUNE)
    assert await inbox.rows() == {"whole": [4], "gap": [3, 4, 5], "asked": [1]}
    assert await inbox.marks() == {"whole": 3, "gap": 1}
    await inbox.handled("gap", range(2, 3), OLD)
    await inbox.prune()
    assert await inbox.marks() == {"whole": 3, "gap": 5}, "it came late: nothing is between any more"
    keys = [InboxKey(TERMINAL, "gap", 2, "gap-2")]
    assert (await journal.read_batch(inbox.conn, keys, [])).marks == {(TERMINAL, "gap"): 5}


async def test_rows_behind_a_gap_keep_nobody_elses(inbox: Inbox) -> None:
    await inbox.handled("a", range(2, 14), OLD)
    await inbox.handled("b", range(1, 4), OLD)
    after, gone = pruning.FIRST_PRUNE, 0
    for _ in range(4):
        some, after = await inbox.prune(rows_max=5, after=after)
        gone += some
    assert gone == 3
    assert await inbox.rows() == {"a": list(range(2, 14))}


async def test_marks_end_with_what_they_are_for(inbox: Inbox) -> None:
    """A terminal drops an event after a day, and money has numbers of its own: after a month nobody asks."""
    await inbox.handled("then", range(1, 3), ANCIENT - timedelta(days=4))
    await inbox.prune(ANCIENT)
    await inbox.handled("gap", range(2, 4), ANCIENT)
    await inbox.handled("asked", range(1, 2), ANCIENT, replied=False)
    await inbox.handled("gap", range(4, 5), NOW)
    before = ANCIENT + timedelta(days=MARKS_KEPT_DAYS)
    await inbox.prune(before - timedelta(minutes=1))
    assert (await inbox.marks(), await inbox.rows()) == ({"then": 2}, {"gap": [2, 3, 4], "asked": [1]})
    await inbox.prune(NOW)
    assert (await inbox.marks(), await inbox.rows()) == ({}, {"gap": [4]})


async def test_a_terminal_has_so_many_marks_the_newest(inbox: Inbox, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pruning, "MARKS_A_TERMINAL_MAX", 3)
    for n in range(6):
        await inbox.handled(f"b{n}", range(1, 2), OLD + timedelta(minutes=n))
        await inbox.prune(NOW + timedelta(minutes=n))
    await inbox.prune(NOW + timedelta(minutes=6))
    assert sorted(await inbox.marks()) == ["b3", "b4", "b5"]


async def test_a_fenced_host_forgets_nothing(inbox: Inbox) -> None:
    await inbox.handled("old", range(1, 4), ANCIENT)
    await inbox.handled("gap", range(2, 4), ANCIENT)
    await inbox.prune(ANCIENT + timedelta(days=4))
    await journal.claim(inbox.conn, REGION, 0, 1, "newer")
    before = (await inbox.rows(), await inbox.marks())
    assert before[1] == {"old": 3}
    assert (await inbox.prune(NOW + timedelta(days=90)))[0] == 0
    assert (await inbox.rows(), await inbox.marks()) == before


async def test_two_terminals_that_repeat_each_others_ids_have_a_dead_letter_each(inbox: Inbox) -> None:
    """Devices with a poor random source do: neither letter may hide the other's."""
    for terminal, error in (("t1", "first"), ("t2", "second"), ("t1", "again"), ("", "ours")):
        dead = DeadLetter("same", TerminalId(terminal), LANE, b"{}", error)
        await journal.commit_batch(inbox.conn, inbox.slot, Commit(dead=[dead]), 15.0, NOW)
    cursor = await inbox.conn.execute("SELECT terminal, error FROM dead_letter WHERE id = 'same' ORDER BY terminal")
    assert await cursor.fetchall() == [("", "ours"), ("t1", "first"), ("t2", "second")]
