"""A node's gallery misses no template, whoever wrote it and in whichever order they committed, and keeps none."""

from __future__ import annotations

import asyncio
import itertools
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import psycopg
import pytest

from actors.galleries import Galleries
from models.domain.ids import ChainId, MemberId, RegionId, StoreId
from models.domain.recognition import Embedding
from models.faces.embed import to_embedding, unit
from models.faces.gallery import SEQUENCE, Gallery
from models.faces.rotation import rotation_from
from models.faces.segments import SHM_FOLDER, mapped, scope_of, wipe_scope
from models.faces.slab import SharedSlab
from models.faces.templates import Keyring, TemplateVault
from models.tables import pruning, templates
from runtime import gallery_feed
from runtime.datadir import DataDir
from runtime.gallery_feed import GalleryFeed
from runtime.gallery_keeper import GalleryKeeper
from runtime.gallery_snapshots import GallerySpec
from tests.conftest import within

CHAIN, SOUTH, WEST = ChainId("sunrise"), RegionId("south"), RegionId("west")
VAULT = TemplateVault(Keyring.of_one(b"k" * 32))
AT = datetime(2026, 11, 22, tzinfo=UTC)
DEADLINE_S = 30.0


def face(name: str) -> Embedding:
    """Everybody's own direction."""
    rng = np.random.default_rng(int.from_bytes(name.encode(), "little"))
    return to_embedding(unit(rng.normal(size=128).astype(np.float32)))


def enrol(
    conn: psycopg.Connection[Any], name: str, chain: str = CHAIN, region: str = SOUTH, tail: str = "1234"
) -> None:
    conn.execute(
        "INSERT INTO member (id, chain, region, home_store, name, phone_sha256, phone_tail, provider_user, joined_at)"
        " VALUES (%s, %s, %s, 's-1', '', NULL, %s, '', %s)",
        (name, chain, region, tail, AT),
    )
    sealed = VAULT.make_template(MemberId(name), f"t-{name}", "net", "demo", face(name))
    conn.execute(
        "INSERT INTO face_key (id, member, epoch, wrapped, made_at) VALUES (%s, %s, %s, %s, %s)",
        (sealed.key.id, name, sealed.key.epoch, sealed.key.wrapped, AT),
    )
    conn.execute(
        "INSERT INTO face_template (id, member, chain, store, net_sha256, policy, consent, ciphertext, key_id, at,"
        " kind) VALUES (%s, %s, %s, 's-1', 'net', 'demo', 'c', %s, %s, %s, 'enrolment')",
        (sealed.template.id, name, chain, sealed.template.ciphertext, sealed.key.id, AT),
    )


def known(galleries: Galleries, name: str) -> bool:
    """Does the region's gallery have this face?"""
    best = galleries.in_region(CHAIN, face(name)).result.best
    return best is not None and best.member == name and best.score > 0.99


def until(holds: Callable[[], bool]) -> float:
    """Poll; the seconds that it took."""
    began = time.monotonic()
    while not holds():
        assert time.monotonic() - began < DEADLINE_S
    return time.monotonic() - began


@pytest.fixture
def feed() -> tuple[Galleries, GalleryFeed]:
    secret = rotation_from(VAULT.rotation_secret(CHAIN))
    galleries = Galleries(VAULT, "net", lambda _: Gallery(128, secret))
    return galleries, GalleryFeed(galleries, CHAIN, SOUTH)


@pytest.fixture
def make_keeper(migrated_database_url: str, tmp_path: Path) -> Iterator[Callable[[], GalleryKeeper]]:
    place = str(tmp_path)
    made: list[GalleryKeeper] = []

    def make() -> GalleryKeeper:
        made.append(GalleryKeeper(GallerySpec(place, CHAIN, SOUTH, "net", 128), VAULT, migrated_database_url))
        return made[-1]

    yield make
    for keeper in made:
        keeper.stop()
    wipe_scope(scope_of(place))


@pytest.fixture
def conn(migrated_database_url: str) -> Iterator[psycopg.Connection[Any]]:
    with psycopg.connect(migrated_database_url, autocommit=True) as opened:
        yield opened


