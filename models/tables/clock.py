"""The business clock's row, and what it must stop at when it is moved."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

from psycopg import AsyncConnection, AsyncCursor

_MICROSECOND = timedelta(microseconds=1)

# What changes by itself at an instant of business time. UNION ALL keeps each branch on its own index.
_NEXT_STOP = """
SELECT min(due) FROM (
    SELECT min(due_at) AS due FROM timer WHERE clock = 'business' AND due_at > %(after)s AND due_at <= %(to)s
    UNION ALL SELECT min(due_at) FROM membership WHERE due_at > %(after)s AND due_at <= %(to)s
    UNION ALL SELECT min(not_before) FROM settlement_call
        WHERE state IN ('NEW', 'UNKNOWN', 'ANSWERED') AND not_before > %(after)s AND not_before <= %(to)s
    UNION ALL SELECT min(l.lapses_at) FROM lease l JOIN membership m ON m.id = l.membership
        WHERE l.state = 'open' AND l.used < l.uses AND m.state = 'EXPIRED' AND l.lapses_at >= m.cutoff_at
          AND l.lapses_at > %(after)s AND l.lapses_at <= %(to)s
) AS stops
"""
EVER = datetime.min.replace(tzinfo=UTC)


async def load_offset(cur: AsyncCursor[Any]) -> tuple[timedelta, bool]:
    """(business time less wall time, whether it may be moved)."""
    await cur.execute("SELECT offset_us, movable FROM business_clock WHERE id = 1")
    row = await cur.fetchone()
    assert row is not None, "the first migration writes this row"
    return row[0] * _MICROSECOND, row[1]


async def business_now(cur: AsyncCursor[Any], wall_now: datetime) -> datetime:
    """Business time at `wall_now`."""
    offset, _ = await load_offset(cur)
    return wall_now + offset


async def lock_clock(cur: AsyncCursor[Any]) -> tuple[timedelta, bool]:
    """As `load_offset`, and nobody else moves the clock until this transaction ends."""
    await cur.execute("SELECT 1 FROM business_clock WHERE id = 1 FOR UPDATE")
    return await load_offset(cur)


async def save_offset(cur: AsyncCursor[Any], offset: timedelta) -> None:
    """Move the clock."""
    await cur.execute("UPDATE business_clock SET offset_us = %s WHERE id = 1", (offset // _MICROSECOND,))


async def set_movable(connection: AsyncConnection[Any], movable: bool) -> None:
    """Whether this deployment's clock may be moved: never in production."""
    await connection.execute("UPDATE business_clock SET movable = %s WHERE id = 1", (movable,))


async def next_stop(cur: AsyncCursor[Any], to: datetime, after: datetime = EVER) -> datetime | None:
    """The earliest instant in (after, to] at which a timer, a membership or a call to a provider is due, or None."""
    await cur.execute(_NEXT_STOP, {"after": after, "to": to})
    row = await cur.fetchone()
    assert row is not None
    due: datetime | None = row[0]
    return due
