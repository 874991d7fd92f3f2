"""The franchise statement is the ledger, to the fen; and a store changes hands on a date."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import AsyncIterator, Iterator

import pytest
from psycopg import AsyncConnection

from models.domain.accounts import store_of
from models.domain.franchise import MONEY, Line, Statement
from models.domain.ledger import Transaction
from models.tables.franchise import line_page, statements
from models.tables.ledger_balances import take_snapshot
from runtime.postgres import EmbeddedPostgres
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
