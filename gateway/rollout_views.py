"""A rollout as documents: plan, ladder, terminals, journal, evidence. Stages count from 1; 0 is before the start."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from datetime import datetime, timedelta
from typing import Any

import msgspec

from gateway.rollouts import Planned, Shown
from gateway.views import TextView, View
from models.domain.evidence import Outlook
from models.domain.plan_reader import Text
from models.domain.rollout import Artefact, StagePolicy, TargetState
from models.domain.rollout_gate import Counts, Gate
from models.domain.rollout_journal import Rollout
from models.domain.rollout_part import strange_settings
from models.domain.rollout_plan import PlannedStage, PlannedStore
from models.domain.rollout_target import counts_of
from models.tables.rollouts import StageOutlook

STORES_NAMED_MAX = 100
"""A planned stage names so many of its stores; the targets' list has them all."""


class ArtefactView(View):
    """What changes. `payload`: the part of a terminal's document that the rollout owns, canonical JSON."""

    kind: str
    key: str
    version: str
    sha256: str
    payload: str
    fallback: str


class OutlookView(View):
    """What a stage will be able to see. `mde`: the smallest detectable effect, a ratio where the metric is relative
    (0.12 is 12 %), else in its unit; null: too few stores. `short`: stores with fewer controls than the rule asks."""

    metric: str
    treated: int
    controls: int
    days: int
    sd: float
    mde: float | None
    enough: bool
    why: TextView
    short: int


class PlannedStageView(View):
    """One stage of a plan. `strata`: its stores by stratum, in the chain's shares. `first_stores`: up to 100."""

    number: int
    name: str
    stores: int
    terminals: int
    strata: dict[str, int]
    first_stores: list[str]
    controls: int
    outlook: OutlookView | None


class PlannedView(View):
    """A draft, or what one would be: `id` null where nothing was kept. `conflict`: the rollout in its way.

    `strange`: paths of a patch that no setting has, and what may have been meant: a vendor's own, or misspelt.
    """

    id: str | None
    state: str
    artefact: ArtefactView
    policy: str
    plan_sha256: str
    seed: int
    stores: int
    terminals: int
    conflict: str | None
    strange: list[str]
    stages: list[PlannedStageView]


class CountsView(View):
    """A stage's stores by where they stand; the nine states are their sum, `errors` and `executed` repeat some."""

    stores: int
    queued: int
    offline: int
    in_progress: int
    soaking: int
    succeeded: int
    failed: int
    timed_out: int
    lying: int
    regressed: int
    errors: int
    executed: int
    asked: int
    queue_over: bool


class GateView(View):
    """What a gate says: `way` advance, hold, await_approval or halt; `code` from a closed list; and why."""

    way: str
    code: str
    why: TextView


class RulesView(View):
    """The thresholds that a stage's gate holds its counts against, and its clock in seconds."""

    success_percent_min: int
    error_percent_max: int
    error_stores_max: int
    executed_min: int
    offline_percent_max: int
    soak_s: int
    queue_deadline_s: int
    in_progress_deadline_s: int
    soak_deadline_s: int
    flaps_max: int
    in_flight_stores_max: int
    starts_per_minute_max: int
    following: str
    attachments: list[str]


class RolloutStageView(View):
    """One step of the ladder. `counts` null: it is not open yet. `gate`: what it says now; of a rollout that is over
    what it said last, null: nothing. `targets`: terminals by state.

    `soaked_at`: when the last terminal that soaks now will have soaked, if it stays well; null: none soaks.
    """

    number: int
    name: str
    state: str
    stores: int
    terminals: int
    opened_at: datetime | None
    passed_at: datetime | None
    approved_by: str | None
    approved_at: datetime | None
    counts: CountsView | None
    gate: GateView | None
    rules: RulesView
    outlook: OutlookView | None
    targets: dict[str, int]
    soaked_at: datetime | None


class RolloutView(View):
    """One rollout as it stands now. `why`: what it waits for, or why it ended. `halted_at`: the stage whose gate did.

    `attachments_missing`: what the open stage requires before the next one.
    """

    id: str
    chain: str
    state: str
    why: TextView
    stage: int
    author: str
    created_at: datetime
    changed_at: datetime
    entries: int
    artefact: ArtefactView
    selector: dict[str, Any]
    policy: str
    policy_title: TextView
    tail: bool
    plan_sha256: str
    seed: int
    halted_at: int | None
    superseded_by: str | None
    supersedes: str | None
    """Whose changed terminals it took over."""
    attachments: dict[str, str]
    attachments_missing: list[str]
    joined: int
    """Stores that opened later and follow."""
    decisions: int
    stages: list[RolloutStageView]


class RolloutTurnView(View):
    """A rollout after a command."""

    id: str
    state: str
    stage: int
    why: TextView
    entries: int
    attachments: dict[str, str]


def text_view(text: Text) -> TextView:
    """In both languages."""
    return TextView(zh=text.zh, en=text.en)


def artefact_view(one: Artefact) -> ArtefactView:
    """As it was frozen."""
    return ArtefactView(
        kind=one.kind,
        key=one.key,
        version=one.version,
        sha256=one.sha256,
        payload=one.payload,
        fallback=one.fallback,
    )


def outlook_view(one: StageOutlook | None) -> OutlookView | None:
    """Null for a stage without evidence, or one of safety only."""
    if one is None or one.outlook is None:
        return None
    plain: Outlook = one.outlook
    return OutlookView(
        metric=plain.metric,
        treated=plain.treated,
        controls=plain.controls,
        days=plain.days,
        sd=plain.sd,
        mde=plain.mde,
        enough=plain.enough,
        why=text_view(plain.why),
        short=len(one.short),
    )


