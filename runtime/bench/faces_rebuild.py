"""A gallery rebuilt from its sealed rows in PostgreSQL: 20,000 of them, or as many as `--templates` says."""

from __future__ import annotations

import os
import time
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import numpy as np
import psycopg

from actors.galleries import Galleries
from models.domain.ids import ChainId, MemberId, RegionId
from models.faces.embed import to_embedding
from models.faces.gallery import Gallery
from models.faces.rotation import rotation_from
from models.faces.templates import Keyring, TemplateVault
from models.tables import migrate
from models.tables.templates import all_templates
from runtime.bench.faces_search import BLOCK, DIMENSION, units
from runtime.bench.form import Row, row
from runtime.gallery_feed import GalleryFeed
from runtime.postgres import EmbeddedPostgres

if TYPE_CHECKING:
    from runtime.bench.faces import Advance, Ground

STEPS = 2
TARGET = f">= {1_000_000 // 60}"
CHAIN, REGION, NET = ChainId("bench"), RegionId("bench"), "bench"


def measure(ground: Ground, advance: Advance) -> list[Row]:
    """From sealed rows in PostgreSQL to a gallery that is searched; beside it, the same rows only read.

    Raises NeedsOperator when the database does not start.
    """
    count = ground.templates
    vault = TemplateVault(Keyring.of_one(os.urandom(32)))
    folder = ground.folder / "rebuild"
    folder.mkdir(mode=0o755)
    server = EmbeddedPostgres(folder)
    server.start()
    try:
        migrate.upgrade(server.url)
        with psycopg.connect(server.url, autocommit=True) as conn:
            for start in range(0, count, BLOCK):
                _fill(conn, vault, start, min(BLOCK, count - start))
            advance(f"rebuild: {count:,} templates sealed and stored")
            conn.execute("ANALYZE")
            began = time.monotonic()
            with conn.transaction():
                read = sum(1 for _ in all_templates(conn, CHAIN, REGION, NET))
            only_read = time.monotonic() - began
            rotation = rotation_from(vault.rotation_secret(CHAIN), DIMENSION)
            galleries = Galleries(vault, NET, lambda _: Gallery(DIMENSION, rotation))
            began, spent = time.monotonic(), time.process_time()
            GalleryFeed(galleries, CHAIN, REGION).load(conn)
            took, cpu = time.monotonic() - began, time.process_time() - spent
    finally:
        server.stop()
    assert galleries.counts()[CHAIN] == read == count
    advance("rebuild")
    what = f"gallery rebuilt from the database, {count:,} sealed templates"
    read_alone = "the same rows only read"
    return [
        row(what, count / took, "templates/s", read_alone, count / only_read, TARGET),
        row(f"{what}: CPU of the process that rebuilds", cpu, "s", "the time that it took", took),
    ]


def _fill(conn: psycopg.Connection[Any], vault: TemplateVault, first: int, count: int) -> None:
    now = datetime.now(UTC)
    vectors = units(np.random.default_rng(first), count)
    members = [MemberId(f"member-{first + n:012d}") for n in range(count)]
    sealed = [
        vault.make_template(member, f"t-{member}", NET, "production", to_embedding(vector))
        for member, vector in zip(members, vectors, strict=True)
    ]
    with conn.cursor() as cursor:
        with cursor.copy(
            "COPY member (id, chain, region, home_store, name, phone_tail, provider_user, joined_at) FROM STDIN"
        ) as copy:
            for n, member in enumerate(members):
                copy.write_row((member, CHAIN, REGION, f"s-{n % 100}", "", f"{n % 10_000:04d}", "", now))
        with cursor.copy("COPY face_key (id, member, epoch, wrapped, made_at) FROM STDIN") as copy:
            for one in sealed:
                copy.write_row((one.key.id, one.key.member, one.key.epoch, one.key.wrapped, now))
        with cursor.copy(
            "COPY face_template (id, member, chain, store, net_sha256, policy, consent, ciphertext, key_id, kind, at)"
            " FROM STDIN"
        ) as copy:
            for one in sealed:
                made = one.template
                copy.write_row(
                    (
                        made.id,
                        made.member,
                        CHAIN,
                        "s",
                        NET,
                        made.policy,
                        "c",
                        made.ciphertext,
                        made.key_id,
                        made.kind,
                        now,
                    )
                )
