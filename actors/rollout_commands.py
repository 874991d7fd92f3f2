"""What people tell a rollout. Each is journalled with who said it; what makes no sense now is refused with its reason.

Saying the same twice does nothing the second time.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from datetime import datetime

from actors.rollout import GOING_ON, JUDGED, RETURNING, stage_views, tick
from actors.rollout_effects import (
    Approve,
    Attach,
    Halt,
    Journal,
    Observation,
    Pause,
    Promote,
    Publish,
    Resume,
    RollBack,
    RolloutCommand,
    RolloutTurn,
    StageView,
    Start,
    Supersede,
)
from actors.rollout_work import Work
from models.domain.errors import Refused
from models.domain.plan_reader import Text
from models.domain.rollout import PersonId, Reason, RolloutId, RolloutState, TargetState, same_person
from models.domain.rollout_gate import Way
from models.domain.rollout_journal import (
    Attached,
    Entry,
    Rollout,
    RolloutMoved,
    StageMoved,
    TargetMoved,
    folded,
)
from models.domain.rollout_part import collide
from models.domain.twin import keepable

REFERENCE_CHARACTERS_MAX = 200
TEXT_CHARACTERS_MAX = 400


def receive(rollout: Rollout, told: RolloutCommand, seen: Observation, now: datetime) -> RolloutTurn:
    """The rollout after a command. Pure; the entries are written before anything else, as a tick's are.

    Raises Refused: not_a_draft, not_running, not_waiting, stage_moved, own_rollout, already_over, bad_attachment,
    nothing_to_undo.
    """
    for text in _texts(told):
        _require(
            len(text) <= TEXT_CHARACTERS_MAX and keepable(text),
            "bad_text",
            "a name, a reason or a reference cannot be kept",
            f"{TEXT_CHARACTERS_MAX} characters at most, no control characters",
        )
    match told:
        case Start(by):
            return _begun(rollout, by, now)
        case Approve() | Promote():
            approved = _turned(rollout, _approval(rollout, told, seen, now), now)
            if isinstance(told, Approve):
                return approved
            opened = tick(approved.rollout, seen, now)
            return replace(opened, effects=(*approved.effects, *opened.effects))
        case Attach():
            return _turned(rollout, _attachment(rollout, told, now), now)
        case Pause(by, reason):
            return _paused(rollout, by, reason, now)
        case Resume(by):
            if rollout.state is not RolloutState.PAUSED:
                _require(rollout.state in JUDGED, "not_running", f"it is {rollout.state}", "only a pause is resumed")
                return RolloutTurn(rollout, why=rollout.why)
            return _state(rollout, RolloutState.RUNNING, Text(f"{by} 继续", f"resumed by {by}"), by, now)
        case Halt(by, reason):
            if rollout.state is RolloutState.HALTED:
                return RolloutTurn(rollout, why=rollout.why)
            _require(rollout.state in JUDGED, "not_running", f"it is {rollout.state}", "only a running one is halted")
            return _state(rollout, RolloutState.HALTED, _by(by, "停止", "halted", reason), by, now)
        case RollBack(by, reason):
            return _rolled_back(rollout, by, reason, now)
        case Supersede(by, successor):
            if rollout.state is RolloutState.SUPERSEDED and rollout.superseded_by == successor:
                return RolloutTurn(rollout, why=rollout.why)
            _require(rollout.state.active, "already_over", f"it is {rollout.state}", "start the other one")
            why = Text(f"由 {successor} 取代（{by}）", f"superseded by {successor} ({by})")
            moved = RolloutMoved(now, RolloutState.SUPERSEDED, why, by, superseded_by=successor)
            return _turned(rollout, (moved,), now)


def _texts(told: RolloutCommand) -> tuple[str, ...]:
    """What a person wrote."""
    match told:
        case Pause(by, reason) | Halt(by, reason) | RollBack(by, reason):
            return by, reason
        case Attach(by, name, reference):
            return by, name, reference
        case _:
            return (told.by,)


def conflict_with(active: Iterable[Rollout], candidate: Rollout) -> RolloutId | None:
    """The rollout that already changes the same in one of the candidate's stores; None when there is none.

    The same: one key, or one setting under two keys. Two such rollouts of a chain may go on side by side only in
    different stores, and not when one of them takes every store that opens later.
    """
    stores = {store.store for stage in candidate.plan.stages for store in stage.stores}
    for other in active:
        if other.id == candidate.id or other.chain != candidate.chain:
            continue
        if not collide(other.artefact, candidate.artefact):
            continue
        if not other.state.active:
            continue
        theirs = {store.store for stage in other.plan.stages for store in stage.stores}
        theirs |= {store.store for store in other.tail}
        if stores & theirs or other.policy.tail or candidate.policy.tail:
            return other.id
    return None


# ---------------------------------------------------------------- one each


def _begun(rollout: Rollout, by: PersonId, now: datetime) -> RolloutTurn:
    if rollout.state is RolloutState.RUNNING:
        return RolloutTurn(rollout, why=rollout.why)
    _require(rollout.state is RolloutState.DRAFT, "not_a_draft", f"it is {rollout.state}", "make a new one")
    _require(rollout.plan.intact, "plan_changed", "the plan is not the one that was frozen", "resolve it again")
    _require(rollout.artefact.intact, "artefact_changed", "its SHA-256 is another", "make the artefact again")
    return _state(rollout, RolloutState.RUNNING, Text(f"{by} 启动", f"started by {by}"), by, now)


def _approval(rollout: Rollout, told: Approve | Promote, seen: Observation, now: datetime) -> tuple[Entry, ...]:
    """The stage with its approval. The gate is asked now, not remembered: nobody approves what has gone."""
    by, stage = told.by, told.stage
    if stage is not None and 0 <= stage < rollout.stage and rollout.stages[stage].approved_by == by:
        return ()
    do = "resume it first" if rollout.state is RolloutState.PAUSED else "only a running one is approved"
    _require(rollout.state is RolloutState.RUNNING, "not_running", f"it is {rollout.state}", do)
    _require(rollout.stage >= 0, "not_running", "no stage is open yet", "wait for the first one")
    same = stage is None or stage == rollout.stage
    _require(same, "stage_moved", f"stage {rollout.stage + 1} is open", "look at it, then say it again")
    mark = rollout.stages[rollout.stage]
    if mark.approved_by == by:
        return ()
    _require(not same_person(by, rollout.author), "own_rollout", "the author cannot approve it", "ask somebody else")
    gate = _looked(rollout, seen, now)[-1].gate
    _require(gate.way is Way.AWAIT_APPROVAL, "not_waiting", gate.why.en, "a gate is never skipped")
    return (StageMoved(now, rollout.stage, replace(mark, approved_by=by, approved_at=now)),)


def _looked(rollout: Rollout, seen: Observation, now: datetime) -> tuple[StageView, ...]:
    work = Work(rollout, seen, now)
    work.look()
    return stage_views(work)


def _attachment(rollout: Rollout, told: Attach, now: datetime) -> tuple[Entry, ...]:
    wanted = {name for stage in rollout.policy.stages for name in stage.policy.attachments}
    _require(
        told.name in wanted,
        "bad_attachment",
        f"no stage requires {told.name!r}",
        f"one of: {', '.join(sorted(wanted)) or 'none'}",
    )
    _require(
        0 < len(told.reference.strip()) <= REFERENCE_CHARACTERS_MAX,
        "bad_attachment",
        "the reference says where the document is kept",
        f"1 to {REFERENCE_CHARACTERS_MAX} characters",
    )
    if rollout.attachments.get(told.name) == told.reference:
        return ()
    return (Attached(now, told.name, told.reference, told.by),)


def _paused(rollout: Rollout, by: PersonId, reason: str, now: datetime) -> RolloutTurn:
    if rollout.state is RolloutState.PAUSED:
        return RolloutTurn(rollout, why=rollout.why)
    running = rollout.state in GOING_ON
    _require(running, "not_running", f"it is {rollout.state}", "only a running one is paused")
    return _state(rollout, RolloutState.PAUSED, _by(by, "暂停", "paused", reason), by, now)


def _rolled_back(rollout: Rollout, by: PersonId, reason: str, now: datetime) -> RolloutTurn:
    """Also after completion. Where it stuck, those that are late get their time anew."""
    if rollout.state in (RolloutState.ROLLING_BACK, RolloutState.ROLLED_BACK):
        return RolloutTurn(rollout, why=rollout.why)
    over = rollout.state is RolloutState.SUPERSEDED
    _require(not over, "already_over", "another rollout has taken over", "roll that one back")
    _require(
        rollout.state is not RolloutState.DRAFT,
        "nothing_to_undo",
        "it has not begun",
        "a draft changes nothing: leave it",
    )
    again = tuple(
        TargetMoved(now, target, replace(mark, restored_at=now, reason=Reason.NONE))
        for target, mark in rollout.marks.items()
        if rollout.state in RETURNING and mark.state is TargetState.ROLLING_BACK
    )
    moved = RolloutMoved(now, RolloutState.ROLLING_BACK, _by(by, "回退", "rolled back", reason), by)
    return _turned(rollout, (*again, moved), now)


# ---------------------------------------------------------------- small things


def _by(by: PersonId, zh: str, en: str, reason: str) -> Text:
    return Text(f"{by} {zh}" + (f"：{reason}" if reason else ""), f"{en} by {by}" + (f": {reason}" if reason else ""))


def _state(rollout: Rollout, state: RolloutState, why: Text, by: PersonId, now: datetime) -> RolloutTurn:
    return _turned(rollout, (RolloutMoved(now, state, why, by),), now)


def _turned(rollout: Rollout, entries: tuple[Entry, ...], now: datetime) -> RolloutTurn:
    if not entries:
        return RolloutTurn(rollout, why=rollout.why)
    after = folded(rollout, entries)
    return RolloutTurn(after, (*(Journal(one) for one in entries), Publish(rollout.id, now)), why=after.why)


def _require(holds: bool, code: str, message: str, do: str) -> None:
    if not holds:
        raise Refused(code, message, do)
