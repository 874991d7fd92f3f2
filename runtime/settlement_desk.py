"""Settlement as people run it: followed, paused, forecast, started by the business clock, and its parked items."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import asdict, replace
from datetime import datetime
from typing import Any

import psycopg
import structlog
from psycopg import AsyncConnection, AsyncCursor
from psycopg_pool import AsyncConnectionPool

from actors.settlement import Booking
from actors.settlement_items import Action, resolve
from models.domain.calendar import business_date, day_begins
from models.domain.charging import request_number
from models.domain.errors import NeedsOperator, Refused, RetryLater
from models.domain.ids import ChainId, RegionId
from models.domain.settlement import CallKind, Standing, capture_call
from models.tables import settlement, settlement_runs
from models.tables.clock import business_now, load_offset
from models.tables.control import ControlTotals, control_totals, cut_off_earlier, shares_of
from models.tables.ledger import insert_transactions
from models.tables.ledger_balances import take_snapshot
from models.tables.memberships import lock_membership
from models.tables.privacy import audit
from models.tables.settlement_runs import Item, Run, Status, Switch
from runtime.clock import Pool, wall_now
from runtime.credits import tried_again
from runtime.plant import Plant, choose
from runtime.settlement import TRACE, SettlementProgress, SettlementReport, SettlementRunner

log = structlog.get_logger()

LOOK_EVERY_S = 20.0
"""How often the business clock is looked at for a run that is due."""
NOTED_EVERY_S = 1.0
BY_CLOCK = "business clock"
ZONE = "Asia/Shanghai"
"""Of a region without a store."""


class SettlementDesk:
    """One chain and region. `wall` is the wall clock; business time is `wall` plus the offset in the database."""

    def __init__(self, chain: ChainId, region: RegionId, pool: Pool, wall: Callable[[], datetime] = wall_now) -> None:
        self._chain = chain
        self._region = region
        self._pool = pool
        self._wall = wall

    # ------------------------------------------------------------ runs

    async def run(self, runner: SettlementRunner, now: datetime, by: str) -> SettlementReport:
        """Settle what is due at `now`, with a row that says how far it is, once a second and at the end.

        A run by the clock that moved nothing leaves no row. Raises what the run raises; the row says so.
        """
        run = await self._begin(now, by)
        newest: SettlementProgress | None = None

        def show(progress: SettlementProgress) -> None:
            nonlocal newest
            newest = progress

        async def note() -> None:
            while True:
                await asyncio.sleep(NOTED_EVERY_S)
                if newest is not None:
                    await self._note(run, newest)

        noting = asyncio.create_task(note())
        try:
            report = await runner.run(now, show)
        except BaseException as error:
            await self._fail(run, error)
            raise
        finally:
            noting.cancel()
        report = replace(report, day=await self._day_totals(report))
        await self._end(run, by, report)
        if report.booked:
            await self._sum_up()
        return report

    async def watch(self, settle: Callable[[datetime], Awaitable[object]]) -> None:
        """Starts a run whenever something is due by the business clock, for ever.

        Where the clock may be moved it never does: `storeops clock advance` settles at every stop itself.
        """
        while True:
            await asyncio.sleep(LOOK_EVERY_S)
            try:
                now = await self.due_now()
                if now is not None:
                    await settle(now)
            except (psycopg.Error, OSError, Refused, RetryLater, NeedsOperator):  # the next run repairs this one
                log.exception("settlement_failed", region=self._region)

    async def due_now(self) -> datetime | None:
        """Business time when a run should start by itself now; None: nothing is due, or it is not its turn."""
        async with self._pool.connection() as conn, conn.cursor() as cur:
            _, movable = await load_offset(cur)
            if movable or (await settlement_runs.load_switch(cur, self._chain, self._region)).paused:
                return None
            wall = self._wall()
            now = await business_now(cur, wall)
            due = await settlement_runs.anything_due(cur, self._chain, self._region, now, wall)
            return now if due else None

    async def status(self) -> Status:
        """The switch, what is due, what waits for people, and the last runs."""
        async with self._pool.connection() as conn, conn.cursor() as cur:
            now = await business_now(cur, self._wall())
            waiting = await settlement_runs.count_owing(cur, self._chain, self._region)
            return Status(
                self._chain,
                self._region,
                now,
                await settlement_runs.load_switch(cur, self._chain, self._region),
                await settlement_runs.count_due(cur, self._chain, self._region, now),
                waiting["parked"],
                waiting["dunning"],
                waiting["written_off"],
                tuple(await settlement_runs.holes(cur, self._chain, self._region)),
                tuple(await settlement_runs.recent_runs(cur, self._chain, self._region)),
            )

    async def newest(self) -> Run | None:
        """The last run that began; None: there was none."""
        async with self._pool.connection() as conn, conn.cursor() as cur:
            runs = await settlement_runs.recent_runs(cur, self._chain, self._region, 1)
        return runs[0] if runs else None

    async def switch(self, paused: bool, by: str, why: str) -> Switch:
        """Pause or resume the region: a run stops before its next chunk, and none starts. Audited."""
        switch = Switch(paused, by, why, self._wall())
        async with self._pool.connection() as conn, conn.cursor() as cur:
            await settlement_runs.save_switch(cur, self._chain, self._region, switch)
            kind = "settlement_paused" if paused else "settlement_resumed"
            await audit(conn, kind, "", {"region": self._region, "why": why}, by, self._wall())
        return switch

    # ------------------------------------------------------------ items

    async def items(self, stage: str) -> list[Item]:
        """`parked`, or `owing`: dunning and written off."""
        async with self._pool.connection() as conn, conn.cursor() as cur:
            return await settlement_runs.items(cur, self._chain, self._region, stage)

    async def resolve(self, membership: str, action: Action, reason: str, by: str) -> str:
        """Do one action with a parked membership under its row lock; returns its state after. Audited with the reason.

        Raises Refused as `actors.settlement_items.resolve` does, and `unknown_membership`, `reason_missing`.
        """
        if not reason.strip():
            raise Refused("reason_missing", "an action on a parked item needs a reason", "say why")
        async with self._pool.connection() as conn, conn.cursor() as cur:
            standing = await lock_membership(cur, membership)
            if standing is None or standing.region != self._region:
                raise Refused("unknown_membership", f"{membership} is not of {self._region}", "see the parked items")
            calls = await settlement.calls_of(cur, membership)
            now = await business_now(cur, self._wall())
            shares = (await shares_of(cur, [membership])).get(membership, ())
            attempts = [call for call in calls if call.kind is CallKind.CAPTURE]
            capture = max(attempts, key=lambda call: call.attempt).number if attempts else _first_number(standing)
            again = await tried_again(cur, standing, self._wall()) if action is Action.RETRY else None
            if again is None:
                booking = resolve(
                    standing, action, calls, shares, now, provider=standing.provider, capture=capture
                )  # fmt: skip
            else:
                booking = Booking(again)
            if standing.charge_fen is None and booking.standing.charge_fen is not None:
                await self._fix(cur, booking.standing, now)
            await insert_transactions(cur, booking.transactions, now, TRACE)
            await settlement.save_standings(cur, [(booking.standing, booking.parked_why)])
            await settlement.insert_calls(cur, booking.calls)
            detail = {"membership": membership, "action": action.value, "reason": reason.strip()}
            await audit(conn, "settlement_item", standing.member, detail, by, self._wall())
        return booking.standing.state.value

    async def _fix(self, cur: AsyncCursor[Any], standing: Standing, now: datetime) -> None:
        """The charge of one that a person writes off before any cutoff fixed it; its call is over before it is sent."""
        call = capture_call(standing, 0, standing.charge_fen or 0, now)
        await settlement.fix_charge(cur, standing, now)
        await settlement.insert_calls(cur, [call])
        await settlement.mark_posted(cur, [call.number], now)

    # ------------------------------------------------------------ the run's row

    async def _begin(self, now: datetime, by: str) -> str:
        wall, run = self._wall(), str(uuid.uuid4())
        async with self._pool.connection() as conn, conn.cursor() as cur:
            due = await settlement_runs.count_due(cur, self._chain, self._region, now)
            zone, hour = await self._zone(cur)
            date = business_date(now, zone, hour).isoformat()
            row = Run(
                run, self._chain, self._region, now, date, by, False, "running", "", due, 0, 0, 0, 0, 0, False, None,
                "", wall, wall, None,
            )  # fmt: skip
            await settlement_runs.begin_run(cur, row)
        return run

    async def _zone(self, cur: AsyncCursor[Any]) -> tuple[str, int]:
        """Whose business dates are the region's: those of its first store."""
        await cur.execute(
            "SELECT zone, cutoff_hour FROM store WHERE chain = %s AND region = %s ORDER BY id LIMIT 1",
            (self._chain, self._region),
        )
        row = await cur.fetchone()
        return (ZONE, 0) if row is None else (row[0], row[1])

    async def _day_totals(self, report: SettlementReport) -> ControlTotals:
        """Of everything that was cut off on the run's business date, whichever run did it."""
        async with self._pool.connection() as conn, conn.cursor() as cur:
            zone, hour = await self._zone(cur)
            since = day_begins(business_date(report.now, zone, hour), zone, hour)
            if not await cut_off_earlier(cur, self._chain, self._region, since, report.now):
                return report.totals
            return await control_totals(cur, self._chain, self._region, report.now, since)

    async def _note(self, run: str, progress: SettlementProgress) -> None:
        async with self._pool.connection() as conn, conn.cursor() as cur:
            await settlement_runs.note_run(cur, run, "settling", asdict(progress), self._wall())

    async def _fail(self, run: str, error: BaseException) -> None:
        async with self._pool.connection() as conn, conn.cursor() as cur:
            await settlement_runs.end_run(cur, run, "failed", self._wall(), problem=f"{type(error).__name__}: {error}")

    async def _sum_up(self) -> None:
        """Balances are read from a snapshot and what came since: after many entries is the time for a new one."""
        try:
            async with self._pool.connection() as conn:
                await take_snapshot(conn, self._wall())
        except psycopg.Error:  # the run is done; the next snapshot has it
            log.exception("snapshot_failed", region=self._region)

    async def _end(self, run: str, by: str, report: SettlementReport) -> None:
        moved = {name: getattr(report, name) for name in ("expired", "cut_off", "woken", "booked")}
        async with self._pool.connection() as conn, conn.cursor() as cur:
            if by == BY_CLOCK and not any(moved.values()) and not report.paused:
                await settlement_runs.forget_run(cur, run)
                return
            await settlement_runs.note_run(cur, run, "", moved, self._wall())
            await settlement_runs.end_run(
                cur, run, "paused" if report.paused else "done", self._wall(),
                totals={
                    **asdict(report.totals), "agree": report.ok, "day": report.day and asdict(report.day)
                }, reserved=report.reserved,
                open_calls=report.open_calls,
            )  # fmt: skip


