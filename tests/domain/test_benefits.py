from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, time
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from models.domain.benefit_reader import read_benefit
from models.domain.benefits import (
    ALWAYS_EXCLUDED,
    Benefit,
    BenefitKind,
    Goods,
    Scope,
    Window,
    bound_fen,
    holds_at,
    worth,
)
from models.domain.ids import BenefitId
from models.domain.plans import PlanError, Text
from models.domain.pricing import Flag


def benefit(kind: BenefitKind, value_fen: int = 100_00, **changes: Any) -> Benefit:
    return replace(Benefit(BenefitId("b"), Text("券", "b"), value_fen, 5, kind), **changes)


def goods(code: str, quantity: int, unit_fen: int, *flags: str, left_fen: int | None = None) -> Goods:
    gross = quantity * unit_fen
    return Goods(code, quantity, unit_fen, gross, gross if left_fen is None else left_fen, frozenset(flags))


COUPON = benefit(BenefitKind.FIXED_COUPON, 800)
TENTH = benefit(BenefitKind.PERCENT, 500, basis_points=1000)
SECOND_HALF = benefit(BenefitKind.NTH_ITEM, nth=2, basis_points=5000)
DELIVERY = benefit(BenefitKind.FREE_DELIVERY, 600, scope=Scope(items=frozenset({"delivery"})))
TIER = benefit(BenefitKind.TIER_PRICE, 1000, prices_fen={"milk": 450, "ham": 2000})
MILK, TEA, CIGARETTES = goods("milk", 2, 600), goods("tea", 1, 999), goods("cigs", 1, 5000, "tobacco")


@pytest.mark.parametrize(
    ("what", "lines", "uses", "taken"),
    [
        (COUPON, [MILK, TEA], 1, [(437, 363)]),  # 800 over 1200 : 999
        (COUPON, [TEA], 2, [(800,), (199,)]),
        (COUPON, [TEA], 3, [(800,), (199,)]),  # nothing is left for a third
        (COUPON, [CIGARETTES], 1, []),
        (COUPON, [], 1, []),
        (COUPON, [replace(TEA, left_fen=300), CIGARETTES], 1, [(300, 0)]),
        (TENTH, [TEA], 1, [(99,)]),  # 99.9 down
        (TENTH, [TEA, CIGARETTES], 1, [(99, 0)]),
        (TENTH, [goods("tv", 1, 100_000)], 1, [(500,)]),  # the cap
        (replace(TENTH, value_fen=100_000), [goods("tv", 1, 100_000)], 1, [(10_000,)]),
        (TENTH, [TEA], 2, [(99,), (90,)]),  # on what the first left
        (TENTH, [goods("sweet", 1, 9)], 1, []),
        (SECOND_HALF, [MILK, TEA], 1, [(300, 0)]),  # tea 999, milk 600: the milk is the second
        (SECOND_HALF, [goods("a", 4, 301)], 2, [(150,), (150,)]),
        (SECOND_HALF, [goods("a", 3, 301)], 2, [(150,)]),
        (SECOND_HALF, [MILK, goods("cheese", 2, 600, left_fen=1001)], 1, [(300, 0)]),  # 500 a piece, after the milk
        (SECOND_HALF, [goods("pears", 2, 600, "weight"), TEA], 1, []),
        (SECOND_HALF, [TEA], 1, []),
        (replace(SECOND_HALF, value_fen=100), [MILK], 1, [(100,)]),
        (DELIVERY, [TEA, goods("delivery", 1, 500)], 1, [(0, 500)]),
        (DELIVERY, [TEA, goods("delivery", 1, 900)], 1, [(0, 600)]),
        (DELIVERY, [TEA], 1, []),
        (TIER, [MILK, TEA], 1, [(300, 0)]),
        (TIER, [replace(MILK, left_fen=1000)], 1, [(100,)]),  # another voucher took 200 of it
        (TIER, [replace(MILK, left_fen=899)], 1, []),
        (TIER, [goods("milk", 1, 400)], 1, []),  # cheaper than the members' price
        (TIER, [Goods("ham", 1, 3000, 1000, 1000, frozenset({"weight"}))], 1, [(333,)]),  # 666.67 up stays
        (TIER, [Goods("ham", 1, 1900, 1000, 1000, frozenset({"weight"}))], 1, []),
        (TIER, [goods("milk", 10, 600)], 1, [(1000,)]),
        (TIER, [goods("milk", 10, 600)], 3, [(1000,), (500,)]),
        (replace(TIER, scope=Scope(items=frozenset({"ham"}))), [MILK], 1, []),
    ],
)
def test_what_a_use_is_worth(what: Benefit, lines: list[Goods], uses: int, taken: list[tuple[int, ...]]) -> None:
    assert list(worth(what, lines, uses)) == taken


