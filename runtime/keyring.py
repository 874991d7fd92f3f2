"""The file of master keys: an epoch a line, the newest wraps, and an epoch that is taken out is destroyed.

    1:0f3c…   2:9ab4…   rotation:77d0…      (64 hex digits each, a line each, mode 0600)

The environment variable holds the same, with spaces or commas for line ends. A single key without an epoch, as older
versions wrote it, is epoch 1. Every change of the file is one rename, so that a kill leaves the old or the new one; a
key that is taken out is then overwritten where it lay, and a kill before that is made good by the next `finish`.
"""

from __future__ import annotations

import fcntl
import os
import re
import stat
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import psycopg

from models.domain.errors import NeedsOperator, RetryLater
from models.faces.templates import KEY_BYTES, Keyring, TemplateVault, new_key
from models.tables.keys import any_epoch_beyond

MASTER_KEY_VARIABLE = "STOREOPS_FACES_MASTER_KEY"
MASTER_KEY_FILE = "faces-master.key"
ROTATION = "rotation"
_FILE_BYTES_MAX = 64 * 1024
RESTORE = "restore the key file from its own copy (it is no part of a backup of the database)"


def parse_keyring(text: str, where: str) -> Keyring:
    """The keyring in `text`. Raises NeedsOperator `master_key`, naming the line and never its content."""
    epochs: dict[int, bytes] = {}
    rotation: bytes | None = None
    entries = re.split(r"[\s,;]+", text.strip())
    if len(entries) == 1 and ":" not in entries[0]:
        return Keyring.of_one(_key(entries[0], where, 1))
    for n, entry in enumerate(entries, 1):
        name, colon, digits = entry.partition(":")
        key = _key(digits, where, n)
        if name == ROTATION and rotation is None:
            rotation = key
        elif colon and name.isascii() and name.isdigit() and 0 < int(name) < 2**31 and int(name) not in epochs:
            epochs[int(name)] = key
        else:
            raise _wrong(where, n, "no epoch, or one that is there twice")
    if not epochs:
        raise _wrong(where, len(entries), "no epoch at all")
    if rotation is None:
        raise _wrong(where, len(entries), f"no {ROTATION}: line after the epochs, so it ends too early")
    return Keyring(dict(sorted(epochs.items())), rotation)


def render_keyring(keyring: Keyring, separator: str = "\n") -> str:
    """As `parse_keyring` reads it. The rotation stands last: a file that was cut short is noticed."""
    lines = [f"{epoch}:{keyring.epochs[epoch].hex()}" for epoch in sorted(keyring.epochs)]
    return separator.join([*lines, f"{ROTATION}:{keyring.rotation.hex()}"])


def open_vault(secrets: Path) -> TemplateVault:
    """The vault of a process beside this folder of secrets; it follows changes of the key file. Raises as `load`."""
    source = KeyringSource(secrets)
    return TemplateVault(source.load(), source.renewed)


def require_keyring(secrets: Path, database_urls: Collection[str], say: Callable[[str], None]) -> None:
    """At a start: make the first keyring, or check the one there is. A shop opens all the same when some keys are of
    an epoch that it does not hold: who they belong to goes on by phone number, and `say` tells what to do.

    Raises as `KeyringSource.load_or_make`.
    """

    def unknown_epoch(known: Collection[int]) -> int | None:
        for url in database_urls:
            with psycopg.connect(url, autocommit=True, connect_timeout=5) as conn:
                if (epoch := any_epoch_beyond(conn, known)) is not None:
                    return epoch
        return None

    keyring = KeyringSource(secrets).load_or_make(lambda: unknown_epoch(()) is not None)
    if (epoch := unknown_epoch(keyring.epochs)) is not None:
        say(
            f"epoch_missing: some face templates are sealed by master key epoch {epoch}, which is not here\n→ {RESTORE}"
        )


def fresh_keyring() -> Keyring:
    """A first epoch and a rotation of its own."""
    return Keyring({1: new_key()}, new_key())


