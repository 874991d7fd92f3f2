"""What is in force for a chain, region, store or terminal, from a chain's file or a running house, and from where."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from psycopg import AsyncConnection
from psycopg.rows import dict_row

from models.domain.chain_config import Effective, Layer, Origin, completed, differences, effective, leaves
from models.domain.chain_settings import DERIVED, Level
from models.domain.errors import Refused
from models.domain.ids import ChainId
from models.domain.twin import canonical, overlaid
from models.tables.chain_books import newest_document
from models.tables.config_layers import LayerChange, StoredLayer, change_layer, load_chain_layers
from models.tables.privacy import audit
from runtime.chain_check import layers_for, layers_of
from runtime.chain_config import capabilities
from runtime.chain_documents import ChainDoc, StoreDoc
from runtime.chains import read_chain
from runtime.plant import Plant

OVERRIDE = "override"
VALUE_CHARACTERS_SHOWN = 60


@dataclass(frozen=True, slots=True)
class Asked:
    """Of what the configuration is asked: the narrowest that is named counts."""

    chain: str | None = None
    region: str | None = None
    store: str | None = None
    terminal: str | None = None


@dataclass(frozen=True, slots=True)
class View:
    """An effective document with its origins. `about`: what it is of, and how far a running terminal is."""

    about: Mapping[str, Any]
    found: Effective

    def rows(self) -> dict[str, dict[str, Any]]:
        """Dotted path -> value and origin."""
        return {
            ".".join(path): {"value": value, "origin": str(self.found.origins.get(path, self._derived(path)))}
            for path, value in leaves(self.found.document)
        }

    def _derived(self, path: tuple[str, ...]) -> Origin:
        return self.found.origins.get(path[:1], Origin("derived", DERIVED.get(path[0], path[0])))


def is_file(name: str) -> bool:
    """Whether a chain is named by its file."""
    return name.endswith((".yaml", ".yml"))


# ---------------------------------------------------------------- from a file


def of_file(path: Path, asked: Asked) -> View:
    """What a chain's file says. Raises NeedsOperator for a broken file, Refused `unknown_store`, `unknown_terminal`."""
    doc = read_chain(path)
    store, suffix = _store_of(doc, asked)
    region = (store.region if store is not None else None) or asked.region
    region = region or (next(iter(doc.regions)) if len(doc.regions) == 1 else None)
    terminal = f"{store.id}-{suffix}" if store is not None and suffix else None
    layers = layers_for(doc, region, store.id if store is not None else None, terminal)
    head = Layer(str(Level.CHAIN), doc.chain, {"language": doc.language}, {(): f"{path.name}, its head"})
    family = _family(doc, store, suffix)
    found = completed(effective((head, *layers)), None if family is None else capabilities(family))
    found = _with_zone(found, doc.zone)
    if store is not None:
        found = _with(found, ("basket_owner",), store.basket_owner, Origin(str(Level.STORE), store.id, path.name))
    about = {
        "chain": doc.chain,
        "region": region,
        "store": store.id if store is not None else None,
        "terminal": terminal,
        "family": family,
        "labels": dict(store.labels) if store is not None else None,
    }
    return View({name: value for name, value in about.items() if value}, found)


def _store_of(doc: ChainDoc, asked: Asked) -> tuple[StoreDoc | None, str]:
    if asked.terminal is not None:
        suffixes = [terminal.suffix for lane in doc.lanes for terminal in lane.terminals]
        for store in doc.stores:
            suffix = asked.terminal.removeprefix(f"{store.id}-")
            if suffix != asked.terminal and suffix in suffixes:
                return store, suffix
        do = f"a store's id, then one of: {', '.join(f'-{suffix}' for suffix in suffixes)}"
        raise Refused("unknown_terminal", f"no terminal {asked.terminal!r} in the file", do)
    if asked.store is None:
        return None, ""
    for store in doc.stores:
        if store.id == asked.store:
            return store, ""
    raise Refused("unknown_store", f"no store {asked.store!r} in the file", "see its list of stores")


