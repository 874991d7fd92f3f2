"""Layers of a chain's configuration as stored: written with the chain's file or by a change, read by hosts.

The tables are in configuration.py: a host, which is to start fast, imports no SQLModel.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from psycopg import AsyncConnection, AsyncCursor
from psycopg.types.json import Jsonb

from models.domain.chain_config import LAYER_CHARACTERS_MAX, Layer
from models.domain.chain_refusals import faults
from models.domain.chain_settings import Level, Path
from models.domain.errors import Refused
from models.domain.ids import ChainId, RegionId
from models.domain.twin import canonical, overlaid

FILE, LIVE = "file", "live"


@dataclass(frozen=True, slots=True)
class StoredLayer:
    """A layer of one chain. `scope`: the chain's, region's, store's or terminal's id."""

    chain: ChainId
    level: Level
    scope: str
    region: str
    patch: Mapping[str, Any]
    places: Mapping[str, str] = field(default_factory=dict)
    source: str = FILE
    version: int = 1

    @property
    def layer(self) -> Layer:
        """As the rules read it."""
        places = {_path(key): place for key, place in self.places.items()}
        return Layer(str(self.level), self.scope, self.patch, places)


def _path(key: str) -> Path:
    return tuple(key.split(".")) if key else ()


async def load_layers(conn: AsyncConnection[Any], region: RegionId) -> list[StoredLayer]:
    """Every layer that says something about stores of this region: the file's before the live one of its scope."""
    cursor = await conn.execute(
        """SELECT chain, level, scope, region, patch, places, source, version FROM config_layer
           WHERE region = %s OR (region = '' AND chain IN (SELECT DISTINCT chain FROM store WHERE region = %s))
           ORDER BY chain, level, scope, source""",
        (region, region),
    )
    return [_stored(row) for row in await cursor.fetchall()]


async def load_chain_layers(conn: AsyncConnection[Any], chain: ChainId) -> list[StoredLayer]:
    """Every layer of a chain in this database."""
    cursor = await conn.execute(
        """SELECT chain, level, scope, region, patch, places, source, version FROM config_layer
           WHERE chain = %s ORDER BY level, scope, source""",
        (chain,),
    )
    return [_stored(row) for row in await cursor.fetchall()]


def _stored(row: Sequence[Any]) -> StoredLayer:
    return StoredLayer(ChainId(row[0]), Level(row[1]), row[2], row[3], row[4], row[5], row[6], row[7])


async def save_file_layers(
    cur: AsyncCursor[Any], chain: ChainId, scopes: Sequence[str], layers: Sequence[StoredLayer], now: datetime
) -> None:
    """What the chain's file says of these scopes, whole: what it says no more is gone. In the caller's transaction; a
    layer that is as it was keeps its version."""
    said = [f"{one.level}:{one.scope}" for one in layers]
    await cur.execute(
        """DELETE FROM config_layer WHERE chain = %s AND source = 'file' AND level || ':' || scope = ANY(%s)
           AND NOT level || ':' || scope = ANY(%s)""",
        (chain, list(scopes), said),
    )
    for one in layers:
        await cur.execute(
            """INSERT INTO config_layer AS l (chain, level, scope, source, region, patch, places, version, changed_at)
               VALUES (%s, %s, %s, 'file', %s, %s, %s, 1, %s)
               ON CONFLICT (chain, level, scope, source) DO UPDATE SET patch = excluded.patch,
                 places = excluded.places, version = l.version + (l.patch <> excluded.patch)::int,
                 changed_at = excluded.changed_at
               WHERE l.patch <> excluded.patch OR l.places <> excluded.places""",
            (chain, str(one.level), one.scope, one.region, Jsonb(dict(one.patch)), Jsonb(dict(one.places)), now),
        )


@dataclass(frozen=True, slots=True)
class LayerChange:
    """Change the live layer of one scope: `patch` is laid over it. A null hides what comes from below; `forget` lists
    paths that this layer shall say nothing of any more. `expected_version`: refuse unless it is the present one
    (0: there is none yet). `by` and `reason` stand in the history, and `by` in every value's origin."""

    chain: ChainId
    level: Level
    scope: str
    region: str
    patch: Mapping[str, Any]
    by: str
    reason: str
    forget: tuple[Path, ...] = ()
    expected_version: int | None = None


