"""A statement against our clearing account, set-wise: one COPY in, one join, and only what differs comes out.

The database leaves out the pairs that are simply equal; what is left is decided by `models.domain.differences`, which
is the rule. Our side is the entries of the account themselves, each transaction under the numbers that the provider
knows it by, so nothing that changed the account can be missing.
"""

from __future__ import annotations

from collections.abc import AsyncIterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from typing import Any, LiteralString

from psycopg import AsyncCursor

from models.domain.differences import Carried, FeeTerms, Hold, Key, OurLine
from models.domain.ledger import clearing
from models.domain.reconciliation import LineKind, StatementLine, StatementTotals
from models.domain.returns import refund_number
from models.domain.settlement import REFUND_OF_A_CAPTURE

OWN_KINDS = ("reconciled", "difference_resolved")
"""What reconciliation books by itself: part of the account's change, never a line to be matched."""

_COPY = (
    "COPY statement_line (file, n, kind, order_no, request_no, trade_no, gross_fen, receipt_fen, fee_fen, at)"
    " FROM STDIN"
)
_ESCAPES = str.maketrans({"\\": r"\\", "\t": r"\t", "\n": r"\n", "\r": r"\r"})

# Lines that repeat a number: few, so only they are numbered.
_NUMBER_STATEMENT = """
UPDATE statement_line l SET occurrence = r.occurrence FROM (
    SELECT n, row_number() OVER (PARTITION BY kind, order_no, request_no ORDER BY n) AS occurrence
    FROM statement_line JOIN (
        SELECT kind, order_no, request_no FROM statement_line WHERE file = %(file)s
        GROUP BY kind, order_no, request_no HAVING count(*) > 1
    ) AS again USING (kind, order_no, request_no)
    WHERE file = %(file)s
) AS r
WHERE l.file = %(file)s AND l.n = r.n AND r.occurrence > 1
"""

_NUMBER_OURS = """
UPDATE ours o SET occurrence = r.occurrence FROM (
    SELECT ours.ctid AS row, row_number() OVER (PARTITION BY kind, order_no, request_no ORDER BY txn) AS occurrence
    FROM ours JOIN (
        SELECT kind, order_no, request_no FROM ours GROUP BY kind, order_no, request_no HAVING count(*) > 1
    ) AS again USING (kind, order_no, request_no)
) AS r
WHERE o.ctid = r.row AND r.occurrence > 1
"""

_OURS_TABLE = """
CREATE TEMPORARY TABLE ours (
    kind text NOT NULL, order_no text NOT NULL, request_no text NOT NULL, fen bigint NOT NULL, txn text NOT NULL,
    store text NOT NULL, cause text NOT NULL, occurrence smallint NOT NULL DEFAULT 1
) ON COMMIT DROP
"""

_MOVED = """
CREATE TEMPORARY TABLE moved ON COMMIT DROP AS
SELECT e.txn, t.kind, t.request_number, e.fen FROM (
    SELECT txn, sum(amount_fen)::bigint AS fen FROM entry
    WHERE entity = %(account)s AND account = %(clearing)s AND business_date = %(day)s AND book = 'posted'
    GROUP BY txn HAVING sum(amount_fen) <> 0
) AS e JOIN txn t ON t.id = e.txn
WHERE t.kind <> ALL(%(own_kinds)s)
"""

# The plain case, and nearly all there is: a sale with one tender.
_SOLD_PLAIN = """
INSERT INTO ours (kind, order_no, request_no, fen, txn, store, cause)
SELECT CASE WHEN m.fen > 0 THEN 'payment' ELSE 'refund' END, s.tenders -> 0 ->> 'order', '', m.fen, m.txn, s.store, ''
FROM moved m JOIN sale s ON s.id = m.request_number
WHERE m.kind = 'sale_paid' AND jsonb_array_length(s.tenders) = 1 AND s.tenders -> 0 ->> 'order' <> ''
"""

