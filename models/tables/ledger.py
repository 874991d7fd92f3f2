"""Writing and reading the ledger. Nothing is ever changed or taken out: the database refuses it too."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from psycopg import AsyncConnection, AsyncCursor

from models.domain.ledger import Book, Entry, Transaction

_INSERT = """
WITH added AS (
    INSERT INTO txn (id, kind, request_number, memo, refers_to, trace, booked_at)
    SELECT id, kind, request_number, memo, refers_to, trace, booked_at
    FROM unnest(%(ids)s::text[], %(kinds)s::text[], %(numbers)s::text[], %(memos)s::text[], %(refers)s::text[],
                %(traces)s::text[], %(booked_at)s::timestamptz[])
        AS t(id, kind, request_number, memo, refers_to, trace, booked_at)
    ON CONFLICT (id) DO NOTHING RETURNING id
), legs AS (
    INSERT INTO entry (txn, leg, entity, account, amount_fen, business_date, book)
    SELECT e.txn, e.leg, e.entity, e.account, e.amount_fen,
           CASE WHEN c.day >= e.business_date THEN c.next_day ELSE e.business_date END, e.book
    FROM unnest(%(txns)s::text[], %(legs)s::smallint[], %(entities)s::text[], %(accounts)s::text[],
                %(amounts)s::bigint[], %(dates)s::text[], %(books)s::text[])
        AS e(txn, leg, entity, account, amount_fen, business_date, book)
    JOIN added ON added.id = e.txn
    LEFT JOIN closed_through c ON c.entity = e.entity AND NOT %(into_closed)s
)
SELECT id FROM added
"""


@dataclass(frozen=True, slots=True)
class Booking:
    """One transaction, when it was booked, and the message that caused it."""

    transaction: Transaction
    booked_at: datetime
    trace: str = ""


async def insert_transactions(
    cur: AsyncCursor[Any],
    transactions: Sequence[Transaction],
    booked_at: datetime,
    trace: str = "",
    *,
    into_closed: bool = False,
) -> set[str]:
    """Book these in the caller's transaction, by one statement; returns the ids that were new.

    A leg of a closed day of its entity goes to the first open one; `into_closed`: it does not (the close itself).

    A transaction that is booked already (the same request number and kind) is left as it is. One without entries
    has nothing to book and is skipped.
    """
    if not await book(cur, [Booking(one, booked_at, trace) for one in transactions], into_closed=into_closed):
        return set()
    return {str(row[0]) for row in await cur.fetchall()}


async def book(cur: AsyncCursor[Any], bookings: Sequence[Booking], *, into_closed: bool = False) -> bool:
    """The same without looking at the result, so that it may run in a pipeline. False: there was nothing to book."""
    booked = {one.transaction.id: one for one in bookings if one.transaction.entries}
    if not booked:
        return False
    entries = [(txn_id, entry) for txn_id, one in booked.items() for entry in one.transaction.entries]
    await cur.execute(
        _INSERT,
        {
            "ids": list(booked),
            "kinds": [one.transaction.kind for one in booked.values()],
            "numbers": [one.transaction.request_number for one in booked.values()],
            "memos": [one.transaction.memo for one in booked.values()],
            "refers": [one.transaction.refers_to for one in booked.values()],
            "traces": [one.trace for one in booked.values()],
            "booked_at": [one.booked_at for one in booked.values()],
            "txns": [txn_id for txn_id, _ in entries],
            "legs": [entry.leg for _, entry in entries],
            "entities": [entry.entity for _, entry in entries],
            "accounts": [entry.account for _, entry in entries],
            "amounts": [entry.amount_fen for _, entry in entries],
            "dates": [entry.business_date for _, entry in entries],
            "books": [entry.book.value for _, entry in entries],
            "into_closed": into_closed,
        },
    )
    return True


async def load_transaction(cur: AsyncCursor[Any], transaction_id: str) -> Transaction | None:
    """A booked transaction, for its mirror; None when nothing was booked under that id."""
    await cur.execute(
        "SELECT t.kind, t.request_number, t.memo, t.refers_to, e.leg, e.entity, e.account, e.amount_fen,"
        " e.business_date, e.book FROM txn t JOIN entry e ON e.txn = t.id WHERE t.id = %s ORDER BY e.leg",
        (transaction_id,),
    )
    rows = await cur.fetchall()
    if not rows:
        return None
    kind, number, memo, refers_to = rows[0][:4]
    return Transaction(
        kind,
        number,
        tuple(Entry(row[4], row[5], row[6], row[7], row[8], Book(row[9])) for row in rows),
        memo,
        refers_to,
    )


@dataclass(frozen=True, slots=True)
class LedgerTotals:
    """The whole ledger in three figures: `sum_fen` is 0, or the ledger is broken."""

    transactions: int
    sum_fen: int
    provider_clearing_fen: int


async def ledger_totals(connection: AsyncConnection[Any]) -> LedgerTotals:
    """Counts and sums over all entities; provider_clearing is posted money only."""
    cur = await connection.execute(
        "SELECT (SELECT count(*) FROM txn), coalesce(sum(amount_fen), 0)::bigint, coalesce(sum(amount_fen)"
        " FILTER (WHERE starts_with(account, 'provider_clearing:') AND book = 'posted'), 0)::bigint FROM entry"
    )
    row = await cur.fetchone()
    assert row is not None
    return LedgerTotals(*row)
