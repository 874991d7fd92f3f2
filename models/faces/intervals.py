"""Intervals for rates of people: a bootstrap that draws persons, and the exact bound when nothing happened.

Comparisons of one person are not independent of each other, so drawing comparisons would promise too much
(Bolle, Ratha, Pankanti 2004, the subsets bootstrap). Drawing persons keeps what belongs together.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import erfc, sqrt
from statistics import NormalDist

import numpy as np
from numpy.typing import NDArray

from models.faces.calibration import Figure

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

CONFIDENCE = 0.95
BOOTSTRAP = "bootstrap by person"
NO_EVENT = "no event: exact bound by person (rule of three)"
ROUNDS_MAX = 1_000
ROUNDS_MIN = 100
_WORK = 200_000_000
"""Comparisons weighed in all rounds together: about ten seconds of one core."""


def rounds_for(comparisons: int) -> int:
    """How many rounds are affordable."""
    return int(min(ROUNDS_MAX, max(ROUNDS_MIN, _WORK // max(1, comparisons))))


def draws(people: int, rounds: int, seed: int) -> Ints:
    """How often each person is drawn: (rounds, people), each row with sum `people`. The same seed, the same draws."""
    rng = np.random.default_rng(seed)
    return rng.multinomial(people, np.full(people, 1 / people), size=rounds)


def no_event_bound(units: int) -> float:
    """The largest rate that leaves `units` independent trials without an event in 5 % of worlds: about 3 / units.

    Clopper-Pearson, one-sided: 1 - 0.05 ** (1 / units).
    """
    return 1.0 - (1.0 - CONFIDENCE) ** (1.0 / units) if units else 1.0


def between(samples: Floats) -> tuple[float, float]:
    """The middle 95 % of bootstrap samples."""
    edge = 50 * (1 - CONFIDENCE)
    low, high = np.percentile(samples, [edge, 100 - edge])
    return float(low), float(high)


def of_samples(value: float, samples: Floats) -> Figure:
    """A figure with the bootstrap's interval, which holds the value always."""
    finite = samples[np.isfinite(samples)]
    low, high = between(finite) if len(finite) else (value, value)
    return Figure(float(value), min(low, float(value)), max(high, float(value)), BOOTSTRAP)


def of_rate(value: float, samples: Floats, people: int) -> Figure:
    """As `of_samples` for a rate; at 0 or 1 the bootstrap sees nothing, and the exact bound by person stands in."""
    if value >= 1.0:
        return Figure(1.0, 1.0 - no_event_bound(people), 1.0, NO_EVENT)
    if value <= 0.0:
        return Figure(0.0, 0.0, no_event_bound(people), NO_EVENT)
    return of_samples(value, samples)


def rounded(figure: Figure) -> Figure:
    """To four places: more would not come out twice."""
    return Figure(round(figure.value, 4), round(figure.low, 4), round(figure.high, 4), figure.method)


def rate_by_person(hits: Floats, trials: Floats, drawn: Ints) -> Figure:
    """sum(hits) / sum(trials), each given per person, with its interval."""
    total = trials.sum()
    value = float(hits.sum() / total) if total else 0.0
    weights = drawn @ trials
    with np.errstate(invalid="ignore", divide="ignore"):
        samples = (drawn @ hits) / weights
    return of_rate(value, samples, int((trials > 0).sum()))


_NORMAL = NormalDist()


@dataclass(frozen=True, slots=True)
class Tail:
    """The upper end of the impostor scores as that of a normal distribution: P(score > t) = Q((t - middle) / spread).

    A line in the normal Q-Q plot through the highest scores. It has no end, so it never promises that nobody has
    a double, and it falls as impostor cosines do; an exponential through the same scores falls too slowly.
    """

    middle: float
    spread: float

    def threshold(self, far: float) -> float:
        """The score that a part `far` of the impostor comparisons exceeds; at most 1."""
        return min(1.0, self.middle - self.spread * _NORMAL.inv_cdf(max(1e-15, far)))

    def far(self, score: float) -> float:
        """P(impostor score > score)."""
        return 0.5 * erfc((score - self.middle) / (self.spread * sqrt(2.0)))


def fit_tail(fars: Floats, scores: Floats) -> Tail:
    """Least squares through (FAR, score) points of the tail."""
    z = np.array([-_NORMAL.inv_cdf(float(far)) for far in fars])
    spread = float(((z - z.mean()) * (scores - scores.mean())).sum() / ((z - z.mean()) ** 2).sum())
    spread = max(1e-3, spread)
    return Tail(float(scores.mean() - spread * z.mean()), spread)
