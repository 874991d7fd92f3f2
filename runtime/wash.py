"""Overwriting what this process has freed: allocators keep the bytes of erased faces until somebody needs the room.

A process that opened a template takes, in the thread that did, the free blocks that the allocators give it, full of
zeros, and gives them back. What is in use is not touched. The client library's buffer is overwritten by an answer.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import psycopg

EVERY_S = 5.0
_HEADER_BYTES = sys.getsizeof(b"")
_SIZES = [(range(48, 513, 16), 1_000), (range(528, 4_097, 16), 48)]
"""(sizes of blocks, how many of each): Python's own allocator up to 512 bytes, the C library's arena of this thread
above. Rows, templates and their joins lie in there."""
_ARRAY_BYTES_MAX, _ARRAYS = 1_024, 8
"""numpy keeps so many small buffers of each size for itself."""
_DIMENSIONS = (128, 512)
"""Of templates: a product with a rotation leaves its row on the stack of the thread."""
_ANSWER_ROWS, _ANSWER_BYTES = 64, 1_024
"""More than the client library reads at once."""


def wash(conn: psycopg.Connection[Any] | None = None) -> None:
    """Overwrite memory that this thread freed, and what `conn` received last. About 20 ms of this thread."""
    if conn is not None:
        conn.execute("SELECT repeat(' ', %s) FROM generate_series(1, %s)", (_ANSWER_BYTES, _ANSWER_ROWS)).fetchall()
    # Not bytes(n): that asks for zeroed memory, which the C library takes from elsewhere than from its caches.
    blocks = [b"\0" * (size - _HEADER_BYTES) for sizes, count in _SIZES for size in sizes for _ in range(count)]
    arrays = [np.zeros(size, np.uint8) for size in range(16, _ARRAY_BYTES_MAX, 16) for _ in range(_ARRAYS)]
    del blocks, arrays
    for dimension in _DIMENSIONS:
        turn = np.zeros((dimension, dimension), np.float32)
        turn @ turn[0]
        turn[:1] @ turn.T


class Washing:
    """Washes a thread that reads templates some seconds after it read any, and not more often."""

    def __init__(self, every_s: float = EVERY_S, clock: Callable[[], float] = time.monotonic) -> None:
        self._every_s, self._clock = every_s, clock
        self._seen: object = None
        self._due_at: float | None = None

    def look(self, read: object, conn: psycopg.Connection[Any]) -> bool:
        """`read` says what was read so far: when it changed, a wash is due `every_s` later; True when it was done."""
        now = self._clock()
        if read != self._seen and self._due_at is None:
            self._due_at = now + self._every_s
        self._seen = read
        if self._due_at is None or now < self._due_at:
            return False
        self._due_at = None
        wash(conn)
        return True
