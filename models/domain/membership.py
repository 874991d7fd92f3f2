"""The life of a light membership: a frozen state, events in order of arrival, and what each makes due.

`apply(membership, event)` is pure. What it decides comes back as an `Outcome` that the caller carries out after
its commit: capture, query, refund, release. Duplicates change nothing and get the first answer. The rules
themselves are functions of values in `models.domain.charging`, shared with the settlement in SQL.
"""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime

from models.domain import charging
from models.domain.calendar import days_later, local_date, require_instant
from models.domain.charging import UseClass
from models.domain.errors import NeedsOperator, Refused
from models.domain.ids import MembershipId
from models.domain.membership_end import answered, attempt_due, cancelled, cut_off, parked, positive, use_reversed
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
from models.domain.membership_guarantee import guaranteed, guarantees_instead, renewed
from models.domain.membership_state import (
    HOLD_TIMEOUT,
    Attempt,
    Membership,
    Outcome,
    Reversal,
    State,
    Use,
    broken_invariant,
)
from models.domain.periods import FixedDate
from models.domain.plans import GuaranteeKind, Plan

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
    "guarantees_instead",
    "renewed",
]
"""Values and events are read from here too: they are one vocabulary with the machine."""


def apply_for(
    membership_id: MembershipId,
    plan: Plan,
    kind: GuaranteeKind,
    at: datetime,
    *,
    last_ended_at: datetime | None = None,
    generation: int = 1,
) -> Membership:
    """A new application, ADMITTING. Raises Refused `guarantee_unavailable`, `plan_over` or `enrol_too_soon`."""
    if kind not in plan.guarantees:
        raise Refused("guarantee_unavailable", f"{plan.id} does not take {kind}", "choose another guarantee")
    if isinstance(plan.period, FixedDate) and local_date(at, plan.zone) > plan.period.last_day:
        raise Refused("plan_over", f"{plan.id} ended with {plan.period.last_day}", "choose another plan")
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
    return parked(membership, broken) if broken else outcome


def _decide(m: Membership, event: Event) -> Outcome:
    match event:
        case UseReported():
            return _used(m, event)
        case UseReversed():
            return use_reversed(m, event)
        case Cancelled():
            return cancelled(m, event)
        case Expired():
            due = m.expiry is not None and event.at >= m.expiry
            return _moved(m, {State.ACTIVE, State.SUSPENDED}, State.EXPIRED) if due else Outcome(m)
        case CutOff():
            return cut_off(m, event)
        case ProviderAnswered():
            return answered(m, event)
        case AttemptDue():
            return attempt_due(m)
        case Suspended():
            return _moved(m, {State.ACTIVE}, State.SUSPENDED)
        case Resumed():
            return _moved(m, {State.SUSPENDED}, State.ACTIVE)
        case CreditAnswered() | HoldFrozen() | HoldTimedOut() | HoldLapsed() | PlanChanged():
            return guaranteed(m, event)


def _moved(m: Membership, sources: set[State], target: State) -> Outcome:
    return Outcome(replace(m, state=target) if m.state in sources else m)


# ---------------------------------------------------------------- usage


def _used(m: Membership, event: UseReported) -> Outcome:
    positive(event.fen)
    biz_time = require_instant(event.biz_time, "biz_time")
    known = next((use for use in m.uses if use.id == event.id), None)
    if known is not None:
        return Outcome(m, use_class=known.use_class)
    use_class = _class_of(m, event, biz_time)
    received_at = require_instant(event.at)
    use = Use(
        event.id, event.benefit, event.fen, biz_time, received_at, event.offline, use_class, event.sale, event.paid_fen
    )
    return Outcome(replace(m, uses=(*m.uses, use)), use_class=use_class)


def _class_of(m: Membership, event: UseReported, biz_time: datetime) -> UseClass:
    if m.enrolled_at is None or m.expiry is None:  # never enrolled: every instant is before it
        return UseClass.OVERUSE if event.offline else UseClass.REFUSED
    if m.state is State.SUSPENDED and not event.offline:
        return UseClass.REFUSED
    return charging.classify_use(
        m.plan_at(biz_time),
        m.quota_taken(),
        event.benefit,
        enrolled_at=m.enrolled_at,
        expiry=m.expiry,
        cut_off=m.charge_fen is not None,
        biz_time=biz_time,
        offline=event.offline,
    )
