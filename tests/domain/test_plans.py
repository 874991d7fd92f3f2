from __future__ import annotations

import copy
import json
from datetime import date
from pathlib import Path
from typing import Any

import pytest
import yaml

from models.domain.periods import Days, FixedDate, Months
from models.domain.plans import (
    BenefitKind,
    FeeShares,
    GuaranteeKind,
    MerchantCancel,
    Plan,
    PlanError,
    Rule,
    plan_from_dict,
)

SHIPPED = Path(__file__).parents[2] / "configs" / "plans"


def shipped() -> dict[str, Any]:
    loaded: dict[str, Any] = yaml.safe_load((SHIPPED / "light-10.yaml").read_text(encoding="utf-8"))
    return loaded


def test_the_articles_plan_is_shipped() -> None:
    plan = plan_from_dict(shipped())
    assert (plan.id, plan.rule, plan.fee_fen) == ("light-10", Rule.FEE_MIN, 1000)
    assert [(benefit.value_fen, benefit.quota) for benefit in plan.benefits] == [(800, 5)]
    assert (plan.period, plan.grace_days, plan.cutoff_hour) == (Days(30), 1, 0)
    assert (plan.dunning_attempts, plan.dunning_days) == (4, (1, 1, 8, 6))
    assert plan.on_merchant_cancel is MerchantCancel.PRORATE
    assert plan.guarantees == (GuaranteeKind.HUABEI_HOLD,)
    assert plan.name.to("zh-CN") == "十元轻会员"
    assert plan.name.to("en") == "Light membership 10"


@pytest.mark.parametrize("path", sorted(SHIPPED.glob("*.yaml")), ids=lambda path: path.name)
def test_every_shipped_plan_can_be_offered(path: Path) -> None:
    document = yaml.safe_load(path.read_text(encoding="utf-8"))
    plan = plan_from_dict(document)
    assert plan.id == path.stem
    assert plan_from_dict(json.loads(json.dumps(document))) == plan, "a plan is kept as JSON"


def test_each_rule_has_an_example_with_a_period_of_its_own() -> None:
    plans = [plan_from_dict(yaml.safe_load(path.read_text(encoding="utf-8"))) for path in SHIPPED.glob("*.yaml")]
    assert {plan.rule for plan in plans} == set(Rule)
    assert {type(plan.period) for plan in plans} == {Days, Months, FixedDate}
    assert {benefit.kind for plan in plans for benefit in plan.benefits} == set(BenefitKind)
    assert {kind for plan in plans for kind in plan.guarantees} == set(GuaranteeKind)


def with_period(**period: object) -> dict[str, Any]:
    data = {key: value for key, value in shipped().items() if key != "period_days"}
    return {**data, "period": period}


def test_periods_are_read() -> None:
    assert plan_from_dict(with_period(kind="days", days=7)).period == Days(7)
    assert plan_from_dict(with_period(kind="months", months=1)).period == Months(1)
    assert plan_from_dict(with_period(kind="months", months=3, anchor_day=31)).period == Months(3, 31)
    assert plan_from_dict(with_period(kind="fixed_date", last_day="2026-12-31")).period == FixedDate(date(2026, 12, 31))


@pytest.mark.parametrize(
    ("period", "told"),
    [
        ({}, "period.kind"),
        ({"kind": "weeks"}, "period.kind"),
        ({"kind": "days"}, "period.days"),
        ({"kind": "days", "days": 0}, "period.days"),
        ({"kind": "days", "days": 7, "months": 1}, "period.months"),
        ({"kind": "months", "months": 0}, "period.months"),
        ({"kind": "months", "months": 1, "anchor_day": 32}, "period.anchor_day"),
        ({"kind": "months", "months": 1, "anchor_day": 0}, "period.anchor_day"),
        ({"kind": "fixed_date", "last_day": "2026-02-30"}, "period.last_day"),
        ({"kind": "fixed_date", "last_day": date(2026, 12, 31)}, "period.last_day"),
        ({"kind": "fixed_date"}, "period.last_day"),
    ],
)
def test_a_wrong_period_is_named(period: dict[str, Any], told: str) -> None:
    with pytest.raises(PlanError) as caught:
        plan_from_dict(with_period(**period))
    assert caught.value.field == told


