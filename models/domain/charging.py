"""What a light membership costs: the rules of FEE_MIN as functions of values.

Whoever keeps the state (the pure `Membership`, or rows in a database) counts; these rules decide. So the
screen's preview, the settlement in SQL and the tests share one arithmetic. F is the plan's fee, F_eff what a
cancel left of it, u the benefit used: REGULAR uses net of their reversals.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum

from models.domain.calendar import day_begins, days_later, local_date, require_instant
from models.domain.errors import Refused
from models.domain.money import Rounding, divide, require_fen
from models.domain.periods import FixedDate, last_day
from models.domain.plans import MerchantCancel, Plan, Rule


class UseClass(StrEnum):
    """What a use is, decided once and answered again to duplicates."""

    REGULAR = "REGULAR"
    LATE = "LATE"
    """Received after the cutoff: takes a place of the quota, absorbed by the merchant."""
    OVERUSE = "OVERUSE"
    """Offline, beyond quota or outside the membership's life: absorbed by the merchant."""
    REFUSED = "REFUSED"
    """The same online: nothing happens."""


TAKES_QUOTA = frozenset({UseClass.REGULAR, UseClass.LATE})
ABSORBED = frozenset({UseClass.LATE, UseClass.OVERUSE})


class Branch(StrEnum):
    """Which money a charge is: fee income, or discounts taken back."""

    FEE = "FEE"
    CLAWBACK = "CLAWBACK"


class CancelledBy(StrEnum):
    """Who ended a membership before its expiry."""

    MEMBER = "member"
    MERCHANT = "merchant"


@dataclass(frozen=True, slots=True)
class Cancellation:
    """A cancel that took effect at instant `at`."""

    by: CancelledBy
    at: datetime


def expiry_instant(enrolled_at: datetime, plan: Plan, cycle: int = 1) -> datetime:
    """The UTC instant from which a use is too late: the day after enrolment date + period.

    Dates are local calendar dates in the plan's zone; the cutoff hour only moves the instant. `cycle`: the end of the
    so many-th period, for generations that follow each other without a gap from `enrolled_at` on.
    """
    end = last_day(plan.period, local_date(enrolled_at, plan.zone), cycle)
    return day_begins(end + timedelta(days=1), plan.zone, plan.cutoff_hour)


def cycle_at(began_at: datetime, plan: Plan, now: datetime) -> int:
    """The first period that ends after `now`, in the row of periods that began with the enrolment at `began_at`.

    Raises Refused `plan_over` when nothing renews after the plan's fixed date.
    """
    cycle = 1
    if isinstance(plan.period, FixedDate):
        if expiry_instant(began_at, plan) <= now:
            raise Refused("plan_over", f"{plan.id} ended with {plan.period.last_day}", "choose another plan")
        return cycle
    while expiry_instant(began_at, plan, cycle) <= now:
        cycle += 1
    return cycle


def cutoff_instant(expiry: datetime, plan: Plan) -> datetime:
    """The UTC instant at which usage stops counting: `expiry` (or a cancel's instant) + grace days."""
    return days_later(expiry, plan.grace_days, plan.zone)


def plan_at(before: Iterable[tuple[datetime, Plan]], now: Plan, at: datetime) -> Plan:
    """The plan that stood at `at`. `before`: each plan that a change ended, with that instant, in their order."""
    return next((plan for until, plan in before if at < until), now)


def classify_use(
    plan: Plan,
    quota_taken: Mapping[str, int],
    benefit: str,
    *,
    enrolled_at: datetime,
    expiry: datetime,
    cut_off: bool,
    biz_time: datetime,
    offline: bool,
) -> UseClass:
    """The class of one use that arrives now; call it once per usage id and keep the answer.

    `plan` is the one of its moment (`plan_at`). `quota_taken` counts, per benefit, the REGULAR and LATE uses that are
    not wholly reversed; open reservations and leases of others belong into it too. `expiry` is a cancel's instant when
    there was one. `cut_off` says that the charge is fixed already. A benefit that the plan does not have has no quota.
    """
    offered = plan.benefit(benefit)
    over_quota = offered is None or quota_taken.get(benefit, 0) >= offered.quota
    if over_quota or not enrolled_at <= require_instant(biz_time, "biz_time") < expiry:
        return UseClass.OVERUSE if offline else UseClass.REFUSED
    return UseClass.LATE if cut_off else UseClass.REGULAR


