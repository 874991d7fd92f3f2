"""What is printed under a bar code, taken apart: GTINs, GS1 element strings, and what a shop's own scales print.

Source: GS1 General Specifications, sections 3 (application identifiers), 7.8 (element strings with FNC1), 7.9 (check
digits, those of prices and weights too) and 7.12 (the century of a date). A digit that does not fit is not guessed at.
"""

from __future__ import annotations

import re
from calendar import monthrange
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date
from enum import StrEnum
from typing import Any

from models.domain.errors import Refused
from models.domain.money import Rounding, divide

_GTIN = re.compile(r"\d{8}|\d{12,14}", re.ASCII)
_DIGITS = re.compile(r"\d+", re.ASCII)
GTIN_LENGTHS = (8, 12, 13, 14)
FNC1 = "\x1d"
"""What a scanner sends for the separator of a GS1 symbol."""
SYMBOLOGIES = ("]C1", "]d2", "]Q3", "]e0", "]J1")
"""AIM identifiers of symbols that hold element strings: GS1-128, DataMatrix, QR, DataBar, DotCode."""
PLAIN_SYMBOLOGY = re.compile(r"\][A-Za-z]\d")


# ---------------------------------------------------------------- check digits


def check_digit(digits: str) -> int:
    """The GS1 check digit for `digits` without it: weights 3, 1, 3 … from the right, filled up to ten."""
    if not digits.isascii() or not digits.isdigit():
        raise ValueError(f"digits only, got {digits!r}")
    total = sum(int(digit) * (3 if n % 2 == 0 else 1) for n, digit in enumerate(reversed(digits)))
    return -total % 10


def is_gtin(code: str) -> bool:
    """True for 8, 12, 13 or 14 digits of which the last is the check digit."""
    return _GTIN.fullmatch(code) is not None and check_digit(code[:-1]) == int(code[-1])


_TWO_MINUS = (0, 2, 4, 6, 8, 9, 1, 3, 5, 7)
_THREE = (0, 3, 6, 9, 2, 5, 8, 1, 4, 7)
_FIVE_PLUS = (0, 5, 1, 6, 2, 7, 3, 8, 4, 9)
_FIVE_MINUS = (0, 5, 9, 4, 8, 3, 7, 2, 6, 1)


def value_check_digit(digits: str) -> int:
    """The check digit of a price or weight of four or five digits. Raises ValueError for anything else."""
    if not digits.isascii() or not digits.isdigit() or len(digits) not in (4, 5):
        raise ValueError(f"four or five digits, got {digits!r}")
    weights: tuple[tuple[int, ...], ...]
    if len(digits) == 4:
        weights = (_TWO_MINUS, _TWO_MINUS, _THREE, _FIVE_MINUS)
        return sum(weight[int(digit)] for weight, digit in zip(weights, digits, strict=True)) * 3 % 10
    weights = (_FIVE_PLUS, _TWO_MINUS, _FIVE_MINUS, _FIVE_PLUS, _TWO_MINUS)
    total = sum(weight[int(digit)] for weight, digit in zip(weights, digits, strict=True))
    return _FIVE_MINUS.index(-total % 10)


def spellings(gtin: str) -> tuple[str, ...]:
    """The lengths that one GTIN may be written in, itself first: leading zeros count for nothing."""
    bare = gtin.lstrip("0")
    others = (bare.zfill(length) for length in GTIN_LENGTHS if len(bare) <= length)
    return tuple(dict.fromkeys((gtin, *others)))


# ---------------------------------------------------------------- what the shop's scales print


class Measure(StrEnum):
    """What an in-store code carries beside its item."""

    PRICE = "price"
    WEIGHT = "weight"


