"""Franchise statements from the ledger's legs; and stores that change hands.

Which store a leg of the whole entity (clearing, due_from …) belongs to follows from its run: the shortest stretch of a
transaction's legs of one entity that sums to 0, in their order. Each booking function writes such runs, store by store.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date, timedelta
from typing import Any

from psycopg import AsyncConnection

from models.domain.accounts import STORE_KINDS, store_of
from models.domain.franchise import Part, Statement, days_of, line_of, statement_of
from models.tables.ledger_balances import BELOW, balances

_RUNS = """
WITH touched AS (
    SELECT DISTINCT txn FROM entry
    WHERE entity = %(entity)s AND account = ANY(%(accounts)s) AND business_date BETWEEN %(since)s AND %(until)s
), legs AS (
    SELECT e.txn, e.leg, e.account, e.amount_fen, e.business_date,
           CASE WHEN split_part(e.account, ':', 1) = ANY(%(kinds)s) THEN nullif(split_part(e.account, ':', 2), '') END
               AS store,
           sum(e.amount_fen) OVER (PARTITION BY e.txn ORDER BY e.leg) AS running
    FROM touched JOIN entry e USING (txn) WHERE e.entity = %(entity)s AND e.book = 'posted'
), numbered AS (
    SELECT *, count(*) FILTER (WHERE running = 0) OVER (
        PARTITION BY txn ORDER BY leg ROWS BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING) AS run FROM legs
), owned AS (
    SELECT n.txn, n.account, n.amount_fen, n.business_date, t.kind,
           coalesce(n.store, min(n.store) OVER w) AS store,
           t.kind IN ('benefit_used', 'benefit_reversed')
               AND NOT bool_or(starts_with(n.account, 'discount_given:')) OVER w AS absorbed
    FROM numbered n JOIN txn t ON t.id = n.txn WINDOW w AS (PARTITION BY n.txn, n.run)
)
"""

_PARTS = (
    _RUNS
    + """
SELECT business_date, kind, account, absorbed, sum(amount_fen)::bigint, count(*) FROM owned
WHERE store = %(store)s AND business_date BETWEEN %(since)s AND %(until)s
GROUP BY business_date, kind, account, absorbed ORDER BY 1, 2, 3, 4
"""
)

_LINE = (
    _RUNS
    + """
SELECT o.business_date, o.txn, sum(o.amount_fen)::bigint FROM owned o
JOIN unnest(%(line_kinds)s::text[], %(line_accounts)s::text[], %(line_absorbed)s::bool[]) AS l(kind, account, absorbed)
  ON l.kind = o.kind AND l.account = o.account AND l.absorbed = o.absorbed
WHERE o.store = %(store)s AND o.business_date BETWEEN %(since)s AND %(until)s
  AND (%(a)s::text IS NULL OR (o.business_date, o.txn) > (%(a)s, %(b)s))
