"""How long one generation of a membership lasts: relative days, calendar months with an anchor day, a fixed date.

A period is counted from the date of enrolment, and the generations of an unbroken row are counted from that same
date, so that 31 January, 28 February, 31 March follow each other without drifting. Sources: the period modes and the
cycle of the provider's credit memberships (docs/decisions/periods-and-exemption.md).
"""

from __future__ import annotations

from calendar import monthrange
from dataclasses import dataclass
from datetime import date, timedelta


@dataclass(frozen=True, slots=True)
class Days:
    """`days` calendar days after the date of enrolment."""

    days: int


@dataclass(frozen=True, slots=True)
class Months:
    """`months` calendar months after the date of enrolment, on `anchor_day` or the month's last day before it.

    Without an anchor day the day of enrolment is the anchor.
    """

    months: int
    anchor_day: int | None = None


@dataclass(frozen=True, slots=True)
class FixedDate:
    """Everybody's membership ends with the same day; nobody enrols after it, and nothing renews."""

    last_day: date


Period = Days | Months | FixedDate


def last_day(period: Period, enrolled_on: date, cycle: int = 1) -> date:
    """The last calendar date of the `cycle`-th period in an unbroken row that began with an enrolment on that date.

    Raises ValueError for a cycle below 1.
    """
    if cycle < 1:
        raise ValueError(f"cycles count from 1, got {cycle}")
    match period:
        case Days(days=days):
            return enrolled_on + timedelta(days=days * cycle)
        case Months(months=months, anchor_day=anchor):
            return _months_later(enrolled_on, months * cycle, anchor or enrolled_on.day)
        case FixedDate(last_day=end):
            return end


def _months_later(day: date, months: int, anchor: int) -> date:
    years, month = divmod(day.year * 12 + day.month - 1 + months, 12)
    return date(years, month + 1, min(anchor, monthrange(years, month + 1)[1]))
