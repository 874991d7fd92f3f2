"""From counts to a verdict: harm first, then the one metric that was registered; the same counts, the same verdict."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from datetime import date, timedelta
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from models.domain.evidence import (
    Arm,
    Candidate,
    DayCount,
    GateSpec,
    MetricId,
    Outcome,
    StageKind,
    StoreSample,
    Verdict,
    verdict_of,
)
from models.domain.evidence_metrics import DEFAULT_SAFETY, METRICS, metric_of
from models.domain.ids import StoreId
from runtime.evidence import judge, outlook
from runtime.evidence_desk import verdict_due
from runtime.evidence_matching import match
from runtime.evidence_safety import arrays, harm_p
from runtime.evidence_trial import Chain, samples_of, takings

FAILURES, ERRORS, TAKINGS = (MetricId(one) for one in ("payment_failure_rate", "errors", "takings_per_day"))
SAFETY = GateSpec(StageKind.SAFETY, (FAILURES, ERRORS), look_days=(3,))
PRIMARY = GateSpec(StageKind.PRIMARY, (FAILURES,), TAKINGS, look_days=(7, 14), mde=0.12)
START = date(2026, 3, 2)
CHAIN = Chain()


def days(counts: list[tuple[int, int]], first: date) -> tuple[DayCount, ...]:
    return tuple(DayCount(first + timedelta(days=n), k, of) for n, (k, of) in enumerate(counts))


def calm(store: str, arm: Arm = Arm.TREATED, after: tuple[int, int] = (4, 400), n_after: int = 3) -> StoreSample:
    """Four of 400 each day before; `after` each day after."""
    before = [(4 + (-1) ** n * (n % 3 == 0), 400) for n in range(28)]
    return StoreSample(StoreId(store), arm, days(before, START - timedelta(days=28)), days([after] * n_after, START))


def chain_of(treated: int, controls: int, effect: float = 0.0, n_after: int = 14, seed: int = 1) -> list[StoreSample]:
    values = takings(CHAIN, np.random.default_rng(seed), treated + controls, 28 + n_after)
    values[:treated, 28:] *= 1 + effect
    return samples_of(values, treated, 28, START - timedelta(days=28))


def quiet(samples: list[StoreSample]) -> list[StoreSample]:
    """The same stores and days, in a safety metric in which nothing happens to change."""
    return [
        replace(
            one,
            before=tuple(replace(day, numerator=4, denominator=400) for day in one.before),
            after=tuple(replace(day, numerator=4, denominator=400) for day in one.after),
        )
        for one in samples
    ]


def judged(samples: list[StoreSample], at: int = 14, rule: GateSpec = PRIMARY) -> Verdict:
    return judge(rule, {FAILURES: quiet(samples), TAKINGS: samples}, at)


# ---------------------------------------------------------------- safety


def test_two_quiet_stores_are_safe_and_told_what_goes_unseen() -> None:
    verdict = judge(SAFETY, {FAILURES: [calm("a"), calm("b")], ERRORS: [calm("a"), calm("b")]}, 3)
    assert verdict.outcome is Outcome.SAFE
    assert "unseen" in verdict.why.en
    assert "看不出" in verdict.why.zh
    assert {one.store for one in verdict.findings} == {"a", "b", None}
    assert all(one.mde and one.mde > 0 for one in verdict.findings)
    assert (verdict.treated, verdict.look, verdict.looks, verdict.final) == (2, 1, 1, True)


def test_harm_in_one_store_is_unsafe_and_named() -> None:
    bad = calm("b", after=(20, 400))
    verdict = judge(SAFETY, {FAILURES: [calm("a"), bad], ERRORS: [calm("a"), calm("b")]}, 3)
    assert verdict.outcome is Outcome.UNSAFE
    assert verdict.halts
    assert {(one.metric, one.store) for one in verdict.findings if one.unsafe} >= {(FAILURES, StoreId("b"))}
    assert "payment failures" in verdict.why.en


def test_more_looks_cost_more_at_each() -> None:
    samples = {one: [calm("a", after=(7, 400)), calm("b")] for one in SAFETY.safety}
    once = judge(SAFETY, samples, 3).findings
    thrice = judge(replace(SAFETY, look_days=(1, 2, 3)), samples, 3).findings
    for one, other in zip(once, thrice, strict=True):
        assert other.p == one.p
        assert other.p_adjusted == pytest.approx(min(1.0, 3 * one.p_adjusted)) or one.p_adjusted == 1.0


def test_stores_are_added_up_day_by_day() -> None:
    verdict = judge(SAFETY, {FAILURES: [calm("a"), calm("b"), calm("c")], ERRORS: [calm("a")]}, 3)
    [together] = [one for one in verdict.findings if one.store is None]
    one = calm("a")
    before, after = (
        arrays([DayCount(day.day, 3 * day.numerator, 3 * day.denominator) for day in side])
        for side in (one.before, one.after)
    )
    assert together.p == pytest.approx(harm_p(metric_of(FAILURES), before, after))


def test_harm_that_the_controls_have_too_says_so() -> None:
    def everywhere(arm: Arm, names: str) -> list[StoreSample]:
        return [calm(one, arm, after=(40, 400)) for one in names]

    those = [*everywhere(Arm.TREATED, "ab"), *everywhere(Arm.CONTROL, "cd")]
    still = [calm(one, arm) for one, arm in (("a", Arm.TREATED), ("b", Arm.TREATED))]
    verdict = judge(SAFETY, {FAILURES: those, ERRORS: still}, 3)
    assert verdict.outcome is Outcome.UNSAFE
    assert "elsewhere" in verdict.why.en


def test_a_store_without_a_day_to_compare_makes_it_invalid_never_safe() -> None:
    silent = StoreSample(StoreId("b"), Arm.TREATED, (), ())
    verdict = judge(SAFETY, {FAILURES: [calm("a"), silent], ERRORS: [calm("a"), silent]}, 3)
    assert verdict.outcome is Outcome.INVALID
    assert "b" in verdict.why.en


def test_a_shop_that_stopped_selling_is_harm() -> None:
    rule = GateSpec(StageKind.SAFETY, (MetricId("sales_per_day"),), look_days=(1,))
    rng = np.random.default_rng(4)
    before = days([(int(rng.poisson(400) * rng.uniform(0.8, 1.2)), 1) for _ in range(28)], START - timedelta(days=28))
    dead = StoreSample(StoreId("a"), Arm.TREATED, before, days([(0, 1)], START))
    alive = StoreSample(StoreId("a"), Arm.TREATED, before, days([(390, 1)], START))
    assert judge(rule, {rule.safety[0]: [dead]}, 1).outcome is Outcome.UNSAFE
    assert judge(rule, {rule.safety[0]: [alive]}, 1).outcome is Outcome.SAFE


# ---------------------------------------------------------------- the primary metric


@pytest.mark.parametrize(("effect", "outcome"), [(0.3, Outcome.BETTER), (-0.3, Outcome.WORSE), (0.0, Outcome.UNCLEAR)])
def test_an_effect_is_seen_in_its_direction(effect: float, outcome: Outcome) -> None:
    verdict = judged(chain_of(40, 40, effect))
    assert verdict.outcome is outcome
    assert verdict.low is not None
    assert verdict.high is not None
    assert verdict.low <= effect <= verdict.high
    assert verdict.halts is (outcome is Outcome.WORSE)
    assert verdict.look == 2


def test_where_less_is_better_a_fall_is_better() -> None:
    rule = replace(PRIMARY, primary=MetricId("payment_answer_ms"))
    samples = chain_of(40, 40, -0.3)
    found = judge(rule, {FAILURES: quiet(samples), MetricId("payment_answer_ms"): samples}, 14)
    assert found.outcome is Outcome.BETTER


def test_harm_comes_before_a_better_metric() -> None:
    samples = chain_of(40, 40, 0.3)
    failing = [
        replace(one, after=tuple(replace(day, numerator=60) for day in one.after)) if one.arm is Arm.TREATED else one
        for one in quiet(samples)
    ]
    verdict = judge(PRIMARY, {FAILURES: failing, TAKINGS: samples}, 14)
    assert verdict.outcome is Outcome.UNSAFE
    assert verdict.estimate is None


def test_looking_late_or_twice_gives_the_same() -> None:
    """Days after the look's own are left out: nobody waits for a day that suits them."""
    samples = chain_of(20, 20)
    first = judged(samples, 7)
    assert first.look == 1
    assert judged(samples, 13) == first
    assert judged(samples, 14) != first
    assert judged(list(reversed(samples)), 14) == judged(samples, 14)


