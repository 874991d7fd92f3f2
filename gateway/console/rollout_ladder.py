"""The ladder of a rollout as places: each stage's stores by where they stand, its gate's figures against their bounds.

Pure: from a rollout, what a tick sees of it, and the time. Widths are per cent of the drawing; a table has the counts.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

from actors.rollout_effects import StageView
from models.domain.ids import TerminalId
from models.domain.plan_reader import Text
from models.domain.rollout import RolloutState, StagePolicy, StageState, TargetState
from models.domain.rollout_gate import Counts, Gate
from models.domain.rollout_journal import NO_TEXT, UNTOUCHED, Mark, Rollout, StageMark
from models.domain.rollout_plan import PlannedStore
from models.domain.rollout_target import counts_of, stand_of
from models.domain.rollout_words import STAGE_STATES

STANDS = (
    "succeeded",
    "soaking",
    "in_progress",
    "queued",
    "offline",
    "failed",
    "timed_out",
    "lying",
    "rolling_back",
    "rolled_back",
    "superseded",
)
"""Where a store can stand, in the order in which a bar shows it."""
WAITING = Counts(0)
UNFINISHED = (StageState.OPEN, StageState.AWAITS_APPROVAL)
STOPPED = (RolloutState.HALTED, RolloutState.ROLLING_BACK, RolloutState.ROLLBACK_STUCK)
FOR_THE_START = Text("等待启动", "waits for the start")


@dataclass(frozen=True, slots=True)
class Part:
    """So many stores that stand alike, as a piece of the bar. `x` and `width` in per cent."""

    stand: str
    count: int
    x: float
    width: float


@dataclass(frozen=True, slots=True)
class Bound:
    """One figure of a gate against its bound. `at` and `bound_at` in per cent of the drawing; `unit` "%" or "".

    `least`: the bound is a least one, else a most. `met` None: nothing is known yet.
    """

    name: str
    value: int
    bound: int
    unit: str
    least: bool
    at: float
    bound_at: float
    met: bool | None


@dataclass(frozen=True, slots=True)
class Soak:
    """How far the healthy time is. `share`: of all mandatory terminals, in per cent; `least_s`: the newest one's."""

    share: int
    least_s: int
    soak_s: int
    soaking: int


@dataclass(frozen=True, slots=True)
class Rung:
    """One stage of the ladder. `why`: what it waits for, or how it ended."""

    number: int
    name: str
    stores: int
    terminals: int
    state: StageState
    parts: tuple[Part, ...]
    bounds: tuple[Bound, ...]
    soak: Soak | None
    gate: Gate | None
    why: Text
    mark: StageMark
    policy: StagePolicy
    unfinished: bool = False
    """The rollout was stopped or over before this stage was."""

    @property
    def state_word(self) -> Text:
        """Its state in words."""
        return Text("未完成", "not finished") if self.unfinished else STAGE_STATES[self.state]

    def count(self, stand: str) -> int:
        """Stores that stand so."""
        return sum(part.count for part in self.parts if part.stand == stand)


def ladder(rollout: Rollout, views: Sequence[StageView], now: datetime) -> tuple[Rung, ...]:
    """Every stage, from the first. `views`: of the open stages, as a tick sees them; none of one that is over."""
    found = []
    for number, stage in enumerate(rollout.plan.stages):
        mark, policy = rollout.stages[number], rollout.policy.stages[number].policy
        view = views[number] if number < len(views) else None
        opened = number <= rollout.stage
        counts = view.counts if view is not None else counts_of(stage.stores, rollout.marks, queue_over=False)
        found.append(
            Rung(
                number + 1,
                stage.name,
                len(stage.stores),
                sum(len(store.targets) for store in stage.stores),
                mark.state,
                _parts(stage.stores, rollout.marks),
                bounds(counts, policy) if opened else bounds(WAITING, policy),
                _soak(stage.stores, rollout.marks, policy, now) if opened else None,
                None if view is None else view.gate,
                _why(rollout, number, view),
                mark,
                policy,
                _cut_short(rollout, mark),
            )
        )
    return tuple(found)


def stand_shown(store: PlannedStore, marks: Mapping[TerminalId, Mark]) -> str:
    """Where a store stands; on its way back, that comes before how it failed."""
    states = {marks.get(one.terminal, UNTOUCHED).state for one in store.targets}
    if TargetState.ROLLING_BACK in states:
        return "rolling_back"
    if TargetState.ROLLED_BACK in states:
        return "rolled_back"
    return stand_of(store, marks)[0]