async def change_layer(conn: AsyncConnection[Any], asked: LayerChange, now: datetime) -> int:
    """Durable when this returns: the layer's version. Hosts see it within seconds and give each terminal whose
    document it changes a new generation. The same change again makes no new version.

    This is how a setting that hosts read changes for stores; a patch of a terminal's own document cannot set one.
    Raises Refused: bad_setting, layer_conflict.
    """
    _require(asked)
    async with conn.transaction(), conn.cursor() as cur:
        key = f"config:{asked.chain}:{asked.level}:{asked.scope}"
        await cur.execute("SELECT pg_advisory_xact_lock(hashtextextended(%s, 0))", (key,))
        await cur.execute(
            """SELECT patch, places, version FROM config_layer
               WHERE chain = %s AND level = %s AND scope = %s AND source = 'live'""",
            (asked.chain, str(asked.level), asked.scope),
        )
        row = await cur.fetchone()
        before, places, version = row or ({}, {}, 0)
        if asked.expected_version is not None and asked.expected_version != version:
            raise Refused("layer_conflict", f"the present version is {version}", "look at it, then ask again")
        patch = overlaid(before, asked.patch)
        for path in asked.forget:
            patch = _forgotten(patch, path)
        if patch == before and version:
            return int(version)
        if len(canonical(patch)) > LAYER_CHARACTERS_MAX:
            raise Refused("bad_setting", "too much in one layer", f"{LAYER_CHARACTERS_MAX} characters at most")
        changed = [".".join(path) for path in _said(asked.patch)]
        places = {key: place for key, place in places.items() if _has(patch, _path(key))}
        places |= dict.fromkeys(changed, f"{asked.by}, {now:%Y-%m-%d %H:%M}Z")
        await _write(cur, asked, patch, places, version + 1, now)
        return int(version) + 1


async def _write(
    cur: AsyncCursor[Any],
    asked: LayerChange,
    patch: Mapping[str, Any],
    places: Mapping[str, str],
    version: int,
    now: datetime,
) -> None:
    scope = (asked.chain, str(asked.level), asked.scope)
    await cur.execute(
        """INSERT INTO config_layer (chain, level, scope, source, region, patch, places, version, changed_at)
           VALUES (%s, %s, %s, 'live', %s, %s, %s, %s, %s)
           ON CONFLICT (chain, level, scope, source) DO UPDATE SET patch = excluded.patch, places = excluded.places,
             version = excluded.version, changed_at = excluded.changed_at""",
        (*scope, asked.region, Jsonb(dict(patch)), Jsonb(dict(places)), version, now),
    )
    await cur.execute(
        """INSERT INTO config_change (chain, level, scope, version, change, layer, by, reason, at)
           VALUES (%s, %s, %s, %s, %s, %s, %s, %s, %s)""",
        (*scope, version, Jsonb(dict(asked.patch)), Jsonb(dict(patch)), asked.by, asked.reason, now),
    )


def _require(asked: LayerChange) -> None:
    if not asked.by or not asked.reason.strip():
        raise Refused("bad_setting", "who changes this, and why?", "give a name and a reason")
    for fault in faults(asked.patch, asked.level):
        raise Refused("bad_setting", f"{fault.key}: {fault.message}", fault.do)


def _said(patch: Mapping[str, Any], under: Path = ()) -> list[Path]:
    found: list[Path] = []
    for key, value in patch.items():
        found += _said(value, (*under, key)) if isinstance(value, Mapping) else [(*under, key)]
    return found


def _has(patch: Mapping[str, Any], path: Path) -> bool:
    inside: Any = patch
    for key in path:
        if not isinstance(inside, Mapping) or key not in inside:
            return False
        inside = inside[key]
    return True


def _forgotten(patch: Mapping[str, Any], path: Path) -> dict[str, Any]:
    """The patch without what it says at `path`."""
    result = dict(patch)
    if path[0] not in result:
        return result
    inside = result.pop(path[0])
    if len(path) > 1 and isinstance(inside, Mapping) and (rest := _forgotten(inside, path[1:])):
        result[path[0]] = rest
    return result
