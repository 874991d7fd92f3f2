"""The galleries of a face worker: kept in step with the database by one process of a node, searched by all of them.

The keeper is the process that holds the slab's lock; a thread of its own reads changes into the shared memory. When
it dies another takes the lock and goes on from what is there. A database that is away leaves what is known.
"""

from __future__ import annotations

import threading
import time
from datetime import UTC, datetime, timedelta
from typing import Any

import psycopg
import structlog

from actors.galleries import VISITORS_MAX, Galleries
from models.domain.errors import RetryLater, StoreOpsError
from models.domain.ids import ChainId, MemberId, StoreId
from models.domain.recognition import GalleryRow
from models.faces.gallery import Gallery
from models.faces.templates import TemplateVault
from models.tables.templates import BUCKET_TEMPLATES_MAX, bucket_elsewhere, newest_change, recent_visitors
from runtime.gallery_feed import GalleryFeed
from runtime.gallery_snapshots import GallerySpec, Snapshots
from runtime.wash import Washing

__all__ = ["GalleryKeeper", "GallerySpec"]

log = structlog.get_logger()

LOOK_EVERY_S = 0.2
"""How long a commit may stay unread by the keeper; its node's workers all have it then."""
AWAY_S = 1.0
FULL_S = 30.0
VISITORS_EVERY_LOOKS = 1_500
VISITORS_DAYS = 30
BUCKET_TIMEOUT_MS = 500


class GalleryKeeper:
    """Of one gallery. `galleries` for the worker's thread; `watch` starts the thread that keeps them, or waits to."""

    def __init__(self, spec: GallerySpec, vault: TemplateVault, database_url: str) -> None:
        self._spec, self._vault, self._url = spec, vault, database_url
        self._asking: psycopg.Connection[Any] | None = None
        self._read_slab = spec.slab(vault)
        self._reader = spec.gallery(vault, self._read_slab)
        self.galleries = Galleries(vault, spec.net_sha256, lambda _: self._reader, self._elsewhere, self._recent)
        self.galleries.open(spec.chain)
        self._slab = spec.slab(vault)
        self._kept: tuple[Gallery, GalleryFeed] | None = None
        self._snapshots = Snapshots(spec, vault)
        self._wake, self._ended = threading.Event(), threading.Event()
        self._thread: threading.Thread | None = None
        self._stores: set[StoreId] = set()
        self._visitors: dict[StoreId, tuple[MemberId, ...]] = {}
        self.last_error = ""

    # ------------------------------------------------------------ the worker's side

    def watch(self) -> None:
        """Keep, or wait for the lock, from a thread of its own until `stop` or the end of the process."""
        self._thread = threading.Thread(target=self._run, name="gallery", daemon=True)
        self._thread.start()

    def wait_until_whole(self, timeout_s: float) -> bool:
        """Wait until all templates are searchable; False when they are not by then."""
        gallery = self._reader
        until = time.monotonic() + timeout_s
        while not gallery.whole and time.monotonic() < until and not self._ended.wait(0.01):
            pass
        return gallery.whole

    def wake(self) -> None:
        """There is something to read: look now."""
        self._wake.set()

    def stop(self) -> None:
        """End the thread and give the lock back; the slab stays for the others."""
        self._ended.set()
        self._wake.set()
        if self._thread is not None:
            self._thread.join()
        if self._asking is not None:
            self._asking.close()
        self._slab.close()

    def health(self) -> dict[str, Any]:
        """Counts only. `loading_of`: templates that the load in progress will have."""
        seen = self._reader
        return {
            "keeper": self._slab.writable,
            "templates": len(seen),
            "version": seen.version,
            "kind": seen.kind.name.lower(),
            "whole": seen.whole,
            "loading_of": 0 if seen.whole else seen.expected,
            "error": self.last_error,
        }

    def _recent(self, _chain: ChainId, store: StoreId) -> tuple[MemberId, ...]:
        self._stores.add(store)
        return self._visitors.get(store, ())

    def _elsewhere(self, chain: ChainId, tail: str) -> list[GalleryRow]:
        """Read at every question: nothing is kept, so nothing outlives an erasure."""
        try:
            if self._asking is None or self._asking.closed:
                options = f"-c statement_timeout={BUCKET_TIMEOUT_MS}"
                self._asking = psycopg.connect(self._url, autocommit=True, connect_timeout=2, options=options)
            rows = bucket_elsewhere(self._asking, chain, self._spec.region, self._spec.net_sha256, tail)
        except psycopg.Error as error:
            raise RetryLater("bucket_away", str(error), "ask for the phone number", 1.0) from error
        if len(rows) > BUCKET_TEMPLATES_MAX:
            raise RetryLater("bucket_full", f"more than {BUCKET_TEMPLATES_MAX} templates", "ask for a code", 1.0)
        return rows

    # ------------------------------------------------------------ the keeper's side

    def keep(self, conn: psycopg.Connection[Any]) -> int | None:
        """One look: take the lock if it is free, read what is new; the version, None where another one keeps."""
        if self._kept is None:
            # A slab that was there and is gone was wiped at the end of its house: this process is about to end, too.
            if not self._slab.lock(make=not self._read_slab.seen):
                return None
            gallery = self._spec.gallery(self._vault, self._slab)
            galleries = Galleries(self._vault, self._spec.net_sha256, lambda _: gallery)
            feed = GalleryFeed(galleries, self._spec.chain, self._spec.region)
            galleries.open(self._spec.chain)
            self._fill(conn, gallery, feed)
            self._kept = gallery, feed
        gallery, feed = self._kept
        if feed.stale(conn):
            feed.refresh(conn)
        self._snapshots.keep(gallery, erased=feed.erased)
        feed.erased = False
        return gallery.version

    def _fill(self, conn: psycopg.Connection[Any], gallery: Gallery, feed: GalleryFeed) -> None:
        """By what another process left in memory, else by the sealed copy, else by the database alone. What changed
        since is inside before anything is searched."""
        newest = newest_change(conn, self._spec.chain)
        gallery.adopt()
        if gallery.whole and not gallery.torn and gallery.version <= newest:
            feed.resume(conn, gallery.version)
            return
        version = self._snapshots.fill(gallery, newest)
        if version is None:
            feed.load(conn)
        else:
            gallery.end_load(feed.resume(conn, version))

    def _read_visitors(self, conn: psycopg.Connection[Any], *, again: bool) -> None:
        """Of the stores that asked: new ones, or all `again`."""
        since = datetime.now(UTC) - timedelta(days=VISITORS_DAYS)
        for store in sorted(self._stores if again else self._stores - set(self._visitors)):
            self._visitors[store] = tuple(recent_visitors(conn, store, since, VISITORS_MAX))

    def _run(self) -> None:
        looks, washing = 0, Washing()
        while not self._ended.is_set():
            try:
                with psycopg.connect(self._url, autocommit=True, connect_timeout=5) as conn:
                    while not self._ended.is_set():
                        self._wake.clear()
                        washing.look(self.keep(conn), conn)
                        self.last_error = ""
                        looks += 1
                        self._read_visitors(conn, again=looks % VISITORS_EVERY_LOOKS == 0)
                        self._wake.wait(LOOK_EVERY_S)
            except (psycopg.Error, StoreOpsError) as error:
                if type(error).__name__ != self.last_error:
                    log.warning("gallery_not_followed", error=type(error).__name__, why=str(error).strip())
                self.last_error = type(error).__name__
                self._kept = None  # what was read half is read again; the lock stays
                self._ended.wait(AWAY_S if isinstance(error, psycopg.Error) else FULL_S)
