"""The twins' tables over real PostgreSQL: rings are bounded, a fenced host writes none, a mark follows the registry."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import LiteralString

import pytest
from psycopg import AsyncConnection
from psycopg.rows import TupleRow

from models.domain.ids import MessageId, RegionId, StoreId, TerminalId
from models.domain.twin import (
    CommandAnswered,
    CommandRecord,
    CommandStatus,
    DesiredRecord,
    FamilyChanged,
    PendingCommand,
    PresenceRecord,
    Sync,
    TerminalRetired,
)
from models.tables import terminals as twins
from models.tables.software import load_changed

pytestmark = pytest.mark.integration

NOW = datetime(2026, 5, 1, 2, 0, tzinfo=UTC)
TERMINAL, STORE, REGION = TerminalId("t1"), StoreId("s1"), RegionId("north")
FENCE = (str(REGION), 1, 0, 7)
SEEN = PresenceRecord(STORE, True, True, "1.0", "b1", 2, 1, "h", Sync.BEHIND, NOW, -40, False, 0, None, 0, '{"a":1}')


@pytest.fixture
async def conn(migrated_database_url: str) -> AsyncIterator[AsyncConnection[TupleRow]]:
    async with await AsyncConnection.connect(migrated_database_url, autocommit=True) as made:
        await made.execute(
            """INSERT INTO store
                 (id, chain, region, shard, name_zh, name_en, zone, cutoff_hour, basket_owner, opened_at)
               VALUES ('s1', 'acme', 'north', 1, '店', 'Shop', 'Asia/Shanghai', 4, 'pos', now())"""
        )
        await register(made, TERMINAL)
        yield made


async def register(conn: AsyncConnection[TupleRow], terminal: TerminalId) -> None:
    await conn.execute(
        """INSERT INTO terminal (id, store, lane, role, profile, secret_sha256, registered_at)
           VALUES (%s, 's1', 'l1', 'till', 'till', '', now())""",
        (terminal,),
    )


async def rows(conn: AsyncConnection[TupleRow], query: LiteralString) -> list[TupleRow]:
    return await (await conn.execute(query)).fetchall()


async def test_presence_is_one_row_whose_time_is_its_last_coming_or_going(conn: AsyncConnection[TupleRow]) -> None:
    await twins.write_presence(conn, {TERMINAL: SEEN}, NOW)
    await twins.write_presence(conn, {TERMINAL: replace(SEEN, sync=Sync.IN_SYNC)}, NOW + timedelta(minutes=1))
    assert await rows(conn, "SELECT sync, skew_ms, health, changed_at FROM presence") == [
        ("in_sync", -40, '{"a":1}', NOW)
    ]
    gone = replace(SEEN, online=False, applied_gen=None, skew_ms=None)
    await twins.write_presence(conn, {TERMINAL: gone}, NOW + timedelta(minutes=2))
    assert await rows(conn, "SELECT online, applied_gen, skew_ms, changed_at FROM presence") == [
        (False, None, None, NOW + timedelta(minutes=2))
    ]


async def test_a_generation_never_goes_back_and_a_late_answer_leaves_expired_standing(
    conn: AsyncConnection[TupleRow],
) -> None:
    await twins.save_twin(conn, DesiredRecord(TERMINAL, 2, '{"b":1}', "h2", None, NOW))
    await twins.save_twin(conn, DesiredRecord(TERMINAL, 1, '{"a":1}', "h1", None, NOW))
    assert [(one.gen, one.config) for one in await twins.load_desired(conn, [TERMINAL])] == [(2, '{"b":1}')]
    command = PendingCommand(MessageId("k1"), "reboot", (("n", 1),), NOW)
    for _ in range(2):
        await twins.save_twin(conn, CommandRecord(TERMINAL, STORE, command, NOW))
    await twins.save_twin(conn, CommandAnswered(command.id, CommandStatus.EXPIRED, "", NOW))
    await twins.save_twin(conn, CommandAnswered(command.id, CommandStatus.DONE, "late", NOW, late=True))
    assert await rows(conn, "SELECT status, late_status, detail, args FROM command") == [
        ("expired", "done", "late", {"n": 1})
    ]


async def test_telemetry_is_a_ring_of_an_hour_and_a_fenced_host_writes_none(conn: AsyncConnection[TupleRow]) -> None:
    await conn.execute(
        """INSERT INTO slot (region, layout, k, epoch, holder, drained, restarts)
           VALUES ('north', 1, 0, 7, '', false, 0)"""
    )
    for minute in range(150):
        at = NOW + timedelta(minutes=minute)
        await twins.save_telemetry(conn, FENCE, {TERMINAL: {"minute": minute}}, at)
    assert await rows(conn, "SELECT count(*), min((doc->>'minute')::int) FROM telemetry") == [(60, 90)]
    await twins.save_telemetry(conn, (*FENCE[:3], 6), {TERMINAL: {"minute": -1}}, NOW)
    assert await rows(conn, "SELECT count(*) FROM telemetry WHERE doc->>'minute' = '-1'") == [(0,)]


async def test_the_newest_seq_before_each(conn: AsyncConnection[TupleRow]) -> None:
    await conn.execute(
        """INSERT INTO inbox (terminal, boot, seq, id, shard, type, received_at)
           SELECT 't1', 'b1', n, 'i' || n, 1, 'Scan', now() FROM unnest(ARRAY[3, 4, 7]) AS u(n)"""
    )
    await conn.execute("INSERT INTO inbox_mark (terminal, boot, seq, moved_at) VALUES ('t1', 'b2', 9, now())")
    asked = [(TERMINAL, "b1", 7), (TERMINAL, "b2", 11), (TERMINAL, "b3", 5), (TERMINAL, "b1", 3)]
    assert await twins.newest_seqs(conn, asked) == [4, 9, 0, 0]


async def test_the_mark_moves_with_the_registry_and_the_departed_are_those_not_yet_cleared(
    conn: AsyncConnection[TupleRow],
) -> None:
    first = await twins.registry_mark(conn, REGION)
    assert await twins.registry_mark(conn, REGION) == first
    await register(conn, TerminalId("t2"))
    second = await twins.registry_mark(conn, REGION)
    assert second != first
    await twins.save_twin(conn, DesiredRecord(TERMINAL, 1, "{}", "h", None, NOW))
    await twins.write_presence(conn, {TERMINAL: SEEN}, NOW)
    await conn.execute("UPDATE terminal SET retired_at = now() WHERE id = 't1'")
    assert await twins.registry_mark(conn, REGION) != second
    assert [one.terminal for one in await twins.load_departed(conn, REGION)] == [TERMINAL]
    await twins.save_twin(conn, TerminalRetired(TERMINAL, NOW))
    assert await twins.load_departed(conn, REGION) == []
    assert await rows(conn, "SELECT * FROM presence") == []


async def test_the_family_that_was_registered_is_kept_while_software_makes_another_one(
    conn: AsyncConnection[TupleRow],
) -> None:
    query = "SELECT profile, delivered_profile FROM terminal WHERE id = 't1'"
    for profile, kept in (("kiosk", "till"), ("vending", "till"), ("vending", "till"), ("till", "")):
        await twins.save_twin(conn, FamilyChanged(TERMINAL, profile, "agent 2", "b1", NOW))
        assert await rows(conn, query) == [(profile, kept)]
        changed = await load_changed(conn, REGION)
        assert changed == ({TERMINAL: "till"} if kept else {})
