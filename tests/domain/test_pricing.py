from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from models.domain.charging import charge_fen
from models.domain.errors import Refused
from models.domain.events import Tender, TenderKind
from models.domain.ids import BenefitId
from models.domain.plans import Benefit, Plan, Rule, Text, plan_from_dict
from models.domain.pricing import (
    BasketLine,
    Item,
    LightOffer,
    Quote,
    check_tenders,
    check_total,
    later_fen,
    price,
    saves_now_fen,
)
from tests.domain.test_plans import shipped

PLAN = plan_from_dict(shipped())
NO_FLAGS: frozenset[str] = frozenset()


def line(number: int, fen: int, quantity: int = 1, flags: frozenset[str] = NO_FLAGS) -> BasketLine:
    return BasketLine(number, f"code{number}", f"item {number}", quantity, fen, flags)


def plan_with(*benefits: tuple[str, int, int, int], fee_fen: int = 1000) -> Plan:
    """A plan of (id, value, quota, uses per sale)."""
    made = [
        {
            "id": name,
            "name": {"zh": name, "en": name},
            "value_fen": value,
            "quota": quota,
            "uses_per_sale_max": per_sale,
        }
        for name, value, quota, per_sale in benefits
    ]
    return plan_from_dict({**shipped(), "fee_fen": fee_fen, "benefits": made})


def test_the_coupon_takes_8_yuan_off_and_says_why() -> None:
    quote = price([line(1, 800)], LightOffer.fresh(PLAN))
    assert (quote.gross_fen, quote.discount_fen, quote.due_fen, quote.cash_due_fen) == (800, 800, 0, 0)
    assert quote.lines[0].why == Text(zh="轻会员：8 元优惠券", en="light: 8-yuan coupon")
    assert [(use.benefit, use.fen, use.lines) for use in quote.uses] == [("coupon8", 800, ((1, 800),))]
    assert quote.later_fen == 800


@pytest.mark.parametrize(
    ("rule", "target", "done", "later"),
    [
        (Rule.TASK_TIMES, 3, 1, 800),  # this is the second of three: as things stand it is charged
        (Rule.TASK_TIMES, 3, 2, 0),  # this one keeps the promise
        (Rule.TASK_TIMES, 3, 5, 0),
        (Rule.TASK_AMOUNT, 20_000, 19_999, 800),
        (Rule.TASK_AMOUNT, 20_000, 20_000, 0),
    ],
)
def test_a_kept_task_charges_nothing_later(rule: Rule, target: int, done: int, later: int) -> None:
    plan = replace(PLAN, rule=rule, task_target=target)
    light = LightOffer(plan, 0, {"coupon8": 5}, task_done=done)
    assert price([line(1, 800)], light).later_fen == later
    assert later_fen(light, 0) == 0, "who uses nothing is charged nothing"


def test_once_the_fee_is_reached_a_coupon_costs_nothing_later() -> None:
    quote = price([line(1, 800)], LightOffer(PLAN, 800, {"coupon8": 4}))
    assert quote.later_fen == 200
    assert price([line(1, 800)], LightOffer(PLAN, 1600, {"coupon8": 3})).later_fen == 0


def test_allocation_over_lines_by_largest_remainder() -> None:
    quote = price([line(1, 350), line(2, 350), line(3, 350)], LightOffer.fresh(PLAN))
    assert [priced.discount_fen for priced in quote.lines] == [267, 267, 266]
    assert [priced.net_fen for priced in quote.lines] == [83, 83, 84]


@pytest.mark.parametrize("flag", ["tobacco", "no_discount", "agency"])
@pytest.mark.parametrize("from_book", [False, True])
def test_excluded_items_get_nothing(flag: str, from_book: bool) -> None:
    flags = frozenset({flag})
    items: Mapping[str, Item] = {"code1": Item("code1", Text("烟", "x"), 2000, flags if from_book else NO_FLAGS)}
    quote = price([line(1, 2000, flags=NO_FLAGS if from_book else flags), line(2, 300)], LightOffer.fresh(PLAN), items)
    assert [priced.discount_fen for priced in quote.lines] == [0, 300]
    assert quote.lines[0].why is None
    assert quote.agency_fen == (2000 if flag == "agency" else 0)


def test_two_uses_share_what_is_eligible_and_the_last_takes_the_rest() -> None:
    plan = plan_with(("small", 300, 5, 3))
    quote = price([line(1, 250), line(2, 150)], LightOffer.fresh(plan))
    assert [use.fen for use in quote.uses] == [300, 100]
    assert [priced.net_fen for priced in quote.lines] == [0, 0]


def test_nothing_left_or_no_membership_means_full_price() -> None:
    for light in (None, LightOffer(PLAN, 4000, {"coupon8": 0}), LightOffer(PLAN, 4000, {})):
        quote = price([line(1, 800, 2)], light)
        assert (quote.gross_fen, quote.discount_fen, quote.due_fen, quote.uses) == (1600, 0, 1600, ())