# One row per transaction and order. A sale of several orders divides what its transaction changed by their tenders,
# the rest to the first, so that the rows of a transaction sum to its change. `cause` is what a refund's number derives
# from.
_SOLD = """
INSERT INTO ours (kind, order_no, request_no, fen, txn, store, cause)
WITH sold AS (
    SELECT m.txn, m.fen, s.store, s.tenders, '' AS cause FROM moved m JOIN sale s ON s.id = m.request_number
    WHERE m.kind = 'sale_paid' AND jsonb_array_length(s.tenders) > 1
    UNION ALL
    SELECT m.txn, m.fen, s.store, s.tenders, s.id FROM moved m
    JOIN sale_void v ON v.id = m.request_number JOIN sale s ON s.id = v.sale WHERE m.kind = 'sale_voided'
    UNION ALL
    SELECT m.txn, m.fen, r.store, r.tenders, r.id FROM moved m JOIN sale_return r ON r.id = m.request_number
    WHERE m.kind = 'sale_refunded'
), tendered AS (
    SELECT s.txn, s.store, s.cause, t."order", s.fen AS whole_fen, sign(s.fen)::int * t.fen AS fen,
           row_number() OVER by_txn AS nth, sum(sign(s.fen)::int * t.fen) OVER (PARTITION BY s.txn) AS all_fen
    FROM sold s, LATERAL jsonb_to_recordset(s.tenders) AS t("order" text, fen bigint, provider text)
    WHERE t."order" <> '' AND coalesce(t.provider, %(provider)s) IN ('', %(provider)s)
    WINDOW by_txn AS (PARTITION BY s.txn ORDER BY t."order")
)
SELECT CASE WHEN whole_fen > 0 THEN 'payment' ELSE 'refund' END, "order", '',
       CASE WHEN nth = 1 THEN whole_fen - all_fen + fen ELSE fen END, txn, store, cause
FROM tendered
"""

# Settlement's, under the numbers of its calls. A transaction that no rule here knows keeps its own number, which no
# provider has: it shows as OURS_ONLY.
_OTHERS = f"""
INSERT INTO ours (kind, order_no, request_no, fen, txn, store, cause)
SELECT CASE WHEN m.fen > 0 THEN 'payment' ELSE 'refund' END,
       -- A refund that is named after a capture is that one's (models.domain.settlement.payment_of).
       coalesce(substring(c.request_number FROM '^{REFUND_OF_A_CAPTURE}$'), h.captured_number,
           m.request_number),
       CASE WHEN m.kind = 'refunded' THEN m.request_number ELSE '' END, m.fen, m.txn, '', ''
FROM moved m
LEFT JOIN settlement_call c ON m.kind = 'refunded' AND c.request_number = m.request_number
LEFT JOIN membership h ON h.id = c.membership
WHERE NOT EXISTS (SELECT 1 FROM ours o WHERE o.txn = m.txn)
"""

# What is equal in number, receipt and fee is left out. The fee's bounds are FeeTerms.bounds, in integers.
_LEFT_OVER = """
SELECT coalesce(p.kind, o.kind), coalesce(p.order_no, o.order_no), coalesce(p.request_no, o.request_no),
       coalesce(p.occurrence, o.occurrence), p.trade_no, p.gross_fen, p.receipt_fen, p.fee_fen, p.at,
       o.fen, o.txn, o.store
FROM (SELECT * FROM statement_line WHERE file = %(file)s) AS p
FULL JOIN ours o ON o.kind = p.kind AND o.order_no = p.order_no AND o.request_no = p.request_no
    AND o.occurrence = p.occurrence
WHERE p.n IS NULL OR o.txn IS NULL
   OR o.fen <> CASE p.kind WHEN 'payment' THEN p.receipt_fen ELSE -p.receipt_fen END
   OR p.fee_fen NOT BETWEEN
       CASE p.kind WHEN 'payment' THEN p.receipt_fen * %(basis_points)s / 10000
            ELSE -((p.receipt_fen * %(basis_points)s + 9999) / 10000) END
       AND CASE p.kind WHEN 'payment' THEN (p.receipt_fen * %(basis_points)s + 9999) / 10000 ELSE 0 END
LIMIT %(limit)s
"""

_CHANGE = """
SELECT coalesce(sum(e.amount_fen), 0)::bigint,
       coalesce(sum(e.amount_fen) FILTER (WHERE t.kind = ANY(%(own_kinds)s)), 0)::bigint
FROM entry e LEFT JOIN txn t ON t.id = e.txn AND t.kind = ANY(%(own_kinds)s)
WHERE e.entity = %(account)s AND e.account = %(clearing)s AND e.business_date = %(day)s AND e.book = 'posted'
"""

_SEEN = """
SELECT DISTINCT l.kind, l.order_no, l.request_no
FROM statement_line l JOIN unnest(%(kinds)s::text[], %(orders)s::text[], %(requests)s::text[])
    AS k(kind, order_no, request_no) USING (kind, order_no, request_no)
WHERE l.file IN (SELECT n FROM statement_file WHERE provider = %(provider)s AND account = %(account)s
                   AND day BETWEEN %(since)s AND %(until)s)
  AND NOT EXISTS (SELECT 1 FROM reconciliation_line r WHERE r.order_no = l.order_no AND r.provider = %(provider)s
                    AND r.account = %(account)s AND r.kind = l.kind AND r.request_no = l.request_no
                    AND r.verdict IN ('TIMING', 'PROVIDER_ONLY'))
"""

