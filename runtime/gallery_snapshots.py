"""The sealed copy of a node's gallery: read at a start instead of the whole database, gone as soon as one is erased."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import structlog

from models.domain.errors import NeedsOperator
from models.domain.ids import ChainId, RegionId
from models.faces.gallery import TEMPLATES_MAX, Gallery
from models.faces.rotation import rotation_from
from models.faces.segments import scope_of
from models.faces.slab import SharedSlab
from models.faces.snapshot import SnapshotHeader, read_snapshot, remove_snapshot, write_snapshot
from models.faces.templates import TemplateVault

log = structlog.get_logger()

TEMPLATES_MIN = 20_000
"""Of fewer no file is kept: they are read from the database in a second or two."""
EVERY_S = 600.0


@dataclass(frozen=True, slots=True)
class GallerySpec:
    """Which gallery: all that makes rows comparable."""

    place: str
    """The deployment: its data folder."""
    chain: ChainId
    region: RegionId
    net_sha256: str
    dimension: int

    def slab(self, vault: TemplateVault) -> SharedSlab:
        """The slab of this node, not locked."""
        parts = (self.chain, self.region, self.net_sha256, str(self.dimension))
        identity = "\n".join(parts).encode() + vault.rotation_secret(self.chain)
        return SharedSlab(scope_of(self.place), identity, self.place)

    def gallery(self, vault: TemplateVault, slab: SharedSlab) -> Gallery:
        """Over the slab."""
        rotation = rotation_from(vault.rotation_secret(self.chain), self.dimension)
        return Gallery(self.dimension, rotation, TEMPLATES_MAX, slab)

    def snapshot(self, vault: TemplateVault) -> Path:
        """Where the sealed copy lies."""
        return Path(self.place) / "faces" / f"{self.slab(vault).name}.snapshot"


class Snapshots:
    """Of one gallery, in its keeper's thread."""

    def __init__(
        self,
        spec: GallerySpec,
        vault: TemplateVault,
        templates_min: int = TEMPLATES_MIN,
        every_s: float = EVERY_S,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._spec, self._vault = spec, vault
        self._templates_min, self._every_s, self._clock = templates_min, every_s, clock
        self.path = spec.snapshot(vault)
        self._version = 0
        self._written_at: float | None = None

    def fill(self, gallery: Gallery, newest: int) -> int | None:
        """Load the file into the gallery, which stays closed until later changes are in it too; the file's version.

        None, with nothing inside, when there is no file or it is refused: then it is removed.
        """
        spec = self._spec
        try:
            header, parts = read_snapshot(
                self.path, self._vault, spec.chain, spec.region, spec.net_sha256, spec.dimension
            )
            _require_known(header.version, newest)
            gallery.begin_load(header.count, closed=True)
            for rows in parts:
                gallery.put_rows(rows)
        except NeedsOperator as refused:
            if refused.code != "snapshot_missing":
                log.warning("gallery_snapshot_refused", code=refused.code, why=str(refused))
                remove_snapshot(self.path)
            return None
        self._version = header.version
        return header.version

    def keep(self, gallery: Gallery, *, erased: bool) -> None:
        """Remove the file at once when someone was erased since; write it again now and then."""
        if erased and remove_snapshot(self.path):
            log.info("gallery_snapshot_removed", why="erasure")
        now = self._clock()
        due = self._written_at is None or now - self._written_at >= self._every_s
        if not due or not gallery.whole or len(gallery) < self._templates_min or gallery.version == self._version:
            return
        self.path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        self.write(gallery, self.path)
        self._version, self._written_at = gallery.version, now

    def write(self, gallery: Gallery, path: Path) -> SnapshotHeader:
        """Into a file of its own. Raises NeedsOperator `gallery_not_whole`."""
        spec = self._spec
        return write_snapshot(path, gallery, self._vault, spec.chain, spec.region, spec.net_sha256)


def _require_known(version: int, newest: int) -> None:
    if version > newest:
        why = f"it is at change {version}, the database at {newest}: the database was set back"
        raise NeedsOperator("snapshot_ahead", why, "nothing: the gallery is read from the database")
