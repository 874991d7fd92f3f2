"""Statements that come by themselves: which days are missing, and that one that is late is asked for again."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from psycopg import AsyncConnection
from psycopg_pool import AsyncConnectionPool

from models.domain.errors import RetryLater
from models.domain.ids import LegalEntityId, RegionId
from models.domain.reconciliation import StatementFile, totals_of
from models.tables.differences import DayRun
from models.tables.ledger_balances import balances
from models.tables.reconciliation import Account
from runtime.daily_statements import TRY_AGAIN_AFTER_S, DailyStatements
from runtime.day_close import DayClose
from runtime.plant import MerchantAccount, Plant
from runtime.postgres import EmbeddedPostgres
from runtime.reconciliation_desk import ReconciliationDesk
from runtime.reconciling import Pool, Reconciler
from runtime.testing.planted_sales import PlantedDay
from tests.conftest import fresh_database
from tests.integration.books import OWN
from tests.integration.money_shop import seed
from tests.integration.test_reconciliation import nobody

NOW = datetime(2026, 3, 9, 4, tzinfo=UTC)
TODAY = date(2026, 3, 9)
CHAIN = Account("alipay", "chain")


@pytest.fixture
async def house(embedded_postgres: EmbeddedPostgres, migrated_template: str) -> AsyncIterator[tuple[Pool, Plant]]:
    with fresh_database(embedded_postgres, migrated_template) as url:
        async with AsyncConnectionPool[AsyncConnection[Any]](url, min_size=1, open=False) as pool:
            await seed(pool)
            ahead = NOW - datetime.now(UTC)
            async with pool.connection() as conn:
                await conn.execute("UPDATE business_clock SET offset_us = %s", (ahead // timedelta(microseconds=1),))
            accounts = (MerchantAccount(LegalEntityId("chain"), "app", "seller", ""),)
            yield pool, Plant(Path(), region=RegionId("local"), database_url=url, accounts=accounts)


async def plant_day(pool: Pool, day: date) -> PlantedDay:
    one = PlantedDay("alipay", "chain", OWN, day, 3, day.isoformat())
    async with pool.connection() as conn, conn.cursor() as cur:
        await one.plant(cur)
    return one


async def test_days_since_the_last_statement_are_missing(house: tuple[Pool, Plant]) -> None:
    pool, plant = house
    desk = ReconciliationDesk([plant])
    yesterday = TODAY - timedelta(days=1)
    assert await desk.missing("chain", "alipay", days_max=35) == [yesterday], "nothing was ever booked"
    first = date(2026, 3, 5)
    planted = await plant_day(pool, first)
    assert await desk.missing("chain", "alipay", days_max=35) == [first + timedelta(days=n) for n in range(4)]
    assert await desk.missing("chain", "alipay", days_max=2) == [yesterday - timedelta(days=1), yesterday]
    reconciler = Reconciler(pool, nobody, wall=lambda: NOW)
    lines = list(planted.lines())
    await reconciler.keep(StatementFile("alipay", "chain", first, totals_of(lines), lines))
    await reconciler.run(CHAIN, first, TODAY)
    assert await desk.missing("chain", "alipay", days_max=35) == [first + timedelta(days=n) for n in (1, 2, 3)]
    closed = await DayClose(pool, reconciler, ["alipay"]).close("chain", yesterday, NOW, "test")
    assert closed.closed
    assert await desk.missing("chain", "alipay", days_max=35) == []


async def test_the_first_close_proves_what_moved_before_and_sums_up(house: tuple[Pool, Plant]) -> None:
    pool, _ = house
    early, late = date(2026, 3, 3), date(2026, 3, 6)
    planted = await plant_day(pool, early)
    reconciler = Reconciler(pool, nobody, wall=lambda: NOW)
    days = DayClose(pool, reconciler, ["alipay"], wall=lambda: NOW)
    stuck = await days.close("chain", late, NOW, "test")
    assert (stuck.day, [one.code for one in stuck.obstacles]) == (early, ["no_statement"])
    lines = list(planted.lines())
    await reconciler.keep(StatementFile("alipay", "chain", early, totals_of(lines), lines))
    done = await days.close("chain", late, NOW, "test")
    assert (done.closed, done.day) == (True, late)
    async with pool.connection() as conn:
        row = await (await conn.execute("SELECT transactions > 0 FROM ledger_snapshot")).fetchone()
        assert row == (True,), "a close takes a snapshot"
        assert await balances(conn, account="sales_gross")


class _Desk:
    """Days that are missing, and which of them have no statement yet."""

    def __init__(self, missing: Sequence[date], late: set[date]) -> None:
        self.days, self.late = list(missing), late
        self.asked: list[date] = []

    async def missing(self, account: str, provider: str, *, days_max: int, region: str = "") -> Sequence[date]:
        return list(self.days)

    async def fetch_and_run(self, account: str, provider: str, day: date, *, region: str = "") -> DayRun:
        self.asked.append(day)
        if day in self.late:
            raise RetryLater("statement_not_ready", "none yet", "later", after_s=600)
        self.days = [one for one in self.days if one > day]
        return DayRun(provider, account, day, 0, 0, 0, 0, 0, 0, 1, NOW, 0, 0, 0)


def duty(desk: _Desk, *urls: str, daily: bool = True) -> DailyStatements:
    accounts = (MerchantAccount(LegalEntityId("chain"), "app", "seller", ""),)
    plants = [Plant(Path(), database_url=url, accounts=accounts, provider_statements_daily=daily) for url in urls]
    return DailyStatements(plants, desk)


async def test_a_statement_that_is_late_is_asked_for_again_after_a_while() -> None:
    first, yesterday = date(2026, 3, 7), date(2026, 3, 8)
    desk = _Desk([first, yesterday], {first, yesterday})
    at_s = 0.0
    daily = duty(desk, "one")
    assert await daily.look(lambda: at_s) == []
    assert desk.asked == [first, yesterday], "a day without a statement does not hide those after it"
    desk.late = set()
    assert await daily.look(lambda: at_s + TRY_AGAIN_AFTER_S - 1) == []
    assert [run.day for run in await daily.look(lambda: at_s + TRY_AGAIN_AFTER_S)] == [first, yesterday]
    assert await daily.look(lambda: at_s + TRY_AGAIN_AFTER_S) == []


async def test_an_account_of_several_databases_and_one_that_is_switched_off_are_left_alone() -> None:
    desk = _Desk([TODAY], set())
    assert await duty(desk, "one", "two").look(lambda: 0.0) == []
    assert await duty(desk, "one", daily=False).look(lambda: 0.0) == []
    assert desk.asked == []
    assert [run.day for run in await duty(desk, "one", "one").look(lambda: 0.0)] == [TODAY]
