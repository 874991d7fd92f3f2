"""A fixed number of looks that together err no more often than one: alpha spending, and what can be seen with it.

Lan and DeMets 1983, the spending function that is like O'Brien and Fleming's: on each side of alpha/2 it spends
2 - 2 Phi(z(alpha/4) / sqrt(t)). The share t of a look is its part of the days. The boundaries are computed as if each
day brought as much as the one before; stores differ from each other for good, so later looks bring less and the looks
resemble each other more, which can only lower the probability of erring at any of them (Slepian 1962).
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from math import log, sqrt

import numpy as np
from numpy.typing import NDArray
from scipy import optimize, special, stats

Floats = NDArray[np.float64]

_POINTS = 801
"""Grid of the recursion; the boundaries of five looks agree with published ones to 1e-4 (a test holds it)."""
_Z_MAX = 9.0
_NODES, _WEIGHTS = np.polynomial.legendre.leggauss(80)


def spent(alpha: float, share: float) -> float:
    """How much of a two-sided alpha is spent at that share (0..1] of the days."""
    return float(4 * stats.norm.sf(stats.norm.isf(alpha / 4) / sqrt(share)))


@lru_cache(maxsize=256)
def boundaries(look_days: tuple[int, ...], alpha: float) -> tuple[float, ...]:
    """|z| beyond which each look ends it; Armitage, McPherson and Rowe's recursion over the sum's density."""
    shares = [day / look_days[-1] for day in look_days]
    found: list[float] = []
    grid: Floats = np.zeros(1)
    density: Floats = np.ones(1)
    before = 0.0
    used = 0.0
    for share in shares:
        step = sqrt(share - before)
        budget = spent(alpha, share) - used

        def crossing(
            z: float, *, at: Floats = grid, mass: Floats = density, s: float = share, d: float = step
        ) -> float:
            edge = z * sqrt(s)
            beyond = stats.norm.sf((edge - at) / d) + stats.norm.cdf((-edge - at) / d)
            return float((mass * beyond).sum())

        z = float(optimize.brentq(lambda z, c=crossing, b=budget: c(z) - b, 0.1, _Z_MAX, xtol=1e-10))
        found.append(z)
        edge = z * sqrt(share)
        points = np.linspace(-edge, edge, _POINTS)
        weights = np.full(_POINTS, points[1] - points[0])
        weights[[0, -1]] /= 2
        # Simpson's weights: the trapezium's error would be seen in the fourth digit.
        weights = weights * np.where(np.arange(_POINTS) % 2, 4, 2) / 3
        weights[[0, -1]] = (points[1] - points[0]) / 3
        spread = stats.norm.pdf((points[:, None] - grid[None, :]) / step) / step
        grid, density = points, weights * (spread @ density)
        before, used = share, spent(alpha, share)
    return tuple(found)


def nominal_alphas(look_days: Sequence[int], alpha: float) -> tuple[float, ...]:
    """The two-sided level of each look by itself; with few stores it is taken on the t distribution."""
    return tuple(float(2 * stats.norm.sf(z)) for z in boundaries(tuple(look_days), alpha))


def detectable(sd_of_estimate: float, df: int, alpha: float, power: float) -> float:
    """The effect that a two-sided t test of that level sees with that power (noncentral t).

    In the unit of `sd_of_estimate`; 0 where it is 0. Raises ValueError without a degree of freedom.
    """
    if df < 1:
        raise ValueError("no degree of freedom")
    if sd_of_estimate <= 0:
        return 0.0
    edge = float(stats.t.isf(alpha / 2, df))

    def short(effect: float) -> float:
        return _power(effect, edge, df) - power

    high = edge + 2
    while short(high) < 0:
        high *= 2
    return sd_of_estimate * float(optimize.brentq(short, 0.0, high, xtol=1e-8))


def _power(effect: float, edge: float, df: int) -> float:
    """P(|t| > edge) of the noncentral t, over the distribution of the standard deviation: scipy's nct is not a number
    with one degree of freedom and a far effect.
    """
    # The step of the normal lies where edge * sd = effect: no piece of the quadrature may jump over it.
    step = [max(0.0, (effect + shift) / edge) for shift in (-9.0, -3.0, 0.0, 3.0, 9.0)]
    cuts = sorted({0.0, *step, sqrt(float(stats.chi2.isf(1e-16, df)) / df)})
    low, high = np.array(cuts[:-1])[:, None], np.array(cuts[1:])[:, None]
    sd = low + (high - low) * (_NODES + 1) / 2
    density = np.exp(
        (df - 1) * np.log(sd) - df * sd**2 / 2 + log(2) + df / 2 * log(df / 2) - float(special.gammaln(df / 2))
    )
    beyond = special.ndtr(effect - edge * sd) + special.ndtr(-edge * sd - effect)
    return float(((high - low) / 2 * _WEIGHTS * density * beyond).sum())
