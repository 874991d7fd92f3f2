"""Evidence for whoever runs a rollout: controls chosen and outlook told before a stage, a verdict when a look is due.

The statistics run in a thread of their own and are imported with the first of them.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date, timedelta

from models.domain.evidence import (
    Arm,
    Candidate,
    GateSpec,
    MetricId,
    Outlook,
    StageKind,
    StoreSample,
    Verdict,
)
from models.domain.evidence_metrics import metric_of
from models.domain.ids import StoreId
from models.tables.evidence import Reader, read_samples

Labels = Mapping[StoreId, Mapping[str, str]]


@dataclass(frozen=True, slots=True)
class Prepared:
    """What is registered with a stage's start. `short`: stores that found fewer controls than the rule asks for."""

    controls: Mapping[StoreId, tuple[StoreId, ...]]
    short: tuple[StoreId, ...]
    outlook: Outlook | None

    @property
    def all_controls(self) -> tuple[StoreId, ...]:
        """Each once, sorted."""
        return tuple(sorted(one for those in self.controls.values() for one in those))


async def prepare(read: Reader, rule: GateSpec, stores: Sequence[StoreId], pool: Labels, today: date) -> Prepared:
    """Match controls for a stage and tell what it will see. `pool`: labels of every store, the stage's own too.

    Stores of `pool` that are to change within the stage must not be in it, except the stage's own. Matching and outlook
    use the primary metric, in a stage of safety only the first one of safety; full days before `today`.
    """
    metric = metric_of(rule.primary or rule.safety[0])
    since = today - timedelta(days=rule.before_days + rule.look_days[-1])
    days = await read(metric.id, sorted({*pool, *stores}), since, today)
    mine = [Candidate(one, pool.get(one, {}), days[one]) for one in stores]
    others = [Candidate(one, labels, days[one]) for one, labels in pool.items() if one not in set(stores)]

    def worked_out() -> Prepared:
        from runtime.evidence import outlook
        from runtime.evidence_matching import match

        chosen, short = match(mine, others, metric, rule.match_labels, rule.controls_per_store, rule.seed)
        if rule.primary is None:
            return Prepared(chosen, short, None)
        beside = sorted(one for those in chosen.values() for one in those)
        samples = [StoreSample(one, Arm.TREATED, days[one], ()) for one in stores]
        samples += [StoreSample(one, Arm.CONTROL, days[one], ()) for one in beside]
        return Prepared(chosen, short, outlook(rule, samples))

    return await asyncio.to_thread(worked_out)


async def verdict_due(
    read: Reader,
    rule: GateSpec,
    treated: Mapping[StoreId, date],
    controls: Sequence[StoreId],
    today: date,
) -> Verdict | None:
    """The verdict of the look that is due on `today`; None before the first. Asked again it is the same.

    `treated`: each store's first full business day under the change, of every store that was planned and began. In
    waves `controls` are the stores that are still to begin; who begins only after the look's last day is one of them.
    """
    begun = (min if rule.kind is StageKind.STAGGERED else max)(treated.values(), default=today)
    days = (today - begun).days
    look = rule.look_of(days)
    if look is None:
        return None
    until = begun + timedelta(days=rule.look_days[look - 1])
    wanted: list[MetricId] = [*rule.safety, *([rule.primary] if rule.primary else [])]
    later = [store for store, first in treated.items() if first >= until]
    under = {store: first for store, first in treated.items() if first < until}
    samples = await read_samples(read, wanted, under, [*controls, *later], rule.before_days, until)

    def judged() -> Verdict:
        from runtime.evidence import judge

        return judge(rule, samples, days)

    return await asyncio.to_thread(judged)
