"""What was erased is nowhere: planted bytes are looked for in files, logs, shared memory and a process."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import psycopg
import pytest
from numpy.typing import NDArray

from models.domain.ids import MemberId
from models.domain.messages import KeyRow, TemplateRow
from models.faces.rotation import rotation_from
from models.tables.keys import add_key
from models.tables.migrate import upgrade
from models.tables.templates import add_template
from runtime import erasure
from runtime.erasure import Erased, Scrubbed, erase_member, scrub
from runtime.keyring import KeyringSource, open_vault
from runtime.postgres import EmbeddedPostgres
from runtime.privacy import Privacy
from tests.conftest import scratch_data_dir
from tests.integration.house import wait_until
from tests.integration.planted import (
    CHAIN,
    DIMENSION,
    NET,
    KeeperProcess,
    Patterns,
    face,
    in_files,
    in_process,
    in_shared_memory,
    row_like,
)

AT = datetime(2026, 11, 22, tzinfo=UTC)
LI, OTHERS = 7, range(100, 105)


class Place:
    """A deployment's folder with its database and keys, and the process that keeps its gallery."""

    def __init__(self, data: Path) -> None:
        self.data = data
        self.server = EmbeddedPostgres(data)
        self.url = self.server.start()
        upgrade(self.url)
        KeyringSource(data / "secrets", {}).load_or_make()
        self.keeper = KeeperProcess(data, self.url)
        self.rows: dict[int, tuple[bytes, bytes]] = {}

    def enrol(self, seed: int) -> None:
        """A member whose face is `face(seed)`: sealed by the process, stored as a host stores it."""
        member, template = MemberId(f"m-{seed}"), f"t-{seed}"
        made = self.keeper.ask("seal", seed, member, template)
        ciphertext, wrapped = bytes.fromhex(made["ciphertext"]), bytes.fromhex(made["wrapped"])
        self.rows[seed] = ciphertext, wrapped

        async def store() -> None:
            async with await psycopg.AsyncConnection.connect(self.url) as conn:
                await conn.execute(
                    "INSERT INTO member (id, chain, region, home_store, name, phone_tail, provider_user, joined_at)"
                    " VALUES (%s, %s, 'south', 's-1', '', '', '', %s)",
                    (member, CHAIN, AT),
                )
                row = TemplateRow(template, member, NET, ciphertext, template, "production")
                await add_template(conn, row, chain=CHAIN, store="s-1", consent="c", at=AT)
                await add_key(conn, KeyRow(template, member, 1, wrapped), AT)

        asyncio.run(store())

    def erase(self, seed: int) -> Erased:
        async def erase() -> Erased:
            async with await psycopg.AsyncConnection.connect(self.url) as conn:
                return await erase_member(conn, CHAIN, MemberId(f"m-{seed}"), AT, "withdrawn", "test")

        return asyncio.run(erase())

    def scrub(self) -> Scrubbed:
        return asyncio.run(scrub(self.url))

    def templates(self) -> int:
        return int(self.keeper.ask("health")["templates"])

    def plain(self, seed: int) -> Patterns:
        """The template in clear, in every form that somebody could have kept it in."""
        return _forms("plain", np.frombuffer(face(seed), np.float32))

    def rotated(self, seed: int) -> Patterns:
        """As it lies in the gallery now, and in the forms that larger galleries keep it in."""
        turn = rotation_from(open_vault(self.data / "secrets").rotation_secret(CHAIN), DIMENSION)
        row = np.frombuffer(row_like(turn @ np.frombuffer(face(seed), np.float32)), np.float32)
        assert row.size == DIMENSION, "the search structure is there to be found"
        return {**_forms("rotated", row), "signs": np.packbits(row > 0).tobytes()}

    def sealed(self, seed: int) -> Patterns:
        ciphertext, wrapped = self.rows[seed]
        return {"ciphertext": ciphertext[:64], "its end": ciphertext[-64:], "wrapped key": wrapped}

    def end(self) -> None:
        self.keeper.end()
        self.server.stop()


def _forms(name: str, vector: NDArray[np.float32]) -> Patterns:
    return {
        f"{name} float32": vector.tobytes()[:64],
        f"{name} float32, its end": vector.tobytes()[-64:],
        f"{name} float16": vector.astype(np.float16).tobytes()[:64],
    }


