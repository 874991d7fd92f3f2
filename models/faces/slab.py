"""A gallery in shared memory: one header and one segment of rows for each generation, written by one process of a node.

POSIX shared memory, 0600: it is never a file on a disk. The rows are rotated by the chain's secret. The standard
library's SharedMemory class is not used: until Python 3.13 its resource tracker removes what others still read.
"""

from __future__ import annotations

import errno
import fcntl
import hashlib
import importlib
import mmap
import os
import tempfile
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from models.domain.errors import RetryLater
from models.faces.gallery import GENERATION, HEADER_WORDS

_posixshmem: Any = importlib.import_module("_posixshmem")
"""What multiprocessing.shared_memory itself is made of: shm_open and shm_unlink."""
PREFIX = "storeops"
HEADER_BYTES = 4_096
_MAGIC = b"storeops gallery/1"
_IDENTITY_AT, _WORDS_AT = 64, 128
SHM_FOLDER = Path("/dev/shm")  # noqa: S108  # where Linux shows shared memory; names are opened by shm_open


def slab_scope(place: str) -> str:
    """The start of the names of all slabs of one deployment (its data folder) on a node."""
    return f"{PREFIX}-{hashlib.sha256(place.encode()).hexdigest()[:8]}"


class SharedSlab:
    """Implements `Memory`. `identity`: all that must be equal for rows to be comparable (chain, region, net,
    dimension, rotation); another identity is another slab."""

    def __init__(self, scope: str, identity: bytes) -> None:
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
        wipe(name)
        fd = _posixshmem.shm_open(f"/{name}", os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600)
        try:
            _reserve(fd, size)
            return mmap.mmap(fd, size)
        except OSError as error:
            _posixshmem.shm_unlink(f"/{name}")
            raise RetryLater(
                "gallery_memory",
                f"{size >> 20} MiB of shared memory are not free",
                "give the node (or its container) more shared memory: /dev/shm, --shm-size",
                60.0,
            ) from error
        finally:
            os.close(fd)

    def attach(self, generation: int) -> Any | None:
        """The generation's segment, to write for the writer and to read for others; None when it is gone."""
        try:
            return _mapped(self._segment(generation), writable=self.writable)
        except (FileNotFoundError, ValueError):
            return None

    def drop(self, generation: int) -> None:
        """Take the name away: the memory is free once the last reader left it."""
        with suppress(FileNotFoundError):
            _posixshmem.shm_unlink(f"/{self._segment(generation)}")

    def lock(self) -> bool:
        """Become the one writer of the node, until the process ends. False while another one is."""
        if self._lock_fd is not None:
            return True
        name = f"{self.name}-h"
        fd = _posixshmem.shm_open(f"/{name}", os.O_RDWR | os.O_CREAT, 0o600)
        if os.fstat(fd).st_size == 0:  # two that see this do the same
            os.ftruncate(fd, HEADER_BYTES)
        if not _locked(fd, name) or not _is_still(fd, name):
            os.close(fd)
            return False
        self._lock_fd = fd
        raw = mmap.mmap(fd, HEADER_BYTES)
        if raw[_IDENTITY_AT : _IDENTITY_AT + 32] != self._identity or raw[: len(_MAGIC)] != _MAGIC:
            raw[:HEADER_BYTES] = bytes(HEADER_BYTES)
            raw[_IDENTITY_AT : _IDENTITY_AT + 32] = self._identity
            raw[: len(_MAGIC)] = _MAGIC
        self._header = np.ndarray((HEADER_WORDS,), np.uint64, buffer=raw, offset=_WORDS_AT)
        generation = int(self._header[GENERATION])
        for other in (generation - 1, generation + 1):  # what a dead writer did not come to remove, or to name
            wipe(self._segment(other))
        return True

    def close(self) -> None:
        """Give the lock back; the slab stays."""
        if self._lock_fd is not None:
            os.close(self._lock_fd)
            self._lock_fd, self._header = None, None

    def remove(self) -> None:
        """Overwrite and remove the slab, for everyone."""
        generation = int(self.header[GENERATION])
        for one in (generation - 1, generation, generation + 1):
            wipe(self._segment(one))
        wipe(f"{self.name}-h")
        self.close()

    def _segment(self, generation: int) -> str:
        return f"{self.name}-{generation}"

    def _attach_header(self) -> NDArray[np.uint64] | None:
        try:
            raw = _mapped(f"{self.name}-h", writable=False)
        except (FileNotFoundError, ValueError):
            return None
        if raw[: len(_MAGIC)] != _MAGIC or raw[_IDENTITY_AT : _IDENTITY_AT + 32] != self._identity:
            return None
        return np.ndarray((HEADER_WORDS,), np.uint64, buffer=raw, offset=_WORDS_AT)


def wipe(name: str) -> None:
    """Overwrite a segment with zeros and remove it, if it is there."""
    try:
        raw = _mapped(name, writable=True)
    except FileNotFoundError:
        return
    except ValueError:  # nothing was ever put into it
        raw = None
    if raw is not None:
        np.frombuffer(raw, np.uint8)[:] = 0
    with suppress(FileNotFoundError):
        _posixshmem.shm_unlink(f"/{name}")


def wipe_scope(scope: str) -> list[str]:
    """Overwrite and remove every slab of a deployment on this node; their names. For when none of it runs.

    Where the system cannot list shared memory (macOS), nothing is found; the next start takes over what is there.
    """
    names = sorted(path.name for path in SHM_FOLDER.glob(f"{scope}-*")) if SHM_FOLDER.is_dir() else []
    for name in names:
        wipe(name)
    return names


def _mapped(name: str, *, writable: bool) -> mmap.mmap:
    """Raises FileNotFoundError; ValueError for an empty one."""
    fd = _posixshmem.shm_open(f"/{name}", os.O_RDWR if writable else os.O_RDONLY, 0o600)
    try:
        return mmap.mmap(fd, 0, access=mmap.ACCESS_WRITE if writable else mmap.ACCESS_READ)
    finally:
        os.close(fd)


def _reserve(fd: int, size: int) -> None:
    """With its pages where the system can promise them: a full /dev/shm is an error here, not a SIGBUS later."""
    if hasattr(os, "posix_fallocate"):
        os.posix_fallocate(fd, 0, size)
    else:
        os.ftruncate(fd, size)


def _locked(fd: int, name: str) -> bool:
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError as error:
        if error.errno not in (errno.ENOTSUP, errno.EINVAL, errno.EOPNOTSUPP):
            raise
        return _locked_beside(name)
    return True


def _locked_beside(name: str) -> bool:
    """A system whose shared memory takes no locks (macOS): a file of this user, held until the process ends."""
    folder = Path(tempfile.gettempdir()) / f"{PREFIX}-{os.getuid()}"
    folder.mkdir(mode=0o700, exist_ok=True)
    beside = os.open(folder / f"{name}.lock", os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o600)
    try:
        fcntl.flock(beside, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(beside)
        return False
    return True


def _is_still(fd: int, name: str) -> bool:
    """Is this still the segment of that name? A removal may have come between opening and locking it."""
    try:
        again = _posixshmem.shm_open(f"/{name}", os.O_RDWR, 0o600)
    except FileNotFoundError:
        return False
    try:
        return os.path.samestat(os.fstat(fd), os.fstat(again))
    finally:
        os.close(again)
