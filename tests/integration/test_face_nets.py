"""Templates of several nets at rest: what gives way to a new one, and what `storeops faces nets` tells of them."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from psycopg import AsyncConnection, Connection

from models.domain.ids import MemberId
from models.domain.messages import KeyRow, TemplateKind, TemplateRow
from models.domain.nets import ADAPTIVE_MAX
from models.faces.catalogue import load_catalogue, recognisers
from models.tables.keys import add_key
from models.tables.nets import digests_in_use, nets_in_use
from models.tables.templates import add_template, remove_member
from runtime.face_nets import chain_nets

AT = datetime(2026, 11, 22, 8, tzinfo=UTC)
CHAIN = "sunrise"
OLD, NEW = "a" * 64, "b" * 64
LI, WANG = MemberId("li"), MemberId("wang")


@pytest.fixture
async def conn(migrated_database_url: str) -> AsyncIterator[AsyncConnection[Any]]:
    async with await AsyncConnection.connect(migrated_database_url, autocommit=True) as connection:
        yield connection


async def store(
    conn: AsyncConnection[Any],
    name: str,
    member: MemberId = LI,
    net: str = OLD,
    kind: TemplateKind = TemplateKind.ENROLMENT,
    chain: str = CHAIN,
    minutes: int = 0,
) -> None:
    """As a session's commit does it."""
    at = AT + timedelta(minutes=minutes)
    async with conn.transaction():
        row = TemplateRow(name, member, net, b"sealed", name, "production", kind)
        await add_template(conn, row, chain=chain, store="s-1", consent="c", at=at)
        await add_key(conn, KeyRow(name, member, 1, b"wrapped"), at)


async def held(conn: AsyncConnection[Any]) -> tuple[list[str], list[str]]:
    """Ids of templates and of keys: always the same ones."""
    templates = await (await conn.execute("SELECT id FROM face_template ORDER BY id")).fetchall()
    keys = await (await conn.execute("SELECT id FROM face_key ORDER BY id")).fetchall()
    return [row[0] for row in templates], [row[0] for row in keys]


async def test_a_template_of_the_new_net_takes_the_place_of_the_old_ones(conn: AsyncConnection[Any]) -> None:
    await store(conn, "old-1")
    await store(conn, "old-2")
    await store(conn, "wang", WANG)
    await store(conn, "other", chain="harbour")
    await store(conn, "new", net=NEW, kind=TemplateKind.MIGRATED)
    assert await held(conn) == (["new", "other", "wang"], ["new", "other", "wang"])
    changes = await (await conn.execute("SELECT template, kind FROM gallery_change ORDER BY n")).fetchall()
    assert set(changes[-3:]) == {("new", "upsert"), ("old-1", "removal"), ("old-2", "removal")}
    await store(conn, "again", net=NEW, kind=TemplateKind.MIGRATED)
    assert "again" not in (await held(conn))[0], "another lane was faster"
    await store(conn, "enrolled anew", net=OLD)
    assert (await held(conn))[0] == ["enrolled anew", "other", "wang"], "three shots of any net count more"


async def test_what_was_not_enrolled_does_not_outlive_a_withdrawal(conn: AsyncConnection[Any]) -> None:
    """Between the look and the commit the member's templates were erased: nothing comes back, not even a key."""
    await store(conn, "old")
    assert len(await remove_member(conn, CHAIN, LI)) == 1
    await conn.execute("DELETE FROM face_key")
    await store(conn, "late", net=NEW, kind=TemplateKind.MIGRATED)
    await store(conn, "later", net=NEW, kind=TemplateKind.ADAPTIVE)
    assert await held(conn) == ([], [])


async def test_adaptive_templates_are_few_and_the_enrolled_one_stays(conn: AsyncConnection[Any]) -> None:
    await store(conn, "enrolled")
    for k in range(ADAPTIVE_MAX + 2):
        await store(conn, f"visit-{k}", kind=TemplateKind.ADAPTIVE)
    latest = [f"visit-{k}" for k in range(2, ADAPTIVE_MAX + 2)]
    assert await held(conn) == (["enrolled", *latest], ["enrolled", *latest])


async def test_progress_is_told(conn: AsyncConnection[Any], migrated_database_url: str) -> None:
    current = recognisers(load_catalogue())[0]
    assert await told(migrated_database_url) == [(current.name, True, True, 0, 0, 0, None)]
    await store(conn, "li")
    await store(conn, "wang", WANG)
    await store(conn, "li-8", net=current.identity, kind=TemplateKind.MIGRATED, minutes=5)
    await store(conn, "li-9", net=current.identity, kind=TemplateKind.ADAPTIVE, minutes=9)
    assert await told(migrated_database_url) == [
        (current.name, True, True, 1, 1, 1, "2026-11-22T08:05:00+00:00"),
        ("", False, False, 1, 0, 0, None),
    ]
    with Connection.connect(migrated_database_url) as sync:
        assert digests_in_use(sync, CHAIN) == {OLD, current.identity}
        assert digests_in_use(sync, "harbour") == set()
        assert [use.enrolled for use in nets_in_use(sync)] == [0, 1]


async def told(url: str) -> list[tuple[str, bool, bool, int, int, int, str | None]]:
    used = chain_nets([(CHAIN, url, {})], load_catalogue())
    return [
        (one.net, one.current, one.known, one.members, one.migrated, one.adaptive, utc(one.migrated_at)) for one in used
    ]


def utc(at: str | None) -> str | None:
    return None if at is None else datetime.fromisoformat(at).astimezone(UTC).isoformat()
