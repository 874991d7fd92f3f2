"""Counts of stores by business day, for whoever judges a stage: a statement for each metric of evidence_metrics.

Every store has a row for every business date on which it was open, with zeros where nothing happened. Sales count on
their business date; what has an instant only, on the date that the store's zone and cutoff give it.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from datetime import date, timedelta
from typing import Any

from psycopg import AsyncConnection

from models.domain.evidence import WINDOW_DAYS_MAX, Arm, DayCount, MetricId, StoreSample
from models.domain.facts import UNCLEAR_MONEY
from models.domain.ids import StoreId

STORES_MAX = 20_000
DAYS_MAX = 2 * WINDOW_DAYS_MAX
STATEMENT_TIMEOUT_S = 30

Days = dict[StoreId, tuple[DayCount, ...]]
Reader = Callable[[MetricId, Sequence[StoreId], date, date], Awaitable[Days]]
"""`read_days` of one database, or of those of a chain together."""

# A host books in wall time and business time; a margin of two days around the instants covers every zone and cutoff.
_GRID = """
WITH chosen AS (
    SELECT id AS store, zone, cutoff_hour, opened_at FROM store WHERE id = ANY(%(stores)s)
), grid AS (
    SELECT c.store, d::date AS day FROM chosen c, generate_series(%(since)s::date, %(until)s::date - 1, '1 day') d
    WHERE d::date >= (c.opened_at AT TIME ZONE c.zone - make_interval(hours => c.cutoff_hour))::date
), sold AS (
    SELECT store, business_date::date AS day, count(*) AS sales, sum(due_fen) AS fen FROM sale
    WHERE store = ANY(%(stores)s) AND business_date >= %(since)s::text AND business_date < %(until)s::text
      AND voided_at IS NULL
    GROUP BY 1, 2
), counted AS ({counted})
SELECT g.store, g.day, {numerator}, {denominator}
FROM grid g LEFT JOIN sold s USING (store, day) LEFT JOIN counted c USING (store, day) ORDER BY 1, 2
"""
_NOTHING = "SELECT NULL::text AS store, NULL::date AS day, 0::bigint AS n, 0::bigint AS of WHERE false"
_DAY = "(x.{at} AT TIME ZONE k.zone - make_interval(hours => k.cutoff_hour))::date"
_BETWEEN = "x.{at} >= %(since)s::date - 2 AND x.{at} < %(until)s::date + 2"


def _instants(table: str, at: str, where: str, n: str = "count(*)", of: str = "0::bigint") -> str:
    """Rows of a table by the business date of their instant."""
    return (
        f"SELECT x.store, {_DAY.format(at=at)} AS day, {n} AS n, {of} AS of FROM {table} x JOIN chosen k USING (store)"
        f" WHERE x.store = ANY(%(stores)s) AND {_BETWEEN.format(at=at)} AND {where} GROUP BY 1, 2"
    )


def _incidents(*kinds: str) -> str:
    return _instants("incident", "at", "x.kind IN ({})".format(", ".join(f"'{kind}'" for kind in kinds)))


_OF_SALES = ("coalesce(c.n, 0)", "coalesce(s.sales, 0)")
_FACES = f"""
SELECT store, day, sum(n)::bigint AS n, sum(of)::bigint AS of FROM (
    {_instants("face_decision", "at", "true", "count(*) FILTER (WHERE x.outcome = 'not_recognised')", "count(*)")}
    UNION ALL
    SELECT store, day::date, sum(decisions) FILTER (WHERE outcome = 'not_recognised'), sum(decisions)
    FROM face_decision_day
    WHERE store = ANY(%(stores)s) AND day >= %(since)s::text AND day < %(until)s::text GROUP BY 1, 2
) whole GROUP BY 1, 2
"""

# metric: (what is counted by store and day, numerator, denominator)
_STATEMENTS: dict[MetricId, tuple[str, str, str]] = {
    MetricId("payment_failure_rate"): (
        _incidents("payment_failed"),
        "coalesce(c.n, 0)",
        "coalesce(c.n, 0) + coalesce(s.sales, 0)",
    ),
    MetricId("unclear_money"): (_incidents(*UNCLEAR_MONEY), *_OF_SALES),
    MetricId("errors"): (_instants("dead_letter", "at", "true"), *_OF_SALES),
    MetricId("terminal_faults"): (_incidents("session_takeover", "seq_gap", "clock_skew"), *_OF_SALES),
    MetricId("complaints"): (_incidents("complaint"), *_OF_SALES),
    MetricId("face_refusals"): (_incidents("face_refused"), *_OF_SALES),
    MetricId("face_unrecognised_rate"): (_FACES, "coalesce(c.n, 0)", "coalesce(c.of, 0)"),
    MetricId("payment_answer_ms"): (
        _instants(
            "outbox",
            "created_at",
            "x.port = 'payments' AND x.done_at IS NOT NULL",
            "greatest(0, round(sum(extract(epoch FROM x.done_at - x.created_at)) * 1000))::bigint",
            "count(*)",
        ),
        "coalesce(c.n, 0)",
        "coalesce(c.of, 0)",
    ),
    MetricId("sales_per_day"): (_NOTHING, "coalesce(s.sales, 0)", "1"),
    MetricId("takings_per_day"): (_NOTHING, "coalesce(s.fen, 0)", "(s.sales IS NOT NULL)::int"),
    MetricId("basket_fen"): (_NOTHING, "coalesce(s.fen, 0)", "coalesce(s.sales, 0)"),
    MetricId("enrolments"): (
        _instants(
            "membership",
            "enrolled_at",
            "x.generation = 1 AND x.state NOT IN ('ADMITTING', 'REJECTED', 'HOLD_PENDING', 'ABANDONED')",
        ),
        *_OF_SALES,
    ),
}


def metrics_read() -> frozenset[MetricId]:
    """The metrics that have a statement."""
    return frozenset(_STATEMENTS)


async def read_days(
    conn: AsyncConnection[Any], metric: MetricId, stores: Sequence[StoreId], since: date, until: date
) -> Days:
    """One metric of these stores on the business dates [since, until); a store that nobody knows has no days.

    At most STORES_MAX stores and DAYS_MAX days (ValueError), and STATEMENT_TIMEOUT_S seconds (psycopg's QueryCanceled).
    """
    if len(stores) > STORES_MAX or (until - since).days > DAYS_MAX:
        raise ValueError(f"at most {STORES_MAX} stores and {DAYS_MAX} days")
    counted, numerator, denominator = _STATEMENTS[metric]
    statement = _GRID.format(counted=counted, numerator=numerator, denominator=denominator)
    found: dict[StoreId, list[DayCount]] = {store: [] for store in stores}
    async with conn.transaction():
        await conn.execute("SELECT set_config('statement_timeout', %s, true)", (f"{STATEMENT_TIMEOUT_S}s",))
        cursor = await conn.execute(statement, {"stores": list(stores), "since": since, "until": until})
        async for store, day, n, of in cursor:
            found[StoreId(store)].append(DayCount(day, int(n), int(of)))
    return {store: tuple(days) for store, days in found.items()}


async def read_samples(
    read: Reader,
    metrics: Sequence[MetricId],
    treated: Mapping[StoreId, date],
    controls: Sequence[StoreId],
    before_days: int,
    until: date,
) -> dict[MetricId, tuple[StoreSample, ...]]:
    """Samples of every metric, of the days before `until`. `treated`: each store's first full day under the change.

    Controls are split at the day the first store began. Raises ValueError without a treated store.
    """
    if not treated:
        raise ValueError("no store has the change")
    first = min(treated.values())
    since = first - timedelta(days=before_days)
    stores = [*treated, *controls]
    samples: dict[MetricId, tuple[StoreSample, ...]] = {}
    for metric in dict.fromkeys(metrics):
        days = await read(metric, stores, since, until)
        samples[metric] = tuple(
            StoreSample(
                store,
                Arm.TREATED if store in treated else Arm.CONTROL,
                tuple(one for one in days[store] if one.day < treated.get(store, first)),
                tuple(one for one in days[store] if one.day >= treated.get(store, first)),
            )
            for store in stores
        )
    return samples
