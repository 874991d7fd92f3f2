"""Stores that take amounts only, and goods that only adults may buy."""

from __future__ import annotations

from dataclasses import replace

import pytest

from actors.ports import ReserveUses
from models.domain.events import AgeCheck, Amount, Basket, Confirm, Paid, Remove, Scan, Tender, TenderKind, TillLine
from models.domain.facts import Incident
from models.domain.ids import BenefitId
from models.domain.plans import Plan, Scope
from tests.actors.lane import PLAN, TILL, Lane, buy, cash, member
from tests.actors.test_baskets import till_basket


def incidents(lane: Lane) -> list[str]:
    return [fact.kind for fact in lane.facts if isinstance(fact, Incident)]


# ---------------------------------------------------------------- amount


def test_an_amount_opens_a_visit_and_is_one_line() -> None:
    lane = Lane("none")
    reply = lane.ok(Amount("t-1", 1250))
    assert reply.session == lane.session.id
    assert lane.screen is not None
    (line,) = lane.screen.lines
    assert (line.name, line.net_fen, lane.state, lane.session.till_txn) == ("Amount", 1250, "quoted", "t-1")
    assert "amount" in lane.screen.actions
    lane.ok(Amount("t-1", 990))
    assert [line.unit_fen for line in lane.session.lines] == [990]
    lane.confirm(cash(990))
    (sale,) = lane.sales
    assert (sale.due_fen, sale.till_txn) == (990, "t-1")


def test_another_transaction_is_another_customer() -> None:
    lane = Lane("none")
    lane.ok(Amount("t-1", 1250))
    first = lane.session.id
    lane.ok(Amount("t-2", 100))
    assert lane.session.id != first
    assert [line.unit_fen for line in lane.session.lines] == [100]


@pytest.mark.parametrize(
    ("owner", "body", "code"),
    [
        ("none", Scan("tea", 1), "amount_only"),
        ("none", till_basket(1, 100), "amount_only"),
        ("storeops", Amount("t-1", 1), "basket_is_ours"),
        ("pos", Amount("t-1", 1), "basket_is_tills"),
    ],
)
def test_the_wrong_kind_of_basket(owner: str, body: Amount | Scan | Basket, code: str) -> None:
    lane = Lane(owner)
    lane.open()
    lane.refused(body, code)


def test_only_a_benefit_for_whole_baskets_is_given_on_an_amount() -> None:
    def saved(plan: Plan) -> int:
        lane = Lane("none")
        chain = replace(lane.book.chain_book, plans={plan.id: plan})
        lane.book = replace(lane.book, chain_book=chain)
        lane.ok(Amount("t-1", 1200))
        lane.identify(member())
        assert lane.screen is not None
        return lane.screen.discount_fen

    assert saved(PLAN) == 800
    picky = replace(PLAN.benefits[0], scope=Scope(PLAN.benefits[0].scope.excluded_flags | {"age_18"}))
    assert saved(replace(PLAN, benefits=(picky,))) == 0


# ---------------------------------------------------------------- age


def underage() -> Lane:
    lane = Lane()
    lane.open()
    buy(lane, "tea", "beer")
    assert (lane.state, lane.prompt) == ("basket", "age_check")
    assert lane.screen is not None
    assert "confirm" not in lane.screen.actions
    assert "age_check" in lane.screen.actions
    return lane


def test_nothing_is_paid_before_a_clerk_has_looked() -> None:
    lane = underage()
    lane.refused(Confirm(lane.session.rev, (cash(2000),)), "age_check_missing")
    lane.refused(AgeCheck(True), "clerk_missing")
    reply = lane.send(AgeCheck(True), clerk="c-17")
    assert reply is not None
    assert reply.ok
    assert (lane.state, lane.session.clerk) == ("quoted", "c-17")
    buy(lane, "beer")
    assert lane.state == "quoted", "one look is enough for one customer"
    lane.confirm(cash(2800))
    assert len(lane.sales) == 1


def test_refused_takes_the_goods_out_of_our_basket() -> None:
    lane = underage()
    lane.send(AgeCheck(False), clerk="c-17")
    assert [line.code for line in lane.session.lines] == ["tea"]
    assert (lane.state, lane.prompt, incidents(lane)) == ("quoted", "age_refused", ["age_refused"])
    buy(lane, "beer")
    assert lane.state == "basket", "a refusal is no permission"


def test_a_till_takes_them_out_itself() -> None:
    lane = Lane("pos")
    beer = TillLine(1, "beer", "Beer", 1, 800, 800)
    lane.ok(Basket("t-1", 1, (beer, TillLine(2, "x", "X", 1, 100, 100)), 900), terminal=TILL)
    assert (lane.state, lane.prompt) == ("basket", "age_check"), "the book's flags count beside the till's"
    lane.send(AgeCheck(False), clerk="c-17", terminal=TILL)
    assert (lane.state, lane.prompt, len(lane.session.lines)) == ("basket", "age_refused", 2)
    lane.ok(Basket("t-1", 2, (TillLine(2, "x", "X", 1, 100, 100),), 100), terminal=TILL)
    assert lane.state == "quoted"


def test_a_till_that_collected_all_the_same_is_booked_and_noted() -> None:
    lane = Lane("pos")
    lane.ok(Basket("t-1", 1, (TillLine(1, "beer", "Beer", 1, 800, 800),), 800), terminal=TILL)
    lane.ok(Paid("t-1", lane.session.rev, (Tender(TenderKind.CARD, 800),)), terminal=TILL)
    assert (lane.sales[0].due_fen, incidents(lane)) == (800, ["age_unchecked"])


def test_a_check_that_nobody_asked_for() -> None:
    lane = Lane()
    lane.open()
    buy(lane, "tea")
    lane.refused(AgeCheck(True), "no_age_check")
    lane.send(Scan("beer", 1))
    lane.ok(Remove(2))
    assert lane.state == "quoted"


def test_recognition_never_stands_for_a_clerk() -> None:
    lane = underage()
    lane.identify(member())
    assert lane.state == "basket"
    lane.send(AgeCheck(True), clerk="c-17")
    assert lane.state == "quoted"
    lane.confirm(cash(1200))
    assert lane.asked(ReserveUses)[1].uses[0].benefit == BenefitId("coupon8")
