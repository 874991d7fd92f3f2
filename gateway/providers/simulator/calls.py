"""What a call of the OpenAPI carries into the simulator's business, and how business says no."""

from __future__ import annotations

import re
import secrets
import sqlite3
from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Any

from gateway.providers.alipay_gateway import PROVIDER_ZONE
from gateway.providers.amounts import parse_yuan

_NUMBER = re.compile(r"[A-Za-z0-9_]{1,64}")
_WORDED = re.compile(r"[A-Za-z0-9一-鿿]{1,64}")
_PERIOD = re.compile(r"(\d{1,4})([mhd])", re.ASCII)
_PERIOD_UNIT = {"m": timedelta(minutes=1), "h": timedelta(hours=1), "d": timedelta(days=1)}
PERIOD_MAX = timedelta(days=15)


class BusinessFailure(Exception):  # an answer of the protocol (40004), not an error of the program
    """Answered as code 40004. What was written before it was raised is kept: a burnt code, a refused order."""

    def __init__(self, sub_code: str, sub_msg: str) -> None:
        super().__init__(sub_code)
        self.sub_code = sub_code
        self.sub_msg = sub_msg


class BadArgument(Exception):  # an answer of the protocol (40002)
    """Answered as code 40002; nothing was written."""

    def __init__(self, sub_code: str) -> None:
        super().__init__(sub_code)
        self.sub_code = sub_code


@dataclass(frozen=True, slots=True)
class Call:
    """One verified request of one merchant app, inside one transaction."""

    db: sqlite3.Connection
    app_id: str
    seller_id: str
    biz: Mapping[str, Any]
    now: datetime
    base_url: str
    forced: str | None = None
    """An injected outcome: "pending", or a sub-code to fail with."""
    notify_url: str = ""
    """Where the merchant wants to be told the outcome."""
    bend: tuple[str, int] = ("", 0)
    """An injected circumstance and its value: a promotion of so many fen, a hold that lapsed just now."""

    def text(self, name: str, length_max: int = 256) -> str:
        """A required text. Raises BadArgument."""
        value = self.biz.get(name)
        if not isinstance(value, str) or not value:
            raise BadArgument(f"isv.missing-{name.replace('_', '-')}")
        if len(value) > length_max:
            raise BadArgument(f"isv.invalid-{name.replace('_', '-')}")
        return value

    def optional(self, name: str, length_max: int = 256) -> str | None:
        """A text that may be left out."""
        return None if self.biz.get(name) is None else self.text(name, length_max)

    def number(self, name: str) -> str:
        """The merchant's number: letters, digits, underscores."""
        value = self.text(name, 64)
        if _NUMBER.fullmatch(value) is None:
            raise BadArgument(f"isv.invalid-{name.replace('_', '-')}")
        return value

    def fen(self, name: str) -> int:
        """An amount above zero."""
        try:
            fen = parse_yuan(self.text(name, 16))
        except ValueError:
            raise BadArgument(f"isv.invalid-{name.replace('_', '-')}") from None
        if fen == 0:
            raise BadArgument(f"isv.invalid-{name.replace('_', '-')}")
        return fen

    def count(self, name: str) -> int:
        """A number of things, in digits or as one."""
        value = self.biz.get(name)
        if isinstance(value, str) and value.isascii() and value.isdigit() and len(value) <= 9:
            value = int(value)
        if type(value) is not int or not 0 <= value < 10**9:
            raise BadArgument(f"isv.invalid-{name.replace('_', '-')}")
        return value

    def amount(self, name: str) -> int:
        """An amount that may be 0."""
        try:
            return parse_yuan(self.text(name, 16))
        except ValueError:
            raise BadArgument(f"isv.invalid-{name.replace('_', '-')}") from None

    def part(self, name: str) -> Call:
        """The call as if only this object of its content had been sent."""
        inner = self.biz.get(name)
        if not isinstance(inner, dict):
            raise BadArgument(f"isv.missing-{name.replace('_', '-')}")
        return replace(self, biz=inner)

    def worded(self, name: str) -> str:
        """A number in the alphabet of zhima.*: letters, digits, Chinese characters."""
        value = self.text(name, 64)
        if _WORDED.fullmatch(value) is None:
            raise BadArgument(f"isv.invalid-{name.replace('_', '-')}")
        return value

    def period(self, name: str, default: timedelta) -> timedelta:
        """A period like 15m, 2h or 1d."""
        value = self.optional(name, 8)
        if value is None:
            return default
        match = _PERIOD.fullmatch(value)
        if match is None:
            raise BadArgument(f"isv.invalid-{name.replace('_', '-')}")
        return min(int(match[1]) * _PERIOD_UNIT[match[2]], PERIOD_MAX)

    def check_payee(self, name: str) -> None:
        """Money goes to the app's own merchant account only."""
        if self.optional(name) not in {None, self.seller_id}:
            raise BusinessFailure("ACQ.SELLER_NOT_MATCH", "the seller is not this app's")


def fresh_no(now: datetime, kind: str) -> str:
    """A number of the provider's own: date, kind, random digits (28 in all)."""
    return f"{now:%Y%m%d}{kind}{secrets.randbelow(10**17):017d}"


def local_time(stored: str) -> str:
    """A stored moment as the provider's answers show it."""
    return datetime.fromisoformat(stored).astimezone(PROVIDER_ZONE).strftime("%Y-%m-%d %H:%M:%S")