def test_the_lower_effective_price_wins_over_the_bigger_coupon() -> None:
    """u = 900 of a fee of 1000: 8.00 now costs 1.00 later, so it beats nothing, and 3.00 twice beats 3.00 once."""
    plan = plan_with(("big", 800, 5, 1), ("small", 300, 5, 2))
    quote = price([line(1, 5000)], LightOffer(plan, 900, {"big": 5, "small": 5}))
    assert [(use.benefit, use.fen) for use in quote.uses] == [("big", 800)]
    twice = price([line(1, 5000)], LightOffer(plan, 900, {"big": 0, "small": 5}))
    assert [(use.benefit, use.fen) for use in twice.uses] == [("small", 300), ("small", 300)]


def test_ties_go_to_the_lower_price_then_fewer_uses_then_the_lower_id() -> None:
    # u = 0 and a fee that nobody reaches: every use costs later what it saves now.
    neutral = plan_with(("a", 300, 5, 1), ("b", 800, 5, 1), fee_fen=90_000)
    assert price([line(1, 5000)], LightOffer.fresh(neutral)).uses[0].benefit == "b"
    fewer = plan_with(("a", 400, 5, 2), ("b", 800, 5, 1))
    assert price([line(1, 5000)], LightOffer.fresh(fewer)).uses[0].benefit == "b"
    same = plan_with(("b", 800, 5, 1), ("a", 800, 5, 1))
    assert price([line(1, 5000)], LightOffer.fresh(same)).uses[0].benefit == "a"


def test_an_offer_shows_what_enrolling_saves_now() -> None:
    assert saves_now_fen([line(1, 500)], PLAN) == 500
    assert saves_now_fen([line(1, 5000)], PLAN) == 800
    assert saves_now_fen([line(1, 5000, flags=frozenset({"tobacco"}))], PLAN) == 0


def test_age_check_is_asked_for() -> None:
    assert price([line(1, 500, flags=frozenset({"age_18"}))]).age_check
    assert not price([line(1, 500)]).age_check


def test_the_tills_own_price_of_a_line_is_the_base() -> None:
    weighed = BasketLine(1, "x", "apples", 1, 1290, base_fen=1000)
    quote = price([weighed], LightOffer.fresh(PLAN))
    assert (quote.gross_fen, quote.due_fen) == (1000, 200)


@pytest.mark.parametrize(
    "lines",
    [
        [line(1, 500, 0)],
        [line(1, -500)],
        [line(1, 500), line(1, 300)],
        [BasketLine(1, "x", "x", 1, 5, base_fen=-1)],
    ],
)
def test_impossible_lines_are_refused(lines: list[BasketLine]) -> None:
    with pytest.raises(Refused) as caught:
        price(lines)
    assert caught.value.code == "line_invalid"


def test_a_basket_whose_total_differs_is_refused() -> None:
    check_total([line(1, 500, 2), line(2, 300)], 1300)
    with pytest.raises(Refused) as caught:
        check_total([line(1, 500, 2), line(2, 300)], 1299)
    assert caught.value.code == "total_mismatch"


LINES = st.lists(
    st.tuples(st.integers(0, 3000), st.integers(1, 5), st.sampled_from([NO_FLAGS, frozenset({"tobacco"})])),
    max_size=8,
).map(lambda raw: [line(n, fen, quantity, flags) for n, (fen, quantity, flags) in enumerate(raw, 1)])
BENEFITS = st.lists(st.tuples(st.integers(1, 1500), st.integers(0, 5), st.integers(1, 3)), min_size=1, max_size=4)


@given(LINES, BENEFITS, st.integers(0, 3000), st.integers(0, 3000))
def test_no_choice_has_a_lower_effective_price(
    lines: list[BasketLine], benefits: list[tuple[int, int, int]], fee: int, used: int
) -> None:
    named = [(f"b{n}", value, 5, per_sale) for n, (value, _, per_sale) in enumerate(benefits)]
    plan = plan_with(*named, fee_fen=fee)
    left = {f"b{n}": quota for n, (_, quota, _) in enumerate(benefits)}
    light = LightOffer(plan, used, left)
    quote = price(lines, light)
    assert quote == price(lines, light), "preview == charge"
    assert quote.gross_fen == sum(each.quantity * each.unit_fen for each in lines)
    assert quote.due_fen == quote.gross_fen - quote.discount_fen == sum(p.net_fen for p in quote.lines)
    assert all(priced.net_fen >= 0 for priced in quote.lines)
    assert all(fen > 0 for use in quote.uses for _, fen in use.lines)
    assert quote.discount_fen == sum(use.fen for use in quote.uses)
    assert all(sum(fen for _, fen in use.lines) == use.fen > 0 for use in quote.uses)
    assert quote.later_fen == charge_fen(fee, used + quote.discount_fen) - charge_fen(fee, used)
    eligible = sum(each.gross_fen for each in lines if not each.flags)
    for benefit in plan.benefits:
        for uses in range(min(left[benefit.id], benefit.uses_per_sale_max) + 1):
            fen = min(eligible, uses * benefit.value_fen)
            assert quote.later_fen - quote.discount_fen <= later_fen(light, fen) - fen
    spent = {use.benefit for use in quote.uses}
    assert len(spent) <= 1
    assert all(len(quote.uses) <= left[benefit] for benefit in spent)