CODES = ["milk", "ham", "tea", "delivery"]
lines_of_any_kind = st.lists(
    st.builds(
        lambda code, quantity, unit, flags, part: goods(
            code, quantity, unit, *flags, left_fen=quantity * unit * part // 100
        ),
        st.sampled_from(CODES),
        st.integers(1, 7),
        st.integers(0, 3_000),
        st.frozensets(st.sampled_from([str(flag) for flag in Flag]), max_size=2),
        st.integers(0, 100),
    ),
    max_size=6,
)
benefits_of_any_kind = st.builds(
    benefit,
    st.sampled_from(BenefitKind),
    st.integers(1, 3_000),
    basis_points=st.integers(1, 10_000),
    nth=st.integers(2, 4),
    prices_fen=st.just({"milk": 450, "ham": 900}),
    scope=st.builds(Scope, items=st.frozensets(st.sampled_from(CODES))),
)


@settings(max_examples=300, deadline=None)
@given(benefits_of_any_kind, lines_of_any_kind, st.integers(1, 4))
def test_no_use_exceeds_its_bound_nor_a_line_what_is_left_of_it(what: Benefit, lines: list[Goods], uses: int) -> None:
    taken = worth(what, lines, uses)
    assert len(taken) <= uses
    for parts in taken:
        assert len(parts) == len(lines)
        assert all(part >= 0 for part in parts)
        assert 0 < sum(parts) <= bound_fen(what)
    for index, line in enumerate(lines):
        off = sum(parts[index] for parts in taken)
        assert off <= line.left_fen
        if line.flags & ALWAYS_EXCLUDED:
            assert off == 0
    assert worth(what, lines, 1) == taken[:1], "the first use does not depend on how many follow"


# ---------------------------------------------------------------- where and when

SHANGHAI = ZoneInfo("Asia/Shanghai")


def at(day: int, hour: int, minute: int = 0) -> datetime:
    return datetime(2026, 1, day, hour, minute, tzinfo=SHANGHAI)  # 1 January 2026 is a Thursday


NIGHT = Window(time(22), time(2))
LUNCH = Window(time(11, 30), time(13))


@pytest.mark.parametrize(
    ("scope", "local", "holds"),
    [
        (Scope(), at(1, 0), True),
        (Scope(hours=LUNCH), at(1, 11, 29), False),
        (Scope(hours=LUNCH), at(1, 11, 30), True),
        (Scope(hours=LUNCH), at(1, 12, 59), True),
        (Scope(hours=LUNCH), at(1, 13), False),
        (Scope(hours=NIGHT), at(1, 21, 59), False),
        (Scope(hours=NIGHT), at(1, 22), True),
        (Scope(hours=NIGHT), at(2, 0), True),
        (Scope(hours=NIGHT), at(2, 1, 59), True),
        (Scope(hours=NIGHT), at(2, 2), False),
        (Scope(hours=NIGHT, weekdays=frozenset({4})), at(1, 22), True),
        (Scope(hours=NIGHT, weekdays=frozenset({4})), at(2, 1), True),  # Thursday's night
        (Scope(hours=NIGHT, weekdays=frozenset({4})), at(1, 1), False),  # Wednesday's
        (Scope(hours=NIGHT, weekdays=frozenset({4})), at(2, 22), False),
        (Scope(hours=NIGHT, weekdays=frozenset({7})), at(5, 1), True),  # Monday, in Sunday's night
        (Scope(hours=NIGHT, weekdays=frozenset({1})), at(5, 1), False),
        (Scope(weekdays=frozenset({4, 5})), at(1, 12), True),
        (Scope(weekdays=frozenset({4, 5})), at(3, 12), False),
        (Scope(hours=Window(time(0), time(0))), at(1, 12), True),  # round the clock
        (Scope(stores=frozenset({"s1"})), at(1, 12), True),
        (Scope(stores=frozenset({"s2"})), at(1, 12), False),
        (Scope(channels=frozenset({"counter", "web"})), at(1, 12), True),
        (Scope(channels=frozenset({"web"})), at(1, 12), False),
    ],
)
def test_where_and_when_a_benefit_holds(scope: Scope, local: datetime, holds: bool) -> None:
    assert holds_at(scope, store="s1", channel="counter", at=local.astimezone(UTC), zone="Asia/Shanghai") is holds


@pytest.mark.parametrize(
    ("at_utc", "holds"),
    [
        (datetime(2026, 3, 8, 6, 59, tzinfo=UTC), True),  # 01:59, then clocks in New York go to 03:00
        (datetime(2026, 3, 8, 7, 0, tzinfo=UTC), False),
        (datetime(2026, 11, 1, 5, 30, tzinfo=UTC), True),  # 01:30, an hour later 01:30 again
        (datetime(2026, 11, 1, 6, 30, tzinfo=UTC), True),
        (datetime(2026, 11, 1, 7, 0, tzinfo=UTC), False),
    ],
)
def test_a_night_in_which_clocks_change(at_utc: datetime, holds: bool) -> None:
    scope = Scope(hours=NIGHT, weekdays=frozenset({6}))  # Saturday's night
    assert holds_at(scope, store="s1", channel="counter", at=at_utc, zone="America/New_York") is holds


