"""A rollout is the fold of its journal: what was decided, of whom what was asked, what stood there before.

Nothing else is remembered. Each entry carries the whole new state of what it is about, so that the last one of a
thing is enough, and applying one twice changes nothing.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime

from models.domain.ids import ChainId, TerminalId
from models.domain.plan_reader import Text
from models.domain.rollout import (
    Artefact,
    PersonId,
    Reason,
    RolloutId,
    RolloutPolicy,
    RolloutState,
    Selector,
    StageState,
    TargetState,
)
from models.domain.rollout_plan import FrozenPlan, PlannedStore

NO_TEXT = Text("", "")
ON_THE_WAY = (TargetState.PREFETCHING, TargetState.ACTIVATING, TargetState.SOAKING)


@dataclass(frozen=True, slots=True)
class Mark:
    """What the journal knows of one target.

    `previous`: the part that stood in its desired document when it was asked (None: it was never asked), and
    `previous_version` what it reported then. `error` is the first failure; it stays through the way back, because the
    gate counts it. `fell`: how often it fell back from soaking or success.
    """

    state: TargetState = TargetState.QUEUED
    since: datetime | None = None
    reason: Reason = Reason.NONE
    previous: str | None = None
    previous_version: str = ""
    already: bool = False
    """It ran the new version before it was asked: no boot is waited for."""
    boot_before: str = ""
    asked_at: datetime | None = None
    asked_gen: int = 0
    """The generation that stood then. An order that is still on its way was made against it: a rollback is over only
    in a later one, where that order can do nothing any more."""
    fetched_at: datetime | None = None
    activated_at: datetime | None = None
    proved_at: datetime | None = None
    proved_gen: int = 0
    soak_since: datetime | None = None
    soak_boot: str = ""
    fell: int = 0
    succeeded_at: datetime | None = None
    error: TargetState | None = None
    error_reason: Reason = Reason.NONE
    restored_at: datetime | None = None
    told_at: datetime | None = None
    """When it was last commanded to activate, forward or back: once more after a while."""
    told: int = 0
    contradicted: int = 0
    """How often it answered that there is nothing to start, although it reports that the version lies ready."""
    answer: str = ""
    """What was said when it failed: its own words, its host's, or the last reason why it waited."""
    inherited: bool = False
    """A rollout that this one superseded had asked it, and this one has not yet."""
    earlier: tuple[str, ...] = ()
    """Digests of what superseded rollouts may have put there: ours, though neither the old part nor the new one."""

    @property
    def asked(self) -> bool:
        """Something may have changed there."""
        return self.previous is not None

    @property
    def on_the_way(self) -> bool:
        """Asked, and neither at the goal nor failed nor on its way back."""
        return self.state in ON_THE_WAY


UNTOUCHED = Mark()


@dataclass(frozen=True, slots=True)
class StageMark:
    """What the journal knows of one stage. `queue_since`: its opening, or the last resumption."""

    state: StageState = StageState.WAITING
    opened_at: datetime | None = None
    queue_since: datetime | None = None
    approved_by: PersonId | None = None
    approved_at: datetime | None = None
    passed_at: datetime | None = None
    code: str = ""
    why: Text = NO_TEXT


@dataclass(frozen=True, slots=True)
class Rollout:
    """One rollout, whole. `author` may not approve it. `stage`: the open one, -1 before the start."""

    id: RolloutId
    chain: ChainId
    artefact: Artefact
    selector: Selector
    policy: RolloutPolicy
    plan: FrozenPlan
    author: PersonId
    state: RolloutState = RolloutState.DRAFT
    stage: int = -1
    stages: tuple[StageMark, ...] = ()
    marks: Mapping[TerminalId, Mark] = field(default_factory=dict)
    attachments: Mapping[str, str] = field(default_factory=dict)
    tail: tuple[PlannedStore, ...] = ()
    """Stores that opened after the plan was frozen; they follow the last stage's rules."""
    halted_at: int | None = None
    """The stage whose gate halted it."""
    since: datetime | None = None
    why: Text = NO_TEXT
    superseded_by: RolloutId | None = None
    supersedes: RolloutId | None = None
    """Whose changed targets it took over, with what stood there before that one."""
    entries: int = 0
    """How many journal entries this is the fold of: compare-and-set for the driver."""

    def mark(self, target: TerminalId) -> Mark:
        """What is known of a target."""
        return self.marks.get(target, UNTOUCHED)


