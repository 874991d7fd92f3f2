"""Light-membership plans: immutable versions, read strictly from plain data.

A plan is what the merchant promises. `plan_from_dict` takes what a YAML or JSON file holds and names the
field that is wrong; reading files is somebody else's work.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from enum import StrEnum
from typing import Any, TypeVar

from models.domain.calendar import zone_of
from models.domain.ids import BenefitId, LegalEntityId, PlanId, is_topic_level

_Choice = TypeVar("_Choice", bound=StrEnum)


class PlanError(ValueError):
    """A plan that cannot be offered. `field` is the path of the wrong entry, e.g. `benefits[0].quota`."""

    def __init__(self, field: str, problem: str) -> None:
        super().__init__(f"{field}: {problem}")
        self.field = field
        self.problem = problem


class Rule(StrEnum):
    """How a period is charged. FEE_MIN (the articles'): min(fee, benefit used)."""

    FEE_MIN = "FEE_MIN"
    TASK_TIMES = "TASK_TIMES"
    TASK_AMOUNT = "TASK_AMOUNT"
    CYCLE = "CYCLE"


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


HOLD_GUARANTEES = frozenset({GuaranteeKind.HUABEI_HOLD, GuaranteeKind.BALANCE_HOLD})
"""Guarantees that freeze the fee with a provider until the end."""


class BenefitKind(StrEnum):
    """What a use gives. FIXED_COUPON: `value_fen` off, never more than the eligible amount."""

    FIXED_COUPON = "fixed_coupon"


@dataclass(frozen=True, slots=True)
class Text:
    """One text in the two languages of equal rank."""

    zh: str
    en: str

    def to(self, language: str) -> str:
        """The text in `language` ("zh", "zh-CN", …); anything but Chinese reads English."""
        return self.zh if language.lower().startswith("zh") else self.en


@dataclass(frozen=True, slots=True)
class Scope:
    """Where a benefit counts: every item except those that carry one of `excluded_flags`."""

    excluded_flags: frozenset[str] = frozenset({"no_discount", "tobacco", "agency"})

    def covers(self, flags: frozenset[str]) -> bool:
        """True when an item with these flags may be discounted by the benefit."""
        return not (self.excluded_flags & flags)


ALWAYS_EXCLUDED = Scope().excluded_flags
"""Law and contracts: no plan may discount tobacco, items marked no_discount, or agency sales."""


@dataclass(frozen=True, slots=True)
class Benefit:
    """One line of a plan: `quota` uses of `value_fen` each over the whole period."""

    id: BenefitId
    name: Text
    value_fen: int
    quota: int
    kind: BenefitKind = BenefitKind.FIXED_COUPON
    uses_per_sale_max: int = 1
    scope: Scope = Scope()


@dataclass(frozen=True, slots=True)
class Plan:
    """One immutable version of an offer. Amounts in fen, spans in days, `cutoff_hour` local to `zone`."""

    id: PlanId
    version: int
    name: Text
    owner_entity: LegalEntityId
    fee_fen: int
    benefits: tuple[Benefit, ...]
    period_days: int
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

    @property
    def dunning_attempts(self) -> int:
        """Retries after the first failed capture."""
        return len(self.dunning_days)

    def benefit(self, benefit_id: str) -> Benefit | None:
        """The benefit of that id, or None when the plan has none."""
        return next((benefit for benefit in self.benefits if benefit.id == benefit_id), None)


_PLAN_FIELDS = frozenset(field.name for field in fields(Plan)) | {"dunning_attempts"}
_BENEFIT_FIELDS = frozenset(field.name for field in fields(Benefit))


def plan_from_dict(data: Mapping[str, Any]) -> Plan:
    """The plan that plain data describes; raises PlanError naming the first wrong field.

    Required: id, version, name{zh,en}, owner_entity, rule, fee_fen, benefits, period_days, grace_days,
    cutoff_hour, zone, dunning_attempts, dunning_days, on_merchant_cancel, guarantees. Optional:
    enrol_again_after_days (0), funder_entity (the owner). Unknown fields are refused.
    """
    reader = _Reader(data, "", _PLAN_FIELDS)
    rule = reader.choice("rule", Rule)
    if rule is not Rule.FEE_MIN:
        raise PlanError("rule", f"{rule} cannot be settled by this version; use FEE_MIN")
    owner = reader.slug("owner_entity")
    plan = Plan(
        id=PlanId(reader.slug("id")),
        version=reader.integer("version", 1, 1_000_000),
        name=reader.text("name"),
        owner_entity=LegalEntityId(owner),
        rule=rule,
        fee_fen=reader.integer("fee_fen", 0, 100_000_00),
        benefits=_benefits(reader),
        period_days=reader.integer("period_days", 1, 3_660),
        grace_days=reader.integer("grace_days", 0, 90),
        cutoff_hour=reader.integer("cutoff_hour", 0, 23),
        zone=reader.string("zone"),
        dunning_days=_dunning_days(reader),
        on_merchant_cancel=reader.choice("on_merchant_cancel", MerchantCancel),
        guarantees=_guarantees(reader),
        enrol_again_after_days=reader.integer("enrol_again_after_days", 0, 3_660, default=0),
        funder_entity=LegalEntityId(reader.slug("funder_entity", default=owner)),
    )
    try:
        zone_of(plan.zone)
    except ValueError as error:
        raise PlanError("zone", str(error)) from error
    return plan


def _benefits(reader: _Reader) -> tuple[Benefit, ...]:
    entries = reader.items("benefits", 1, 32)
    benefits = tuple(_benefit(entry, f"benefits[{n}]") for n, entry in enumerate(entries))
    seen: set[str] = set()
    for n, benefit in enumerate(benefits):
        if benefit.id in seen:
            raise PlanError(f"benefits[{n}].id", f"{benefit.id!r} is used twice")
        seen.add(benefit.id)
    return benefits


def _benefit(data: object, path: str) -> Benefit:
    reader = _Reader(data, path, _BENEFIT_FIELDS)
    return Benefit(
        id=BenefitId(reader.slug("id")),
        name=reader.text("name"),
        kind=reader.choice("kind", BenefitKind, default=BenefitKind.FIXED_COUPON),
        value_fen=reader.integer("value_fen", 1, 100_000_00),
        quota=reader.integer("quota", 1, 10_000),
        uses_per_sale_max=reader.integer("uses_per_sale_max", 1, 100, default=1),
        scope=_scope(reader),
    )


def _scope(reader: _Reader) -> Scope:
    if not reader.has("scope"):
        return Scope()
    inner = _Reader(reader.data["scope"], reader.path("scope"), frozenset({"excluded_flags"}))
    flags = inner.items("excluded_flags", 0, 32)
    if not all(isinstance(flag, str) for flag in flags):
        raise PlanError(inner.path("excluded_flags"), "must be a list of flag names")
    return Scope(ALWAYS_EXCLUDED | frozenset(flags))


def _dunning_days(reader: _Reader) -> tuple[int, ...]:
    attempts = reader.integer("dunning_attempts", 0, 12)
    days = reader.items("dunning_days", 0, 12)
    if any(type(day) is not int or not 1 <= day <= 90 for day in days):
        raise PlanError("dunning_days", "each entry is a whole number of days, 1..90")
    if len(days) != attempts:
        raise PlanError("dunning_days", f"has {len(days)} entries for {attempts} dunning_attempts")
    return tuple(days)


def _guarantees(reader: _Reader) -> tuple[GuaranteeKind, ...]:
    kinds = reader.items("guarantees", 1, len(GuaranteeKind))
    try:
        guarantees = tuple(GuaranteeKind(kind) for kind in kinds)
    except ValueError as error:
        raise PlanError("guarantees", f"{error}; one of {', '.join(GuaranteeKind)}") from error
    if len(set(guarantees)) != len(guarantees):
        raise PlanError("guarantees", "names a guarantee twice")
    return guarantees


class _Reader:
    """Takes typed fields out of one mapping and says exactly where it went wrong."""

    def __init__(self, data: object, prefix: str, fields: frozenset[str]) -> None:
        self._prefix = prefix
        if not isinstance(data, Mapping):
            raise PlanError(prefix or "plan", "must be a mapping of fields")
        self.data: Mapping[str, Any] = data
        unknown = sorted(str(key) for key in data if key not in fields)
        if unknown:
            raise PlanError(self.path(unknown[0]), "is not a field of a plan")

    def path(self, field: str) -> str:
        return f"{self._prefix}.{field}" if self._prefix else field

    def has(self, field: str) -> bool:
        return field in self.data

    def _required(self, field: str) -> Any:
        if field not in self.data:
            raise PlanError(self.path(field), "is missing")
        return self.data[field]

    def integer(self, field: str, low: int, high: int, default: int | None = None) -> int:
        value = default if default is not None and not self.has(field) else self._required(field)
        if type(value) is not int or not low <= value <= high:
            raise PlanError(self.path(field), f"must be a whole number {low}..{high}, got {value!r}")
        return value

    def string(self, field: str, default: str | None = None) -> str:
        value = default if default is not None and not self.has(field) else self._required(field)
        if not isinstance(value, str) or not value.strip() or len(value) > 200:
            raise PlanError(self.path(field), "must be a text of 1..200 characters")
        return value

    def slug(self, field: str, default: str | None = None) -> str:
        value = self.string(field, default)
        if not is_topic_level(value):
            raise PlanError(self.path(field), f"must match [a-z0-9-]{{1,48}}, got {value!r}")
        return value

    def text(self, field: str) -> Text:
        inner = _Reader(self._required(field), self.path(field), frozenset({"zh", "en"}))
        return Text(zh=inner.string("zh"), en=inner.string("en"))

    def choice(self, field: str, kind: type[_Choice], default: _Choice | None = None) -> _Choice:
        value = default if default is not None and not self.has(field) else self._required(field)
        try:
            return kind(value)
        except ValueError as error:
            raise PlanError(self.path(field), f"must be one of {', '.join(kind)}, got {value!r}") from error

    def items(self, field: str, low: int, high: int) -> Sequence[Any]:
        value = self._required(field)
        if not isinstance(value, list | tuple) or not low <= len(value) <= high:
            raise PlanError(self.path(field), f"must be a list of {low}..{high} entries")
        return value
