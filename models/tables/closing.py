"""The closing commit of the common case, by one statement for a whole chunk.

Most answers say just what was asked: a first capture took the due, a hold with nothing to take was given back. These
are booked here, set-wise, together with the answer that says so; whatever differs in any way becomes or stays ANSWERED
for `actors.settlement.book_answer`, which decides it one by one. Both write the same rows to the last column
(tests/integration/test_closing.py): the rule lives there, and this file only repeats its plainest branch, without a
value object and its arrays for every leg.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

import msgspec
from psycopg import AsyncCursor

from models.domain.calendar import business_date
from models.domain.ids import derived_ids
from models.domain.payments import AnyAnswer, PayResult, ProviderResult, ReleaseResult, Succeeded
from models.domain.settlement import Call, CallKind
from models.tables.plans import load_plan
from models.tables.settlement import BY_PLACE

# Of the memberships: a first attempt that captured exactly what is due now and is not shared out among stores as fee
# income; or a release of a hold under a charge of 0. A membership has one such call at most: a second call of it
# exists only after this one was booked.
_LOCK_PLAIN = """
SELECT c.request_number, m.hold_order, m.hold_state = 'held' AND m.hold_fen > 0, c.kind = 'capture', m.plan,
       m.plan_version, c.ctid::text, m.ctid::text
FROM settlement_call c JOIN membership m ON m.id = c.membership JOIN plan p ON p.id = m.plan
     AND p.version = m.plan_version
WHERE {which}
  AND m.captured_number = '' AND m.receivable_fen = 0 AND m.refunded_fen = 0
  AND (c.kind = 'capture' AND c.attempt = 0 AND m.state IN ('SETTLING', 'UNKNOWN')
         AND c.fen = least(m.charge_fen, m.fee_eff_fen, m.used_fen)
         AND (m.branch = 'FEE' AND coalesce(p.doc->>'fee_shares', 'owner') = 'owner'
           OR m.branch = 'CLAWBACK' AND c.fen = (
             SELECT coalesce(sum(u.fen - u.reversed_fen), 0) FROM usage u
             WHERE u.membership = m.id AND u.class = 'REGULAR'))
       OR c.kind = 'release' AND m.state = 'SETTLING' AND m.charge_fen = 0 AND m.attempts = 0
         AND m.hold_state = 'held')
