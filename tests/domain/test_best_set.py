"""The best set of vouchers against an oracle that tries every set in every order it can be handed in."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import combinations, permutations
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from models.domain.benefits import Goods, worth
from models.domain.best_set import (
    CANDIDATES_MAX,
    NODES_MAX,
    BestSet,
    Candidate,
    best_set,
    compatible,
    evaluate,
    greedy_set,
)
from models.domain.charging import charge_fen
from models.domain.ids import LegalEntityId, VoucherId
from models.domain.plans import Text
from models.domain.pricing import BasketLine, LightOffer, price
from models.domain.vouchers import FittedVoucher, Voucher, VoucherStage, fit
from tests.domain.baskets import Off, lights, line, lines, plan_of, voucher, vouchers


@dataclass(frozen=True)
class Plain:
    """A voucher as a candidate's discount."""

    fitted: FittedVoucher

    def worth_fen(self, nets: Sequence[int]) -> int:
        return self.fitted.worth_fen(nets)

    def parts(self, nets: Sequence[int]) -> tuple[int, ...]:
        return self.fitted.parts(nets)

    def later_fen(self, fen: int) -> int:
        del fen
        return 0


def goods(basket: Sequence[BasketLine]) -> tuple[Goods, ...]:
    return tuple(Goods(one.code, one.quantity, one.unit_fen, one.gross_fen, one.gross_fen, one.flags) for one in basket)


def candidates(basket: Sequence[BasketLine], given: Sequence[Voucher]) -> list[Candidate]:
    fitted = [fit(one, goods(basket)) for one in given]
    return [
        Candidate(one.voucher.id, one.voucher.order, Plain(one), one.voucher.group, one.voucher.exclusive)
        for one in fitted
    ]


# ---------------------------------------------------------------- the oracle: its own arithmetic, no bound, no search

Scored = tuple[int, int, int, tuple[str, ...]]


def oracle(basket: Sequence[BasketLine], given: Sequence[Voucher], light: LightOffer | None) -> Scored:
    """The lowest (effective price, price, uses, ids) over all sets of vouchers and all uses of the light benefit."""
    sets = [chosen for size in range(len(given) + 1) for chosen in combinations(given, size) if _together(chosen)]
    return min(_priced(basket, chosen, use, light) for chosen in sets for use in _uses(chosen, light))


def _together(chosen: Sequence[Voucher]) -> bool:
    groups = [one.group for one in chosen if one.group]
    return len(groups) == len(set(groups)) and not (len(chosen) > 1 and any(one.exclusive for one in chosen))


def _uses(chosen: Sequence[Voucher], light: LightOffer | None) -> list[tuple[str, int]]:
    if light is None or any(one.exclusive for one in chosen):
        return [("", 0)]
    ways = [
        (str(one.id), n)
        for one in light.plan.benefits
        for n in range(1, min(light.uses_left[one.id], one.uses_per_sale_max) + 1)
    ]
    return [("", 0), *ways]


def _priced(
    basket: Sequence[BasketLine], chosen: Sequence[Voucher], use: tuple[str, int], light: LightOffer | None
) -> Scored:
    left = [one.gross_fen for one in basket]
    for one in sorted(chosen, key=lambda v: (v.stage is VoucherStage.ORDER, v.value_fen > 0, v.id)):
        at = [n for n, had in enumerate(basket) if _counts(one, had)]
        if sum(left[n] for n in at) < one.threshold_fen:
            continue
        for n, off in _off(one, basket, left, at).items():
            left[n] -= off
    later, ids = 0, [str(one.id) for one in chosen]
    name, many = use
    if light is not None and many:
        benefit = light.plan.benefit(name)
        assert benefit is not None
        now = [
            Goods(g.code, g.quantity, g.unit_fen, g.gross_fen, net, g.flags)
            for g, net in zip(goods(basket), left, strict=True)
        ]
        fen = sum(sum(parts) for parts in worth(benefit, now, many))
        fee = light.plan.fee_fen
        later = charge_fen(fee, light.used_fen + fen) - charge_fen(fee, light.used_fen)
        left[0] -= fen  # only the sum is compared
        ids.append(name)
    return sum(left) + later, sum(left), len(chosen) + many, tuple(sorted(ids))


