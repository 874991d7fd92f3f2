"""Who is asked next, who is told to start, who is brought back: within the policy's limits, first journalled."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta

from actors.rollout_work import Work, queued_since
from models.domain.ids import StoreId, TerminalId
from models.domain.rollout import Reason, TargetState, version_in
from models.domain.rollout_journal import UNTOUCHED, Mark
from models.domain.rollout_plan import PlannedStore, PlannedTarget, draw
from models.domain.rollout_target import UNSEEN, restored

TELL_AGAIN = timedelta(seconds=60)
"""A command to activate expires after 30 s at most; who did nothing by then is told once more."""
BUSY_AGAIN = timedelta(seconds=20)
"""Who serves somebody is told again after a visit's time: its store, and so the stage, waits for it."""
MINUTE = timedelta(minutes=1)
LONG_AGO = datetime.min.replace(tzinfo=UTC)


def ask_stores(work: Work) -> None:
    """Ask the stores whose turn has come, as many as are allowed in flight and in a minute."""
    if not work.found.queued:
        return
    in_flight, lately = _busy(work)
    for number, store in work.found.queued:
        waiting = [one for one in store.targets if _can_be_asked(work, one.terminal)]
        if not waiting or (work.at_store and _went_back(work, store)):
            continue
        policy = work.policy(number)
        if not work.rollout.artefact.kind.boots and not work.window_open(store, number):
            continue
        if store.store not in in_flight:
            if len(in_flight) >= policy.in_flight_stores_max or lately >= policy.starts_per_minute_max:
                continue
            if not _turn_has_come(work, number, store, waiting):
                continue
            lately += 1
            in_flight.add(store.store)
        for target in waiting:
            _ask(work, store, target.terminal)


def _can_be_asked(work: Work, target: TerminalId) -> bool:
    mark = work.marks.get(target, UNTOUCHED)
    return mark.state is TargetState.QUEUED and (mark.inherited or not mark.asked) and work.sight(target).online


def _went_back(work: Work, store: PlannedStore) -> bool:
    """The store as a whole has what it had: its other terminals are not to bring the change back."""
    marks = (work.marks.get(one.terminal, UNTOUCHED) for one in store.targets)
    return any(mark.restored_at is not None or mark.error is not None for mark in marks)


def _busy(work: Work) -> tuple[set[StoreId], int]:
    """The stores in flight, and how many were first asked within the last minute."""
    in_flight = {
        store.store
        for _, store in work.found.on_the_way
        if any(work.marks[one.terminal].on_the_way for one in store.targets if one.terminal in work.marks)
    }
    after = work.now - MINUTE
    return in_flight, sum(_first(work, store, "asked_at") > after for _, store in work.found.asked)


def _first(work: Work, store: PlannedStore, what: str) -> datetime:
    """When the first of a store's terminals was asked, or sent back; long ago when none was."""
    times = [getattr(work.marks[one.terminal], what) for one in store.targets if one.terminal in work.marks]
    return min((at for at in times if at is not None), default=LONG_AGO)


def _turn_has_come(work: Work, number: int, store: PlannedStore, waiting: Sequence[PlannedTarget]) -> bool:
    policy, stage = work.policy(number), work.rollout.stages[number]
    since = min(
        (
            begun
            for one in waiting
            if (begun := queued_since(work.marks.get(one.terminal, UNTOUCHED), stage)) is not None
        ),
        default=work.now,
    )
    delay = draw(work.rollout.plan.seed, "jitter", store.store) % (policy.jitter_s + 1)
    return work.now - since >= timedelta(seconds=delay)


def _ask(work: Work, store: PlannedStore, target: TerminalId) -> None:
    """First the journal says what stood there, then the change goes out."""
    artefact, sight, now = work.rollout.artefact, work.sight(target), work.now
    boots = artefact.kind.boots
    already = boots and sight.software == artefact.version
    known = work.marks.get(target, UNTOUCHED)
    previous = known.previous if known.inherited else _previous_of_store(work, store)
    if previous is None:
        previous = sight.part or artefact.fallback
    ahead = boots and not already
    mark = replace(
        known,
        inherited=False,
        state=TargetState.PREFETCHING if ahead else TargetState.ACTIVATING,
        since=now,
        reason=Reason.NONE,
        previous=previous,
        previous_version=version_in(artefact.kind, previous),
        already=already,
        boot_before=sight.boot,
        asked_at=now,
        asked_gen=sight.gen,
        activated_at=None if ahead else now,
    )
    work.move(target, mark)
    if sight.part != artefact.payload:
        work.set_desired(store, target)


def _previous_of_store(work: Work, store: PlannedStore) -> str | None:
    """What the whole store had when the first of its terminals was asked; None for what each terminal has alone."""
    if not work.at_store:
        return None
    marks = (work.marks.get(one.terminal, UNTOUCHED) for one in store.targets)
    return next((mark.previous for mark in marks if mark.asked), None)


# ---------------------------------------------------------------- what is under way


def keep_going(work: Work, *, start: bool) -> None:
    """Ask again what got lost, and let fetched versions start in their window, so many of a store at a time.

    `start`: False while paused: nobody who still sells is restarted, but a lost order is sent again.
    """
    artefact = work.rollout.artefact
    for number, store in work.found.on_the_way:
        for target in store.targets:
            mark = work.marks.get(target.terminal)
            if mark is None or not mark.on_the_way or target.terminal in work.ordered:
                continue
            sight = work.sight(target.terminal)
            if sight is not UNSEEN and sight.part != artefact.payload:
                work.set_desired(store, target.terminal)
            elif artefact.kind.boots and sight.online:
                _start(work, number, store, target.terminal, mark, start=start)


