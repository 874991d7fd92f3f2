"""Sales in the books as if they had been made, set-wise, and the provider's statement that goes with them.

For benchmarks and tests of reconciliation: only what it reads is filled in. The n-th sale took `amount_fen(n)` under
the order `order_of(seed, n)`.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from typing import Any

from psycopg import AsyncCursor

from models.domain.reconciliation import LineKind, StatementFile, StatementLine, StatementTotals

_PLANT = """
WITH made AS (
    SELECT md5(%(seed)s || 's' || i)::uuid::text AS id, 'P' || md5(%(seed)s || 'o' || i) AS number, i,
           100 + i %% 9901 AS fen
    FROM generate_series(0, %(count)s - 1) AS i
), sales AS (
    INSERT INTO sale (id, receipt, session, store, lane, terminal, entity, business_date, at, gross_fen, discount_fen,
                      due_fen, rounding_fen, suspense_fen, agency_fen, lines, tenders, uses, till_txn)
    SELECT id, %(seed)s || i, '', %(store)s, 'lane-1', 't-1', %(entity)s, %(day)s, %(at)s, fen, 0, fen, 0, 0, 0, '[]',
           jsonb_build_array(jsonb_build_object('kind', 'code', 'fen', fen, 'order', number, 'trade_no', 'T' || i)),
           '[]', ''
    FROM made
), txns AS (
    INSERT INTO txn (id, kind, request_number, memo, trace, booked_at)
    SELECT md5(id || 'sale_paid')::uuid::text, 'sale_paid', id, '', '', %(at)s FROM made
)
INSERT INTO entry (txn, leg, entity, account, amount_fen, business_date, book)
SELECT md5(id || 'sale_paid')::uuid::text, l.leg, %(entity)s, l.account, l.fen, %(day)s, 'posted'
FROM made, LATERAL (VALUES (0, %(clearing)s, fen), (1, 'sales_gross:' || %(store)s, -fen)) AS l(leg, account, fen)
"""


@dataclass(frozen=True, slots=True)
class PlantedDay:
    """So many sales of one account on one day."""

    provider: str
    entity: str
    store: str
    day: date
    count: int
    seed: str = "x"

    async def plant(self, cur: AsyncCursor[Any]) -> None:
        """Write sales, transactions and entries, in the caller's transaction."""
        await cur.execute(
            _PLANT,
            {
                "seed": self.seed,
                "count": self.count,
                "store": self.store,
                "entity": self.entity,
                "day": self.day.isoformat(),
                "at": self._noon(),
                "clearing": f"provider_clearing:{self.provider}",
            },
        )

    def lines(self) -> Iterator[StatementLine]:
        """What the provider says of them: the same."""
        at = self._noon()
        for n in range(self.count):
            fen = amount_fen(n)
            yield StatementLine(
                self.provider,
                self.entity,
                LineKind.PAYMENT,
                order_of(self.seed, n),
                "",
                f"T{n}",
                fen,
                fen,
                0,
                at + timedelta(milliseconds=n),
                self.day,
            )

    def file(self) -> StatementFile:
        """The statement of the day; its lines are made while they are read."""
        total_fen = sum(amount_fen(n) for n in range(self.count))
        totals = StatementTotals(self.count, 0, total_fen, 0, 0)
        return StatementFile(self.provider, self.entity, self.day, totals, _Again(self))

    def _noon(self) -> datetime:
        return datetime(self.day.year, self.day.month, self.day.day, 4, tzinfo=UTC)


@dataclass(frozen=True, slots=True)
class _Again:
    day: PlantedDay

    def __iter__(self) -> Iterator[StatementLine]:
        return self.day.lines()


def amount_fen(n: int) -> int:
    """1.00 to 100.00, in turn."""
    return 100 + n % 9901


def order_of(seed: str, n: int) -> str:
    """Our number of the n-th sale's payment."""
    return "P" + hashlib.md5(f"{seed}o{n}".encode(), usedforsecurity=False).hexdigest()
