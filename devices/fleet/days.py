"""A shop's day, compressed: opening hours, and the three peaks of a convenience store."""

from __future__ import annotations

import math
import random
from functools import cache

BEGINS_H = 6.5
ENDS_H = 23.5
BASE = 0.35
PEAKS: tuple[tuple[float, float, float], ...] = ((8.0, 0.7, 1.4), (12.4, 0.8, 1.8), (18.6, 1.1, 1.5))
"""Hour, width in hours, height: breakfast, lunch, the way home. Invented, of a plausible form."""
_STEPS = 500


def hour_at(fraction: float) -> float:
    """The hour of the day when `fraction` of the run is over."""
    return BEGINS_H + (ENDS_H - BEGINS_H) * min(1.0, max(0.0, fraction))


def demand(hour: float) -> float:
    """Customers per time, as a multiple of the day's mean."""
    return _raw(hour) / _mean()


def demand_until(fraction: float) -> float:
    """The share of the day's customers that have come when `fraction` of the run is over; 0..1."""
    steps = max(1, round(_STEPS * min(1.0, fraction)))
    done = sum(demand(hour_at(step / _STEPS)) for step in range(steps)) / _STEPS
    return min(1.0, done * min(1.0, fraction) * _STEPS / steps)


def opening_hours(rng: random.Random) -> tuple[float, float]:
    """When one shop opens and closes: some never close."""
    return rng.choice(((7.0, 22.0), (6.5, 23.0), (8.0, 22.5), (0.0, 24.0)))


def _raw(hour: float) -> float:
    return BASE + sum(height * math.exp(-(((hour - at) / width) ** 2)) for at, width, height in PEAKS)


@cache
def _mean() -> float:
    return sum(_raw(hour_at(step / _STEPS)) for step in range(_STEPS)) / _STEPS