def _parts(stores: Sequence[PlannedStore], marks: Mapping[TerminalId, Mark]) -> tuple[Part, ...]:
    tally: dict[str, int] = {}
    for store in stores:
        stand = stand_shown(store, marks)
        tally[stand] = tally.get(stand, 0) + 1
    parts, before = [], 0
    for stand in STANDS:
        if count := tally.get(stand, 0):
            x = _percent(before, len(stores))
            parts.append(Part(stand, count, x, round(_percent(before + count, len(stores)) - x, 2)))
            before += count
    return tuple(parts)


def bounds(counts: Counts, policy: StagePolicy) -> tuple[Bound, ...]:
    """The gate's figures, each as the gate itself compares it (models.domain.rollout_gate)."""
    share = 100 * counts.succeeded // counts.reached if counts.reached else 0
    errors = _ceiling(100 * counts.errors, counts.asked)
    offline = _ceiling(100 * counts.offline, counts.stores)
    known = counts.stores > 0
    judged = known and counts.executed >= policy.executed_min
    return (
        _least("succeeded", share, policy.success_percent_min, "%", 100, judged),
        _least("executed", counts.executed, policy.executed_min, "", max(counts.stores, policy.executed_min, 1), known),
        _most("errors", counts.errors, policy.error_stores_max, "", known),
        _most("error_share", errors, policy.error_percent_max, "%", judged),
        _most("offline", offline, policy.offline_percent_max, "%", known),
    )


def _least(name: str, value: int, bound: int, unit: str, whole: int, known: bool) -> Bound:
    return Bound(
        name,
        value,
        bound,
        unit,
        True,
        _percent(value, whole),
        _percent(bound, whole),
        value >= bound if known else None,
    )


def _most(name: str, value: int, bound: int, unit: str, known: bool) -> Bound:
    """Drawn so that the bound stands at two thirds: how near it is can be seen, and that it was passed."""
    whole = max(1.5 * bound, float(value), 1.0)
    return Bound(
        name,
        value,
        bound,
        unit,
        False,
        _percent(value, whole),
        _percent(bound, whole),
        value <= bound if known else None,
    )


def _soak(
    stores: Sequence[PlannedStore], marks: Mapping[TerminalId, Mark], policy: StagePolicy, now: datetime
) -> Soak | None:
    """None where nobody has to soak."""
    if not policy.soak_s:
        return None
    whole = done = 0.0
    running: list[float] = []
    for store in stores:
        for target in store.targets:
            if not target.mandatory:
                continue
            mark = marks.get(target.terminal, UNTOUCHED)
            whole += 1
            if mark.state is TargetState.SUCCEEDED:
                done += 1
            elif mark.state is TargetState.SOAKING and mark.soak_since is not None:
                running.append(min(policy.soak_s, max(0.0, (now - mark.soak_since).total_seconds())))
    done += sum(running) / policy.soak_s
    share = int(100 * done / whole) if whole else 0
    return Soak(share, int(min(running, default=0.0)), policy.soak_s, len(running))


def _cut_short(rollout: Rollout, mark: StageMark) -> bool:
    return mark.state in UNFINISHED and (rollout.state in STOPPED or not rollout.state.active)


def _why(rollout: Rollout, number: int, view: StageView | None) -> Text:
    mark = rollout.stages[number]
    if _cut_short(rollout, mark):
        return Text("未完成：发布已停止", "not finished: the rollout was stopped before")
    if number > rollout.stage:
        if number == 0:
            return FOR_THE_START
        if not rollout.state.active or rollout.state in (RolloutState.HALTED, RolloutState.ROLLING_BACK):
            return Text("未开放：发布已停止", "never opened: the rollout was stopped")
        before = rollout.plan.stages[number - 1].name
        return Text(f"等待：阶段 {before} 通过", f"waits for: stage {before} to pass")
    if mark.state is StageState.HALTED:
        return mark.why
    if view is not None and rollout.stage == number:
        return view.gate.why
    if mark.state is StageState.PASSED:
        by = f"，{mark.approved_by} 批准" if mark.approved_by else ""
        whose = f", approved by {mark.approved_by}" if mark.approved_by else ""
        return Text(f"已通过{by}", f"passed{whose}")
    return mark.why if mark.why != NO_TEXT else (view.gate.why if view is not None else rollout.why)


def _percent(value: float, whole: float) -> float:
    return round(100 * min(value, whole) / whole, 2) if whole else 0.0


def _ceiling(above: int, below: int) -> int:
    """Rounded up: 2.1 % is over a cap of 2."""
    return -(-above // below) if below else 0
