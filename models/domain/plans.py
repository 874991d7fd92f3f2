"""Light-membership plans: immutable versions, read strictly from plain data.

A plan is what the merchant promises. `plan_from_dict` takes what a YAML or JSON file holds and names the
field that is wrong; reading files is somebody else's work.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from enum import StrEnum
from typing import Any

from models.domain.benefit_reader import read_benefit
from models.domain.benefits import ALWAYS_EXCLUDED, Benefit, BenefitKind, Scope
from models.domain.calendar import zone_of
from models.domain.ids import LegalEntityId, PlanId
from models.domain.periods import Days, FixedDate, Months, Period
from models.domain.plan_reader import PlanError, Reader, Text

__all__ = [
    "ALWAYS_EXCLUDED",
    "HOLD_GUARANTEES",
    "OWN_HOLDS",
    "TASK_RULES",
    "Benefit",
    "BenefitKind",
    "FeeShares",
    "GuaranteeKind",
    "MerchantCancel",
    "Plan",
    "PlanError",
    "Rule",
    "Scope",
    "Text",
    "plan_from_dict",
]
"""Benefits, texts and errors are read from here too: they are parts of a plan."""


class Rule(StrEnum):
    """How a period is charged; F_eff is the fee or what a cancel left of it, u the benefit used.

    FEE_MIN (the articles'): min(F_eff, u). TASK_TIMES, TASK_AMOUNT: the member promised so many purchases, or so much
    spent; kept: 0, else min(F_eff, u). CYCLE: as FEE_MIN, and the next generation opens by itself until cancelled.
    """

    FEE_MIN = "FEE_MIN"
    TASK_TIMES = "TASK_TIMES"
    TASK_AMOUNT = "TASK_AMOUNT"
    CYCLE = "CYCLE"


TASK_RULES = frozenset({Rule.TASK_TIMES, Rule.TASK_AMOUNT})


class FeeShares(StrEnum):
    """Who gets the fee of branch FEE: the plan's owner, or each store's entity by what was used there."""

    OWNER = "owner"
    USAGE = "usage"


class MerchantCancel(StrEnum):
    """What a cancel by the merchant leaves of the fee: its share of days, nothing, or all of it."""

    PRORATE = "prorate"
    ZERO = "zero"
    MIN = "min"


class GuaranteeKind(StrEnum):
    """What stands behind the promise to pay at the end (wire.md, `enrol`)."""

    SESAME_CREDIT = "sesame_credit"
    HUABEI_HOLD = "huabei_hold"
    BALANCE_HOLD = "balance_hold"
    MERCHANT_TRUST = "merchant_trust"
    CASH_DEPOSIT = "cash_deposit"
    PAY_SCORE = "pay_score"
    """WeChat Pay's service order: the provider vouches for the fee, nothing is frozen."""


HOLD_GUARANTEES = frozenset(
    {
        GuaranteeKind.HUABEI_HOLD,
        GuaranteeKind.PAY_SCORE,
        GuaranteeKind.BALANCE_HOLD,
        GuaranteeKind.CASH_DEPOSIT,
    }
)
"""Guarantees that secure the whole fee until the end: with a provider, in the member's balance, in cash."""
OWN_HOLDS = frozenset({GuaranteeKind.BALANCE_HOLD, GuaranteeKind.CASH_DEPOSIT})
"""Those that no provider holds: the member's own money, with us."""


@dataclass(frozen=True, slots=True)
class Plan:
    """One immutable version of an offer. Amounts in fen, spans in days, `cutoff_hour` local to `zone`."""

    id: PlanId
    version: int
    name: Text
    owner_entity: LegalEntityId
    fee_fen: int
    benefits: tuple[Benefit, ...]
    period: Period
    grace_days: int
    cutoff_hour: int
    zone: str
    dunning_days: tuple[int, ...]
    """Days from one failed attempt to the next; its length is the number of retries."""
    on_merchant_cancel: MerchantCancel
    guarantees: tuple[GuaranteeKind, ...]
    enrol_again_after_days: int
    funder_entity: LegalEntityId
    """Who pays for what is given beyond the charge: late and surplus uses, and what a cancel gives up."""
    rule: Rule = Rule.FEE_MIN
    task_target: int | None = None
    """What the member promised: purchases (TASK_TIMES) or fen spent (TASK_AMOUNT); None for the other rules."""
    exemption_days: int = 0
    """Whoever ends the membership on a day up to enrolment date + these days pays nothing; 0: no such days."""
    fee_shares: FeeShares = FeeShares.OWNER

    @property
    def dunning_attempts(self) -> int:
        """Retries after the first failed capture."""
        return len(self.dunning_days)

    def benefit(self, benefit_id: str) -> Benefit | None:
        """The benefit of that id, or None when the plan has none."""
        return next((benefit for benefit in self.benefits if benefit.id == benefit_id), None)


_PLAN_FIELDS = frozenset(field.name for field in fields(Plan)) | {"dunning_attempts", "period_days"}


def plan_from_dict(data: Mapping[str, Any]) -> Plan:
    """The plan that plain data describes; raises PlanError naming the first wrong field.

    Required: id, version, name{zh,en}, owner_entity, rule, fee_fen, benefits, period (or period_days), grace_days,
    cutoff_hour, zone, dunning_attempts, dunning_days, on_merchant_cancel, guarantees; task_target with a task rule.
    Optional: enrol_again_after_days (0), funder_entity (the owner), exemption_days (0), fee_shares (owner).
    Unknown fields are refused.
    """
    reader = Reader(data, "", _PLAN_FIELDS)
    rule = reader.choice("rule", Rule)
    owner = reader.slug("owner_entity")
    plan = Plan(
        id=PlanId(reader.slug("id")),
        version=reader.integer("version", 1, 1_000_000),
        name=reader.text("name"),
        owner_entity=LegalEntityId(owner),
        rule=rule,
        fee_fen=reader.integer("fee_fen", 0, 100_000_00),
        benefits=_benefits(reader),
        period=_period(reader),
        grace_days=reader.integer("grace_days", 0, 90),
        cutoff_hour=reader.integer("cutoff_hour", 0, 23),
        zone=reader.string("zone"),
        dunning_days=_dunning_days(reader),
        on_merchant_cancel=reader.choice("on_merchant_cancel", MerchantCancel),
        guarantees=_guarantees(reader),
        enrol_again_after_days=reader.integer("enrol_again_after_days", 0, 3_660, default=0),
        funder_entity=LegalEntityId(reader.slug("funder_entity", default=owner)),
        task_target=_task_target(reader, rule),
        exemption_days=reader.integer("exemption_days", 0, 3_660, default=0),
        fee_shares=reader.choice("fee_shares", FeeShares, default=FeeShares.OWNER),
    )
    if plan.rule is Rule.CYCLE and isinstance(plan.period, FixedDate):
        raise PlanError("period.kind", "a cycle needs days or months: nothing renews after a fixed date")
    try:
        zone_of(plan.zone)
    except ValueError as error:
        raise PlanError("zone", str(error)) from error
    return plan


def _task_target(reader: Reader, rule: Rule) -> int | None:
    if rule in TASK_RULES:
        return reader.integer("task_target", 1, 1_000_000_00)
    if reader.has("task_target"):
        raise PlanError("task_target", f"belongs to {' and '.join(sorted(TASK_RULES))}, not to {rule}")
    return None


class _PeriodKind(StrEnum):
    DAYS = "days"
    MONTHS = "months"
    FIXED_DATE = "fixed_date"


_PERIOD_FIELDS = {
    _PeriodKind.DAYS: frozenset({"kind", "days"}),
    _PeriodKind.MONTHS: frozenset({"kind", "months", "anchor_day"}),
    _PeriodKind.FIXED_DATE: frozenset({"kind", "last_day"}),
}


def _period(reader: Reader) -> Period:
    """`period: {kind: …}`, or `period_days: n` for short."""
    if not reader.has("period"):
        return Days(reader.integer("period_days", 1, 3_660))
    if reader.has("period_days"):
        raise PlanError("period_days", "says the same as period: leave one out")
    kind = reader.inner("period", frozenset.union(*_PERIOD_FIELDS.values())).choice("kind", _PeriodKind)
    inner = reader.inner("period", _PERIOD_FIELDS[kind])
    match kind:
        case _PeriodKind.DAYS:
            return Days(inner.integer("days", 1, 3_660))
        case _PeriodKind.MONTHS:
            anchor = inner.integer("anchor_day", 1, 31) if inner.has("anchor_day") else None
            return Months(inner.integer("months", 1, 120), anchor)
        case _PeriodKind.FIXED_DATE:
            return FixedDate(inner.day("last_day"))


def _benefits(reader: Reader) -> tuple[Benefit, ...]:
    entries = reader.items("benefits", 1, 32)
    benefits = tuple(read_benefit(entry, f"benefits[{n}]") for n, entry in enumerate(entries))
    seen: set[str] = set()
    for n, benefit in enumerate(benefits):
        if benefit.id in seen:
            raise PlanError(f"benefits[{n}].id", f"{benefit.id!r} is used twice")
        seen.add(benefit.id)
    return benefits


def _dunning_days(reader: Reader) -> tuple[int, ...]:
    attempts = reader.integer("dunning_attempts", 0, 12)
    days = reader.items("dunning_days", 0, 12)
    if any(type(day) is not int or not 1 <= day <= 90 for day in days):
        raise PlanError("dunning_days", "each entry is a whole number of days, 1..90")
    if len(days) != attempts:
        raise PlanError("dunning_days", f"has {len(days)} entries for {attempts} dunning_attempts")
    return tuple(days)


def _guarantees(reader: Reader) -> tuple[GuaranteeKind, ...]:
    kinds = reader.items("guarantees", 1, len(GuaranteeKind))
    try:
        guarantees = tuple(GuaranteeKind(kind) for kind in kinds)
    except ValueError as error:
        raise PlanError("guarantees", f"{error}; one of {', '.join(GuaranteeKind)}") from error
    if len(set(guarantees)) != len(guarantees):
        raise PlanError("guarantees", "names a guarantee twice")
    return guarantees
