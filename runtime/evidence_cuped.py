"""One number a store, its own past taken out, compared between the arms: CUPED as a regression.

Deng, Xu, Kohavi and Walker 2013: y - theta (x - mean x) with the theta that makes it least variable. Here theta is
estimated within the arms, which is the regression y ~ 1 + treated + x (ANCOVA); with two stores against two a theta of
all stores would follow the effect itself. The store is the unit, so the interval is t with stores - 3 degrees. Fewer
than STORES_FOR_THETA stores cannot tell theta: there it is 1, the difference of the growths, with stores - 2 degrees.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import sqrt

import numpy as np
from numpy.typing import NDArray
from scipy import special, stats

from runtime.evidence_looks import detectable

Floats = NDArray[np.float64]
Flags = NDArray[np.bool_]


STORES_FOR_THETA = 10
"""With n stores an estimated theta makes the variance 1 + 1 / (n - 4) times as large (Cochran 1957): 1.17 here."""


@dataclass(frozen=True, slots=True)
class Comparison:
    """The difference of the arms with its standard error; `sd` is that of one store around its own expectation."""

    estimate: float
    error: float
    df: int
    sd: float
    theta: float

    def interval(self, alpha: float) -> tuple[float, float]:
        """Two-sided, of level 1 - alpha."""
        half = -float(special.stdtrit(self.df, alpha / 2)) * self.error
        return self.estimate - half, self.estimate + half

    @property
    def p(self) -> float:
        """Two-sided."""
        if self.error == 0:
            return 1.0 if self.estimate == 0 else 0.0
        return float(2 * special.stdtr(self.df, -abs(self.estimate) / self.error))


def compare(after: Floats, before: Floats, treated: Flags) -> Comparison | None:
    """Each store's value after and before, and its arm. None: fewer than two stores on a side, or no degree is left.

    A past in which all stores are alike explains nothing and costs no degree.
    """
    n, of_treated = len(after), int(treated.sum())
    of_control = n - of_treated
    if min(of_treated, of_control) < 2:
        return None
    y, x = _within(after, treated), _within(before, treated)
    xx = float(x @ x)
    informed = n >= STORES_FOR_THETA and xx > 1e-12 * max(1.0, float(before @ before))
    df = n - (3 if informed else 2)
    theta = float(x @ y) / xx if informed else (1.0 if n < STORES_FOR_THETA else 0.0)
    gap = float(before[treated].mean() - before[~treated].mean())
    estimate = float(after[treated].mean() - after[~treated].mean()) - theta * gap
    residual = y - theta * x
    variance = float(residual @ residual) / df
    error = sqrt(variance * (1 / of_treated + 1 / of_control + (gap * gap / xx if informed else 0.0)))
    return Comparison(estimate, error, df, sqrt(variance), theta)


def reach(sd: float, treated: int, controls: int, alpha: float, power: float) -> float:
    """The difference that a comparison of so many stores will see, before it is known how alike the arms are."""
    n = treated + controls
    informed = n >= STORES_FOR_THETA
    more = 1 + 1 / (n - 4) if informed else 1.0
    return detectable(sd * sqrt(more * (1 / treated + 1 / controls)), n - (3 if informed else 2), alpha, power)


def _within(values: Floats, treated: Flags) -> Floats:
    centred = values.astype(np.float64, copy=True)
    centred[treated] -= centred[treated].mean()
    centred[~treated] -= centred[~treated].mean()
    return centred


def sample_ratio_p(planned: tuple[int, int], seen: tuple[int, int]) -> float:
    """Do stores go missing in one arm more than in the other? Fisher's exact test; (treated, control) each.

    The arms' sizes are fixed by the plan, so what can go wrong is not their ratio but who of them is left.
    """
    table = [[seen[0], planned[0] - seen[0]], [seen[1], planned[1] - seen[1]]]
    return float(stats.fisher_exact(table).pvalue)
