"""Money on a provider's wire: decimal strings with exactly two places, parsed strictly (money.md)."""

from __future__ import annotations

import re

_YUAN = re.compile(r"(\d{1,13})\.(\d{2})", re.ASCII)
FEN_MAX = 10**15 - 1


def parse_yuan(text: object) -> int:
    """Fen of a string like "8.00". Raises ValueError for anything else: numbers, signs, spaces, other digits."""
    if not isinstance(text, str):
        raise ValueError(f"an amount must be a string like 8.00, not {text!r}")  # noqa: TRY004  # one error type
    match = _YUAN.fullmatch(text)
    if match is None:
        raise ValueError(f"an amount must be a string like 8.00, not {text!r}")
    return int(match[1]) * 100 + int(match[2])


def format_yuan(fen: int) -> str:
    """`800` -> "8.00". Raises ValueError outside 0 to FEN_MAX, TypeError for anything but an int."""
    if type(fen) is not int:
        raise TypeError(f"fen must be an int, not {fen!r}")
    if not 0 <= fen <= FEN_MAX:
        raise ValueError(f"{fen} fen cannot be written on the wire")
    return f"{fen // 100}.{fen % 100:02d}"