@dataclass(frozen=True, slots=True)
class InStoreLayout:
    """Where a 13-digit in-store code holds what. Positions count from 0; a part is (first digit, how many).

    `step`: what one unit of the value means, in fen or in grams. `value_check`: where the value's own check digit is,
    None when it has none.
    """

    prefixes: frozenset[str]
    item: tuple[int, int] = (2, 5)
    value: tuple[int, int] = (7, 5)
    measure: Measure = Measure.PRICE
    step: int = 1
    value_check: int | None = None

    def __post_init__(self) -> None:
        places = [*range(2), *_places(self.item), *_places(self.value)]
        if self.value_check is not None:
            places.append(self.value_check)
        if not self.prefixes or any(not re.fullmatch(r"2[0-9]", one) for one in self.prefixes):
            raise ValueError("prefixes: 20 to 29")
        if len(set(places)) < len(places) or not all(0 <= place < 12 for place in places):
            raise ValueError("item, value and value_check are apart, within digits 2 to 11")
        if self.item[1] < 1 or self.value[1] < 1 or self.step < 1:
            raise ValueError("item and value have digits, and a step is 1 or more")
        if self.value_check is not None and self.value[1] not in (4, 5):
            raise ValueError("a value with a check digit has four or five digits")

    def read(self, code: str) -> tuple[str, int] | None:
        """The item's digits and the value in fen or grams; None when the value's own check digit does not fit."""
        item, value = _part(code, self.item), _part(code, self.value)
        if self.value_check is not None and value_check_digit(value) != int(code[self.value_check]):
            return None
        return item, int(value) * self.step

    def write(self, prefix: str, item: str, value: int) -> str:
        """The code that `read` reads back. Raises ValueError for what does not fit into its places."""
        digits = ["0"] * 12
        digits[0:2] = prefix
        units, rest = divmod(value, self.step)
        text = str(units).zfill(self.value[1])
        if prefix not in self.prefixes or rest or len(text) > self.value[1] or len(item) != self.item[1]:
            raise ValueError(f"{prefix} {item} {value} does not fit this layout")
        digits[self.item[0] : sum(self.item)] = item
        digits[self.value[0] : sum(self.value)] = text
        if self.value_check is not None:
            digits[self.value_check] = str(value_check_digit(text))
        body = "".join(digits)
        return body + str(check_digit(body))


def _places(part: tuple[int, int]) -> range:
    return range(part[0], part[0] + part[1])


def _part(code: str, part: tuple[int, int]) -> str:
    return code[part[0] : part[0] + part[1]]


_LAYOUT_FIELDS = frozenset({"prefixes", "item", "value", "measure", "step", "value_check"})


def read_layouts(documents: Sequence[Mapping[str, Any]]) -> tuple[InStoreLayout, ...]:
    """Layouts from a chain's file. Raises ValueError naming what is wrong; no prefix may have two."""
    made: list[InStoreLayout] = []
    for n, document in enumerate(documents):
        if unknown := set(document) - _LAYOUT_FIELDS:
            raise ValueError(f"codes[{n}]: unknown {', '.join(sorted(unknown))}")
        fields = dict(document)
        try:
            fields["prefixes"] = frozenset(str(one) for one in fields.get("prefixes", ()))
            for part in ("item", "value"):
                if part in fields:
                    first, length = fields[part]
                    fields[part] = (int(first), int(length))
            if "measure" in fields:
                fields["measure"] = Measure(fields["measure"])
            layout = InStoreLayout(**fields)
        except (TypeError, ValueError) as error:
            raise ValueError(f"codes[{n}]: {error}") from None
        for other in made:
            if shared := layout.prefixes & other.prefixes:
                raise ValueError(f"codes[{n}]: prefix {min(shared)} is laid out twice")
        made.append(layout)
    return tuple(made)


# ---------------------------------------------------------------- GS1 element strings

_FIXED = {"01": 14, "11": 6, "13": 6, "15": 6, "16": 6, "17": 6} | {f"310{n}": 6 for n in range(6)}
"""Identifiers whose length is set beforehand: no separator follows."""
_OPEN = {"10": 20, "21": 20, "30": 8} | {f"392{n}": 15 for n in range(4)}
"""The others that we know, with the most characters; they end at FNC1 or at the end."""
_TEXT = ("10", "21")
_BRACKETED = re.compile(r"\((\d{2,4})\)([^(]*)", re.ASCII)


def read_elements(code: str) -> dict[str, str]:
    """The element string of a GS1 symbol: value by application identifier.

    `code` as a scanner sends it (with or without its symbology identifier, FNC1 as ASCII 29), or with identifiers in
    brackets. Raises Refused `code_unreadable`.
    """
    text = code[3:] if code.startswith(SYMBOLOGIES) else code
    if text.startswith("("):
        if "".join(f"({ai}){value}" for ai, value in _BRACKETED.findall(text)) != text:
            raise _unreadable(code)
        pairs = _BRACKETED.findall(text)
    else:
        pairs = _split(text.lstrip(FNC1), code)
    found: dict[str, str] = {}
    for ai, value in pairs:
        if not _fits(ai, value) or found.setdefault(ai, value) != value:
            raise _unreadable(code)
    if not found:
        raise _unreadable(code)
    return found


def write_elements(elements: Mapping[str, str]) -> str:
    """The element string that `read_elements` reads back. Raises ValueError for what no symbol may hold."""
    parts = []
    for n, (ai, value) in enumerate(elements.items(), 1):
        if not _fits(ai, value):
            raise ValueError(f"({ai}){value} cannot be encoded")
        parts.append(ai + value + (FNC1 if ai in _OPEN and n < len(elements) else ""))
    return "".join(parts)


