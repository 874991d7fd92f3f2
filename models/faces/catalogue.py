"""The catalogue of nets: what each one is, where it comes from, under which licence, and its digest."""

from __future__ import annotations

import hashlib
import importlib.metadata
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import yaml

from models.domain.errors import NeedsOperator

CATALOGUE_DIR = Path(__file__).resolve().parents[2] / "configs" / "faces"
"""The checkout's catalogue; another folder of the same form may be passed instead."""


@dataclass(frozen=True, slots=True)
class NetEntry:
    """One net. `sha256` is the digest of the published file and the net's identity in every record."""

    name: str
    kind: Literal["detector", "recogniser"]
    source: str
    distribution: str
    file: str
    sha256: str
    licence: str
    licence_path: Path
    dimension: int = 0
    thresholds: tuple[tuple[int, float], ...] = ()


def load_entry(path: Path) -> NetEntry:
    """Read one catalogue file. Raises NeedsOperator when a field or the licence text is missing."""
    try:
        raw: dict[str, Any] = yaml.safe_load(path.read_text(encoding="utf-8"))
        kind = raw["kind"]
        assert kind in ("detector", "recogniser"), f"kind is {kind!r}"
        entry = NetEntry(
            name=str(raw["name"]),
            kind=kind,
            source=str(raw["source"]),
            distribution=str(raw["carrier"]["distribution"]),
            file=str(raw["carrier"]["file"]),
            sha256=str(raw["sha256"]),
            licence=str(raw["licence"]),
            licence_path=path.parent / str(raw["licence_file"]),
            dimension=int(raw.get("dimension", 0)),
            thresholds=tuple((int(n), float(t)) for n, t in raw.get("thresholds", ())),
        )
    except (OSError, yaml.YAMLError, AssertionError, AttributeError, LookupError, TypeError, ValueError) as error:
        raise NeedsOperator("net_catalogue", f"{path.name}: {error!r}", "correct the catalogue file") from error
    if not entry.licence_path.is_file():
        raise NeedsOperator(
            "net_licence_missing",
            f"{path.name} names {entry.licence_path.name}, which is not there",
            "put the licence text beside the catalogue",
        )
    return entry


def load_catalogue(directory: Path = CATALOGUE_DIR) -> tuple[NetEntry, ...]:
    """All entries of the folder, by name."""
    return tuple(load_entry(path) for path in sorted(directory.glob("*.yaml")))


def the_one(catalogue: tuple[NetEntry, ...], kind: Literal["detector", "recogniser"]) -> NetEntry:
    """The only entry of this kind. Raises NeedsOperator when there is none, or more than one."""
    found = [entry for entry in catalogue if entry.kind == kind]
    if len(found) != 1:
        names = ", ".join(entry.name for entry in found) or "none"
        raise NeedsOperator("net_catalogue", f"one {kind} is needed, found: {names}", "keep exactly one")
    return found[0]


def published_file(entry: NetEntry) -> Path:
    """The net as its carrier wheel installed it, digest checked; the wheel's code is never imported.

    Raises NeedsOperator when the wheel is not installed or the content is not the catalogue's.
    """
    try:
        files = importlib.metadata.files(entry.distribution) or ()
    except importlib.metadata.PackageNotFoundError:
        files = ()
    located = next((Path(str(f.locate())) for f in files if str(f) == entry.file), None)
    if located is None or not located.is_file():
        raise NeedsOperator(
            "net_missing",
            f"{entry.file} is not installed",
            f"install the locked requirements ({entry.distribution} carries the net)",
        )
    if sha256_of(located) != entry.sha256:
        raise NeedsOperator(
            "net_altered",
            f"{entry.file} is not the file that the catalogue names ({entry.sha256[:12]}…)",
            f"reinstall {entry.distribution} from the locked requirements",
        )
    return located


def sha256_of(path: Path) -> str:
    """Hex digest of a file's content."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
