"""Receipts of the past from a CSV file, and such a file from the sales of a house.

One row a line of a receipt, as any till's export can be brought into: `receipt, at, store, customer, code, quantity,
unit_price`, and where they are known `name, flags, entity`. What is wrong is said with its line, and nothing is read
in part.
"""

from __future__ import annotations

import csv
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any, BinaryIO

from models.domain.calendar import zone_of
from models.domain.errors import NeedsOperator
from models.domain.ids import LegalEntityId, StoreId, is_topic_level
from models.domain.money import parse_yuan
from models.domain.pricing import BasketLine, Flag
from models.domain.what_if import Receipt

NEEDED = ("receipt", "at", "store", "customer", "code", "quantity", "unit_price")
OPTIONAL = ("name", "flags", "entity")
LINES_MAX = 5_000_000
TEXT_MAX = 200
QUANTITY_MAX = 10_000
FAULTS_SHOWN_MAX = 10
PROGRESS_EVERY_LINES = 5_000
FLAGS = frozenset(str(flag) for flag in Flag)


@dataclass(frozen=True, slots=True)
class Receipts:
    """All receipts in the order of their time; `entities`: whose each store is, where the file says so."""

    receipts: tuple[Receipt, ...]
    entities: dict[StoreId, LegalEntityId]
    lines: int


@dataclass(slots=True)
class _Open:
    """A receipt while its rows come in."""

    at: datetime
    customer: str
    lines: list[BasketLine] = field(default_factory=list)


class _Wrong(ValueError):
    """A row that cannot be read."""


def read_receipts(path: Path, zone: str, progress: Callable[[int], None] = lambda _: None) -> Receipts:
    """The file's receipts. `zone`: of times without an offset; `progress`: bytes read so far.

    Raises NeedsOperator `receipts_unreadable`, or `receipts_wrong` with the first lines that are wrong.
    """
    opened: dict[tuple[StoreId, str], _Open] = {}
    entities: dict[StoreId, LegalEntityId] = {}
    faults: list[str] = []
    count = 0
    try:
        with path.open("rb") as raw:
            reader = csv.DictReader(_text_of(raw), restkey="", strict=True)
            _check_header(reader.fieldnames)
            for count, row in enumerate(reader, 1):
                if count > LINES_MAX:
                    raise NeedsOperator("receipts_wrong", f"more than {LINES_MAX:,} lines", "split the file by months")
                try:
                    _take(row, zone, opened, entities)
                except _Wrong as wrong:
                    faults.append(f"line {reader.line_num}: {wrong}")
                    if len(faults) == FAULTS_SHOWN_MAX:
                        break
                if count % PROGRESS_EVERY_LINES == 0:
                    progress(raw.tell())
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise NeedsOperator("receipts_unreadable", f"{path}: {error}", "export it as CSV in UTF-8") from error
    if faults:
        raise NeedsOperator("receipts_wrong", f"{path}: " + "; ".join(faults), "mend these lines and read it again")
    if not opened:
        raise NeedsOperator("receipts_wrong", f"{path}: no line below its header", f"columns: {', '.join(NEEDED)}")
    receipts = [
        Receipt(number, one.at, store, one.customer, tuple(one.lines)) for (store, number), one in opened.items()
    ]
    receipts.sort(key=lambda one: (one.at, one.store, one.number))
    return Receipts(tuple(receipts), entities, count)


def write_receipts(rows: Iterable[dict[str, Any]], out: Any) -> int:
    """Rows with the columns of this format as CSV; returns how many."""
    writer = csv.DictWriter(out, [*NEEDED, *OPTIONAL], lineterminator="\n")
    writer.writeheader()
    count = 0
    for row in rows:
        writer.writerow(row)
        count += 1
    return count


def _text_of(raw: BinaryIO) -> Iterator[str]:
    """Lines as text; a byte order mark, which spreadsheets write, is not part of the first column's name."""
    first = True
    for line in raw:
        yield line.decode("utf-8-sig" if first else "utf-8")
        first = False


def _check_header(names: Any) -> None:
    missing = [name for name in NEEDED if name not in (names or ())]
    unknown = [name for name in names or () if name not in (*NEEDED, *OPTIONAL)]
    if missing or unknown:
        said = [f"without {', '.join(missing)}"] * bool(missing) + [f"with unknown {', '.join(unknown)}"] * bool(
            unknown
        )
        columns = f"{', '.join(NEEDED)}; optional: {', '.join(OPTIONAL)}"
        raise NeedsOperator("receipts_wrong", f"line 1: a header {' and '.join(said)}", f"columns: {columns}")


def _take(
    row: dict[str, Any],
    zone: str,
    opened: dict[tuple[StoreId, str], _Open],
    entities: dict[StoreId, LegalEntityId],
) -> None:
    """One row into its receipt. Raises _Wrong with what is wrong of it."""
    if "" in row or None in row.values():
        raise _Wrong("more or fewer cells than the header has")
    for name, value in row.items():
        if len(value) > TEXT_MAX:
            raise _Wrong(f"{name} is longer than {TEXT_MAX} characters")
    store = _level(row["store"], "store")
    at, customer = _instant(row["at"], zone), row["customer"].strip()
    number = row["receipt"].strip()
    if not number:
        raise _Wrong("receipt is empty")
    one = opened.setdefault((StoreId(store), number), _Open(at, customer))
    if (one.at, one.customer) != (at, customer):
        raise _Wrong(f"receipt {number} has another time or customer in an earlier line")
    owner = (row.get("entity") or "").strip()
    if owner:
        entity = LegalEntityId(_level(owner, "entity"))
        if entities.setdefault(StoreId(store), entity) != entity:
            raise _Wrong(f"store {store} belongs to {entities[StoreId(store)]} in an earlier line")
    one.lines.append(_line(row, len(one.lines) + 1))


def _line(row: dict[str, Any], n: int) -> BasketLine:
    quantity = row["quantity"].strip()
    if not (quantity.isascii() and quantity.isdigit() and 1 <= int(quantity) <= QUANTITY_MAX):
        raise _Wrong(f"quantity is a whole number 1..{QUANTITY_MAX}, got {quantity!r}")
    try:
        unit_fen = parse_yuan(row["unit_price"].strip())
    except ValueError as error:
        raise _Wrong(f"unit_price: {error}") from None
    flags = frozenset((row.get("flags") or "").split())
    if unknown := flags - FLAGS:
        raise _Wrong(f"flags: unknown {', '.join(sorted(unknown))}; one of {', '.join(sorted(FLAGS))}")
    code = row["code"].strip()
    if not code:
        raise _Wrong("code is empty")
    return BasketLine(n, code, (row.get("name") or code).strip(), int(quantity), unit_fen, flags)


def _instant(text: str, zone: str) -> datetime:
    try:
        at = datetime.fromisoformat(text.strip())
    except ValueError:
        raise _Wrong(f"at is a time such as 2026-11-22T12:30:00+08:00, got {text!r}") from None
    return at if at.tzinfo is not None else at.replace(tzinfo=zone_of(zone))


def _level(text: str, name: str) -> str:
    level = text.strip()
    if not is_topic_level(level):
        raise _Wrong(f"{name} must match [a-z0-9-]{{1,48}}, got {text!r}")
    return level
