"""Control totals of a settlement batch, and shares of stores: what only reads."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from psycopg import AsyncCursor

from models.domain.ids import LegalEntityId, StoreId
from models.domain.ledger import Place, StoreShare

_SHARES = """
SELECT membership, store, entity, sum(fen - reversed_fen)::bigint FROM usage
WHERE membership = ANY(%s) AND class = 'REGULAR' GROUP BY membership, store, entity
HAVING sum(fen - reversed_fen) > 0 ORDER BY membership, store, entity
"""

# The same amounts twice: from the rows that settlement moves, and from the entries that it booked for them.
_TOTALS = """
WITH batch AS (
    SELECT id, owner, charge_fen, paid_fen + refunded_fen AS captured_fen, receivable_fen, captured_number, state
    FROM membership WHERE chain = %(chain)s AND region = %(region)s
      AND settled_at BETWEEN %(since)s AND %(at)s
), booked AS (
    SELECT t.kind, e.leg, e.account, e.amount_fen
    FROM batch b JOIN settlement_call c ON c.membership = b.id AND c.kind = 'capture'
    JOIN txn t ON t.request_number = c.request_number
        AND t.kind IN ('settled', 'capture_failed', 'receivable_collected', 'written_off')
    JOIN entry e ON e.txn = t.id AND e.book = 'posted'
    UNION ALL
    SELECT t.kind, e.leg, e.account, e.amount_fen
    FROM batch b JOIN usage u ON u.membership = b.id JOIN usage_reversal r ON r.usage = u.id
    JOIN txn t ON t.request_number = r.id AND t.kind = 'due_reduced'
    JOIN entry e ON e.txn = t.id AND e.book = 'posted'
), rows AS (
    SELECT count(*) AS memberships,
        count(*) FILTER (WHERE charge_fen > 0) AS charges,
        coalesce(sum(charge_fen), 0) AS charge_fen,
        count(*) FILTER (WHERE captured_number <> '') AS posted,
        coalesce(sum(charge_fen) FILTER (WHERE captured_number <> ''), 0) AS posted_charge_fen,
        coalesce(sum(captured_fen), 0) AS captured_fen,
        count(*) FILTER (WHERE charge_fen > 0 AND captured_number = '' AND state = 'WRITTEN_OFF') AS written_off,
        coalesce(sum(charge_fen) FILTER (WHERE captured_number = '' AND state = 'WRITTEN_OFF'), 0)
            AS written_off_charge_fen,
        coalesce(sum(receivable_fen) FILTER (WHERE state = 'WRITTEN_OFF'), 0) AS bad_debt_fen,
        count(*) FILTER (WHERE charge_fen > 0 AND captured_number = '' AND receivable_fen > 0
            AND state <> 'WRITTEN_OFF') AS dunning,
        coalesce(sum(charge_fen) FILTER (WHERE captured_number = '' AND receivable_fen > 0
            AND state <> 'WRITTEN_OFF'), 0) AS dunning_charge_fen,
        coalesce(sum(receivable_fen) FILTER (WHERE state <> 'WRITTEN_OFF'), 0) AS receivable_fen,
        count(*) FILTER (WHERE charge_fen > 0 AND captured_number = '' AND receivable_fen = 0
            AND state IN ('CLOSED', 'DUNNING')) AS reversed,
        coalesce(sum(charge_fen) FILTER (WHERE captured_number = '' AND receivable_fen = 0
            AND state IN ('CLOSED', 'DUNNING')), 0) AS reversed_charge_fen,
        count(*) FILTER (WHERE charge_fen > 0 AND captured_number = '' AND receivable_fen = 0
            AND state NOT IN ('CLOSED', 'DUNNING', 'WRITTEN_OFF')) AS open,
        coalesce(sum(charge_fen) FILTER (WHERE captured_number = '' AND receivable_fen = 0
            AND state NOT IN ('CLOSED', 'DUNNING', 'WRITTEN_OFF')), 0) AS open_charge_fen
    FROM batch
), entries AS (
    SELECT count(*) FILTER (WHERE leg = 0 AND kind IN ('settled', 'receivable_collected')) AS booked_posted,
        coalesce(sum(amount_fen) FILTER (WHERE starts_with(account, 'provider_clearing:')), 0) AS booked_captured_fen,
        coalesce(sum(amount_fen) FILTER (WHERE account = 'member_receivable'), 0) AS booked_receivable_fen,
        coalesce(sum(amount_fen) FILTER (WHERE account = 'bad_debt'), 0) AS booked_bad_debt_fen
    FROM booked
)
SELECT memberships, charges, charge_fen::bigint, posted, posted_charge_fen::bigint, captured_fen::bigint,
    dunning, dunning_charge_fen::bigint, receivable_fen::bigint, written_off, written_off_charge_fen::bigint,
    bad_debt_fen::bigint, reversed, reversed_charge_fen::bigint, open, open_charge_fen::bigint,
    booked_posted, booked_captured_fen::bigint, booked_receivable_fen::bigint, booked_bad_debt_fen::bigint
