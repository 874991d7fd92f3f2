"""From counts of stores to a verdict, by a rule that was registered before: what a gate of a rollout is given.

Only the process that judges imports this: scipy takes two seconds of CPU and 75 MiB. Methods and what each stage can
see: docs/rollout-evidence.md.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from datetime import date, timedelta
from math import exp

import numpy as np
from numpy.typing import NDArray

from models.domain.evidence import (
    STORES_NAMED_MAX,
    Arm,
    DayCount,
    Direction,
    Finding,
    GateSpec,
    MetricId,
    MetricSpec,
    Outcome,
    Outlook,
    Point,
    StageKind,
    StoreSample,
    Verdict,
    effect_told,
    samples_sha256,
)
from models.domain.evidence_metrics import metric_of
from models.domain.ids import StoreId
from models.domain.plan_reader import Text
from runtime import evidence_safety as safety
from runtime.evidence_cuped import Comparison, compare, reach, sample_ratio_p
from runtime.evidence_looks import detectable, nominal_alphas
from runtime.evidence_staggered import adopted

Floats = NDArray[np.float64]
Samples = Mapping[MetricId, Sequence[StoreSample]]

RISES_NAMED_MAX = 3
SILENT_PERCENT_MAX = 10
"""So many of a large stage's stores may have nothing to compare: some shop is always being rebuilt. Of a stage of
safety's few none may, and whether they are missing in one arm more than in the other is a test of its own."""


def judge(rule: GateSpec, samples: Samples, days: int) -> Verdict:
    """The verdict of the look that is due after `days` full days under the change: counted from the last store that
    began, in a stage of waves from the first.

    `samples` has every metric of the rule, and in each every store that was planned: one without data stands there
    without days, so that its absence is seen. Days after the look's own are left out, so that looking late or twice
    gives the same. Raises ValueError when no look is due, or a metric is missing.
    """
    look = rule.look_of(days)
    if look is None:
        raise ValueError(f"the first look is after {rule.look_days[0]} full days, not {days}")
    wanted = [*rule.safety, *([rule.primary] if rule.primary else [])]
    if missing := [one for one in wanted if not samples.get(one)]:
        raise ValueError(f"no samples of {', '.join(missing)}")
    last = rule.look_days[look - 1]
    waves = rule.kind is StageKind.STAGGERED
    cut = {one: _cut(samples[one], rule.before_days, last, waves=waves) for one in dict.fromkeys(wanted)}
    lead = rule.primary or rule.safety[0]
    first = cut[lead]
    blank = Verdict(
        Outcome.INVALID,
        rule.kind,
        Text("", ""),
        look,
        rule.looks,
        samples_sha256(cut),
        rule.sha256,
        metric=rule.primary,
        treated=sum(one.arm is Arm.TREATED and one.seen for one in first),
        controls=sum(one.arm is Arm.CONTROL and one.seen for one in first),
        points=_points(metric_of(lead), first),
    )
    checked = _safe(blank, rule, cut)
    if rule.primary is None or checked.outcome is not Outcome.SAFE:
        return checked
    return _effect(checked, rule, metric_of(rule.primary), first)