def _counts(one: Voucher, had: BasketLine) -> bool:
    free = not had.flags & {"tobacco", "no_discount", "agency"}
    return (
        free and (not one.flags or bool(one.flags & had.flags)) and (not one.scope.items or had.code in one.scope.items)
    )


def _off(one: Voucher, basket: Sequence[BasketLine], left: Sequence[int], at: Sequence[int]) -> dict[int, int]:
    """By line; a fen that does not divide goes to the largest remainder, the first of equals."""
    if one.stage is VoucherStage.LINE:
        wanted = {
            n: left[n] * one.basis_points // 10_000
            if one.basis_points
            else min(left[n], one.value_fen * basket[n].quantity)
            for n in at
        }
        whole = sum(wanted.values())
    else:
        wanted = {n: left[n] for n in at}
        whole = sum(wanted.values())
        whole = whole * one.basis_points // 10_000 if one.basis_points else min(whole, one.value_fen)
    whole = whole if one.cap_fen is None else min(whole, one.cap_fen)
    base = sum(wanted.values())
    if not base:
        return {}
    parts = {n: whole * weight // base for n, weight in wanted.items()}
    rest = sorted(wanted, key=lambda n: (-(whole * wanted[n] % base), n))
    for n in rest[: whole - sum(parts.values())]:
        parts[n] += 1
    return parts


# ---------------------------------------------------------------- properties


@settings(max_examples=150, deadline=None)
@given(lines, vouchers(6), lights)
def test_the_best_set_is_the_oracles(basket: list[BasketLine], given: list[Voucher], light: LightOffer | None) -> None:
    quote = price(basket, light, vouchers=given)
    effective, cost, uses, ids = oracle(basket, given, light)
    assert (quote.due_fen + quote.later_fen, quote.due_fen) == (effective, cost)
    assert quote.optimal
    taken = [str(one.voucher) for one in quote.vouchers]
    light_ids = {str(use.benefit) for use in quote.uses}
    assert tuple(sorted([*taken, *light_ids])) == ids
    assert len(taken) + len(quote.uses) <= uses  # a use that would be worth nothing is not made


@settings(max_examples=12, deadline=None)
@given(lines, vouchers(8), lights)
def test_eight_candidates(basket: list[BasketLine], given: list[Voucher], light: LightOffer | None) -> None:
    quote = price(basket, light, vouchers=given)
    assert (quote.due_fen + quote.later_fen, quote.due_fen) == oracle(basket, given, light)[:2]


@settings(max_examples=60, deadline=None)
@given(lines, vouchers(4), lights)
def test_the_order_of_entering_changes_nothing(
    basket: list[BasketLine], given: list[Voucher], light: LightOffer | None
) -> None:
    quotes = {repr(price(basket, light, vouchers=order).lines) for order in permutations(given)}
    assert len(quotes) == 1
    nets = [one.gross_fen for one in basket]
    made = candidates(basket, given)
    assert {evaluate(nets, order)[0] for order in permutations(made)} == {evaluate(nets, made)[0]}


@settings(max_examples=80, deadline=None)
@given(lines, vouchers(7), lights)
def test_allocations_sum_and_no_line_falls_below_0(
    basket: list[BasketLine], given: list[Voucher], light: LightOffer | None
) -> None:
    quote = price(basket, light, vouchers=given)
    off = dict.fromkeys((one.line for one in basket), 0)
    for fen, shares in [(one.fen, one.lines) for one in quote.vouchers] + [(one.fen, one.lines) for one in quote.uses]:
        assert sum(part for _, part in shares) == fen > 0
        for number, part in shares:
            off[number] += part
    assert [off[one.line] for one in basket] == [one.discount_fen for one in quote.lines]
    for had, priced in zip(basket, quote.lines, strict=True):
        assert 0 <= priced.net_fen == had.gross_fen - priced.discount_fen
        assert not priced.discount_fen or not had.flags & {"tobacco", "no_discount", "agency"}
        assert (priced.why is not None) == (priced.discount_fen > 0)
    assert quote.due_fen == sum(one.net_fen for one in quote.lines)
    assert len(quote.vouchers) + len(quote.not_taken) == len(given)


@settings(max_examples=80, deadline=None)
@given(lines, vouchers(7), lights)
def test_one_more_voucher_never_raises_the_effective_price(
    basket: list[BasketLine], given: list[Voucher], light: LightOffer | None
) -> None:
    before = price(basket, light, vouchers=given[1:])
    after = price(basket, light, vouchers=given)
    assert after.due_fen + after.later_fen <= before.due_fen + before.later_fen


@settings(max_examples=60, deadline=None)
@given(lines, vouchers(8), st.integers(1, 12))
def test_a_search_cut_short_is_no_worse_than_nothing_and_says_so(
    basket: list[BasketLine], given: list[Voucher], nodes_max: int
) -> None:
    nets = [one.gross_fen for one in basket]
    made = candidates(basket, given)
    cut, whole = best_set(nets, made, nodes_max=nodes_max), best_set(nets, made)
    assert whole.effective_fen <= cut.effective_fen <= sum(nets)
    if cut.optimal:
        assert cut == BestSet(whole.taken, whole.price_fen, whole.effective_fen, True, cut.nodes)
    assert cut == best_set(nets, made, nodes_max=nodes_max), "the same question, the same answer"


@settings(max_examples=60, deadline=None)
@given(lines, vouchers(8))
def test_greedy_is_never_better(basket: list[BasketLine], given: list[Voucher]) -> None:
    nets, made = [one.gross_fen for one in basket], candidates(basket, given)
    greedy = greedy_set(nets, made)
    assert best_set(nets, made).effective_fen <= greedy.effective_fen
    assert compatible([one.candidate for one in greedy.taken])


# ---------------------------------------------------------------- single cases


def test_greedy_loses_to_the_pair_below_a_threshold() -> None:
    basket = [line(1, 3000)]
    given = [
        voucher("big", basis_points=2000, stage=VoucherStage.LINE),  # 6.00 off, then nothing else holds
        voucher("one", value_fen=500, threshold_fen=2500),
        voucher("two", value_fen=500, threshold_fen=2500),
    ]
    nets, made = [3000], candidates(basket, given)
    assert greedy_set(nets, made).price_fen == 2400
    best = best_set(nets, made)
    assert [one.candidate.id for one in best.taken] == ["one", "two"]
    assert best.price_fen == 2000


def test_ties_go_to_fewer_vouchers_then_lower_ids() -> None:
    basket = [line(1, 300)]
    given = [
        voucher("c", value_fen=300),
        voucher("a", value_fen=100),
        voucher("b", value_fen=200),
        voucher("d", value_fen=300),
    ]
    quote = price(basket, vouchers=given)
    assert [one.voucher for one in quote.vouchers] == ["c"]
    assert {str(one.reason) for one in quote.not_taken} == {"not_better"}


def test_equal_sets_of_a_group_go_to_the_lower_id_although_it_comes_later() -> None:
    given = [Candidate("z", (0, 0, "z"), Off(100), "g"), Candidate("a", (1, 0, "a"), Off(100), "g")]
    assert [one.candidate.id for one in best_set([500], given).taken] == ["a"]
    three = [*given, Candidate("k", (2, 0, "k"), Off(50))]
    assert [one.candidate.id for one in best_set([500], three).taken] == ["a", "k"]


def test_a_group_may_be_strongest_in_effect_by_one_and_in_price_by_another() -> None:
    given = [
        Candidate("all", (0, 0, "all"), Off(300, later=300), "g"),
        Candidate("half", (1, 0, "half"), Off(150), "g"),
        Candidate("more", (2, 0, "more"), Off(100)),
    ]
    best = best_set([500], given)
    assert ([one.candidate.id for one in best.taken], best.effective_fen) == (["half", "more"], 250)


def test_a_lower_price_at_the_same_effect_is_looked_for_behind_a_weaker_one() -> None:
    given = [
        Candidate("c", (0, 0, "c"), Off(150, later=50), "g"),
        Candidate("a", (1, 0, "a"), Off(100), "g"),
        Candidate("b", (2, 0, "b"), Off(300, later=200), "g"),
    ]
    best = best_set([500], given)
    assert ([one.candidate.id for one in best.taken], best.effective_fen, best.price_fen) == (["b"], 400, 200)


def test_nodes_are_the_sets_that_were_priced_and_their_bound_is_exact() -> None:
    given = [Candidate(f"c{n}", (n, 0, f"c{n}"), Off(100 + n)) for n in range(6)]
    assert (best_set([1000], []).nodes, best_set([1000], given[:1]).nodes) == (1, 2)
    assert best_set([1000], given[:1], nodes_max=3).optimal
    cut = best_set([350], given, nodes_max=5)
    assert (cut.nodes, cut.optimal) == (5, False)


def test_more_candidates_than_the_search_takes_are_cut_and_it_says_so() -> None:
    given = [voucher(f"v{n:02}", value_fen=n + 1) for n in range(CANDIDATES_MAX + 3)]
    made = candidates([line(1, 100_000)], given)
    best = best_set([100_000], made)
    assert not best.optimal
    assert {one.candidate.id for one in best.taken} == {f"v{n:02}" for n in range(3, CANDIDATES_MAX + 3)}


def test_twenty_hard_vouchers_stay_within_the_bound() -> None:
    """Values that fill a basket in many ways: what a knapsack search dislikes."""
    rng = random.Random(3)
    given = [voucher(f"v{n:02}", value_fen=rng.randrange(90, 120), threshold_fen=1000 - 7 * n) for n in range(20)]
    best = best_set([1100], candidates([line(1, 1100)], given))
    assert best.nodes <= NODES_MAX
    assert best.price_fen < 1100


def test_the_light_benefit_gives_way_when_it_would_only_be_charged_later() -> None:
    """An exclusive voucher of 7.00 beats a coupon of 8.00 that costs 8.00 at the end of the period."""
    light = LightOffer(plan_of({"id": "coupon", "value_fen": 800}), 0, {"coupon": 5})
    alone = voucher("alone", value_fen=700, exclusive=True)
    quote = price([line(1, 2000)], light, vouchers=[alone])
    assert ([one.voucher for one in quote.vouchers], quote.uses, quote.later_fen) == (["alone"], (), 0)
    paid_up = LightOffer(light.plan, 1000, {"coupon": 5})
    quote = price([line(1, 2000)], paid_up, vouchers=[alone])
    assert ([use.fen for use in quote.uses], quote.not_taken[0].reason) == ([800], "exclusive")


@pytest.mark.parametrize(
    ("quotas", "counted"),
    [({}, False), ({"quota": 3}, True), ({"member_quota": 1}, True), ({"quota": 3, "member_quota": 1}, True)],
)
def test_a_voucher_with_either_quota_is_counted(quotas: dict[str, Any], counted: bool) -> None:
    assert voucher(**quotas).counted is counted


def test_what_is_not_said_of_a_voucher_is_nothing() -> None:
    chain = LegalEntityId("chain")
    whole = Voucher(VoucherId("v"), "V", Text("券", "v"), VoucherStage.ORDER, chain, basis_points=10_000)
    assert (whole.value_fen, whole.threshold_fen, whole.cap_fen, whole.sale_quota) == (0, 0, None, 1)
    assert replace(whole, basis_points=0, value_fen=1).basis_points == 0
