"""Chains that never were, to see how often the rules err and what they can see: A/A runs and the power table.

The figures are assumptions, written down so that anybody can argue with them; a chain's own history replaces them in
`runtime.evidence.outlook`. The same seed, the same table.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from datetime import date, timedelta
from math import exp, sqrt
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from models.domain.evidence import Arm, DayCount, MetricKind, StoreSample
from models.domain.evidence_metrics import metric_of
from models.domain.ids import StoreId
from runtime.evidence_cuped import Comparison, compare, reach
from runtime.evidence_looks import nominal_alphas
from runtime.evidence_safety import exact_p, harm_p, holm
from runtime.evidence_staggered import adopted

Floats = NDArray[np.float64]

FIRST_DAY = date(2026, 1, 5)
"""A Monday."""


@dataclass(frozen=True, slots=True)
class Chain:
    """How stores and days of an imagined chain differ; standard deviations of logarithms."""

    store_sd: float = 0.45
    """Stores among each other, for good."""
    drift_sd: float = 0.09
    """A store's level from one week to the next: a random walk (road works, a competitor)."""
    day_sd: float = 0.08
    """A day of the whole chain (weather, payday)."""
    noise_sd: float = 0.25
    """A store's day."""
    weekday: float = 0.20
    """Saturdays and Sundays are so much stronger, each store by its own multiple of 0 to 2."""
    takings_fen: int = 900_000
    sales: int = 400
    """Of a store's day."""
    failure_rate: float = 0.01
    failure_sd: float = 0.5
    """A store's day of failed payments."""