_CARRIED = """
SELECT kind, order_no, request_no, day, provider_fen, ours_fen FROM reconciliation_line
WHERE account = %(account)s AND provider = %(provider)s AND day <> %(day)s
  AND (posted_to = 'timing' OR posted_to = '' AND state = 'open' AND verdict IN ('PROVIDER_ONLY', 'OURS_ONLY'))
  AND (pair_day IS NULL OR pair_day = %(day)s) AND order_no = ANY(%(orders)s)
ORDER BY day, id
"""

# A hold that nobody needs: its membership is over and the hold is not.
_HOLDS = """
SELECT m.hold_order, m.id, m.hold_fen FROM membership m
WHERE m.owner = %(account)s AND m.hold_state = 'held' AND m.hold_fen > 0
  AND (m.state IN ('CLOSED', 'REJECTED', 'ABANDONED') OR m.parked_why <> '')
  AND EXISTS (SELECT 1 FROM txn t JOIN entry e ON e.txn = t.id WHERE t.request_number = m.hold_order
                AND t.kind = 'hold_placed' AND e.account = %(hold)s AND e.business_date <= %(day)s)
ORDER BY m.id LIMIT %(limit)s
"""


@dataclass(frozen=True, slots=True)
class Account:
    """One merchant account: a provider, and the legal entity that it belongs to."""

    provider: str
    entity: str

    @property
    def clearing(self) -> str:
        """The ledger's account that the statement must equal."""
        return clearing(self.provider)


@dataclass(frozen=True, slots=True)
class StoredStatement:
    """A fetched statement's row."""

    n: int
    totals: StatementTotals
    fetched_at: datetime


@dataclass(frozen=True, slots=True)
class Change:
    """What the clearing account changed by on a day: in all, and of it by reconciliation's own postings."""

    fen: int
    own_fen: int


async def load_statement(cur: AsyncCursor[Any], account: Account, day: date) -> StoredStatement | None:
    """The statement that was fetched for a day; None: none yet."""
    await cur.execute(
        "SELECT n, payments, refunds, payments_fen, refunds_fen, fee_fen, fetched_at FROM statement_file"
        " WHERE provider = %s AND account = %s AND day = %s",
        (account.provider, account.entity, day.isoformat()),
    )
    row = await cur.fetchone()
    return None if row is None else StoredStatement(row[0], StatementTotals(*row[1:6]), row[6])


async def begin_statement(
    cur: AsyncCursor[Any], account: Account, day: date, totals: StatementTotals, fetched_at: datetime
) -> int:
    """Make room for a statement's lines in the caller's transaction, in the place of an earlier one; its number."""
    await cur.execute(
        "DELETE FROM statement_file WHERE provider = %s AND account = %s AND day = %s RETURNING n",
        (account.provider, account.entity, day.isoformat()),
    )
    row = await cur.fetchone()
    if row is not None:
        await cur.execute("DELETE FROM statement_line WHERE file = %s", (row[0],))
    await cur.execute(
        "INSERT INTO statement_file (provider, account, day, payments, refunds, payments_fen, refunds_fen, fee_fen,"
        " fetched_at) VALUES (%s, %s, %s, %s, %s, %s, %s, %s, %s) RETURNING n",
        (
            account.provider,
            account.entity,
            day.isoformat(),
            totals.payments,
            totals.refunds,
            totals.payments_fen,
            totals.refunds_fen,
            totals.fee_fen,
            fetched_at,
        ),
    )
    row = await cur.fetchone()
    assert row is not None
    return int(row[0])


def as_copied(file: int, first: int, lines: Sequence[StatementLine]) -> str:
    """Lines as COPY's text format, numbered from `first`. Raises ValueError for a NUL, which no column holds."""
    return "".join(
        f"{file}\t{n}\t{line.kind.value}\t{_plain(line.order_no)}\t{_plain(line.request_no)}\t{_plain(line.trade_no)}"
        f"\t{line.gross_fen}\t{line.receipt_fen}\t{line.fee_fen}\t{line.at.isoformat()}\n"
        for n, line in enumerate(lines, first)
    )


def _plain(text: str) -> str:
    if text.isprintable() and "\\" not in text:
        return text
    if "\x00" in text:
        raise ValueError("a statement's number holds a NUL")
    return text.translate(_ESCAPES)


async def copy_lines(cur: AsyncCursor[Any], file: int, chunks: AsyncIterable[Sequence[StatementLine]]) -> None:
    """COPY the lines in, a chunk at a time; then number those whose numbers repeat."""
    n = 1
    async with cur.copy(_COPY) as copy:
        async for chunk in chunks:
            await copy.write(as_copied(file, n, chunk))
            n += len(chunk)
    await _joined_by_hash(cur, _NUMBER_STATEMENT, {"file": file})


async def _joined_by_hash(cur: AsyncCursor[Any], query: LiteralString, values: Mapping[str, object]) -> None:
    """Nobody has counted rows that were written a moment ago: the planner takes a million for one, and loops."""
    await cur.execute("SET LOCAL enable_nestloop = off")
    await cur.execute(query, values)
    await cur.connection.execute("SET LOCAL enable_nestloop = on")


