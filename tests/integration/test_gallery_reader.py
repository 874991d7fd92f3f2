"""A gallery misses no template, whichever region or host wrote it and in whichever order they committed."""

from __future__ import annotations

from datetime import UTC, datetime

import psycopg
import pytest

from models.domain.ids import ChainId
from models.domain.recognition import GalleryDelta
from runtime import gallery_reader
from runtime.gallery_reader import GalleryReader

CHAIN = ChainId("sunrise")


class Gallery:
    """Takes what joins on, as a face worker does."""

    def __init__(self) -> None:
        self.version = 0
        self.templates: list[str] = []

    def apply_deltas(self, delta: GalleryDelta) -> None:
        assert (delta.chain, delta.since_version) == (CHAIN, self.version)
        assert delta.version > self.version
        self.version = delta.version
        self.templates += [row.template.id for row in delta.upserts]


def enrol(conn: psycopg.Connection[tuple[object, ...]], name: str, chain: str = CHAIN, region: str = "south") -> None:
    at = datetime(2026, 11, 22, tzinfo=UTC)
    conn.execute(
        "INSERT INTO member (id, chain, region, home_store, name, phone_sha256, phone_tail, provider_user, joined_at)"
        " VALUES (%s, %s, %s, 's-1', '', NULL, '', '', %s)",
        (f"m-{name}", chain, region, at),
    )
    conn.execute(
        "INSERT INTO face_template (id, member, chain, store, net_sha256, policy, consent, ciphertext, key_id, at)"
        " VALUES (%s, %s, %s, 's-1', 'net', 'demo', 'c', '\\x00', %s, %s)",
        (name, f"m-{name}", chain, name, at),
    )
    conn.execute(
        "INSERT INTO face_key (id, member, epoch, wrapped, made_at) VALUES (%s, %s, 1, '\\x00', %s)",
        (name, f"m-{name}", at),
    )


def test_what_commits_late_is_read_all_the_same(migrated_database_url: str) -> None:
    gallery = Gallery()
    reader = GalleryReader(gallery, migrated_database_url, CHAIN)
    assert reader.refresh() == 0
    with psycopg.connect(migrated_database_url) as early, psycopg.connect(migrated_database_url) as late:
        enrol(late, "took the lower number")
        enrol(early, "committed first", region="west")
        early.commit()
        assert reader.refresh() == 1
        late.commit()
        enrol(early, "of another chain", chain="harbour")
        early.commit()
        assert reader.look(early)
        reader.refresh_if_stale()
        assert gallery.templates == ["committed first", "took the lower number"]
        assert not reader.look(early)
        early.execute("DELETE FROM face_template WHERE id = 'committed first'")
        early.commit()
        assert reader.look(early)
        assert reader.refresh() == 2
        assert not reader.look(early), "what is gone is not looked for again"


def test_only_a_window_is_compared(migrated_database_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gallery_reader, "WINDOW_TEMPLATES", 3)
    gallery = Gallery()
    reader = GalleryReader(gallery, migrated_database_url, CHAIN)
    with psycopg.connect(migrated_database_url, autocommit=True) as conn:
        for n in range(8):
            enrol(conn, f"t-{n}")
            if n % 3 == 0:
                reader.refresh()
        assert reader.refresh() == 8
        assert gallery.templates == [f"t-{n}" for n in range(8)]
        assert not reader.look(conn)


def test_a_database_that_is_away_leaves_what_is_known() -> None:
    reader = GalleryReader(Gallery(), "postgresql://nobody@127.0.0.1:9/none", CHAIN)
    reader.refresh_if_stale()
    with pytest.raises(psycopg.OperationalError):
        reader.refresh()
    reader._stale = True
    reader.refresh_if_stale()
    assert reader.version == 0
