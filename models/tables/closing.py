"""The closing commit of the common case, by one statement for a whole chunk.

Most answers say just what was asked: a first capture took the due, a hold with nothing to take was given back. These
are booked here, set-wise; whatever differs in any way stays ANSWERED for `actors.settlement.book_answer`, which
decides it one by one. Both write the same rows to the last column (tests/integration/test_closing.py): the rule lives
there, and this file only repeats its plainest branch, without a value object and its arrays for every leg.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any

from psycopg import AsyncCursor

from models.domain.calendar import business_date
from models.domain.ids import derived_id
from models.tables.plans import load_plan

# A first attempt that captured exactly what is due now; or a release of a hold under a charge of 0. A membership has
# one such call at most: a second call of it exists only after this one was booked.
_LOCK_PLAIN = """
SELECT c.request_number, m.hold_order, m.hold_state = 'held' AND m.hold_fen > 0, c.kind = 'capture', m.plan,
       m.plan_version
FROM settlement_call c JOIN membership m ON m.id = c.membership
WHERE c.chain = %(chain)s AND c.region = %(region)s AND c.state = 'ANSWERED'
  AND c.answer->>'answer' = 'succeeded'
  AND m.captured_number = '' AND m.receivable_fen = 0 AND m.refunded_fen = 0
  AND (c.kind = 'capture' AND c.attempt = 0 AND m.state IN ('SETTLING', 'UNKNOWN') AND m.branch IN ('FEE', 'CLAWBACK')
         AND c.answer->>'kind' = 'pay' AND c.answer->>'total_fen' = c.fen::text
         AND c.fen = least(m.charge_fen, m.fee_eff_fen, m.used_fen)
         AND (m.branch = 'FEE' OR c.fen = (
             SELECT coalesce(sum(u.fen - u.reversed_fen), 0) FROM usage u
             WHERE u.membership = m.id AND u.class = 'REGULAR'))
       OR c.kind = 'release' AND m.state = 'SETTLING' AND m.charge_fen = 0 AND m.attempts = 0
         AND m.hold_state = 'held')
