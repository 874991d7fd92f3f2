"""A chain's price file: the whole list of articles, checked line by line, and what it would change.

All or nothing: one wrong line, and nothing is taken. Columns `code, name_zh, name_en, price` and where wanted `flags,
tax, effective`; prices in yuan with two decimals, times in ISO 8601 (without an offset: the chain's own).
"""

from __future__ import annotations

import csv
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Any

from models.domain.barcode import is_gtin
from models.domain.calendar import zone_of
from models.domain.money import format_yuan, parse_yuan
from models.domain.plans import Text
from models.domain.pricing import Flag, Item

NEEDED = ("code", "name_zh", "name_en", "price")
OPTIONAL = ("flags", "tax", "effective")
ITEMS_MAX = 200_000
FILE_BYTES_MAX = 32 * 1024 * 1024
PRICES_OF_ITEM_MAX = 8
"""Rows of one article: its price from several times on."""
NAME_MAX = 120
PRICE_MAX_FEN = 100_000_00
FAULTS_SHOWN_MAX = 20
PROGRESS_EVERY_LINES = 2_000
JUMP_PERCENT = 50
"""A price that moves by more than this needs to be forced, unless another bound is asked for."""

_CODE = re.compile(r"[0-9A-Za-z-]{1,48}")
_LOOKS_LIKE_GTIN = re.compile(r"\d{8}|\d{12,14}", re.ASCII)
_FLAGS = frozenset(str(flag) for flag in Flag)


class PriceFileError(ValueError):
    """The file is not taken. `faults`: what is wrong, the first FAULTS_SHOWN_MAX lines of it, `total` in all."""

    def __init__(self, faults: Sequence[str], total: int = 0) -> None:
        super().__init__("; ".join(faults))
        self.faults = tuple(faults)
        self.total = max(total, len(faults))


@dataclass(frozen=True, slots=True)
class PriceRow:
    """One line: an article with its price, from `effective` on; None: as soon as the file is in force."""

    line: int
    code: str
    name: Text
    fen: int
    flags: frozenset[str]
    tax: str
    effective: datetime | None


@dataclass(frozen=True, slots=True)
class PriceFile:
    """What a file says: articles by code, each with its rows in the order of their times."""

    rows: Mapping[str, tuple[PriceRow, ...]]
    lines: int


@dataclass(slots=True)
class _Reading:
    zone: str
    taxes: Mapping[str, int]
    rows: dict[str, list[PriceRow]] = field(default_factory=dict)
    faults: list[str] = field(default_factory=list)
    faults_total: int = 0
    lines: int = 0
    known: dict[str, frozenset[str]] = field(default_factory=dict)

    def wrong(self, line: int, what: str) -> None:
        self.faults_total += 1
        if len(self.faults) < FAULTS_SHOWN_MAX:
            self.faults.append(f"line {line}: {what}")


def read_price_file(
    text: Iterable[str], zone: str, taxes: Mapping[str, int], progress: Callable[[int], None] = lambda _: None
) -> PriceFile:
    """Read a file's lines. `taxes`: the codes that there are; `progress`: lines read so far.

    Raises PriceFileError with every fault's line number, the first FAULTS_SHOWN_MAX of them.
    """
    reading = _Reading(zone, taxes)
    reader = csv.DictReader(text, restkey="", strict=True)
    try:
        _check_header(reader.fieldnames)
        for row in reader:
            reading.lines += 1
            if reading.lines > ITEMS_MAX:
                raise PriceFileError([f"line {reader.line_num}: more than {ITEMS_MAX:,} lines"])
            _take(reading, reader.line_num, row)
            if reading.lines % PROGRESS_EVERY_LINES == 0:
                progress(reading.lines)
    except (csv.Error, UnicodeDecodeError) as error:
        raise PriceFileError([f"line {reader.line_num + 1}: {error}: export it as CSV in UTF-8"]) from error
    if not reading.lines:
        raise PriceFileError(["line 2: no article below the header"])
    _check_times(reading)
    if reading.faults:
        raise PriceFileError(reading.faults, reading.faults_total)
    progress(reading.lines)
    return PriceFile({code: tuple(rows) for code, rows in reading.rows.items()}, reading.lines)


