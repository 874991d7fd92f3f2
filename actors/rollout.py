"""A rollout, level-triggered: each tick works everything out anew from plan, desired, reported and journal.

Nothing is counted along the way, so nothing can be counted wrongly after a crash: a tick that is repeated, or that
comes late, or after a kill between any two effects of the one before, ends at the same. Pure; the driver performs.
Commands of people: `actors.rollout_commands`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime, timedelta

from actors.rollout_effects import Decide, Journal, Observation, Publish, RolloutTurn, StageView
from actors.rollout_orders import ask_stores, bring_back, keep_going, keep_returning, restore_failed
from actors.rollout_work import Work
from models.domain.plan_reader import Text
from models.domain.rollout import Reason, RolloutState, StageState, TargetState, same_person
from models.domain.rollout_gate import Gate, Way, evaluate
from models.domain.rollout_journal import (
    UNTOUCHED,
    Rollout,
    RolloutMoved,
    StageMark,
    StageMoved,
    TailJoined,
)
from models.domain.rollout_target import counts_of

GOING_ON = (RolloutState.RUNNING, RolloutState.TAILING)
JUDGED = (*GOING_ON, RolloutState.PAUSED)
"""A pause stops the asking, not the judging."""
RETURNING = (RolloutState.ROLLING_BACK, RolloutState.ROLLBACK_STUCK)


def tick(rollout: Rollout, seen: Observation, now: datetime) -> RolloutTurn:
    """Look at everything once and say what follows. Call it as often as you like; `now` is wall time, UTC."""
    if not rollout.state.active or rollout.state is RolloutState.DRAFT:
        return RolloutTurn(rollout, why=rollout.why)
    work = Work(rollout, seen, now)
    if rollout.stage < 0 and rollout.state is RolloutState.RUNNING:
        work.write(_opening(0, now))
    _let_join(work)
    work.look()
    views = stage_views(work)
    decisions = _decide(work, views) if work.rollout.state in JUDGED else ()
    if len(views) <= work.rollout.stage:
        work.look(since=len(views))  # a stage has just opened: its stores are asked at once
    _give_orders(work, views)
    if work.rollout.state in RETURNING:
        _judge_return(work)
    entries = work.entries()
    after = work.result()
    if not entries and not work.orders:
        return RolloutTurn(rollout, (), views, _why(work, views))
    shown = (Publish(rollout.id, now),) if entries else ()
    effects = (*(Journal(one) for one in entries), *decisions, *work.orders, *shown)
    return RolloutTurn(after, effects, views, _why(work, views))


def _let_join(work: Work) -> None:
    rollout = work.rollout
    if not rollout.policy.tail or not work.seen.arrivals or rollout.state not in JUDGED:
        return
    known = {store.store for stage in rollout.plan.stages for store in stage.stores}
    known |= {store.store for store in rollout.tail}
    for store in work.seen.arrivals:
        if store.store not in known:
            work.write(TailJoined(work.now, store))


# ---------------------------------------------------------------- gates


def stage_views(work: Work) -> tuple[StageView, ...]:
    """Counts and gate of every open stage, from the marks alone."""
    rollout, now = work.rollout, work.now
    attached = frozenset(rollout.attachments)
    views = []
    for number, stage in enumerate(rollout.plan.stages[: rollout.stage + 1]):
        policy, mark = work.policy(number), rollout.stages[number]
        since = mark.queue_since or now
        counts = counts_of(
            stage.stores, work.marks, queue_over=now - since >= timedelta(seconds=policy.queue_deadline_s)
        )
        approved = mark.approved_by is not None and not same_person(mark.approved_by, rollout.author)
        verdict = work.seen.verdicts.get(number)
        views.append(StageView(counts, evaluate(counts, policy, verdict, attached=attached, approved=approved)))
    return tuple(views)


def _decide(work: Work, views: Sequence[StageView]) -> tuple[Decide, ...]:
    """Journal what the gates say; the decision with its evidence goes beside it."""
    for number, view in enumerate(views):
        if view.gate.way is Way.HALT:
            _halt(work, number, view.gate)
            return (_decision(work, number, view),)
    if work.rollout.state is not RolloutState.RUNNING or _fell_back(views):
        return ()
    number = work.rollout.stage
    view, mark = views[number], work.rollout.stages[number]
    match view.gate.way:
        case Way.ADVANCE:
            return (_decision(work, number, view),) if _advanced(work, number, views) else ()
        case Way.AWAIT_APPROVAL if mark.state is not StageState.AWAITS_APPROVAL:
            waits = replace(mark, state=StageState.AWAITS_APPROVAL, code=view.gate.code, why=view.gate.why)
            work.write(StageMoved(work.now, number, waits))
            return (_decision(work, number, view),)
        case Way.HOLD if mark.state is StageState.AWAITS_APPROVAL or mark.approved_by is not None:
            # What was approved is not what is there now: somebody looks again.
            again = replace(
                mark, state=StageState.OPEN, approved_by=None, approved_at=None, code=view.gate.code, why=view.gate.why
            )
            work.write(StageMoved(work.now, number, again))
            return (_decision(work, number, view),)
        case _:
            return ()


def _decision(work: Work, number: int, view: StageView) -> Decide:
    return Decide(work.rollout.id, number, work.now, view.gate, view.counts, work.seen.verdicts.get(number))


def _halt(work: Work, number: int, gate: Gate) -> None:
    state = RolloutState.ROLLING_BACK if work.rollout.policy.rollback.automatic else RolloutState.HALTED
    work.write(RolloutMoved(work.now, state, gate.why, halted_at=number, code=gate.code))


def _advanced(work: Work, number: int, views: Sequence[StageView]) -> bool:
    """Open the next stage; after the last one the rollout is complete once nobody is on the way any more."""
    if number + 1 < len(work.rollout.plan.stages):
        work.write(_opening(number + 1, work.now))
        return True
    if _stragglers(work):
        return False
    state = RolloutState.TAILING if work.rollout.policy.tail else RolloutState.COMPLETED
    work.write(RolloutMoved(work.now, state, _completed(work, views)))
    return True


def _completed(work: Work, views: Sequence[StageView]) -> Text:
    """The last gate's word, and what becomes of stores that nobody could ask."""
    why, offline = views[-1].gate.why, sum(view.counts.offline for view in views)
    if not offline:
        return why
    if work.rollout.policy.tail:
        return Text(
            f"{why.zh}；{offline} 家离线门店恢复联网后再更新",
            f"{why.en}; {offline} offline stores follow when they answer",
        )
    return Text(
        f"{why.zh}；{offline} 家离线门店保留原有内容，此后不再更新",
        f"{why.en}; {offline} offline stores keep what they had: another rollout has to reach them",
    )


