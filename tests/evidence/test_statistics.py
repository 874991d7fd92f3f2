"""The statistics of a stage, against closed forms, other libraries and published tables."""

from __future__ import annotations

from datetime import date
from math import comb, sqrt

import numpy as np
import pytest
from scipy import stats

from models.domain.evidence import DayCount, MetricKind
from models.domain.evidence_metrics import metric_of
from runtime.evidence_cuped import compare, reach, sample_ratio_p
from runtime.evidence_looks import boundaries, detectable, nominal_alphas, spent
from runtime.evidence_safety import arrays, dispersion, exact_p, harm_p, holm
from runtime.evidence_staggered import adopted

RNG = np.random.default_rng
CLOSE = 1e-9
FIRST = date(2026, 1, 5)


def shop(n: int = 24) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """After, before, treated: every other store, with an effect of 0.1."""
    rng = RNG(7)
    x = rng.normal(13.7, 0.45, n)
    treated = np.arange(n) % 2 == 1
    return 0.8 * x + rng.normal(3, 0.2, n) + 0.1 * treated, x, treated


# ---------------------------------------------------------------- CUPED


def test_cuped_is_the_regression_on_arm_and_past() -> None:
    y, x, treated = shop()
    found = compare(y, x, treated)
    assert found is not None
    design = np.column_stack([np.ones(len(y)), treated, x])
    inverse = np.linalg.inv(design.T @ design)
    beta = inverse @ design.T @ y
    residual = y - design @ beta
    error = sqrt(float(residual @ residual) / (len(y) - 3) * inverse[1, 1])
    assert found.df == len(y) - 3
    assert found.estimate == pytest.approx(beta[1], abs=CLOSE)
    assert found.theta == pytest.approx(beta[2], abs=CLOSE)
    assert found.error == pytest.approx(error, abs=CLOSE)
    low, high = found.interval(0.05)
    half = stats.t.ppf(0.975, len(y) - 3) * error
    assert (low, high) == pytest.approx((beta[1] - half, beta[1] + half), abs=CLOSE)


def test_stores_alike_in_the_past_are_compared_by_students_t() -> None:
    y, _, treated = shop()
    found = compare(y, np.full(len(y), 5.0), treated)
    other = stats.ttest_ind(y[treated], y[~treated])
    ends = other.confidence_interval(0.95)
    assert found is not None
    assert found.p == pytest.approx(other.pvalue, abs=CLOSE)
    assert found.interval(0.05) == pytest.approx((ends.low, ends.high), abs=CLOSE)
    # tea-tasting 1.14.0, Mean("y", use_t=True, equal_var=True) of the same stores.
    assert found.estimate == pytest.approx(0.23730989863828889, abs=CLOSE)
    assert found.p == pytest.approx(0.0750675548071342, abs=CLOSE)
    assert found.interval(0.05) == pytest.approx((-0.026083789203341756, 0.5007035864799195), abs=CLOSE)


def test_few_stores_are_compared_by_their_growth() -> None:
    y, x, treated = shop(6)
    found = compare(y, x, treated)
    other = stats.ttest_ind((y - x)[treated], (y - x)[~treated])
    assert found is not None
    assert (found.theta, found.df) == (1.0, 4)
    assert found.p == pytest.approx(other.pvalue, abs=CLOSE)


def test_one_store_on_a_side_says_nothing() -> None:
    y, x, _ = shop(6)
    assert compare(y, x, np.array([True] + [False] * 5)) is None


