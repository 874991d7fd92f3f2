"""Face decisions as counts: how many ended how, why, how far they looked, and with which scores. Never of whom."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from typing import Any

from sqlalchemy import text
from sqlmodel.ext.asyncio.session import AsyncSession

from gateway.face_views import DecisionCountView, FacesView, GallerySizeView, ScoreBinView
from gateway.queries.registry import Scope

BIN_PPM = 20_000
"""Width of a score bin: a cosine of 0.02."""
OUTCOMES = ("accepted", "digits", "challenge", "quality", "not_recognised")
GROUPS_MAX = 20_000
REGIONS_MAX = 500

_COUNTS = """
SELECT to_char(d.at AT TIME ZONE s.zone, 'YYYY-MM-DD'), d.outcome, d.reason, d.scope, d.digits_given, count(*)
FROM face_decision d JOIN store s ON s.id = d.store
WHERE d.at >= :since AND (:region = '' OR s.region = :region) AND (:store = '' OR d.store = :store)
GROUP BY 1, 2, 3, 4, 5
UNION ALL SELECT k.day, k.outcome, k.reason, '', NULL, sum(k.decisions)
FROM face_decision_day k JOIN store s ON s.id = k.store
WHERE k.day >= :from_day AND (:region = '' OR s.region = :region) AND (:store = '' OR k.store = :store)
GROUP BY 1, 2, 3 ORDER BY 1 LIMIT :groups
"""
"""Days are the store's own; of decisions whose retention ended a store keeps daily counts (days in UTC)."""

_SCORES = """
SELECT floor(d.best_ppm::numeric / :bin)::int, d.outcome, count(*), min(d.threshold_ppm), max(d.threshold_ppm)
FROM face_decision d JOIN store s ON s.id = d.store
WHERE d.at >= :since AND d.best_ppm > -1000000 AND NOT d.digits_given
  AND (:region = '' OR s.region = :region) AND (:store = '' OR d.store = :store)
GROUP BY 1, 2 ORDER BY 1
"""

_SIZES = """
SELECT s.region, count(*), count(DISTINCT t.member) FROM face_template t JOIN store s ON s.id = t.store
WHERE (:region = '' OR s.region = :region) AND (:store = '' OR t.store = :store)
GROUP BY 1 ORDER BY 1 LIMIT :regions
"""


@dataclass(frozen=True, slots=True)
class Window:
    """The days that are shown, the newest last."""

    since: datetime
    days: tuple[str, ...]


def window(now: datetime, days: int) -> Window:
    """The last `days` days up to business now."""
    today: date = now.date()
    listed = tuple((today - timedelta(days=back)).isoformat() for back in range(days - 1, -1, -1))
    return Window(now - timedelta(days=days), listed)


async def faces(session: AsyncSession, scope: Scope, shown: Window) -> FacesView:
    """Counts of the scope's decisions in the window, score bins, and how many templates there are."""
    where: dict[str, Any] = {"since": shown.since, "region": scope.region, "store": scope.store}
    conn = await session.connection()
    counted = await conn.execute(text(_COUNTS), where | {"from_day": shown.days[0], "groups": GROUPS_MAX})
    counts: Counter[tuple[str, str, str, str, bool]] = Counter()
    for day, outcome, reason, looked, digits, count in counted:
        counts[day, outcome, reason, looked, bool(digits)] += int(count)
    scores = (await conn.execute(text(_SCORES), where | {"bin": BIN_PPM})).all()
    sizes = await conn.execute(text(_SIZES), {k: where[k] for k in ("region", "store")} | {"regions": REGIONS_MAX})
    return FacesView(
        days=list(shown.days),
        decisions=[
            DecisionCountView(day=day, outcome=outcome, reason=reason, scope=looked, digits_given=digits, count=count)
            for (day, outcome, reason, looked, digits), count in sorted(counts.items())
        ],
        scores=[ScoreBinView(from_ppm=int(row[0]) * BIN_PPM, outcome=row[1], count=row[2]) for row in scores],
        threshold_ppm_min=min((row[3] for row in scores), default=None),
        threshold_ppm_max=max((row[4] for row in scores), default=None),
        galleries=[GallerySizeView(region=row[0], templates=row[1], members=row[2]) for row in sizes],
    )
