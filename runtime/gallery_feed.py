"""A gallery follows the templates of its chain and region in their database, whichever host or region wrote them."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator
from typing import Any

import psycopg
import structlog

from actors.galleries import Galleries
from models.domain.ids import ChainId, MemberId, RegionId
from models.domain.recognition import GalleryDelta, GalleryRow
from models.tables.templates import (
    WINDOW_CHANGES,
    all_templates,
    changes_after,
    count_after,
    count_templates,
    templates_of,
    window_start,
)

log = structlog.get_logger()

MEMBERS_AT_ONCE = 1_024
SAY_EVERY_S = 2.0

Connection = psycopg.Connection[tuple[Any, ...]]


class GalleryFeed:
    """Reads into one chain's gallery. The newest WINDOW_CHANGES numbers are compared, not only what is above the
    highest: a lower number may become visible after it (docs/decisions/gallery-by-serial-number.md)."""

    def __init__(self, galleries: Galleries, chain: ChainId, region: RegionId) -> None:
        self._galleries = galleries
        self._chain = chain
        self._where = (chain, region, galleries.net_sha256)
        self._low = 0
        """Every change up to here was read."""
        self._read: set[int] = set()
        """Numbers above `_low` that were read."""
        self.erased = False
        """A removal was read; whoever acts on it takes it back."""

    def load(self, conn: Connection) -> int:
        """Read everything, as of one moment; returns the version. A million templates take under a minute."""
        with conn.transaction():
            conn.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ, READ ONLY")
            numbers = self._numbers(conn)
            expected = count_templates(conn, *self._where)
            rows = _telling(all_templates(conn, *self._where), expected, self._chain)
            report = self._galleries.load(self._chain, max(numbers, default=self._low), rows, expected)
        self._read = numbers
        if report.skipped:
            log.warning("gallery_skipped", chain=self._chain, **report.skipped)
        return report.version

    def resume(self, conn: Connection, version: int) -> int:
        """Go on from a gallery that was full up to `version`: what may have been missed since is read again."""
        self._low, self._read = window_start(conn, self._chain, version), set()
        return self.refresh(conn)

    def stale(self, conn: Connection) -> bool:
        """Is there a change that was not read? One count over the window, by index."""
        return count_after(conn, self._chain, self._low) != len(self._read)

    def refresh(self, conn: Connection) -> int:
        """Read what was committed and not read yet; returns the version that is searchable now.

        Who fell so far behind that the feed is forgotten there reads everything: removals may be among what it missed.
        """
        changes = changes_after(conn, self._chain, self._low)
        if changes is None:
            log.warning("gallery_behind_feed", chain=self._chain, read_up_to=self._low)
            self.erased = True
            return self.load(conn)
        fresh = [change for change in changes if change[0] not in self._read]
        at = self._galleries.version(self._chain)
        members = list(dict.fromkeys(member for _, member, _ in fresh))
        for some in _parts(members):
            rows = templates_of(conn, *self._where, some)
            self._galleries.apply_deltas(GalleryDelta(self._chain, at, at, tuple(rows), tuple(some)))
        version = max([at, *(n for n, _, _ in fresh)])
        self._galleries.apply_deltas(GalleryDelta(self._chain, at, version))
        self._low, self._read = self._window(sorted(n for n, _, _ in changes))
        self.erased = self.erased or any(removed for _, _, removed in fresh)
        return version

    def _numbers(self, conn: Connection) -> set[int]:
        self._low = window_start(conn, self._chain)
        changes = changes_after(conn, self._chain, self._low)
        assert changes is not None, "pruning keeps more than a window"
        return {n for n, _, _ in changes}

    def _window(self, numbers: list[int]) -> tuple[int, set[int]]:
        if len(numbers) <= WINDOW_CHANGES:
            return self._low, set(numbers)
        return numbers[-WINDOW_CHANGES - 1], set(numbers[-WINDOW_CHANGES:])


def _parts(members: list[MemberId]) -> Iterator[list[MemberId]]:
    for start in range(0, len(members), MEMBERS_AT_ONCE):
        yield members[start : start + MEMBERS_AT_ONCE]


def _telling(rows: Iterable[GalleryRow], expected: int, chain: ChainId) -> Iterator[GalleryRow]:
    """The same rows; says in the log how far a long load is."""
    began = told = time.monotonic()
    count = 0
    for count, row in enumerate(rows, 1):
        yield row
        if count % 1_024 == 0 and time.monotonic() - told >= SAY_EVERY_S:
            told = time.monotonic()
            log.info("gallery_loading", chain=chain, templates=count, of=expected, seconds=round(told - began, 1))
    log.info("gallery_loaded", chain=chain, templates=count, seconds=round(time.monotonic() - began, 1))
