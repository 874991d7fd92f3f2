"""The audit's chain in a real database: what it refuses, and what is found of what was done with the guards off."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import psycopg
import pytest

from models.domain.privacy import GENESIS_SHA256
from models.tables.privacy import audit, audit_sync, verify

NOW = datetime(2026, 11, 22, 12, 0, 0, 123_456, tzinfo=UTC)


async def _three(url: str) -> None:
    async with await psycopg.AsyncConnection.connect(url) as conn:
        for n in range(3):
            await audit(conn, "face_erased", f"member-{n}", {"templates": n, "why": "撤回"}, "tests", NOW)


async def test_each_event_follows_the_one_before_whoever_writes_it(migrated_database_url: str) -> None:
    await _three(migrated_database_url)
    with psycopg.connect(migrated_database_url) as conn:
        fourth = audit_sync(conn, "face_erased", "member-3", {"sample": ["a", "b"]}, "tests", NOW + timedelta(days=1))
    assert fourth.n == 4
    async with await psycopg.AsyncConnection.connect(migrated_database_url) as conn:
        checked = await verify(conn)
        assert (checked.events, checked.head_sha256, checked.fault) == (4, fourth.sha256, None)
        assert (await verify(conn, (4, fourth.sha256))).ok
        assert (await verify(conn, (2, fourth.sha256))).fault == "event 2 is not what the checkpoint of it says"
        assert (await verify(conn, (9, fourth.sha256))).fault == "event 9 is not what the checkpoint of it says"


async def test_an_audit_in_a_rolled_back_transaction_is_not_there(migrated_database_url: str) -> None:
    async with await psycopg.AsyncConnection.connect(migrated_database_url) as conn:
        await audit(conn, "erased", "member", {}, "tests", NOW)
        await conn.rollback()
        assert (await verify(conn)).events == 0
        first = await audit(conn, "erased", "member", {}, "tests", NOW)
        assert (first.n, first.prev_sha256) == (1, GENESIS_SHA256)


@pytest.mark.parametrize(
    "statement",
    ["UPDATE audit_event SET subject = ''", "DELETE FROM audit_event", "TRUNCATE audit_event"],
)
async def test_an_event_is_never_changed_or_removed(migrated_database_url: str, statement: str) -> None:
    await _three(migrated_database_url)
    with (
        psycopg.connect(migrated_database_url) as conn,
        pytest.raises(psycopg.errors.CheckViolation, match="append-only"),
    ):
        conn.execute(statement)


async def test_an_event_that_does_not_follow_the_last_is_refused(migrated_database_url: str) -> None:
    await _three(migrated_database_url)
    with (
        psycopg.connect(migrated_database_url) as conn,
        pytest.raises(psycopg.errors.CheckViolation, match="does not follow"),
    ):
        conn.execute(
            "INSERT INTO audit_event (n, at, kind, subject, by, detail, prev_sha256, sha256)"
            " VALUES (4, now(), 'k', 's', 'b', '{}', repeat('0', 64), repeat('1', 64))"
        )


@pytest.mark.parametrize(
    ("statement", "fault"),
    [
        ("UPDATE audit_event SET subject = 'another' WHERE n = 2", "event 2 was changed"),
        ("DELETE FROM audit_event WHERE n = 2", "event 2 is missing"),
        ("UPDATE audit_event SET prev_sha256 = repeat('0', 64) WHERE n = 3", "event 3 does not follow event 2"),
        ("DELETE FROM audit_event WHERE n = 3", "event 3 is not what the checkpoint of it says"),
    ],
    ids=["changed", "removed", "relinked", "cut off"],
)
async def test_who_switches_the_guards_off_is_found_out(migrated_database_url: str, statement: str, fault: str) -> None:
    await _three(migrated_database_url)
    async with await psycopg.AsyncConnection.connect(migrated_database_url) as conn:
        head = await verify(conn)
        await conn.execute("ALTER TABLE audit_event DISABLE TRIGGER USER")
        await conn.execute(statement)
        assert (await verify(conn, (3, head.head_sha256))).fault == fault


async def test_who_writes_the_whole_chain_anew_is_found_out_by_the_checkpoint_alone(migrated_database_url: str) -> None:
    await _three(migrated_database_url)
    async with await psycopg.AsyncConnection.connect(migrated_database_url) as conn:
        head = await verify(conn)
        await conn.execute("ALTER TABLE audit_event DISABLE TRIGGER USER")
        await conn.execute("DELETE FROM audit_event")
        for n in range(3):
            await audit(conn, "face_erased", f"somebody-{n}", {}, "tests", NOW)
        alone, held = await verify(conn), await verify(conn, (head.events, head.head_sha256))
        assert (alone.ok, alone.checkpoint) == (True, 0), "and says that nothing outside vouches for it"
        assert (held.fault, held.checkpoint) == ("event 3 is not what the checkpoint of it says", 3)


async def test_writers_at_the_same_time_make_one_chain(migrated_database_url: str) -> None:
    first = await psycopg.AsyncConnection.connect(migrated_database_url)
    second = await psycopg.AsyncConnection.connect(migrated_database_url, options="-c lock_timeout=50")
    async with first, second:
        await audit(first, "a", "m", {}, "tests", NOW)
        with pytest.raises(psycopg.errors.LockNotAvailable):
            await audit(second, "b", "m", {}, "tests", NOW)
        await second.rollback()
        await first.commit()
        assert (await audit(second, "b", "m", {}, "tests", NOW)).n == 2


async def test_a_detail_that_would_not_come_back_is_refused(migrated_database_url: str) -> None:
    async with await psycopg.AsyncConnection.connect(migrated_database_url) as conn:
        with pytest.raises(TypeError, match="float"):
            await audit(conn, "a", "m", {"score": 0.5}, "tests", NOW)  # type: ignore[dict-item]
