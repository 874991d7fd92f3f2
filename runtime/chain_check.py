"""A chain's file held against everything that may stand in it: all that is wrong at once, each with line and column."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ValidationError

from models.domain.chain_config import Layer, effective, leaves, ordered, together
from models.domain.chain_refusals import faults
from models.domain.chain_settings import BY_PATH, Level, Needs
from runtime import chain_documents
from runtime.chain_config import capabilities
from runtime.chain_documents import ChainDoc, StoreDoc
from runtime.chain_yaml import Finding, Marked, Place, Where, read_marked, read_stores

STORES_FROM = "stores_from"
CAPABLE_FAMILIES = "a family that has one, or take the setting away"


@dataclass(frozen=True, slots=True)
class Checked:
    """What came of a file. `doc` is None when it is not a chain; with findings it must not be applied."""

    doc: ChainDoc | None
    findings: tuple[Finding, ...]
    readable: bool = True


def check_chain(path: Path) -> Checked:
    """Read a chain's file, and its stores' file beside it. Never raises for what stands in them."""
    marked = read_marked(path)
    if not isinstance(marked.document, dict):
        wrong = marked.findings or [
            Finding(Place(path, 1), "", "the top is no mapping", "see configs/chains/demo.yaml")
        ]
        return Checked(None, tuple(wrong), readable=False)
    findings = [*marked.findings, *_graft_stores(marked)]
    settings = list(_settings_findings(marked))
    doc, wrong = _validated(marked)
    findings += settings + wrong
    if doc is not None and not findings:
        doc = doc.model_copy(update={"places": _places(marked)})
        findings += _not_together(marked, doc)
    return Checked(doc, tuple(sorted(findings, key=_by_place)))


def _by_place(finding: Finding) -> tuple[str, int, int]:
    return str(finding.place.file), finding.place.line, finding.place.column


def _graft_stores(marked: Marked) -> list[Finding]:
    """Put the rows of `stores_from` behind the file's own stores."""
    name = marked.document.pop(STORES_FROM, None)
    if name is None:
        return []
    place = marked.place((STORES_FROM,))
    if not isinstance(name, str) or Path(name).name != name:
        return [Finding(place, STORES_FROM, f"{name!r} is no file beside this one", "name a CSV file in its folder")]
    stores = marked.document.setdefault("stores", [])
    if not isinstance(stores, list):
        return []  # refused as it stands
    rows, findings = read_stores(marked.file.with_name(name))
    for row, at in rows:
        marked.graft(("stores", len(stores)), row, at)
    return findings


# ---------------------------------------------------------------- the document


def _validated(marked: Marked) -> tuple[ChainDoc | None, list[Finding]]:
    try:
        return ChainDoc.model_validate(marked.document), []
    except ValidationError as error:
        return None, [_finding(marked, one) for one in error.errors()]


def _finding(marked: Marked, error: Any) -> Finding:
    where: Where = tuple(error["loc"])
    message = str(error["msg"]).removeprefix("Value error, ")
    key = ".".join(str(part) for part in where)
    if error["type"] == "extra_forbidden":
        return Finding(marked.place(where), key, "unknown key", _nearest(str(where[-1])))
    if error["type"] == "missing":
        return Finding(marked.place(where), key, "is missing", "add it")
    place = marked.place(where)
    if error["type"] == "value_error":  # of a whole section: the thing that it names says where
        named = (marked.place_of_value(word) for word in re.findall(r"'([^']+)'", message))
        place = next((one for one in named if one is not None), place)
    return Finding(place, key, message, "mend that entry")


def _nearest(name: str) -> str:
    known = sorted(
        {
            field
            for one in vars(chain_documents).values()
            if isinstance(one, type) and issubclass(one, BaseModel)
            for field in one.model_fields
        }
    )
    close = difflib.get_close_matches(name, known, 1)
    return f"did you mean {close[0]}?" if close else "take it away, or see docs/configuration.md"


# ---------------------------------------------------------------- its settings


@dataclass(frozen=True, slots=True)
class _Section:
    """Settings of one scope, and where they stand in the file."""

    level: Level
    scope: str
    where: Where
    patch: Any


def _sections(document: Mapping[str, Any]) -> Iterator[_Section]:
    """As they stand in a file that need not be right."""
    if "settings" in document:
        yield _Section(Level.CHAIN, str(document.get("chain", "")), ("settings",), document["settings"])
    regions = document.get("regions")
    for region, patch in regions.items() if isinstance(regions, dict) else ():
        yield _Section(Level.REGION, region, ("regions", region), patch)
    stores = document.get("stores")
    for n, store in enumerate(stores if isinstance(stores, list) else ()):
        if not isinstance(store, dict):
            continue
        if "settings" in store:
            yield _Section(Level.STORE, str(store.get("id", "")), ("stores", n, "settings"), store["settings"])
        terminals = store.get("terminals")
        for suffix, patch in terminals.items() if isinstance(terminals, dict) else ():
            name = f"{store.get('id', '')}-{suffix}"
            yield _Section(Level.TERMINAL, name, ("stores", n, "terminals", suffix), patch)


