"""A face worker's gallery follows the templates of its chain in its database, whichever host or region wrote them."""

from __future__ import annotations

import threading
from typing import Protocol

import psycopg

from models.domain.ids import ChainId
from models.domain.recognition import GalleryDelta
from models.tables.templates import WINDOW_TEMPLATES, count_after, load_templates, numbers_after

LOOK_EVERY_S = 2.0
"""How long a member who enrolled in another region of the chain may stay unknown by face."""


class Follower(Protocol):
    """The part of a face worker that takes changes."""

    def apply_deltas(self, delta: GalleryDelta) -> object: ...


class GalleryReader:
    """`refresh` in the worker's own thread; another thread only looks whether there is something to read."""

    def __init__(self, worker: Follower, database_url: str, chain: ChainId) -> None:
        self._worker = worker
        self._url = database_url
        self._chain = chain
        self._low = 0
        self._seen: list[int] = []
        """Serial numbers above `_low` that were read, rising."""
        self._stale = False
        self.version = 0
        """How many templates were read."""

    def refresh(self) -> int:
        """Read what was committed and not read yet; returns the version that is searchable now."""
        with psycopg.connect(self._url, autocommit=True, connect_timeout=5) as conn:
            self._stale = False
            known = set(self._seen)
            there = numbers_after(conn, self._chain, self._low)
            fresh = [n for n in there if n not in known]
            rows = load_templates(conn, self._chain, fresh) if fresh else ()
        if fresh:
            version = self.version + len(fresh)
            self._worker.apply_deltas(GalleryDelta(self._chain, self.version, version, rows))
            self.version = version
        if len(there) > WINDOW_TEMPLATES:
            self._low, there = there[-WINDOW_TEMPLATES - 1], there[-WINDOW_TEMPLATES:]
        self._seen = there
        return self.version

    def refresh_if_stale(self) -> None:
        """Read only when the looking thread saw something new; a database that is away leaves what is known."""
        if self._stale:
            try:
                self.refresh()
            except psycopg.OperationalError:
                self._stale = True

    def look(self, conn: psycopg.Connection[tuple[object, ...]]) -> bool:
        """Whether there are templates that were not read, or read ones that are gone."""
        low, read = self._low, len(self._seen)
        if count_after(conn, self._chain, low) != read and (low, read) == (self._low, len(self._seen)):
            self._stale = True
        return self._stale

    def watch(self) -> None:
        """Look every LOOK_EVERY_S from a thread of its own, until the process ends."""
        threading.Thread(target=self._watch, name="gallery", daemon=True).start()

    def _watch(self) -> None:
        pause = threading.Event()
        while True:
            try:
                with psycopg.connect(self._url, autocommit=True, connect_timeout=5) as conn:
                    while not pause.wait(LOOK_EVERY_S):
                        self.look(conn)
            except psycopg.Error:  # the database is away: look again
                pause.wait(LOOK_EVERY_S)
