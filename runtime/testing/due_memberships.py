"""Memberships that are due, planted as rows: what a year of enrolments and uses leaves behind, without living it.

For benchmarks and for tests that compare two ways of settling the same rows. Seeded: the same numbers, the same rows.
Usage lines and u agree, holds are booked in the ledger as an enrolment books them.
"""

from __future__ import annotations

from datetime import datetime
from typing import Any

from psycopg import AsyncCursor

from models.domain.calendar import business_date
from models.domain.ledger import hold_placed
from models.tables.ledger import insert_transactions
from models.tables.plans import load_plan

BOOKED_AT_ONCE = 5_000

# Of ten memberships: 2 never used (one admitted on credit, one with a hold), 3 used less than the fee (own store,
# franchised store, both), 5 used it up. `h` is a hash of seed and number: nothing in here is random.
_PLANT = """
WITH numbered AS (
    SELECT n, md5(%(seed)s || ':' || %(region)s || ':' || n) AS h, n %% 10 AS k FROM generate_series(1, %(count)s) AS n
), planted AS (
    SELECT n, k, substr(h, 1, 8) || '-' || substr(h, 9, 4) || '-5' || substr(h, 14, 3) || '-8' || substr(h, 18, 3)
            || '-' || substr(h, 21, 12) AS id,
        CASE WHEN k < 2 THEN 0 WHEN k < 4 THEN 1 + (('x' || substr(h, 1, 4))::bit(16)::int %% 899) WHEN k = 4 THEN 700
             ELSE 1600 END AS used,
        CASE WHEN k = 0 THEN 0 ELSE 1000 END AS hold
    FROM numbered
), members AS (
    INSERT INTO member (id, chain, region, home_store, name, phone_sha256, phone_tail, provider_user, joined_at)
    SELECT 'm-' || id, %(chain)s, %(region)s, %(own)s, '', id, lpad((n %% 10000)::text, 4, '0'), id, %(enrolled_at)s
    FROM planted
), memberships AS (
    INSERT INTO membership (id, enrol_key, member, chain, region, store, terminal, session, plan, plan_version, owner,
        generation, state, fee_fen, fee_eff_fen, used_fen, guarantee, hold_order, hold_no, hold_fen, hold_state,
        enrolled_at, expires_at, cutoff_at, cancelled_by, paid_fen, refunded_fen, receivable_fen, captured_number,
        attempts, parked_why)
    SELECT id, 'e-' || id, 'm-' || id, %(chain)s, %(region)s, %(own)s, 't-1', '', %(plan)s, 1, %(owner)s,
        1, 'ACTIVE', 1000, 1000, used, CASE WHEN hold = 0 THEN 'sesame_credit' ELSE 'huabei_hold' END,
        CASE WHEN hold = 0 THEN '' ELSE 'H' || id END, CASE WHEN hold = 0 THEN '' ELSE 'A' || id END, hold,
        CASE WHEN hold = 0 THEN 'none' ELSE 'held' END, %(enrolled_at)s, %(expires_at)s, %(cutoff_at)s, '',
        0, 0, 0, '', 0, ''
    FROM planted
)
INSERT INTO usage (id, membership, benefit, fen, class, paid_fen, reversed_fen, biz_time, received_at, entity, store,
                   terminal, sale, seq)
SELECT u.part || '-' || p.id, p.id, 'coupon8', u.fen, 'REGULAR', 1200, 0, %(enrolled_at)s, %(enrolled_at)s, u.entity,
       u.store, 't-1', 's' || u.part || '-' || p.id, n
FROM planted p, LATERAL (
    SELECT * FROM (VALUES
        (1, CASE WHEN k = 4 THEN 300 WHEN k >= 5 THEN 800 WHEN k = 2 THEN used ELSE 0 END, %(owner)s, %(own)s),
        (2, CASE WHEN k = 4 THEN 400 WHEN k >= 5 THEN 800 WHEN k = 3 THEN used ELSE 0 END, %(other)s, %(franchised)s)
    ) AS parts(part, fen, entity, store) WHERE fen > 0
) AS u
"""

ANSWER_ALL = """
UPDATE settlement_call c SET state = 'ANSWERED', tries = 1, answered_at = %(now)s, answer = CASE c.kind
    WHEN 'capture' THEN jsonb_build_object('answer', 'succeeded', 'kind', 'pay', 'total_fen', c.fen,
        'payer_fen', c.fen, 'receipt_fen', c.fen, 'invoiceable_fen', c.fen,
        'funding', '[]'::jsonb, 'provider_trade_no', 'T' || c.request_number)
    ELSE jsonb_build_object('answer', 'succeeded', 'kind', 'release', 'hold_no', m.hold_no, 'released_fen', c.fen) END
FROM membership m WHERE m.id = c.membership AND c.chain = %(chain)s AND c.region = %(region)s AND c.state = 'NEW'
"""
"""Every open call succeeds, as if a provider had said so: for what is measured or compared without one."""


async def plant_due(
    cur: AsyncCursor[Any],
    *,
    chain: str,
    region: str,
    plan: str,
    owner: str,
    own_store: str,
    other_entity: str,
    other_store: str,
    count: int,
    seed: str,
    enrolled_at: datetime,
    expires_at: datetime,
    cutoff_at: datetime,
    holds_booked: bool = True,
) -> int:
    """`count` ACTIVE memberships of a fee of 10.00 in one region; returns the number of usage lines.

    `holds_booked` False leaves the ledger empty: of a million rows it is most of the time, and settling reads none.
    """
    await cur.execute(
        _PLANT,
        {
            "chain": chain,
            "region": region,
            "plan": plan,
            "owner": owner,
            "own": own_store,
            "other": other_entity,
            "franchised": other_store,
            "count": count,
            "seed": seed,
            "enrolled_at": enrolled_at,
            "expires_at": expires_at,
            "cutoff_at": cutoff_at,
        },
    )
    lines = cur.rowcount
    if holds_booked:
        await _book_holds(cur, chain, region, plan, enrolled_at)
    return lines


async def _book_holds(cur: AsyncCursor[Any], chain: str, region: str, plan_id: str, enrolled_at: datetime) -> None:
    plan = await load_plan(cur, plan_id, 1)
    date = business_date(enrolled_at, plan.zone, plan.cutoff_hour).isoformat()
    await cur.execute(
        "SELECT hold_order, owner, provider, hold_fen FROM membership"
        " WHERE chain = %s AND region = %s AND hold_state = 'held' ORDER BY id",
        (chain, region),
    )
    placed = [
        hold_placed(order, entity=owner, provider=provider, hold_fen=fen, business_date=date)
        for order, owner, provider, fen in await cur.fetchall()
    ]
    for first in range(0, len(placed), BOOKED_AT_ONCE):
        await insert_transactions(cur, placed[first : first + BOOKED_AT_ONCE], enrolled_at)