FROM rows, entries
"""


@dataclass(frozen=True, slots=True)
class ControlTotals:
    """A batch: the memberships whose charge was fixed at one instant, or on one business date, as they stand now.

    Every charge is posted (captured), in dunning, written off, taken back by reversals before any capture, or open
    (no definite answer yet). `…_charge_fen` sums charges; the rest sums what was captured or is owed. `booked_…` is
    the same from the ledger's entries.
    """

    memberships: int
    charges: int
    charge_fen: int
    posted: int
    posted_charge_fen: int
    captured_fen: int
    dunning: int
    dunning_charge_fen: int
    receivable_fen: int
    written_off: int
    written_off_charge_fen: int
    bad_debt_fen: int
    reversed: int
    reversed_charge_fen: int
    open: int
    open_charge_fen: int
    booked_posted: int
    booked_captured_fen: int
    booked_receivable_fen: int
    booked_bad_debt_fen: int

    @property
    def agree(self) -> bool:
        """charges = posted + dunning + written off + reversed + open, in number and fen, and the ledger says so."""
        ends = self.posted + self.dunning + self.written_off + self.reversed + self.open
        ends_fen = (
            self.posted_charge_fen
            + self.dunning_charge_fen
            + self.written_off_charge_fen
            + self.reversed_charge_fen
            + self.open_charge_fen
        )
        rows = (self.charges, self.charge_fen, self.posted, self.captured_fen, self.receivable_fen, self.bad_debt_fen)
        booked = (
            ends,
            ends_fen,
            self.booked_posted,
            self.booked_captured_fen,
            self.booked_receivable_fen,
            self.booked_bad_debt_fen,
        )
        return rows == booked


async def control_totals(
    cur: AsyncCursor[Any], chain: str, region: str, batch_at: datetime, since: datetime | None = None
) -> ControlTotals:
    """The totals of the batch that was cut off at business time `batch_at`, in one snapshot.

    With `since`, of everything that was cut off from then on, however many runs that took.
    """
    await cur.execute("SET LOCAL work_mem = '64MB'")  # a day of a region is joined in memory
    await cur.execute(_TOTALS, {"chain": chain, "region": region, "at": batch_at, "since": since or batch_at})
    row = await cur.fetchone()
    assert row is not None
    return ControlTotals(*row)


async def cut_off_earlier(cur: AsyncCursor[Any], chain: str, region: str, since: datetime, batch_at: datetime) -> bool:
    """True when another batch than that of `batch_at` was cut off from `since` on."""
    await cur.execute(
        "SELECT EXISTS (SELECT 1 FROM membership WHERE chain = %s AND region = %s AND settled_at >= %s"
        " AND settled_at < %s)",
        (chain, region, since, batch_at),
    )
    row = await cur.fetchone()
    assert row is not None
    return bool(row[0])


async def shares_of(cur: AsyncCursor[Any], memberships: Sequence[str]) -> dict[str, tuple[StoreShare, ...]]:
    """b_i of each membership: REGULAR uses net of reversals by store and its entity, largest ids last."""
    shares: dict[str, list[StoreShare]] = {}
    if memberships:
        await cur.execute(_SHARES, (list(memberships),))
        for membership, store, entity, fen in await cur.fetchall():
            shares.setdefault(membership, []).append(StoreShare(Place(StoreId(store), LegalEntityId(entity)), fen))
    return {membership: tuple(parts) for membership, parts in shares.items()}


_FEE_RECEIVED = """
SELECT substr(e.account, length('membership_fee_income:') + 1) AS store, e.entity, -sum(e.amount_fen)::bigint
FROM entry e JOIN txn t ON t.id = e.txn
WHERE starts_with(e.account, 'membership_fee_income:') AND t.request_number IN (
    SELECT request_number FROM settlement_call WHERE membership = %(id)s
    UNION ALL
    SELECT r.id FROM usage u JOIN usage_reversal r ON r.usage = u.id WHERE u.membership = %(id)s)
GROUP BY store, e.entity HAVING sum(e.amount_fen) < 0 ORDER BY store, e.entity
"""


async def fee_received(cur: AsyncCursor[Any], membership: str) -> tuple[StoreShare, ...]:
    """What each store has, as the ledger says, of the fee that a membership was charged; nothing where the owner has
    it all.
    """
    await cur.execute(_FEE_RECEIVED, {"id": membership})
    return tuple(
        StoreShare(Place(StoreId(store), LegalEntityId(entity)), fen) for store, entity, fen in await cur.fetchall()
    )
