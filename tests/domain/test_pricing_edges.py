"""Edges of pricing and of the search for the best set: ties, bounds, and what a till sends."""

from __future__ import annotations

from dataclasses import replace

import pytest

from models.domain.best_set import NODES_MAX, Candidate, best_set, compatible, greedy_set
from models.domain.errors import Refused
from models.domain.events import Tender, TenderKind
from models.domain.pricing import (
    LightOffer,
    Quote,
    check_tenders,
    check_total,
    price,
    saves_now_fen,
    voucher_candidates,
)
from models.domain.vouchers import fit
from tests.domain.baskets import Off, line, plan_of, voucher
from tests.domain.test_benefits import TEA


def one(name: str, fen: int, group: str = "", *, exclusive: bool = False) -> Candidate:
    return Candidate(name, (0, 0, name), Off(fen), group, exclusive)


def chosen(nets_fen: int, *candidates: Candidate) -> list[str]:
    return [each.candidate.id for each in best_set([nets_fen], candidates).taken]


def test_of_two_that_are_equal_the_lower_name_is_taken_whoever_is_exclusive() -> None:
    assert chosen(1000, one("a", 100), one("z", 100, exclusive=True)) == ["a"]
    assert chosen(1000, one("a", 100, exclusive=True), one("z", 100)) == ["a"]
    assert chosen(100, one("a", 60), one("b", 60), one("c", 100)) == ["c"], "fewer vouchers"
    assert one("a", 1).uses == 1


def test_of_a_group_one_and_what_stands_behind_it_too() -> None:
    assert chosen(1000, one("a", 300, "g"), one("b", 200, "g"), one("c", 100)) == ["a", "c"]
    assert chosen(1000, one("a", 200, "g"), one("b", 300, "g"), one("c", 100)) == ["b", "c"]


@pytest.mark.parametrize(
    ("count", "worthless", "optimal"), [(23, 0, True), (24, 0, True), (24, 3, True), (25, 0, False)]
)
def test_how_many_are_looked_at(count: int, worthless: int, optimal: bool) -> None:
    given = [one(f"v{n:02}", 100, "g") for n in range(count)] + [one(f"w{n}", 0) for n in range(worthless)]
    assert best_set([1000], given).optimal is optimal
    few = best_set([1000], [one(name, 100, exclusive=True) for name in "abc"], nodes_max=2)
    assert (few.optimal, few.nodes, NODES_MAX) == (False, 4, 500)


def test_what_may_be_taken_together() -> None:
    a, b, alone = one("a", 1, "g"), one("b", 1, "g"), one("x", 1, exclusive=True)
    assert [compatible(few) for few in ([], [a], [alone], [a, one("c", 1)], [one("c", 1), one("d", 1)])] == [True] * 5
    assert [compatible(few) for few in ([a, b], [a, alone], [a, one("c", 1), alone])] == [False] * 3


def test_the_greedy_one_takes_what_helps_most_until_nothing_does() -> None:
    found = greedy_set([250], [one("a", 100), one("b", 300, "g"), one("c", 50, "g")])
    assert ([each.candidate.id for each in found.taken], found.price_fen, found.optimal) == (["b"], 0, False)
    both = greedy_set([250], [one("a", 100), one("b", 120)])
    assert ([each.candidate.id for each in both.taken], both.price_fen, both.nodes) == (["a", "b"], 30, 4)
    nothing = greedy_set([250], [])
    assert (nothing.taken, nothing.price_fen, nothing.nodes) == ((), 250, 1)
    late = Candidate("a", (0, 0, "a"), Off(100, 100))
    assert greedy_set([250], [late]).price_fen == 150, "no dearer later, and less now"


def test_a_voucher_entered_twice_is_two_candidates() -> None:
    fitted = [fit(voucher(name), [TEA]) for name in ("v", "w", "v", "v")]
    assert [each.id for each in voucher_candidates(fitted)] == ["v", "w", "v#2", "v#3"]


COUPON = {"id": "c", "kind": "fixed_coupon", "value_fen": 300, "uses_per_sale_max": 2}


def test_two_uses_compete_with_a_voucher_by_what_they_are_worth() -> None:
    plan = plan_of(COUPON, fee_fen=400)
    basket = [line(1, 1000)]
    found = price(basket, LightOffer.fresh(plan), vouchers=[voucher(value_fen=100)])
    assert (found.due_fen, [use.fen for use in found.uses]) == (300, [300, 300])
    assert saves_now_fen(basket, plan) == 600
    assert saves_now_fen(basket, plan, vouchers=[voucher(value_fen=100)]) == 600


def test_two_uses_are_worth_more_than_a_voucher_that_stands_alone() -> None:
    found = price([line(1, 1000)], LightOffer.fresh(plan_of(COUPON, fee_fen=10)),
                  vouchers=[voucher(value_fen=400, exclusive=True)])  # fmt: skip
    assert (found.due_fen, len(found.uses), found.later_fen) == (400, 2, 10)


def test_what_is_not_said_is_nothing() -> None:
    assert not voucher().offered
    fresh = LightOffer.fresh(plan_of(COUPON))
    assert (fresh.used_fen, fresh.task_done, dict(fresh.uses_left)) == (0, 0, {"c": 9})
    empty = Quote(())
    assert (empty.gross_fen, empty.discount_fen, empty.due_fen, empty.cash_due_fen) == (0, 0, 0, 0)
    assert (empty.later_fen, empty.agency_fen, empty.age_check, empty.optimal) == (0, 0, False, True)


@pytest.mark.parametrize(("total_fen", "right"), [(999, False), (1000, True), (1001, False)])
def test_a_total_is_the_sum_of_its_lines(total_fen: int, right: bool) -> None:
    if right:
        check_total([line(1, 400), line(2, 600)], total_fen)
    else:
        with pytest.raises(Refused, match="the lines sum to"):
            check_total([line(1, 400), line(2, 600)], total_fen)


@pytest.mark.parametrize("kind", [kind for kind in TenderKind if kind is not TenderKind.COUPON])
def test_only_cash_may_be_nothing_and_only_cash_gives_change(kind: TenderKind) -> None:
    little, priced = price([line(1, 9)]), price([line(1, 1000)])

    def code(tender: Tender, over: bool) -> str:
        try:
            check_tenders([tender], priced if over else little)
        except Refused as refused:
            return refused.code
        return ""

    cash = kind is TenderKind.CASH
    assert code(Tender(kind, 0), over=False) == ("" if cash else "tender_invalid")
    assert code(replace(Tender(kind, 1000), tendered_fen=1200), over=True) == ("" if cash else "change_not_cash")


def test_coupons_are_sent_where_the_lines_do_not_have_them() -> None:
    priced = price([line(1, 1000)], vouchers=[voucher(value_fen=100)])
    money, coupon = Tender(TenderKind.CARD, 900), Tender(TenderKind.COUPON, 100)
    check_tenders([money], priced)
    check_tenders([money, coupon], priced, coupons=True)
    for tenders, coupons, remedy in (([money, coupon], False, "send no coupon"), ([money], True, "send the screen's")):
        with pytest.raises(Refused) as caught:
            check_tenders(tenders, priced, coupons=coupons)
        assert caught.value.do.startswith(remedy)