def _settings_findings(marked: Marked) -> Iterator[Finding]:
    for section in _sections(marked.document):
        for fault in faults(section.patch, section.level):
            where = (*section.where, *fault.path)
            yield Finding(marked.place(where), ".".join(str(part) for part in where), fault.message, fault.do)


def _places(marked: Marked) -> dict[str, str]:
    """`level:scope/path` -> file:line, of every setting."""
    return {
        f"{section.level}:{section.scope}/{'.'.join(path)}": str(marked.place((*section.where, *path)))
        for section in _sections(marked.document)
        for path, _ in leaves(section.patch)
    }


def layers_of(doc: ChainDoc) -> list[tuple[Layer, StoreDoc | None]]:
    """The file's layers, each with its store where it has one. A layer that says nothing is none."""
    found: list[tuple[Layer, StoreDoc | None]] = [(_layer(doc, Level.CHAIN, doc.chain, doc.settings), None)]
    found += [(_layer(doc, Level.REGION, region, patch), None) for region, patch in doc.regions.items()]
    for store in doc.stores:
        found.append((_layer(doc, Level.STORE, store.id, store.settings), store))
        for suffix, patch in store.terminals.items():
            found.append((_layer(doc, Level.TERMINAL, f"{store.id}-{suffix}", patch), store))
    return [(layer, store) for layer, store in found if layer.patch]


def _layer(doc: ChainDoc, level: Level, scope: str, patch: Mapping[str, Any]) -> Layer:
    places = {
        path: place for path, _ in leaves(patch) if (place := doc.places.get(f"{level}:{scope}/{'.'.join(path)}"))
    }
    return Layer(str(level), scope, patch, places)


def layers_for(doc: ChainDoc, region: str | None, store: str | None = None, terminal: str | None = None) -> list[Layer]:
    """The layers over each other for one scope; None: as if there were none below."""
    wanted = {
        (Level.CHAIN, doc.chain),
        (Level.REGION, region),
        (Level.STORE, store),
        (Level.TERMINAL, terminal),
    }
    return list(ordered([layer for layer, _ in layers_of(doc) if (Level(layer.level), layer.name) in wanted]))


def _not_together(marked: Marked, doc: ChainDoc) -> list[Finding]:
    """Values that fit each by itself and not beside each other, and settings that a terminal cannot use."""
    findings: dict[str, Finding] = {}
    indexes = {store.id: n for n, store in enumerate(doc.stores)}
    for layer, store in layers_of(doc):
        level, region = Level(layer.level), store.region if store is not None else None
        where: Where = ("settings",) if level is Level.CHAIN else ("regions", layer.name)
        if store is not None:
            base: Where = ("stores", indexes[store.id])
            suffix = layer.name[len(store.id) + 1 :]
            where = (*base, "settings") if level is Level.STORE else (*base, "terminals", suffix)
        scopes = {
            Level.CHAIN: (None, None, None),
            Level.REGION: (layer.name, None, None),
            Level.STORE: (region, layer.name, None),
            Level.TERMINAL: (region, store.id if store is not None else None, layer.name),
        }
        document = effective(layers_for(doc, *scopes[level])).document
        for fault in together(document):
            if fault.path[0] not in layer.patch:
                continue  # it came from above, and is said there
            place = marked.place((*where, *fault.path))
            findings[str(place)] = Finding(place, _dotted(where, fault.path), fault.message, fault.do)
        if level is Level.TERMINAL and store is not None:
            for finding in _unusable(marked, doc, store, layer, where):
                findings[str(finding.place) + finding.key] = finding
    return list(findings.values())


def _unusable(marked: Marked, doc: ChainDoc, store: StoreDoc, layer: Layer, where: Where) -> Iterator[Finding]:
    suffix = layer.name[len(store.id) + 1 :]
    [family] = [doc.family(store, one) for lane in doc.lanes for one in lane.terminals if one.suffix == suffix] or [""]
    has = capabilities(family)
    for path, _ in leaves(layer.patch):
        needs = BY_PATH[path].needs if path in BY_PATH else Needs.NOTHING
        if needs is not Needs.NOTHING and needs not in has:
            place, key = marked.place((*where, *path)), _dotted(where, path)
            yield Finding(place, key, f"a {family} has no {needs}", f"choose {CAPABLE_FAMILIES}")


def _dotted(where: Where, path: tuple[str, ...]) -> str:
    return ".".join(str(part) for part in (*where, *path))
