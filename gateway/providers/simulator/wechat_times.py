"""Moments as WeChat writes them."""

from __future__ import annotations

from datetime import datetime, timedelta, timezone

BEIJING = timezone(timedelta(hours=8))


def rfc3339(stored: str) -> str:
    """A stored moment as answers and notifications show it: Beijing time with its offset."""
    return datetime.fromisoformat(stored).astimezone(BEIJING).isoformat(timespec="seconds")