class SettlementsOfAHouse:
    """Implements gateway.settlements.Settlements: a pool per call, runs and forecasts by the regions' actors."""

    def __init__(self, plants: Sequence[Plant], forecast: Callable[[Plant], Awaitable[Mapping[str, object]]]) -> None:
        self._plants = plants
        self._forecast = forecast

    async def status(self, region: str) -> Status:
        async with self._desk(region) as desk:
            return await desk.status()

    async def forecast(self, region: str) -> Mapping[str, object]:
        return await self._forecast(choose(self._plants, region))

    async def switch(self, region: str, paused: bool, by: str, why: str) -> Switch:
        async with self._desk(region) as desk:
            return await desk.switch(paused, by, why)

    async def items(self, region: str, stage: str) -> Sequence[Item]:
        async with self._desk(region) as desk:
            return await desk.items(stage)

    async def resolve(self, region: str, membership: str, action: Action, reason: str, by: str) -> str:
        async with self._desk(region) as desk:
            return await desk.resolve(membership, action, reason, by)

    @asynccontextmanager
    async def _desk(self, region: str) -> AsyncIterator[SettlementDesk]:
        plant = choose(self._plants, region)
        pool = AsyncConnectionPool[AsyncConnection[Any]](plant.database_url, min_size=1, max_size=1, open=False)
        async with pool:
            yield SettlementDesk(plant.chain, plant.region, pool)


def _first_number(standing: Standing) -> str:
    return request_number(standing.id, standing.generation)
