"""A gallery as a sealed file: read in seconds where the database takes a minute. Refused when anything is not its own.

    magic · length of the header · header (JSON) · length of the key · key, wrapped · chunks of CHUNK_ROWS rows

Each chunk is AES-256-GCM under the file's own key; what it is bound to is the header, its place and whether it is the
last: a file that was altered, cut, lengthened or put together from two does not open. The key is wrapped by the
newest master key epoch and bound to the header: destroying that epoch destroys the file, wherever it was copied.
"""

from __future__ import annotations

import hashlib
import os
import struct
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import BinaryIO

import msgspec
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from models.domain.errors import NeedsOperator
from models.domain.ids import ChainId
from models.faces.columns import Rows
from models.faces.gallery import TEMPLATES_MAX, Gallery
from models.faces.templates import KEY_BYTES, TemplateVault

_MAGIC = b"storeops gallery snapshot 1\n"
_LENGTH = struct.Struct(">I")
_NONCE_BYTES, _TAG_BYTES = 12, 16
_HEADER_BYTES_MAX = 4_096
CHUNK_ROWS = 8_192


@dataclass(frozen=True, slots=True)
class SnapshotHeader:
    """What a file says that it is; `rotation` is a digest that tells two rotations apart and no more."""

    chain: str
    region: str
    net_sha256: str
    dimension: int
    rotation: str
    version: int
    count: int


def rotation_mark(vault: TemplateVault, chain: ChainId) -> str:
    """See SnapshotHeader."""
    return hashlib.sha256(b"storeops/snapshot/rotation" + vault.rotation_secret(chain)).hexdigest()[:16]


