"""When a period ends: days, months with an anchor day, fixed dates; in zones whose clocks change."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, date, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from models.domain.calendar import local_date
from models.domain.charging import (
    Cancellation,
    CancelledBy,
    cutoff_instant,
    cycle_at,
    effective_fee_fen,
    exempt,
    expiry_instant,
)
from models.domain.errors import Refused
from models.domain.periods import Days, FixedDate, Months, Period, last_day
from models.domain.plans import MerchantCancel, Plan, plan_from_dict
from tests.domain.test_plans import shipped

PLAN = plan_from_dict(shipped())
DAY = timedelta(days=1)


def days(*texts: str) -> list[date]:
    return [date.fromisoformat(text) for text in texts]


@pytest.mark.parametrize(
    ("period", "enrolled_on", "ends"),
    [
        (Months(1), "2026-01-31", days("2026-02-28", "2026-03-31", "2026-04-30", "2026-05-31")),
        (Months(1), "2028-01-31", days("2028-02-29", "2028-03-31", "2028-04-30")),
        (Months(1), "2100-01-31", days("2100-02-28", "2100-03-31")),  # no leap year
        (Months(1), "2028-01-30", days("2028-02-29", "2028-03-30")),
        (Months(1), "2026-01-15", days("2026-02-15", "2026-03-15")),
        (Months(1, 31), "2026-01-15", days("2026-02-28", "2026-03-31", "2026-04-30")),
        (Months(1, 1), "2026-01-15", days("2026-02-01", "2026-03-01")),
        (Months(2, 30), "2026-12-31", days("2027-02-28", "2027-04-30", "2027-06-30")),
        (Months(12), "2028-02-29", days("2029-02-28", "2030-02-28", "2031-02-28", "2032-02-29")),
        (Months(1), "2026-12-31", days("2027-01-31", "2027-02-28")),
        (Months(1), "2026-11-30", days("2026-12-30", "2027-01-30", "2027-02-28")),
        (Days(30), "2026-01-01", days("2026-01-31", "2026-03-02", "2026-04-01")),
        (Days(1), "2028-02-28", days("2028-02-29", "2028-03-01")),
        (FixedDate(date(2026, 12, 31)), "2026-01-15", days("2026-12-31", "2026-12-31")),
    ],
)
def test_periods_follow_each_other_without_drifting(period: Period, enrolled_on: str, ends: list[date]) -> None:
    start = date.fromisoformat(enrolled_on)
    assert [last_day(period, start, cycle) for cycle in range(1, len(ends) + 1)] == ends


def test_cycles_count_from_one() -> None:
    with pytest.raises(ValueError, match="from 1"):
        last_day(Days(30), date(2026, 1, 1), 0)


@given(
    st.dates(date(2024, 1, 1), date(2104, 1, 1)),
    st.integers(1, 14),
    st.one_of(st.none(), st.integers(1, 31)),
    st.integers(1, 30),
)
def test_a_month_of_any_length_ends_on_its_anchor_or_its_last_day(
    start: date, months: int, anchor: int | None, cycle: int
) -> None:
    end, wanted = last_day(Months(months, anchor), start, cycle), anchor or start.day
    assert (end.year * 12 + end.month) - (start.year * 12 + start.month) == months * cycle
    assert end.day == wanted or (end.day < wanted and (end + DAY).day == 1)
    assert last_day(Months(months, anchor), start, cycle + 1) > end


@pytest.mark.parametrize(
    ("zone", "hour", "enrolled", "expiry", "cutoff"),
    [
        ("Asia/Shanghai", 0, "2026-01-31T02:00", "2026-02-28T16:00", "2026-03-01T16:00"),
        ("Asia/Shanghai", 4, "2026-01-31T02:00", "2026-02-28T20:00", "2026-03-01T20:00"),
        # 8 March 2026: clocks in New York go forward at 02:00; 1 November: back.
        ("America/New_York", 0, "2026-02-07T18:00", "2026-03-08T05:00", "2026-03-09T04:00"),
        ("America/New_York", 4, "2026-02-07T18:00", "2026-03-08T08:00", "2026-03-09T08:00"),
        ("America/New_York", 2, "2026-02-07T18:00", "2026-03-08T07:00", "2026-03-09T07:00"),  # 03:00 for 02:00
        ("America/New_York", 0, "2026-10-01T18:00", "2026-11-02T05:00", "2026-11-03T05:00"),
        ("America/New_York", 1, "2026-09-30T18:00", "2026-10-31T05:00", "2026-11-01T05:00"),
        ("Europe/Berlin", 0, "2026-02-28T12:00", "2026-03-28T23:00", "2026-03-29T22:00"),
        ("Australia/Lord_Howe", 0, "2026-09-03T12:00", "2026-10-03T13:30", "2026-10-04T13:00"),  # half an hour
        ("Pacific/Apia", 0, "2011-11-30T12:00", "2011-12-30T10:00", "2011-12-31T10:00"),  # 30 December was left out
    ],
)
def test_a_month_ends_at_local_midnight_wherever_clocks_change(
    zone: str, hour: int, enrolled: str, expiry: str, cutoff: str
) -> None:
    plan = replace(PLAN, zone=zone, cutoff_hour=hour, period=Months(1), grace_days=1)
    end = expiry_instant(datetime.fromisoformat(enrolled).replace(tzinfo=UTC), plan)
    assert end == datetime.fromisoformat(expiry).replace(tzinfo=UTC)
    assert cutoff_instant(end, plan) == datetime.fromisoformat(cutoff).replace(tzinfo=UTC)


@given(
    st.datetimes(datetime(2024, 1, 1), datetime(2040, 1, 1), timezones=st.just(UTC)),  # noqa: DTZ001  # UTC is added
    st.sampled_from(["Asia/Shanghai", "America/New_York", "Europe/Berlin", "Australia/Lord_Howe"]),
    st.sampled_from([Days(1), Days(30), Months(1), Months(3, 31)]),
    st.integers(0, 23),
    st.integers(0, 900),
)
def test_the_cycle_under_way_is_the_first_that_is_not_over(
    began: datetime, zone: str, period: Period, hour: int, later: int
) -> None:
    plan = replace(PLAN, zone=zone, period=period, cutoff_hour=hour)
    now = began + later * timedelta(hours=11)
    cycle = cycle_at(began, plan, now)
    assert expiry_instant(began, plan, cycle) > now
    assert cycle == 1 or expiry_instant(began, plan, cycle - 1) <= now


def test_nothing_renews_after_a_fixed_date() -> None:
    plan = replace(PLAN, period=FixedDate(date(2026, 12, 31)))
    began, over = datetime(2026, 6, 1, tzinfo=UTC), datetime(2026, 12, 31, 16, tzinfo=UTC)
    assert expiry_instant(began, plan) == over
    assert cycle_at(began, plan, over - timedelta(seconds=1)) == 1
    with pytest.raises(Refused) as caught:
        cycle_at(began, plan, over)
    assert caught.value.code == "plan_over"


# ---------------------------------------------------------------- what a cancel leaves of the fee

BEGAN = datetime(2026, 1, 31, 2, tzinfo=UTC)  # 31 January in Shanghai


def prorated(plan: Plan, cancelled_on: str, cycle: int = 1, opened_at: datetime | None = None) -> int:
    at = datetime.fromisoformat(cancelled_on).replace(tzinfo=UTC)
    return effective_fee_fen(
        replace(plan, on_merchant_cancel=MerchantCancel.PRORATE),
        BEGAN,
        Cancellation(CancelledBy.MERCHANT, at),
        cycle,
        opened_at=opened_at,
    )


def test_a_month_is_prorated_over_its_own_days() -> None:
    plan = replace(PLAN, period=Months(1))  # 31 January .. 28 February: 29 days
    assert prorated(plan, "2026-01-31T03:00") == 0
    assert prorated(plan, "2026-02-10T03:00") == 1000 * 10 // 29
    assert prorated(plan, "2026-02-28T03:00") == 1000 * 28 // 29
    assert prorated(plan, "2026-03-01T03:00") == 1000


def test_a_later_generation_is_prorated_from_the_day_it_opened_on() -> None:
    plan, opened = replace(PLAN, period=Months(1)), datetime(2026, 3, 3, 2, tzinfo=UTC)
    assert prorated(plan, "2026-03-13T03:00", 2, opened) == 1000 * 10 // 29  # 3 .. 31 March: 29 days


def test_a_membership_that_began_after_the_last_day_is_not_divided_by_nothing() -> None:
    plan = replace(PLAN, period=FixedDate(date(2026, 1, 30)))
    assert prorated(plan, "2026-01-31T03:00") == 0


def test_a_membership_of_one_day_is_served_when_that_day_is_over() -> None:
    plan = replace(PLAN, period=FixedDate(date(2026, 1, 31)), cutoff_hour=4)
    assert prorated(plan, "2026-01-31T15:59") == 0
    assert prorated(plan, "2026-01-31T16:30") == 1000  # 00:30 on 1 February, before the cutoff hour


@pytest.mark.parametrize("by", CancelledBy)
def test_on_exemption_days_a_cancel_costs_nothing_whoever_cancels(by: CancelledBy) -> None:
    plan = replace(PLAN, exemption_days=7, on_merchant_cancel=MerchantCancel.MIN)
    last = datetime(2026, 2, 7, 15, 59, tzinfo=UTC)  # 23:59 on 7 February, the seventh day after
    assert effective_fee_fen(plan, BEGAN, Cancellation(by, BEGAN)) == 0
    assert effective_fee_fen(plan, BEGAN, Cancellation(by, last)) == 0
    assert effective_fee_fen(plan, BEGAN, Cancellation(by, last + timedelta(minutes=1))) == 1000
    assert effective_fee_fen(plan, BEGAN) == 1000, "who stays pays as ever"


def test_without_exemption_days_no_day_is_exempt() -> None:
    assert not exempt(PLAN, BEGAN, BEGAN)
    assert effective_fee_fen(PLAN, BEGAN, Cancellation(CancelledBy.MEMBER, BEGAN)) == 1000


def test_exemption_days_are_local_days() -> None:
    plan = replace(PLAN, exemption_days=1)
    late = datetime(2026, 1, 31, 15, 59, tzinfo=UTC)  # a minute before 1 February in Shanghai
    assert local_date(late, plan.zone) == date(2026, 1, 31)
    assert exempt(plan, late, late + timedelta(hours=24))
    assert not exempt(plan, late, late + timedelta(hours=24, minutes=1))
