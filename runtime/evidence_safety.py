"""Harm, each store against its own days before: exact tests that also know how much its days differ.

Rates: Fisher's exact test. Counts: the exact conditional test of two Poisson rates (Przyborowski and Wilenski 1940).
Both believe that events come one by one. Days differ more than that (a broken line, a school trip), so the same
comparison is made against the spread of the store's own days (quasi-likelihood, McCullagh and Nelder 1989, section
9.2, and a negative binomial of the same mean and spread), and the largest p counts. Means: two samples of days, t with
the pooled variance, on logarithms.

Permuting days would be exact without any of this, but one day after 28 can never be rarer than 1 in 29.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import exp, log, sqrt

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from models.domain.evidence import DayCount, Direction, MetricKind, MetricSpec

Counts = NDArray[np.float64]

_QUIET = 0.2
"""How often a history may be quieter than its days are; without it A/A runs found harm in 6 to 7 % instead of 5."""


def arrays(days: Sequence[DayCount]) -> tuple[Counts, Counts]:
    """Numerators and denominators of the days on which something happened.

    Where nothing could be sold any more and errors came all the same, they count as on one opportunity.
    """
    there = [one for one in days if one.denominator or one.numerator]
    return (
        np.array([one.numerator for one in there], dtype=np.float64),
        np.array([max(1, one.denominator) for one in there], dtype=np.float64),
    )


def harm_p(spec: MetricSpec, before: tuple[Counts, Counts], after: tuple[Counts, Counts]) -> float | None:
    """One-sided p of "it got worse". None: nothing to compare on one of the sides."""
    if not len(before[0]) or not len(after[0]):
        return None
    worse_is_more = spec.direction is Direction.DOWN
    if spec.kind is MetricKind.MEAN:
        return _means_p(before, after, worse_is_more=worse_is_more)
    exact = exact_p(spec.kind, before, after, worse_is_more=worse_is_more)
    return max(exact, _spread_p(spec.kind, before, after, worse_is_more=worse_is_more))


def exact_p(
    kind: MetricKind, before: tuple[Counts, Counts], after: tuple[Counts, Counts], *, worse_is_more: bool
) -> float:
    """As if every event came by itself."""
    k0, n0, k1, n1 = (int(one.sum()) for one in (*before, *after))
    if kind is MetricKind.RATE:
        null = (n0 + n1, k0 + k1, n1)
        return float(stats.hypergeom.sf(k1 - 1, *null) if worse_is_more else stats.hypergeom.cdf(k1, *null))
    share = n1 / (n0 + n1)
    return float(stats.binom.sf(k1 - 1, k0 + k1, share) if worse_is_more else stats.binom.cdf(k1, k0 + k1, share))


def dispersion(kind: MetricKind, before: tuple[Counts, Counts], after: tuple[Counts, Counts]) -> tuple[float, int]:
    """How many times more days vary than single events would make them, at least 1; and its degrees of freedom.

    Not the estimate but its upper bound: in one of five histories of quiet days the days are not that quiet.
    """
    squares = 0.0
    for numerators, denominators in (before, after):
        rate = numerators.sum() / denominators.sum()
        variance = rate * denominators * ((1 - rate) if kind is MetricKind.RATE else 1.0)
        there = variance > 0
        squares += float((((numerators - rate * denominators)[there]) ** 2 / variance[there]).sum())
    df = len(before[0]) + len(after[0]) - 2
    return (max(1.0, squares / float(stats.chi2.ppf(_QUIET, df))) if df > 0 else 1.0), df


def _spread_p(
    kind: MetricKind, before: tuple[Counts, Counts], after: tuple[Counts, Counts], *, worse_is_more: bool
) -> float:
    """Signed root of the deviance over the dispersion, on t; and the tail of the negative binomial that is as spread.

    The second is there because a bad day is farther from the mean than a good one, which a t of few days does not know.
    """
    k0, n0, k1, n1 = (float(one.sum()) for one in (*before, *after))
    phi, df = dispersion(kind, before, after)
    if df < 1:
        return 1.0
    same, sign = (k0 + k1) / (n0 + n1), 1.0 if k1 / n1 > k0 / n0 else -1.0
    deviance = 2 * sum(_part(kind, k, n, k / n) - _part(kind, k, n, same) for k, n in ((k0, n0), (k1, n1)))
    root = sign * sqrt(max(0.0, deviance) / phi)
    p = float(stats.t.sf(root if worse_is_more else -root, df))
    expected = k0 * n1 / n0
    variance = phi * expected * (1 + n1 / n0)
    if variance <= expected:
        return p
    skewed = (expected**2 / (variance - expected), expected / variance)
    return max(p, float(stats.nbinom.sf(k1 - 1, *skewed) if worse_is_more else stats.nbinom.cdf(k1, *skewed)))


def _part(kind: MetricKind, k: float, n: float, rate: float) -> float:
    """The log likelihood of k events at that rate, what hangs on the rate."""
    happened = k * log(rate) if k else 0.0
    if kind is MetricKind.RATE:
        return happened + ((n - k) * log(1 - rate) if n > k else 0.0)
    return happened - n * rate


def _means_p(before: tuple[Counts, Counts], after: tuple[Counts, Counts], *, worse_is_more: bool) -> float | None:
    x, y = before[0] / before[1], after[0] / after[1]
    if min(x.min(), y.min()) > 0:
        x, y = np.log(x), np.log(y)
    df = len(x) + len(y) - 2
    squares = float(((x - x.mean()) ** 2).sum() + ((y - y.mean()) ** 2).sum())
    if df < 1 or squares == 0:
        return None
    t = float(y.mean() - x.mean()) / sqrt(squares / df * (1 / len(x) + 1 / len(y)))
    return float(stats.t.sf(t if worse_is_more else -t, df))


def holm(ps: Sequence[float]) -> list[float]:
    """Adjusted for so many tests at once (Holm 1979)."""
    adjusted = [0.0] * len(ps)
    highest = 0.0
    for rank, at in enumerate(sorted(range(len(ps)), key=lambda one: ps[one])):
        highest = max(highest, min(1.0, (len(ps) - rank) * ps[at]))
        adjusted[at] = highest
    return adjusted


def rise_seen(
    spec: MetricSpec, before: tuple[Counts, Counts], after: tuple[Counts, Counts], alpha: float, power: float
) -> float | None:
    """The harm, as a ratio, that a one-sided test of that level sees with that power; on the logarithm, approximate.

    A rise where more is worse (0.8 is +80 %), a fall where less is (0.3 is -30 %). None where nothing happened before,
    or nothing can be said of the days.
    """
    if not len(before[0]) or not len(after[0]):
        return None
    if spec.kind is MetricKind.MEAN:
        values = before[0] / before[1]
        if len(values) < 2 or values.min() <= 0:
            return None
        spread = float(np.log(values).std(ddof=1)) * sqrt(1 / len(before[0]) + 1 / len(after[0]))
    else:
        k0, n0, n1 = float(before[0].sum()), float(before[1].sum()), float(after[1].sum())
        if not k0:
            return None
        phi, _ = dispersion(spec.kind, before, after)
        spread = sqrt(phi * (1 / k0 + 1 / (k0 * n1 / n0)))
    reach = spread * float(stats.norm.isf(alpha) + stats.norm.isf(1 - power))
    return exp(reach) - 1 if spec.direction is Direction.DOWN else 1 - exp(-reach)