def write_snapshot(
    path: Path, gallery: Gallery, vault: TemplateVault, chain: str, region: str, net: str
) -> SnapshotHeader:
    """Seal what the gallery has now into a file of mode 0600, put in place at once; what it says that it is.

    Raises NeedsOperator `gallery_not_whole` while it is loaded.
    """
    rows = gallery.copy_rows()
    if rows is None:
        raise NeedsOperator("gallery_not_whole", "the gallery is not loaded", "wait until `storeops status` says so")
    version, held = rows
    mark = rotation_mark(vault, ChainId(chain))
    header = SnapshotHeader(chain, region, net, gallery.dimension, mark, version, len(held))
    written = msgspec.json.encode(asdict(header))
    key = os.urandom(KEY_BYTES)
    wrapped = vault.seal_file_key(_about(written), key)
    partial = path.with_name(f"{path.name}.{os.getpid()}.partial")
    with os.fdopen(os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as file:
        file.write(_MAGIC + _LENGTH.pack(len(written)) + written + _LENGTH.pack(len(wrapped)) + wrapped)
        cipher = AESGCM(key)
        for place, last, part in _parts(len(held)):
            nonce = os.urandom(_NONCE_BYTES)
            file.write(nonce + cipher.encrypt(nonce, held.packed(part), _bound(written, place, last)))
        file.flush()
        os.fsync(file.fileno())
    partial.replace(path)
    return header


def read_header(path: Path) -> SnapshotHeader:
    """What the file says that it is, unproven. Raises NeedsOperator `snapshot_unreadable`, `snapshot_missing`."""
    with _opened(path) as file:
        return _header(file, path)[0]


def read_snapshot(
    path: Path, vault: TemplateVault, chain: str, region: str, net: str, dimension: int
) -> tuple[SnapshotHeader, Iterator[Rows]]:
    """The header, and the rows in parts; each part is proven before it is handed out, the whole only at its end.

    Raises NeedsOperator: `snapshot_other` (chain, region, net or rotation), `file_sealed` (epoch destroyed, header
    altered), `snapshot_altered` (while reading), `snapshot_unreadable`, `snapshot_missing`.
    """
    file = _opened(path)
    try:
        header, written = _header(file, path)
        ours = (chain, region, net, dimension, rotation_mark(vault, ChainId(chain)))
        _require_ours(path, header, ours)
        wrapped = file.read(_unpacked(file, path))
        cipher = AESGCM(vault.open_file_key(_about(written), wrapped))
        expected = sum(_sealed_bytes(part, dimension) for _, _, part in _parts(header.count))
        _require_size(path, file.tell() + expected)
    except BaseException:
        file.close()
        raise
    return header, _rows(file, path, header, written, cipher)


def _require_ours(path: Path, header: SnapshotHeader, ours: tuple[object, ...]) -> None:
    theirs = (header.chain, header.region, header.net_sha256, header.dimension, header.rotation)
    for name, own, other in zip(("chain", "region", "net", "dimension", "rotation"), ours, theirs, strict=True):
        if own != other:
            raise NeedsOperator(
                "snapshot_other",
                f"{path} is of {name} {other}, this gallery is of {own}",
                "load the snapshot of this gallery, or none: it is read from the database",
            )


def _require_size(path: Path, size: int) -> None:
    if path.stat().st_size != size:
        raise _altered(path)


def _rows(file: BinaryIO, path: Path, header: SnapshotHeader, written: bytes, cipher: AESGCM) -> Iterator[Rows]:
    with file:
        for place, last, part in _parts(header.count):
            sealed = file.read(_sealed_bytes(part, header.dimension))
            try:
                plain = cipher.decrypt(sealed[:_NONCE_BYTES], sealed[_NONCE_BYTES:], _bound(written, place, last))
            except (InvalidTag, ValueError) as error:
                raise _altered(path) from error
            yield Rows.unpacked(plain, part.stop - part.start, header.dimension)


def check_snapshot(
    path: Path, vault: TemplateVault, chain: str, region: str, net: str, dimension: int
) -> SnapshotHeader:
    """Prove the whole file. Raises as `read_snapshot`."""
    header, parts = read_snapshot(path, vault, chain, region, net, dimension)
    for _ in parts:
        pass
    return header


def remove_snapshot(path: Path) -> bool:
    """Overwrite the wrapped key, so that nothing opens what is left on the disk, then delete. False: there was none."""
    for partial in path.parent.glob(f"{path.name}.*.partial"):
        partial.unlink(missing_ok=True)
    try:
        with path.open("r+b") as file:
            file.write(os.urandom(min(2 * _HEADER_BYTES_MAX, path.stat().st_size)))
            file.flush()
            os.fsync(file.fileno())
        path.unlink()
    except FileNotFoundError:
        return False
    return True


# ---------------------------------------------------------------- the file's parts


def _opened(path: Path) -> BinaryIO:
    try:
        return path.open("rb")
    except FileNotFoundError as error:
        raise NeedsOperator("snapshot_missing", f"there is no {path}", "name a snapshot") from error


def _header(file: BinaryIO, path: Path) -> tuple[SnapshotHeader, bytes]:
    if file.read(len(_MAGIC)) != _MAGIC:
        raise _unreadable(path)
    written = file.read(_unpacked(file, path))
    try:
        header = msgspec.json.decode(written, type=SnapshotHeader)
    except msgspec.DecodeError as error:
        raise _unreadable(path) from error
    if not (0 <= header.count <= TEMPLATES_MAX and header.version >= 0 and 0 < header.dimension <= 4_096):
        raise _unreadable(path)
    return header, written


def _unpacked(file: BinaryIO, path: Path) -> int:
    raw = file.read(_LENGTH.size)
    length = int.from_bytes(raw, "big") if len(raw) == _LENGTH.size else 0
    if not 0 < length <= _HEADER_BYTES_MAX:
        raise _unreadable(path)
    return length


def _parts(count: int) -> Iterator[tuple[int, bool, slice]]:
    """(place, is it the last, rows); of an empty gallery one part without rows."""
    for start in range(0, max(count, 1), CHUNK_ROWS):
        end = min(start + CHUNK_ROWS, count)
        yield start // CHUNK_ROWS, end == count, slice(start, end)


def _sealed_bytes(part: slice, dimension: int) -> int:
    rows: int = part.stop - part.start
    return _NONCE_BYTES + rows * Rows.row_bytes(dimension) + _TAG_BYTES


def _about(written: bytes) -> str:
    return "gallery snapshot " + hashlib.sha256(written).hexdigest()


def _bound(written: bytes, place: int, last: bool) -> bytes:
    return hashlib.sha256(written).digest() + struct.pack(">I?", place, last)


def _altered(path: Path) -> NeedsOperator:
    return NeedsOperator(
        "snapshot_altered", f"{path} was altered or cut", "remove it: the gallery is read from the database"
    )


def _unreadable(path: Path) -> NeedsOperator:
    return NeedsOperator("snapshot_unreadable", f"{path} is no gallery snapshot", "name a snapshot of this version")