class KeyringSource:
    """Where the master keys are: the environment variable when it is set, else the file in `folder`."""

    def __init__(self, folder: Path, environ: Mapping[str, str] = os.environ) -> None:
        self.path = folder / MASTER_KEY_FILE
        self._text = environ.get(MASTER_KEY_VARIABLE)
        self._read: tuple[int, int, int] | None = None

    @property
    def from_environment(self) -> bool:
        """Whether the operator keeps the keys: then nothing here is written or destroyed."""
        return self._text is not None

    def load(self) -> Keyring:
        """The keyring as it stands. Raises NeedsOperator: `master_key` (half, not hex, an epoch twice),
        `master_key_missing`, `master_key_open` when others may read the file."""
        if self._text is not None:
            return parse_keyring(self._text, MASTER_KEY_VARIABLE)
        try:
            with self.path.open("rb") as file:
                status = os.fstat(file.fileno())
                text = file.read(_FILE_BYTES_MAX)
        except FileNotFoundError as error:
            raise NeedsOperator("master_key_missing", f"there is no {self.path}", RESTORE) from error
        if stat.S_IMODE(status.st_mode) & 0o077:
            raise NeedsOperator("master_key_open", f"others may read {self.path}", f"chmod 600 {self.path}")
        try:
            keyring = parse_keyring(text.decode("ascii", "replace"), str(self.path))
        except NeedsOperator:
            if _signature(self.path.stat()) != _signature(status):  # it was taken out while it was read
                return self.load()
            raise
        self._read = _signature(status)
        return keyring

    def load_or_make(self, sealed_keys: Callable[[], bool] = lambda: False) -> Keyring:
        """As `load`; the first time a fresh keyring. Where there are keys already that another one wrapped
        (`sealed_keys`), a missing file stays missing: `master_key_missing`."""
        if self._text is None and not self.path.exists() and not sealed_keys():
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with self.locked():
                self.finish()
                if not self.path.exists():
                    _write_new(self._coming, render_keyring(fresh_keyring()))
                    self._coming.replace(self.path)
                    _sync(self.path.parent)
        return self.load()

    def renewed(self) -> Keyring | None:
        """The keyring when its file changed since it was read here; None when not, or when it cannot be read now."""
        if self._text is not None:
            return None
        try:
            if _signature(self.path.stat()) == self._read:
                return None
            return self.load()
        except (OSError, NeedsOperator):
            return None

    # ------------------------------------------------------------ changes of the file

    @contextmanager
    def locked(self) -> Iterator[None]:
        """One change of keys at a time. Raises RetryLater `rekey_running`."""
        lock = os.open(self.path.with_suffix(".lock"), os.O_RDWR | os.O_CREAT, 0o600)
        try:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError as error:
                raise RetryLater("rekey_running", "the keys are being changed already", "wait for it", 60.0) from error
            yield
        finally:
            os.close(lock)

    def replace(self, keyring: Keyring) -> None:
        """Put `keyring` in the file's place, durably, and overwrite the file that was there. After a kill: `finish`."""
        assert self._text is None, "the environment is the operator's"
        self.finish()
        _write_new(self._coming, render_keyring(keyring))
        os.link(self.path, self._leaving)
        _sync(self.path.parent)
        self._coming.replace(self.path)
        _sync(self.path.parent)
        self.finish()
        self._read = _signature(self.path.stat())

    def finish(self) -> None:
        """Destroy what a change that was killed left: the file it took out, or the one it never put in."""
        if self._leaving.exists():
            if self.path.exists() and self._leaving.samefile(self.path):
                self._leaving.unlink()  # killed before the rename: it is the file in force
            else:
                _shred(self._leaving)
        if self._coming.exists():
            _shred(self._coming)

    @property
    def _coming(self) -> Path:
        return self.path.with_suffix(".coming")

    @property
    def _leaving(self) -> Path:
        return self.path.with_suffix(".leaving")


def _key(digits: str, where: str, line: int) -> bytes:
    if not re.fullmatch(rf"[0-9a-fA-F]{{{2 * KEY_BYTES}}}", digits):
        raise _wrong(where, line, f"not {2 * KEY_BYTES} hex digits")
    return bytes.fromhex(digits)


def _wrong(where: str, line: int, why: str) -> NeedsOperator:
    return NeedsOperator("master_key", f"{where}, entry {line}: {why}", RESTORE)


def _signature(status: os.stat_result) -> tuple[int, int, int]:
    return status.st_ino, status.st_mtime_ns, status.st_size


def _write_new(path: Path, text: str) -> None:
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600), "w") as file:
        file.write(text + "\n")
        file.flush()
        os.fsync(file.fileno())


def _shred(path: Path) -> None:
    """Overwrite a file where it lies, durably, then remove it. A file system that never writes in place (copy on
    write, a flash controller) may keep the old blocks: that is what encrypting the disk is for."""
    with path.open("r+b", buffering=0) as file:
        size = os.fstat(file.fileno()).st_size
        for fill in (os.urandom(size), bytes(size)):
            file.seek(0)
            file.write(fill)
            os.fsync(file.fileno())
    path.unlink()
    _sync(path.parent)


def _sync(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
