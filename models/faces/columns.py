"""How a gallery lies in memory: columns of fixed width over one buffer, the same in a process and between processes.

Rows are rotated templates; a member and where they belong stand beside them, so that a search reads nothing else.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from enum import IntEnum
from functools import lru_cache
from hashlib import blake2b
from typing import Any

import numpy as np
from numpy.typing import NDArray

MEMBER_BYTES_MAX = 48
"""Of a member's id as UTF-8."""
SIGN_BYTES = 32
"""256 sign bits a row."""
ALIGNMENT_BYTES = 64
NO_TAIL = 0xFFFF

FLOAT32_TEMPLATES_MAX = 10_240
HALF_TEMPLATES_MAX = 163_840


class Kind(IntEnum):
    """What a search reads. Chosen by capacity: growing promotes, shrinking to a quarter demotes."""

    FLOAT32 = 1
    """Exact cosines of float32 rows."""
    HALF = 2
    """float16 rows: a cosine is off by 0.0005 at most."""
    SIGNS = 3
    """float16 rows, and their signs under two rotations to choose what is scored."""


def kind_for(capacity: int) -> Kind:
    """The kind of a gallery with room for so many templates."""
    if capacity <= FLOAT32_TEMPLATES_MAX:
        return Kind.FLOAT32
    return Kind.HALF if capacity <= HALF_TEMPLATES_MAX else Kind.SIGNS


@dataclass(slots=True)
class Columns:
    """Views of one buffer. Rows from `count` on (kept elsewhere) are zero."""

    kind: Kind
    rows: NDArray[Any]
    """float32 or float16 [capacity, dimension]."""
    signs: NDArray[np.uint8]
    """[capacity, 32] of kind SIGNS, else [0, 32]."""
    keys: NDArray[np.uint64]
    """Of members: equal ids have equal keys."""
    templates: NDArray[np.uint64]
    stores: NDArray[np.uint32]
    tails: NDArray[np.uint16]
    members: NDArray[np.bytes_]

    @property
    def capacity(self) -> int:
        """Rows that fit."""
        return len(self.keys)

    def every(self) -> Iterator[NDArray[Any]]:
        """All columns."""
        yield from (self.rows, self.keys, self.templates, self.stores, self.tails, self.members)
        if self.kind is Kind.SIGNS:
            yield self.signs

    def move(self, source: int, target: int) -> None:
        """Copy one row over another."""
        for column in self.every():
            column[target] = column[source]

    def erase(self, start: int, end: int) -> None:
        """Overwrite rows with zeros."""
        for column in self.every():
            column[start:end] = np.zeros(1, column.dtype)[0]


@dataclass(frozen=True, slots=True)
class Rows:
    """Templates apart from a gallery. `vectors`: float32 [n, dimension], rotated; no two of one member and template."""

    vectors: NDArray[np.float32]
    templates: NDArray[np.uint64]
    stores: NDArray[np.uint32]
    tails: NDArray[np.uint16]
    members: NDArray[np.bytes_]

    def __len__(self) -> int:
        return len(self.templates)

    def packed(self, part: slice) -> bytes:
        """Some of them as bytes, one column after the other."""
        columns = (self.vectors, self.templates, self.stores, self.tails, self.members)
        return b"".join(np.ascontiguousarray(column[part]).tobytes() for column in columns)

    @classmethod
    def unpacked(cls, packed: bytes, count: int, dimension: int) -> Rows:
        """Back from `count * row_bytes(dimension)` bytes."""
        views: list[NDArray[Any]] = []
        at = 0
        for dtype, width in cls._widths(dimension):
            views.append(np.frombuffer(packed, dtype, count * width, at))
            at += count * width * np.dtype(dtype).itemsize
        return cls(views[0].reshape(count, dimension), *views[1:])

    @classmethod
    def row_bytes(cls, dimension: int) -> int:
        """Of one row when packed."""
        return sum(np.dtype(dtype).itemsize * width for dtype, width in cls._widths(dimension))

    @staticmethod
    def _widths(dimension: int) -> tuple[tuple[str, int], ...]:
        return (("<f4", dimension), ("<u8", 1), ("<u4", 1), ("<u2", 1), (f"S{MEMBER_BYTES_MAX}", 1))


def bytes_for(kind: Kind, capacity: int, dimension: int) -> int:
    """The buffer's size."""
    return _lay(None, kind, capacity, dimension)[1]


def columns_over(buffer: Any, kind: Kind, capacity: int, dimension: int) -> Columns:
    """Views of a buffer of `bytes_for` bytes. What is in it stays."""
    views, _ = _lay(buffer, kind, capacity, dimension)
    return Columns(kind, *views)


def _lay(buffer: Any, kind: Kind, capacity: int, dimension: int) -> tuple[list[NDArray[Any]], int]:
    shapes: list[tuple[str, tuple[int, ...]]] = [
        ("<f4" if kind is Kind.FLOAT32 else "<f2", (capacity, dimension)),
        ("u1", (capacity if kind is Kind.SIGNS else 0, SIGN_BYTES)),
        ("<u8", (capacity,)),
        ("<u8", (capacity,)),
        ("<u4", (capacity,)),
        ("<u2", (capacity,)),
        (f"S{MEMBER_BYTES_MAX}", (capacity,)),
    ]
    views: list[NDArray[Any]] = []
    at = 0
    for dtype, shape in shapes:
        if buffer is not None:
            views.append(np.ndarray(shape, dtype, buffer=buffer, offset=at))
        at += -(-np.dtype(dtype).itemsize * int(np.prod(shape)) // ALIGNMENT_BYTES) * ALIGNMENT_BYTES
    return views, at


def key_of(text: str) -> int:
    """64 bits of a member's or template's id; ids are compared where two keys are equal."""
    return int.from_bytes(blake2b(text.encode(), digest_size=8).digest(), "little")


@lru_cache(maxsize=4_096)
def store_key(store: str) -> int:
    """32 bits of a store's id. Two stores that share them (1 in 100 among 10,000 stores) search both's members."""
    return int.from_bytes(blake2b(store.encode(), digest_size=4).digest(), "little")


def tail_key(tail: str) -> int:
    """Four digits as a number; NO_TAIL for anything else."""
    return int(tail) if len(tail) == 4 and tail.isascii() and tail.isdigit() else NO_TAIL
