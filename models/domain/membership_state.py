"""The values of a light membership's life: its state, what it remembers, and what an event makes due."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum

from models.domain import charging
from models.domain.charging import ABSORBED, TAKES_QUOTA, Branch, Cancellation, UseClass
from models.domain.ids import BenefitId, MembershipId, SaleId, UsageId
from models.domain.membership_events import Guarantee, HoldState
from models.domain.plans import Plan

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
    sale: SaleId | None = None
    paid_fen: int = 0
    """What was paid for the sale, all of it; it counts once for TASK_AMOUNT however many uses the sale had."""


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
    first_at: datetime | None = None
    """The enrolment that began an unbroken row of generations; None: this one's own."""
    cycle: int = 1
    """Which period of that row this generation is."""
    changes: tuple[str, ...] = ()
    """Ids of the changes of plan that were decided, done or refused."""
    plans_before: tuple[tuple[datetime, Plan], ...] = ()
    """Each plan that a change ended, with the instant of that change, in their order."""
    cancellation: Cancellation | None = None
    uses: tuple[Use, ...] = ()
    reversals: tuple[Reversal, ...] = ()
    charge_fen: int | None = None
    branch: Branch | None = None
    task_kept: bool = False
    """Fixed with the charge: the member did what the plan's task asks for."""
    attempt: Attempt | None = None
    captured_fen: int = 0
    refunded_fen: int = 0
    cancels_refused: int = 0
    parked_because: str = ""

    def plan_at(self, at: datetime) -> Plan:
        """The plan whose benefits were promised at that instant: a later change takes nothing back."""
        return charging.plan_at(self.plans_before, self.plan, at)

    @property
    def expiry(self) -> datetime | None:
        """The instant from which biz_time is too late: the plan's, or a cancel's own. None before ACTIVE."""
        if self.enrolled_at is None:
            return None
        if self.cancellation is not None:
            return self.cancellation.at
        return charging.expiry_instant(self.first_at or self.enrolled_at, self.plan, self.cycle)

    @property
    def cutoff(self) -> datetime | None:
        """The earliest instant at which the charge may be fixed."""
        return None if self.expiry is None else charging.cutoff_instant(self.expiry, self.plan)

    @property
    def fee_eff_fen(self) -> int:
        """F_eff: the fee, or what a cancel by the merchant left of it."""
        if self.enrolled_at is None:
            return self.plan.fee_fen
        began_at = self.first_at or self.enrolled_at
        return charging.effective_fee_fen(
            self.plan, began_at, self.cancellation, self.cycle, opened_at=self.enrolled_at
        )

    @property
    def used_fen(self) -> int:
        """u: REGULAR uses net of reversals."""
        return sum(self.net_fen(use) for use in self.uses if use.use_class is UseClass.REGULAR)

    @property
    def task_done(self) -> int:
        """Progress of the task: sales with a REGULAR use that is not wholly reversed, or what was paid for them."""
        paid_fen: dict[str, int] = {}
        for use in self.uses:
            if use.use_class is UseClass.REGULAR and self.net_fen(use):
                sale = use.sale or use.id
                paid_fen[sale] = max(paid_fen.get(sale, 0), use.paid_fen)
        return charging.task_done(self.plan, paid_fen.values())

    @property
    def absorbed_fen(self) -> int:
        """LATE and OVERUSE uses net of reversals: the merchant's, never the member's."""
        return sum(self.net_fen(use) for use in self.uses if use.use_class in ABSORBED)

    @property
    def due_fen(self) -> int:
        """What the member owes as things stand; before the charge is fixed, the preview of it."""
        if self.charge_fen is not None:
            return charging.due_fen(self.charge_fen, self.fee_eff_fen, self.used_fen)
        return charging.charge_fen(
            self.fee_eff_fen, self.used_fen, task_target=self.plan.task_target, task_done=self.task_done
        )

    @property
    def paid_fen(self) -> int:
        """Captured less refunded."""
        return self.captured_fen - self.refunded_fen

    @property
    def given_up_fen(self) -> int:
        """What a cancel let the member off; nothing where a kept task left nothing to pay."""
        kept = self.task_kept
        if self.charge_fen is None and self.plan.task_target is not None:
            kept = self.task_done >= self.plan.task_target
        return 0 if kept else charging.given_up_fen(self.plan.fee_fen, self.fee_eff_fen, self.used_fen)

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
    `change_refused`: nor did the change of plan, and what is to be unfrozen is the new plan's hold.
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
    change_refused: bool = False


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