def drafted(
    rollout: RolloutId,
    chain: ChainId,
    artefact: Artefact,
    selector: Selector,
    policy: RolloutPolicy,
    plan: FrozenPlan,
    author: PersonId,
) -> Rollout:
    """A rollout before its first journal entry."""
    stages = (StageMark(),) * len(plan.stages)
    return Rollout(rollout, chain, artefact, selector, policy, plan, author, stages=stages)


# ---------------------------------------------------------------- entries


@dataclass(frozen=True, slots=True)
class RolloutMoved:
    """The rollout as a whole changed its state. `by` None: by the rules.

    `halted_at`: the stage whose gate stopped it, with the gate's `code`. Going on after a pause sets the queues' clocks
    anew; completion passes the last stage.
    """

    at: datetime
    state: RolloutState
    why: Text
    by: PersonId | None = None
    halted_at: int | None = None
    code: str = ""
    superseded_by: RolloutId | None = None
    supersedes: RolloutId | None = None


@dataclass(frozen=True, slots=True)
class StageMoved:
    """A stage opened (which passes the one before it), was approved or waits again."""

    at: datetime
    stage: int
    mark: StageMark


@dataclass(frozen=True, slots=True)
class TargetMoved:
    """One target's new mark."""

    at: datetime
    target: TerminalId
    mark: Mark


@dataclass(frozen=True, slots=True)
class Attached:
    """Somebody attached a document that a stage requires: `reference` says where it is kept."""

    at: datetime
    name: str
    reference: str
    by: PersonId


@dataclass(frozen=True, slots=True)
class TailJoined:
    """A store that opened later gets the change too."""

    at: datetime
    store: PlannedStore


Entry = RolloutMoved | StageMoved | TargetMoved | Attached | TailJoined


def folded(rollout: Rollout, entries: Iterable[Entry]) -> Rollout:
    """The rollout after these entries, in their order. `folded(drafted(…), journal)` is the stored rollout."""
    marks: dict[TerminalId, Mark] | None = None
    count = 0
    for entry in entries:
        count += 1
        if isinstance(entry, TargetMoved):
            if marks is None:
                marks = dict(rollout.marks)
            marks[entry.target] = entry.mark
        else:
            rollout = _applied(rollout, entry)
    if not count:
        return rollout
    return replace(rollout, marks=rollout.marks if marks is None else marks, entries=rollout.entries + count)


def _applied(rollout: Rollout, entry: RolloutMoved | StageMoved | Attached | TailJoined) -> Rollout:
    match entry:
        case RolloutMoved():
            return _moved(rollout, entry)
        case StageMoved():
            opens = entry.stage > rollout.stage
            stages = list(rollout.stages)
            stages[entry.stage] = entry.mark
            if opens and rollout.stage >= 0:
                stages[rollout.stage] = _passed(rollout.stages[rollout.stage], entry.at)
            return replace(rollout, stages=tuple(stages), stage=max(rollout.stage, entry.stage))
        case Attached():
            return replace(rollout, attachments={**rollout.attachments, entry.name: entry.reference})
        case TailJoined():
            if any(one.store == entry.store.store for one in rollout.tail):
                return rollout
            return replace(rollout, tail=(*rollout.tail, entry.store))


def _moved(rollout: Rollout, entry: RolloutMoved) -> Rollout:
    stages = rollout.stages
    if entry.state is RolloutState.RUNNING and rollout.state is RolloutState.PAUSED:
        stages = tuple(one if one.opened_at is None else replace(one, queue_since=entry.at) for one in stages)
    if entry.state in (RolloutState.COMPLETED, RolloutState.TAILING) and stages:
        stages = (*stages[:-1], _passed(stages[-1], entry.at))
    if entry.halted_at is not None:
        halted = replace(stages[entry.halted_at], state=StageState.HALTED, code=entry.code, why=entry.why)
        stages = (*stages[: entry.halted_at], halted, *stages[entry.halted_at + 1 :])
    return replace(
        rollout,
        state=entry.state,
        since=entry.at,
        why=entry.why,
        stages=stages,
        halted_at=rollout.halted_at if entry.halted_at is None else entry.halted_at,
        superseded_by=entry.superseded_by or rollout.superseded_by,
        supersedes=entry.supersedes or rollout.supersedes,
    )


def _passed(mark: StageMark, at: datetime) -> StageMark:
    return replace(mark, state=StageState.PASSED, passed_at=mark.passed_at or at)