def test_days_count_from_the_last_store_that_began() -> None:
    samples = chain_of(20, 20, 0.3, n_after=20)
    late = [
        replace(one, before=(*one.before, *one.after[:5]), after=one.after[5:]) if one.store == "s0003" else one
        for one in samples
    ]
    verdict = judged(late, 14)
    assert verdict == judged([replace(one, after=one.after[:19]) for one in late], 14)
    assert verdict != judged([replace(one, after=one.after[:14]) for one in late], 14)


def test_the_first_look_has_the_wider_interval() -> None:
    samples = chain_of(30, 30)
    one, both = judged(samples, 7), judged(samples, 7, replace(PRIMARY, look_days=(7,)))
    assert one.high is not None
    assert both.high is not None
    assert one.high > both.high


def test_the_interval_of_all_looks_decides_not_the_p_of_one() -> None:
    looks = (judged(chain_of(30, 30, step / 200), 7) for step in range(40))
    verdict = next(one for one in looks if one.p is not None and one.p < 0.03)
    assert verdict.p is not None
    assert verdict.p > 0.005
    assert verdict.estimate is not None
    assert verdict.estimate > 0
    assert verdict.outcome is Outcome.UNCLEAR


def test_before_the_first_look_nothing_is_said() -> None:
    with pytest.raises(ValueError, match="first look"):
        judged(chain_of(4, 4), 6)
    with pytest.raises(ValueError, match="takings"):
        judge(PRIMARY, {FAILURES: quiet(chain_of(4, 4))}, 7)