@pytest.mark.soak
def test_statsmodels_says_the_same() -> None:
    from statsmodels.regression.linear_model import OLS
    from statsmodels.stats.multitest import multipletests
    from statsmodels.stats.power import TTestIndPower

    y, x, treated = shop()
    fit = OLS(y, np.column_stack([np.ones(len(y)), treated, x])).fit()
    found = compare(y, x, treated)
    assert found is not None
    assert (found.estimate, found.error, found.p) == pytest.approx(
        (fit.params[1], fit.bse[1], fit.pvalues[1]), abs=CLOSE
    )
    assert found.interval(0.05) == pytest.approx(tuple(fit.conf_int(0.05)[1]), abs=CLOSE)
    ps = [0.2, 0.001, 0.04, 0.03, 0.5]
    assert holm(ps) == pytest.approx(list(multipletests(ps, method="holm")[1]), abs=CLOSE)
    solved = TTestIndPower().solve_power(nobs1=25, alpha=0.05, power=0.8)
    assert detectable(sqrt(2 / 25), 48, 0.05, 0.8) == pytest.approx(solved, abs=1e-6)


# ---------------------------------------------------------------- looks


def test_the_boundaries_are_the_published_ones() -> None:
    """Lan and DeMets' O'Brien-Fleming spending, two-sided 0.05 (Jennison and Turnbull 2000; R package ldbounds)."""
    assert boundaries((1, 2, 3, 4, 5), 0.05) == pytest.approx((4.8769, 3.3569, 2.6803, 2.2898, 2.0310), abs=2e-4)
    assert nominal_alphas((14,), 0.05) == pytest.approx([0.05], abs=1e-9)
    assert spent(0.05, 1.0) == pytest.approx(0.05)


def test_two_looks_err_as_often_as_they_may() -> None:
    """The probability that both are quiet, by scipy's bivariate normal."""
    a, b = boundaries((7, 14), 0.05)
    normal = stats.multivariate_normal([0, 0], [[1, sqrt(0.5)], [sqrt(0.5), 1]])
    assert normal.cdf([a, b], lower_limit=[-a, -b]) == pytest.approx(0.95, abs=1e-5)


def test_what_can_be_seen_is_seen_with_the_power() -> None:
    effect = detectable(1.0, 20, 0.05, 0.8)
    edge = stats.t.isf(0.025, 20)
    assert stats.nct.sf(edge, 20, effect) + stats.nct.cdf(-edge, 20, effect) == pytest.approx(0.8, abs=1e-7)
    # One degree of freedom, where nct is not a number: the standard deviation is |z|, of which 0.8 lie below 1.2816.
    edge = stats.t.isf(0.025, 1)
    assert detectable(1.0, 1, 0.05, 0.8) == pytest.approx(edge * stats.norm.isf(0.1), rel=0.01)
    assert reach(0.16, 100, 100, 0.05, 0.8) < reach(0.16, 50, 50, 0.05, 0.8) < reach(0.16, 2, 50, 0.05, 0.8)


# ---------------------------------------------------------------- safety


def counted(*pairs: tuple[int, int]) -> tuple[np.ndarray, np.ndarray]:
    return np.array([k for k, _ in pairs], dtype=float), np.array([n for _, n in pairs], dtype=float)


def test_the_exact_tests_are_the_textbooks() -> None:
    before, after = counted((3, 100), (1, 100)), counted((6, 80))
    rate = exact_p(MetricKind.RATE, before, after, worse_is_more=True)
    tail = sum(comb(80, k) * comb(200, 10 - k) for k in range(6, 11)) / comb(280, 10)
    assert rate == pytest.approx(tail, abs=CLOSE)
    assert rate == pytest.approx(stats.fisher_exact([[6, 74], [4, 196]], alternative="greater").pvalue, abs=CLOSE)
    count = exact_p(MetricKind.COUNT, before, after, worse_is_more=True)
    assert count == pytest.approx(stats.binomtest(6, 10, 80 / 280, alternative="greater").pvalue, abs=CLOSE)
    fewer = exact_p(MetricKind.COUNT, before, after, worse_is_more=False)
    assert fewer == pytest.approx(stats.binomtest(6, 10, 80 / 280, alternative="less").pvalue, abs=CLOSE)


