"""Captures that failed by their answer, and of which a notification or a statement says that they were collected."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from psycopg import AsyncCursor
from psycopg.types.json import Jsonb

from models.domain.notices import NoticeKind
from models.domain.payments import AnyAnswer, answer_document
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
    await cur.execute(
        "UPDATE settlement_call SET state = 'POSTED', posted_at = %s WHERE membership = %s AND kind = 'capture'"
        " AND state = 'NEW'",
        (now, call.membership),
    )
    return True
