"""A terminal that sells alone judges only what it can: plain coupons that count everywhere."""

from __future__ import annotations

from dataclasses import replace

from models.domain.ids import BenefitId
from models.domain.plans import Benefit, BenefitKind, Scope, Text
from runtime.offline_prices import offline_prices
from tests.actors.lane import PLAN, book


def test_only_plain_coupons_are_given_without_the_server() -> None:
    coupon = PLAN.benefits[0]
    others = (
        Benefit(BenefitId("tenth"), Text("九折", "a tenth"), 500, 5, BenefitKind.PERCENT, basis_points=1000),
        replace(coupon, id=BenefitId("milk"), scope=Scope(items=frozenset({"milk"}))),
    )
    plan = replace(PLAN, benefits=(coupon, *others))
    store = book()
    chain = replace(store.chain_book, plans={plan.id: plan})
    document = offline_prices(replace(store, chain_book=chain))
    assert document is not None
    assert [benefit["id"] for benefit in document["benefits"]] == [coupon.id]