@pytest.mark.parametrize(
    ("terms", "told"),
    [
        ({"rule": "TASK_TIMES"}, "task_target"),
        ({"rule": "TASK_AMOUNT", "task_target": 0}, "task_target"),
        ({"task_target": 3}, "task_target"),
        ({"rule": "CYCLE", "task_target": 3}, "task_target"),
        ({"exemption_days": -1}, "exemption_days"),
        ({"fee_shares": "nobody"}, "fee_shares"),
        ({"period": {"kind": "days", "days": 7}}, "period_days"),
    ],
)
def test_terms_that_do_not_fit_the_rule_are_refused(terms: dict[str, Any], told: str) -> None:
    with pytest.raises(PlanError) as caught:
        plan_from_dict({**shipped(), **terms})
    assert caught.value.field == told


def test_a_cycle_needs_a_period_that_repeats() -> None:
    data = {**with_period(kind="fixed_date", last_day="2026-12-31"), "rule": "CYCLE"}
    with pytest.raises(PlanError, match="nothing renews"):
        plan_from_dict(data)


def test_terms_that_a_plan_leaves_out() -> None:
    plan = plan_from_dict(shipped())
    assert (plan.task_target, plan.exemption_days, plan.fee_shares) == (None, 0, FeeShares.OWNER)
    assert plan_from_dict({**shipped(), "rule": "TASK_TIMES", "task_target": 3}).task_target == 3
    assert plan_from_dict({**shipped(), "fee_shares": "usage"}).fee_shares is FeeShares.USAGE


def wrong(field: str, value: object) -> dict[str, Any]:
    data = copy.deepcopy(shipped())
    target: Any = data
    *parents, last = field.split(".")
    for parent in parents:
        target = target[int(parent) if parent.isdigit() else parent]
    if value is ...:
        del target[last]
    else:
        target[last] = value
    return data


@pytest.mark.parametrize(
    ("field", "value", "told"),
    [
        ("fee_fen", 10.0, "fee_fen"),
        ("fee_fen", True, "fee_fen"),
        ("fee_fen", "10.00", "fee_fen"),
        ("fee_fen", -1, "fee_fen"),
        ("fee_fen", ..., "fee_fen"),
        ("id", "Light 10", "id"),
        ("version", 0, "version"),
        ("name.en", "", "name.en"),
        ("name.zh", ..., "name.zh"),
        ("name", "Light", "name"),
        ("rule", "nonsense", "rule"),
        ("zone", "Mars/Olympus", "zone"),
        ("cutoff_hour", 24, "cutoff_hour"),
        ("dunning_days", [1, 1], "dunning_days"),
        ("dunning_days", [1, 1, 8, 0], "dunning_days"),
        ("dunning_days", "1,1,8,6", "dunning_days"),
        ("guarantees", [], "guarantees"),
        ("guarantees", ["handshake"], "guarantees"),
        ("guarantees", ["huabei_hold", "huabei_hold"], "guarantees"),
        ("on_merchant_cancel", "half", "on_merchant_cancel"),
        ("benefits", [], "benefits"),
        ("benefits.0.quota", 0, "benefits[0].quota"),
        ("benefits.0.value_fen", ..., "benefits[0].value_fen"),
        ("benefits.0.kind", "percentage", "benefits[0].kind"),
        ("benefits.0.kind", "percent", "benefits[0].value_fen"),
        ("benefits.0.colour", "red", "benefits[0].colour"),
        ("benefits.0.name", {"zh": "券"}, "benefits[0].name.en"),
        ("benefits.0.scope.excluded_flags", [1], "benefits[0].scope.excluded_flags"),
        ("benefits.0.scope", "all", "benefits[0].scope"),
        ("fee", "10.00", "fee"),
    ],
)
def test_a_wrong_field_is_named(field: str, value: object, told: str) -> None:
    with pytest.raises(PlanError) as caught:
        plan_from_dict(wrong(field, value))
    assert caught.value.field == told
    assert str(caught.value).startswith(f"{told}: ")


def test_two_benefits_with_one_id_are_refused() -> None:
    data = shipped()
    data["benefits"].append(copy.deepcopy(data["benefits"][0]))
    with pytest.raises(PlanError, match=r"benefits\[1\]\.id"):
        plan_from_dict(data)


def test_no_plan_may_discount_tobacco() -> None:
    plan: Plan = plan_from_dict(wrong("benefits.0.scope.excluded_flags", ["age_18"]))
    scope = plan.benefits[0].scope
    assert scope.covers(frozenset({"weight"}))
    assert not any(scope.covers(frozenset({flag})) for flag in ("tobacco", "no_discount", "agency", "age_18"))


def test_plain_data_that_is_no_mapping_is_refused() -> None:
    with pytest.raises(PlanError, match="plan"):
        plan_from_dict([])  # type: ignore[arg-type]  # what a broken file may hold