def _family(doc: ChainDoc, store: StoreDoc | None, suffix: str) -> str | None:
    if store is None or not suffix:
        return None
    return next(doc.family(store, one) for lane in doc.lanes for one in lane.terminals if one.suffix == suffix)


def _with_zone(found: Effective, zone: str) -> Effective:
    window = found.document.get("software_window")
    if not isinstance(window, Mapping) or "zone" in window or not window:
        return found
    return _with(found, ("software_window", "zone"), zone, Origin("store", "", "its own time zone"))


def _with(found: Effective, path: tuple[str, ...], value: Any, origin: Origin) -> Effective:
    patch: dict[str, Any] = {path[-1]: value}
    for key in reversed(path[:-1]):
        patch = {key: patch}
    document = effective((Layer("", "", found.document), Layer("", "", patch))).document
    return Effective(document, {**found.origins, path: origin})


# ---------------------------------------------------------------- from a running house


@dataclass(frozen=True, slots=True)
class _Spot:
    """Where something stands in a running house."""

    url: str
    chain: ChainId
    region: str | None = None
    store: str | None = None
    terminal: str | None = None
    profile: str | None = None
    zone: str = ""
    basket_owner: str = ""
    labels: Mapping[str, str] = field(default_factory=dict)


async def of_house(plants: Sequence[Plant], asked: Asked) -> View:
    """What is in force in a running house; of a terminal, what it was given. Raises Refused for what is not there."""
    spot = await _spot(plants, asked)
    async with await AsyncConnection.connect(spot.url, autocommit=True) as conn:
        book = await newest_document(conn, spot.chain)
        stored = await load_chain_layers(conn, spot.chain)
        layers = [*_head(spot, book), *(one.layer for one in _of_spot(stored, spot))]
        about: dict[str, Any] = {
            "chain": spot.chain,
            "region": spot.region,
            "store": spot.store,
            "terminal": spot.terminal,
        }
        about |= {"family": spot.profile, "labels": dict(spot.labels)}
        if spot.terminal is None:
            found = _with_zone(completed(effective(layers)), spot.zone)
        else:
            found, more = await _of_terminal(conn, spot, layers, 0 if book is None else book[0])
            about |= more
    if spot.store is not None and spot.terminal is None:
        origin = Origin(str(Level.STORE), spot.store, "as it was registered")
        found = _with(found, ("basket_owner",), spot.basket_owner, origin)
    return View({name: value for name, value in about.items() if value not in (None, {}, "")}, found)


def _head(spot: _Spot, book: tuple[int, Mapping[str, Any]] | None) -> list[Layer]:
    if book is None:
        return []
    version, document = book
    language = {"language": document.get("language", "zh")}
    return [Layer(str(Level.CHAIN), spot.chain, language, {(): f"book version {version}"})]


def _of_spot(stored: Sequence[StoredLayer], spot: _Spot) -> list[StoredLayer]:
    """The layers over each other for this place; of one scope the file's first."""
    wanted = {
        (Level.CHAIN, str(spot.chain)),
        (Level.REGION, spot.region),
        (Level.STORE, spot.store),
        (Level.TERMINAL, spot.terminal),
    }
    rank = {level: n for n, level in enumerate(Level)}
    found = [one for one in stored if (one.level, one.scope) in wanted]
    return sorted(found, key=lambda one: (rank[one.level], one.source))


