"""The franchise statement is the ledger, to the fen; and a store changes hands on a date."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import AsyncIterator, Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from psycopg import AsyncConnection

from models.domain.accounts import store_of
from models.domain.errors import Refused
from models.domain.franchise import MONEY, Line, Statement, days_of, line_of
from models.domain.ids import LegalEntityId, RegionId
from models.domain.ledger import Transaction
from models.tables.directory import load_owners
from models.tables.franchise import line_page, statements
from models.tables.ledger_balances import take_snapshot
from models.tables.owners import entities, move_store, owners_of
from runtime.postgres import EmbeddedPostgres
from tests.actors import lane
from tests.conftest import fresh_database
from tests.integration.books import FRANCHISED, MOMENT, OWN, SECOND, book_all, story

MONTH = "2026-11"
STORES = (OWN, FRANCHISED, SECOND)
SEEDS = (1, 2, 3)
STORY = [one for seed in SEEDS for one in story(seed)]


@pytest.fixture(scope="module")
def url(embedded_postgres: EmbeddedPostgres, migrated_template: str) -> Iterator[str]:
    with fresh_database(embedded_postgres, migrated_template) as name:
        yield name


@pytest.fixture
async def books(url: str) -> AsyncIterator[AsyncConnection]:
    async with await AsyncConnection.connect(url, autocommit=True) as conn:
        if (await (await conn.execute("SELECT count(*) FROM txn")).fetchone()) == (0,):
            await conn.execute(
                "INSERT INTO legal_entity (id, chain, name_zh, name_en, provider_app) SELECT id, 'demo', '', '', ''"
                " FROM unnest(ARRAY['chain', 'north', 'south']) AS e(id)"
            )
            await conn.execute(
                "INSERT INTO store (id, chain, region, shard, name_zh, name_en, zone, cutoff_hour, basket_owner,"
                " opened_at) SELECT id, 'demo', 'east', 0, '', '', 'Asia/Shanghai', 0, 'storeops', %s"
                " FROM unnest(%s::text[]) AS s(id)",
                (MOMENT, list(STORES)),
            )
            await conn.execute(
                "INSERT INTO store_entity (store, from_date, entity) VALUES ('s-own', '2020-01-01', 'chain'),"
                " ('s-north', '2020-01-01', 'north'), ('s-second', '2020-01-01', 'north')"
            )
            await book_all(conn, STORY[: len(STORY) // 2])
            await take_snapshot(conn, MOMENT)
            await book_all(conn, STORY[len(STORY) // 2 :])
        yield conn


async def of(conn: AsyncConnection, store: str) -> Statement:
    (found,) = await statements(conn, store, MONTH)
    return found


def moved(entity: str, transactions: list[Transaction] = STORY) -> dict[str, int]:
    """What each posted account of an entity moved in the month."""
    sums: defaultdict[str, int] = defaultdict(int)
    for one in transactions:
        for leg in one.entries:
            if leg.entity == entity and leg.book == "posted" and leg.business_date.startswith(MONTH):
                sums[leg.account] += leg.amount_fen
    return sums


async def test_the_lines_are_the_ledger_to_the_fen(books: AsyncConnection) -> None:
    for store in STORES:
        statement = await of(books, store)
        assert statement.difference_fen == 0
        assert statement.rows
        assert statement.earned_fen == sum(row.shown_fen for row in statement.rows if row.line in MONEY)
        ledger = moved(statement.entity)
        for row in statement.accounts:
            assert row.closing_fen - row.opening_fen == ledger.get(row.account, 0) == row.store_fen + row.rest_fen
            if store_of(row.account) == store:
                assert row.rest_fen == 0
        by_day = sum(fen for _, lines in statement.days for line, fen in lines.items() if line not in MONEY)
        assert by_day == statement.earned_fen
    gross = {row.key: row.shown_fen for row in (await of(books, FRANCHISED)).rows}
    absorbed = sum(-leg.amount_fen for one in STORY if one.kind in ("benefit_used", "benefit_reversed")
                   and not any(leg.account.startswith("discount_given") for leg in one.entries)
                   for leg in one.entries if leg.account == "sales_gross:s-north"
                   and leg.business_date.startswith(MONTH))  # fmt: skip
    assert gross["absorbed"] == absorbed > 0
    assert gross["gross_sales"] + absorbed == -moved("north")["sales_gross:s-north"]


async def test_the_stores_of_an_entity_and_its_rest_are_the_entity(books: AsyncConnection) -> None:
    both = [await of(books, store) for store in (FRANCHISED, SECOND)]
    shared = {row.account for row in both[0].accounts if not store_of(row.account)}
    for account in shared:
        parts = sum(row.store_fen for one in both for row in one.accounts if row.account == account)
        assert parts == moved("north").get(account, 0), "a franchisee has nothing but what its stores did"


async def test_every_line_opens_into_its_transactions(books: AsyncConnection) -> None:
    ids = {one.id: one for one in STORY}
    for store in STORES:
        statement = await of(books, store)
        for row in statement.rows:
            found, after, pages = [], None, 0
            while pages == 0 or after is not None:
                page, after = await line_page(books, store, statement.entity, MONTH, row.key, limit=9, after=after)
                found += page
                pages += 1
            assert len({one.transaction for one in found}) == len(found)
            total = sum(one.fen for one in found)
            assert row.line is Line.OTHER_STORES or total == (row.shown_fen if row.line in MONEY else -row.shown_fen)
            for one in found:
                assert any(leg.entity == statement.entity for leg in ids[one.transaction].entries)


async def refusal_of(conn: AsyncConnection, store: str, entity: str, day: str) -> str:
    with pytest.raises(Refused) as refused:
        await move_store(conn, store, entity, day)
    assert refused.value.do, "says what to do next"
    return refused.value.code


async def test_a_store_changes_hands_ahead_and_never_over_what_was_booked(books: AsyncConnection) -> None:
    last = max(leg.business_date for one in STORY for leg in one.entries)
    assert await refusal_of(books, "s-nowhere", "south", "2026-12-01") == "unknown_store"
    assert await refusal_of(books, SECOND, "nobody", "2026-12-01") == "unknown_entity"
    assert await refusal_of(books, SECOND, "north", "2026-12-01") == "owner_already"
    assert await refusal_of(books, SECOND, "south", last) == "move_days_booked"
    for day in ("tomorrow", "2026-12-32", "20261201"):
        assert await refusal_of(books, SECOND, "south", day) == "date_form"
    await books.execute(
        "INSERT INTO closed_through (entity, day, next_day) VALUES ('south', '2026-11-18', '2026-11-19')"
    )
    assert await refusal_of(books, SECOND, "south", "2026-11-18") == "move_day_closed"
    moved_to = await move_store(books, SECOND, "south", "2026-11-20")
    assert await move_store(books, SECOND, "south", "2026-11-20") == moved_to, "said again: the same"
    assert await refusal_of(books, SECOND, "north", "2026-11-19") == "move_planned"
    assert [one.entity for one in await owners_of(books, SECOND)] == ["north", "south"]
    assert {one.id: one.stores for one in await entities(books, "2026-11-20")}["south"] == (SECOND,)
    assert {one.id: one.stores for one in await entities(books, "2026-11-19")}["south"] == ()


async def test_a_store_that_changed_hands_has_two_statements_that_month(books: AsyncConnection) -> None:
    sold = [
        one for one in story(5, days=("2026-11-21",)) if any(leg.account.endswith("s-second") for leg in one.entries)
    ]
    theirs = [
        Transaction(one.kind, f"south-{one.request_number}", tuple(
            replace(leg, entity="south" if leg.entity == "north" else leg.entity,
                    account=leg.account.replace(":north", ":south"), leg=leg.leg)
            for leg in one.entries), one.memo)
        for one in sold if one.kind == "sale_paid"
    ]  # fmt: skip
    await book_all(books, theirs)
    north, south = await statements(books, SECOND, MONTH)
    assert (north.entity, north.from_date, north.to_date) == ("north", "2026-11-01", "2026-11-19")
    assert (south.entity, south.from_date, south.to_date) == ("south", "2026-11-20", "2026-11-30")
    assert north.difference_fen == south.difference_fen == 0
    gross = {row.key: row.shown_fen for row in south.rows}["gross_sales"]
    assert gross == -sum(
        leg.amount_fen for one in theirs for leg in one.entries if leg.account == "sales_gross:s-second"
    )
    (december,) = await statements(books, SECOND, "2026-12")
    assert (december.entity, december.earned_fen) == ("south", 0)


def test_a_sale_is_its_owners_by_the_business_date() -> None:
    owned = replace(lane.book(), owners=(("2020-01-01", LegalEntityId("a")), ("2026-11-20", LegalEntityId("b"))))
    first_of_b = datetime(2026, 11, 19, 20, tzinfo=UTC)  # 04:00 in Shanghai, where the store's day changes
    assert owned.entity_at(first_of_b - timedelta(seconds=1)) == "a"
    assert owned.entity_at(first_of_b) == "b"
    assert owned.entity_at(datetime(2010, 1, 1, tzinfo=UTC)) == "a"
    assert lane.book().entity_at(first_of_b) == lane.book().entity


async def test_hosts_learn_of_it_while_they_run(books: AsyncConnection) -> None:
    owners = await load_owners(books, RegionId("east"))
    assert owners == {SECOND: (("2020-01-01", "north"), ("2026-11-20", "south"))}


def test_a_discount_of_a_sale_or_of_points_is_one_and_february_has_its_days() -> None:
    for kind, line in (("sale_paid", "discounts"), ("points_moved", "discounts"), ("settled", "clawed_back")):
        assert line_of(kind, "discount_given:s1", absorbed=False) == (line, "")
    assert days_of("2028-02") == ("2028-02-01", "2028-02-29")
    assert days_of("2026-02") == ("2026-02-01", "2026-02-28")
