"""Balances: what a snapshot summed up, and the tail of what was booked since. There is no running balance.

A snapshot ends at a number of a database transaction below which none is open any more, so it takes no lock that a
booking would wait for, and never misses one that commits late. A query reads watermark, sums and tail in one statement,
that is in one state of the database.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Any

from psycopg import AsyncConnection

from models.domain.ledger import Book

BELOW = """(SELECT coalesce(max(below_xact), 0) FROM ledger_snapshot
    WHERE cluster = (SELECT system_identifier FROM pg_control_system()))"""
"""The watermark in force: 0 before the first snapshot, and in another server after a restore."""

LEG_DIGEST = """('x' || left(encode(sha256(convert_to(concat_ws(chr(31), t.id, t.kind, t.request_number, t.memo,
    coalesce(t.refers_to, ''), extract(epoch FROM t.booked_at), e.leg, e.entity, e.account, e.amount_fen,
    e.business_date, e.book), 'UTF8')), 'hex'), 15))::bit(60)::bigint"""
"""60 bits of everything that was booked with a leg; `t` and `e` are its transaction and itself."""

_TAKE = f"""
WITH till AS MATERIALIZED (
    SELECT below_xact AS low, pg_snapshot_xmin(pg_current_snapshot())::text::bigint AS high FROM ledger_snapshot
), moved AS MATERIALIZED (
    SELECT e.entity, e.account, e.book, e.business_date, sum(e.amount_fen)::bigint AS fen, count(*) AS legs,
           sum({LEG_DIGEST}) AS digest
    FROM till JOIN txn t ON t.xact >= till.low AND t.xact < till.high JOIN entry e ON e.txn = t.id
    GROUP BY e.entity, e.account, e.book, e.business_date
), saved AS (
    INSERT INTO ledger_day (entity, account, book, business_date, fen, legs)
    SELECT entity, account, book, business_date, fen, legs FROM moved
    ON CONFLICT (entity, account, book, business_date)
    DO UPDATE SET fen = ledger_day.fen + excluded.fen, legs = ledger_day.legs + excluded.legs
)
UPDATE ledger_snapshot s SET below_xact = till.high, taken_at = %(now)s,
    transactions = s.transactions
        + (SELECT count(*) FROM txn t WHERE t.xact >= till.low AND t.xact < till.high),
    legs = s.legs + (SELECT coalesce(sum(legs), 0) FROM moved),
    digest = s.digest + (SELECT coalesce(sum(digest), 0) FROM moved)
FROM till RETURNING s.below_xact, s.transactions, s.legs
"""

_BALANCES = f"""
SELECT entity, account, book, sum(fen)::bigint FROM (
    SELECT d.entity, d.account, d.book, d.business_date, d.fen FROM ledger_day d WHERE {BELOW} > 0
    UNION ALL
    SELECT e.entity, e.account, e.book, e.business_date, e.amount_fen
    FROM txn t JOIN entry e ON e.txn = t.id WHERE t.xact >= {BELOW}
) AS moved
WHERE (%(entity)s::text IS NULL OR entity = %(entity)s)
  AND (%(account)s::text IS NULL OR account = %(account)s OR starts_with(account, %(account)s || ':'))
  AND (%(since)s::text IS NULL OR business_date >= %(since)s) AND (%(on)s::text IS NULL OR business_date <= %(on)s)
GROUP BY entity, account, book HAVING sum(fen) <> 0 OR %(zeros)s ORDER BY entity, account, book
"""


@dataclass(frozen=True, slots=True)
class Balance:
    """The sum of one account of one legal entity. Debit positive."""

    entity: str
    account: str
    book: Book
    fen: int


@dataclass(frozen=True, slots=True)
class Snapshot:
    """What a snapshot holds, and the database transaction it ends before."""

    below_xact: int
    transactions: int
    legs: int


async def take_snapshot(conn: AsyncConnection[Any], now: datetime) -> Snapshot:
    """Sum up what was booked since the last one, in one transaction. Two at once take turns."""
    async with conn.transaction(), conn.cursor() as cur:
        await cur.execute(
            "INSERT INTO ledger_snapshot SELECT 1, system_identifier, 0, 0, 0, 0, %s FROM pg_control_system()"
            " ON CONFLICT DO NOTHING",
            (now,),
        )
        await cur.execute(
            "SELECT cluster = system_identifier FROM ledger_snapshot, pg_control_system() FOR UPDATE OF ledger_snapshot"
        )
        if (await cur.fetchone()) == (False,):  # restored from a dump: numbers began anew, so does the snapshot
            await cur.execute("DELETE FROM ledger_day")
            await cur.execute(
                "UPDATE ledger_snapshot SET below_xact = 0, transactions = 0, legs = 0, digest = 0,"
                " cluster = (SELECT system_identifier FROM pg_control_system())"
            )
        await cur.execute(_TAKE, {"now": now})
        row = await cur.fetchone()
    assert row is not None
    return Snapshot(*row)


async def balances(
    conn: AsyncConnection[Any],
    *,
    entity: str | None = None,
    account: str | None = None,
    on: str | None = None,
    since: str | None = None,
    zeros: bool = False,
) -> list[Balance]:
    """Sums per entity, account and book, in that order; accounts that stand at 0 only with `zeros`.

    `account`: that one, or all whose name begins with it and a colon. `on`: up to that business date. `since`: only
    what moved from that business date on.
    """
    values = {"entity": entity, "account": account, "on": on, "since": since, "zeros": zeros}
    cur = await conn.execute(_BALANCES, values)
    return [Balance(row[0], row[1], Book(row[2]), row[3]) for row in await cur.fetchall()]
