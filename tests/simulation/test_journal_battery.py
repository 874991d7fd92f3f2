"""One battery over both journals: what the simulation believes of its own must be so of PostgreSQL's."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, cast

import msgspec
import psycopg
import pytest
from psycopg.errors import UniqueViolation

from models.domain.errors import Fenced
from models.domain.ids import RegionId, StoreId, TerminalId, shard_of
from models.domain.messages import Address
from models.tables import journal as postgres
from models.tables.columns import quick_columns
from models.tables.journal import Commit, InboxKey, OutboxEntry, Slot, TimerKey
from runtime.journal_port import Journal
from runtime.testing.journal import MemoryConnection, MemoryDatabase, MemoryJournal

NOW = datetime(2026, 5, 1, 2, 0, tzinfo=UTC)
REGION, STORE, TERMINAL = RegionId("north"), StoreId("s1"), TerminalId("t1")
LANE = Address(REGION, STORE, "session", "l1")
BOOT = "b"
SHARD = shard_of(STORE)


@dataclass
class Subject:
    """A journal, a connection to it, and a claimed slot."""

    journal: Journal
    conn: Any
    slot: Slot

    async def commit(self, at: datetime = NOW, **parts: Any) -> None:
        await self.journal.commit_batch(self.conn, self.slot, Commit(**parts), 15.0, at)

    async def sweep(self, at: datetime, slot: Slot | None = None) -> list[tuple[str, int]]:
        taken = await self.journal.sweep_outbox(self.conn, slot or self.slot, at, 15.0, 100)
        return [(entry.id, entry.attempts) for entry in taken]

    async def due(self, wall: datetime, business: datetime) -> list[str]:
        return [timer.ref for timer in await self.journal.due_timers(self.conn, self.slot, wall, business, 100)]


@pytest.fixture(params=["memory", pytest.param("postgresql", marks=pytest.mark.integration)])
async def subject(request: pytest.FixtureRequest) -> AsyncIterator[Subject]:
    if request.param == "memory":
        conn: Any = MemoryConnection(MemoryDatabase())
        journal: Journal = MemoryJournal(lambda _: None)
        yield Subject(journal, conn, await journal.claim(conn, REGION, 0, 1, "test"))
        return
    url = request.getfixturevalue("migrated_database_url")
    async with await psycopg.AsyncConnection.connect(url, autocommit=True) as real:
        quick_columns(real)
        yield Subject(cast(Journal, postgres), real, await postgres.claim(real, REGION, 0, 1, "test"))


def key(seq: int, ident: str | None = None) -> InboxKey:
    return InboxKey(TERMINAL, BOOT, seq, ident or f"id-{seq}")


def timer(ref: str, due: datetime, clock: str = "wall", kind: str = "reply") -> TimerKey:
    return TimerKey(LANE, clock, kind, ref, due)


def ask(ident: str) -> OutboxEntry:
    return OutboxEntry(ident, LANE, "payments", "PaymentRequest", b'{"order": "P1"}')


async def test_a_message_is_found_by_either_of_its_names(subject: Subject) -> None:
    await subject.commit(inbox=[(key(1), SHARD, "Scan", b'{"ok": true}'), (key(2), SHARD, "Confirm", None)])
    read = await subject.journal.read_batch(subject.conn, [key(1), key(9, "id-2"), key(2, "other"), key(3)], [LANE])
    assert {(seen.key, str(seen.reply)) for seen in read.seen} == {(key(1), "{'ok': True}"), (key(2), "None")}
    assert (read.offset_us, read.entities, read.marks) == (0, {}, {})
    await subject.commit(replies=[(TERMINAL, "id-2", b'{"ok": false}')])
    (seen,) = (await subject.journal.read_batch(subject.conn, [key(2)], [])).seen
    assert seen.reply == {"ok": False}


@pytest.mark.parametrize("again", [key(1, "other"), key(5, "id-1")])
async def test_a_message_twice_is_refused_and_nothing_is_written(subject: Subject, again: InboxKey) -> None:
    await subject.commit(inbox=[(key(1), SHARD, "Scan", None)])
    with pytest.raises(UniqueViolation):
        await subject.commit(inbox=[(key(7), SHARD, "Scan", None), (again, SHARD, "Scan", None)], outbox=[ask("a")])
    assert (await subject.journal.read_batch(subject.conn, [key(7)], [])).seen == ()
    assert await subject.sweep(NOW + timedelta(hours=1)) == []


async def test_states_are_read_back_and_the_closed_ones_sleep(subject: Subject) -> None:
    other = Address(REGION, STORE, "session", "l2")
    store = Address(REGION, STORE, "store", STORE)
    states = {LANE: (b'{"state": "open"}', 1), other: (b'{"state": "closed"}', 4), store: (b'{"sales": 1}', 2)}
    await subject.commit(entities=states)
    await subject.commit(entities={LANE: (b'{"state": "paid"}', 2)})
    read = await subject.journal.read_batch(subject.conn, [], [LANE, other])
    assert {at: (msgspec.json.decode(row.state), row.version) for at, row in read.entities.items()} == {
        LANE: ({"state": "paid"}, 2),
        other: ({"state": "closed"}, 4),
    }
    assert {at for at, _ in await subject.journal.standing_entities(subject.conn, subject.slot, None, 9)} == {
        LANE,
        store,
    }


async def test_a_newer_host_fences_the_older(subject: Subject) -> None:
    newer = await subject.journal.claim(subject.conn, REGION, 0, 1, "newer")
    assert newer.epoch == subject.slot.epoch + 1
    assert not await subject.journal.still_holds(subject.conn, subject.slot)
    with pytest.raises(Fenced):
        await subject.commit(inbox=[(key(1), SHARD, "Scan", None)], timers=[timer("a", NOW)])
    assert (await subject.journal.read_batch(subject.conn, [key(1)], [])).seen == ()
    assert await subject.due(NOW, NOW) == []


async def test_timers_fire_in_due_order_by_their_own_clock_and_once(subject: Subject) -> None:
    late, early = NOW + timedelta(seconds=3), NOW + timedelta(seconds=1)
    await subject.commit(timers=[timer("late", late), timer("early", early), timer("day", NOW, clock="business")])
    before = NOW - timedelta(days=1)
    assert await subject.due(NOW, before) == []
    assert await subject.due(late, before) == ["early", "late"]
    assert await subject.due(before, NOW) == ["day"]
    await subject.commit(timers=[timer("early", late + timedelta(hours=1))])
    timers = await subject.journal.due_timers(subject.conn, subject.slot, late, before, 100)
    assert [one.due_at for one in timers] == [early, late], "a timer that stands is not moved"
    assert len(await subject.journal.due_timers(subject.conn, subject.slot, late, before, 1)) == 1
    await subject.commit(fired=[timers[0].n], timers=[timer("early", late)])
    assert await subject.due(late, before) == ["late", "early"], "fired first, then set anew by the same turn"


async def test_an_ask_is_leased_swept_and_ended(subject: Subject) -> None:
    await subject.commit(outbox=[ask("a")])
    await subject.commit(outbox=[ask("a")])
    assert await subject.sweep(NOW + timedelta(seconds=14)) == []
    assert await subject.sweep(NOW + timedelta(seconds=16)) == [("a", 2)]
    assert await subject.sweep(NOW + timedelta(seconds=17)) == [], "leased again"
    newer = await subject.journal.claim(subject.conn, REGION, 0, 1, "newer")
    assert await subject.sweep(NOW + timedelta(seconds=18), newer) == [("a", 3)], "the lease of a dead host is void"
    subject.slot = newer
    await subject.commit(answered=[("a", b'{"ok": true}')], at=NOW + timedelta(seconds=19))
    assert await subject.sweep(NOW + timedelta(hours=1)) == []
    await subject.commit(deferred=[("a", 1.0)], at=NOW + timedelta(seconds=20))
    assert await subject.sweep(NOW + timedelta(hours=1)) == [], "what has ended is not begun again"


@pytest.mark.integration
async def test_what_is_done_keeps_no_phone_number_and_no_token(migrated_database_url: str) -> None:
    secret = b'{"phone": "13912345678", "auth": {"provider": "alipay", "token": "t0k"}, "plan": "light-10"}'
    async with await psycopg.AsyncConnection.connect(migrated_database_url, autocommit=True) as conn:
        slot = await postgres.claim(conn, REGION, 0, 1, "test")
        enrol = OutboxEntry("e", LANE, "memberships", "EnrolMember", secret)
        await postgres.commit_batch(conn, slot, Commit(outbox=[enrol]), 15.0, NOW)
        await postgres.commit_batch(conn, slot, Commit(answered=[("e", b"{}")]), 15.0, NOW)
        (left,) = await (await conn.execute("SELECT request FROM outbox WHERE id = 'e'")).fetchone() or (None,)
    assert left == {"plan": "light-10"}


async def test_an_ask_is_put_off(subject: Subject) -> None:
    await subject.commit(outbox=[ask("a")])
    await subject.commit(deferred=[("a", 2.0)])
    assert await subject.sweep(NOW + timedelta(seconds=1)) == []
    assert await subject.sweep(NOW + timedelta(seconds=2)) == [("a", 2)]


async def test_what_stands_comes_page_by_page(subject: Subject) -> None:
    addresses = [Address(REGION, STORE, kind, f"{kind}{n}") for kind in ("session", "terminal") for n in range(4)]
    await subject.commit(entities=dict.fromkeys(reversed(addresses), (b'{"state": "open"}', 1)))
    pages: list[list[Address]] = []
    while not pages or pages[-1]:
        after = pages[-1][-1] if pages else None
        page = await subject.journal.standing_entities(subject.conn, subject.slot, after, 3)
        pages.append([at for at, _ in page])
    assert pages == [addresses[:3], addresses[3:6], addresses[6:], []]


async def test_a_backlog_of_both_clocks_is_taken_in_due_order(subject: Subject) -> None:
    clocks = ("wall", "business")
    timers = [timer(str(n), NOW + timedelta(seconds=7 * n % 12), clocks[n % 2]) for n in range(12)]
    await subject.commit(timers=timers)
    late = NOW + timedelta(hours=1)
    taken: list[TimerKey] = []
    while batch := await subject.journal.due_timers(subject.conn, subject.slot, late, late, 5):
        assert len(batch) <= 5
        taken += batch
        await subject.commit(fired=[one.n for one in batch])
    assert [one.due_at for one in taken] == sorted(one.due_at for one in timers)
    assert len(taken) == 12