def test_what_commits_late_is_read_all_the_same(
    migrated_database_url: str, conn: psycopg.Connection[Any], feed: tuple[Galleries, GalleryFeed]
) -> None:
    galleries, reads = feed
    assert reads.load(conn) == 0
    with psycopg.connect(migrated_database_url) as late:
        enrol(late, "took the lower number")
        enrol(conn, "committed first")
        enrol(conn, "of another region", region=WEST)
        enrol(conn, "of another chain", chain="harbour")
        assert reads.stale(conn)
        version = reads.refresh(conn)
        assert version > 1
        assert not known(galleries, "took the lower number")
        late.commit()
    assert reads.stale(conn)
    assert reads.refresh(conn) == version, "the version never falls"
    assert galleries.counts() == {CHAIN: 2}
    assert known(galleries, "took the lower number")
    assert known(galleries, "committed first")
    assert not reads.stale(conn)


def test_removals_and_moves_travel_in_the_same_feed(
    conn: psycopg.Connection[Any], feed: tuple[Galleries, GalleryFeed]
) -> None:
    galleries, reads = feed
    for name in ("stays", "goes", "moves away", "gets a phone"):
        enrol(conn, name, tail="")
    reads.load(conn)
    assert galleries.counts() == {CHAIN: 4}
    conn.execute("DELETE FROM face_template WHERE member = 'goes'")
    conn.execute("UPDATE member SET region = 'west' WHERE id = 'moves away'")
    conn.execute("UPDATE member SET phone_tail = '7777' WHERE id = 'gets a phone'")
    conn.execute("UPDATE member SET name = 'anything' WHERE id = 'stays'")
    assert len(conn.execute("SELECT 1 FROM gallery_change").fetchall()) == 7
    reads.refresh(conn)
    assert galleries.counts() == {CHAIN: 2}
    assert not known(galleries, "goes")
    assert galleries.in_bucket(CHAIN, "7777", face("gets a phone")).result.searched == 1


def test_only_a_window_is_compared(
    conn: psycopg.Connection[Any], feed: tuple[Galleries, GalleryFeed], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gallery_feed, "WINDOW_CHANGES", 3)
    galleries, reads = feed
    reads.load(conn)
    for n in range(8):
        enrol(conn, f"m-{n}")
        if n % 3 == 0:
            reads.refresh(conn)
    reads.refresh(conn)
    assert all(known(galleries, f"m-{n}") for n in range(8))
    assert (len(reads._read), reads.stale(conn)) == (3, False)


def prune(url: str, at: datetime) -> int:
    """As the hourly sweep does, until nothing is left to forget."""

    async def run() -> int:
        async with await psycopg.AsyncConnection.connect(url, autocommit=True) as conn:
            forgotten = 0
            while gone := await pruning.prune_feed(conn, at):
                forgotten += gone
            return forgotten

    return asyncio.run(run())


