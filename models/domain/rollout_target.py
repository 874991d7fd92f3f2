"""How one terminal stands to a rollout, by what it reports: nobody's word is taken, a callback least of all.

Success is the new version reported from a boot after the change (software), or the applied generation with the right
hash (configuration and books), and good health for the whole soak time after it. `assess` never asks for anything:
it says what a look at desired and reported means, the tick does the rest.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from enum import StrEnum
from typing import NewType

from models.domain.ids import TerminalId
from models.domain.rollout import Artefact, Observed, Reason, RollbackPolicy, StagePolicy, TargetState, digest_of
from models.domain.rollout_gate import Counts
from models.domain.rollout_journal import ON_THE_WAY, UNTOUCHED, Mark
from models.domain.rollout_plan import PlannedStore

CONTRADICTIONS_MAX = 5
"""A terminal that says "ready" in its report and "not fetched" to a command so often has failed."""
UNSEEN = Observed(gen=0, part="")
"""A terminal of which nothing is known."""


class Proof(StrEnum):
    """What a report proves."""

    YES = "yes"
    NO = "no"
    LIE = "lie"


def proof(mark: Mark, artefact: Artefact, seen: Observed, now: datetime, claim_grace_s: int) -> tuple[Proof, Reason]:
    """Whether the terminal runs the artefact, by its report alone, and which lie it is if it is one."""
    if seen.part != artefact.payload:
        return Proof.NO, Reason.NONE
    if not artefact.kind.boots:
        return _applied(mark, seen)
    if seen.software == artefact.version:
        changed = mark.already or seen.boot != mark.boot_before
        return (Proof.YES, Reason.NONE) if changed else (Proof.LIE, Reason.OLD_BOOT)
    told, said = mark.activated_at, seen.said_done_at
    # Only who answers can lie: one that is starting has its old report standing.
    if seen.online and told and said and said >= told and now - said >= timedelta(seconds=claim_grace_s):
        return Proof.LIE, Reason.SAID_DONE
    return Proof.NO, Reason.NONE


def _applied(mark: Mark, seen: Observed) -> tuple[Proof, Reason]:
    if seen.applied_gen is None:
        return Proof.NO, Reason.NONE
    if seen.applied_gen >= seen.gen:
        same = seen.applied_gen == seen.gen and seen.reported_hash == seen.config_hash
        return (Proof.YES, Reason.NONE) if same else (Proof.LIE, Reason.WRONG_HASH)
    # A later change of something else is on its way: what was proved before it still holds.
    return (Proof.YES if mark.proved_gen and seen.applied_gen >= mark.proved_gen else Proof.NO), Reason.NONE


def restored(mark: Mark, artefact: Artefact, seen: Observed) -> bool:
    """True when desired, in a generation after the asking, and reported both show what stood there before.

    The terminal must have applied that generation: one that is starting the new version at this moment still has its
    last report of the old one standing, and one that does not answer may come back with either.
    """
    if mark.previous == artefact.payload:
        return seen.part == mark.previous
    if seen.part != mark.previous or seen.gen <= mark.asked_gen or seen.applied_gen != seen.gen:
        return False
    return seen.software == mark.previous_version if artefact.kind.boots else seen.reported_hash == seen.config_hash


def assess(mark: Mark, artefact: Artefact, seen: Observed, now: datetime, policy: StagePolicy) -> Mark:
    """The target's mark after one look; the same object when nothing moved.

    Queue deadlines are the tick's (they depend on the stage); a target on its way back is judged by `assess_return`.
    """
    state = mark.state
    if seen.retired and (state.waiting or state in ON_THE_WAY):
        return _to(mark, TargetState.SUPERSEDED, now, Reason.RETIRED)
    if state is TargetState.SUCCEEDED:
        # Most looks find this; a shop that closes for the night has not lost anything.
        if not seen.online or (seen.healthy and _runs(artefact, seen)):
            return mark
    elif state is TargetState.QUEUED:
        return mark if seen.online else _to(mark, TargetState.OFFLINE, now)
    elif state is TargetState.OFFLINE:
        return _to(mark, TargetState.QUEUED, now) if seen.online else mark
    elif state not in ON_THE_WAY:
        return mark
    if _taken_over(mark, artefact, seen):
        return _to(mark, TargetState.SUPERSEDED, now, Reason.CHANGED_ELSEWHERE)
    return _on_the_way(mark, artefact, seen, now, policy)


def _runs(artefact: Artefact, seen: Observed) -> bool:
    """The plain case of `proof` for a target that was proved before."""
    if seen.part != artefact.payload:
        return False
    if artefact.kind.boots:
        return seen.software == artefact.version
    return seen.applied_gen == seen.gen and seen.reported_hash == seen.config_hash


def _taken_over(mark: Mark, artefact: Artefact, seen: Observed) -> bool:
    """The part is neither ours nor what was there: somebody else decides about it now.

    The old part is a lost order only until ours was seen there once.
    """
    if seen is UNSEEN or seen.part == artefact.payload:
        return False
    return not _stood(mark, artefact, seen.part) or mark.proved_at is not None


def _stood(mark: Mark, artefact: Artefact, part: str) -> bool:
    """True for the part that was there before the change: what is restored, or nothing where that is the fallback, or
    what a superseded rollout had put there."""
    if part == mark.previous or (not part and mark.previous == artefact.fallback):
        return True
    return bool(mark.earlier) and digest_of(part) in mark.earlier


def _on_the_way(mark: Mark, artefact: Artefact, seen: Observed, now: datetime, policy: StagePolicy) -> Mark:
    proved, lie = proof(mark, artefact, seen, now, policy.claim_grace_s)
    if proved is Proof.LIE:
        return _failed(mark, TargetState.LYING, lie, now)
    match mark.state:
        case TargetState.PREFETCHING:
            return _prefetching(mark, artefact, seen, now, policy, proved)
        case TargetState.ACTIVATING:
            return _activating(mark, seen, now, policy, proved)
        case TargetState.SOAKING:
            return _soaking(mark, seen, now, policy, proved)
        case _:
            if proved is Proof.NO:
                return _fell(mark, Reason.FELL_BACK, seen, now, policy)
            return mark if seen.healthy else _fell(mark, Reason.UNHEALTHY, seen, now, policy)


def _prefetching(
    mark: Mark, artefact: Artefact, seen: Observed, now: datetime, policy: StagePolicy, proved: Proof
) -> Mark:
    if proved is Proof.YES:  # it started the new version by itself, in a window of its own
        return replace(_to(mark, TargetState.ACTIVATING, now), activated_at=now)
    if seen.refused:
        return _failed(mark, TargetState.FAILED, Reason.REFUSED_BY_TERMINAL, now, seen.refused)
    if mark.fetched_at is None and seen.fetched == artefact.version:
        return replace(mark, fetched_at=now)
    if mark.fetched_at is not None:
        missed = _over(mark.fetched_at, policy.queue_deadline_s, now)
        return _failed(mark, TargetState.TIMED_OUT, Reason.WINDOW_MISSED, now, mark.reason) if missed else mark
    late = _over(mark.asked_at, policy.in_progress_deadline_s, now)
    return _failed(mark, TargetState.TIMED_OUT, Reason.PREFETCH_DEADLINE, now) if late else mark


def _activating(mark: Mark, seen: Observed, now: datetime, policy: StagePolicy, proved: Proof) -> Mark:
    if proved is Proof.YES and seen.online and seen.healthy:
        return replace(
            _to(mark, TargetState.SOAKING, now),
            proved_at=mark.proved_at or now,
            proved_gen=mark.proved_gen or seen.gen,
            soak_since=now,
            soak_boot=seen.boot,
        )
    if seen.refused and mark.proved_at is None:
        return _failed(mark, TargetState.FAILED, Reason.REFUSED_BY_TERMINAL, now, seen.refused)
    if mark.proved_at is None and proved is Proof.YES:
        mark = replace(mark, proved_at=now, proved_gen=seen.gen)
    if mark.proved_at is not None:
        return _soak_late(mark, seen, now, policy)
    if seen.not_yet.put_off:
        return _put_off(mark, seen.not_yet, now)
    if _over(mark.activated_at, policy.in_progress_deadline_s, now):
        return _failed(mark, TargetState.TIMED_OUT, Reason.ACTIVATE_DEADLINE, now, mark.reason)
    return mark if seen.not_yet in (Reason.NONE, mark.reason) else replace(mark, reason=seen.not_yet)


def _put_off(mark: Mark, why: Reason, now: datetime) -> Mark:
    """It goes on with what it runs, and is told again in its window; the queue's deadline counts from the download.

    A shop may be busy for long; who contradicts its own report again and again has failed.
    """
    contradicted = mark.contradicted + (why is not Reason.BUSY)
    mark = replace(mark, contradicted=contradicted, activated_at=None)
    if contradicted > CONTRADICTIONS_MAX:
        return _failed(mark, TargetState.FAILED, why, now, why)
    return replace(_to(mark, TargetState.PREFETCHING, now, why), fetched_at=mark.fetched_at or now)


def _soaking(mark: Mark, seen: Observed, now: datetime, policy: StagePolicy, proved: Proof) -> Mark:
    if proved is Proof.NO:
        return _fell(mark, Reason.FELL_BACK, seen, now, policy)
    if not seen.online:  # not observed is not healthy; it soaks anew when it is back, the deadline runs on
        return _soak_late(_to_activating(mark, Reason.WENT_OFFLINE, now), seen, now, policy)
    if seen.boot != mark.soak_boot:
        return _fell(mark, Reason.REBOOTED, seen, now, policy)
    if not seen.healthy:
        return _fell(mark, Reason.UNHEALTHY, seen, now, policy)
    if _over(mark.soak_since, policy.soak_s, now):
        return replace(_to(mark, TargetState.SUCCEEDED, now), succeeded_at=mark.succeeded_at or now)
    return _soak_late(mark, seen, now, policy)


def _soak_late(mark: Mark, seen: Observed, now: datetime, policy: StagePolicy) -> Mark:
    if not _over(mark.proved_at, policy.soak_deadline_s, now):
        return mark
    if seen.online and not seen.healthy:
        return _failed(mark, TargetState.FAILED, Reason.UNHEALTHY, now)
    return _failed(mark, TargetState.TIMED_OUT, Reason.SOAK_DEADLINE, now)


def _fell(mark: Mark, reason: Reason, seen: Observed, now: datetime, policy: StagePolicy) -> Mark:
    """Back from soaking or success; once more than the policy allows is flapping."""
    if mark.fell >= policy.flaps_max:
        return replace(_failed(mark, TargetState.FAILED, Reason.FLAPPING, now), fell=mark.fell + 1)
    back = replace(_to_activating(mark, reason, now), fell=mark.fell + 1)
    if mark.state is TargetState.SUCCEEDED:
        back = replace(back, proved_at=now, activated_at=now)  # its deadlines begin anew
    if reason is Reason.FELL_BACK:
        back = replace(back, boot_before=seen.boot, already=False)
    return back


def _to_activating(mark: Mark, reason: Reason, now: datetime) -> Mark:
    return replace(_to(mark, TargetState.ACTIVATING, now, reason), soak_since=None, soak_boot="")


# ---------------------------------------------------------------- the way back


def assess_return(mark: Mark, artefact: Artefact, seen: Observed, now: datetime, policy: RollbackPolicy) -> Mark:
    """A target in ROLLING_BACK after one look. One that answers and is late has ROLLBACK_DEADLINE as its reason."""
    if seen.retired:
        return _to(mark, TargetState.SUPERSEDED, now, Reason.RETIRED)
    ours = seen.part == artefact.payload or _stood(mark, artefact, seen.part)
    if seen is not UNSEEN and not ours:
        return _to(mark, TargetState.SUPERSEDED, now, Reason.CHANGED_ELSEWHERE)
    if restored(mark, artefact, seen):
        return _to(mark, TargetState.ROLLED_BACK, now)
    if mark.reason is Reason.ROLLBACK_DEADLINE:
        return mark
    if seen.online and _over(mark.restored_at, policy.deadline_s, now):
        return replace(mark, reason=Reason.ROLLBACK_DEADLINE, answer=mark.answer or mark.reason)
    return mark if seen.not_yet in (Reason.NONE, mark.reason) else replace(mark, reason=seen.not_yet)


# ---------------------------------------------------------------- by store

StoreStand = NewType("StoreStand", str)
"""Which of `Counts`' buckets a store is in, or "superseded"."""

