"""The gallery of one chain and region: exact search at every size, true erasure, one writer, any number of readers.

Erasing swaps the last row into the hole and zeroes the last in every column: no copy of a template stays behind. The
memory may be shared (models.faces.slab): a reader takes the header before and after a search, and searches again when
the writer moved in between.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from models.domain.errors import RetryLater
from models.domain.gallery import InStore, InTail, NewRow, Where
from models.domain.ids import MemberId
from models.domain.recognition import Embedding, SearchResult
from models.faces import scan
from models.faces.columns import (
    MEMBER_BYTES_MAX,
    Columns,
    Kind,
    Rows,
    bytes_for,
    columns_over,
    key_of,
    kind_for,
    store_key,
    tail_key,
)
from models.faces.embed import to_vector
from models.faces.rotation import Rotation

TEMPLATES_MAX = 2_000_000
CAPACITY_MIN = 1_280
TRIES_MAX = 4
"""Searches of one question while a writer moves; then it is answered as partial."""
MOVING_S = 0.0005
UNIT_TOLERANCE = 1e-3

VISITOR_SETS_MAX = 64
"""Stores whose visitors' rows are kept."""

HEADER_WORDS = 16
SEQUENCE, GENERATION, CAPACITY, COUNT, VERSION, STATE, EXPECTED = range(7)
"""Words of the header. SEQUENCE is odd while a writer moves rows; GENERATION names the memory of the rows."""
EMPTY, LOADING, READY, CLOSED = range(4)


class Memory(Protocol):
    """Where a gallery lies: a header of HEADER_WORDS, and one buffer of rows for each generation."""

    @property
    def header(self) -> NDArray[np.uint64]:
        """All zero where nothing was made yet."""

    @property
    def writable(self) -> bool:
        """Is this the one writer?"""

    def make(self, generation: int, size: int) -> Any:
        """A zeroed buffer. Raises RetryLater `gallery_memory` when there is no room."""

    def attach(self, generation: int) -> Any | None:
        """The generation's buffer; None when it is gone already."""

    def drop(self, generation: int) -> None:
        """Forget a generation whose bytes were overwritten."""


class PrivateMemory:
    """Memory of this process."""

    def __init__(self) -> None:
        self.header: NDArray[np.uint64] = np.zeros(HEADER_WORDS, np.uint64)
        self.writable = True
        self._buffers: dict[int, NDArray[np.uint8]] = {}

    def make(self, generation: int, size: int) -> Any:
        self._buffers[generation] = np.zeros(size, np.uint8)
        return self._buffers[generation]

    def attach(self, generation: int) -> Any | None:
        return self._buffers.get(generation)

    def drop(self, generation: int) -> None:
        self._buffers.pop(generation, None)


