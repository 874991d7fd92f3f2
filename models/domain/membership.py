"""The life of a light membership: a frozen state, events in order of arrival, and what each makes due.

`apply(membership, event)` is pure. What it decides comes back as an `Outcome` that the caller carries out after
its commit: capture, query, refund, release. Duplicates change nothing and get the first answer. The rules
themselves are functions of values in `models.domain.charging`, shared with the settlement in SQL.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from enum import StrEnum

from models.domain import charging
from models.domain.calendar import days_later, require_instant
from models.domain.charging import ABSORBED, TAKES_QUOTA, Branch, Cancellation, UseClass
from models.domain.errors import NeedsOperator, Refused
from models.domain.ids import BenefitId, MembershipId, UsageId
from models.domain.membership_events import (
    AttemptDue,
    Cancelled,
    CreditAnswer,
    CreditAnswered,
    CutOff,
    Event,
    Expired,
    Guarantee,
    HoldFrozen,
    HoldLapsed,
    HoldState,
    HoldTimedOut,
    PlanChanged,
    ProviderAnswer,
    ProviderAnswered,
    Resumed,
    Suspended,
    UseReported,
    UseReversed,
)
from models.domain.money import require_fen
from models.domain.plans import HOLD_GUARANTEES, GuaranteeKind, Plan

__all__ = [
    "HOLD_TIMEOUT",
    "Attempt",
    "AttemptDue",
    "Cancelled",
    "CreditAnswer",
    "CreditAnswered",
    "CutOff",
    "Event",
    "Expired",
    "Guarantee",
    "HoldFrozen",
    "HoldLapsed",
    "HoldState",
    "HoldTimedOut",
    "Membership",
    "Outcome",
    "PlanChanged",
    "ProviderAnswer",
    "ProviderAnswered",
    "Resumed",
    "Reversal",
    "State",
    "Suspended",
    "Use",
    "UseReported",
    "UseReversed",
    "apply",
    "apply_for",
    "broken_invariant",
]
"""Events are read from here too: they are one vocabulary with the machine."""

HOLD_TIMEOUT = timedelta(minutes=15)
"""HOLD_PENDING waits so long for the freeze; a later success is released."""


class State(StrEnum):
    """Where a membership stands. CLOSED, REJECTED, ABANDONED and WRITTEN_OFF need no timer; the others do."""

    ADMITTING = "ADMITTING"
    REJECTED = "REJECTED"
    HOLD_PENDING = "HOLD_PENDING"
    ABANDONED = "ABANDONED"
    ACTIVE = "ACTIVE"
    SUSPENDED = "SUSPENDED"
    EXPIRED = "EXPIRED"
    SETTLING = "SETTLING"
    UNKNOWN = "UNKNOWN"
    DUNNING = "DUNNING"
    WRITTEN_OFF = "WRITTEN_OFF"
    CLOSED = "CLOSED"
    PARKED = "PARKED"


@dataclass(frozen=True, slots=True)
class Use:
    """One use of a benefit, worth `fen`, with the class it was given on arrival."""

    id: UsageId
    benefit: BenefitId
    fen: int
    biz_time: datetime
    received_at: datetime
    offline: bool
    use_class: UseClass


@dataclass(frozen=True, slots=True)
class Reversal:
    """`fen` of a use taken back. It may arrive before its use."""

    id: str
    refers_to: UsageId
    fen: int


@dataclass(frozen=True, slots=True)
class Attempt:
    """One capture under one number. `open`: no definite answer yet, so that number may only be queried."""

    number: str
    retry: int
    fen: int
    open: bool


@dataclass(frozen=True, slots=True)
class Membership:
    """One generation of one member's membership. Amounts in fen, instants in UTC."""

    id: MembershipId
    plan: Plan
    guarantee: Guarantee
    state: State
    generation: int = 1
    enrolled_at: datetime | None = None
    cancellation: Cancellation | None = None
    uses: tuple[Use, ...] = ()
    reversals: tuple[Reversal, ...] = ()
    charge_fen: int | None = None
    branch: Branch | None = None
    attempt: Attempt | None = None
    captured_fen: int = 0
    refunded_fen: int = 0
    cancels_refused: int = 0
    parked_because: str = ""

    @property
    def expiry(self) -> datetime | None:
        """The instant from which biz_time is too late: the plan's, or a cancel's own. None before ACTIVE."""
        if self.enrolled_at is None:
            return None
        return self.cancellation.at if self.cancellation else charging.expiry_instant(self.enrolled_at, self.plan)

    @property
    def cutoff(self) -> datetime | None:
        """The earliest instant at which the charge may be fixed."""
        return None if self.expiry is None else charging.cutoff_instant(self.expiry, self.plan)

    @property
    def fee_eff_fen(self) -> int:
        """F_eff: the fee, or what a cancel by the merchant left of it."""
        if self.enrolled_at is None:
            return self.plan.fee_fen
        return charging.effective_fee_fen(self.plan, self.enrolled_at, self.cancellation)

    @property
    def used_fen(self) -> int:
        """u: REGULAR uses net of reversals."""
        return sum(self.net_fen(use) for use in self.uses if use.use_class is UseClass.REGULAR)

    @property
    def absorbed_fen(self) -> int:
        """LATE and OVERUSE uses net of reversals: the merchant's, never the member's."""
        return sum(self.net_fen(use) for use in self.uses if use.use_class in ABSORBED)

    @property
    def due_fen(self) -> int:
        """What the member owes as things stand; before the charge is fixed, the preview of it."""
        preview = charging.charge_fen(self.fee_eff_fen, self.used_fen)
        return preview if self.charge_fen is None else min(self.charge_fen, preview)

    @property
    def paid_fen(self) -> int:
        """Captured less refunded."""
        return self.captured_fen - self.refunded_fen

    @property
    def given_up_fen(self) -> int:
        """What a cancel by the merchant let the member off."""
        return charging.given_up_fen(self.plan.fee_fen, self.fee_eff_fen, self.used_fen)

    def reversed_fen(self, use: Use) -> int:
        """What was taken back of a use: its reversals add up and are capped at its fen."""
        return min(use.fen, sum(back.fen for back in self.reversals if back.refers_to == use.id))

    def net_fen(self, use: Use) -> int:
        """What is left of a use after its reversals."""
        return use.fen - self.reversed_fen(use)

    def quota_taken(self) -> Counter[str]:
        """Places taken per benefit: REGULAR and LATE uses that are not wholly reversed."""
        return Counter(use.benefit for use in self.uses if use.use_class in TAKES_QUOTA and self.net_fen(use))