_WORST = {TargetState.LYING: "lying", TargetState.TIMED_OUT: "timed_out", TargetState.FAILED: "failed"}


def stand_of(store: PlannedStore, marks: Mapping[TerminalId, Mark]) -> tuple[StoreStand, bool]:
    """Where a store stands by its mandatory terminals, and whether it had succeeded and fell back.

    One failed terminal fails the store. A store that is only missing terminals that do not answer is offline.
    """
    states: list[TargetState] = []
    errors: list[TargetState] = []
    fallen = False
    for target in store.targets:
        if not target.mandatory:
            continue
        mark = marks.get(target.terminal, UNTOUCHED)
        if mark.error is not None:
            errors.append(mark.error)
        elif mark.state is not TargetState.SUPERSEDED:
            if mark.state not in states:
                states.append(mark.state)
            fallen = fallen or (mark.succeeded_at is not None and mark.on_the_way)
    if errors:
        return StoreStand(next(name for state, name in _WORST.items() if state in errors)), False
    return _stand(states), fallen


def _stand(states: list[TargetState]) -> StoreStand:
    if not states:
        return StoreStand("superseded")
    if states == [TargetState.SUCCEEDED]:
        return StoreStand("succeeded")
    if TargetState.QUEUED in states and _only(states, TargetState.QUEUED, TargetState.OFFLINE):
        return StoreStand("queued")
    if TargetState.OFFLINE in states and _only(states, TargetState.OFFLINE, TargetState.SUCCEEDED):
        return StoreStand("offline")
    return StoreStand("soaking" if _only(states, TargetState.SOAKING, TargetState.SUCCEEDED) else "in_progress")