def _split(text: str, code: str) -> list[tuple[str, str]]:
    pairs = []
    while text:
        ai = next((text[:length] for length in (2, 4) if text[:length] in _FIXED or text[:length] in _OPEN), None)
        if ai is None:
            raise _unreadable(code)
        text = text[len(ai) :]
        if ai in _FIXED:
            value, text = text[: _FIXED[ai]], text[_FIXED[ai] :].removeprefix(FNC1)
        else:
            value, _, text = text.partition(FNC1)
        pairs.append((ai, value))
    return pairs


def _fits(ai: str, value: str) -> bool:
    if ai in _FIXED:
        right = len(value) == _FIXED[ai] and _DIGITS.fullmatch(value) is not None
        return right and (ai != "01" or is_gtin(value))
    if ai not in _OPEN or not 1 <= len(value) <= _OPEN[ai]:
        return False
    return value.isascii() and value.isprintable() if ai in _TEXT else _DIGITS.fullmatch(value) is not None


def _unreadable(code: str) -> Refused:
    shown = code.replace(FNC1, "<GS>")[:60]
    return Refused("code_unreadable", f"{shown!r} is no code that this shop reads", "scan it again")


def gs1_date(text: str, today: date) -> date:
    """A date YYMMDD: day 00 is the month's last, and the year is the nearest to `today`'s. Raises ValueError."""
    year = today.year - today.year % 100 + int(text[:2])
    if year - today.year >= 51:
        year -= 100
    elif year - today.year <= -50:
        year += 100
    month, day = int(text[2:4]), int(text[4:6])
    if not 1 <= month <= 12:
        raise ValueError(f"{text} is no date")
    return date(year, month, day or monthrange(year, month)[1])


# ---------------------------------------------------------------- a scan


@dataclass(frozen=True, slots=True)
class Scanned:
    """What one scan said. `codes`: under which the article may be listed, the likeliest first.

    weight_g and price_fen come from the label; use_by is the day after which it must not be sold (17), best_before
    only advice (15).
    """

    codes: tuple[str, ...]
    weight_g: int | None = None
    price_fen: int | None = None
    use_by: date | None = None
    best_before: date | None = None
    lot: str = ""
    elements: Mapping[str, str] = field(default_factory=dict)


def read(code: str, layouts: Sequence[InStoreLayout], today: date) -> Scanned:
    """Take a scanned code apart.

    Raises Refused `code_unreadable` (an element string that is none) or `code_misread` (a check digit does not fit). A
    code in the form of none of these is an article's own: returned as it is.
    """
    if code.startswith((*SYMBOLOGIES, FNC1, "(")):
        return _read_gs1(code, today)
    if PLAIN_SYMBOLOGY.match(code):
        code = code[3:]
    if not _GTIN.fullmatch(code):
        return Scanned((code,))
    if not is_gtin(code):
        raise _misread(code)
    layout = next((one for one in layouts if len(code) == 13 and code[:2] in one.prefixes), None)
    if layout is None:
        return Scanned(spellings(code))
    said = layout.read(code)
    if said is None:
        raise _misread(code)
    item, value = said
    codes = (code[:2] + item, item)
    return Scanned(codes, price_fen=value) if layout.measure is Measure.PRICE else Scanned(codes, weight_g=value)


def _misread(code: str) -> Refused:
    return Refused("code_misread", f"a check digit of {code!r} does not fit", "scan it again")


def _read_gs1(code: str, today: date) -> Scanned:
    found = read_elements(code)
    if "01" not in found:
        raise _unreadable(code)
    weight = next((_scaled(value, 3 - int(ai[3])) for ai, value in found.items() if ai.startswith("310")), None)
    price = next((_scaled(value, 2 - int(ai[3])) for ai, value in found.items() if ai.startswith("392")), None)
    try:
        use_by = gs1_date(found["17"], today) if "17" in found else None
        best = gs1_date(found["15"], today) if "15" in found else None
    except ValueError:
        raise _unreadable(code) from None
    return Scanned(spellings(found["01"]), weight, price, use_by, best, found.get("10", ""), found)


def _scaled(digits: str, power: int) -> int:
    """`digits` times ten to the `power`, in whole grams or fen, the rest left out."""
    return int(digits) * 10**power if power >= 0 else divide(int(digits), 10**-power, Rounding.FLOOR)


def weighed_fen(unit_fen: int, weight_g: int) -> int:
    """What so many grams cost at `unit_fen` the kilogram, a part of a fen left out."""
    return divide(unit_fen * weight_g, 1000, Rounding.FLOOR)
