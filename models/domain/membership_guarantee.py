"""What stands behind a membership: admission, holds that lapse or come late, a changed plan, the next generation."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime

from models.domain import charging
from models.domain.calendar import require_instant
from models.domain.errors import Refused
from models.domain.member_balance import BALANCE
from models.domain.membership_end import positive
from models.domain.membership_events import (
    CreditAnswer,
    CreditAnswered,
    Guarantee,
    HoldFrozen,
    HoldLapsed,
    HoldState,
    HoldTimedOut,
    PlanChanged,
)
from models.domain.membership_state import Membership, Outcome, State
from models.domain.payments import PROVIDERS
from models.domain.plans import HOLD_GUARANTEES, OWN_HOLDS, GuaranteeKind, Plan

ALIPAY, WECHAT = PROVIDERS
HOLDS = frozenset({State.ACTIVE, State.SUSPENDED, State.EXPIRED})
"""A hold that lapsed may be frozen again while the charge is not fixed."""
MAY_LAPSE = HOLDS | {State.SETTLING, State.UNKNOWN, State.DUNNING}
"""A hold ends by itself without asking how far its membership is; after that there is nothing to release."""
RENEWABLE = frozenset({State.EXPIRED, State.SETTLING, State.UNKNOWN, State.CLOSED})
"""From its expiry on; who owes money from this generation gets no next one."""


def guarantees_instead(plan: Plan, refused: GuaranteeKind) -> tuple[GuaranteeKind, ...]:
    """What to offer somebody whose credit was refused: the plan's guarantees with money behind them, in its order."""
    return tuple(kind for kind in plan.guarantees if kind in HOLD_GUARANTEES and kind is not refused)


def holder_of(kind: GuaranteeKind) -> str:
    """Who secures and collects: a name of models.domain.payments.PROVIDERS, or the member's own balance with us."""
    if kind in OWN_HOLDS:
        return BALANCE
    return WECHAT if kind is GuaranteeKind.PAY_SCORE else ALIPAY


def renewed(m: Membership, kind: GuaranteeKind, at: datetime) -> Membership:
    """The application for generation g+1, ADMITTING with a guarantee of its own; g settles for itself.

    It runs to the end of the row's period that is under way, so that months keep their anchor day. Raises Refused
    `renewal_refused` while g lives, was cancelled or is not paid, `guarantee_unavailable`, `plan_over`.
    """
    began_at = m.first_at or m.enrolled_at
    if m.state not in RENEWABLE or m.cancellation is not None or began_at is None:
        raise Refused("renewal_refused", f"{m.id} is {m.state} or was cancelled", "enrol anew, or settle it first")
    if kind not in m.plan.guarantees:
        raise Refused("guarantee_unavailable", f"{m.plan.id} does not take {kind}", "choose another guarantee")
    cycle = charging.cycle_at(began_at, m.plan, require_instant(at))
    return Membership(m.id, m.plan, Guarantee(kind), State.ADMITTING, m.generation + 1, first_at=began_at, cycle=cycle)


def guaranteed(m: Membership, event: CreditAnswered | HoldFrozen | HoldTimedOut | HoldLapsed | PlanChanged) -> Outcome:
    """What an answer about credit, hold or plan does; one that comes too late gives back what it froze."""
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
        case state, HoldLapsed() if state in MAY_LAPSE and m.guarantee.hold is HoldState.HELD:
            return Outcome(replace(m, guarantee=replace(m.guarantee, hold=HoldState.LAPSED)))
        case state, HoldFrozen() if state in HOLDS and m.guarantee.hold is HoldState.LAPSED:
            return Outcome(replace(m, guarantee=_held(m.guarantee, event.hold_fen)))
        case _, HoldFrozen() if m.guarantee.hold in {HoldState.NONE, HoldState.LAPSED}:
            # Too late to be of use: what was frozen after all goes back at once, and only once.
            late = replace(_held(m.guarantee, event.hold_fen), hold=HoldState.ENDED)
            return Outcome(replace(m, guarantee=late), release_hold_fen=event.hold_fen)
        case _, PlanChanged():
            return _plan_changed(m, event)
        case _:
            return Outcome(m)


def _plan_changed(m: Membership, event: PlanChanged) -> Outcome:
    """Swaps plan and guarantee, then releases the old hold; too late or not allowed: the new hold goes back instead."""
    if event.id in m.changes:
        return Outcome(m)
    decided = replace(m, changes=(*m.changes, event.id))
    if m.state is not State.ACTIVE or not _may_change(m, event):
        return Outcome(decided, release_hold_fen=_held_fen(event.guarantee), change_refused=True)
    changed = replace(
        decided,
        plan=event.plan,
        plans_before=(*m.plans_before, (require_instant(event.at), m.plan)),
        guarantee=event.guarantee,
        cycle=_cycle_of(m, event.plan, event.at),
    )
    return Outcome(changed, release_hold_fen=_held_fen(m.guarantee))


def _may_change(m: Membership, event: PlanChanged) -> bool:
    """The new plan takes this guarantee, is not over, and lowers nothing that is owed as things stand."""
    plan, guarantee = event.plan, event.guarantee
    same_owner = plan.owner_entity == m.plan.owner_entity
    held = guarantee.hold is HoldState.HELD
    covered = guarantee.hold_fen >= plan.fee_fen if held else guarantee.kind not in HOLD_GUARANTEES or not plan.fee_fen
    if guarantee.kind not in plan.guarantees or not covered or not same_owner:
        return False
    return _cycle_of(m, plan, event.at) > 0 and replace(m, plan=plan).due_fen >= m.due_fen


def _cycle_of(m: Membership, plan: Plan, at: datetime) -> int:
    """The period of `plan` that is under way, counted from the row's enrolment; 0 when the plan is over."""
    began_at = m.first_at or m.enrolled_at
    try:
        return 0 if began_at is None else charging.cycle_at(began_at, plan, require_instant(at))
    except Refused:
        return 0


def _held_fen(guarantee: Guarantee) -> int:
    return guarantee.hold_fen if guarantee.hold is HoldState.HELD else 0


def _held(guarantee: Guarantee, hold_fen: int) -> Guarantee:
    return replace(guarantee, hold_fen=positive(hold_fen), hold=HoldState.HELD)
