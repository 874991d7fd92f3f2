"""Vouchers and benefits one by one: definitions at their bounds, the moment of entering, and why one is not taken."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, time, timedelta
from typing import Any

import pytest

from models.domain.benefits import BenefitKind, Scope, Window, holds_at, worth
from models.domain.errors import Refused
from models.domain.ids import LegalEntityId, VoucherId
from models.domain.plan_reader import Text
from models.domain.vouchers import (
    Counter,
    Voucher,
    VoucherStage,
    WhyNot,
    check_entry,
    fit,
    refusal_now,
    why_not,
)
from tests.domain.test_benefits import COUPON, SECOND_HALF, TEA, benefit, goods

HUNDRED = Voucher(VoucherId("v1"), "V1", Text("一元", "One"), VoucherStage.ORDER, LegalEntityId("hq"), value_fen=100)
NOW = datetime(2026, 5, 1, 4, tzinfo=UTC)
HERE = Counter("s1", "lane", "Asia/Shanghai", NOW, member=True)
SECOND = timedelta(seconds=1)


def again(word: str) -> str:
    """An equal word that is another object, as a database hands it out."""
    return "".join(list(word))


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"sale_quota": 0}, "sale_quota at most 20"),
        ({"sale_quota": 1}, ""),
        ({"sale_quota": 2}, ""),
        ({"sale_quota": 20}, ""),
        ({"sale_quota": 21}, "sale_quota at most 20"),
        ({"quota": 1}, ""),
        ({"quota": 9}, ""),
        ({"quota": 0}, "a quota is at least 1"),
        ({"quota": -1}, "a quota is at least 1"),
        ({"member_quota": 1}, ""),
        ({"member_quota": 9}, ""),
        ({"member_quota": 0}, "a quota is at least 1"),
        ({"quota": 9, "member_quota": 0}, "a quota is at least 1"),
        ({"quota": 0, "member_quota": 9}, "a quota is at least 1"),
        ({"value_fen": 0}, "either value_fen or basis_points"),
        ({"basis_points": 1}, "either value_fen or basis_points"),
        ({"value_fen": 0, "basis_points": 1}, ""),
        ({"value_fen": 0, "basis_points": int("10000")}, ""),
        ({"value_fen": 0, "basis_points": 10_001}, "basis_points is 1..10000"),
        ({"basis_points": -1}, "basis_points is 1..10000"),
        ({"value_fen": -1, "basis_points": 1}, "amounts are not negative"),
        ({"threshold_fen": -1}, "amounts are not negative"),
        ({"threshold_fen": 0, "cap_fen": 1}, ""),
        ({"cap_fen": 0}, "a cap is at least 1 fen"),
        ({"cap_fen": -1}, "a cap is at least 1 fen"),
    ],
)
def test_a_definition_at_its_bounds(changes: dict[str, Any], why: str) -> None:
    assert (HUNDRED.offered, HUNDRED.exclusive, HUNDRED.counted) == (False, False, False)
    if why:
        with pytest.raises(ValueError, match=why):
            replace(HUNDRED, **changes)
    else:
        assert replace(HUNDRED, **changes).counted is bool({"quota", "member_quota"} & set(changes))


def test_the_canonical_order() -> None:
    percent = replace(HUNDRED, id=VoucherId("v0"), value_fen=0, basis_points=5)
    line, order = VoucherStage.LINE, VoucherStage.ORDER
    assert [replace(one, stage=stage).order for stage in (line, order) for one in (percent, HUNDRED)] == [
        (0, 0, "v0"), (0, 1, "v1"), (1, 0, "v0"), (1, 1, "v1"),
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("entered", "quota", "code"),
    [
        ([], 1, ""),
        (["v1"], 1, "voucher_entered"),
        (["v1", "v1"], 1, "voucher_entered"),
        (["v1", "v2"], 2, ""),
        ([f"x{n}" for n in range(19)], 1, ""),
        ([f"x{n}" for n in range(20)], 1, "voucher_too_many"),
        ([f"x{n}" for n in range(21)], 1, "voucher_too_many"),
    ],
)
def test_how_many_may_be_entered(entered: list[str], quota: int, code: str) -> None:
    try:
        check_entry(replace(HUNDRED, sale_quota=quota), HERE, [again(one) for one in entered])
        found = ""
    except Refused as refused:
        found = refused.code
    assert found == code


@pytest.mark.parametrize(
    ("after", "code"),
    [(-SECOND, "voucher_not_yet"), (0 * SECOND, ""), (SECOND, ""), (59 * SECOND, ""), (60 * SECOND, "voucher_over"),
     (61 * SECOND, "voucher_over")],
)  # fmt: skip
def test_from_its_first_instant_until_just_before_its_last(after: timedelta, code: str) -> None:
    minute = replace(HUNDRED, valid_from=NOW, valid_until=NOW + 60 * SECOND)
    assert refusal_now(minute, replace(HERE, now=NOW + after)) == code


def test_why_one_that_was_entered_is_not_taken() -> None:
    kind = replace(HUNDRED, group="drinks", threshold_fen=999)

    def reason(fen: int, *groups: str) -> WhyNot:
        taken = [replace(HUNDRED, group=again(one)) for one in groups]
        return why_not(fit(kind, [TEA]), [fen], taken).reason

    assert [reason(fen) for fen in (0, 998, 999)] == [WhyNot.NO_GOODS, WhyNot.THRESHOLD, WhyNot.NOT_BETTER]
    assert [reason(999, one) for one in ("drinks", "cakes", "tools", "")] == [WhyNot.GROUP, *[WhyNot.NOT_BETTER] * 3]
    assert reason(999, "cakes", "tools", "drinks") is WhyNot.GROUP


# ---------------------------------------------------------------- benefits


def test_the_nth_piece_is_found_from_the_dearest_down_and_costs_its_own_line() -> None:
    cheap_first = [goods("cake", 1, 100), goods("tea", 1, 300), goods("ham", 1, 200)]
    assert worth(SECOND_HALF, cheap_first) == ((0, 0, 100),), "the second dearest is the ham"
    odd = [goods("cake", 1, 100), goods("gone", 0, 900), goods("back", -1, 900), goods("tea", 1, 300)]
    assert worth(SECOND_HALF, odd) == ((50, 0, 0, 0),), "what is no piece is not counted"
    assert worth(SECOND_HALF, [goods("cake", 4, 100)], 2) == ((50,), (50,))
    assert worth(SECOND_HALF, [goods("sweet", 4, 1)], 2) == (), "half of a fen is nothing"
    assert worth(SECOND_HALF, [goods("sweet", 4, 2)], 2) == ((1,), (1,))


def test_one_use_unless_more_are_asked_for() -> None:
    small = replace(COUPON, value_fen=100)
    assert (worth(small, [TEA]), len(worth(small, [TEA], 3))) == (((100,),), 3)


def test_which_scope_may_be_given_on_an_amount_without_goods() -> None:
    law = frozenset(again(flag) for flag in ("no_discount", "tobacco", "agency"))
    assert Scope(law).whole_baskets
    assert Scope(frozenset({"tobacco"})).whole_baskets
    assert not Scope(law | {"weight"}).whole_baskets
    assert not Scope(items=frozenset({"tea"})).whole_baskets


@pytest.mark.parametrize(
    ("minutes", "day", "night"),
    [(7 * 60 + 59, False, True), (8 * 60, True, False), (9 * 60 + 59, True, False), (10 * 60, False, True),
     (11 * 60, False, True), (0, False, True)],
)  # fmt: skip
def test_a_window_from_its_first_minute_until_just_before_its_last(minutes: int, day: bool, night: bool) -> None:
    at = datetime(2026, 5, 1, tzinfo=UTC) + timedelta(minutes=minutes)
    eight, ten = time(8), time(10)
    for window, holds in ((Window(eight, ten), day), (Window(ten, eight), night)):
        assert holds_at(Scope(hours=window), store="s1", channel="lane", at=at, zone="UTC") is holds


def test_a_members_price_of_goods_by_weight_is_never_more_than_their_own() -> None:
    tier = benefit(BenefitKind.TIER_PRICE, 100_000, prices_fen={"fig": 500})
    for unit_fen, off in ((400, 0), (500, 0), (600, 166)):
        assert (
            sum(map(sum, worth(tier, [replace(goods("fig", 1, unit_fen, "weight"), gross_fen=999, left_fen=999)])))
            == off
        )