@dataclass(frozen=True, slots=True)
class Outcome:
    """What one event did. Everything that is due is carried out after the commit, once per field set.

    `capture`: ask the provider under this number. `query`: ask again about this number, never a new one.
    `collected_fen`: book so much as captured now. `refund_fen`: give back so much of it. `release_hold_fen`:
    unfreeze so much. `attempt_due_at`: set the dunning timer. `cancel_refused`: the cancel changed nothing.
    """

    membership: Membership
    use_class: UseClass | None = None
    capture: Attempt | None = None
    query: str | None = None
    collected_fen: int = 0
    refund_fen: int = 0
    release_hold_fen: int = 0
    attempt_due_at: datetime | None = None
    cancel_refused: bool = False


def apply_for(
    membership_id: MembershipId,
    plan: Plan,
    kind: GuaranteeKind,
    at: datetime,
    *,
    last_ended_at: datetime | None = None,
    generation: int = 1,
) -> Membership:
    """A new application, ADMITTING. Raises Refused `guarantee_unavailable` or `enrol_too_soon`."""
    if kind not in plan.guarantees:
        raise Refused("guarantee_unavailable", f"{plan.id} does not take {kind}", "choose another guarantee")
    if last_ended_at is not None:
        again_at = days_later(last_ended_at, plan.enrol_again_after_days, plan.zone)
        if require_instant(at) < again_at:
            raise Refused("enrol_too_soon", f"possible again from {again_at.isoformat()}", "enrol again later")
    return Membership(membership_id, plan, Guarantee(kind), State.ADMITTING, generation)


def apply(membership: Membership, event: Event) -> Outcome:
    """Decide what one event does to a membership. Pure; an event that makes no sense here changes nothing.

    A broken invariant parks the membership with its reason. Raises NeedsOperator `membership_parked` for any
    event afterwards, ValueError for an event that is wrong in itself (no time zone, fen <= 0).
    """
    require_instant(event.at, "at")
    if membership.state is State.PARKED:
        raise NeedsOperator("membership_parked", membership.parked_because, "an operator must repair it")
    outcome = _decide(membership, event)
    broken = broken_invariant(outcome.membership)
    return _parked(membership, broken) if broken else outcome