def _check_header(names: Sequence[str] | None) -> None:
    found = [(name or "").strip() for name in names or ()]
    missing = [name for name in NEEDED if name not in found]
    strange = [name for name in found if name not in (*NEEDED, *OPTIONAL)]
    if missing or strange or len(set(found)) < len(found):
        said = f"columns are {', '.join(NEEDED)} and, where wanted, {', '.join(OPTIONAL)}; found {', '.join(found)}"
        raise PriceFileError([f"line 1: {said}"])


def _take(reading: _Reading, line: int, row: dict[str, Any]) -> None:
    if "" in row or None in row.values():
        reading.wrong(line, "more or fewer cells than the header has")
        return
    code = row["code"].strip()
    if not _CODE.fullmatch(code):
        reading.wrong(line, f"code {code[:60]!r}: letters, digits and - only, 48 at most")
        return
    if _LOOKS_LIKE_GTIN.fullmatch(code) and not is_gtin(code):
        reading.wrong(line, f"code {code}: its check digit does not fit")
    before = reading.faults_total
    name = Text(zh=_named(reading, line, row, "name_zh"), en=_named(reading, line, row, "name_en"))
    fen, flags = _price(reading, line, row["price"].strip()), _flags(reading, line, row.get("flags", "").strip())
    tax = row.get("tax", "").strip()
    if tax and tax not in reading.taxes:
        reading.wrong(line, f"tax {tax!r}: known are {', '.join(sorted(reading.taxes))}")
    effective = _effective(reading, line, row.get("effective", "").strip())
    if reading.faults_total == before:
        reading.rows.setdefault(code, []).append(PriceRow(line, code, name, fen, flags, tax, effective))


def _named(reading: _Reading, line: int, row: dict[str, Any], column: str) -> str:
    name = str(row[column]).strip()
    if not name or len(name) > NAME_MAX or not name.isprintable():
        reading.wrong(line, f"{column} is empty, longer than {NAME_MAX} or not printable")
    return name


def _price(reading: _Reading, line: int, text: str) -> int:
    try:
        fen = parse_yuan(text)
    except ValueError:
        reading.wrong(line, f"price {text[:20]!r}: yuan with two decimals, as 12.50")
        return 0
    if fen > PRICE_MAX_FEN:
        reading.wrong(line, f"price {text}: {format_yuan(PRICE_MAX_FEN)} at most")
    return fen


def _flags(reading: _Reading, line: int, text: str) -> frozenset[str]:
    if text not in reading.known:
        flags = frozenset(text.split())
        if strange := flags - _FLAGS:
            reading.wrong(line, f"flag {min(strange)!r}: known are {', '.join(sorted(_FLAGS))}")
            return frozenset()
        reading.known[text] = flags
    return reading.known[text]


def _effective(reading: _Reading, line: int, text: str) -> datetime | None:
    if not text:
        return None
    try:
        return effective_time(text, reading.zone)
    except ValueError:
        reading.wrong(line, f"effective {text[:40]!r}: a time as 2026-12-01T06:00 or a date")
        return None


def effective_time(text: str, zone: str) -> datetime:
    """An instant from ISO 8601; without an offset it is the zone's. Raises ValueError."""
    moment = datetime.fromisoformat(text)
    return moment if moment.tzinfo is not None else moment.replace(tzinfo=zone_of(zone))


def _check_times(reading: _Reading) -> None:
    """An article stands there twice only with different times, and says the same of itself but for the price."""
    for code, rows in reading.rows.items():
        if len(rows) == 1:
            continue
        seen: dict[datetime | None, int] = {}
        first = rows[0]
        for row in rows:
            if row.effective in seen:
                reading.wrong(row.line, f"code {code} is on line {seen[row.effective]} already, with the same time")
            seen.setdefault(row.effective, row.line)
            if (row.name, row.flags, row.tax) != (first.name, first.flags, first.tax):
                reading.wrong(row.line, f"code {code} differs from line {first.line} in more than price and time")
        if len(rows) > PRICES_OF_ITEM_MAX:
            reading.wrong(rows[-1].line, f"code {code} has more than {PRICES_OF_ITEM_MAX} prices")


