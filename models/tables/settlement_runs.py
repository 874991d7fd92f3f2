"""Runs of settlement as rows, the switch that pauses a region, and what waits for a person."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from psycopg import AsyncCursor
from psycopg.types.json import Jsonb

PARKED_MAX = 1_000
"""So many items are listed at once, the oldest first."""

_RUN = (
    "id, chain, region, at, business_date, started_by, dry, state, step, due, expired, cut_off, woken, booked,"
    " reserved, open_calls, totals, problem, started_at, seen_at, ended_at"
)


@dataclass(frozen=True, slots=True)
class Run:
    """One run as its row stands (models.tables.settlement_rows.SettlementRunRow)."""

    id: str
    chain: str
    region: str
    at: datetime
    business_date: str
    started_by: str
    dry: bool
    state: str
    step: str
    due: int
    expired: int
    cut_off: int
    woken: int
    booked: int
    reserved: int
    open_calls: bool
    totals: Mapping[str, object] | None
    problem: str
    started_at: datetime
    seen_at: datetime
    ended_at: datetime | None


@dataclass(frozen=True, slots=True)
class Switch:
    """Whether a region is paused, and since when (wall time), by whom and why."""

    paused: bool = False
    by: str = ""
    why: str = ""
    at: datetime | None = None


@dataclass(frozen=True, slots=True)
class Item:
    """A membership that a person should look at. Amounts in fen."""

    membership: str
    member: str
    plan: str
    state: str
    why: str
    charge_fen: int
    receivable_fen: int
    hold_state: str
    hold_fen: int
    next_at: datetime | None
    """Business time of its next attempt; None: there is none."""


@dataclass(frozen=True, slots=True)
class Status:
    """How a region's settlement stands at business time `now`."""

    chain: str
    region: str
    now: datetime
    switch: Switch
    due: int
    parked: int
    dunning: int
    written_off: int
    holes: tuple[str, ...]
    """SETTLING without an open call: broken, for none is ever made so."""
    runs: tuple[Run, ...]


async def begin_run(cur: AsyncCursor[Any], run: Run) -> None:
    """A run has begun. One that is still said to be running died without a word: it failed."""
    await cur.execute(
        "UPDATE settlement_run SET state = 'failed', problem = 'its process ended', ended_at = %s"
        " WHERE chain = %s AND region = %s AND state = 'running'",
        (run.started_at, run.chain, run.region),
    )
    await cur.execute(
        f"INSERT INTO settlement_run ({_RUN}) VALUES ({', '.join(['%s'] * len(_RUN.split(',')))})",
        (
            run.id, run.chain, run.region, run.at, run.business_date, run.started_by, run.dry, run.state, run.step,
            run.due, run.expired, run.cut_off, run.woken, run.booked, run.reserved, run.open_calls, None, run.problem,
            run.started_at, run.seen_at, run.ended_at,
        ),
    )  # fmt: skip


async def note_run(cur: AsyncCursor[Any], run: str, step: str, counts: Mapping[str, int], wall_now: datetime) -> None:
    """How far it is. `counts`: expired, cut_off, woken, booked."""
    await cur.execute(
        "UPDATE settlement_run SET step = %(step)s, expired = %(expired)s, cut_off = %(cut_off)s, woken = %(woken)s,"
        " booked = %(booked)s, seen_at = %(seen_at)s WHERE id = %(id)s",
        {"id": run, "step": step, "seen_at": wall_now, **counts},
    )


async def end_run(
    cur: AsyncCursor[Any],
    run: str,
    state: str,
    wall_now: datetime,
    *,
    totals: Mapping[str, object] | None = None,
    reserved: int = 0,
    open_calls: bool = False,
    problem: str = "",
) -> None:
    """It is over: done, paused or failed."""
    await cur.execute(
        "UPDATE settlement_run SET state = %s, step = '', totals = %s, reserved = %s, open_calls = %s, problem = %s,"
        " seen_at = %s, ended_at = %s WHERE id = %s",
        (
            state,
            None if totals is None else Jsonb(dict(totals)),
            reserved,
            open_calls,
            problem,
            wall_now,
            wall_now,
            run,
        ),
    )


async def forget_run(cur: AsyncCursor[Any], run: str) -> None:
    """A run that began by itself and found nothing to move leaves no row."""
    await cur.execute("DELETE FROM settlement_run WHERE id = %s", (run,))


async def recent_runs(cur: AsyncCursor[Any], chain: str, region: str, limit: int = 20) -> list[Run]:
    """The newest first."""
    await cur.execute(
        f"SELECT {_RUN} FROM settlement_run WHERE chain = %s AND region = %s ORDER BY started_at DESC, id LIMIT %s",
        (chain, region, limit),
    )
    return [Run(*row) for row in await cur.fetchall()]


async def load_switch(cur: AsyncCursor[Any], chain: str, region: str) -> Switch:
    """The region's switch; not paused when nobody ever touched it."""
    await cur.execute(
        'SELECT paused, by, why, "at" FROM settlement_switch WHERE chain = %s AND region = %s', (chain, region)
    )
    row = await cur.fetchone()
    return Switch() if row is None else Switch(*row)


