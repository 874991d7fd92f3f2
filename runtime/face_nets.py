"""The nets of a deployment: what a face worker opens, and what `storeops faces nets` tells."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import psycopg
import structlog

from models.domain.errors import NeedsOperator
from models.domain.nets import NETS_MAX
from models.faces.catalogue import NetEntry, NetKind, published_file, recognisers
from models.faces.nets import Recogniser, build_recogniser, built
from models.tables.nets import NetUse, digests_in_use, nets_in_use
from runtime.plant import Plant

log = structlog.get_logger()


def digests_of(plant: Plant) -> set[str] | None:
    """The nets that templates of the plant's chain are of; None while the database is away."""
    try:
        with psycopg.connect(plant.database_url, autocommit=True, connect_timeout=5) as conn:
            return digests_in_use(conn, plant.chain)
    except psycopg.OperationalError:
        return None


def older_recognisers(
    cache_dir: Path, catalogue: tuple[NetEntry, ...], current: str, in_use: Collection[str]
) -> list[Recogniser]:
    """Recognisers of the catalogue that templates are of, besides the current one; NETS_MAX in all.

    A net that is in use and not in the catalogue is logged: who is enrolled with it alone is a stranger meanwhile.
    """
    wanted = [entry for entry in recognisers(catalogue) if entry.identity in in_use]
    older = [entry for entry in wanted if entry.identity != current][: NETS_MAX - 1]
    lost = set(in_use) - {entry.identity for entry in older} - {current}
    if lost:
        log.warning(
            "nets_not_open",
            nets=sorted(lost),
            do="put them back into configs/faces",
        )
    return [build_recogniser(cache_dir, entry) for entry in older]


# ---------------------------------------------------------------- storeops faces nets


@dataclass(frozen=True, slots=True)
class ChainNet:
    """One net as one chain uses it; `current`: new templates are of it, `known`: it is in the catalogue."""

    chain: str
    net: str
    net_sha256: str
    current: bool
    known: bool
    templates: int
    enrolled: int
    migrated: int
    adaptive: int
    members: int
    migrated_at: str | None


def chain_nets(plants: Iterable[tuple[str, str, Mapping[str, str]]], catalogue: Sequence[NetEntry]) -> list[ChainNet]:
    """Which nets the templates of each chain are of, the current net of a chain first.

    `plants`: chain, database URL and the recognisers by chain, once for each pair of chain and database.
    """
    names = {entry.identity: entry.name for entry in catalogue}
    told: list[ChainNet] = []
    for chain, url, chosen in plants:
        current = recognisers(tuple(catalogue), chosen.get(chain, ""))[0].identity
        with psycopg.connect(url, autocommit=True, connect_timeout=5) as conn:
            used = nets_in_use(conn, chain)
        if not any(use.net_sha256 == current for use in used):
            used.append(NetUse(chain, current, 0, 0, 0, 0, None))
        used.sort(key=lambda use: use.net_sha256 != current)
        told += [_told(use, names, current) for use in used]
    return told


def _told(use: NetUse, names: Mapping[str, str], current: str) -> ChainNet:
    return ChainNet(
        chain=use.chain,
        net=names.get(use.net_sha256, ""),
        net_sha256=use.net_sha256,
        current=use.net_sha256 == current,
        known=use.net_sha256 in names,
        templates=use.templates,
        enrolled=use.enrolled,
        migrated=use.migrated,
        adaptive=use.adaptive,
        members=use.members,
        migrated_at=use.migrated_at.isoformat() if use.migrated_at else None,
    )


def fault_of(entry: NetEntry) -> NeedsOperator | None:
    """Why a face worker could not open it: its file is missing or another one; a net of your own is also built and run
    once, which takes a second or two."""
    try:
        published_file(entry)
        if isinstance(entry.carrier, Path):
            built(entry)
    except NeedsOperator as fault:
        return fault
    return None


def described(entry: NetEntry, *, licence_text: bool) -> dict[str, Any]:
    """A catalogue entry as JSON; with the text of its licence if asked."""
    told: dict[str, Any] = {
        "name": entry.name,
        "kind": entry.kind.value,
        "identity": entry.identity,
        "sha256": entry.sha256,
        "precision": entry.precision.value,
        "source": entry.source,
        "carrier": str(entry.carrier) if isinstance(entry.carrier, Path) else asdict(entry.carrier),
        "licence": entry.licence,
        "licence_file": entry.licence_path.name,
        "default": entry.default,
        "input": {**asdict(entry.feed), "colour": entry.feed.colour.value, "alignment": entry.feed.alignment.value},
    }
    if entry.kind is NetKind.RECOGNISER:
        told |= {"dimension": entry.dimension, "thresholds": entry.thresholds}
    if licence_text:
        told["licence_text"] = entry.licence_path.read_text(encoding="utf-8")
    return told