# ---------------------------------------------------------------- what becomes of it


def next_items(file: PriceFile, old: Mapping[str, Item], now: datetime, effective: datetime | None) -> dict[str, Item]:
    """The articles of the next book. Rows without a time of their own take effect at `effective`, or at once.

    Until then an article keeps what it costs at `now`; a new one is not sold before its first price. Articles that the
    file does not list go, at `effective` if that is to come.
    """
    items = {code: _item(rows, old.get(code), now, effective) for code, rows in file.rows.items()}
    if effective is not None and effective > now:
        for code, item in old.items():
            if code not in items and (fen := item.fen_at(now)) is not None:
                items[code] = replace(item, unit_fen=fen, later=((effective, None),))
    return items


def _item(rows: Sequence[PriceRow], old: Item | None, now: datetime, effective: datetime | None) -> Item:
    first = rows[0]
    begins = {row.effective or effective or now: row.fen for row in rows}
    past = [at for at in begins if at <= now]
    fen: int | None = begins[max(past)] if past else (old.fen_at(now) if old is not None else None)
    to_come = tuple(sorted((at, price) for at, price in begins.items() if at > now))
    if fen is None:
        # Not sold yet: until the first of the times it has no price.
        return Item(first.code, first.name, to_come[0][1], first.flags, first.tax, ((_LONG_AGO, None), *to_come))
    return Item(first.code, first.name, fen, first.flags, first.tax, to_come)


_LONG_AGO = datetime.fromisoformat("1970-01-01T00:00:00+00:00")


@dataclass(frozen=True, slots=True)
class Jump:
    """A price that moves far: from, to, and when."""

    code: str
    name: Text
    from_fen: int
    to_fen: int
    at: datetime | None


@dataclass(frozen=True, slots=True)
class Diff:
    """What a file changes. `jumps`: prices that move by more than the bound, which somebody has to want."""

    new: int
    changed: int
    prices_changed: int
    gone: int
    same: int
    jumps: tuple[Jump, ...]

    @property
    def total(self) -> int:
        """Articles that the next book knows."""
        return self.new + self.changed + self.same


def difference(old: Mapping[str, Item], new: Mapping[str, Item], now: datetime, percent: int = JUMP_PERCENT) -> Diff:
    """Compare the book in force with the next one. A price of 0, before or after, is a jump."""
    counts = {"new": 0, "changed": 0, "prices": 0, "same": 0, "gone": 0}
    jumps: list[Jump] = []
    for code, item in new.items():
        before = old.get(code)
        if before is None:
            counts["new"] += 1
            continue
        goes = bool(item.later) and item.later[-1][1] is None
        if before == item:
            counts["same"] += 1
            continue
        counts["changed"] += 1
        counts["gone"] += goes
        if (before.unit_fen, before.later) != (item.unit_fen, item.later) and not goes:
            counts["prices"] += 1
            jumps += _jumps(before, item, now, percent)
    gone = counts["gone"] + sum(1 for code in old if code not in new)
    changed = counts["changed"] - counts["gone"]
    return Diff(counts["new"], changed, counts["prices"], gone, counts["same"] + counts["gone"], tuple(jumps))


def _jumps(before: Item, item: Item, now: datetime, percent: int) -> list[Jump]:
    fen = before.fen_at(now)
    found = []
    for at, to_fen in ((None, item.fen_at(now)), *item.later):
        if fen is not None and to_fen is not None and abs(to_fen - fen) * 100 > percent * min(fen, to_fen):
            found.append(Jump(item.code, item.name, fen, to_fen, at))
        fen = to_fen if to_fen is not None else fen
    return found
