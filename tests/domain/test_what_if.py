"""A plan replayed over receipts: the articles' example by hand, and theorems over random receipts."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from models.domain.charging import Branch
from models.domain.ids import LegalEntityId, StoreId
from models.domain.plans import FeeShares, Plan, plan_from_dict
from models.domain.pricing import BasketLine
from models.domain.what_if import Audience, Joins, Receipt, Replay, replay
from tests.domain.test_plans import shipped

BEGIN = datetime(2026, 11, 1, 4, tzinfo=UTC)
PLAN = plan_from_dict(shipped())
OWNERS = {StoreId("s1"): LegalEntityId("one"), StoreId("s2"): LegalEntityId("two")}


def bought(number: int, fen: int, customer: str = "li", store: str = "s1", day: int = 0) -> Receipt:
    line = BasketLine(1, "6901234567892", "tea", 1, fen)
    return Receipt(f"r{number}", BEGIN + timedelta(days=day, minutes=number), StoreId(store), customer, (line,))


def test_the_articles_table() -> None:
    """Uses one coupon of 8.00: pays 8.00 back. Two: pays the fee of 10.00 and keeps 6.00."""
    once = replay(PLAN, [bought(0, 1590)], entities=OWNERS)
    assert (once.given_fen, once.charged_fen, once.kept_fen) == (800, 800, 0)
    assert once.of(Branch.CLAWBACK) == (1, 800)
    assert [(one.given_fen, one.back_fen, one.cost_fen) for one in once.stores] == [(800, 800, 0)]

    twice = replay(PLAN, [bought(0, 1590), bought(1, 1590, store="s2", day=3)], entities=OWNERS)
    assert (twice.given_fen, twice.charged_fen, twice.kept_fen) == (1600, 1000, 600)
    assert twice.fee_income_fen == {PLAN.owner_entity: 1000}
    assert [(one.place.store, one.cost_fen) for one in twice.stores] == [("s1", 800), ("s2", 800)]


def test_the_fee_is_shared_where_the_plan_says_so() -> None:
    shared = replace(PLAN, fee_shares=FeeShares.USAGE)
    found = replay(shared, [bought(0, 1590), bought(1, 1590, store="s2", day=3)], entities=OWNERS)
    assert found.fee_income_fen == {"one": 500, "two": 500}


def test_a_period_ends_and_the_next_begins() -> None:
    found = replay(PLAN, [bought(0, 1590), bought(1, 1590, day=40)])
    assert [one.charge_fen for one in found.memberships] == [800, 800]
    assert (found.members, found.unfinished) == (1, 1)


def test_nobody_joins_without_a_saving_unless_asked_at_once() -> None:
    nothing = [replace(bought(0, 990), lines=(BasketLine(1, "x", "smoke", 1, 990, frozenset({"tobacco"})),))]
    assert replay(PLAN, nothing).memberships == ()
    at_once = replay(PLAN, nothing, Audience(Joins.FIRST))
    assert [(one.used_fen, one.charge_fen, one.branch) for one in at_once.memberships] == [(0, 0, None)]


def test_take_up_is_the_same_people_for_the_same_seed() -> None:
    crowd = [bought(n, 1590, customer=f"c{n}") for n in range(1_000)]
    some = replay(PLAN, crowd, Audience(take_up_bp=3_000, seed=7))
    assert 250 < some.members < 350
    assert some == replay(PLAN, crowd, Audience(take_up_bp=3_000, seed=7))
    assert replay(PLAN, crowd, Audience(take_up_bp=0)).members == 0


def test_receipts_come_in_order() -> None:
    run = Replay(PLAN, Audience())
    run.take(bought(1, 1590))
    with pytest.raises(ValueError, match=r"r0 of .* comes after"):
        run.take(bought(0, 1590))


RECEIPTS = st.lists(
    st.builds(
        bought,
        number=st.integers(0, 400),
        fen=st.integers(1, 5_000),
        customer=st.sampled_from(["", "li", "wang", "zhao"]),
        store=st.sampled_from(["s1", "s2", "s3"]),
        day=st.integers(0, 120),
    ),
    max_size=40,
    unique_by=lambda one: one.number,
)
PLANS = st.builds(
    lambda fee, quota, shares: replace(
        PLAN, fee_fen=fee, benefits=(replace(PLAN.benefits[0], quota=quota),), fee_shares=shares
    ),
    st.integers(0, 2_000),
    st.integers(1, 6),
    st.sampled_from(FeeShares),
)


@given(PLANS, RECEIPTS)
def test_nobody_loses(plan: Plan, receipts: list[Receipt]) -> None:
    """Members: charge = min(fee, u) each. Stores: what is not paid back is what the plan keeps giving away."""
    found = replay(plan, receipts, entities=OWNERS)
    assert all(one.charge_fen == min(plan.fee_fen, one.used_fen) for one in found.memberships)
    assert found.given_fen == sum(one.given_fen for one in found.stores)
    clawed_back = found.of(Branch.CLAWBACK)[1]
    assert sum(one.back_fen for one in found.stores) == clawed_back
    assert sum(found.fee_income_fen.values()) == found.of(Branch.FEE)[1] == found.charged_fen - clawed_back