async def save_switch(cur: AsyncCursor[Any], chain: str, region: str, switch: Switch) -> None:
    """Paused or not from now on; a run sees it before its next chunk."""
    await cur.execute(
        'INSERT INTO settlement_switch (chain, region, paused, by, why, "at") VALUES (%s, %s, %s, %s, %s, %s)'
        " ON CONFLICT (chain, region) DO UPDATE SET paused = excluded.paused, by = excluded.by, why = excluded.why,"
        ' "at" = excluded."at"',
        (chain, region, switch.paused, switch.by, switch.why, switch.at),
    )


async def count_due(cur: AsyncCursor[Any], chain: str, region: str, now: datetime) -> int:
    """Memberships that settlement would move at business time `now`, with those that wait for the provider."""
    await cur.execute(
        "SELECT (SELECT count(*) FROM membership WHERE chain = %(chain)s AND region = %(region)s AND due_at <= %(now)s)"
        " + (SELECT count(*) FROM settlement_call WHERE chain = %(chain)s AND region = %(region)s"
        "    AND state <> 'POSTED' AND not_before <= %(now)s)",
        {"chain": chain, "region": region, "now": now},
    )
    row = await cur.fetchone()
    assert row is not None
    return int(row[0])


async def anything_due(cur: AsyncCursor[Any], chain: str, region: str, now: datetime, wall_now: datetime) -> bool:
    """True when a run would find a membership, a dunning day, or a call that nobody has on lease."""
    await cur.execute(
        "SELECT EXISTS (SELECT 1 FROM membership WHERE chain = %(chain)s AND region = %(region)s AND due_at <= %(now)s)"
        " OR EXISTS (SELECT 1 FROM settlement_call WHERE chain = %(chain)s AND region = %(region)s"
        " AND state <> 'POSTED' AND not_before <= %(now)s AND (lease_until IS NULL OR lease_until <= %(wall_now)s))",
        {"chain": chain, "region": region, "now": now, "wall_now": wall_now},
    )
    row = await cur.fetchone()
    assert row is not None
    return bool(row[0])


async def items(cur: AsyncCursor[Any], chain: str, region: str, stage: str) -> list[Item]:
    """What waits for a person (`parked`) or for the member's money (`owing`: dunning, then written off)."""
    await cur.execute(
        "SELECT m.id, m.member, m.plan, m.state, m.parked_why, coalesce(m.charge_fen, 0), m.receivable_fen,"
        " m.hold_state, m.hold_fen, (SELECT min(c.not_before) FROM settlement_call c WHERE c.membership = m.id"
        " AND c.state <> 'POSTED' AND c.kind = 'capture') FROM membership m"
        " WHERE m.chain = %s AND m.region = %s AND m.stage = %s ORDER BY m.settled_at, m.id LIMIT %s",
        (chain, region, stage, PARKED_MAX),
    )
    return [Item(*row) for row in await cur.fetchall()]


async def count_owing(cur: AsyncCursor[Any], chain: str, region: str) -> dict[str, int]:
    """How many memberships are parked, in dunning, and written off, by these names: all of them, not only a page."""
    await cur.execute(
        "SELECT count(*) FILTER (WHERE stage = 'parked'),"
        " count(*) FILTER (WHERE stage = 'owing' AND state = 'DUNNING'),"
        " count(*) FILTER (WHERE stage = 'owing' AND state = 'WRITTEN_OFF') FROM membership"
        " WHERE chain = %s AND region = %s AND stage IN ('parked', 'owing')",
        (chain, region),
    )
    row = await cur.fetchone()
    assert row is not None
    return dict(zip(("parked", "dunning", "written_off"), row, strict=True))


async def holes(cur: AsyncCursor[Any], chain: str, region: str) -> list[str]:
    """SETTLING or UNKNOWN without an open call: no run would ever move them. There are none, or something is broken."""
    await cur.execute(
        "SELECT m.id FROM membership m WHERE m.chain = %s AND m.region = %s AND m.settled_at IS NOT NULL"
        " AND m.state IN ('SETTLING', 'UNKNOWN') AND NOT EXISTS (SELECT 1 FROM settlement_call c"
        " WHERE c.membership = m.id AND c.state <> 'POSTED') ORDER BY m.id LIMIT %s",
        (chain, region, PARKED_MAX),
    )
    return [row[0] for row in await cur.fetchall()]


_FORECAST = """
SELECT coalesce(branch, ''), count(*), coalesce(sum(charge_fen), 0)::bigint, count(*) FILTER (WHERE state = 'SETTLING')
FROM membership WHERE chain = %(chain)s AND region = %(region)s AND settled_at = %(now)s
  AND xmin = pg_current_xact_id()::xid
GROUP BY 1
"""


async def fixed_here(cur: AsyncCursor[Any], chain: str, region: str, now: datetime) -> list[tuple[str, int, int, int]]:
    """The charges that this transaction fixed: (branch or "", memberships, fen, calls to the provider)."""
    await cur.execute(_FORECAST, {"chain": chain, "region": region, "now": now})
    return [(row[0], row[1], row[2], row[3]) for row in await cur.fetchall()]
