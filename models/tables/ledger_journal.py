"""The journal: booked transactions by page, by what they touch or by what they are about; and all of them as a stream.

Pages go by keys, not by offsets: a page costs the same wherever it is.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from psycopg import AsyncConnection

from models.domain.errors import Refused
from models.domain.ledger import Book, Entry, Transaction

PAGE_MAX = 1_000
STREAM_ROWS = 5_000

# By account or day: the index (entity, account, business_date) gives the order, the id decides within a day.
_BY_ENTRY = """
SELECT DISTINCT e.business_date AS a, e.txn AS b FROM entry e
WHERE (%(entity)s::text IS NULL OR e.entity = %(entity)s) AND (%(account)s::text IS NULL OR e.account = %(account)s)
  AND (%(since)s::text IS NULL OR e.business_date >= %(since)s) AND (%(until)s::text IS NULL OR e.business_date <= %(until)s)
  AND (%(a)s::text IS NULL OR (e.business_date, e.txn) > (%(a)s, %(b)s))
ORDER BY 1, 2 LIMIT %(limit)s
"""  # noqa: E501

_BY_NUMBER = """
SELECT lpad(t.xact::text, 20, '0') AS a, t.id AS b FROM txn t
WHERE (t.memo = %(membership)s OR t.request_number = ANY(%(numbers)s))
  AND (%(a)s::text IS NULL OR (t.xact, t.id) > (%(a)s::bigint, %(b)s))
ORDER BY t.xact, t.id LIMIT %(limit)s
"""

_NEWEST = """
SELECT lpad(t.xact::text, 20, '0') AS a, t.id AS b FROM txn t
WHERE %(a)s::text IS NULL OR (t.xact, t.id) < (%(a)s::bigint, %(b)s)
ORDER BY t.xact DESC, t.id DESC LIMIT %(limit)s
"""

_NUMBERS_OF_MEMBERSHIP = """
SELECT hold_order FROM membership WHERE id = %(id)s AND hold_order <> ''
UNION SELECT request_number FROM settlement_call WHERE membership = %(id)s
UNION SELECT id FROM usage WHERE membership = %(id)s
UNION SELECT r.id FROM usage u JOIN usage_reversal r ON r.usage = u.id WHERE u.membership = %(id)s
UNION SELECT id FROM sale WHERE membership = %(id)s
"""

_NUMBERS_OF_SALE = """
SELECT id FROM sale WHERE id = %(id)s OR receipt = %(id)s
UNION SELECT v.id FROM sale_void v JOIN sale s ON s.id = v.sale WHERE s.id = %(id)s OR s.receipt = %(id)s
UNION SELECT r.id FROM sale_return r JOIN sale s ON s.id = r.sale WHERE s.id = %(id)s OR s.receipt = %(id)s
UNION SELECT u.id FROM usage u JOIN sale s ON s.id = u.sale WHERE s.id = %(id)s OR s.receipt = %(id)s
UNION SELECT r.id FROM usage u JOIN sale s ON s.id = u.sale JOIN usage_reversal r ON r.usage = u.id
  WHERE s.id = %(id)s OR s.receipt = %(id)s
"""

_ROWS = """
SELECT t.id, t.kind, t.request_number, t.memo, t.refers_to, t.trace, t.booked_at,
       e.leg, e.entity, e.account, e.amount_fen, e.business_date, e.book
FROM txn t JOIN entry e ON e.txn = t.id
"""


@dataclass(frozen=True, slots=True)
class Wanted:
    """What a page of the journal is to hold. Nothing said: everything, the newest first.

    By `membership` or `sale` (an id, or a receipt's number): everything that was booked about it, in order. Else by
    entity, exact account and business dates, in order of these.
    """

    entity: str | None = None
    account: str | None = None
    since: str | None = None
    until: str | None = None
    membership: str | None = None
    sale: str | None = None

    def __post_init__(self) -> None:
        about = self.membership or self.sale
        if about and (self.entity or self.account or self.since or self.until or (self.membership and self.sale)):
            raise Refused("journal_of_what", "of an account, of a membership, or of a sale?", "give one of them")


@dataclass(frozen=True, slots=True)
class Booked:
    """One transaction as it stands in the books."""

    transaction: Transaction
    booked_at: datetime
    trace: str


@dataclass(frozen=True, slots=True)
class JournalPage:
    """Transactions, and where the next page begins; None at the end."""

    booked: tuple[Booked, ...]
    after: tuple[str, str] | None


async def journal(
    conn: AsyncConnection[Any], wanted: Wanted, *, limit: int, after: tuple[str, str] | None = None
) -> JournalPage:
    """At most `limit` transactions, 1,000 at most, after the key that the page before gave."""
    limit = min(limit, PAGE_MAX)
    values: dict[str, Any] = {"limit": limit + 1, "a": None, "b": None}
    if after is not None:
        values |= {"a": after[0], "b": after[1]}
    about = wanted.membership or wanted.sale
    if about:
        query = _NUMBERS_OF_MEMBERSHIP if wanted.membership else _NUMBERS_OF_SALE
        cur = await conn.execute(query, {"id": about})
        values |= {"numbers": [row[0] for row in await cur.fetchall()], "membership": wanted.membership or "-"}
        cur = await conn.execute(_BY_NUMBER, values)
    elif wanted == Wanted():
        cur = await conn.execute(_NEWEST, values)
    else:
        values |= {"entity": wanted.entity, "account": wanted.account, "since": wanted.since, "until": wanted.until}
        cur = await conn.execute(_BY_ENTRY, values)
    keys = [(row[0], row[1]) for row in await cur.fetchall()]
    page = keys[:limit]
    booked = await transactions_of(conn, [key[1] for key in page])
    return JournalPage(tuple(booked), page[-1] if len(keys) > limit else None)


async def transactions_of(conn: AsyncConnection[Any], ids: Sequence[str]) -> list[Booked]:
    """These transactions, each once, in the order of `ids`; one that is not booked is left out."""
    cur = await conn.execute(_ROWS + "WHERE t.id = ANY(%s) ORDER BY t.id, e.leg", (list(ids),))
    found = {one.transaction.id: one for one in _booked(await cur.fetchall())}
    return [found[name] for name in dict.fromkeys(ids) if name in found]


async def stream(conn: AsyncConnection[Any]) -> AsyncIterator[Booked]:
    """Every transaction in the order of business dates, in one state of the database and bounded memory."""
    async with conn.transaction(), conn.cursor("ledger_export") as cur:
        cur.itersize = STREAM_ROWS
        await cur.execute(
            _ROWS + "JOIN (SELECT txn, min(business_date) AS day FROM entry GROUP BY txn) d ON d.txn = t.id"
            " ORDER BY d.day, t.xact, t.id, e.leg"
        )
        rows: list[tuple[Any, ...]] = []
        async for row in cur:
            if rows and rows[0][0] != row[0]:
                yield _booked(rows)[0]
                rows = []
            rows.append(row)
        if rows:
            yield _booked(rows)[0]


def _booked(rows: Sequence[tuple[Any, ...]]) -> list[Booked]:
    legs: dict[str, list[tuple[Any, ...]]] = {}
    for row in rows:
        legs.setdefault(row[0], []).append(row)
    return [
        Booked(
            Transaction(
                kind=own[0][1],
                request_number=own[0][2],
                entries=tuple(Entry(one[7], one[8], one[9], one[10], one[11], Book(one[12])) for one in own),
                memo=own[0][3],
                refers_to=own[0][4],
            ),
            own[0][6],
            own[0][5],
        )
        for own in legs.values()
    ]
