"""YAML and CSV files read with the place of every value, so that each fault can name its line and column."""

from __future__ import annotations

import csv
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

FILE_BYTES_MAX = 4 * 1024 * 1024
DEPTH_MAX = 24
Where = tuple[int | str, ...]
_LOADER: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
"""libyaml's where it is there: ten times as fast, with the same marks."""


@dataclass(frozen=True, slots=True)
class Place:
    """A place in a file; line and column count from 1."""

    file: Path
    line: int
    column: int = 1

    def __str__(self) -> str:
        return f"{self.file.name}:{self.line}"


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that is wrong with a file: where, at which key, what, and what to do about it."""

    place: Place
    key: str
    message: str
    do: str

    def __str__(self) -> str:
        at = f"{self.place.file}:{self.place.line}:{self.place.column}"
        return f"{at}: {self.key + ': ' if self.key else ''}{self.message} → {self.do}"

    def as_json(self) -> dict[str, Any]:
        """For `--json`."""
        return {
            "file": str(self.place.file),
            "line": self.place.line,
            "column": self.place.column,
            "key": self.key,
            "message": self.message,
            "do": self.do,
        }


@dataclass(slots=True)
class Marked:
    """A document, the place of each value by its path, and what is wrong with the file as YAML."""

    file: Path
    document: Any = None
    places: dict[Where, Place] = field(default_factory=dict)
    findings: list[Finding] = field(default_factory=list)

    def place(self, where: Where) -> Place:
        """Of the value at a path, or of the nearest one above it that is there."""
        for n in range(len(where), -1, -1):
            if where[:n] in self.places:
                return self.places[where[:n]]
        return Place(self.file, 1)

    def place_of_value(self, value: str) -> Place | None:
        """Where a scalar of this text first stands."""
        return next((self.places[where] for where, one in scalars(self.document) if str(one) == value), None)

    def graft(self, where: Where, value: Any, place: Place) -> None:
        """Put a value from another file at a path; what is inside it has the same place."""
        self.places[where] = place
        inside: Any = self.document
        for key in where[:-1]:
            inside = inside[key]
        if isinstance(inside, list):
            inside.append(value)
        else:
            inside[where[-1]] = value


def scalars(document: Any, under: Where = ()) -> Iterator[tuple[Where, Any]]:
    """Every value that is neither mapping nor list, by path."""
    if isinstance(document, Mapping):
        for key, value in document.items():
            yield from scalars(value, (*under, key))
    elif isinstance(document, list):
        for n, value in enumerate(document):
            yield from scalars(value, (*under, n))
    else:
        yield under, document


def read_marked(file: Path) -> Marked:
    """Read a YAML file. Never raises for its content: what is wrong is in `findings`, a key that is there twice too."""
    marked = Marked(file)
    try:
        if file.stat().st_size > FILE_BYTES_MAX:
            return _broken(marked, 1, 1, f"larger than {FILE_BYTES_MAX} bytes", "name a chain's file")
        text = file.read_text(encoding="utf-8")
    except OSError as error:
        return _broken(marked, 1, 1, str(error.strerror), "check the path")
    except UnicodeDecodeError as error:
        return _broken(marked, 1, 1, f"not UTF-8: {error.reason}", "save it as UTF-8")
    loader = _LOADER(text)
    try:
        node = loader.get_single_node()
        if node is not None:
            marked.document = _value(loader, node, (), marked)
    except yaml.MarkedYAMLError as error:
        at = error.problem_mark or error.context_mark
        line, column = (at.line + 1, at.column + 1) if at is not None else (1, 1)
        return _broken(marked, line, column, f"not YAML: {error.problem or error.context}", "mend the line")
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        return _broken(marked, 1, 1, f"not YAML: {error}", "mend the file")
    finally:
        loader.dispose()
    return marked


def _broken(marked: Marked, line: int, column: int, message: str, do: str) -> Marked:
    marked.findings.append(Finding(Place(marked.file, line, column), "", message, do))
    return marked


def _value(loader: Any, node: yaml.Node, where: Where, marked: Marked) -> Any:
    place = Place(marked.file, node.start_mark.line + 1, node.start_mark.column + 1)
    marked.places[where] = place
    if len(where) > DEPTH_MAX:
        marked.findings.append(Finding(place, "", f"nested in more than {DEPTH_MAX} levels", "flatten it"))
        return None
    if isinstance(node, yaml.SequenceNode):
        return [_value(loader, one, (*where, n), marked) for n, one in enumerate(node.value)]
    if not isinstance(node, yaml.MappingNode):
        return loader.construct_object(node)
    values: dict[str, Any] = {}
    for key_node, value_node in node.value:
        key = key_node.value if isinstance(key_node, yaml.ScalarNode) else None
        at = Place(marked.file, key_node.start_mark.line + 1, key_node.start_mark.column + 1)
        named = ".".join(str(part) for part in (*where, key or ""))
        if key is None:
            marked.findings.append(Finding(at, named, "a key that is no text", "name it"))
        elif key in values:
            first = marked.places[(*where, key)].line
            message = f"the key {key!r} is there twice, first in line {first}"
            marked.findings.append(Finding(at, named, message, "keep one of the two: the other would be lost"))
        else:
            values[key] = _value(loader, value_node, (*where, key), marked)
            marked.places[(*where, key)] = at
    return values


STORE_COLUMNS = ("id", "zh", "en", "entity")
STORE_COLUMNS_MORE = ("region", "basket_owner", "placement", "families")
STORES_MAX = 20_000


def read_stores(file: Path) -> tuple[list[tuple[dict[str, Any], Place]], list[Finding]]:
    """Stores from a CSV file, a row each, with their lines. Columns: id, zh, en, entity, perhaps region, basket_owner,
    placement and families (`f1=dragonfly-1 f2=…`); every other column is a label."""
    stores: list[tuple[dict[str, Any], Place]] = []
    try:
        with file.open(encoding="utf-8", newline="") as lines:
            rows = csv.reader(lines, strict=True)
            header = next(rows, [])
            faults = [f"the column {name!r} is missing" for name in STORE_COLUMNS if name not in header]
            faults += [f"the column {name!r} is there twice" for name in sorted(set(header)) if header.count(name) > 1]
            if faults:
                do = f"the first line names the columns: {', '.join(STORE_COLUMNS)}, then labels"
                return [], [Finding(Place(file, 1), "", fault, do) for fault in faults]
            findings: list[Finding] = []
            for row in rows:
                place = Place(file, rows.line_num)
                if len(row) != len(header):
                    message = f"{len(row)} values for {len(header)} columns"
                    findings.append(Finding(place, row[0] if row else "", message, "mend the row"))
                elif len(stores) < STORES_MAX:
                    stores.append((_store(dict(zip(header, row, strict=True))), place))
                else:
                    return [], [Finding(place, "", f"more than {STORES_MAX} stores", "split the chain's file")]
            return stores, findings
    except OSError as error:
        return [], [Finding(Place(file, 1), "", str(error.strerror), "check stores_from")]
    except (csv.Error, UnicodeDecodeError) as error:
        return [], [Finding(Place(file, len(stores) + 2), "", f"not CSV: {error}", "mend the row")]


def _store(row: dict[str, str]) -> dict[str, Any]:
    reserved = {*STORE_COLUMNS, *STORE_COLUMNS_MORE}
    store: dict[str, Any] = {"id": row["id"], "name": {"zh": row["zh"], "en": row["en"]}, "entity": row["entity"]}
    store |= {name: row[name] for name in ("region", "basket_owner", "placement") if row.get(name)}
    if row.get("families"):
        pairs = (pair.partition("=") for pair in row["families"].split())
        store["families"] = {suffix: family for suffix, _, family in pairs}
    store["labels"] = {name: value for name, value in row.items() if name not in reserved and value}
    return store