def _stragglers(work: Work) -> int:
    """Terminals that were asked and are neither there nor back, or that wait although they answer."""
    found = work.found
    busy = {store.store: store for _, store in (*found.on_the_way, *found.returning, *found.queued, *found.failed)}
    busy |= {store.store: store for store, _ in found.failed_alone}
    marks = (work.marks.get(one.terminal, UNTOUCHED) for store in busy.values() for one in store.targets)
    return sum(
        mark.on_the_way
        or mark.state in (TargetState.ROLLING_BACK, TargetState.QUEUED)
        or (mark.asked and mark.state.error)
        for mark in marks
    )


def _opening(number: int, now: datetime) -> StageMoved:
    return StageMoved(now, number, StageMark(StageState.OPEN, opened_at=now, queue_since=now))


def _fell_back(views: Sequence[StageView]) -> bool:
    """True while an earlier stage does not satisfy its gate any more, because stores fell back."""
    return any(view.counts.regressed and view.gate.way is Way.HOLD for view in views[:-1])


# ---------------------------------------------------------------- orders


def _give_orders(work: Work, views: Sequence[StageView]) -> None:
    match work.rollout.state:
        case RolloutState.RUNNING | RolloutState.TAILING:
            restore_failed(work)
            if not _fell_back(views):
                ask_stores(work)
            keep_going(work, start=True)
            keep_returning(work)
        case RolloutState.PAUSED:
            keep_going(work, start=False)
            keep_returning(work)
        case RolloutState.ROLLING_BACK:
            bring_back(work)
            keep_returning(work)
        case RolloutState.ROLLBACK_STUCK:
            keep_returning(work)
        case _:
            pass


def _judge_return(work: Work) -> None:
    """Whether everything is back, or more stores than may be do not come back."""
    left, late = _left_to_return(work)
    if not left:
        why = Text("所有改动过的终端都已恢复", "every terminal that was changed has what it had before")
        work.write(RolloutMoved(work.now, RolloutState.ROLLED_BACK, why))
        return
    most = work.rollout.policy.rollback.error_stores_max
    if late > most and work.rollout.state is RolloutState.ROLLING_BACK:
        why = Text(
            f"{late} 家门店无法恢复，最多允许 {most} 家", f"{late} stores cannot be brought back, {most} at most"
        )
        work.write(RolloutMoved(work.now, RolloutState.ROLLBACK_STUCK, why))


def _left_to_return(work: Work) -> tuple[int, int]:
    """Stores with terminals that are not back, and those of them that are late."""
    left = late = 0
    for _, store in work.found.asked:
        marks = [work.marks.get(one.terminal, UNTOUCHED) for one in store.targets]
        out = [
            mark for mark in marks if mark.asked and mark.state not in (TargetState.ROLLED_BACK, TargetState.SUPERSEDED)
        ]
        left += bool(out)
        late += any(mark.reason is Reason.ROLLBACK_DEADLINE for mark in out)
    return left, late


# ---------------------------------------------------------------- why


def _why(work: Work, views: Sequence[StageView]) -> Text:
    rollout = work.rollout
    if rollout.state in RETURNING:
        left, _ = _left_to_return(work)
        return Text(f"{rollout.why.zh}；{left} 家门店尚未恢复", f"{rollout.why.en}; {left} stores are not back yet")
    if rollout.state is not RolloutState.RUNNING or not views:
        return rollout.why
    for number, view in enumerate(views[:-1]):
        if view.counts.regressed and view.gate.way is Way.HOLD:
            name = rollout.plan.stages[number].name
            return Text(
                f"阶段 {name} 有 {view.counts.regressed} 家门店退回；{view.gate.why.zh}",
                f"{view.counts.regressed} stores of stage {name} fell back; {view.gate.why.en}",
            )
    gate = views[-1].gate
    if gate.way is Way.ADVANCE and (left := _stragglers(work)):
        return Text(f"等待：还有 {left} 台终端在途", f"waits for: {left} terminals are still on the way")
    return gate.why
