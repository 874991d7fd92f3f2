"""Money as integer fen, and the one place where anything is rounded.

Amounts are `int` fen everywhere (`charge_fen`); `Money` is for borders where a currency travels along.
There is no tolerance: two amounts are equal or they differ.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum

CASH_STEP_FEN = 10
"""Cash is rounded down to whole jiao; the difference is booked to `cash_rounding`."""

_YUAN = re.compile(r"\d+\.\d{2}", re.ASCII)
_CURRENCY = re.compile(r"[A-Z]{3}", re.ASCII)


class Rounding(Enum):
    """Which way a quotient goes. There is no half-up: it is what lets points gain on a round trip."""

    FLOOR = "floor"
    CEIL = "ceil"


def require_fen(amount_fen: object, what: str = "amount_fen") -> int:
    """`amount_fen` itself when it is a plain int; raises TypeError for float, bool, str and the rest."""
    if type(amount_fen) is not int:
        raise TypeError(f"{what} must be an int in fen, got {type(amount_fen).__name__}")
    return amount_fen


def parse_yuan(text: str) -> int:
    """Fen of a provider's amount string: `"8.00"` -> 800. Raises ValueError unless it is `\\d+\\.\\d{2}`."""
    if _YUAN.fullmatch(text) is None:
        raise ValueError(f'an amount in yuan looks like "8.00", got {text!r}')
    yuan, fen = text.split(".")
    return int(yuan) * 100 + int(fen)


def format_yuan(amount_fen: int) -> str:
    """Yuan with two decimals: 800 -> `"8.00"`, -5 -> `"-0.05"`."""
    yuan, fen = divmod(abs(require_fen(amount_fen)), 100)
    return f"{'-' if amount_fen < 0 else ''}{yuan}.{fen:02d}"


def divide(numerator: int, denominator: int, rounding: Rounding) -> int:
    """`numerator / denominator` as an int, towards -inf (FLOOR) or +inf (CEIL); denominator > 0."""
    require_fen(numerator, "numerator")
    if require_fen(denominator, "denominator") <= 0:
        raise ValueError("denominator must be positive")
    return numerator // denominator if rounding is Rounding.FLOOR else -(-numerator // denominator)


def allocate(total_fen: int, weights: Sequence[int]) -> list[int]:
    """Split `total_fen` (>= 0) over integer `weights` (>= 0) by largest remainder, ties to the lowest index.

    The parts sum to `total_fen` exactly, and no part exceeds its weight while `total_fen <= sum(weights)`.
    Raises ValueError when there is something to split and no positive weight.
    """
    if require_fen(total_fen, "total_fen") < 0:
        raise ValueError("total_fen must not be negative; allocate the absolute amount and mirror it")
    if any(require_fen(weight, "weight") < 0 for weight in weights):
        raise ValueError("weights must not be negative")
    whole = sum(weights)
    if whole == 0:
        if total_fen:
            raise ValueError("nothing to allocate over: every weight is 0")
        return [0] * len(weights)
    parts = [divide(total_fen * weight, whole, Rounding.FLOOR) for weight in weights]
    by_remainder = sorted(range(len(weights)), key=lambda i: (-(total_fen * weights[i] % whole), i))
    for index in by_remainder[: total_fen - sum(parts)]:
        parts[index] += 1
    return parts


def cash_rounded_fen(due_fen: int) -> int:
    """What is paid when all of `due_fen` (>= 0) is paid in cash: rounded down to 10 fen."""
    if require_fen(due_fen, "due_fen") < 0:
        raise ValueError("due_fen must not be negative")
    return divide(due_fen, CASH_STEP_FEN, Rounding.FLOOR) * CASH_STEP_FEN


@dataclass(frozen=True, slots=True)
class Money:
    """An amount with its currency. Refuses float and bool, and arithmetic over two currencies (TypeError)."""

    fen: int
    currency: str = "CNY"

    def __post_init__(self) -> None:
        require_fen(self.fen, "fen")
        if _CURRENCY.fullmatch(self.currency) is None:
            raise ValueError(f"a currency is three capital letters, got {self.currency!r}")

    def __add__(self, other: Money) -> Money:
        return Money(self.fen + self._same(other).fen, self.currency)

    def __sub__(self, other: Money) -> Money:
        return Money(self.fen - self._same(other).fen, self.currency)

    def __neg__(self) -> Money:
        return Money(-self.fen, self.currency)

    def __lt__(self, other: Money) -> bool:
        return self.fen < self._same(other).fen

    def __le__(self, other: Money) -> bool:
        return self.fen <= self._same(other).fen

    def __str__(self) -> str:
        return f"{format_yuan(self.fen)} {self.currency}"

    def _same(self, other: Money) -> Money:
        if not isinstance(other, Money):
            raise TypeError(f"Money meets only Money, got {type(other).__name__}")
        if other.currency != self.currency:
            raise TypeError(f"mixed currencies: {self.currency} and {other.currency}")
        return other