@pytest.fixture(scope="module")
def place() -> Iterator[Place]:
    with scratch_data_dir() as data:
        place = Place(data)
        try:
            for seed in (*OTHERS, LI):
                place.enrol(seed)
            wait_until(lambda: place.templates() == len(OTHERS) + 1, "the keeper has read them")
            yield place
        finally:
            place.end()


def test_what_is_erased_is_nowhere(place: Place) -> None:
    plain, sealed = place.plain(LI), place.sealed(LI)
    with psycopg.connect(place.url, autocommit=True) as conn:
        conn.execute("ANALYZE")  # what it keeps of a column are values
        conn.execute("CHECKPOINT")
    assert place.keeper.ask("search", LI)[0] == f"m-{LI}"
    rotated = place.rotated(LI)
    everything = {**plain, **rotated, **sealed}
    # While enrolled: what is looked for later can be found, where it belongs and nowhere else.
    assert "rotated float32" in in_shared_memory(everything)
    assert "rotated float32" in in_process(place.keeper.pid, everything)
    assert set.union(*in_files([place.data], everything).values()) == set(sealed)

    assert place.erase(LI).keys == 1
    scrubbed = place.scrub()
    assert (len(scrubbed.done), scrubbed.left) == (3, ())
    wait_until(lambda: place.templates() == len(OTHERS), "the keeper has forgotten")
    assert in_shared_memory(everything) == set()
    assert in_files([place.data], everything) == {}
    assert place.keeper.ask("search", OTHERS[0])[0] == f"m-{OTHERS[0]}"  # its probe lies where the last one lay
    opened = {**plain, **rotated}
    wait_until(lambda: not in_process(place.keeper.pid, opened), "the process has overwritten what it opened")
    # It is not found any more, and the others are untouched.
    assert place.keeper.ask("search", LI)[0] != f"m-{LI}"
    assert set.union(*in_files([place.data], place.sealed(OTHERS[0])).values()) == set(place.sealed(OTHERS[0]))


def test_nothing_to_scrub_is_cheap_and_writes_nothing(place: Place) -> None:
    place.scrub()
    with psycopg.connect(place.url) as conn:
        before = conn.execute("SELECT count(*), max(n) FROM audit_event").fetchone()
        assert place.scrub() == Scrubbed()
        assert conn.execute("SELECT count(*), max(n) FROM audit_event").fetchone() == before


def test_a_second_erasure_finds_nothing_and_proves_nothing(place: Place) -> None:
    first = place.erase(OTHERS[1])
    assert (first.templates, first.keys, len(first.proof)) == (1, 1, 64)
    assert place.erase(OTHERS[1]) == Erased(0, 0, "")


def test_who_still_sees_the_rows_is_waited_for_and_named(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(erasure, "TRIES_S_MAX", 0.1)
    with psycopg.connect(place.url) as old:
        old.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ")
        old.execute("SELECT 1 FROM member LIMIT 1")
        place.erase(OTHERS[2])
        assert any("an older transaction" in one for one in place.scrub().left)
        assert "wrapped key" in set.union(*in_files([place.data], place.sealed(OTHERS[2])).values())
    again = place.scrub()
    assert again.done
    assert again.left == (), "what was left is done by the next scrub"
    assert in_files([place.data], place.sealed(OTHERS[2])) == {}


def test_only_what_held_the_member_is_written_anew_and_a_part_too_large_is_named(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    place.erase(OTHERS[3])
    with psycopg.connect(place.url) as conn:
        event = conn.execute("SELECT detail FROM audit_event WHERE kind = 'face_erased' ORDER BY n DESC").fetchone()
    assert event is not None
    [key, template] = event[0]["parts"]
    monkeypatch.setattr(erasure, "REWRITE_BYTES_MAX", 0)
    scrubbed = place.scrub()
    assert scrubbed.done[0] == f"{key} written anew"
    assert [one.partition(" ")[0] for one in scrubbed.left] == [template]
    assert scrubbed.left[0].endswith(f"VACUUM FULL {template}")
    desk = Privacy([place.url])
    assert asyncio.run(desk.report())["unscrubbed"] == [*scrubbed.left]
    monkeypatch.undo()
    everything = asyncio.run(scrub(place.url, always=True))
    assert (len(everything.done), everything.left) == (8 + 16 + 1, ())
    assert asyncio.run(desk.report())["unscrubbed"] == []
    assert in_files([place.data], place.sealed(OTHERS[3])) == {}