"""
_ANSWERED = """c.chain = %(chain)s AND c.region = %(region)s AND c.state = 'ANSWERED'
  AND c.answer->>'answer' = 'succeeded' AND (c.kind = 'release' AND c.answer->>'kind' = 'release'
    OR c.kind = 'capture' AND c.answer->>'kind' = 'pay' AND c.answer->>'total_fen' = c.fen::text)"""
_LOCK_ANSWERED = (
    _LOCK_PLAIN.format(which=_ANSWERED) + " ORDER BY c.not_before, c.request_number LIMIT %(limit)s"
    " FOR UPDATE OF m, c SKIP LOCKED"
)
# Whoever else booked it meanwhile was faster: its row is POSTED then.
_ASKED = "c.request_number = ANY(%(numbers)s::text[]) AND c.state IN ('NEW', 'UNKNOWN')"
_LOCK_ASKED = _LOCK_PLAIN.format(which=_ASKED) + " ORDER BY c.request_number FOR UPDATE OF m, c"

# The rows were locked by the statement before, so this one's snapshot is what that one saw, and they are found by their
# places. A transaction that is booked already breaks a unique index, and the chunk with it: that is decided one by one.
_BOOK = """
WITH posted AS (
    UPDATE settlement_call c SET state = 'POSTED', posted_at = %(now)s, lease_until = NULL,
        answer = coalesce(g.answer, c.answer),
        answered_at = CASE WHEN g.answer IS NULL THEN c.answered_at ELSE %(now)s END
    FROM unnest(%(calls)s::tid[], %(memberships)s::tid[], %(settled)s::text[], %(ended)s::text[], %(placed)s::text[],
                %(dates)s::text[], %(answers)s::jsonb[])
        AS g(call, membership, settled_id, ended_id, placed_id, date, answer)
    WHERE c.ctid = g.call
    RETURNING g.membership AS row, g.settled_id, g.ended_id, g.placed_id, g.date, c.request_number, c.kind, c.fen
), plain AS (
    UPDATE membership m SET state = 'CLOSED',
        paid_fen = CASE WHEN p.kind = 'capture' THEN p.fen ELSE m.paid_fen END,
        captured_number = CASE WHEN p.kind = 'capture' THEN p.request_number ELSE '' END,
        attempts = CASE WHEN p.kind = 'capture' THEN 1 ELSE m.attempts END,
        hold_state = CASE WHEN m.hold_state = 'held' THEN 'ended' ELSE m.hold_state END,
        parked_why = ''
    FROM posted p WHERE m.ctid = p.row
    RETURNING p.settled_id, p.ended_id, p.placed_id, p.date, p.request_number, p.kind, p.fen, m.id, m.owner, m.branch,
              m.hold_order, m.hold_fen, 'provider_clearing:' || m.provider AS clearing, 'hold:' || m.provider AS hold
), txns AS (
    INSERT INTO txn (id, kind, request_number, memo, refers_to, trace, booked_at)
    SELECT settled_id, 'settled', request_number, id, NULL, %(trace)s, %(now)s FROM plain WHERE kind = 'capture'
    UNION ALL
    SELECT ended_id, 'hold_ended', hold_order, '', placed_id, %(trace)s, %(now)s FROM plain WHERE ended_id <> ''
), shares AS (
    SELECT p.settled_id, p.owner, p.clearing, p.date, u.store, u.entity, sum(u.fen - u.reversed_fen)::bigint AS fen,
           coalesce(sum(CASE WHEN u.entity = p.owner THEN 2 ELSE 4 END) OVER (
               PARTITION BY p.settled_id ORDER BY u.store, u.entity ROWS BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING
           ), 0) AS leg
    FROM plain p JOIN usage u ON u.membership = p.id AND u.class = 'REGULAR'
    WHERE p.kind = 'capture' AND p.branch = 'CLAWBACK'
    GROUP BY p.settled_id, p.owner, p.clearing, p.date, u.store, u.entity HAVING sum(u.fen - u.reversed_fen) > 0
)
INSERT INTO entry (txn, leg, entity, account, amount_fen, business_date, book)
SELECT e.txn, e.leg, e.entity, e.account, e.fen, CASE WHEN c.day >= e.date THEN c.next_day ELSE e.date END, e.book
FROM (
SELECT settled_id, l.leg, owner, l.account, l.fen, date, 'posted'
FROM plain, LATERAL (VALUES (0, clearing, fen), (1, 'membership_fee_income', -fen)) AS l(leg, account, fen)
WHERE kind = 'capture' AND branch = 'FEE'
UNION ALL
SELECT settled_id, s.leg + l.leg, l.entity, l.account, l.fen, date, 'posted'
FROM shares s, LATERAL (
    SELECT * FROM (VALUES (0, owner, clearing, fen), (1, owner, 'discount_given:' || store, -fen))
        AS own(leg, entity, account, fen) WHERE s.entity = s.owner
    UNION ALL
    SELECT * FROM (VALUES (0, owner, clearing, fen), (1, owner, 'due_to:' || s.entity, -fen),
                          (2, s.entity, 'due_from:' || owner, fen), (3, s.entity, 'discount_given:' || store, -fen))
        AS theirs(leg, entity, account, fen) WHERE s.entity <> s.owner
) AS l
UNION ALL
SELECT ended_id, l.leg, owner, l.account, l.fen, date, 'pending'
FROM plain, LATERAL (VALUES (0, hold, -hold_fen), (1, 'hold_contra', hold_fen)) AS l(leg, account, fen)
WHERE ended_id <> ''
) AS e(txn, leg, entity, account, fen, date, book) LEFT JOIN closed_through c ON c.entity = e.entity
"""


async def close_plain(cur: AsyncCursor[Any], chain: str, region: str, now: datetime, limit: int, trace: str) -> int:
    """Book at most `limit` plain answers that stand in their rows; returns how many. 0: none is left.

    In the caller's transaction. `now` is business time; the entries carry the business date of each plan's owner, or
    the first open one of their entity where that day is closed.
    Raises psycopg's UniqueViolation when a part was booked before: nothing of the chunk is, decide it one by one.
    """
    await cur.execute(BY_PLACE)
    await cur.execute(_LOCK_ANSWERED, {"chain": chain, "region": region, "limit": limit})
    rows = await cur.fetchall()
    await _book(cur, rows, {}, now, trace)
    return len(rows)


async def close_asked(
    cur: AsyncCursor[Any], answers: Sequence[tuple[Call, AnyAnswer]], now: datetime, trace: str
) -> set[str]:
    """Book those of these answers that are plain, answer and entries in one commit; returns their numbers.

    As `close_plain`, for calls that the caller has claimed and asked; the others are the caller's to keep.
    """
    plain = {
        call.number: _as_json(answer.result)
        for call, answer in answers
        if isinstance(answer, Succeeded) and _as_asked(call, answer.result)
    }
    if not plain:
        return set()
    await cur.execute(BY_PLACE)
    await cur.execute(_LOCK_ASKED, {"numbers": list(plain)})
    rows = await cur.fetchall()
    await _book(cur, rows, plain, now, trace)
    return {row[0] for row in rows}


def _as_asked(call: Call, result: ProviderResult) -> bool:
    if call.kind is CallKind.RELEASE:
        return isinstance(result, ReleaseResult)
    plain = call.kind is CallKind.CAPTURE and call.attempt == 0
    return plain and isinstance(result, PayResult) and result.total_fen == call.fen


def _as_json(result: ProviderResult) -> str:
    """The document that `answer_document` makes of its success, without copying it field by field."""
    kind = "pay" if isinstance(result, PayResult) else "release"
    return f'{{"answer":"succeeded","kind":"{kind}",{msgspec.json.encode(result)[1:].decode()}'


async def _book(
    cur: AsyncCursor[Any],
    rows: Sequence[tuple[Any, ...]],
    answers: Mapping[str, str],
    now: datetime,
    trace: str,
) -> None:
    if not rows:
        return
    dates = await _dates(cur, {(row[4], row[5]) for row in rows}, now)
    holds = [derived_ids(row[1], ("hold_ended", "hold_placed")) if row[2] else ("", "") for row in rows]
    await cur.execute(
        _BOOK,
        {
            "calls": [row[6] for row in rows],
            "memberships": [row[7] for row in rows],
            "settled": [derived_ids(row[0], ("settled",))[0] if row[3] else "" for row in rows],
            "ended": [ended for ended, _ in holds],
            "placed": [placed for _, placed in holds],
            "dates": [dates[row[4], row[5]] for row in rows],
            "answers": [answers.get(row[0]) for row in rows],
            "now": now,
            "trace": trace,
        },
    )


async def _dates(cur: AsyncCursor[Any], plans: set[tuple[str, int]], now: datetime) -> Mapping[tuple[str, int], str]:
    dates = {}
    for key in plans:
        plan = await load_plan(cur, *key)
        dates[key] = business_date(now, plan.zone, plan.cutoff_hour).isoformat()
    return dates
