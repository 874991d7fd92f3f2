"""Controls for the stores of a stage: alike in their past and of the same labels, chosen before the start."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import linear_sum_assignment

from models.domain.evidence import Candidate, MetricSpec
from models.domain.ids import StoreId

Floats = NDArray[np.float64]

_FORBIDDEN = 1e6
"""Distance of a pair whose labels differ."""


def match(
    stores: Sequence[Candidate],
    pool: Sequence[Candidate],
    spec: MetricSpec,
    labels: Sequence[str],
    per_store: int,
    seed: int,
) -> tuple[dict[StoreId, tuple[StoreId, ...]], tuple[StoreId, ...]]:
    """For each store its controls, none of them twice; and the stores that got fewer than `per_store`.

    The sum of distances is the least possible (optimal assignment), the distance that of (level, trend) of the metric
    before, each in standard deviations of the pool. The order of input does not matter; `seed` decides between equals.
    """
    mine = sorted(stores, key=lambda one: one.store)
    taken = {one.store for one in mine}
    others = sorted((one for one in pool if one.store not in taken), key=lambda one: one.store)
    if not mine or not others:
        return {one.store: () for one in mine}, tuple(one.store for one in mine)
    others = [others[n] for n in np.random.default_rng(seed).permutation(len(others))]
    a, b = (np.array([_features(one, spec) for one in those]) for those in (mine, others))
    spread = np.concatenate([a, b]).std(axis=0)
    spread[spread == 0] = 1.0
    distance = np.sqrt((((a[:, None, :] - b[None, :, :]) / spread) ** 2).sum(axis=2))
    for row, one in enumerate(mine):
        for column, other in enumerate(others):
            if any(one.labels.get(label) != other.labels.get(label) for label in labels):
                distance[row, column] = _FORBIDDEN
    wanted = np.repeat(distance, per_store, axis=0)
    found: dict[StoreId, list[StoreId]] = {one.store: [] for one in mine}
    for row, column in zip(*linear_sum_assignment(wanted), strict=True):
        if wanted[row, column] < _FORBIDDEN:
            found[mine[row // per_store].store].append(others[column].store)
    chosen: Mapping[StoreId, tuple[StoreId, ...]] = {store: tuple(sorted(those)) for store, those in found.items()}
    return dict(chosen), tuple(store for store, those in chosen.items() if len(those) < per_store)


def _features(one: Candidate, spec: MetricSpec) -> tuple[float, float]:
    """Level and trend (second half against the first) of the metric before."""
    days = sorted(one.before, key=lambda day: day.day)
    half = len(days) // 2
    level, early, late = (
        spec.per * sum(day.numerator for day in those) / max(1, sum(day.denominator for day in those))
        for those in (days, days[:half], days[half:])
    )
    if spec.relative:
        level, early, late = (float(np.log(max(value, 1e-9))) for value in (level, early, late))
    return level, late - early
