"""GTINs and in-store weight codes, as printed under a bar code (GS1 General Specifications, section 7.9)."""

from __future__ import annotations

import re
from dataclasses import dataclass

_GTIN = re.compile(r"\d{8}|\d{12,14}", re.ASCII)


@dataclass(frozen=True, slots=True)
class InStoreCode:
    """A code that the shop's own scales printed: prefix 20..29, item number, and a price in fen or a weight in g.

    Which of the two `value` is, the chain decides by prefix.
    """

    prefix: str
    item: str
    value: int


def check_digit(digits: str) -> int:
    """The GS1 check digit for `digits` without it: weights 3, 1, 3 … from the right, filled up to ten."""
    if not digits.isascii() or not digits.isdigit():
        raise ValueError(f"digits only, got {digits!r}")
    total = sum(int(digit) * (3 if n % 2 == 0 else 1) for n, digit in enumerate(reversed(digits)))
    return -total % 10


def is_gtin(code: str) -> bool:
    """True for 8, 12, 13 or 14 digits of which the last is the check digit."""
    return _GTIN.fullmatch(code) is not None and check_digit(code[:-1]) == int(code[-1])


def in_store_code(code: str) -> InStoreCode | None:
    """The parts of a 13-digit weight code `2P IIIII VVVVV C`, or None when it is none."""
    if len(code) != 13 or not code.startswith("2") or not is_gtin(code):
        return None
    return InStoreCode(code[:2], code[2:7], int(code[7:12]))
