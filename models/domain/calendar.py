"""Business days: which day an instant belongs to, and when a day begins. Instants inside are UTC."""

from __future__ import annotations

from datetime import UTC, date, datetime, time, timedelta
from functools import lru_cache
from zoneinfo import ZoneInfo


@lru_cache(maxsize=64)
def zone_of(name: str) -> ZoneInfo:
    """The IANA zone `name`; raises ValueError when this machine does not know it."""
    try:
        return ZoneInfo(name)
    except (KeyError, OSError, ValueError) as error:
        raise ValueError(f"unknown time zone {name!r}; use an IANA name such as Asia/Shanghai") from error


def require_instant(instant: datetime, what: str = "instant") -> datetime:
    """`instant` in UTC; raises ValueError when it carries no offset."""
    if instant.tzinfo is None or instant.utcoffset() is None:
        raise ValueError(f"{what} must carry a time zone")
    return instant.astimezone(UTC)


def local_date(instant: datetime, zone: str) -> date:
    """The calendar date that people in `zone` read at `instant`."""
    return require_instant(instant).astimezone(zone_of(zone)).date()


def day_begins(day: date, zone: str, cutoff_hour: int = 0) -> datetime:
    """The UTC instant at which `day` begins in `zone` when its day changes at `cutoff_hour` (0..23)."""
    if not 0 <= cutoff_hour <= 23:
        raise ValueError(f"cutoff_hour must be 0..23, got {cutoff_hour}")
    return datetime.combine(day, time(cutoff_hour), tzinfo=zone_of(zone)).astimezone(UTC)


def days_later(instant: datetime, days: int, zone: str) -> datetime:
    """The UTC instant at the same local wall time, `days` calendar days later."""
    return (require_instant(instant).astimezone(zone_of(zone)) + timedelta(days=days)).astimezone(UTC)


def business_date(instant: datetime, zone: str, cutoff_hour: int = 0) -> date:
    """The business date of `instant`: a 24-hour shop with cutoff 4 books 03:59 to the day before."""
    local = require_instant(instant).astimezone(zone_of(zone))
    return local.date() - timedelta(days=1) if local.hour < cutoff_hour else local.date()