GROUP BY o.business_date, o.txn ORDER BY 1, 2 LIMIT %(limit)s
"""
)

_ACCOUNTS = f"""
SELECT DISTINCT entity, account FROM (
    SELECT entity, account FROM ledger_day WHERE {BELOW} > 0 AND business_date BETWEEN %(since)s AND %(until)s
      AND book = 'posted'
    UNION ALL
    SELECT e.entity, e.account FROM txn t JOIN entry e ON e.txn = t.id
    WHERE t.xact >= {BELOW} AND e.business_date BETWEEN %(since)s AND %(until)s AND e.book = 'posted'
) AS moved
WHERE split_part(account, ':', 1) = ANY(%(kinds)s) AND split_part(account, ':', 2) = %(store)s
"""

_OWNERS = """
SELECT entity, from_date, lead(from_date) OVER (ORDER BY from_date) AS next_date FROM store_entity
WHERE store = %(store)s ORDER BY from_date
"""


@dataclass(frozen=True, slots=True)
class LineAmount:
    """One transaction behind a line: its day, its id, and what it puts into the line (debit positive)."""

    business_date: str
    transaction: str
    fen: int


async def statements(conn: AsyncConnection[Any], store: str, month: str) -> list[Statement]:
    """One per legal entity that owned the store in the month, or whose books moved on its account; in that order."""
    since, until = days_of(month)
    values = {"store": store, "since": since, "until": until, "kinds": list(STORE_KINDS)}
    owned = await _owned(conn, store, since, until)
    cur = await conn.execute(_ACCOUNTS, values)
    touched: dict[str, list[str]] = {entity: [] for entity in owned}
    for entity, account in sorted(await cur.fetchall()):
        touched.setdefault(entity, []).append(account)
    return [
        await _statement(conn, store, entity, month, owned.get(entity, ("", "")), accounts)
        for entity, accounts in touched.items()
    ]


async def _statement(
    conn: AsyncConnection[Any], store: str, entity: str, month: str, owned: tuple[str, str], accounts: list[str]
) -> Statement:
    since, until = days_of(month)
    parts = await _parts(conn, store, entity, month, accounts)
    before = (date.fromisoformat(since) - timedelta(days=1)).isoformat()
    opening = {one.account: one.fen for one in await balances(conn, entity=entity, on=before) if one.book == "posted"}
    closing = {one.account: one.fen for one in await balances(conn, entity=entity, on=until) if one.book == "posted"}
    # Every account of the whole entity, this store's own, and no other store's.
    names = sorted(
        name
        for name in opening.keys() | closing.keys() | {part.account for part in parts}
        if store_of(name) in ("", store)
    )
    table = [(name, opening.get(name, 0), closing.get(name, 0)) for name in names]
    return statement_of(store, entity, month, owned, parts, table)


async def _parts(conn: AsyncConnection[Any], store: str, entity: str, month: str, accounts: list[str]) -> list[Part]:
    since, until = days_of(month)
    values = {"store": store, "entity": entity, "since": since, "until": until, "accounts": accounts}
    cur = await conn.execute(_PARTS, {**values, "kinds": list(STORE_KINDS)})
    return [Part(*row) for row in await cur.fetchall()]


async def _owned(conn: AsyncConnection[Any], store: str, since: str, until: str) -> dict[str, tuple[str, str]]:
    """Entities that owned the store in these days, with their first and last day of them."""
    cur = await conn.execute(_OWNERS, {"store": store})
    owned: dict[str, tuple[str, str]] = {}
    for entity, from_date, next_date in await cur.fetchall():
        last = until if next_date is None else (date.fromisoformat(next_date) - timedelta(days=1)).isoformat()
        if from_date <= until and last >= since:
            first, end = max(from_date, since), min(last, until)
            owned[entity] = (owned[entity][0], end) if entity in owned else (first, end)
    return owned


async def line_page(
    conn: AsyncConnection[Any],
    store: str,
    entity: str,
    month: str,
    key: str,
    *,
    limit: int,
    after: tuple[str, str] | None = None,
) -> tuple[list[LineAmount], tuple[str, str] | None]:
    """The transactions behind one line, by day, and where the next page begins (None at the end)."""
    since, until = days_of(month)
    values: dict[str, Any] = {"store": store, "since": since, "until": until, "kinds": list(STORE_KINDS)}
    cur = await conn.execute(_ACCOUNTS, values)
    accounts = [account for name, account in await cur.fetchall() if name == entity]
    wanted = set()
    for part in await _parts(conn, store, entity, month, accounts):
        line, party = line_of(part.kind, part.account, absorbed=part.absorbed)
        if key == (f"{line}:{party}" if party else str(line)):
            wanted.add((part.kind, part.account, part.absorbed))
    combos = sorted(wanted)
    values |= {
        "entity": entity,
        "accounts": accounts,
        "line_kinds": [one[0] for one in combos],
        "line_accounts": [one[1] for one in combos],
        "line_absorbed": [one[2] for one in combos],
        "limit": limit + 1,
        "a": after[0] if after else None,
        "b": after[1] if after else None,
    }
    cur = await conn.execute(_LINE, values)
    found = [LineAmount(*row) for row in await cur.fetchall()]
    page = found[:limit]
    return page, (page[-1].business_date, page[-1].transaction) if len(found) > limit else None
