"""How a membership ends: cancel, cutoff, the attempts to collect, and what goes back afterwards.

Functions of a membership and an event, used by `models.domain.membership.apply`.
"""

from __future__ import annotations

from dataclasses import replace

from models.domain import charging
from models.domain.calendar import days_later, require_instant
from models.domain.charging import Cancellation
from models.domain.membership_events import Cancelled, CutOff, HoldState, ProviderAnswer, ProviderAnswered, UseReversed
from models.domain.membership_state import Attempt, Membership, Outcome, Reversal, State
from models.domain.money import require_fen


def positive(fen: int) -> int:
    """`fen` itself; raises TypeError or ValueError unless it is a whole positive amount."""
    if require_fen(fen, "fen") <= 0:
        raise ValueError(f"fen must be positive, got {fen}")
    return fen


def use_reversed(m: Membership, event: UseReversed) -> Outcome:
    """Takes part of a use back, or notes it for a use that is still on its way; after collection it is refunded."""
    positive(event.fen)
    if any(back.id == event.id for back in m.reversals):
        return Outcome(m)
    m = replace(m, reversals=(*m.reversals, Reversal(event.id, event.refers_to, event.fen)))
    match m.state:
        case State.CLOSED if m.captured_fen:
            return _refunded(m)
        case State.WRITTEN_OFF if m.due_fen == 0:
            return _closed(m)
        case _:
            return Outcome(m)


def cancelled(m: Membership, event: Cancelled) -> Outcome:
    """Ends an ACTIVE or SUSPENDED membership at the cancel's own instant; any other cancel is refused."""
    if m.state not in {State.ACTIVE, State.SUSPENDED} or m.expiry is None:
        return Outcome(replace(m, cancels_refused=m.cancels_refused + 1), cancel_refused=True)
    at = min(require_instant(event.at), m.expiry)  # an overdue expiry timer must not lengthen the membership
    return Outcome(replace(m, state=State.EXPIRED, cancellation=Cancellation(event.by, at)))


def cut_off(m: Membership, event: CutOff) -> Outcome:
    """Fixes charge and branch, and asks for it; a charge of 0 closes at once."""
    if m.state is not State.EXPIRED or m.cutoff is None or event.at < m.cutoff:
        return Outcome(m)
    charge = m.due_fen  # the preview, as it was shown until now
    kept = m.plan.task_target is not None and m.task_done >= m.plan.task_target
    m = replace(m, charge_fen=charge, branch=charging.branch_of(charge, m.fee_eff_fen), task_kept=kept)
    return _closed(m) if charge == 0 else _captured_next(m, 0)


def attempt_due(m: Membership) -> Outcome:
    """The next attempt takes what is still due, under a number of its own; nothing due closes."""
    if m.state is not State.DUNNING or m.attempt is None:
        return Outcome(m)
    return _closed(m) if m.due_fen == 0 else _captured_next(m, m.attempt.retry + 1)


def _captured_next(m: Membership, retry: int) -> Outcome:
    attempt = Attempt(charging.request_number(m.id, m.generation, retry), retry, m.due_fen, open=True)
    return Outcome(replace(m, state=State.SETTLING, attempt=attempt), capture=attempt)


def answered(m: Membership, event: ProviderAnswered) -> Outcome:
    """The provider's word on the last attempt. A success counts at any time, once; the rest only while it is open."""
    attempt = m.attempt
    if attempt is None or m.captured_fen:
        return Outcome(m)
    if event.answer is ProviderAnswer.SUCCEEDED:
        if event.captured_fen is not None and event.captured_fen != attempt.fen:
            return parked(m, f"{attempt.number} captured {event.captured_fen} fen, asked for {attempt.fen}")
        return _collected(replace(m, attempt=replace(attempt, open=False), captured_fen=attempt.fen))
    if not attempt.open:
        return Outcome(m)
    if event.answer is ProviderAnswer.UNKNOWN:
        return Outcome(replace(m, state=State.UNKNOWN), query=attempt.number)
    m = replace(m, attempt=replace(attempt, open=False))
    if attempt.retry < m.plan.dunning_attempts:
        due_at = days_later(event.at, m.plan.dunning_days[attempt.retry], m.plan.zone)
        return Outcome(replace(m, state=State.DUNNING), attempt_due_at=due_at)
    over = _closed(m)
    return replace(over, membership=replace(over.membership, state=State.WRITTEN_OFF)) if m.due_fen else over


def _collected(m: Membership) -> Outcome:
    """The hold's rest, if any, is freed by the capture itself (it completes the authorisation)."""
    closed = replace(m, state=State.CLOSED, guarantee=replace(m.guarantee, hold=_ended(m.guarantee.hold)))
    return replace(_refunded(closed), collected_fen=m.captured_fen)


def _refunded(m: Membership) -> Outcome:
    refund = max(m.paid_fen - m.due_fen, 0)
    return Outcome(replace(m, refunded_fen=m.refunded_fen + refund), refund_fen=refund)


def _closed(m: Membership) -> Outcome:
    release = m.guarantee.hold_fen if m.guarantee.hold is HoldState.HELD else 0
    closed = replace(m, state=State.CLOSED, guarantee=replace(m.guarantee, hold=_ended(m.guarantee.hold)))
    return Outcome(closed, release_hold_fen=release)


def parked(m: Membership, because: str) -> Outcome:
    """Stops here until an operator repairs it."""
    return Outcome(replace(m, state=State.PARKED, parked_because=because))


def _ended(hold: HoldState) -> HoldState:
    return HoldState.ENDED if hold is HoldState.HELD else hold