def test_a_pruned_feed_is_read_on_and_who_fell_behind_reads_everything(
    migrated_database_url: str,
    conn: psycopg.Connection[Any],
    feed: tuple[Galleries, GalleryFeed],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(gallery_feed, "WINDOW_CHANGES", 3)
    monkeypatch.setattr(templates, "WINDOW_CHANGES", 3)
    monkeypatch.setattr(pruning, "FEED_KEPT_CHANGES", 5)
    monkeypatch.setattr(pruning, "FEED_PRUNED_AT_ONCE", 2)
    secret = rotation_from(VAULT.rotation_secret(CHAIN))
    slow = Galleries(VAULT, "net", lambda _: Gallery(128, secret))
    behind = GalleryFeed(slow, CHAIN, SOUTH)
    galleries, reads = feed
    for name in ("stays", "goes"):
        enrol(conn, name)
    enrol(conn, "of another chain", chain="harbour")
    reads.load(conn)
    behind.load(conn)
    for n in range(10):
        enrol(conn, f"m-{n}")
    conn.execute("DELETE FROM face_template WHERE member = 'goes'")
    reads.refresh(conn)
    now, later = datetime.now(UTC), datetime.now(UTC) + timedelta(hours=pruning.FEED_KEPT_HOURS + 1)
    assert prune(migrated_database_url, now) == 0, "a day is kept, however many there are"
    conn.execute("UPDATE gallery_change SET at = %s WHERE n = 3 AND chain = 'harbour'", (AT,))
    assert prune(migrated_database_url, later) == 7
    left = "SELECT kind, count(*) FROM gallery_change WHERE chain = 'sunrise' GROUP BY 1 ORDER BY 1"
    assert conn.execute(left).fetchall() == [("pruned", 1), ("removal", 1), ("upsert", 4)]
    assert prune(migrated_database_url, later) == 0

    assert not reads.stale(conn)
    enrol(conn, "new")
    with monkeypatch.context() as patch:
        patch.setattr(GalleryFeed, "load", lambda *_: pytest.fail("who is in step goes on"))
        assert reads.refresh(conn) == 15
    assert known(galleries, "new")

    assert behind.stale(conn)
    assert behind.refresh(conn) == 15
    assert behind.erased, "a removal may be among what it missed: a snapshot with it must go"
    assert all(known(slow, name) for name in ("stays", "m-0", "m-9", "new"))
    assert not known(slow, "goes")
    assert not behind.stale(conn)


def test_a_gallery_older_than_the_pruned_feed_is_read_again(
    migrated_database_url: str,
    conn: psycopg.Connection[Any],
    make_keeper: Callable[[], GalleryKeeper],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(templates, "WINDOW_CHANGES", 3)
    monkeypatch.setattr(pruning, "FEED_KEPT_CHANGES", 5)
    first, second = make_keeper(), make_keeper()
    enrol(conn, "known")
    enrol(conn, "goes")
    first.keep(conn)
    first._slab.close()  # as the system does it when a process ends
    conn.execute("DELETE FROM face_template WHERE member = 'goes'")
    for n in range(8):
        enrol(conn, f"m-{n}")
    prune(migrated_database_url, datetime.now(UTC) + timedelta(days=2))
    assert second.keep(conn) == 11
    assert not known(second.galleries, "goes")
    assert known(second.galleries, "known")
    assert known(second.galleries, "m-0")


def test_an_enrolment_is_searchable_in_every_process_within_a_second(
    conn: psycopg.Connection[Any], make_keeper: Callable[[], GalleryKeeper]
) -> None:
    keepers = [make_keeper() for _ in range(3)]
    assert all(keeper.galleries.in_region(CHAIN, face("anybody")).partial for keeper in keepers), "nothing is loaded"
    for keeper in keepers:
        keeper.watch()
    assert all(keeper.wait_until_whole(DEADLINE_S) for keeper in keepers)
    assert sorted(keeper.health()["keeper"] for keeper in keepers) == [False, False, True]
    names = (f"new {n}" for n in itertools.count())

    def moved_after_s() -> float:
        name = next(names)
        enrol(conn, name)
        came = until(lambda: all(known(keeper.galleries, name) for keeper in keepers))
        conn.execute("DELETE FROM face_template WHERE member = %s", (name,))
        return max(came, until(lambda: not any(known(keeper.galleries, name) for keeper in keepers)))

    within(1.0, moved_after_s)


def test_another_process_keeps_on_where_the_keeper_died(
    conn: psycopg.Connection[Any], make_keeper: Callable[[], GalleryKeeper], monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second = make_keeper(), make_keeper()
    enrol(conn, "known")
    assert first.keep(conn) is not None
    assert second.keep(conn) is None, "one writer"
    assert known(second.galleries, "known")
    first._slab.close()  # as the system does it when a process ends
    enrol(conn, "came between")
    monkeypatch.setattr(GalleryFeed, "load", lambda *_: pytest.fail("it goes on from what is there"))
    assert second.keep(conn) == 2
    assert known(second.galleries, "came between")
    assert known(first.galleries, "came between"), "which still reads the same memory"


KEEP = """
import sys
from models.domain.ids import ChainId, RegionId
from models.faces.templates import Keyring, TemplateVault
from runtime.gallery_keeper import GalleryKeeper, GallerySpec
spec = GallerySpec(sys.argv[1], ChainId("sunrise"), RegionId("south"), "net", 128)
keeper = GalleryKeeper(spec, TemplateVault(Keyring.of_one(b"k" * 32)), sys.argv[2])
keeper.watch()
keeper.wait_until_whole(30.0)
print(keeper.health()["keeper"], flush=True)
sys.stdin.read()
"""


def test_a_killed_keeper_leaves_its_memory_to_the_next(
    conn: psycopg.Connection[Any],
    make_keeper: Callable[[], GalleryKeeper],
    monkeypatch: pytest.MonkeyPatch,
    migrated_database_url: str,
) -> None:
    here = make_keeper()
    enrol(conn, "known")
    started = [sys.executable, "-c", KEEP, here._spec.place, migrated_database_url]
    with subprocess.Popen(started, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as other:
        assert other.stdout is not None
        while (said := other.stdout.readline().strip()) not in {"True", ""}:
            pass  # its log
        assert said == "True"
        until(lambda: known(here.galleries, "known"))
        monkeypatch.setattr(GalleryFeed, "load", lambda *_: pytest.fail("it goes on from what is there"))
        here.watch()
        assert not here.health()["keeper"]
        names = (f"read by the other process {n}" for n in itertools.count())

        def read_after_s() -> float:
            name = next(names)
            enrol(conn, name)
            return until(lambda: known(here.galleries, name))

        within(1.0, read_after_s)
        other.kill()
    until(lambda: here.health()["keeper"])
    assert known(here.galleries, "known")
    enrol(conn, "read by this one")
    until(lambda: known(here.galleries, "read by this one"))


@pytest.mark.parametrize("harm", ["died while it moved rows", "died while it loaded", "the database was set back"])
def test_a_gallery_that_cannot_be_trusted_is_read_again(
    conn: psycopg.Connection[Any], make_keeper: Callable[[], GalleryKeeper], harm: str
) -> None:
    first, second = make_keeper(), make_keeper()
    enrol(conn, "known")
    enrol(conn, "lost with the database")
    first.keep(conn)
    assert first._kept is not None
    gallery, _ = first._kept
    if harm == "died while it moved rows":
        gallery._memory.header[SEQUENCE] |= np.uint64(1)
    elif harm == "died while it loaded":
        gallery.begin_load(5)
    else:
        conn.execute("DELETE FROM gallery_change WHERE n > 1")
    conn.execute("ALTER TABLE face_template DISABLE TRIGGER gallery_templates_went")
    conn.execute("DELETE FROM face_template WHERE member LIKE 'lost%'")
    if harm != "the database was set back":
        assert second.galleries.in_region(CHAIN, face("known")).partial
    first._slab.close()
    second.keep(conn)
    assert known(second.galleries, "known")
    assert not known(second.galleries, "lost with the database")
    assert not second.galleries.in_region(CHAIN, face("known")).partial


def test_digits_reach_the_other_regions_and_keep_nothing(
    conn: psycopg.Connection[Any], make_keeper: Callable[[], GalleryKeeper]
) -> None:
    keeper = make_keeper()
    enrol(conn, "at home", tail="1111")
    enrol(conn, "from the west", region=WEST, tail="1111")
    enrol(conn, "west, other digits", region=WEST, tail="2222")
    keeper.keep(conn)
    assert not known(keeper.galleries, "from the west")
    found = keeper.galleries.in_bucket(CHAIN, "1111", face("from the west"))
    assert found.result.best is not None
    assert (found.result.best.member, found.result.searched, found.partial) == ("from the west", 2, False)
    conn.execute("DELETE FROM face_template WHERE member = 'from the west'")
    assert keeper.galleries.in_bucket(CHAIN, "1111", face("from the west")).result.searched == 1


def test_a_store_s_recent_visitors_are_searched_with_its_members(
    conn: psycopg.Connection[Any], make_keeper: Callable[[], GalleryKeeper]
) -> None:
    keeper = make_keeper()
    enrol(conn, "visitor")
    keeper.watch()
    assert keeper.wait_until_whole(DEADLINE_S)
    store = StoreId("s-2")
    assert keeper.galleries.in_store(CHAIN, store, face("visitor")).result.searched == 0
    conn.execute(
        """INSERT INTO sale (id, receipt, session, store, lane, terminal, entity, business_date, at, member, gross_fen,
             discount_fen, due_fen, rounding_fen, suspense_fen, agency_fen, lines, tenders, uses, till_txn)
           VALUES ('s', 'r', 'v', 's-3', 'l', 't', 'e', '2026-11-22', now(), 'visitor', 1, 0, 1, 0, 0, 0, '[]', '[]',
             '[]', '')"""
    )
    store = StoreId("s-3")
    until(lambda: keeper.galleries.in_store(CHAIN, store, face("visitor")).result.searched == 1)


def test_a_database_that_is_away_leaves_what_is_known(
    conn: psycopg.Connection[Any], make_keeper: Callable[[], GalleryKeeper]
) -> None:
    keeper = make_keeper()
    enrol(conn, "known")
    keeper.keep(conn)
    keeper._url = "postgresql://nobody@127.0.0.1:9/none"
    keeper.watch()
    until(lambda: keeper.health()["error"] == "OperationalError")
    assert known(keeper.galleries, "known")
    bucket = keeper.galleries.in_bucket(CHAIN, "1234", face("known"))
    assert bucket.partial, "members of other regions could not be looked up"
    assert bucket.result.best is not None


def test_a_sealed_copy_shortens_a_start_and_ends_with_an_erasure(
    conn: psycopg.Connection[Any], make_keeper: Callable[[], GalleryKeeper], monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second, third = make_keeper(), make_keeper(), make_keeper()
    for keeper in (first, second, third):
        keeper._snapshots._templates_min, keeper._snapshots._every_s = 2, 0.0
    for name in ("stays", "goes", "goes too"):
        enrol(conn, name)
    first.keep(conn)
    path = first._snapshots.path
    assert path.exists()
    first._slab.close()
    wipe_scope(scope_of(first._spec.place))  # as after a restart of the machine

    conn.execute("DELETE FROM face_template WHERE member = 'goes'")
    monkeypatch.setattr(GalleryFeed, "load", lambda *_: pytest.fail("the copy is there"))
    seen: list[bool] = []
    resume = GalleryFeed.resume

    def watched(feed: GalleryFeed, *more: Any) -> int:
        seen.append(known(second.galleries, "goes"))
        return resume(feed, *more)

    monkeypatch.setattr(GalleryFeed, "resume", watched)
    second.keep(conn)
    assert (seen, known(second.galleries, "goes"), known(second.galleries, "stays")) == ([False], False, True)
    rewritten = path.read_bytes()
    conn.execute("DELETE FROM face_template WHERE member = 'goes too'")
    second.keep(conn)
    assert not path.exists(), "too few are left for another one"

    path.write_bytes(rewritten[:-1])
    second._slab.close()
    wipe_scope(scope_of(first._spec.place))
    monkeypatch.undo()
    third.keep(conn)
    assert not path.exists(), "refused and removed"
    assert (known(third.galleries, "goes too"), known(third.galleries, "stays")) == (False, True)


def test_a_process_that_outlives_its_house_makes_no_gallery_again(
    conn: psycopg.Connection[Any], make_keeper: Callable[[], GalleryKeeper]
) -> None:
    first, second = make_keeper(), make_keeper()
    enrol(conn, "known")
    first.keep(conn)
    assert known(second.galleries, "known")
    first._slab.close()
    assert len(wipe_scope(scope_of(first._spec.place))) == 2
    assert second.keep(conn) is None
    assert wipe_scope(scope_of(first._spec.place)) == []
    assert not known(second.galleries, "known"), "what it still reads was overwritten"


def test_what_a_killed_deployment_left_is_wiped_by_the_next_start_of_any(tmp_path: Path) -> None:
    places = [tmp_path / name for name in ("killed", "runs", "kept", "other")]
    for place in places:
        place.mkdir()
    killed, runs, kept, _ = (SharedSlab(scope_of(str(place)), b"one", str(place)) for place in places)
    running, other = DataDir(places[1], None), DataDir(places[3], None)
    try:
        with running.held():
            for slab in (killed, runs, kept):
                assert slab.lock()
                slab.make(1, 4_096)[:4] = b"face"
                if slab is not kept:  # a process holds it, whose house is on another machine
                    slab.close()
            rows = mapped(f"{killed.name}-1", writable=False)
            with other.held():
                assert rows[:4] == bytes(4), "overwritten, not only removed"
                assert (_left(killed), _left(runs), _left(kept)) == ([], ["-1", "-h"], ["-1", "-h"])
        assert _left(runs) == [], "it cleans up after itself"
    finally:
        kept.close()
        for place in places:
            wipe_scope(scope_of(str(place)))


def _left(slab: SharedSlab) -> list[str]:
    return sorted(path.name.removeprefix(slab.name) for path in SHM_FOLDER.glob(f"{slab.name}-*"))
