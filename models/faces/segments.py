"""Segments of POSIX shared memory: never a file on a disk, 0600, overwritten before they are removed.

The standard library's SharedMemory class is not used: until Python 3.13 its resource tracker removes what others
still read.
"""

from __future__ import annotations

import errno
import fcntl
import hashlib
import importlib
import mmap
import os
import tempfile
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

_posixshmem: Any = importlib.import_module("_posixshmem")
"""What multiprocessing.shared_memory itself is made of: shm_open and shm_unlink."""
PREFIX = "storeops"
SHM_FOLDER = Path("/dev/shm")  # noqa: S108  # where Linux shows shared memory; names are opened by shm_open
WIPED_AT_ONCE = 1 << 20
HEADER = "-h"
"""How the name of a slab's header ends; the process that keeps the slab holds it alone."""
_PLACE_AT, _PLACE_BYTES_MAX = 2_048, 2_048


def scope_of(place: str) -> str:
    """The start of the names of all segments of one deployment (its data folder) on a node."""
    return f"{PREFIX}-{hashlib.sha256(place.encode()).hexdigest()[:8]}"


def create(name: str, size: int) -> mmap.mmap:
    """A zeroed segment. Raises OSError when there is no room, and then there is none of that name."""
    fd = _posixshmem.shm_open(f"/{name}", os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        _reserve(fd, size)
        return mmap.mmap(fd, size)
    except OSError:
        _posixshmem.shm_unlink(f"/{name}")
        raise
    finally:
        os.close(fd)


def mapped(name: str, *, writable: bool) -> mmap.mmap:
    """Raises FileNotFoundError; ValueError for an empty one."""
    fd = _posixshmem.shm_open(f"/{name}", os.O_RDWR if writable else os.O_RDONLY, 0o600)
    try:
        return mmap.mmap(fd, 0, access=mmap.ACCESS_WRITE if writable else mmap.ACCESS_READ)
    finally:
        os.close(fd)


def lock(name: str, size: int, *, make: bool = True) -> int | None:
    """Hold a segment alone: an open descriptor; None while another holds it, or when it is not there and not to be
    made.

    The system lets go when the descriptor closes or the process ends.
    """
    try:
        fd: int = _posixshmem.shm_open(f"/{name}", os.O_RDWR | (os.O_CREAT if make else 0), 0o600)
    except FileNotFoundError:
        return None
    if os.fstat(fd).st_size == 0:  # two that see this do the same
        os.ftruncate(fd, size)
    if _locked(fd, name) and _is_still(fd, name):
        return fd
    os.close(fd)
    return None


def unlink(name: str) -> None:
    """Take the name away: the memory is free once its last reader left it."""
    with suppress(FileNotFoundError):
        _posixshmem.shm_unlink(f"/{name}")


def wipe(name: str) -> None:
    """Overwrite a segment with zeros and remove it, if it is there."""
    try:
        with mapped(name, writable=True) as raw:
            for start in range(0, len(raw), WIPED_AT_ONCE):
                end = min(start + WIPED_AT_ONCE, len(raw))
                raw[start:end] = bytes(end - start)
    except FileNotFoundError:
        return
    except ValueError:  # nothing was ever put into it
        pass
    unlink(name)


def wipe_scope(scope: str) -> list[str]:
    """Overwrite and remove every segment of a deployment on this node; their names. For when none of it runs.

    Where the system cannot list shared memory (macOS), nothing is found; the next start takes over what is there.
    """
    names = sorted(path.name for path in SHM_FOLDER.glob(f"{scope}-*")) if SHM_FOLDER.is_dir() else []
    for name in names:
        wipe(name)
    return names


def note_place(header: mmap.mmap, place: str) -> None:
    """Write into a header which deployment (its data folder) it belongs to: names hold only a digest of it."""
    said = os.fsencode(place)
    if len(said) > _PLACE_BYTES_MAX:
        return  # then only a start of that deployment itself cleans up after it
    header[_PLACE_AT : _PLACE_AT + _PLACE_BYTES_MAX] = said.ljust(_PLACE_BYTES_MAX, b"\0")


def wipe_abandoned(lives: Callable[[str], bool]) -> list[str]:
    """Overwrite and remove what deployments left that were killed and never started again; the names of the segments.

    `lives(place)`: does somebody run the deployment of that data folder? One whose header a process holds is left
    alone, whatever it says: its engine may be on another machine.
    """
    gone: list[str] = []
    if not SHM_FOLDER.is_dir():
        return gone
    for path in sorted(SHM_FOLDER.glob(f"{PREFIX}-*{HEADER}")):
        place = _place_of(path)
        if not place or lives(place):
            continue
        fd = lock(path.name, 0, make=False)
        if fd is None:
            continue
        try:
            slab = path.name.removesuffix(HEADER)
            for name in sorted(one.name for one in SHM_FOLDER.glob(f"{slab}-*")):
                wipe(name)
                gone.append(name)
        finally:
            os.close(fd)
    return gone


def _place_of(header: Path) -> str:
    """ "" for one of another user, of an older version, or gone."""
    try:
        if header.stat().st_uid != os.geteuid():
            return ""
        return os.fsdecode(header.read_bytes()[_PLACE_AT : _PLACE_AT + _PLACE_BYTES_MAX].rstrip(b"\0"))
    except OSError:
        return ""


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
