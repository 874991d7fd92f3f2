"""The close of a legal entity's business day: first the door, then the proof, and the door opens again without it.

From the first commit on nothing more is booked on the day (it goes to the next one, `models.tables.ledger`); then each
provider account is run once more, and the day stays closed only if nothing of it is unexplained. Days close in order.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from datetime import UTC, date, datetime, timedelta
from typing import Any

from psycopg import AsyncCursor
from psycopg.errors import LockNotAvailable

from gateway.reconciliation import CloseResult, Obstacle
from models.domain.calendar import business_date
from models.domain.errors import Refused, RetryLater
from models.tables import business_days
from models.tables.business_days import DayEvent
from models.tables.differences import DayRun
from models.tables.drawers import uncounted
from models.tables.ledger_balances import take_snapshot
from models.tables.privacy import audit
from models.tables.reconciliation import Account, load_statement
from runtime.reconciling import Pool, Reconciler

LINES_NAMED_MAX = 100
DAYS_AT_ONCE_MAX = 400


class DayClose:
    """Closes and reopens business days. `providers` have statements; the rest (a till's own) are not compared."""

    def __init__(
        self,
        pool: Pool,
        reconciler: Reconciler,
        providers: Collection[str],
        wall: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self._pool = pool
        self._reconciler = reconciler
        self._providers = frozenset(providers)
        self._wall = wall

    async def close(self, entity: str, day: date, now: datetime, by: str) -> CloseResult:
        """Close `day`, and before it every day since the last closed one, or since the first at a provider where none
        was ever closed; the first that does not close is answered.

        `now` is business time. Repeated after a crash it begins again. Raises Refused `already_closed`,
        `too_many_days`, `unknown_entity`, and RetryLater `busy` while bookings hold the books.
        """
        async with self._pool.connection() as conn, conn.cursor() as cur:
            await _require_entity(cur, entity)
            through = await _closed(cur, entity)
        if through is not None and day <= through:
            raise Refused("already_closed", f"{day} of {entity} is closed", "reopen it first: storeops day reopen")
        first = await self._first(entity, day) if through is None else through + timedelta(days=1)
        if (day - first).days >= DAYS_AT_ONCE_MAX:
            raise Refused("too_many_days", f"{first} to {day}", "close earlier days first")
        result = await self._close_one(entity, first, now, by)
        while result.closed and result.day < day:
            result = await self._close_one(entity, result.day + timedelta(days=1), now, by)
        return result

    async def _first(self, entity: str, day: date) -> date:
        """Where the first close of an entity begins: nothing that moved before may be closed unproven."""
        async with self._pool.connection() as conn, conn.cursor() as cur:
            moved = await business_days.first_moved(cur, entity, self._providers)
        return day if moved is None else min(moved, day)

    async def _close_one(self, entity: str, day: date, now: datetime, by: str) -> CloseResult:
        early = await self._not_over(entity, day, now)
        if early:
            return CloseResult(entity, day, False, early)
        await self.shut(entity, day, by)
        try:
            runs, obstacles = await self._prove(entity, day, now)
        except BaseException:
            await self._settle(entity, day, by, closed=False)
            raise
        await self._settle(entity, day, by, closed=not obstacles)
        if not obstacles:
            async with self._pool.connection() as conn:
                await take_snapshot(conn, self._wall())
        async with self._pool.connection() as conn:
            warnings = await uncounted(conn, entity, day.isoformat())
        return CloseResult(entity, day, not obstacles, tuple(obstacles), tuple(runs), tuple(warnings))

    async def _not_over(self, entity: str, day: date, now: datetime) -> tuple[Obstacle, ...]:
        async with self._pool.connection() as conn, conn.cursor() as cur:
            stores = await business_days.store_days(cur, entity, day)
        return tuple(
            Obstacle("not_over", f"{one.store} until {one.ends_at.isoformat()}") for one in stores if one.ends_at > now
        )

    async def shut(self, entity: str, day: date, by: str) -> None:
        """The first step of a close: from now on nothing more is booked on the day. Raises RetryLater `busy`."""
        try:
            async with self._pool.connection() as conn, conn.cursor() as cur:
                await business_days.close_door(cur, entity, day)
                await business_days.save_event(cur, DayEvent(entity, day, "closing", self._wall(), by, ""))
        except LockNotAvailable:
            raise RetryLater("busy", "bookings hold the books", "try again in a moment", after_s=5) from None

    async def _prove(self, entity: str, day: date, now: datetime) -> tuple[list[DayRun], list[Obstacle]]:
        async with self._pool.connection() as conn, conn.cursor() as cur:
            moved = await business_days.moved_providers(cur, entity, day) & self._providers
            accounts = [Account(provider, entity) for provider in sorted(self._providers)]
            stated = {one.provider for one in accounts if await load_statement(cur, one, day) is not None}
            zones = await business_days.store_days(cur, entity, day)
        as_of = max((business_date(now, one.zone, one.cutoff_hour) for one in zones), default=now.date())
        runs, obstacles = [], []
        for account in accounts:
            if account.provider not in moved | stated:
                continue
            run = await self._reconciler.run(account, day, as_of, closing=True)
            runs.append(run)
            if run.statement_fen is None and run.difference_fen:
                obstacles.append(Obstacle("no_statement", account.provider))
        async with self._pool.connection() as conn, conn.cursor() as cur:
            lines = await business_days.open_before(cur, entity, day, LINES_NAMED_MAX)
        if lines:
            obstacles.append(Obstacle("open_lines", f"{len(lines)} lines", tuple(lines)))
        return runs, obstacles

    async def _settle(self, entity: str, day: date, by: str, *, closed: bool) -> None:
        async with self._pool.connection() as conn, conn.cursor() as cur:
            if not closed:
                await business_days.open_door(cur, entity, await business_days.closed_before(cur, entity, day))
            state = "closed" if closed else "open"
            await business_days.save_event(cur, DayEvent(entity, day, state, self._wall(), by, ""))
            if closed:
                await audit(conn, "day.closed", f"entity:{entity}", {"day": day.isoformat()}, by, self._wall())

    async def reopen(self, entity: str, day: date, reason: str, by: str) -> DayEvent:
        """Open the last closed day again, with a reason for the audit. Raises Refused `reason_missing`, `not_last`."""
        if not reason.strip():
            raise Refused("reason_missing", "why?", "give a reason")
        event = DayEvent(entity, day, "open", self._wall(), by, reason.strip())
        async with self._pool.connection() as conn, conn.cursor() as cur:
            through = await _closed(cur, entity)
            if through != day:
                last = "no day is closed" if through is None else f"the last closed day is {through}"
                raise Refused("not_last", f"{day} of {entity}: {last}", "days are reopened from the last one backwards")
            await business_days.open_door(cur, entity, await business_days.closed_before(cur, entity, day))
            await business_days.save_event(cur, event)
            detail = {"day": day.isoformat(), "reason": event.reason}
            await audit(conn, "day.reopened", f"entity:{entity}", detail, by, self._wall())
        return event

    async def status(self, entity: str | None = None) -> Sequence[DayEvent]:
        """Days that were closed or opened again, the newest first."""
        async with self._pool.connection() as conn:
            return await business_days.list_events(conn, entity)


async def _closed(cur: AsyncCursor[Any], entity: str) -> date | None:
    """The last day that is closed for good: a close that was cut off half-way does not count."""
    through = await business_days.closed_through(cur, entity)
    if through is None:
        return None
    event = await business_days.load_event(cur, entity, through)
    if event is not None and event.state == "closing":
        return await business_days.closed_before(cur, entity, through)
    return through


async def _require_entity(cur: AsyncCursor[Any], entity: str) -> None:
    await cur.execute("SELECT 1 FROM legal_entity WHERE id = %s", (entity,))
    if await cur.fetchone() is None:
        raise Refused("unknown_entity", f"no legal entity {entity!r}", "see the chain's file")