def _start(work: Work, number: int, store: PlannedStore, target: TerminalId, mark: Mark, *, start: bool) -> None:
    version, sight, now = work.rollout.artefact.version, work.sight(target), work.now
    if sight.fetched != version or sight.software == version:
        return
    if not _due(mark, now):
        return
    if mark.activated_at and sight.said_done_at and sight.said_done_at >= mark.activated_at:
        return  # it says that it did: asked once more it would say so anew, and never be found out
    up_min = work.policy(number).terminals_up_min
    if not (start and work.window_open(store, number) and _one_can_go(work, store, target, up_min)):
        return  # it still sells, whether it has been told before or not
    if mark.state is TargetState.PREFETCHING:
        mark = replace(mark, state=TargetState.ACTIVATING, since=now, activated_at=now, boot_before=sight.boot)
    elif mark.told_at is None or mark.state is not TargetState.ACTIVATING:
        return
    _tell(work, store, target, mark, version)


def _due(mark: Mark, now: datetime) -> bool:
    again = BUSY_AGAIN if mark.reason is Reason.BUSY else TELL_AGAIN
    return mark.told_at is None or now - mark.told_at >= again


def _tell(work: Work, store: PlannedStore, target: TerminalId, mark: Mark, version: str) -> None:
    told = replace(mark, told_at=work.now, told=mark.told + 1)
    work.move(target, told)
    work.activate(store, target, version, told.told)


def _one_can_go(work: Work, store: PlannedStore, target: TerminalId, up_min: int) -> bool:
    """True when the store keeps `up_min` terminals up without this one; with too few it gives up all but one's worth.

    Up: it answers and is not starting another version.
    """
    up = 0
    for one in store.targets:
        mark = work.marks.get(one.terminal, UNTOUCHED)
        up += one.terminal != target and work.sight(one.terminal).online and not _starting(mark)
    return up >= min(up_min, len(store.targets) - 1)


def _starting(mark: Mark) -> bool:
    """It was told, and nothing says that it goes on with what it runs."""
    if mark.told_at is None:
        return False
    returns = mark.state is TargetState.ROLLING_BACK and mark.reason in (Reason.NONE, Reason.NO_ANSWER)
    return returns or mark.state is TargetState.ACTIVATING


# ---------------------------------------------------------------- the way back


def restore_failed(work: Work) -> None:
    """A store that failed does not stay between versions: all of it that was asked goes back, whatever follows.

    A terminal that is not mandatory goes back alone.
    """
    for _, store in work.found.failed:
        _back(work, store, store.targets)
    for store, target in work.found.failed_alone:
        _back(work, store, (target,))


def bring_back(work: Work) -> None:
    """The last asked goes back first, within the rollback's own limits."""
    policy = work.rollout.policy.rollback
    busy, lately = _returning(work)
    for _, store in reversed(work.found.asked):
        if not any(_goes_back(work, one.terminal) for one in store.targets):
            continue
        if store.store not in busy:
            if len(busy) >= policy.in_flight_stores_max or lately >= policy.starts_per_minute_max:
                continue
            lately += 1
            busy.add(store.store)
        _back(work, store, store.targets)


def keep_returning(work: Work) -> None:
    """Restore again what got lost, and let the old version start where the new one runs."""
    artefact = work.rollout.artefact
    up_min = work.rollout.policy.rollback.terminals_up_min
    for _, store in work.found.returning:
        for target in store.targets:
            mark = work.marks.get(target.terminal)
            if mark is None or mark.state is not TargetState.ROLLING_BACK or mark.previous is None:
                continue
            sight = work.sight(target.terminal)
            if sight is UNSEEN or target.terminal in work.ordered:
                continue
            if sight.part != mark.previous or sight.gen <= mark.asked_gen:
                work.restore(store, target.terminal, mark.previous)
            elif artefact.kind.boots and sight.online:
                ready = sight.fetched == mark.previous_version != sight.software
                if ready and _due(mark, work.now) and _one_can_go(work, store, target.terminal, up_min):
                    _tell(work, store, target.terminal, mark, mark.previous_version)


def _goes_back(work: Work, target: TerminalId) -> bool:
    mark = work.marks.get(target, UNTOUCHED)
    return mark.asked and mark.state not in (
        TargetState.ROLLING_BACK,
        TargetState.ROLLED_BACK,
        TargetState.SUPERSEDED,
    )


def _returning(work: Work) -> tuple[set[StoreId], int]:
    """Stores on their way back that answer, and how many began within the last minute."""
    busy = {
        store.store
        for _, store in work.found.returning
        if any(
            work.marks[one.terminal].state is TargetState.ROLLING_BACK and work.sight(one.terminal).online
            for one in store.targets
            if one.terminal in work.marks
        )
    }
    after = work.now - MINUTE
    return busy, sum(_first(work, store, "restored_at") > after for _, store in work.found.asked)


def _back(work: Work, store: PlannedStore, targets: Sequence[PlannedTarget]) -> None:
    """First the journal, then the document. What already shows the old state is back at once."""
    artefact, now = work.rollout.artefact, work.now
    for target in reversed(targets):
        if not _goes_back(work, target.terminal):
            continue
        mark, sight = work.marks[target.terminal], work.sight(target.terminal)
        assert mark.previous is not None
        done = restored(mark, artefact, sight)
        state = TargetState.ROLLED_BACK if done else TargetState.ROLLING_BACK
        work.move(
            target.terminal,
            replace(mark, state=state, since=now, reason=Reason.NONE, restored_at=now, told_at=None),
        )
        stands = sight.part == mark.previous and sight.gen > mark.asked_gen
        if not done and sight is not UNSEEN and not stands:
            work.restore(store, target.terminal, mark.previous)
