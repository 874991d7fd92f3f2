"""A million statement lines: fetched lines kept and matched by the verbs, against the same rows by one bare join."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import date, timedelta
from statistics import median
from typing import Any

from psycopg import AsyncConnection
from psycopg_pool import AsyncConnectionPool

from gateway.providers.port import Statements
from models.domain.ids import LegalEntityId
from models.tables.reconciliation import Account, as_copied
from runtime.reconciling import Reconciler
from runtime.testing.planted_sales import PlantedDay

DAY = date(2026, 3, 1)
TARGET_S = 60.0
PROVIDER, ENTITY, STORE = "alipay", "chain", "bench-store"

_BARE_TABLE = (
    "CREATE TEMPORARY TABLE bare (file int, n int, kind text, order_no text, request_no text, trade_no text,"
    " gross_fen bigint, receipt_fen bigint, fee_fen bigint, at timestamptz) ON COMMIT DROP"
)
# Each line finds its sale's entry, and nothing else is asked.
_BARE_JOIN = (
    "SELECT count(*) FROM bare b JOIN sale s ON s.tenders -> 0 ->> 'order' = b.order_no"
    " JOIN txn t ON t.request_number = s.id AND t.kind = 'sale_paid' JOIN entry e ON e.txn = t.id"
    " WHERE e.account = %s AND e.business_date = %s AND e.amount_fen = b.receipt_fen"
)


@dataclass(frozen=True, slots=True)
class ReconcileFigures:
    """Medians of interleaved repetitions, in seconds. `lines` of one day each."""

    lines: int
    kept_s: float
    matched_s: float
    bare_copy_s: float
    bare_join_s: float

    @property
    def total_s(self) -> float:
        """From the provider's lines to a day that may close."""
        return self.kept_s + self.matched_s

    @property
    def ratio(self) -> float:
        """The bare limit's share of it: 1 would be as fast as a COPY and a join."""
        return (self.bare_copy_s + self.bare_join_s) / self.total_s


async def measure(
    database_url: str, lines: int = 1_000_000, repetitions: int = 3, progress: Callable[[str], None] = lambda _: None
) -> ReconcileFigures:
    """Plant a day of `lines` sales in a migrated, empty database; keep and match its statement `repetitions` times."""
    day = PlantedDay(PROVIDER, ENTITY, STORE, DAY, lines)
    account = Account(PROVIDER, ENTITY)
    kept, matched, copied, joined = [], [], [], []
    async with AsyncConnectionPool[AsyncConnection[Any]](database_url, min_size=1, open=False) as pool:
        progress(f"planting {lines:,} sales")
        async with pool.connection() as conn, conn.cursor() as cur:
            await day.plant(cur)
        async with await AsyncConnection.connect(database_url, autocommit=True) as conn:
            await conn.execute("VACUUM ANALYZE")
        reconciler = Reconciler(pool, _nobody)
        for n in range(repetitions):
            progress(f"repetition {n + 1} of {repetitions}")
            began = time.perf_counter()
            await reconciler.keep(day.file())
            kept.append(time.perf_counter() - began)
            began = time.perf_counter()
            run = await reconciler.run(account, DAY, DAY + timedelta(days=1))
            matched.append(time.perf_counter() - began)
            assert (run.matched, run.difference_fen) == (lines, 0), run
            copy_s, join_s = await _bare(pool, day)
            copied.append(copy_s)
            joined.append(join_s)
    return ReconcileFigures(lines, median(kept), median(matched), median(copied), median(joined))


async def _bare(pool: AsyncConnectionPool[AsyncConnection[Any]], day: PlantedDay) -> tuple[float, float]:
    async with pool.connection() as conn, conn.cursor() as cur:
        await cur.execute("SET LOCAL work_mem = '128MB'")
        await cur.execute(_BARE_TABLE)
        lines = list(day.lines())
        began = time.perf_counter()
        async with cur.copy("COPY bare FROM STDIN") as copy:
            for n in range(0, len(lines), 5_000):
                await copy.write(as_copied(1, n, lines[n : n + 5_000]))
        copy_s = time.perf_counter() - began
        began = time.perf_counter()
        await cur.execute("SET LOCAL enable_nestloop = off")
        await cur.execute(_BARE_JOIN, (f"provider_clearing:{day.provider}", day.day.isoformat()))
        assert await cur.fetchone() == (day.count,)
        return copy_s, time.perf_counter() - began


def _nobody(_provider: str, _entity: LegalEntityId) -> Statements:
    raise AssertionError("no provider is asked here")
