"""Statements come by themselves: when a business day is over, its statement is fetched and held against the books."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Callable, Sequence
from datetime import date
from typing import Protocol

import structlog

from models.domain.errors import RetryLater
from models.tables.differences import DayRun
from models.tables.reconciliation import Account
from runtime.plant import Plant

log = structlog.get_logger()

LOOK_EVERY_S = 60.0
"""How often the business clock is looked at for a day that is over."""
TRY_AGAIN_AFTER_S = 600.0
"""A statement that is not there yet, or a provider that is away, is asked for again after so long."""
DAYS_BACK_MAX = 35
"""How far back days without a statement are caught up, after a house was down or its clock was moved."""


class Desk(Protocol):
    """What is used of `runtime.reconciliation_desk.ReconciliationDesk`."""

    async def missing(self, account: str, provider: str, *, days_max: int, region: str = "") -> Sequence[date]:
        """Days up to yesterday that came after the last one with a statement, at most so many, the last of them."""
        ...

    async def fetch_and_run(self, account: str, provider: str, day: date, *, region: str = "") -> DayRun:
        """Fetch the statement of a day and match it."""
        ...


class DailyStatements:
    """The duty of a house. Where a plant says `provider_statements_daily: false`, its accounts are left alone.

    An account whose entity has books in several databases is left to people: its statement has the lines of all.
    """

    def __init__(self, plants: Sequence[Plant], desk: Desk) -> None:
        self._desk = desk
        databases: defaultdict[Account, set[str]] = defaultdict(set)
        regions: dict[Account, str] = {}
        for plant in plants:
            for one in plant.accounts if plant.provider_statements_daily else ():
                account = Account(one.provider, one.entity)
                databases[account].add(plant.database_url)
                regions.setdefault(account, plant.region)
        self._accounts = {one: region for one, region in regions.items() if len(databases[one]) == 1}
        self._not_before_s: dict[Account, float] = {}

    async def watch(self) -> None:
        """For ever. A failure is logged and tried again; it is never given up."""
        if not self._accounts:
            return
        loop = asyncio.get_running_loop()
        while True:
            await asyncio.sleep(LOOK_EVERY_S)
            await self.look(loop.time)

    async def look(self, monotonic: Callable[[], float]) -> list[DayRun]:
        """Every account once: the runs of days that were missing."""
        runs = []
        for account, region in self._accounts.items():
            if monotonic() < self._not_before_s.get(account, 0.0):
                continue
            try:
                runs += await self._catch_up(account, region)
            except Exception as error:  # noqa: BLE001 - database or provider are away: the duty waits
                log.warning(
                    "statement_duty", provider=account.provider, account=account.entity, error=f"{error!r}"[:500]
                )
                self._not_before_s[account] = monotonic() + TRY_AGAIN_AFTER_S
        return runs

    async def _catch_up(self, account: Account, region: str) -> list[DayRun]:
        days = await self._desk.missing(account.entity, account.provider, days_max=DAYS_BACK_MAX, region=region)
        runs = []
        for day in days:
            try:
                runs.append(await self._desk.fetch_and_run(account.entity, account.provider, day, region=region))
            except RetryLater:
                if day == days[-1]:  # a day before that has none: nothing went on there, as the provider sees it
                    raise
        return runs
