"""The business clock: wall time plus one offset in the database. A demo moves it; production cannot."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from psycopg import AsyncConnection
from psycopg_pool import AsyncConnectionPool

from models.domain.calendar import require_instant
from models.domain.errors import Refused
from models.tables import clock

ROUNDS_AT_A_STOP_MAX = 3
"""What is still due after so many rounds waits for somebody else (an open reservation, a silent provider)."""

Wall = Callable[[], datetime]
Pool = AsyncConnectionPool[AsyncConnection[Any]]


def wall_now() -> datetime:
    """Wall time, UTC."""
    return datetime.now(UTC)


async def business_now(pool: Pool, wall: Wall = wall_now) -> datetime:
    """Business time now: what `now` means in turns, expiry, cutoff and dunning."""
    async with pool.connection() as conn, conn.cursor() as cur:
        return await clock.business_now(cur, wall())


@dataclass(frozen=True, slots=True)
class Advanced:
    """Where the clock was, where it is, at how many instants it stopped, and how many of those kept something due."""

    was: datetime
    now: datetime
    stops: int
    unfinished: int


async def advance(
    pool: Pool,
    to: datetime,
    settle: Callable[[datetime], Awaitable[object]],
    fire_timers: Callable[[datetime], Awaitable[object]],
    *,
    wall: Wall = wall_now,
    progress: Callable[[datetime], None] = lambda _: None,
) -> Advanced:
    """Move business time forward to `to`, stopping wherever something is due, with now = due, until nothing is left.

    At each stop `fire_timers(now)` and `settle(now)` run in this order and must return when they are done. Raises
    Refused `clock_fixed` where the clock may not be moved, `clock_backwards` when `to` is past.
    """
    to = require_instant(to, "to")
    was = await _check(pool, to, wall)
    stops = unfinished = 0
    stop = clock.EVER
    while True:
        due = await _next_stop(pool, to, stop)
        if due is None:
            break
        stop = due
        stops += 1
        now = max(due, was)  # what was overdue already is done at the clock's own time
        await _move(pool, now, wall)
        progress(now)
        for _ in range(ROUNDS_AT_A_STOP_MAX):
            await fire_timers(now)
            await settle(now)
            left = await _next_stop(pool, now, clock.EVER)
            if left is None:
                break
        else:
            unfinished += 1
            stop = max(stop, now)
    await _move(pool, to, wall)
    return Advanced(was, to, stops, unfinished)


async def _check(pool: Pool, to: datetime, wall: Wall) -> datetime:
    async with pool.connection() as conn, conn.cursor() as cur:
        offset, movable = await clock.load_offset(cur)
        was = wall() + offset
    if not movable:
        raise Refused("clock_fixed", "this deployment's business clock runs with the wall", "wait, or use a demo")
    if to < was:
        raise Refused("clock_backwards", f"it is {was.isoformat()} already", "name a later instant")
    return was


async def _next_stop(pool: Pool, to: datetime, after: datetime) -> datetime | None:
    async with pool.connection() as conn, conn.cursor() as cur:
        return await clock.next_stop(cur, to, after)


async def _move(pool: Pool, now: datetime, wall: Wall) -> None:
    """Business time becomes `now`; it never goes back, whoever else moves it."""
    async with pool.connection() as conn, conn.cursor() as cur:
        offset, _ = await clock.lock_clock(cur)
        await clock.save_offset(cur, max(offset, now - wall()))
