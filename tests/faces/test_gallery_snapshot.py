from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from models.domain.errors import NeedsOperator
from models.domain.gallery import InStore, InTail, NewRow
from models.domain.ids import ChainId, MemberId, StoreId
from models.domain.recognition import SearchResult
from models.faces import snapshot
from models.faces.embed import to_embedding, unit
from models.faces.gallery import Gallery
from models.faces.rotation import rotation_from
from models.faces.snapshot import check_snapshot, read_header, read_snapshot, remove_snapshot, write_snapshot
from models.faces.templates import Keyring, TemplateVault

RNG = np.random.default_rng(2)
VECTORS = [to_embedding(unit(RNG.normal(size=128).astype(np.float32))) for _ in range(20)]
CHAIN, REGION, NET = "sunrise", "south", "net"
KEYRING = Keyring.of_one(b"k" * 32)
VAULT = TemplateVault(KEYRING)
ROW = 4 * 128 + 8 + 4 + 2 + 48
CHUNK, LAST = 12 + 8 * ROW + 16, 12 + 4 * ROW + 16
"""A row, a chunk of eight rows, and the last one of four, as they are sealed."""
OURS = (CHAIN, REGION, NET, 128)


def new_gallery() -> Gallery:
    return Gallery(128, rotation_from(VAULT.rotation_secret(ChainId(CHAIN))))


@pytest.fixture
def gallery(monkeypatch: pytest.MonkeyPatch) -> Gallery:
    monkeypatch.setattr(snapshot, "CHUNK_ROWS", 8)
    made = new_gallery()
    made.begin_load()
    rows = [NewRow(MemberId(f"m{n}"), "t", v, StoreId(f"s{n % 3}"), f"00{n:02d}") for n, v in enumerate(VECTORS)]
    made.add_many(rows)
    made.end_load(77)
    return made


@pytest.fixture
def path(gallery: Gallery, tmp_path: Path) -> Path:
    written = tmp_path / "a.snapshot"
    assert write_snapshot(written, gallery, VAULT, CHAIN, REGION, NET).count == 20
    return written


def load(path: Path, vault: TemplateVault = VAULT, ours: tuple[str, str, str, int] = OURS) -> Gallery:
    header, parts = read_snapshot(path, vault, *ours)
    read = new_gallery()
    read.begin_load(header.count, closed=True)
    for rows in parts:
        read.put_rows(rows)
    assert read.search(VECTORS[0]) == (SearchResult(None, None, 0), False), "closed until later changes are inside"
    read.end_load(header.version)
    return read


def test_what_is_read_is_what_was_written(gallery: Gallery, path: Path) -> None:
    read = load(path)
    assert (len(read), read.version, read.whole) == (20, 77, True)
    for where in (None, InStore(StoreId("s1"), (MemberId("m0"),)), InTail("0007")):
        for vector in VECTORS[:9]:
            assert read.search(vector, where) == gallery.search(vector, where)
    assert read.remove(MemberId("m3")) == 1
    assert path.stat().st_mode & 0o777 == 0o600
    inside = path.read_bytes()
    rotated, _ = gallery.copy_rows()[1].vectors[3].tobytes(), None  # type: ignore[index]
    assert not any(inside.count(plant) for plant in (b"m13", rotated, VECTORS[3]))
    assert read_header(path).count == 20


def test_an_empty_gallery_has_a_snapshot_and_one_that_loads_has_none(tmp_path: Path) -> None:
    empty = new_gallery()
    with pytest.raises(NeedsOperator) as refused:
        write_snapshot(tmp_path / "b", empty, VAULT, CHAIN, REGION, NET)
    assert refused.value.code == "gallery_not_whole"
    empty.begin_load()
    empty.end_load(3)
    write_snapshot(tmp_path / "b", empty, VAULT, CHAIN, REGION, NET)
    assert (len(load(tmp_path / "b")), load(tmp_path / "b").version) == (0, 3)


def altered(whole: bytes, at: int) -> bytes:
    return whole[:at] + bytes([whole[at] ^ 1]) + whole[at + 1 :]


def test_no_bit_of_it_can_be_changed(path: Path) -> None:
    whole = path.read_bytes()
    places = [*range(0, 330, 7), *range(330, len(whole), 1009), len(whole) - 1]
    assert check_snapshot(path, VAULT, *OURS).count == 20
    for at in places:
        path.write_bytes(altered(whole, at))
        with pytest.raises(NeedsOperator) as refused:
            check_snapshot(path, VAULT, *OURS)
        assert refused.value.code in {"snapshot_altered", "snapshot_unreadable", "snapshot_other", "file_sealed"}, at


@pytest.mark.parametrize(
    "forge",
    [
        lambda whole, chunk: whole[:-1],
        lambda whole, chunk: whole[: -chunk // 2],
        lambda whole, chunk: whole + b"\0",
        lambda whole, chunk: whole[: len(whole) // 2],
        lambda whole, chunk: b"",
        lambda whole, chunk: whole[:40],
        lambda whole, chunk: whole[: -chunk - LAST] + whole[-chunk - LAST - chunk : -LAST - chunk] + whole[-LAST:],
        lambda whole, chunk: whole + whole[-chunk:],
    ],
    ids=["a byte short", "cut", "longer", "half", "empty", "head only", "a chunk twice", "a chunk more"],
)
def test_nor_cut_nor_put_together_anew(path: Path, forge: Callable[[bytes, int], bytes]) -> None:
    path.write_bytes(forge(path.read_bytes(), CHUNK))
    with pytest.raises(NeedsOperator) as refused:
        check_snapshot(path, VAULT, *OURS)
    assert refused.value.code in {"snapshot_altered", "snapshot_unreadable"}


@pytest.mark.parametrize(
    ("ours", "code"),
    [
        (("harbour", REGION, NET, 128), "snapshot_other"),
        ((CHAIN, "west", NET, 128), "snapshot_other"),
        ((CHAIN, REGION, "another net", 128), "snapshot_other"),
        ((CHAIN, REGION, NET, 512), "snapshot_other"),
    ],
)
def test_another_gallery_s_is_refused(path: Path, ours: tuple[str, str, str, int], code: str) -> None:
    with pytest.raises(NeedsOperator) as refused:
        load(path, ours=ours)
    assert refused.value.code == code


def test_a_destroyed_epoch_or_rotation_destroys_the_file(path: Path) -> None:
    now = KEYRING
    for keyring, code in (
        (Keyring({2: b"n" * 32}, now.rotation), "file_sealed"),
        (Keyring({1: b"x" * 32}, now.rotation), "file_sealed"),
        (Keyring(now.epochs, b"y" * 32), "snapshot_other"),
    ):
        with pytest.raises(NeedsOperator) as refused:
            load(path, TemplateVault(keyring))
        assert refused.value.code == code
    assert len(load(path, TemplateVault(Keyring({**now.epochs, 2: b"n" * 32}, now.rotation)))) == 20


def test_what_is_removed_cannot_be_opened_from_the_disk(path: Path) -> None:
    inode = path.open("rb")
    assert remove_snapshot(path)
    assert not remove_snapshot(path)
    with inode:
        left = inode.read(400)
    assert b"storeops" not in left
    with pytest.raises(NeedsOperator) as refused:
        load(path)
    assert refused.value.code == "snapshot_missing"
