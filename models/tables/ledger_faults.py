"""Recomputes the whole ledger: every way in which rows could contradict each other, and whether the guards stand.

The database refuses all of it (migrations 0001 and 0013). This finds what a person with the owner's rights, a broken
disk or a wrong restore made all the same.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from typing import Any, LiteralString

from psycopg import AsyncConnection
from psycopg.pq import TransactionStatus

from models.domain.ledger import transaction_id
from models.tables.ledger_balances import BELOW, LEG_DIGEST

EXAMPLES_MAX = 5
ID_ROWS = 10_000

# An example is one text. Dues: what the debtor owes by due_to and what the creditor has by due_from, per transaction.
_FAULTS: dict[str, LiteralString] = {
    "does_not_balance": """
SELECT txn || ' leaves ' || sum(amount_fen) || ' fen in the ' || book || ' book of ' || entity
FROM entry GROUP BY txn, entity, book HAVING sum(amount_fen) <> 0""",
    "legs_without_transaction": """
SELECT DISTINCT e.txn FROM entry e LEFT JOIN txn t ON t.id = e.txn WHERE t.id IS NULL""",
    "transaction_without_legs": """
SELECT t.id || ' ' || t.kind || ' ' || t.request_number FROM txn t
WHERE NOT EXISTS (SELECT 1 FROM entry e WHERE e.txn = t.id)""",
    "legs_not_whole": """
SELECT txn FROM entry GROUP BY txn
HAVING min(leg) <> 0 OR max(leg) <> count(*) - 1 OR count(DISTINCT leg) <> count(*)""",
    "request_booked_twice": """
SELECT kind || ' ' || request_number FROM txn GROUP BY kind, request_number HAVING count(*) > 1
UNION ALL SELECT id FROM txn GROUP BY id HAVING count(*) > 1""",
    "badly_formed": """
SELECT txn || '/' || leg || ' ' || entity || ' ' || account || ' ' || amount_fen || ' ' || business_date || ' ' || book
FROM entry WHERE amount_fen = 0 OR abs(amount_fen) > 1000000000000 OR book NOT IN ('posted', 'pending')
  OR account !~ '^[a-z][a-z0-9_]*(:[A-Za-z0-9._-]+)?(:[A-Za-z0-9._-]+)?$' OR entity !~ '^[A-Za-z0-9._-]+$'
  OR business_date !~ '^[0-9][0-9][0-9][0-9]-[0-9][0-9]-[0-9][0-9]$' OR NOT pg_input_is_valid(business_date, 'date')""",
    "dues_do_not_match": """
SELECT debtor || ' owes ' || creditor || ': ' || sum(fen) || ' fen more on one side, ' || txn FROM (
    SELECT txn, entity AS debtor, split_part(account, ':', 2) AS creditor, amount_fen AS fen
    FROM entry WHERE starts_with(account, 'due_to:')
    UNION ALL
    SELECT txn, split_part(account, ':', 2), entity, amount_fen FROM entry WHERE starts_with(account, 'due_from:')
) AS dues GROUP BY txn, debtor, creditor HAVING sum(fen) <> 0 OR debtor = creditor""",
    "refers_to_nothing": """
SELECT t.id || ' refers to ' || t.refers_to FROM txn t LEFT JOIN txn o ON o.id = t.refers_to
WHERE t.refers_to IS NOT NULL AND o.id IS NULL""",
    "mirror_is_none": """
SELECT m.refers_to || ' ' || m.entity || ' ' || m.account || ': ' || m.fen || ' fen taken back of '
    || coalesce(o.fen, 0) FROM (
    SELECT t.refers_to, e.entity, e.account, e.book, -sum(e.amount_fen) AS fen,
           bool_or(t.kind <> 'benefit_reversed') AS whole
    FROM txn t JOIN entry e ON e.txn = t.id
    WHERE t.refers_to IS NOT NULL AND t.kind IN ('hold_ended', 'sale_voided', 'benefit_reversed')
    GROUP BY t.refers_to, e.entity, e.account, e.book
) AS m LEFT JOIN (
    SELECT txn, entity, account, book, sum(amount_fen) AS fen FROM entry GROUP BY txn, entity, account, book
) AS o ON o.txn = m.refers_to AND o.entity = m.entity AND o.account = m.account AND o.book = m.book
WHERE m.refers_to IN (SELECT id FROM txn) AND (o.fen IS NULL OR sign(o.fen) <> sign(m.fen) OR abs(m.fen) > abs(o.fen)
  OR (m.whole AND m.fen <> o.fen))""",
    "snapshot_is_not_the_sum": f"""
SELECT coalesce(d.entity, e.entity) || ' ' || coalesce(d.account, e.account) || ' '
    || coalesce(d.business_date, e.business_date) || ': ' || coalesce(d.fen, 0) || ' fen kept, '
    || coalesce(e.fen, 0) || ' fen booked'