async def _of_terminal(
    conn: AsyncConnection[Any], spot: _Spot, layers: list[Layer], book_version: int
) -> tuple[Effective, dict[str, Any]]:
    """The document that was published, each leaf with its origin; a leaf that no layer explains says so."""
    row = await (
        await conn.execute(
            """SELECT d.gen, d.config, d.set_at, p.sync, p.applied_gen,
                 (SELECT e.state->'desired'->>'overrides' FROM entity e WHERE e.kind = 'terminal' AND e.id = d.terminal)
               FROM desired d LEFT JOIN presence p ON p.terminal = d.terminal WHERE d.terminal = %s""",
            (spot.terminal,),
        )
    ).fetchone()
    told = completed(effective(layers), capabilities(spot.profile or ""))
    told = _with_zone(told, spot.zone)
    if row is None:
        return told, {"sync": "it was given no document yet"}
    gen, config, set_at, sync, applied, overrides = row
    patch = json.loads(overrides or "{}")
    said = Layer(OVERRIDE, "", patch, {(): f"a person or a rollout, generation {gen}, {set_at:%Y-%m-%d %H:%M}Z"})
    laid = effective((Layer("", "", told.document), said))
    origins = {path: origin if origin.level else told.origins[path] for path, origin in laid.origins.items()}
    published = json.loads(config)
    document: dict[str, Any] = {}
    for key, value in published.items():
        document[key] = _summary(key, value)
        if key in ("consents", "offline"):
            origins = {path: origin for path, origin in origins.items() if path[0] != key}
            origins[(key,)] = Origin("chain", spot.chain, f"book version {book_version}")
    explained = {path: origins[path] for path, _ in leaves(document) if path in origins}
    explained |= {(key,): origins[(key,)] for key in ("consents", "offline") if (key,) in origins}
    explained[("basket_owner",)] = Origin(str(Level.STORE), spot.store or "", "as it was registered")
    if "switches" in document:
        explained[("switches",)] = Origin("kill switch", "", "or a setting of the same name")
    outdated = [one.path for one in differences(laid.document, published) if one.path[0] not in DERIVED]
    about = {"generation": gen, "sync": sync, "applied_generation": applied}
    if outdated:
        about["waits"] = f"{len(outdated)} values change with the next document, within seconds"
    return Effective(document, explained), about


def _summary(key: str, value: Any) -> Any:
    if key == "consents" and isinstance(value, list):
        return [f"{one.get('purpose')} {one.get('version')}" for one in value]
    if key == "offline" and isinstance(value, dict):
        return f"{len(value.get('items', []))} prices, {len(value.get('benefits', []))} benefits"
    return value


async def _spot(plants: Sequence[Plant], asked: Asked) -> _Spot:
    for url in dict.fromkeys(plant.database_url for plant in plants):
        async with await AsyncConnection.connect(url, autocommit=True, row_factory=dict_row) as conn:
            row = await (
                await conn.execute(
                    """SELECT s.chain, s.region, s.id AS store, t.id AS terminal, t.profile, s.zone, s.basket_owner,
                         s.labels FROM store s
                       LEFT JOIN terminal t ON t.store = s.id AND t.id = %(terminal)s AND t.retired_at IS NULL
                       WHERE (%(chain)s::text IS NULL OR s.chain = %(chain)s)
                         AND (%(region)s::text IS NULL OR s.region = %(region)s)
                         AND (%(store)s::text IS NULL OR s.id = %(store)s)
                         AND (%(terminal)s::text IS NULL OR t.id IS NOT NULL) ORDER BY s.id LIMIT 1""",
                    {
                        "chain": asked.chain,
                        "region": asked.region,
                        "store": asked.store,
                        "terminal": asked.terminal,
                    },
                )
            ).fetchone()
        if row is None:
            continue
        chain, zone = ChainId(row["chain"]), row["zone"]
        if asked.terminal is None and asked.store is None:
            return _Spot(url, chain, asked.region, zone=zone)
        return _Spot(
            url,
            chain,
            row["region"],
            row["store"],
            row["terminal"],
            row["profile"],
            zone,
            row["basket_owner"],
            row["labels"],
        )
    what, name = next(
        (what, name)
        for what, name in (
            ("terminal", asked.terminal),
            ("store", asked.store),
            ("region", asked.region),
            ("chain", asked.chain),
        )
        if name is not None
    )
    raise Refused(f"unknown_{what}", f"no {what} {name!r} runs here", "see the console's lists, or name a chain's file")


# ---------------------------------------------------------------- beside each other


def flat_file(doc: ChainDoc) -> dict[str, Any]:
    """Everything that a chain's file sets, by a path that names its scope; and its stores."""
    flat = {f"chain.{name}": getattr(doc, name) for name in ("language", "zone", "cutoff_hour")}
    for layer, _ in layers_of(doc):
        flat |= _flat_layer(layer)
    for store in doc.stores:
        flat |= _flat_store(store.id, store.name.zh, store.name.en, store.basket_owner, store.labels)
    return flat


