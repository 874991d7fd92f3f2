"""Which business days of a legal entity are closed. Days close in order, so that one date per entity says it all."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from typing import Any

from psycopg import AsyncConnection, AsyncCursor

from models.domain.calendar import day_begins

LOCK_WAIT_MS = 5_000
"""A close waits so long for bookings under way; they wait for nobody longer than that."""


@dataclass(frozen=True, slots=True)
class StoreDay:
    """A store of the entity on a business day: when its day ends."""

    store: str
    zone: str
    cutoff_hour: int
    ends_at: datetime


@dataclass(frozen=True, slots=True)
class DayEvent:
    """The last change of a business day. `state`: closing, closed, open."""

    entity: str
    day: date
    state: str
    changed_at: datetime
    by: str
    reason: str


async def closed_through(cur: AsyncCursor[Any], entity: str) -> date | None:
    """The last closed day of an entity; None: no day was ever closed."""
    await cur.execute("SELECT day FROM closed_through WHERE entity = %s", (entity,))
    row = await cur.fetchone()
    return None if row is None else date.fromisoformat(row[0])


async def close_door(cur: AsyncCursor[Any], entity: str, day: date) -> None:
    """From this commit on nothing more is booked on `day`.

    The lock lets bookings under way end first: whoever reads the table afterwards sees the new date.
    """
    await cur.execute(f"SET LOCAL lock_timeout = {LOCK_WAIT_MS}")
    await cur.execute("LOCK TABLE closed_through IN ACCESS EXCLUSIVE MODE")
    await cur.execute(
        "INSERT INTO closed_through (entity, day, next_day) VALUES (%s, %s, %s)"
        " ON CONFLICT (entity) DO UPDATE SET day = excluded.day, next_day = excluded.next_day",
        (entity, day.isoformat(), (day + timedelta(days=1)).isoformat()),
    )


async def open_door(cur: AsyncCursor[Any], entity: str, before: date | None) -> None:
    """What is closed is what was closed before."""
    if before is None:
        await cur.execute("DELETE FROM closed_through WHERE entity = %s", (entity,))
        return
    await cur.execute(
        "UPDATE closed_through SET day = %s, next_day = %s WHERE entity = %s",
        (before.isoformat(), (before + timedelta(days=1)).isoformat(), entity),
    )


async def save_event(cur: AsyncCursor[Any], event: DayEvent) -> None:
    """The last change of a day, in the place of the one before."""
    await cur.execute(
        "INSERT INTO business_day (entity, day, state, changed_at, by, reason) VALUES (%s, %s, %s, %s, %s, %s)"
        " ON CONFLICT (entity, day) DO UPDATE SET state = excluded.state, changed_at = excluded.changed_at,"
        " by = excluded.by, reason = excluded.reason",
        (event.entity, event.day.isoformat(), event.state, event.changed_at, event.by, event.reason),
    )


async def list_events(conn: AsyncConnection[Any], entity: str | None, limit: int = 400) -> list[DayEvent]:
    """Days that were closed or opened again, the newest first."""
    cur = await conn.execute(
        "SELECT entity, day, state, changed_at, by, reason FROM business_day"
        " WHERE %(entity)s::text IS NULL OR entity = %(entity)s ORDER BY day DESC, entity LIMIT %(limit)s",
        {"entity": entity, "limit": limit},
    )
    return [DayEvent(row[0], date.fromisoformat(row[1]), *row[2:]) for row in await cur.fetchall()]


async def store_days(cur: AsyncCursor[Any], entity: str, day: date) -> Sequence[StoreDay]:
    """The stores that belong to an entity on a day, and when that business day ends in each."""
    await cur.execute(
        "SELECT s.id, s.zone, s.cutoff_hour FROM store s WHERE %s = ("
        "  SELECT e.entity FROM store_entity e WHERE e.store = s.id AND e.from_date <= %s"
        "  ORDER BY e.from_date DESC LIMIT 1) ORDER BY s.id",
        (entity, day.isoformat()),
    )
    after = day + timedelta(days=1)
    return [StoreDay(row[0], row[1], row[2], day_begins(after, row[1], row[2])) for row in await cur.fetchall()]


async def moved_providers(cur: AsyncCursor[Any], entity: str, day: date) -> set[str]:
    """Providers through whose clearing account of this entity something went on a day."""
    await cur.execute(
        "SELECT DISTINCT substr(account, length('provider_clearing:') + 1) FROM entry WHERE entity = %s"
        " AND starts_with(account, 'provider_clearing:') AND business_date = %s AND book = 'posted'",
        (entity, day.isoformat()),
    )
    return {row[0] for row in await cur.fetchall()}


async def first_moved(cur: AsyncCursor[Any], entity: str, providers: Collection[str]) -> date | None:
    """The first day on which something went through a clearing account of this entity; None: there is none."""
    await cur.execute(
        "SELECT min(business_date) FROM entry WHERE entity = %s AND account = ANY(%s) AND book = 'posted'",
        (entity, [f"provider_clearing:{provider}" for provider in providers]),
    )
    row = await cur.fetchone()
    return None if row is None or row[0] is None else date.fromisoformat(row[0])


async def closed_before(cur: AsyncCursor[Any], entity: str, day: date) -> date | None:
    """The last day before `day` that was closed and stands closed; None: there is none."""
    await cur.execute(
        "SELECT max(day) FROM business_day WHERE entity = %s AND day < %s AND state = 'closed'",
        (entity, day.isoformat()),
    )
    row = await cur.fetchone()
    return None if row is None or row[0] is None else date.fromisoformat(row[0])


async def load_event(cur: AsyncCursor[Any], entity: str, day: date) -> DayEvent | None:
    """The last change of one day; None: there was none."""
    await cur.execute(
        "SELECT entity, day, state, changed_at, by, reason FROM business_day WHERE entity = %s AND day = %s",
        (entity, day.isoformat()),
    )
    row = await cur.fetchone()
    return None if row is None else DayEvent(row[0], day, *row[2:])


async def open_before(cur: AsyncCursor[Any], entity: str, day: date, limit: int) -> list[str]:
    """Ids of the entity's lines up to a day that nobody explained."""
    await cur.execute(
        "SELECT id FROM reconciliation_line WHERE account = %s AND day <= %s AND state = 'open'"
        " ORDER BY day, order_no, id LIMIT %s",
        (entity, day.isoformat(), limit),
    )
    return [row[0] for row in await cur.fetchall()]
