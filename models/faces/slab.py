"""A gallery in shared memory: one header and one segment of rows for each generation, written by one process of a node.

It lies in segments of shared memory (models.faces.segments); its rows are rotated by the chain's secret.
"""

from __future__ import annotations

import hashlib
import mmap
import os
from typing import Any

import numpy as np
from numpy.typing import NDArray

from models.domain.errors import RetryLater
from models.faces import segments
from models.faces.gallery import GENERATION, HEADER_WORDS

HEADER_BYTES = 4_096
_MAGIC = b"storeops gallery/1"
_IDENTITY_AT, _WORDS_AT = 64, 128


class SharedSlab:
    """Implements `Memory`. `identity`: all that must be equal for rows to be comparable (chain, region, net,
    dimension, rotation); another identity is another slab."""

    def __init__(self, scope: str, identity: bytes, place: str = "") -> None:
        """`place`: the deployment's data folder, by which a start finds what a killed one left."""
        self._place = place
        self._identity = hashlib.sha256(identity).digest()
        self.name = f"{scope}-{self._identity[:4].hex()}"
        self._header: NDArray[np.uint64] | None = None
        self._nothing: NDArray[np.uint64] = np.zeros(HEADER_WORDS, np.uint64)
        self._lock_fd: int | None = None

    @property
    def writable(self) -> bool:
        """Does this process hold the slab's lock?"""
        return self._lock_fd is not None

    @property
    def header(self) -> NDArray[np.uint64]:
        """All zero until a writer made the slab."""
        if self._header is None:
            self._header = self._attach_header()
        return self._nothing if self._header is None else self._header

    def make(self, generation: int, size: int) -> Any:
        """A zeroed segment. Raises RetryLater `gallery_memory` when the node has no room for it."""
        name = self._segment(generation)
        segments.wipe(name)
        try:
            return segments.create(name, size)
        except OSError as error:
            raise RetryLater(
                "gallery_memory",
                f"{size >> 20} MiB of shared memory are not free",
                "give the node (or its container) more shared memory: /dev/shm, --shm-size",
                60.0,
            ) from error

    def attach(self, generation: int) -> Any | None:
        """The generation's segment, to write for the writer and to read for others; None when it is gone."""
        try:
            return segments.mapped(self._segment(generation), writable=self.writable)
        except (FileNotFoundError, ValueError):
            return None

    def drop(self, generation: int) -> None:
        """Take the name away: the memory is free once the last reader left it."""
        segments.unlink(self._segment(generation))

    @property
    def seen(self) -> bool:
        """This process has found the slab before: if it is gone now, its house has ended."""
        return self._header is not None

    def lock(self, *, make: bool = True) -> bool:
        """Become the one writer of the node, until the process ends. False while another one is, or when there is no
        slab and none is to be made."""
        if self._lock_fd is not None:
            return True
        fd = segments.lock(f"{self.name}{segments.HEADER}", HEADER_BYTES, make=make)
        if fd is None:
            return False
        self._lock_fd = fd
        raw = mmap.mmap(fd, HEADER_BYTES)
        if raw[_IDENTITY_AT : _IDENTITY_AT + 32] != self._identity or raw[: len(_MAGIC)] != _MAGIC:
            raw[:HEADER_BYTES] = bytes(HEADER_BYTES)
            raw[_IDENTITY_AT : _IDENTITY_AT + 32] = self._identity
            raw[: len(_MAGIC)] = _MAGIC
        segments.note_place(raw, self._place)
        self._header = np.ndarray((HEADER_WORDS,), np.uint64, buffer=raw, offset=_WORDS_AT)
        generation = int(self._header[GENERATION])
        for other in (generation - 1, generation + 1):  # what a dead writer did not come to remove, or to name
            segments.wipe(self._segment(other))
        return True

    def close(self) -> None:
        """Give the lock back; the slab stays."""
        if self._lock_fd is not None:
            os.close(self._lock_fd)
            self._lock_fd, self._header = None, None

    def _segment(self, generation: int) -> str:
        return f"{self.name}-{generation}"

    def _attach_header(self) -> NDArray[np.uint64] | None:
        try:
            raw = segments.mapped(f"{self.name}{segments.HEADER}", writable=False)
        except (FileNotFoundError, ValueError):
            return None
        if raw[: len(_MAGIC)] != _MAGIC or raw[_IDENTITY_AT : _IDENTITY_AT + 32] != self._identity:
            return None
        return np.ndarray((HEADER_WORDS,), np.uint64, buffer=raw, offset=_WORDS_AT)