def effective_fee_fen(
    plan: Plan,
    enrolled_at: datetime,
    cancellation: Cancellation | None = None,
    cycle: int = 1,
    *,
    opened_at: datetime | None = None,
) -> int:
    """F_eff: what is left of the fee. A member's cancel leaves all of it, a merchant's what the plan says; nothing is
    left by whoever cancels on the plan's exemption days.

    Prorated over calendar days: floor(F * days served / days total), days total = period_days + 1 for relative days.
    Of a later generation, which opened at `opened_at` in the `cycle`-th period of the row that began at `enrolled_at`,
    both are counted from the day it opened on.
    """
    if cancellation is None:
        return plan.fee_fen
    if exempt(plan, enrolled_at, cancellation.at):
        return 0
    if cancellation.by is CancelledBy.MEMBER:
        return plan.fee_fen
    match plan.on_merchant_cancel:
        case MerchantCancel.MIN:
            return plan.fee_fen
        case MerchantCancel.ZERO:
            return 0
        case MerchantCancel.PRORATE:
            begun = local_date(opened_at or enrolled_at, plan.zone)
            # A hold that was frozen after a plan's fixed last day leaves no day at all.
            end = last_day(plan.period, local_date(enrolled_at, plan.zone), cycle)
            days_total = max((end - begun).days + 1, 1)
            # The hours between midnight and the cutoff hour of the last day would make one day too many.
            days_served = min(max((local_date(cancellation.at, plan.zone) - begun).days, 0), days_total)
            return divide(plan.fee_fen * days_served, days_total, Rounding.FLOOR)


def exempt(plan: Plan, enrolled_at: datetime, ended_at: datetime) -> bool:
    """True when a membership that is ended then costs nothing: on a local day up to enrolment date + exemption days.

    Counted from the enrolment, never again from a later generation.
    """
    days = (local_date(ended_at, plan.zone) - local_date(enrolled_at, plan.zone)).days
    return 0 < plan.exemption_days >= days


def charge_fen(fee_eff_fen: int, used_fen: int, *, task_target: int | None = None, task_done: int = 0) -> int:
    """The charge at settlement, and the preview at any time before: min(F_eff, u); 0 for a task that was kept.

    `task_target`: purchases or fen that the plan asks for, None without a task; `task_done`: what was done of it.
    """
    fee_eff, used = _amount(fee_eff_fen, "fee_eff_fen"), _amount(used_fen, "used_fen")
    if task_target is not None and _amount(task_done, "task_done") >= _amount(task_target, "task_target"):
        return 0
    return min(fee_eff, used)


def due_fen(charge: int, fee_eff_fen: int, used_fen: int) -> int:
    """What the member owes now: min(charge, min(F_eff, u)). Only ever falls once the charge is fixed."""
    return min(_amount(charge, "charge"), charge_fen(fee_eff_fen, used_fen))


def task_done(plan: Plan, sales_paid_fen: Collection[int]) -> int:
    """Progress of the plan's task, from what was paid for each sale that counts: purchases, or fen; 0 without one."""
    match plan.rule:
        case Rule.TASK_TIMES:
            return len(sales_paid_fen)
        case Rule.TASK_AMOUNT:
            return sum(sales_paid_fen)
        case Rule.FEE_MIN | Rule.CYCLE:
            return 0


def branch_of(charge: int, fee_eff_fen: int) -> Branch | None:
    """Which money the charge is; None when there is none. Fixed together with the charge."""
    if charge == 0:
        return None
    return Branch.FEE if charge == fee_eff_fen else Branch.CLAWBACK


def given_up_fen(fee_fen: int, fee_eff_fen: int, used_fen: int) -> int:
    """What a merchant's cancel let the member off: min(F, u) - min(F_eff, u); the plan's funder bears it."""
    return charge_fen(fee_fen, used_fen) - charge_fen(fee_eff_fen, used_fen)


def request_number(membership: str, generation: int, retry: int = 0) -> str:
    """Our number of a capture with the provider: `S{id}G{generation}`, retries `S{id}G{generation}A{retry}`."""
    number = f"S{membership}G{generation}"
    return f"{number}A{retry}" if retry else number


def _amount(fen: int, what: str) -> int:
    if require_fen(fen, what) < 0:
        raise ValueError(f"{what} must not be negative")
    return fen