def test_stores_missing_on_one_side_make_it_invalid() -> None:
    samples = chain_of(40, 40, 0.3)
    thinned = [replace(one, after=()) if one.arm is Arm.CONTROL and n % 2 else one for n, one in enumerate(samples)]
    verdict = judged(thinned)
    assert verdict.outcome is Outcome.INVALID
    assert verdict.sample_ratio_p is not None
    assert verdict.sample_ratio_p < 1e-3
    assert "missing" in verdict.why.en


def test_two_stores_cannot_be_told_an_effect() -> None:
    verdict = judged(chain_of(2, 2, 0.3))
    assert verdict.outcome is Outcome.UNCLEAR
    assert verdict.mde is not None
    assert verdict.mde > 0.5


def test_staggered_waves_find_the_effect() -> None:
    """Ten stores a week; the last ten not yet."""
    rule = GateSpec(StageKind.STAGGERED, (FAILURES,), TAKINGS, look_days=(21,))
    values = takings(CHAIN, np.random.default_rng(9), 40, 49)
    samples = []
    for n in range(40):
        since = 28 + 7 * (n // 10)
        values[n, since:] *= 1.3
        [one] = samples_of(values[n : n + 1], int(n < 30), since if n < 30 else 28, START - timedelta(days=28))
        samples.append(replace(one, store=StoreId(f"s{n:02}")))
        if n >= 30:
            values[n, since:] /= 1.3
            [one] = samples_of(values[n : n + 1], 0, 28, START - timedelta(days=28))
            samples[-1] = replace(one, store=StoreId(f"s{n:02}"))
    verdict = judge(rule, {FAILURES: quiet(samples), TAKINGS: samples}, 21)
    assert verdict.outcome is Outcome.BETTER
    assert verdict.low is not None
    assert verdict.high is not None
    assert verdict.low < 0.3 < verdict.high


async def test_waves_are_compared_with_stores_that_begin_later_whoever_they_are() -> None:
    """Thirty stores in three waves; of the ten others half begin on the look's last day and half have not begun."""
    rule = GateSpec(StageKind.STAGGERED, (FAILURES,), TAKINGS, look_days=(21,))
    values = takings(CHAIN, np.random.default_rng(9), 40, 49)
    begun = {}
    for n in range(35):
        since = min(28 + 7 * (n // 10), 49)
        values[n, since:] *= 1.3
        begun[StoreId(f"s{n:02}")] = START + timedelta(days=since - 28)
    waiting = [StoreId(f"s{n:02}") for n in range(35, 40)]

    async def read(metric: MetricId, stores: Sequence[StoreId], since: date, until: date) -> dict[StoreId, Any]:
        first = START - timedelta(days=28)
        found = {}
        for store in stores:
            row = values[int(store[1:])]
            those = [(first + timedelta(days=day), row[day]) for day in range(49)]
            found[store] = tuple(
                DayCount(day, int(value) if metric == TAKINGS else 1 + day.day % 2, 1 if metric == TAKINGS else 400)
                for day, value in those
                if since <= day < until
            )
        return found

    verdict = await verdict_due(read, rule, begun, waiting, START + timedelta(days=21))
    assert verdict is not None
    assert (verdict.outcome, verdict.treated, verdict.controls) == (Outcome.BETTER, 30, 10)


def test_one_shop_that_is_rebuilt_does_not_stop_a_large_stage() -> None:
    samples = chain_of(40, 40, 0.3)
    gone = [replace(one, after=()) if n % 20 == 0 else one for n, one in enumerate(samples)]
    assert judged(gone).outcome is Outcome.BETTER
    many = [replace(one, after=()) if n % 6 == 0 else one for n, one in enumerate(samples)]
    assert judged(many).outcome is Outcome.INVALID


# ---------------------------------------------------------------- before the start


def test_the_outlook_says_before_the_start_what_will_be_seen() -> None:
    few, many = (outlook(PRIMARY, chain_of(n, n, n_after=0)) for n in (2, 60))
    assert few.mde is not None
    assert many.mde is not None
    assert (few.enough, many.enough) == (False, True)
    assert many.mde < 0.12 < 0.5 < few.mde
    assert "12.0 %" in few.why.en
    none = outlook(PRIMARY, chain_of(1, 1, n_after=0))
    assert (none.mde, none.enough) == (None, False)
    with pytest.raises(ValueError, match="primary"):
        outlook(SAFETY, chain_of(2, 2, n_after=0))


def candidate(store: str, level: int, region: str = "gz") -> Candidate:
    return Candidate(StoreId(store), {"region": region}, days([(level, 1)] * 28, START))


def test_controls_are_the_nearest_of_the_same_region_none_twice() -> None:
    pool = [candidate(f"p{n}", 100 * n) for n in range(1, 10)] + [candidate("far", 300, "sz")]
    chosen, short = match(
        [candidate("a", 305), candidate("b", 310)], pool, metric_of("takings_per_day"), ["region"], 1, 0
    )
    assert sorted(one for those in chosen.values() for one in those) in (["p3", "p4"], ["p2", "p3"])
    assert short == ()
    _, short = match(
        [candidate("a", 300, "sz"), candidate("b", 300, "sz")], pool, metric_of("takings_per_day"), ["region"], 1, 0
    )
    assert len(short) == 1


def test_matching_is_seeded_and_does_not_mind_the_order() -> None:
    pool = [candidate(f"p{n:02}", 100) for n in range(30)]
    mine = [candidate("a", 100), candidate("b", 100)]
    spec = metric_of("takings_per_day")
    first = match(mine, pool, spec, ["region"], 3, 7)
    assert match(list(reversed(mine)), list(reversed(pool)), spec, ["region"], 3, 7) == first
    assert len({match(mine, pool, spec, ["region"], 3, seed)[0][StoreId("a")] for seed in range(8)}) > 1


# ---------------------------------------------------------------- the rule and the record


def test_a_verdict_survives_storage() -> None:
    verdict = judged(chain_of(5, 5))
    stored = json.loads(json.dumps(verdict.document()))
    assert verdict_of(stored) == verdict
    assert verdict.rule_sha256 == PRIMARY.sha256 != SAFETY.sha256


def test_other_counts_or_another_rule_have_another_digest() -> None:
    samples = chain_of(5, 5)
    changed = [
        replace(samples[0], after=(replace(samples[0].after[0], numerator=1), *samples[0].after[1:])),
        *samples[1:],
    ]
    assert judged(samples).inputs_sha256 != judged(changed).inputs_sha256
    assert replace(PRIMARY, alpha=0.01).sha256 != PRIMARY.sha256


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("safety", ()),
        ("safety", (FAILURES, FAILURES)),
        ("primary", None),
        ("look_days", ()),
        ("look_days", (7, 7)),
        ("look_days", (0,)),
        ("before_days", 1),
        ("before_days", 167),
        ("controls_per_store", 0),
        ("alpha", 0.0),
        ("power", 1.0),
        ("mde", -0.1),
    ],
)
def test_a_rule_that_cannot_be_followed_is_refused(field: str, value: Any) -> None:
    with pytest.raises(ValueError, match=field):
        replace(PRIMARY, **{field: value})


def test_the_watched_metrics_exist() -> None:
    assert set(DEFAULT_SAFETY) <= set(METRICS)
    with pytest.raises(ValueError, match="takings_per_day"):
        metric_of("nonsense")


@settings(max_examples=30, deadline=None)
@given(
    st.lists(
        st.tuples(
            st.sampled_from([Arm.TREATED, Arm.CONTROL]),
            st.lists(st.tuples(st.integers(0, 50), st.integers(0, 50)), max_size=6),
            st.lists(st.tuples(st.integers(0, 50), st.integers(0, 50)), max_size=4),
        ),
        min_size=1,
        max_size=6,
    )
)
def test_whatever_the_counts_there_is_a_verdict_that_can_be_stored(
    stores: list[tuple[Arm, list[tuple[int, int]], list[tuple[int, int]]]],
) -> None:
    """Empty stores, empty days, nothing on one side: never an exception, never NaN, and safe only if judged."""
    samples = [
        StoreSample(
            StoreId(f"s{n}"),
            arm,
            days([(min(k, of), of) for k, of in b], START - timedelta(days=28)),
            days([(min(k, of), of) for k, of in a], START),
        )
        for n, (arm, b, a) in enumerate(stores)
    ]
    rule = replace(PRIMARY, safety=(FAILURES, ERRORS), before_days=60)
    verdict = judge(rule, {FAILURES: samples, ERRORS: samples, TAKINGS: samples}, 7)
    assert verdict_of(json.loads(json.dumps(verdict.document(), allow_nan=False))) == verdict
    assert verdict.why.en
    assert verdict.why.zh
    if not any(one.arm is Arm.TREATED for one in samples):
        assert verdict.outcome is Outcome.INVALID