def test_days_that_differ_much_are_believed_less() -> None:
    spec = metric_of("complaints")
    calm = counted(*[(4, 400)] * 28)
    wild = counted(*[(0, 400)] * 21, *[(16, 400)] * 7)
    bad = counted((14, 400))
    quiet_p, wild_p = harm_p(spec, calm, bad), harm_p(spec, wild, bad)
    assert dispersion(MetricKind.COUNT, calm, bad)[0] == 1.0
    assert dispersion(MetricKind.COUNT, wild, bad)[0] > 10
    assert quiet_p is not None
    assert wild_p is not None
    assert quiet_p < 1e-3
    assert wild_p > 0.1


def test_errors_without_a_sale_are_not_overlooked() -> None:
    """The change stopped the shop: no denominator, and errors all the same."""
    days = [DayCount(FIRST, 1, 400)] * 28
    p = harm_p(metric_of("errors"), arrays(days), arrays([DayCount(FIRST, 30, 0)]))
    assert p is not None
    assert p < 1e-4


def test_a_mean_is_students_t_of_days_on_logarithms() -> None:
    rng = RNG(3)
    a, b = rng.lognormal(6, 0.2, 28), rng.lognormal(6.3, 0.2, 5)
    p = harm_p(metric_of("payment_answer_ms"), (a * 50, np.full(28, 50.0)), (b * 40, np.full(5, 40.0)))
    other = stats.ttest_ind(np.log(b), np.log(a), alternative="greater").pvalue
    assert p == pytest.approx(other, abs=CLOSE)


def test_holm() -> None:
    assert holm([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])
    assert holm([]) == []


def test_missing_stores_are_fishers_test() -> None:
    p = sample_ratio_p((50, 150), (50, 120))
    low = min(50, 30)
    weights = [comb(50, k) * comb(150, 30 - k) for k in range(low + 1)]
    at = weights[0]
    assert p == pytest.approx(sum(w for w in weights if w <= at) / sum(weights), abs=CLOSE)
    assert sample_ratio_p((50, 50), (50, 50)) == 1.0


# ---------------------------------------------------------------- staggered


def test_staggered_is_the_imputation_from_store_and_day_effects() -> None:
    """Against least squares with a dummy for each store and day, on store-days without the change."""
    rng = RNG(5)
    stores, days = 12, 21
    wave = np.arange(stores) % 4
    under = np.arange(days)[None, :] >= (10 + 3 * wave)[:, None]
    under[wave == 3] = False
    values = rng.normal(0, 1, (stores, 1)) + rng.normal(0, 0.5, (1, days)) + rng.normal(0, 0.1, (stores, days))
    values = values + 0.3 * under
    values[2, 4] = np.nan
    found = adopted(values, under)
    assert found is not None
    rows = np.argwhere(~np.isnan(values))
    design = np.zeros((len(rows), stores + days))
    design[np.arange(len(rows)), rows[:, 0]] = 1
    design[np.arange(len(rows)), stores + rows[:, 1]] = 1
    y = values[rows[:, 0], rows[:, 1]]
    treated = under[rows[:, 0], rows[:, 1]]
    beta = np.linalg.lstsq(design[~treated], y[~treated], rcond=None)[0]
    assert found[0].estimate == pytest.approx(float((y - design @ beta)[treated].mean()), abs=CLOSE)
    assert found[0].df == int((wave != 3).sum()) - 1
    assert found[0].estimate == pytest.approx(0.3, abs=4 * found[0].error)
    without = [adopted(np.delete(values, n, axis=0), np.delete(under, n, axis=0)) for n in range(stores)]
    others = np.array([one[0].estimate for one in without if one is not None])
    error = sqrt((stores - 1) / stores * float(((others - others.mean()) ** 2).sum()))
    assert found[0].error == pytest.approx(error, abs=CLOSE)
    assert found[1] == 0


def test_days_on_which_every_store_has_the_change_are_left_out() -> None:
    values = RNG(6).normal(0, 1, (6, 10))
    under = np.zeros((6, 10), dtype=bool)
    under[:3, 5:] = True
    under[3:, 8:] = True
    found = adopted(values, under)
    assert found is not None
    assert found[1] == 12