def outlook(rule: GateSpec, samples: Sequence[StoreSample]) -> Outlook:
    """What the rule's primary metric will be able to see in these stores, from their days before alone.

    The last days before play the part of the days after. Raises ValueError for a rule without a primary metric.
    """
    if rule.primary is None:
        raise ValueError("a stage of safety only has no primary metric")
    spec = metric_of(rule.primary)
    cut = _cut(samples, rule.before_days + rule.look_days[-1], 0)
    held = min(rule.look_days[-1], max((len(one.before) for one in cut), default=0) // 2)
    pretended = [
        replace(one, before=one.before[: len(one.before) - held], after=one.before[len(one.before) - held :])
        for one in cut
    ]
    treated, controls = (sum(one.arm is arm and one.seen for one in pretended) for arm in (Arm.TREATED, Arm.CONTROL))
    found = _compared(spec, pretended)
    mde = None
    if found is not None:
        level = nominal_alphas(rule.look_days, rule.alpha)[-1]
        mde = _told(spec, reach(found.sd, treated, controls, level, rule.power))
    enough = mde is not None and (rule.mde is None or mde <= rule.mde)
    return Outlook(
        rule.primary,
        treated,
        controls,
        rule.look_days[-1],
        found.sd if found else 0.0,
        mde,
        enough,
        _outlook_why(rule, spec, treated, controls, mde, enough),
    )


# ---------------------------------------------------------------- harm


def _safe(blank: Verdict, rule: GateSpec, samples: Samples) -> Verdict:
    """SAFE, UNSAFE, or INVALID where of some store nothing can be said."""
    own: list[Finding] = []
    pooled: list[Finding] = []
    for metric in rule.safety:
        spec, those = metric_of(metric), samples[metric]
        treated = [one for one in those if one.arm is Arm.TREATED]
        beside = _tested(spec, None, [one for one in those if one.arm is Arm.CONTROL], rule)
        own += [one for store in treated if (one := _tested(spec, store.store, [store], rule))]
        together = _tested(spec, None, treated, rule) if len(treated) > 1 else None
        if together is not None:
            pooled.append(replace(together, controls_p=beside.p if beside else None))
    stores = {one.store for metric in rule.safety for one in samples[metric] if one.arm is Arm.TREATED}
    silent = sorted(stores - {one.store for one in own if one.store is not None})
    findings = _adjusted(own, pooled, rule)
    verdict = replace(blank, findings=findings)
    if any(one.unsafe for one in findings):
        return replace(verdict, outcome=Outcome.UNSAFE, why=_harm_why(findings))
    few = 0 if rule.kind is StageKind.SAFETY else len(stores) * SILENT_PERCENT_MAX // 100
    if len(silent) > few or not stores:
        return replace(
            verdict,
            why=Text(
                f"没有可比的数据：{_named(silent) or '没有门店'}", f"nothing to compare: {_named(silent) or 'no store'}"
            ),
        )
    return replace(verdict, outcome=Outcome.SAFE, why=_safe_why(findings, len(stores)))


def _tested(spec: MetricSpec, store: StoreId | None, those: Sequence[StoreSample], rule: GateSpec) -> Finding | None:
    """One test; several stores are added up day by day, so that what they share is in the spread of the days."""
    before = safety.arrays(_added(day for one in those for day in one.before))
    after = safety.arrays(_added(day for one in those for day in one.after))
    p = safety.harm_p(spec, before, after)
    if p is None:
        return None
    was, now = (spec.per * float(k.sum() / n.sum()) for k, n in (before, after))
    rise = safety.rise_seen(spec, before, after, rule.alpha / rule.looks / 2 / len(rule.safety), rule.power)
    return Finding(spec.id, store, was, now, p, p, unsafe=False, mde=rise)


def _adjusted(own: Sequence[Finding], pooled: Sequence[Finding], rule: GateSpec) -> tuple[Finding, ...]:
    """Holm within each family; half of alpha for each where there are two; the looks share it equally."""
    families = [one for one in (pooled, own) if one]
    found: list[Finding] = []
    for family in families:
        share = len(families) * rule.looks
        for one, p in zip(family, safety.holm([one.p for one in family]), strict=True):
            adjusted = min(1.0, p * share)
            found.append(replace(one, p_adjusted=adjusted, unsafe=adjusted < rule.alpha))
    return tuple(found)


def _added(days: Iterable[DayCount]) -> list[DayCount]:
    sums: dict[date, tuple[int, int]] = {}
    for one in days:
        numerator, denominator = sums.get(one.day, (0, 0))
        sums[one.day] = (numerator + one.numerator, denominator + one.denominator)
    return [DayCount(day, *counts) for day, counts in sorted(sums.items())]


# ---------------------------------------------------------------- the primary metric


def _effect(verdict: Verdict, rule: GateSpec, spec: MetricSpec, samples: Sequence[StoreSample]) -> Verdict:
    """The primary metric of a stage in which no harm was seen."""
    planned = tuple(sum(one.arm is arm for one in samples) for arm in (Arm.TREATED, Arm.CONTROL))
    staggered = rule.kind is StageKind.STAGGERED
    ratio = None if staggered else sample_ratio_p((planned[0], planned[1]), (verdict.treated, verdict.controls))
    verdict = replace(verdict, sample_ratio_p=ratio, outcome=Outcome.INVALID)
    if ratio is not None and ratio < rule.sample_ratio_alpha:
        seen = f"{verdict.treated}/{planned[0]}, {verdict.controls}/{planned[1]}"
        return replace(
            verdict,
            why=Text(
                f"两组缺数据的门店比例不同（{seen}，p={ratio:.2g}）：先查原因",
                f"stores are missing in one arm more than in the other ({seen}, p={ratio:.2g}): find out why first",
            ),
        )
    found = _staggered(spec, samples) if staggered else _compared(spec, samples)
    if found is None:
        return replace(
            verdict, why=Text("每组至少要有两家有数据的门店", "each arm needs two stores with data, at least")
        )
    levels = nominal_alphas(rule.look_days, rule.alpha)
    low, high = found.interval(levels[verdict.look - 1])
    mde = detectable(found.error, found.df, levels[-1], rule.power)
    up = spec.direction is Direction.UP
    outcome = Outcome.UNCLEAR
    if low > 0 or high < 0:
        outcome = Outcome.BETTER if (low > 0) == up else Outcome.WORSE
    verdict = replace(
        verdict,
        outcome=outcome,
        estimate=_told(spec, found.estimate),
        low=_told(spec, low),
        high=_told(spec, high),
        mde=_told(spec, mde),
        p=found.p,
    )
    return replace(verdict, why=_effect_why(verdict, spec))


def _compared(spec: MetricSpec, samples: Sequence[StoreSample]) -> Comparison | None:
    rows = [
        (after, before, one.arm is Arm.TREATED)
        for one in samples
        if one.seen
        and (after := _value(spec, one.after)) is not None
        and (before := _value(spec, one.before)) is not None
    ]
    if not rows:
        return None
    after_, before_, treated = zip(*rows, strict=True)
    return compare(np.array(after_), np.array(before_), np.array(treated, dtype=bool))


def _staggered(spec: MetricSpec, samples: Sequence[StoreSample]) -> Comparison | None:
    days = sorted({day.day for one in samples for day in (*one.before, *one.after)})
    at = {day: n for n, day in enumerate(days)}
    values = np.full((len(samples), len(days)), np.nan)
    under = np.zeros(values.shape, dtype=bool)
    for row, one in enumerate(samples):
        for side in (one.before, one.after):
            for day in side:
                value = _value(spec, (day,))
                values[row, at[day.day]] = np.nan if value is None else value
        if one.arm is Arm.TREATED:
            under[row, [at[day.day] for day in one.after]] = True
    found = adopted(values, under)
    return None if found is None else found[0]


def _value(spec: MetricSpec, days: Sequence[DayCount]) -> float | None:
    """The metric of these days, on the logarithm where effects are ratios; None where it has none."""
    over = sum(day.denominator for day in days)
    value = spec.per * sum(day.numerator for day in days) / over if over else None
    if value is None or (spec.relative and value <= 0):
        return None
    return float(np.log(value)) if spec.relative else value


def _told(spec: MetricSpec, effect: float) -> float:
    """An effect as a person reads it: a ratio minus 1, or a difference in the unit."""
    return exp(min(effect, 50.0)) - 1 if spec.relative else effect


def _cut(
    samples: Sequence[StoreSample], before_days: int, after_days: int, *, waves: bool = False
) -> list[StoreSample]:
    """The days that belong to a look: the last before the first store began, and so many once the last one had (in
    waves: once the first one had).
    """
    starts = [min(day.day for day in one.after) for one in samples if one.arm is Arm.TREATED and one.after]
    if not starts:
        starts = [max(day.day for day in one.before) + timedelta(days=1) for one in samples if one.before]
    if not starts:
        return sorted(samples, key=lambda one: (one.arm, one.store))
    since = min(starts) - timedelta(days=before_days)
    end = (min(starts) if waves else max(starts)) + timedelta(days=after_days)

    def kept(days: Sequence[DayCount]) -> tuple[DayCount, ...]:
        return tuple(sorted((day for day in days if since <= day.day < end), key=lambda day: day.day))

    found = [replace(one, before=kept(one.before), after=kept(one.after)) for one in samples]
    return sorted(found, key=lambda one: (one.arm, one.store))


def _points(spec: MetricSpec, samples: Sequence[StoreSample]) -> tuple[Point, ...]:
    def rate(days: Sequence[DayCount]) -> float:
        return spec.per * sum(day.numerator for day in days) / max(1, sum(day.denominator for day in days))

    return tuple(Point(one.store, one.arm, rate(one.before), rate(one.after)) for one in samples if one.seen)


# ---------------------------------------------------------------- words


def _named(stores: Sequence[str]) -> str:
    rest = len(stores) - STORES_NAMED_MAX
    return ", ".join(stores[:STORES_NAMED_MAX]) + (f" +{rest}" if rest > 0 else "")


def _harm_why(findings: Sequence[Finding]) -> Text:
    worst = min((one for one in findings if one.unsafe), key=lambda one: one.p_adjusted)
    spec = metric_of(worst.metric)
    more = sum(one.unsafe for one in findings) - 1
    zh = f"{spec.name.zh}变差：{worst.before:.3g} → {worst.after:.3g} {spec.unit}（{worst.store or '全部门店'}，"
    en = (
        f"{spec.name.en} got worse: {worst.before:.3g} -> {worst.after:.3g} {spec.unit} ({worst.store or 'all stores'},"
    )
    zh += f"校正后 p={worst.p_adjusted:.2g}）" + (f"，另有 {more} 项" if more else "")
    en += f" adjusted p={worst.p_adjusted:.2g})" + (f", and {more} more" if more else "")
    if any(one.unsafe and one.controls_p is not None and one.controls_p < 0.01 for one in findings):
        return Text(f"{zh}；对照门店也如此，原因可能在别处", f"{en}; the controls too, so look for a cause elsewhere")
    return Text(zh, en)


def _safe_why(findings: Sequence[Finding], stores: int) -> Text:
    """What was not seen, and what could not have been."""
    family = [one for one in findings if one.store is None] or findings
    rises = sorted(((one.mde, metric_of(one.metric)) for one in family if one.mde), key=lambda one: -one[0])
    unseen = [(spec, f"{100 * rise:.0f} %") for rise, spec in rises[:RISES_NAMED_MAX]]
    zh = f"{stores} 家门店未见变差" + (
        "；小于下列幅度的变差看不出：" + "，".join(f"{spec.name.zh} {size}" for spec, size in unseen) if unseen else ""
    )
    en = f"no harm seen in {stores} stores" + (
        "; smaller changes go unseen: " + ", ".join(f"{spec.name.en} {size}" for spec, size in unseen) if unseen else ""
    )
    return Text(zh, en)


def _effect_why(verdict: Verdict, spec: MetricSpec) -> Text:
    zh = {Outcome.BETTER: "变好", Outcome.WORSE: "变差", Outcome.UNCLEAR: "看不出差别"}[verdict.outcome]
    en = {Outcome.BETTER: "better", Outcome.WORSE: "worse", Outcome.UNCLEAR: "no difference seen"}[verdict.outcome]
    said = (
        f"{effect_told(spec, verdict.estimate)} [{effect_told(spec, verdict.low)}, {effect_told(spec, verdict.high)}]"
    )
    sees = effect_told(spec, verdict.mde).removeprefix("+")
    return Text(
        f"{spec.name.zh}{zh}：{said}；{verdict.treated} 家对 {verdict.controls} 家，第 {verdict.look}/{verdict.looks}"
        f" 次查看，可见的最小差别 {sees}",
        f"{spec.name.en}, {en}: {said}; {verdict.treated} stores against {verdict.controls}, look {verdict.look} of"
        f" {verdict.looks}, the smallest difference it can see {sees}",
    )


def _outlook_why(
    rule: GateSpec, spec: MetricSpec, treated: int, controls: int, mde: float | None, enough: bool
) -> Text:
    if mde is None:
        return Text(
            f"{treated} 家对 {controls} 家：门店太少，看不出任何效果",
            f"{treated} stores against {controls}: too few to see any effect",
        )
    sees = effect_told(spec, mde).removeprefix("+")
    days = rule.look_days[-1]
    zh = f"{treated} 家对 {controls} 家，{days} 天：{spec.name.zh}小于 {sees} 的差别看不出"
    en = f"{treated} stores against {controls} for {days} days: differences in {spec.name.en} below {sees} go unseen"
    if not enough:
        wanted = effect_told(spec, rule.mde).removeprefix("+")
        return Text(
            f"{zh}；登记的是 {wanted}，需要更多门店或天数", f"{en}; {wanted} was registered: take more stores or days"
        )
    return Text(zh, en)