def _only(states: list[TargetState], one: TargetState, other: TargetState) -> bool:
    return all(state is one or state is other for state in states)


def counts_of(stores: Sequence[PlannedStore], marks: Mapping[TerminalId, Mark], *, queue_over: bool) -> Counts:
    """A stage's stores by where they stand, counted anew from the marks."""
    tally: dict[str, int] = {}
    regressed = 0
    for store in stores:
        stand, fallen = stand_of(store, marks)
        tally[stand] = tally.get(stand, 0) + 1
        regressed += fallen
    theirs = tally.pop("superseded", 0)
    return Counts(stores=len(stores) - theirs, regressed=regressed, queue_over=queue_over, **tally)


# ---------------------------------------------------------------- small things


def _over(since: datetime | None, seconds: int, now: datetime) -> bool:
    return since is not None and now - since >= timedelta(seconds=seconds)


def _to(mark: Mark, state: TargetState, now: datetime, reason: Reason = Reason.NONE) -> Mark:
    return replace(mark, state=state, since=now, reason=reason)


def _failed(mark: Mark, state: TargetState, reason: Reason, now: datetime, answer: str = "") -> Mark:
    """The first failure is kept: a gate counts it whatever becomes of the target afterwards."""
    first = replace(mark, error=mark.error or state, error_reason=mark.error_reason or reason)
    return replace(_to(first, state, now, reason), answer=first.answer or str(answer))


def fail_in_queue(mark: Mark, now: datetime) -> Mark:
    """It answers and was not asked before the queue's deadline: a failure like any other."""
    return _failed(mark, TargetState.TIMED_OUT, Reason.QUEUE_DEADLINE, now)