def test_only_a_scope_without_goods_of_its_own_serves_a_whole_basket() -> None:
    assert Scope().whole_baskets
    assert Scope(weekdays=frozenset({1})).whole_baskets
    assert not Scope(items=frozenset({"milk"})).whole_baskets
    assert not Scope(ALWAYS_EXCLUDED | {"age_18"}).whole_baskets


# ---------------------------------------------------------------- as a plan writes it

NAMED: dict[str, Any] = {"id": "b", "name": {"zh": "券", "en": "b"}, "quota": 3}


def read(**data: Any) -> Benefit:
    return read_benefit({**NAMED, **data}, "benefits[0]")


def test_each_kind_is_read_with_its_own_fields() -> None:
    assert read(value_fen=800) == Benefit(BenefitId("b"), Text("券", "b"), 800, 3)
    percent = read(kind="percent", basis_points=1200, cap_fen=500)
    assert (percent.kind, percent.basis_points, bound_fen(percent)) == (BenefitKind.PERCENT, 1200, 500)
    nth = read(kind="nth_item", nth=3, basis_points=10_000, cap_fen=900)
    assert (nth.nth, nth.basis_points, nth.value_fen) == (3, 10_000, 900)
    delivery = read(kind="free_delivery", cap_fen=600, scope={"items": ["delivery"]})
    assert delivery.scope.items == {"delivery"}
    tier = read(kind="tier_price", cap_fen=600, prices_fen={"milk": 450})
    assert tier.prices_fen == {"milk": 450}


def test_a_scope_is_read_whole() -> None:
    scope = read(
        value_fen=1,
        scope={
            "excluded_flags": ["age_18"],
            "items": ["milk"],
            "stores": ["s1", "s2"],
            "channels": ["web"],
            "weekdays": [6, 7],
            "hours": {"begins": "22:00", "ends": "02:30"},
        },
    ).scope
    assert scope == Scope(
        ALWAYS_EXCLUDED | {"age_18"},
        frozenset({"milk"}),
        frozenset({"s1", "s2"}),
        frozenset({"web"}),
        frozenset({6, 7}),
        Window(time(22), time(2, 30)),
    )


@pytest.mark.parametrize(
    ("data", "told"),
    [
        ({"value_fen": 1, "cap_fen": 1}, "cap_fen"),
        ({"kind": "percent", "basis_points": 1000}, "cap_fen"),
        ({"kind": "percent", "basis_points": 10_001, "cap_fen": 1}, "basis_points"),
        ({"kind": "percent", "basis_points": 0, "cap_fen": 1}, "basis_points"),
        ({"kind": "nth_item", "basis_points": 1, "cap_fen": 1}, "nth"),
        ({"kind": "nth_item", "nth": 1, "basis_points": 1, "cap_fen": 1}, "nth"),
        ({"kind": "free_delivery", "cap_fen": 1}, "scope.items"),
        ({"kind": "tier_price", "cap_fen": 1}, "prices_fen"),
        ({"kind": "tier_price", "cap_fen": 1, "prices_fen": {}}, "prices_fen"),
        ({"kind": "tier_price", "cap_fen": 1, "prices_fen": {690: 1}}, "prices_fen"),
        ({"kind": "tier_price", "cap_fen": 1, "prices_fen": {"milk": -1}}, "prices_fen.milk"),
        ({"kind": "tier_price", "cap_fen": 1, "prices_fen": {"a": 1}, "scope": {"items": ["b"]}}, "scope.items"),
        ({"value_fen": 1, "scope": {"items": []}}, "scope.items"),
        ({"value_fen": 1, "scope": {"items": [690]}}, "scope.items"),
        ({"value_fen": 1, "scope": {"items": ["a", "a"]}}, "scope.items"),
        ({"value_fen": 1, "scope": {"weekdays": [0]}}, "scope.weekdays"),
        ({"value_fen": 1, "scope": {"weekdays": [8]}}, "scope.weekdays"),
        ({"value_fen": 1, "scope": {"weekdays": [1, 1]}}, "scope.weekdays"),
        ({"value_fen": 1, "scope": {"weekdays": [True]}}, "scope.weekdays"),
        ({"value_fen": 1, "scope": {"hours": {"begins": "22:00"}}}, "scope.hours.ends"),
        ({"value_fen": 1, "scope": {"hours": {"begins": "25:00", "ends": "1:00"}}}, "scope.hours.begins"),
        ({"value_fen": 1, "scope": {"hours": {"begins": "22:00+08:00", "ends": "23:00"}}}, "scope.hours.begins"),
        ({"value_fen": 1, "scope": {"hours": {"begins": 1320, "ends": "23:00"}}}, "scope.hours.begins"),
        ({"value_fen": 1, "scope": {"place": "here"}}, "scope.place"),
    ],
)
def test_a_wrong_benefit_names_its_field(data: dict[str, Any], told: str) -> None:
    with pytest.raises(PlanError) as caught:
        read(**data)
    assert caught.value.field == f"benefits[0].{told}"
