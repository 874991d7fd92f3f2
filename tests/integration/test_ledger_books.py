"""Snapshots with their tail, the journal, and a verification that finds every class of fault and invents none."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import AsyncIterator, Iterator

import pytest
from psycopg import AsyncConnection

from models.domain.errors import Refused
from models.tables.ledger_balances import balances, take_snapshot
from models.tables.ledger_faults import FAULTS, verify
from models.tables.ledger_journal import Wanted, journal, stream
from runtime.postgres import EmbeddedPostgres
from tests.conftest import fresh_database
from tests.integration.books import MOMENT, NORTH, book_all, story, without_guards

STORY = story(7)
DAYS = ("2026-10-31", "2026-11-02", "2026-11-17")
Sums = dict[tuple[str, str, str], int]


@pytest.fixture(scope="module")
def url(embedded_postgres: EmbeddedPostgres, migrated_template: str) -> Iterator[str]:
    with fresh_database(embedded_postgres, migrated_template) as name:
        yield name


@pytest.fixture
async def books(url: str) -> AsyncIterator[AsyncConnection]:
    async with await AsyncConnection.connect(url, autocommit=True) as conn:
        if (await (await conn.execute("SELECT count(*) FROM txn")).fetchone()) == (0,):
            await book_all(conn, STORY[: len(STORY) // 2])
            await take_snapshot(conn, MOMENT)
            await book_all(conn, STORY[len(STORY) // 2 :])
        yield conn


def expected(on: str = "9999-12-31", since: str = "") -> Sums:
    sums: defaultdict[tuple[str, str, str], int] = defaultdict(int)
    for one in STORY:
        for entry in one.entries:
            if since <= entry.business_date <= on:
                sums[entry.entity, entry.account, entry.book.value] += entry.amount_fen
    return {key: fen for key, fen in sums.items() if fen}


async def found(conn: AsyncConnection, **filters: str) -> Sums:
    return {(one.entity, one.account, one.book.value): one.fen for one in await balances(conn, **filters)}  # type: ignore[arg-type]


async def test_balances_are_the_snapshot_and_its_tail(books: AsyncConnection) -> None:
    assert await found(books) == expected()
    for day in DAYS:
        assert await found(books, on=day) == expected(on=day)
        assert await found(books, since=day) == expected(since=day)
    one = await found(books, entity="north", account="sales_gross")
    assert one == {key: fen for key, fen in expected().items() if key[0] == NORTH and key[1].startswith("sales_gross:")}
    days = await (await books.execute("SELECT sum(legs) FROM ledger_day")).fetchone()
    assert days is not None
    assert 0 < days[0] < sum(len(one.entries) for one in STORY), "part of it is summed up, part of it is tail"


async def test_a_snapshot_ends_before_what_is_still_open(url: str, books: AsyncConnection) -> None:
    """A booking that commits after a later one was summed up is not lost."""
    late, early = story(8, steps=3), story(9, steps=3)
    async with await AsyncConnection.connect(url) as open_one:
        await open_one.execute("SELECT 1")  # from here on it is open, what is booked is a savepoint
        await book_all(open_one, late[:1], commits=1)
        await book_all(books, early, commits=1)
        before = await take_snapshot(books, MOMENT)
        during = await found(books)
        await open_one.commit()
    after = await found(books)
    for entry in late[0].entries:
        key = (entry.entity, entry.account, entry.book.value)
        assert after.get(key, 0) != during.get(key, 0)
    taken = await take_snapshot(books, MOMENT)
    assert taken.transactions == before.transactions + 1 + len([one for one in early if one.entries])
    assert await found(books) == after
    assert (await verify(books)).ok
    STORY.extend([late[0], *early])


async def test_a_snapshot_of_another_server_counts_for_nothing(books: AsyncConnection) -> None:
    await take_snapshot(books, MOMENT)
    await books.execute("UPDATE ledger_snapshot SET cluster = 1, below_xact = below_xact + 1000000")
    await books.execute("UPDATE ledger_day SET fen = fen + 1")
    assert await found(books) == expected()
    await take_snapshot(books, MOMENT)
    assert await found(books) == expected()
    assert (await verify(books)).ok


async def test_pages_of_the_journal_join_to_the_whole(books: AsyncConnection) -> None:
    booked = {one.id: one for one in STORY if one.entries}
    for wanted in (Wanted(), Wanted(since="2026-01-01"), Wanted(entity="north", since=DAYS[1], until=DAYS[1])):
        seen, after = [], None
        while True:
            page = await journal(books, wanted, limit=7, after=after)
            seen += [one.transaction for one in page.booked]
            after = page.after
            if after is None:
                break
        assert len({one.id for one in seen}) == len(seen), "no transaction twice"
        if wanted.entity:
            chosen = {
                name: one
                for name, one in booked.items()
                if any(leg.entity == NORTH and leg.business_date == DAYS[1] for leg in one.entries)
            }
        else:
            chosen = booked
        assert {one.id: one for one in seen} == chosen
    account = await journal(books, Wanted(entity="chain", account="membership_fee_income"), limit=1000)
    total = sum(leg.amount_fen for one in account.booked for leg in one.transaction.entries
                if (leg.entity, leg.account) == ("chain", "membership_fee_income"))  # fmt: skip
    assert total == expected()["chain", "membership_fee_income", "posted"]
    with pytest.raises(Refused):
        Wanted(entity="chain", sale="x")


async def test_the_stream_is_every_transaction_once_by_day(books: AsyncConnection) -> None:
    streamed = [one.transaction async for one in stream(books)]
    assert {one.id: one for one in streamed} == {one.id: one for one in STORY if one.entries}
    days = [min(leg.business_date for leg in one.entries) for one in streamed]
    assert days == sorted(days)


async def test_whole_books_have_no_fault(books: AsyncConnection) -> None:
    heard: list[str] = []
    verified = await verify(books, heard.append)
    assert verified.ok
    assert tuple(heard) == FAULTS == tuple(fault.what for fault in verified.faults)
    assert verified.transactions == len([one for one in STORY if one.entries])
    assert verified.legs == sum(len(one.entries) for one in STORY)


PICK = "(SELECT min(id) FROM txn WHERE kind = 'sale_paid')"
INJECTED = {
    "does_not_balance": f"UPDATE entry SET amount_fen = amount_fen + 1 WHERE txn = {PICK} AND leg = 0",
    "legs_without_transaction": f"DELETE FROM txn WHERE id = {PICK} OR refers_to = {PICK}",
    "transaction_without_legs": f"DELETE FROM entry WHERE txn = {PICK}",
    "legs_not_whole": f"UPDATE entry SET leg = leg + 1 WHERE txn = {PICK}",
    "request_booked_twice": f"UPDATE txn SET request_number = (SELECT request_number FROM txn WHERE id = {PICK})"
    " WHERE id = (SELECT max(id) FROM txn WHERE kind = 'sale_paid')",
    "badly_formed": f"UPDATE entry SET account = 'Sales Gross' WHERE txn = {PICK}",
    "dues_do_not_match": "UPDATE entry SET account = 'due_to:west' WHERE account = 'due_to:north'"
    " AND txn = (SELECT min(txn) FROM entry WHERE account = 'due_to:north')",
    "refers_to_nothing": "UPDATE txn SET refers_to = 'nobody'"
    " WHERE id = (SELECT min(id) FROM txn WHERE kind = 'hold_ended')",
    "mirror_is_none": "UPDATE entry SET amount_fen = amount_fen * 2 WHERE txn ="
    " (SELECT min(id) FROM txn WHERE kind = 'hold_ended')",
    "snapshot_is_not_the_sum": "UPDATE ledger_day SET fen = fen + 1 WHERE account = 'membership_fee_income'",
    "history_changed": f"UPDATE txn SET booked_at = booked_at + interval '1 second' WHERE id = {PICK}",
    "guard_is_gone": "ALTER TABLE entry DISABLE TRIGGER entry_append_only",
    "id_is_not_derived": "UPDATE txn SET kind = 'sale_payed' WHERE id = (SELECT max(id) FROM txn"
    " WHERE kind = 'takings_without_order')",
}
FOLLOWS = {
    "legs_without_transaction": {"history_changed", "snapshot_is_not_the_sum", "refers_to_nothing"},
    "transaction_without_legs": {"history_changed", "snapshot_is_not_the_sum", "mirror_is_none"},
    "does_not_balance": {"history_changed", "snapshot_is_not_the_sum", "mirror_is_none"},
    "request_booked_twice": {"history_changed", "id_is_not_derived"},
    "dues_do_not_match": {"history_changed", "snapshot_is_not_the_sum", "mirror_is_none"},
    "badly_formed": {"history_changed", "snapshot_is_not_the_sum", "mirror_is_none"},
    "mirror_is_none": {"history_changed", "snapshot_is_not_the_sum"},
    "refers_to_nothing": {"history_changed"},
    "id_is_not_derived": {"history_changed"},
    "legs_not_whole": {"history_changed"},
}
"""What else is wrong by the same deed: another class of fault that was made indeed."""


@pytest.fixture(scope="module")
def unguarded(embedded_postgres: EmbeddedPostgres, migrated_template: str) -> Iterator[str]:
    """A copy of books without any guard, and what it was, to go back to."""
    with fresh_database(embedded_postgres, migrated_template) as name:
        yield name


@pytest.mark.parametrize("what", FAULTS)
async def test_every_class_of_fault_is_found_and_none_invented(unguarded: str, what: str) -> None:
    tables = ("txn", "entry", "ledger_day", "ledger_snapshot")
    async with await AsyncConnection.connect(unguarded, autocommit=True) as conn:
        if (await (await conn.execute("SELECT count(*) FROM txn")).fetchone()) == (0,):
            await book_all(conn, story(11))
            await take_snapshot(conn, MOMENT)
            without_guards(unguarded)
            for table in tables:
                await conn.execute(f"CREATE TABLE kept_{table} AS TABLE {table}".encode())
        for table in tables:
            await conn.execute(f"DELETE FROM {table}; INSERT INTO {table} SELECT * FROM kept_{table}".encode())
        gone = {fault.what for fault in (await verify(conn)).faults if fault.count}
        assert gone == {"guard_is_gone"}, "nothing but the guards is amiss"
        await conn.execute(INJECTED[what].encode())
        faults = {fault.what: fault for fault in (await verify(conn)).faults if fault.count}
    assert what in faults
    assert faults[what].examples
    assert set(faults) - FOLLOWS.get(what, set()) - {"guard_is_gone"} <= {what}