def broken_invariant(m: Membership) -> str:
    """The first invariant that does not hold, in words; empty when all do."""
    if not 0 <= m.paid_fen <= charging.charge_fen(m.fee_eff_fen, m.used_fen):
        return f"paid {m.paid_fen} fen is outside 0..min(fee {m.fee_eff_fen}, used {m.used_fen})"
    if m.captured_fen and m.paid_fen != m.due_fen:
        return f"paid {m.paid_fen} fen is not what is due, {m.due_fen}"
    if m.guarantee.hold is HoldState.HELD and m.guarantee.hold_fen < m.plan.fee_fen:
        return f"held {m.guarantee.hold_fen} fen, less than the fee of {m.plan.fee_fen}"
    if m.attempt is not None and m.attempt.fen > m.plan.fee_fen:
        return f"capture of {m.attempt.fen} fen exceeds the fee of {m.plan.fee_fen}"
    if m.state is State.CLOSED and m.guarantee.hold is HoldState.HELD:
        return "closed while the hold is still open"
    return ""


def _decide(m: Membership, event: Event) -> Outcome:
    match event:
        case UseReported():
            return _used(m, event)
        case UseReversed():
            return _reversed(m, event)
        case Cancelled():
            return _cancelled(m, event)
        case Expired():
            due = m.expiry is not None and event.at >= m.expiry
            return _moved(m, {State.ACTIVE, State.SUSPENDED}, State.EXPIRED) if due else Outcome(m)
        case CutOff():
            return _cut_off(m, event)
        case ProviderAnswered():
            return _answered(m, event)
        case AttemptDue():
            return _attempt(m)
        case Suspended():
            return _moved(m, {State.ACTIVE}, State.SUSPENDED)
        case Resumed():
            return _moved(m, {State.SUSPENDED}, State.ACTIVE)
        case CreditAnswered() | HoldFrozen() | HoldTimedOut() | HoldLapsed() | PlanChanged():
            return _guaranteed(m, event)


def _moved(m: Membership, sources: set[State], target: State) -> Outcome:
    return Outcome(replace(m, state=target) if m.state in sources else m)


# ---------------------------------------------------------------- admission and guarantee


def _guaranteed(m: Membership, event: CreditAnswered | HoldFrozen | HoldTimedOut | HoldLapsed | PlanChanged) -> Outcome:
    match m.state, event:
        case State.ADMITTING, CreditAnswered(answer=CreditAnswer.REFUSED):
            return Outcome(replace(m, state=State.REJECTED))
        case State.ADMITTING, CreditAnswered(answer=answer):
            wants_hold = answer is CreditAnswer.HOLD_NEEDED or m.guarantee.kind in HOLD_GUARANTEES
            if wants_hold and m.plan.fee_fen:  # nobody freezes nothing
                return Outcome(replace(m, state=State.HOLD_PENDING))
            return Outcome(replace(m, state=State.ACTIVE, enrolled_at=require_instant(event.at)))
        case State.HOLD_PENDING, HoldFrozen():
            return Outcome(
                replace(
                    m,
                    state=State.ACTIVE,
                    enrolled_at=require_instant(event.at),
                    guarantee=_held(m.guarantee, event.hold_fen),
                )
            )
        case State.HOLD_PENDING, HoldTimedOut():
            return Outcome(replace(m, state=State.ABANDONED))
        case ((State.ACTIVE | State.SUSPENDED), HoldLapsed()) if m.guarantee.hold is HoldState.HELD:
            return Outcome(replace(m, guarantee=replace(m.guarantee, hold=HoldState.LAPSED)))
        case ((State.ACTIVE | State.SUSPENDED), HoldFrozen()) if m.guarantee.hold is HoldState.LAPSED:
            return Outcome(replace(m, guarantee=_held(m.guarantee, event.hold_fen)))
        case _, HoldFrozen() if m.guarantee.hold in {HoldState.NONE, HoldState.LAPSED}:
            # Too late to be of use: what was frozen after all goes back at once, and only once.
            late = replace(_held(m.guarantee, event.hold_fen), hold=HoldState.ENDED)
            return Outcome(replace(m, guarantee=late), release_hold_fen=event.hold_fen)
        case State.ACTIVE, PlanChanged():
            old = m.guarantee
            changed = replace(m, plan=event.plan, guarantee=event.guarantee)
            return Outcome(changed, release_hold_fen=old.hold_fen if old.hold is HoldState.HELD else 0)
        case _:
            return Outcome(m)