ORDER BY c.not_before LIMIT %(limit)s FOR UPDATE OF m, c SKIP LOCKED
"""

# The rows were locked by the statement before, so this one's snapshot is what that one saw.
_BOOK = """
WITH plain AS MATERIALIZED (
    SELECT g.settled_id, g.ended_id, g.placed_id, g.date, c.id AS call, c.request_number, c.kind, c.fen,
           m.id, m.owner, m.branch, m.hold_order, m.hold_fen, m.hold_state
    FROM unnest(%(numbers)s::text[], %(settled)s::text[], %(ended)s::text[], %(placed)s::text[], %(dates)s::text[])
        AS g(number, settled_id, ended_id, placed_id, date)
    JOIN settlement_call c ON c.request_number = g.number
    JOIN membership m ON m.id = c.membership
), txns AS (
    INSERT INTO txn (id, kind, request_number, memo, refers_to, trace, booked_at)
    SELECT settled_id, 'settled', request_number, id, NULL, %(trace)s, %(now)s FROM plain WHERE kind = 'capture'
    UNION ALL
    SELECT ended_id, 'hold_ended', hold_order, '', placed_id, %(trace)s, %(now)s FROM plain WHERE ended_id <> ''
    ON CONFLICT (id) DO NOTHING RETURNING id
), shares AS (
    SELECT p.settled_id, p.owner, p.date, u.store, u.entity, sum(u.fen - u.reversed_fen)::bigint AS fen,
           coalesce(sum(CASE WHEN u.entity = p.owner THEN 2 ELSE 4 END) OVER (
               PARTITION BY p.settled_id ORDER BY u.store, u.entity ROWS BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING
           ), 0) AS leg
    FROM plain p JOIN usage u ON u.membership = p.id AND u.class = 'REGULAR'
    WHERE p.kind = 'capture' AND p.branch = 'CLAWBACK'
    GROUP BY p.settled_id, p.owner, p.date, u.store, u.entity HAVING sum(u.fen - u.reversed_fen) > 0
), legs AS (
    SELECT settled_id AS txn, l.leg, owner AS entity, l.account, l.fen, date, 'posted' AS book
    FROM plain, LATERAL (VALUES (0, %(clearing)s, fen), (1, 'membership_fee_income', -fen)) AS l(leg, account, fen)
    WHERE kind = 'capture' AND branch = 'FEE'
    UNION ALL
    SELECT settled_id, s.leg + l.leg, l.entity, l.account, l.fen, date, 'posted'
    FROM shares s, LATERAL (
        SELECT * FROM (VALUES (0, owner, %(clearing)s, fen), (1, owner, 'discount_given:' || store, -fen))
            AS own(leg, entity, account, fen) WHERE s.entity = s.owner
        UNION ALL
        SELECT * FROM (VALUES (0, owner, %(clearing)s, fen), (1, owner, 'due_to:' || s.entity, -fen),
                              (2, s.entity, 'due_from:' || owner, fen), (3, s.entity, 'discount_given:' || store, -fen))
            AS theirs(leg, entity, account, fen) WHERE s.entity <> s.owner
    ) AS l
    UNION ALL
    SELECT ended_id, l.leg, owner, l.account, l.fen, date, 'pending'
    FROM plain, LATERAL (VALUES (0, %(hold)s, -hold_fen), (1, 'hold_contra', hold_fen)) AS l(leg, account, fen)
    WHERE ended_id <> ''
), booked AS (
    INSERT INTO entry (txn, leg, entity, account, amount_fen, business_date, book)
    SELECT l.txn, l.leg, l.entity, l.account, l.fen, l.date, l.book FROM legs l JOIN txns ON txns.id = l.txn
), closed AS (
    UPDATE membership m SET state = 'CLOSED',
        paid_fen = CASE WHEN p.kind = 'capture' THEN p.fen ELSE m.paid_fen END,
        captured_number = CASE WHEN p.kind = 'capture' THEN p.request_number ELSE '' END,
        attempts = CASE WHEN p.kind = 'capture' THEN 1 ELSE m.attempts END,
        hold_state = CASE WHEN m.hold_state = 'held' THEN 'ended' ELSE m.hold_state END,
        parked_why = ''
    FROM plain p WHERE m.id = p.id
)
UPDATE settlement_call c SET state = 'POSTED', posted_at = %(now)s, lease_until = NULL
FROM plain p WHERE c.id = p.call
"""


async def close_plain(
    cur: AsyncCursor[Any], chain: str, region: str, now: datetime, provider: str, limit: int, trace: str
) -> int:
    """Book at most `limit` plain answers in the caller's transaction; returns how many. 0: none is left.

    `now` is business time; the entries carry the business date of each plan's owner.
    """
    await cur.execute(_LOCK_PLAIN, {"chain": chain, "region": region, "limit": limit})
    rows = await cur.fetchall()
    if not rows:
        return 0
    dates = await _dates(cur, {(row[4], row[5]) for row in rows}, now)
    await cur.execute(
        _BOOK,
        {
            "numbers": [row[0] for row in rows],
            "settled": [derived_id(row[0], "settled") if row[3] else "" for row in rows],
            "ended": [derived_id(row[1], "hold_ended") if row[2] else "" for row in rows],
            "placed": [derived_id(row[1], "hold_placed") if row[2] else "" for row in rows],
            "dates": [dates[row[4], row[5]] for row in rows],
            "clearing": f"provider_clearing:{provider}",
            "hold": f"hold:{provider}",
            "now": now,
            "trace": trace,
        },
    )
    return len(rows)


async def _dates(cur: AsyncCursor[Any], plans: set[tuple[str, int]], now: datetime) -> Mapping[tuple[str, int], str]:
    dates = {}
    for key in plans:
        plan = await load_plan(cur, *key)
        dates[key] = business_date(now, plan.zone, plan.cutoff_hour).isoformat()
    return dates