class Gallery:
    """Templates of one chain and region, a member per row; a member may have several. One thread per instance."""

    def __init__(
        self, dimension: int, rotation: Rotation, templates_max: int = TEMPLATES_MAX, memory: Memory | None = None
    ) -> None:
        if rotation.shape != (dimension, dimension) or not np.allclose(
            rotation @ rotation.T, np.eye(dimension), atol=1e-4
        ):
            raise ValueError("the rotation is not an orthogonal matrix of this dimension")
        self.dimension = dimension
        self.templates_max = templates_max
        self._rotation = rotation
        self._memory: Memory = memory or PrivateMemory()
        self._fence = threading.Lock()
        self._columns: Columns | None = None
        self._generation = 0
        self._visitors: dict[tuple[MemberId, ...], tuple[int, NDArray[np.uint64], scan.Positions]] = {}

    # ------------------------------------------------------------ what is inside

    def __len__(self) -> int:
        return self._word(COUNT)

    def __contains__(self, member: object) -> bool:
        return isinstance(member, str) and len(self._rows_of(MemberId(member))) > 0

    @property
    def version(self) -> int:
        """The change up to which templates are inside; 0 when it was never loaded."""
        return self._word(VERSION)

    @property
    def whole(self) -> bool:
        """Nothing is being loaded."""
        return self._word(STATE) == READY

    @property
    def kind(self) -> Kind:
        """How it is searched now."""
        return kind_for(max(self._word(CAPACITY), 1))

    @property
    def torn(self) -> bool:
        """A writer died while it moved rows: load again."""
        return self._word(SEQUENCE) % 2 == 1

    @property
    def expected(self) -> int:
        """Templates that the load in progress will have, as far as it is known."""
        return self._word(EXPECTED)

    # ------------------------------------------------------------ changes

    def begin_load(self, expected: int = 0, *, closed: bool = False) -> None:
        """Empty it, with room for so many; until `end_load` searches are partial, and `closed` they find nothing."""
        if not self._memory.writable:
            return
        with self._moving():
            self._memory.header[STATE] = CLOSED if closed else LOADING
            self._memory.header[EXPECTED] = expected
            if (columns := self._now()) is not None:
                columns.erase(0, len(self))
            self._memory.header[COUNT] = 0
        self._resize(self._fitting(expected))

    def end_load(self, version: int) -> None:
        """All is inside, as committed up to `version`."""
        if self._memory.writable:
            self._memory.header[VERSION] = version
            self._memory.header[STATE] = READY

    def advance(self, version: int) -> None:
        """All changes up to `version` are inside. One that was never loaded began with nothing, and is whole now."""
        if self._memory.writable:
            self._memory.header[VERSION] = version
            if self._word(STATE) == EMPTY:
                self._memory.header[STATE] = READY

    def copy_rows(self) -> tuple[int, Rows] | None:
        """The version and all rows as of one moment; None while they are loaded or moved."""
        for _ in range(TRIES_MAX):
            before = self._word(SEQUENCE)
            columns = self._now()
            if before % 2 == 0 and columns is not None and self.whole:
                version, count = self._word(VERSION), self._word(COUNT)
                self._barrier()
                rows = Rows(
                    columns.rows[:count].astype(np.float32),
                    columns.templates[:count].copy(),
                    columns.stores[:count].copy(),
                    columns.tails[:count].copy(),
                    columns.members[:count].copy(),
                )
                self._barrier()
                if self._word(SEQUENCE) == before:
                    return version, rows
            time.sleep(MOVING_S)
        return None

    def adopt(self) -> None:
        """Become the writer of what another one left: rows that it never counted are overwritten."""
        if (columns := self._now()) is not None and not self.torn:
            columns.erase(len(self), columns.capacity)

    def add(self, row: NewRow) -> None:
        """Make one template searchable, replacing the one of the same member and id.

        Raises ValueError unless it is a unit vector of the dimension, RetryLater `gallery_full` at the bound.
        """
        if self.add_many([row]):
            raise ValueError("a template is a unit vector of float32 of the gallery's dimension")

    def add_many(self, rows: Sequence[NewRow]) -> int:
        """Make templates searchable together, replacing those of the same member and id; how many were none.

        Raises RetryLater `gallery_full` at the bound, and then none of them is inside.
        """
        if not self._memory.writable:
            return 0
        last = {(row.member, row.template): row for row in rows if self._has_form(row)}
        fit = list(last.values())
        plain = bytearray().join(row.embedding for row in fit)
        vectors = np.frombuffer(plain, "<f4").reshape(len(fit), self.dimension)
        norms = np.linalg.norm(vectors, axis=1)
        units = np.abs(norms - 1.0) <= UNIT_TOLERANCE  # not a number is no unit either
        if not units.all():
            fit = [row for row, unit in zip(fit, units, strict=True) if unit]
            vectors = vectors[units]
        rotated = vectors @ self._rotation.T
        vectors[:] = 0  # a copy of some, or `plain` itself
        plain[:] = bytes(len(plain))
        if fit:
            self.put_rows(
                Rows(
                    rotated,
                    np.array([key_of(row.template) for row in fit], np.uint64),
                    np.array([store_key(row.store) for row in fit], np.uint32),
                    np.array([tail_key(row.tail) for row in fit], np.uint16),
                    np.array([row.member.encode() for row in fit], f"S{MEMBER_BYTES_MAX}"),
                )
            )
            rotated[:] = 0
        return len({(row.member, row.template) for row in rows}) - len(fit)

    def put_rows(self, rows: Rows) -> None:
        """The same for rows that are rotated already. Raises RetryLater `gallery_full`."""
        keys = np.array([key_of(member.decode()) for member in rows.members.tolist()], np.uint64)
        self._erase(self._twins(keys, rows.templates))
        at = len(self)
        end = at + len(rows)
        if end > self.templates_max:
            raise RetryLater(
                "gallery_full", f"{self.templates_max} templates are the bound", "give the chain more regions", 60.0
            )
        if end > self._word(CAPACITY):
            self._resize(self._fitting(end))
        columns = self._now()
        assert columns is not None
        columns.rows[at:end] = rows.vectors
        if columns.kind is Kind.SIGNS:
            columns.signs[at:end] = scan.signs_of(rows.vectors)
        columns.keys[at:end], columns.templates[at:end] = keys, rows.templates
        columns.stores[at:end], columns.tails[at:end] = rows.stores, rows.tails
        columns.members[at:end] = rows.members
        self._barrier()
        self._memory.header[COUNT] = end

    def remove(self, member: MemberId) -> int:
        """Erase all templates of a member; how many there were. Nothing of their bytes stays in the gallery."""
        if not self._memory.writable:
            return 0
        gone = self._rows_of(member)
        self._erase(gone)
        if len(self) < self._word(CAPACITY) // 4 and self._word(CAPACITY) > CAPACITY_MIN:
            self._resize(self._word(CAPACITY) // 2)
        return len(gone)

    # ------------------------------------------------------------ search

    def search(self, probe: Embedding, where: Where = None) -> tuple[SearchResult, bool]:
        """The best member and the best of another one; False when rows were missing or moved all the while."""
        rotated = self._rotation @ to_vector(probe, self.dimension)
        for _ in range(TRIES_MAX):
            before = self._word(SEQUENCE)
            if self._word(STATE) in (EMPTY, CLOSED):
                break
            if before % 2 == 0 and (columns := self._now()) is not None:
                count = min(self._word(COUNT), columns.capacity)
                whole = self.whole
                self._barrier()
                result = scan.best_two(columns, count, rotated, self._positions(columns, count, where))
                self._barrier()
                if self._word(SEQUENCE) == before:
                    return result, whole
            else:
                time.sleep(MOVING_S)
        return SearchResult(None, None, 0), False

    def score(self, rows: Sequence[NewRow], probe: Embedding) -> SearchResult:
        """The same for rows that are not inside, and do not enter."""
        guests = Gallery(self.dimension, self._rotation)
        guests.begin_load(len(rows))
        guests.add_many(rows)
        return guests.search(probe)[0]

    # ------------------------------------------------------------ inside

    def _word(self, word: int) -> int:
        return int(self._memory.header[word])

    def _barrier(self) -> None:
        """What was written before is seen before what is written after: a lock's own fences."""
        with self._fence:
            pass

    @contextmanager
    def _moving(self) -> Iterator[None]:
        """Rows that readers may be reading are changed. A writer that dies inside leaves SEQUENCE odd: load again."""
        header = self._memory.header
        header[SEQUENCE] |= np.uint64(1)
        self._barrier()
        yield
        self._barrier()
        header[SEQUENCE] += np.uint64(1)

    def _now(self) -> Columns | None:
        """The columns of the header's generation."""
        generation = self._word(GENERATION)
        if generation != self._generation or self._columns is None:
            capacity = self._word(CAPACITY)
            buffer = self._memory.attach(generation) if generation else None
            kind = kind_for(max(capacity, 1))
            if buffer is None or len(buffer) < bytes_for(kind, capacity, self.dimension):
                return None
            self._columns = columns_over(buffer, kind, capacity, self.dimension)
            self._generation = generation
            self._visitors.clear()
        return self._columns

    def _fitting(self, count: int) -> int:
        """Room for so many: doubled, to the bound, and in whole steps of the kinds."""
        capacity = CAPACITY_MIN
        while capacity < count:
            capacity *= 2
        return max(count, min(capacity, self.templates_max))

    def _resize(self, capacity: int) -> None:
        """Rows in memory of their own generation, of the kind for their number; the old ones are overwritten.

        Readers go on in the old rows until the header names the new ones.
        """
        old, count, generation = self._now(), len(self), self._word(GENERATION)
        if old is not None and old.capacity == capacity:
            return
        kind = kind_for(capacity)
        buffer = self._memory.make(generation + 1, bytes_for(kind, capacity, self.dimension))
        new = columns_over(buffer, kind, capacity, self.dimension)
        if old is not None:
            for start in range(0, count, scan.BLOCK_ROWS):
                some = slice(start, min(count, start + scan.BLOCK_ROWS))
                new.rows[some] = old.rows[some]
                if kind is Kind.SIGNS:
                    new.signs[some] = scan.signs_of(old.rows[some].astype(np.float32))
                for ours, theirs in zip(_places(new), _places(old), strict=True):
                    ours[some] = theirs[some]
        with self._moving():
            self._memory.header[CAPACITY] = capacity
            self._memory.header[GENERATION] = generation + 1
            self._columns, self._generation = new, generation + 1
        if old is not None:
            old.erase(0, count)
            self._memory.drop(generation)

    def _rows_of(self, member: MemberId) -> scan.Positions:
        columns = self._now()
        if columns is None:
            return np.empty(0, np.intp)
        found: scan.Positions = np.flatnonzero(columns.keys[: len(self)] == np.uint64(key_of(member)))
        return found[np.equal(columns.members[found], member.encode())]

    def _twins(self, keys: NDArray[np.uint64], templates: NDArray[np.uint64]) -> scan.Positions:
        """Positions of the rows with the same member and template as one of these."""
        columns, count = self._now(), len(self)
        if columns is None or not count:
            return np.empty(0, np.intp)
        if len(keys) == 1:
            same = np.flatnonzero(columns.keys[:count] == keys[0])
        else:
            same = _rows_among(columns.keys[:count], keys)
        wanted = set(zip(keys.tolist(), templates.tolist(), strict=True))
        have = zip(columns.keys[same].tolist(), columns.templates[same].tolist(), strict=True)
        kept: scan.Positions = same[np.array([pair in wanted for pair in have], bool)]
        return kept

    def _erase(self, positions: scan.Positions) -> None:
        """The last rows move into the holes; the bytes of the last are overwritten."""
        columns = self._now()
        if columns is None or not len(positions):
            return
        with self._moving():
            last = len(self)
            for position in sorted(positions.tolist(), reverse=True):
                last -= 1
                if position != last:
                    columns.move(last, position)
                columns.erase(last, last + 1)
            self._memory.header[COUNT] = last

    def _has_form(self, row: NewRow) -> bool:
        return len(row.embedding) == 4 * self.dimension and 0 < len(row.member.encode()) <= MEMBER_BYTES_MAX

    def _positions(self, columns: Columns, count: int, where: Where) -> scan.Positions | None:
        match where:
            case None:
                return None
            case InTail(tail=tail):
                return np.flatnonzero(columns.tails[:count] == np.uint16(tail_key(tail)))
            case InStore(store=store, visitors=visitors):
                home = np.flatnonzero(columns.stores[:count] == np.uint32(store_key(store)))
                if not visitors:
                    return home
                return np.union1d(home, self._visiting(columns, count, visitors))

    def _visiting(self, columns: Columns, count: int, visitors: tuple[MemberId, ...]) -> scan.Positions:
        """Rows of these members. Looked up among all rows only when one of them has moved; else among the new ones."""
        wanted = np.array([key_of(visitor) for visitor in visitors], np.uint64)
        start, rows = 0, np.empty(0, np.intp)
        if (known := self._visitors.get(visitors)) is not None:
            upto, keys, cached = known
            if upto <= count and np.array_equal(columns.keys[cached], keys):
                start, rows = upto, cached
        rows = np.concatenate([rows, start + _rows_among(columns.keys[start:count], wanted)])
        if len(self._visitors) >= VISITOR_SETS_MAX:
            self._visitors.clear()
        self._visitors[visitors] = (count, columns.keys[rows], rows)
        return rows


def _rows_among(keys: NDArray[np.uint64], wanted: NDArray[np.uint64]) -> scan.Positions:
    """Positions of wanted keys: first by 16 of their bits (2 ms a million rows), then exactly."""
    marked = np.zeros(1 << 16, bool)
    marked[wanted & np.uint64(0xFFFF)] = True
    maybe = np.flatnonzero(marked[keys.view(np.uint16)[::4]])
    return maybe[np.isin(keys[maybe], wanted)]


def _places(columns: Columns) -> list[NDArray[Any]]:
    return [columns.keys, columns.templates, columns.stores, columns.tails, columns.members]
