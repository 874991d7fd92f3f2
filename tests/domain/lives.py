"""Translates the lives of tests/cases/light_membership.json into events of the pure membership, nothing more."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

from models.domain.charging import CancelledBy
from models.domain.ids import BenefitId, MembershipId, UsageId
from models.domain.membership import (
    AttemptDue,
    Cancelled,
    CreditAnswer,
    CreditAnswered,
    CutOff,
    Event,
    Expired,
    HoldFrozen,
    Membership,
    Outcome,
    ProviderAnswer,
    ProviderAnswered,
    UseReported,
    UseReversed,
    apply,
    apply_for,
)
from models.domain.plans import GuaranteeKind, Plan, plan_from_dict

CASES = Path(__file__).parent.parent / "cases" / "light_membership.json"


def cases() -> list[dict[str, Any]]:
    loaded: list[dict[str, Any]] = json.loads(CASES.read_text(encoding="utf-8"))
    return loaded


def plan_of(data: dict[str, Any]) -> Plan:
    """The case's plan; what it leaves open (names, zone, daily dunning) does not touch the expectation."""
    return plan_from_dict(
        {
            **data,
            "id": "case",
            "version": 1,
            "name": {"zh": "测试", "en": "case"},
            "owner_entity": "chain",
            "zone": "Asia/Shanghai",
            "guarantees": ["huabei_hold"],
            "dunning_days": [1] * data["dunning_attempts"],
            "benefits": [{**benefit, "name": {"zh": "券", "en": "coupon"}} for benefit in data["benefits"]],
        }
    )


def enrolled(plan: Plan, at: datetime, membership_id: str = "m1") -> Membership:
    """An ACTIVE membership with a hold of the whole fee; a plan without fee needs none."""
    membership = apply_for(MembershipId(membership_id), plan, GuaranteeKind.HUABEI_HOLD, at)
    membership = apply(membership, CreditAnswered(at, CreditAnswer.HOLD_NEEDED)).membership
    return apply(membership, HoldFrozen(at, plan.fee_fen)).membership if plan.fee_fen else membership


def event_of(data: dict[str, Any]) -> Event:
    at = datetime.fromisoformat(data["at"])
    match data["type"]:
        case "use":
            biz_time = datetime.fromisoformat(data["biz_time"])
            usage, benefit = UsageId(data["id"]), BenefitId(data["benefit"])
            return UseReported(at, usage, benefit, data["fen"], biz_time, data["offline"])
        case "reverse":
            return UseReversed(at, data["id"], UsageId(data["refers_to"]), data["fen"])
        case "cancel":
            return Cancelled(at, CancelledBy(data["by"]))
        case "expire":
            return Expired(at)
        case "cutoff":
            return CutOff(at)
        case "provider":
            return ProviderAnswered(at, ProviderAnswer(data["answer"]))
        case "attempt":
            return AttemptDue(at)
        case other:
            raise AssertionError(f"unknown event {other}")


@dataclass
class Life:
    """What a caller would have seen: every outcome, and every answer to a use."""

    membership: Membership
    outcomes: list[Outcome] = field(default_factory=list)
    classes: dict[str, str] = field(default_factory=dict)

    def meet(self, event: Event) -> Outcome:
        outcome = apply(self.membership, event)
        if isinstance(event, UseReported):
            assert outcome.use_class is not None
            first = self.classes.setdefault(event.id, outcome.use_class.value)
            assert first == outcome.use_class, "a duplicate must get the first answer"
        self.membership = outcome.membership
        self.outcomes.append(outcome)
        return outcome

    def told(self) -> dict[str, Any]:
        """The life in the words of a case's `expect`."""
        m = self.membership
        return {
            "state": m.state.value,
            "used_fen": m.used_fen,
            "charge_fen": m.charge_fen,
            "paid_fen": m.paid_fen,
            "refunds_fen": [outcome.refund_fen for outcome in self.outcomes if outcome.refund_fen],
            "absorbed_fen": m.absorbed_fen,
            "given_up_fen": m.given_up_fen,
            "branch": m.branch.value if m.branch else None,
            "classes": self.classes,
            "refused_cancels": m.cancels_refused,
        }


def live(case: dict[str, Any]) -> Life:
    life = Life(enrolled(plan_of(case["plan"]), datetime.fromisoformat(case["enrolled_at"])))
    for data in case["events"]:
        life.meet(event_of(data))
    return life