async def gather_ours(cur: AsyncCursor[Any], account: Account, day: date) -> None:
    """Our side of a day into the temporary table `ours`, until the end of the caller's transaction."""
    values = {
        "account": account.entity,
        "clearing": account.clearing,
        "provider": account.provider,
        "day": day.isoformat(),
        "own_kinds": list(OWN_KINDS),
    }
    await cur.execute(_OURS_TABLE)
    await cur.execute(_MOVED, values)
    await cur.execute("ANALYZE moved")
    await cur.execute(_SOLD_PLAIN)
    await cur.execute(_SOLD, values)
    await cur.execute("ANALYZE ours")
    await cur.execute(_OTHERS)
    await cur.execute("SELECT DISTINCT cause, order_no FROM ours WHERE cause <> ''")
    refunds = await cur.fetchall()
    if refunds:
        await cur.execute(
            "UPDATE ours o SET request_no = r.number FROM unnest(%s::text[], %s::text[], %s::text[])"
            " AS r(cause, order_no, number) WHERE o.cause = r.cause AND o.order_no = r.order_no",
            (
                [cause for cause, _ in refunds],
                [order for _, order in refunds],
                [refund_number(cause, order) for cause, order in refunds],
            ),
        )
    await _joined_by_hash(cur, _NUMBER_OURS, {})


@dataclass(frozen=True, slots=True)
class LeftOver:
    """Both sides without the pairs that are simply equal, by (key, occurrence)."""

    theirs: Mapping[tuple[Key, int], StatementLine]
    ours: Mapping[tuple[Key, int], OurLine]


async def left_over(
    cur: AsyncCursor[Any], account: Account, day: date, file: int | None, terms: FeeTerms, limit: int
) -> LeftOver:
    """What does not simply match; after `gather_ours`. At most `limit` rows: one more than a caller wants to see."""
    await _joined_by_hash(cur, _LEFT_OVER, {"file": file, "basis_points": terms.basis_points or 0, "limit": limit})
    theirs: dict[tuple[Key, int], StatementLine] = {}
    ours: dict[tuple[Key, int], OurLine] = {}
    for kind, order, request, occurrence, trade, gross, receipt, fee, at, fen, txn, store in await cur.fetchall():
        key = (LineKind(kind), order, request)
        if trade is not None:
            theirs[key, occurrence] = StatementLine(
                account.provider, account.entity, *key, trade, gross, receipt, fee, at, day
            )
        if txn is not None:
            ours[key, occurrence] = OurLine(*key, fen, txn, store)
    return LeftOver(theirs, ours)


async def change_of(cur: AsyncCursor[Any], account: Account, day: date) -> Change:
    """How far the clearing account moved on a business date."""
    await cur.execute(
        _CHANGE,
        {
            "account": account.entity,
            "clearing": account.clearing,
            "day": day.isoformat(),
            "own_kinds": list(OWN_KINDS),
        },
    )
    row = await cur.fetchone()
    assert row is not None
    return Change(*row)


async def seen_before(cur: AsyncCursor[Any], account: Account, day: date, keys: Sequence[Key], days: int) -> set[Key]:
    """Which of these keys a statement of the `days` before had, and had as what it should be."""
    if not keys:
        return set()
    await cur.execute(
        _SEEN,
        {
            "provider": account.provider,
            "account": account.entity,
            "since": (day - timedelta(days=days)).isoformat(),
            "until": (day - timedelta(days=1)).isoformat(),
            "kinds": [str(key[0]) for key in keys],
            "orders": [key[1] for key in keys],
            "requests": [key[2] for key in keys],
        },
    )
    return {(LineKind(row[0]), row[1], row[2]) for row in await cur.fetchall()}


async def carried(cur: AsyncCursor[Any], account: Account, day: date, orders: Sequence[str]) -> list[Carried]:
    """Findings of other days under these orders that wait for their other side, or found it on this day."""
    if not orders:
        return []
    await cur.execute(
        _CARRIED,
        {"provider": account.provider, "account": account.entity, "day": day.isoformat(), "orders": list(orders)},
    )
    return [
        Carried((LineKind(row[0]), row[1], row[2]), date.fromisoformat(row[3]), row[4], row[5])
        for row in await cur.fetchall()
    ]


async def open_holds(cur: AsyncCursor[Any], account: Account, day: date, limit: int) -> list[Hold]:
    """Holds of an account that were placed by then and that no membership needs."""
    await cur.execute(
        _HOLDS,
        {"account": account.entity, "hold": f"hold:{account.provider}", "day": day.isoformat(), "limit": limit},
    )
    return [Hold(*row) for row in await cur.fetchall()]