FROM (SELECT * FROM ledger_day WHERE {BELOW} > 0) AS d FULL JOIN (
    SELECT e.entity, e.account, e.book, e.business_date, sum(e.amount_fen) AS fen, count(*) AS legs
    FROM txn t JOIN entry e ON e.txn = t.id WHERE t.xact < {BELOW} GROUP BY 1, 2, 3, 4
) AS e USING (entity, account, book, business_date)
WHERE d.fen IS DISTINCT FROM e.fen OR d.legs IS DISTINCT FROM e.legs""",
    "history_changed": f"""
SELECT 'since the snapshot: ' || s.transactions || ' transactions and ' || s.legs || ' legs then, '
    || n.transactions || ' and ' || n.legs || ' now, digest '
    || CASE WHEN n.digest = s.digest THEN 'the same' ELSE 'another' END
FROM ledger_snapshot s, LATERAL (
    SELECT (SELECT count(*) FROM txn WHERE xact < {BELOW}) AS transactions, count(*) AS legs,
           coalesce(sum({LEG_DIGEST}), 0) AS digest
    FROM txn t JOIN entry e ON e.txn = t.id WHERE t.xact < {BELOW}
) AS n
WHERE {BELOW} > 0 AND (s.transactions, s.legs, s.digest) IS DISTINCT FROM (n.transactions, n.legs, n.digest)""",
    # A guard stands when it is there, fires always, on the same events (`kind`), and does what its migration wrote.
    "guard_is_gone": """
SELECT name FROM (VALUES ('entry_balances', 4, '27385b907689e9227d9a504452445298'),
    ('entry_append_only', 58, '7b4e22d178d8402174189b7f3787ada8'),
    ('txn_append_only', 58, '7b4e22d178d8402174189b7f3787ada8')) AS guard(name, kind, body)
WHERE NOT EXISTS (SELECT 1 FROM pg_trigger g JOIN pg_proc p ON p.oid = g.tgfoid WHERE g.tgname = name
    AND g.tgenabled = 'A' AND g.tgtype = kind AND g.tgqual IS NULL AND md5(p.prosrc) = body
    AND g.tgrelid IN ('entry'::regclass, 'txn'::regclass))
UNION ALL
SELECT name FROM unnest(ARRAY['entry_pkey', 'entry_bounded', 'txn_pkey', 'txn_request_number_kind_key', 'txn_formed'])
    AS name
WHERE NOT EXISTS (SELECT 1 FROM pg_constraint c WHERE c.conname = name AND c.convalidated
    AND c.conrelid IN ('entry'::regclass, 'txn'::regclass))""",
}

FAULTS = (*_FAULTS, "id_is_not_derived")
"""Every class of fault that is looked for."""


@dataclass(frozen=True, slots=True)
class Fault:
    """One class: how many were found, and a few of them. None found: `count` 0."""

    what: str
    count: int
    examples: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Verification:
    """What was read, and what is wrong with it."""

    transactions: int
    legs: int
    faults: tuple[Fault, ...]

    @property
    def ok(self) -> bool:
        """No fault of any class."""
        return not any(fault.count for fault in self.faults)


async def verify(conn: AsyncConnection[Any], progress: Callable[[str], None] = lambda _: None) -> Verification:
    """Recompute everything, in one state of the database. `progress` hears each class as it begins."""
    assert conn.info.transaction_status is TransactionStatus.IDLE, "one state of the database: a transaction of its own"
    faults = []
    async with conn.transaction():
        await conn.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ READ ONLY")
        cur = await conn.execute("SELECT (SELECT count(*) FROM txn), (SELECT count(*) FROM entry)")
        counts = await cur.fetchone()
        assert counts is not None
        for what, query in _FAULTS.items():
            progress(what)
            cur = await conn.execute(
                f"SELECT count(*) OVER (), example FROM ({query}) AS found(example) LIMIT {EXAMPLES_MAX}"
            )
            rows = await cur.fetchall()
            faults.append(Fault(what, rows[0][0] if rows else 0, tuple(str(row[1]) for row in rows)))
        progress("id_is_not_derived")
        wrong = [text async for text in _foreign_ids(conn)]
        faults.append(Fault("id_is_not_derived", len(wrong), tuple(wrong[:EXAMPLES_MAX])))
    return Verification(counts[0], counts[1], tuple(faults))


async def _foreign_ids(conn: AsyncConnection[Any]) -> AsyncIterator[str]:
    """Transactions whose id is not uuid5(request number, kind)."""
    async with conn.cursor("ledger_ids") as cur:
        cur.itersize = ID_ROWS
        await cur.execute("SELECT id, request_number, kind FROM txn")
        async for name, number, kind in cur:
            if name != transaction_id(number, kind):
                yield f"{name} {kind} {number}"