def takings(chain: Chain, rng: np.random.Generator, stores: int, days: int) -> Floats:
    """Fen of each store and day, (stores, days)."""
    weeks = -(-days // 7)
    walk = np.cumsum(rng.normal(0, chain.drift_sd, (stores, weeks)), axis=1).repeat(7, axis=1)[:, :days]
    weekend = (np.arange(days) % 7 >= 5) * chain.weekday * rng.uniform(0, 2, (stores, 1))
    logs = rng.normal(0, chain.store_sd, (stores, 1)) + walk + weekend + rng.normal(0, chain.day_sd, (1, days))
    logs = logs + rng.standard_t(5, (stores, days)) * chain.noise_sd / sqrt(5 / 3)
    return np.asarray(np.round(chain.takings_fen * np.exp(logs)))


def failures(chain: Chain, rng: np.random.Generator, days: int, times: float = 1.0) -> tuple[Floats, Floats]:
    """Failed payments and attempts of one store's days; days differ more than chance alone would make them."""
    attempts = rng.poisson(chain.sales * np.exp(rng.normal(0, chain.noise_sd, days))).astype(np.float64) + 1
    middle = -(chain.failure_sd**2) / 2
    rate = np.minimum(1.0, times * chain.failure_rate * np.exp(rng.normal(middle, chain.failure_sd, days)))
    return rng.binomial(attempts.astype(np.int64), rate).astype(np.float64), attempts


@dataclass(frozen=True, slots=True)
class Size:
    """A stage to try: how many stores against how many, how many days before, after which days one looks."""

    treated: int
    controls: int
    before_days: int = 28
    look_days: tuple[int, ...] = (7, 14)
    alpha: float = 0.05
    power: float = 0.8


def share_of(hits: int, runs: int) -> dict[str, float | int]:
    """A share of runs with its exact 95 % interval (Clopper and Pearson)."""
    found = stats.binomtest(hits, runs).proportion_ci(0.95, "exact")
    return {"runs": runs, "share": hits / runs, "low": float(found.low), "high": float(found.high)}


def trial(size: Size, chain: Chain, runs: int, seed: int, tick: Callable[[], None] = lambda: None) -> dict[str, Any]:
    """A/A runs of one size: nothing was changed, so everything that is found is wrong.

    `wrong`: some look of the rule found an effect. `covered`: every look's interval held it. `plain_z_wrong`: the mean
    of the stores' growth over its standard error against 1.96, at the end only. `mde`: the mean over runs of what the
    rule can see in that run's data, as a ratio; `found_at_mde`: the share of runs that found an effect of that size.
    """
    rng = np.random.default_rng(seed)
    levels = nominal_alphas(size.look_days, size.alpha)
    stores = size.treated + size.controls
    treated = np.arange(stores) < size.treated
    wrong = covered = naive = 0
    sds: list[float] = []
    kept: list[list[Comparison]] = []
    for _ in range(runs):
        values = takings(chain, rng, stores, size.before_days + size.look_days[-1])
        looks = [_look(values, size, day, treated) for day in size.look_days]
        out = [not low <= 0 <= high for low, high in (c.interval(a) for c, a in zip(looks, levels, strict=True))]
        wrong += any(out)
        covered += not any(out)
        naive += _plain_z(values, size, treated)
        sds.append(looks[-1].sd)
        kept.append(looks)
        tick()
    sd = sqrt(float(np.mean([one**2 for one in sds])))
    seen = reach(sd, size.treated, size.controls, levels[-1], size.power)
    found = sum(any(_seen(c, seen, a) for c, a in zip(looks, levels, strict=True)) for looks in kept)
    return {
        **asdict(size),
        "sd": sd,
        "mde": exp(min(50.0, seen)) - 1,
        "found_at_mde": share_of(found, runs),
        "wrong": share_of(wrong, runs),
        "covered": share_of(covered, runs),
        "plain_z_wrong": share_of(naive, runs),
    }


def _look(values: Floats, size: Size, day: int, treated: NDArray[np.bool_]) -> Comparison:
    before = np.log(values[:, : size.before_days].mean(axis=1))
    after = np.log(values[:, size.before_days : size.before_days + day].mean(axis=1))
    found = compare(after, before, treated)
    assert found is not None, "two stores on each side"
    return found


def _seen(found: Comparison, effect: float, alpha: float) -> bool:
    """The same run with that effect: on logarithms it moves the estimate and nothing else."""
    low, _ = found.interval(alpha)
    return low + effect > 0


def _plain_z(values: Floats, size: Size, treated: NDArray[np.bool_]) -> bool:
    growth = np.log(values[:, size.before_days :].mean(axis=1)) - np.log(values[:, : size.before_days].mean(axis=1))
    a, b = growth[treated], growth[~treated]
    return bool(abs(a.mean() - b.mean()) > 1.959964 * sqrt(a.var(ddof=1) / len(a) + b.var(ddof=1) / len(b)))


def safety_trial(
    chain: Chain,
    stores: int,
    days: int,
    runs: int,
    seed: int,
    *,
    alpha: float = 0.05,
    tick: Callable[[], None] = lambda: None,
) -> dict[str, Any]:
    """Stage 1 on failed payments: how often harm is seen where there is none, and where failures rose.

    `events_one_by_one`: what the exact test alone would have done in the A/A runs.
    """
    rng = np.random.default_rng(seed)
    spec = metric_of("payment_failure_rate")
    hits = {"wrong": 0, "events_one_by_one": 0, "found_at_2x": 0, "found_at_5x": 0}
    for _ in range(runs):
        history = [failures(chain, rng, 28) for _ in range(stores)]
        for name, times in (("wrong", 1.0), ("found_at_2x", 2.0), ("found_at_5x", 5.0)):
            now = [failures(chain, rng, days, times) for _ in range(stores)]
            ps = [harm_p(spec, a, b) for a, b in zip(history, now, strict=True)]
            hits[name] += min(holm([1.0 if p is None else p for p in ps])) < alpha
            if times == 1.0:
                bare = [exact_p(MetricKind.RATE, a, b, worse_is_more=True) for a, b in zip(history, now, strict=True)]
                hits["events_one_by_one"] += min(holm(bare)) < alpha
        tick()
    return {"stores": stores, "days": days, **{name: share_of(n, runs) for name, n in hits.items()}}


def staggered_trial(
    chain: Chain,
    stores: int,
    waves: int,
    runs: int,
    seed: int,
    *,
    effect: float = 0.0,
    tick: Callable[[], None] = lambda: None,
) -> dict[str, Any]:
    """Stage 3: a wave of stores each week, a last wave never; how often the 95 % interval held the effect."""
    rng = np.random.default_rng(seed)
    days = 28 + 7 * waves
    wave = np.arange(stores) % (waves + 1)
    under = np.arange(days)[None, :] >= (28 + 7 * wave)[:, None]
    held = 0
    errors: list[float] = []
    for _ in range(runs):
        found = adopted(np.log(takings(chain, rng, stores, days)) + effect * under, under)
        assert found is not None, "two stores with and without"
        low, high = found[0].interval(0.05)
        held += low <= effect <= high
        errors.append(found[0].error)
        tick()
    return {"stores": stores, "waves": waves, "covered": share_of(held, runs), "error": float(np.mean(errors))}


SAFETY_DAYS = (1, 3, 7)


def steps(sizes: Sequence[Size], runs: int) -> int:
    """How often `power_table` ticks."""
    return (len(sizes) + len(SAFETY_DAYS)) * runs + _fewer(runs)


def _fewer(runs: int) -> int:
    """A staggered run takes longer."""
    return max(2, runs // 5)


def power_table(
    chain: Chain, sizes: Sequence[Size], runs: int, seed: int, tick: Callable[[], None] = lambda: None
) -> dict[str, Any]:
    """`storeops rollout power`: a trial of each size, safety of two stores, staggered waves."""
    return {
        "seed": seed,
        "chain": asdict(chain),
        "sizes": [trial(size, chain, runs, seed, tick) for size in sizes],
        "safety": [safety_trial(chain, 2, days, runs, seed, tick=tick) for days in SAFETY_DAYS],
        "staggered": staggered_trial(chain, 40, 3, _fewer(runs), seed, tick=tick),
    }


def samples_of(values: Floats, treated: int, before_days: int, start: date = FIRST_DAY) -> list[StoreSample]:
    """An imagined chain as the reader would give it: one numerator (fen) and a denominator of 1 a store and day."""
    days = [start + timedelta(days=n) for n in range(values.shape[1])]
    return [
        StoreSample(
            StoreId(f"s{n:04}"),
            Arm.TREATED if n < treated else Arm.CONTROL,
            tuple(DayCount(day, int(fen), 1) for day, fen in zip(days[:before_days], row[:before_days], strict=True)),
            tuple(DayCount(day, int(fen), 1) for day, fen in zip(days[before_days:], row[before_days:], strict=True)),
        )
        for n, row in enumerate(values)
    ]