def planned_view(planned: Planned, *, kept: bool) -> PlannedView:
    """A draft; `kept` False: a preview, which has no number."""
    rollout = planned.rollout
    return PlannedView(
        id=rollout.id if kept else None,
        state=rollout.state,
        artefact=artefact_view(rollout.artefact),
        policy=rollout.policy.name,
        plan_sha256=rollout.plan.sha256,
        seed=rollout.plan.seed,
        stores=rollout.plan.stores,
        terminals=rollout.plan.targets,
        conflict=planned.conflict,
        strange=list(strange_settings(rollout.artefact)),
        stages=[
            _planned_stage(number, stage, outlook)
            for number, (stage, outlook) in enumerate(zip(rollout.plan.stages, planned.outlooks, strict=True), 1)
        ],
    )


def _planned_stage(number: int, stage: PlannedStage, outlook: StageOutlook | None) -> PlannedStageView:
    return PlannedStageView(
        number=number,
        name=stage.name,
        stores=len(stage.stores),
        terminals=_terminals(stage.stores),
        strata=dict(Counter(store.stratum for store in stage.stores)),
        first_stores=[store.store for store in stage.stores[:STORES_NAMED_MAX]],
        controls=0 if outlook is None else len(outlook.controls),
        outlook=outlook_view(outlook),
    )


def _terminals(stores: Iterable[PlannedStore]) -> int:
    return sum(len(store.targets) for store in stores)


# ---------------------------------------------------------------- as it stands


def rollout_view(shown: Shown) -> RolloutView:
    """The ladder with its gates."""
    header, turn, rollout = shown.header, shown.turn, shown.turn.rollout
    wanted = rollout.policy.stages[rollout.stage].policy.attachments if rollout.stage >= 0 else ()
    return RolloutView(
        id=header.id,
        chain=header.chain,
        state=rollout.state,
        why=text_view(turn.why),
        stage=rollout.stage + 1,
        author=header.author,
        created_at=header.created_at,
        changed_at=header.changed_at,
        entries=rollout.entries,
        artefact=artefact_view(rollout.artefact),
        selector=plain(msgspec.to_builtins(rollout.selector)),
        policy=rollout.policy.name,
        policy_title=text_view(rollout.policy.title),
        tail=rollout.policy.tail,
        plan_sha256=rollout.plan.sha256,
        seed=rollout.plan.seed,
        halted_at=None if rollout.halted_at is None else rollout.halted_at + 1,
        superseded_by=rollout.superseded_by,
        supersedes=rollout.supersedes,
        attachments=dict(rollout.attachments),
        attachments_missing=[name for name in wanted if name not in rollout.attachments],
        joined=len(rollout.tail),
        decisions=len(shown.decisions),
        stages=[_stage(shown, number) for number in range(len(rollout.plan.stages))],
    )


def _stage(shown: Shown, number: int) -> RolloutStageView:
    rollout = shown.turn.rollout
    stage, mark, rules = rollout.plan.stages[number], rollout.stages[number], rollout.policy.stages[number].policy
    open_ones = shown.turn.stages
    counts: Counts | None = None
    gate: Gate | None = None
    if number < len(open_ones):
        counts, gate = open_ones[number].counts, open_ones[number].gate
    elif mark.opened_at is not None:  # it is over: nobody asks the gates any more, what they said last stands
        counts = counts_of(stage.stores, rollout.marks, queue_over=False)
        gate = next((one.gate for one in reversed(shown.decisions) if one.stage == number), None)
    marks = [rollout.mark(target.terminal) for store in stage.stores for target in store.targets]
    soaking = [one.soak_since for one in marks if one.state is TargetState.SOAKING and one.soak_since is not None]
    return RolloutStageView(
        number=number + 1,
        name=stage.name,
        state=mark.state,
        stores=len(stage.stores),
        terminals=len(marks),
        opened_at=mark.opened_at,
        passed_at=mark.passed_at,
        approved_by=mark.approved_by,
        approved_at=mark.approved_at,
        counts=None if counts is None else counts_view(counts),
        gate=None if gate is None else gate_view(gate),
        rules=_rules(rules),
        outlook=outlook_view(shown.outlooks[number]),
        targets=dict(Counter(str(one.state) for one in marks)),
        soaked_at=max(soaking) + timedelta(seconds=rules.soak_s) if soaking else None,
    )


def counts_view(counts: Counts) -> CountsView:
    """Stores of a stage."""
    return CountsView(**{name: getattr(counts, name) for name in CountsView.model_fields})


def gate_view(gate: Gate) -> GateView:
    """One decision."""
    return GateView(way=gate.way, code=gate.code, why=text_view(gate.why))


def _rules(rules: StagePolicy) -> RulesView:
    values = {name: getattr(rules, name) for name in RulesView.model_fields}
    return RulesView(**{**values, "attachments": list(rules.attachments)})


def turn_view(rollout: Rollout, why: Text) -> RolloutTurnView:
    """After a command."""
    return RolloutTurnView(
        id=rollout.id,
        state=rollout.state,
        stage=rollout.stage + 1,
        why=text_view(why),
        entries=rollout.entries,
        attachments=dict(rollout.attachments),
    )


def plain(document: Mapping[str, Any]) -> dict[str, Any]:
    """Without what says nothing."""
    return {name: value for name, value in document.items() if value}
