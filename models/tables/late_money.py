"""Captures that failed by their answer, and of which a notification or a statement says that they were collected; and
those that never got a definite answer, though their membership went on without one."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from psycopg import AsyncCursor
from psycopg.types.json import Jsonb

from models.domain.notices import NoticeKind
from models.domain.payments import AnyAnswer, Succeeded, answer_document
from models.domain.settlement import Call
from models.tables.settlement import CALL_COLUMNS, call_from

# Captures' numbers begin with S; while a later attempt is on its way its answer comes first.
_DOUBTFUL = """
SELECT {columns} FROM settlement_call c JOIN membership m ON m.id = c.membership
WHERE c.request_number IN (
    SELECT n.number FROM provider_notice n WHERE n.received_at > %(since)s AND n.kind = ANY(%(kinds)s)
      AND n.number LIKE 'S%%'
    UNION ALL
    SELECT r.order_no FROM reconciliation_line r WHERE r.state = 'open' AND r.verdict = 'PROVIDER_ONLY'
      AND r.kind = 'payment' AND r.order_no LIKE 'S%%')
  AND c.chain = %(chain)s AND c.region = %(region)s AND c.kind = 'capture' AND c.state = 'POSTED'
  AND c.answer ->> 'answer' = 'failed' AND m.state IN ('DUNNING', 'WRITTEN_OFF', 'CLOSED')
ORDER BY c.request_number LIMIT %(limit)s
"""


async def doubtful_failures(
    cur: AsyncCursor[Any], chain: str, region: str, since: datetime, *, limit: int
) -> list[Call]:
    """Failed captures that a provider spoke of since then (wall time), or whose money stands in a statement."""
    kinds = [NoticeKind.PAYMENT.value, NoticeKind.SETTLEMENT.value]
    values = {"chain": chain, "region": region, "since": since, "kinds": kinds, "limit": limit}
    await cur.execute(_DOUBTFUL.format(columns=CALL_COLUMNS), values)
    return [call_from(row) for row in await cur.fetchall()]


# Nobody claims them any more: settlement asks only for memberships that wait for the answer.
_LEFT_OPEN = """
WITH open AS MATERIALIZED (
    SELECT c.ctid AS row, m.hold_no, m.captured_number, m.provider, m.hold_order
    FROM settlement_call c JOIN membership m ON m.id = c.membership
    WHERE c.chain = %(chain)s AND c.region = %(region)s AND c.kind = 'capture' AND c.state = 'UNKNOWN'
      AND m.state IN ('DUNNING', 'WRITTEN_OFF', 'CLOSED') AND (c.lease_until IS NULL OR c.lease_until <= %(wall_now)s)
    ORDER BY c.lease_until NULLS FIRST, c.request_number LIMIT %(limit)s FOR UPDATE OF c SKIP LOCKED
)
UPDATE settlement_call c SET tries = c.tries + 1, lease_until = %(again_at)s
FROM open m WHERE c.ctid = m.row
RETURNING {columns}
"""


async def claim_left_open(
    cur: AsyncCursor[Any], chain: str, region: str, wall_now: datetime, again_at: datetime, *, limit: int
) -> list[Call]:
    """Captures without a definite answer that nobody waits for; nobody else asks about them before `again_at` (wall
    time)."""
    values = {"chain": chain, "region": region, "wall_now": wall_now, "again_at": again_at, "limit": limit}
    await cur.execute(_LEFT_OPEN.format(columns=CALL_COLUMNS), values)
    return [call_from(row) for row in await cur.fetchall()]


async def save_late_answer(cur: AsyncCursor[Any], call: Call, answer: AnyAnswer, now: datetime) -> bool:
    """A definite answer to one of them. A success is booked by settlement next; a failure changes nothing any more.

    False: somebody else was faster, or the membership waits for it again.
    """
    await cur.execute("SELECT state FROM membership WHERE id = %s FOR UPDATE", (call.membership,))
    row = await cur.fetchone()
    if row is None or row[0] not in ("DUNNING", "WRITTEN_OFF", "CLOSED"):
        return False
    collected = isinstance(answer, Succeeded)
    await cur.execute(
        "UPDATE settlement_call SET state = %s, answer = %s, answered_at = %s, posted_at = %s, lease_until = NULL"
        " WHERE request_number = %s AND state = 'UNKNOWN'",
        (
            "ANSWERED" if collected else "POSTED", Jsonb(answer_document(answer)), now, None if collected else now,
            call.number,
        ),
    )  # fmt: skip
    if not cur.rowcount:
        return False
    if collected:
        await _no_more_attempts(cur, call.membership, now)
    return True


async def collected_after_all(cur: AsyncCursor[Any], call: Call, answer: AnyAnswer, now: datetime) -> bool:
    """The provider has the money of a call that had failed: settlement books it next. False: no longer so.

    In the caller's transaction. An attempt that was waiting for its day is not made any more.
    """
    await cur.execute("SELECT state FROM membership WHERE id = %s FOR UPDATE", (call.membership,))
    row = await cur.fetchone()
    if row is None or row[0] not in ("DUNNING", "WRITTEN_OFF", "CLOSED"):
        return False
    await cur.execute(
        "UPDATE settlement_call SET state = 'ANSWERED', answer = %s, answered_at = %s, posted_at = NULL"
        " WHERE request_number = %s AND state = 'POSTED' AND answer ->> 'answer' = 'failed'",
        (Jsonb(answer_document(answer)), now, call.number),
    )
    if not cur.rowcount:
        return False
    await _no_more_attempts(cur, call.membership, now)
    return True


async def _no_more_attempts(cur: AsyncCursor[Any], membership: str, now: datetime) -> None:
    """An attempt that was waiting for its day is not made any more."""
    await cur.execute(
        "UPDATE settlement_call SET state = 'POSTED', posted_at = %s WHERE membership = %s AND kind = 'capture'"
        " AND state = 'NEW'",
        (now, membership),
    )