def tender(kind: TenderKind, fen: int, tendered_fen: int | None = None) -> Tender:
    return Tender(kind, fen, None, tendered_fen)


QUOTE = Quote(gross_fen=2059, discount_fen=800, due_fen=1259, cash_due_fen=1250)
FREE = Quote(gross_fen=800, discount_fen=800)
PENNIES = Quote(gross_fen=5, due_fen=5)
CASH, CARD, QR, COUPON = TenderKind.CASH, TenderKind.CARD, TenderKind.QR, TenderKind.COUPON


@pytest.mark.parametrize(
    ("quote", "tenders", "coupons", "change", "rounding"),
    [
        (QUOTE, [tender(QR, 1259)], False, 0, 0),
        (QUOTE, [tender(CASH, 1250)], False, 0, 9),
        (QUOTE, [tender(CASH, 1250, 2000)], False, 750, 9),
        (QUOTE, [tender(CASH, 1000, 1000), tender(CASH, 250, 300)], False, 50, 9),
        (QUOTE, [tender(CARD, 1000), tender(CASH, 259, 300)], False, 41, 0),
        (QUOTE, [tender(COUPON, 800), tender(QR, 1259)], True, 0, 0),
        (QUOTE, [tender(COUPON, 500), tender(COUPON, 300), tender(CASH, 1250)], True, 0, 9),
        (FREE, [], False, 0, 0),
        (FREE, [tender(COUPON, 800)], True, 0, 0),
        (PENNIES, [tender(CASH, 0)], False, 0, 5),
        (PENNIES, [tender(QR, 5)], False, 0, 0),
    ],
)
def test_tenders_that_pay(quote: Quote, tenders: list[Tender], coupons: bool, change: int, rounding: int) -> None:
    accepted = check_tenders(tenders, quote, coupons=coupons)
    assert sum(paid.change_fen for paid in accepted.tenders) == change
    assert accepted.rounding_fen == rounding
    assert accepted.taken_fen == quote.due_fen - rounding
    assert [paid.tender for paid in accepted.tenders] == tenders


@pytest.mark.parametrize(
    ("quote", "tenders", "coupons", "code"),
    [
        (QUOTE, [], False, "tender_mismatch"),
        (QUOTE, [tender(QR, 1250)], False, "tender_mismatch"),
        (QUOTE, [tender(CASH, 1259)], False, "tender_mismatch"),
        (QUOTE, [tender(CARD, 1000), tender(CASH, 250)], False, "tender_mismatch"),
        (QUOTE, [tender(QR, 1259), tender(QR, 1)], False, "tender_mismatch"),
        (FREE, [tender(CASH, 10)], False, "tender_mismatch"),
        (PENNIES, [], False, "tender_mismatch"),
        (PENNIES, [tender(QR, 0)], False, "tender_invalid"),
        (QUOTE, [tender(CASH, 0), tender(QR, 1259)], False, "tender_invalid"),
        (QUOTE, [tender(QR, -1), tender(QR, 1260)], False, "tender_invalid"),
        (FREE, [tender(CASH, 0)], False, "tender_invalid"),
        (QUOTE, [tender(CASH, 1250, 1249)], False, "tender_short"),
        (QUOTE, [tender(QR, 1259, 2000)], False, "change_not_cash"),
        (QUOTE, [tender(COUPON, 800), tender(QR, 1259)], False, "coupon_mismatch"),
        (QUOTE, [tender(COUPON, 799), tender(QR, 1259)], True, "coupon_mismatch"),
        (QUOTE, [tender(QR, 1259)], True, "coupon_mismatch"),
    ],
)
def test_tenders_that_do_not_pay(quote: Quote, tenders: list[Tender], coupons: bool, code: str) -> None:
    with pytest.raises(Refused) as caught:
        check_tenders(tenders, quote, coupons=coupons)
    assert caught.value.code == code
    assert caught.value.do


def test_float_money_never_gets_in() -> None:
    with pytest.raises(TypeError):
        price([BasketLine(1, "x", "x", 1, 8.0)])  # type: ignore[arg-type]  # the refusal is the test
    with pytest.raises(TypeError):
        check_tenders([Tender(QR, 1259.0)], QUOTE)  # type: ignore[arg-type]  # the refusal is the test


def test_a_benefit_outside_the_plan_is_never_used() -> None:
    assert PLAN.benefit("other") is None
    assert price([line(1, 800)], LightOffer(PLAN, 0, {"other": 5})).uses == ()
    assert isinstance(PLAN.benefits[0], Benefit)
    assert PLAN.benefits[0].id == BenefitId("coupon8")
