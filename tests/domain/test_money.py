from __future__ import annotations

from datetime import UTC, date, datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from models.domain.barcode import check_digit, is_gtin
from models.domain.calendar import business_date, day_begins, days_later, local_date, require_instant
from models.domain.money import (
    Money,
    Rounding,
    allocate,
    cash_rounded_fen,
    divide,
    format_yuan,
    parse_yuan,
)

FEN = st.integers(-(10**12), 10**12)


@given(st.integers(0, 10**12))
def test_yuan_text_round_trips(fen: int) -> None:
    assert parse_yuan(format_yuan(fen)) == fen


@pytest.mark.parametrize("text", ["8", "8.0", "8.000", "-8.00", " 8.00", "8.00\n", "８.00", "1e2", ".00", ""])
def test_anything_but_two_decimals_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="amount in yuan"):
        parse_yuan(text)


@pytest.mark.parametrize("amount", [8.0, True, "8", None])
def test_money_refuses_what_is_not_an_int(amount: Any) -> None:
    with pytest.raises(TypeError):
        Money(amount)
    with pytest.raises(TypeError):
        format_yuan(amount)
    with pytest.raises(TypeError):
        allocate(amount, [1])


def test_money_refuses_mixed_currencies() -> None:
    with pytest.raises(TypeError, match="mixed"):
        Money(1) + Money(1, "HKD")
    with pytest.raises(TypeError, match="mixed"):
        assert Money(1) < Money(2, "HKD")
    assert Money(3) + Money(4) - Money(2) == Money(5)
    assert -Money(5) == Money(-5) <= Money(5)
    assert str(Money(805)) == "8.05 CNY"
    assert format_yuan(-5) == "-0.05"


@given(FEN, st.integers(1, 10**6))
def test_division_brackets_the_quotient(numerator: int, denominator: int) -> None:
    low, high = divide(numerator, denominator, Rounding.FLOOR), divide(numerator, denominator, Rounding.CEIL)
    assert low * denominator <= numerator <= high * denominator
    assert high - low == (1 if numerator % denominator else 0)


@given(st.integers(0, 10**9), st.lists(st.integers(0, 10**6), min_size=1, max_size=20))
def test_allocation_is_exact_fair_and_within_its_weights(total: int, weights: list[int]) -> None:
    whole = sum(weights)
    if whole == 0:
        if total:
            with pytest.raises(ValueError, match="nothing to allocate over"):
                allocate(total, weights)
        return
    parts = allocate(total, weights)
    assert sum(parts) == total
    assert all(abs(part * whole - total * weight) < whole for part, weight in zip(parts, weights, strict=True))
    if total <= whole:
        assert all(part <= weight for part, weight in zip(parts, weights, strict=True))


def test_the_largest_remainders_get_the_rest() -> None:
    assert allocate(1, [1, 2]) == [0, 1]
    assert allocate(100, [33, 33, 35, 0]) == [33, 33, 34, 0]
    assert allocate(5, [10, 0, 20, 30]) == [1, 0, 2, 2]


def test_allocation_ties_go_to_the_lowest_index() -> None:
    assert allocate(1, [1, 1, 1]) == [1, 0, 0]
    assert allocate(800, [350, 350, 350]) == [267, 267, 266]
    assert allocate(0, [0, 0]) == [0, 0]
    with pytest.raises(ValueError, match="negative"):
        allocate(-1, [1])
    with pytest.raises(ValueError, match="negative"):
        allocate(1, [2, -1])


def test_cash_is_rounded_down_to_a_jiao() -> None:
    assert [cash_rounded_fen(fen) for fen in (0, 9, 10, 1259)] == [0, 0, 10, 1250]


def test_business_days_of_a_24_hour_shop() -> None:
    before = datetime(2026, 1, 31, 19, 59, tzinfo=UTC)  # 03:59 on 1 February in Shanghai
    after = datetime(2026, 1, 31, 20, 0, tzinfo=UTC)
    assert business_date(before, "Asia/Shanghai", 4) == date(2026, 1, 31)
    assert business_date(after, "Asia/Shanghai", 4) == date(2026, 2, 1)
    assert local_date(before, "Asia/Shanghai") == date(2026, 2, 1)
    assert day_begins(date(2026, 2, 1), "Asia/Shanghai", 4) == after


def test_days_are_calendar_days_where_clocks_change() -> None:
    noon = datetime(2026, 3, 7, 17, 0, tzinfo=UTC)  # 12:00 in New York, the day before summer time
    assert days_later(noon, 1, "America/New_York") == datetime(2026, 3, 8, 16, 0, tzinfo=UTC)


def test_an_instant_without_zone_is_refused() -> None:
    with pytest.raises(ValueError, match="time zone"):
        require_instant(datetime(2026, 1, 1))  # noqa: DTZ001  # the refusal is the test
    with pytest.raises(ValueError, match="unknown time zone"):
        local_date(datetime(2026, 1, 1, tzinfo=UTC), "Mars/Olympus")


def test_check_digits() -> None:
    # 6901234567892: China's sample EAN-13; 4006381333931 and 96385074: GS1's examples.
    assert all(is_gtin(code) for code in ("6901234567892", "4006381333931", "96385074"))
    assert not any(is_gtin(code) for code in ("6901234567893", "69012345678", "690123456789２", ""))
    assert check_digit("690123456789") == 2


def test_money_is_ordered_by_its_amount() -> None:
    one, two = Money(1), Money(2)
    assert one < two
    assert not two < one  # each operator by itself
    assert not one < one
    assert one <= two
    assert one <= one
    assert not two <= one