async def flat_house(plants: Sequence[Plant], chain: str) -> dict[str, Any]:
    """The same of a running house, live changes included."""
    flat: dict[str, Any] = {}
    for url in dict.fromkeys(plant.database_url for plant in plants):
        async with await AsyncConnection.connect(url, autocommit=True) as conn:
            cursor = await conn.execute(
                "SELECT id, name_zh, name_en, basket_owner, labels, zone, cutoff_hour FROM store WHERE chain = %s",
                (chain,),
            )
            rows = await cursor.fetchall()
            if not rows:
                continue
            book = await newest_document(conn, chain)
            language = "zh" if book is None else str(book[1].get("language", "zh"))
            flat |= {"chain.language": language, "chain.zone": rows[0][5], "chain.cutoff_hour": rows[0][6]}
            scopes: dict[tuple[str, str], Mapping[str, Any]] = {}
            for one in await load_chain_layers(conn, ChainId(chain)):
                scope = (str(one.level), one.scope)
                scopes[scope] = overlaid(scopes.get(scope, {}), one.patch)
            for (level, name), patch in scopes.items():
                flat |= _flat_layer(Layer(level, name, patch))
            for store, zh, en, owner, labels, *_ in rows:
                flat |= _flat_store(store, zh, en, owner, labels)
    if not flat:
        raise Refused("unknown_chain", f"no chain {chain!r} runs here", "name a chain's id, or its file")
    return flat


def _flat_layer(layer: Layer) -> dict[str, Any]:
    return {f"{layer.level} {layer.name}: {'.'.join(path)}": value for path, value in leaves(layer.patch)}


def _flat_store(store: str, zh: str, en: str, owner: str, labels: Mapping[str, str]) -> dict[str, Any]:
    flat = {"name.zh": zh, "name.en": en, "basket_owner": owner}
    flat |= {f"labels.{name}": value for name, value in labels.items()}
    return {f"store {store}, {name}": value for name, value in flat.items()}


# ---------------------------------------------------------------- changed


async def change(
    plants: Sequence[Plant],
    asked: Asked,
    patch: Mapping[str, Any],
    by: str,
    reason: str,
    forget: Sequence[str] = (),
) -> int:
    """Change a live layer of a running house, in each database that serves it; the layer's version. `forget`: dotted
    paths of which it shall say nothing any more. Raises Refused."""
    spot = await _spot(plants, asked)
    level, scope = (Level.CHAIN, str(spot.chain))
    if asked.store is not None:
        level, scope = Level.STORE, asked.store
    elif asked.region is not None:
        level, scope = Level.REGION, asked.region
    region = "" if level is Level.CHAIN else spot.region or ""
    paths = tuple(tuple(path.split(".")) for path in forget)
    order = LayerChange(spot.chain, level, scope, region, patch, by, reason, paths)
    urls = [spot.url] if level is not Level.CHAIN else await _serving(plants, spot.chain)
    version = 0
    for url in urls:
        async with await AsyncConnection.connect(url, autocommit=True) as conn, conn.transaction():
            now = datetime.now(UTC)
            version = max(version, await change_layer(conn, order, now))
            detail: dict[str, str | int] = {"version": version, "change": canonical(patch), "reason": reason}
            detail["forget"] = " ".join(forget)
            await audit(conn, "config.changed", f"{level}:{scope}", detail, by, now)
    return version


async def _serving(plants: Sequence[Plant], chain: ChainId) -> list[str]:
    found = []
    for url in dict.fromkeys(plant.database_url for plant in plants):
        async with await AsyncConnection.connect(url, autocommit=True) as conn:
            row = await (await conn.execute("SELECT 1 FROM store WHERE chain = %s LIMIT 1", (chain,))).fetchone()
        if row is not None:
            found.append(url)
    return found


def shown(value: Any) -> str:
    """A value in one line."""
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    return text if len(text) <= VALUE_CHARACTERS_SHOWN else text[: VALUE_CHARACTERS_SHOWN - 1] + "…"