def _held(guarantee: Guarantee, hold_fen: int) -> Guarantee:
    return replace(guarantee, hold_fen=_positive(hold_fen), hold=HoldState.HELD)


# ---------------------------------------------------------------- usage


def _used(m: Membership, event: UseReported) -> Outcome:
    _positive(event.fen)
    biz_time = require_instant(event.biz_time, "biz_time")
    known = next((use for use in m.uses if use.id == event.id), None)
    if known is not None:
        return Outcome(m, use_class=known.use_class)
    use_class = _class_of(m, event, biz_time)
    received_at = require_instant(event.at)
    use = Use(event.id, event.benefit, event.fen, biz_time, received_at, event.offline, use_class)
    return Outcome(replace(m, uses=(*m.uses, use)), use_class=use_class)


def _class_of(m: Membership, event: UseReported, biz_time: datetime) -> UseClass:
    if m.enrolled_at is None or m.expiry is None:  # never enrolled: every instant is before it
        return UseClass.OVERUSE if event.offline else UseClass.REFUSED
    if m.state is State.SUSPENDED and not event.offline:
        return UseClass.REFUSED
    return charging.classify_use(
        m.plan,
        m.quota_taken(),
        event.benefit,
        enrolled_at=m.enrolled_at,
        expiry=m.expiry,
        cut_off=m.charge_fen is not None,
        biz_time=biz_time,
        offline=event.offline,
    )


def _reversed(m: Membership, event: UseReversed) -> Outcome:
    _positive(event.fen)
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


# ---------------------------------------------------------------- the end: cancel, cutoff, collection


def _cancelled(m: Membership, event: Cancelled) -> Outcome:
    if m.state not in {State.ACTIVE, State.SUSPENDED} or m.expiry is None:
        return Outcome(replace(m, cancels_refused=m.cancels_refused + 1), cancel_refused=True)
    at = min(require_instant(event.at), m.expiry)  # an overdue expiry timer must not lengthen the membership
    return Outcome(replace(m, state=State.EXPIRED, cancellation=Cancellation(event.by, at)))


def _cut_off(m: Membership, event: CutOff) -> Outcome:
    if m.state is not State.EXPIRED or m.cutoff is None or event.at < m.cutoff:
        return Outcome(m)
    charge = charging.charge_fen(m.fee_eff_fen, m.used_fen)
    m = replace(m, charge_fen=charge, branch=charging.branch_of(charge, m.fee_eff_fen))
    return _closed(m) if charge == 0 else _captured_next(m, 0)


def _attempt(m: Membership) -> Outcome:
    if m.state is not State.DUNNING or m.attempt is None:
        return Outcome(m)
    return _closed(m) if m.due_fen == 0 else _captured_next(m, m.attempt.retry + 1)


def _captured_next(m: Membership, retry: int) -> Outcome:
    attempt = Attempt(charging.request_number(m.id, m.generation, retry), retry, m.due_fen, open=True)
    return Outcome(replace(m, state=State.SETTLING, attempt=attempt), capture=attempt)


def _answered(m: Membership, event: ProviderAnswered) -> Outcome:
    attempt = m.attempt
    if attempt is None or m.captured_fen:
        return Outcome(m)
    if event.answer is ProviderAnswer.SUCCEEDED:
        if event.captured_fen is not None and event.captured_fen != attempt.fen:
            return _parked(m, f"{attempt.number} captured {event.captured_fen} fen, asked for {attempt.fen}")
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


def _parked(m: Membership, because: str) -> Outcome:
    return Outcome(replace(m, state=State.PARKED, parked_because=because))


def _ended(hold: HoldState) -> HoldState:
    return HoldState.ENDED if hold is HoldState.HELD else hold


def _positive(fen: int) -> int:
    if require_fen(fen, "fen") <= 0:
        raise ValueError(f"fen must be positive, got {fen}")
    return fen
