"""Reconciliation of a house that runs, for the command line and the gateway: made from its plants, a pool per verb."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import date, timedelta
from typing import Any

from psycopg import AsyncConnection
from psycopg_pool import AsyncConnectionPool

from gateway.providers.port import Statements
from gateway.reconciliation import CloseResult
from models.domain.calendar import business_date
from models.domain.difference_postings import Remedy
from models.domain.differences import FeeTerms
from models.domain.errors import Refused
from models.domain.ids import LegalEntityId
from models.domain.payments import PROVIDERS
from models.domain.reconciliation import StatementFile
from models.tables import differences
from models.tables.business_days import DayEvent, closed_through, first_moved, store_days
from models.tables.differences import DayRun, Line
from models.tables.reconciliation import Account, load_statement
from runtime import clock
from runtime.day_close import DayClose
from runtime.plant import Plant, Providers
from runtime.reconciling import Pool, Reconciler


@dataclass(frozen=True, slots=True)
class _Open:
    """One database's parts, for the length of a verb."""

    pool: Pool
    reconciler: Reconciler
    days: DayClose

    async def today(self, entity: str) -> date:
        """The entity's business date now: its stores' latest; the calendar's in UTC where it has no store."""
        now = await clock.business_now(self.pool)
        async with self.pool.connection() as conn, conn.cursor() as cur:
            stores = await store_days(cur, entity, now.date())
        return max((business_date(now, one.zone, one.cutoff_hour) for one in stores), default=now.date())


class ReconciliationDesk:
    """Implements gateway.reconciliation.Reconciliation."""

    def __init__(self, plants: Sequence[Plant]) -> None:
        self._plants = plants

    def accounts(self, *, region: str = "") -> list[Account]:
        """Every merchant account of a region's database."""
        plant = self._plant(region)
        return [Account(account.provider, account.entity) for account in plant.accounts]

    async def yesterday(self, account: str, *, region: str = "") -> date:
        """The last business day that is over: the one whose statement there is."""
        async with self._open(region) as at:
            return await at.today(account) - timedelta(days=1)

    async def missing(self, account: str, provider: str, *, days_max: int, region: str = "") -> Sequence[date]:
        """Days up to yesterday without a statement, the last `days_max`: after the last one that has one or is closed,
        or from the account's first entries on; yesterday alone where there are none."""
        async with self._open(region) as at:
            yesterday = await at.today(account) - timedelta(days=1)
            async with at.pool.connection() as conn, conn.cursor() as cur:
                done = [
                    await closed_through(cur, account),
                    await differences.last_stated(cur, Account(provider, account)),
                ]
                moved = await first_moved(cur, account, (provider,))
        last = max((day for day in done if day is not None), default=None)
        first = min(moved or yesterday, yesterday) if last is None else last + timedelta(days=1)
        count = (yesterday - first).days + 1
        return [yesterday - timedelta(days=back) for back in reversed(range(min(count, days_max)))]

    async def fetch(
        self,
        account: str,
        provider: str,
        day: date,
        *,
        region: str = "",
        progress: Callable[[int], None] = lambda _: None,
    ) -> int:
        """Fetch a day's statement, in the place of an earlier one; returns its lines."""
        async with self._open(region) as at:
            return await at.reconciler.fetch(Account(provider, account), day, progress)

    async def keep(self, file: StatementFile, *, region: str = "") -> int:
        """Keep a statement that came by another way (a provider's portal); returns its lines."""
        async with self._open(region) as at:
            return await at.reconciler.keep(file)

    async def fetch_and_run(self, account: str, provider: str, day: date, *, region: str = "") -> DayRun:
        one = Account(provider, account)
        async with self._open(region) as at:
            async with at.pool.connection() as conn, conn.cursor() as cur:
                there = await load_statement(cur, one, day) is not None
            if not there:
                await at.reconciler.fetch(one, day)
            return await at.reconciler.run(one, day, await at.today(account))

    async def run(self, account: str, provider: str, day: date, *, region: str = "") -> DayRun:
        async with self._open(region) as at:
            return await at.reconciler.run(Account(provider, account), day, await at.today(account))

    async def lines(
        self,
        *,
        account: str | None = None,
        provider: str | None = None,
        day: date | None = None,
        state: str | None = None,
        after: str = "",
        limit: int = 1_000,
        region: str = "",
    ) -> Sequence[Line]:
        async with self._open(region) as at, at.pool.connection() as conn:
            return await differences.list_lines(
                conn, account=account, provider=provider, day=day, state=state, after=after, limit=limit
            )

    async def days(
        self,
        *,
        account: str | None = None,
        since: date | None = None,
        until: date | None = None,
        limit: int = 400,
        region: str = "",
    ) -> Sequence[DayRun]:
        async with self._open(region) as at, at.pool.connection() as conn:
            return await differences.list_days(conn, account=account, since=since, until=until, limit=limit)

    async def explain(self, line: str, reason: str, by: str, *, region: str = "") -> Line:
        async with self._open(region) as at:
            return await at.reconciler.explain(line, reason, by)

    async def resolve(self, line: str, remedy: Remedy, reason: str, by: str, *, region: str = "") -> Line:
        async with self._open(region) as at:
            return await at.reconciler.resolve(line, remedy, reason, by)

    async def close(self, entity: str, day: date, by: str, *, region: str = "") -> CloseResult:
        async with self._open(region) as at:
            return await at.days.close(entity, day, await clock.business_now(at.pool), by)

    async def reopen(self, entity: str, day: date, reason: str, by: str, *, region: str = "") -> DayEvent:
        async with self._open(region) as at:
            return await at.days.reopen(entity, day, reason, by)

    async def events(self, entity: str | None = None, *, region: str = "") -> Sequence[DayEvent]:
        async with self._open(region) as at:
            return await at.days.status(entity)

    def _plant(self, region: str) -> Plant:
        if region:
            for plant in self._plants:
                if plant.region == region:
                    return plant
            raise Refused("unknown_region", f"no region {region!r} runs here", "see the list of regions")
        if len({plant.database_url for plant in self._plants}) > 1:
            names = ", ".join(plant.region for plant in self._plants)
            raise Refused("which_region", f"several databases: {names}", "name a region")
        return self._plants[0]

    @asynccontextmanager
    async def _open(self, region: str) -> AsyncIterator[_Open]:
        plant = self._plant(region)
        providers = Providers(plant)

        def statements(provider: str, entity: LegalEntityId) -> Statements:
            if provider not in PROVIDERS:
                raise Refused("unknown_provider", f"no provider {provider!r}", f"one of {', '.join(PROVIDERS)}")
            try:
                return providers(entity, provider)
            except KeyError:
                raise Refused(
                    "unknown_account", f"{entity!r} has no account at {provider}", "see the chain's file"
                ) from None

        async with AsyncConnectionPool[AsyncConnection[Any]](
            plant.database_url, min_size=1, max_size=2, open=False
        ) as pool:
            reconciler = Reconciler(pool, statements, terms=dict.fromkeys(PROVIDERS, FeeTerms(plant.provider_fee_bps)))
            try:
                yield _Open(pool, reconciler, DayClose(pool, reconciler, PROVIDERS))
            finally:
                await providers.aclose()
