"""Templates at rest, and the feed of their changes that every gallery follows, whoever wrote them.

The database itself writes the feed, in the same transaction: no insert, removal or move of a member can be forgotten.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import datetime
from typing import Any

from psycopg import AsyncConnection, Connection
from sqlalchemy import BigInteger, Column, Index, func
from sqlmodel import Field, SQLModel

from models.domain.ids import ChainId, MemberId, RegionId, StoreId
from models.domain.messages import KeyRow, TemplateKind, TemplateRow
from models.domain.recognition import GalleryRow
from models.tables.base import instant
from models.tables.nets import retire_templates

WINDOW_CHANGES = 4_096
"""Numbers are taken before the commit, so a lower one may become visible after a higher one. A transaction of a host
lasts two seconds at most: none that is still open holds a number so many changes back."""
PRUNED = "pruned"
FETCHED_AT_ONCE = 4_096
BUCKET_TEMPLATES_MAX = 2_048
"""Templates of other regions behind four digits; a chain of 10 million has about 1,000."""


class GalleryChangeRow(SQLModel, table=True):
    """A template came (`upsert`) or went (`removal`), or its member moved (`upsert`). `n` is the gallery's version.

    `pruned`: this number of the chain and all below are forgotten (models.tables.pruning); the lowest row, if any.
    """

    __tablename__ = "gallery_change"
    __table_args__ = (Index("gallery_change_chain", "chain", "n"),)
    n: int | None = Field(default=None, sa_column=Column(BigInteger, primary_key=True, autoincrement=True))
    chain: str
    member: str
    template: str
    kind: str
    at: datetime = instant(sa_column_kwargs={"server_default": func.now()})


# ---------------------------------------------------------------- whoever writes


async def hold_member(conn: AsyncConnection[Any], member: str) -> None:
    """Wait for a withdrawal or erasure of the member that is under way, and let none begin before the commit: what the
    next statement reads of the member's consent then holds. Those verbs take the same row."""
    await conn.execute("SELECT 1 FROM member WHERE id = %s FOR SHARE", (member,))


async def add_template(
    conn: AsyncConnection[Any], template: TemplateRow, *, chain: str, store: str, consent: str, at: datetime
) -> None:
    """Store a template; every gallery of its member's region has it within a second of the commit.

    Again: nothing. Statements only, so that it may run in a pipeline. Its key is another row (models.tables.keys).
    One that was not enrolled comes only beside others of the member, so that a withdrawal in between stands; one of
    a changed net only if the member has none of that net yet. See `retire_templates` for what gives way.
    """
    await hold_member(conn, template.member)
    await conn.execute(
        """INSERT INTO face_template
             (id, member, chain, store, net_sha256, policy, consent, ciphertext, key_id, kind, at)
           SELECT %(id)s, %(member)s::text, %(chain)s::text, %(store)s, %(net)s::text, %(policy)s, %(consent)s,
             %(ciphertext)s, %(key_id)s, %(kind)s::text, %(at)s WHERE %(kind)s = 'enrolment' OR (
               EXISTS (SELECT 1 FROM face_template WHERE member = %(member)s AND chain = %(chain)s) AND (
                 %(kind)s = 'adaptive' OR NOT EXISTS (SELECT 1 FROM face_template
                   WHERE member = %(member)s AND chain = %(chain)s AND net_sha256 = %(net)s)))
           ON CONFLICT (member, id) DO NOTHING""",
        {
            "id": template.id,
            "member": template.member,
            "chain": chain,
            "store": store,
            "net": template.net_sha256,
            "policy": template.policy,
            "consent": consent,
            "ciphertext": template.ciphertext,
            "key_id": template.key_id,
            "kind": template.kind.value,
            "at": at,
        },
    )
    await retire_templates(conn, template, chain)


async def remove_member(conn: AsyncConnection[Any], chain: str, member: str) -> list[str]:
    """Delete a member's templates; for each the part of the table that held it. Every gallery has lost them within a
    second of the commit. Again: none."""
    cursor = await conn.execute(
        "DELETE FROM face_template WHERE chain = %s AND member = %s RETURNING tableoid::regclass::text", (chain, member)
    )
    return [row[0] for row in await cursor.fetchall()]


async def template_parts(conn: AsyncConnection[Any]) -> list[str]:
    """The parts of the table."""
    cursor = await conn.execute(
        "SELECT inhrelid::regclass::text FROM pg_inherits WHERE inhparent = 'face_template'::regclass ORDER BY 1"
    )
    return [row[0] for row in await cursor.fetchall()]


# ---------------------------------------------------------------- the feed


def count_after(conn: Connection[Any], chain: ChainId, low: int) -> int:
    """How many changes of the chain have a number above `low`."""
    row = conn.execute("SELECT count(*) FROM gallery_change WHERE chain = %s AND n > %s", (chain, low)).fetchone()
    assert row is not None
    return int(row[0])


def changes_after(conn: Connection[Any], chain: ChainId, low: int) -> list[tuple[int, MemberId, bool]] | None:
    """Numbers above `low`, whom they concern and whether a template was removed, rising.

    None: some of them are forgotten, so that only the templates themselves tell what there is.
    """
    rows = conn.execute(
        "SELECT n, member, kind FROM gallery_change WHERE chain = %s AND n > %s ORDER BY n", (chain, low)
    ).fetchall()
    if rows and rows[0][2] == PRUNED:
        return None
    return [(int(row[0]), MemberId(row[1]), row[2] == "removal") for row in rows]


def newest_change(conn: Connection[Any], chain: ChainId) -> int:
    """The highest number of the chain; 0 when nothing ever changed."""
    row = conn.execute("SELECT coalesce(max(n), 0) FROM gallery_change WHERE chain = %s", (chain,)).fetchone()
    assert row is not None
    return int(row[0])


def window_start(conn: Connection[Any], chain: ChainId, upto: int | None = None) -> int:
    """The number below the newest WINDOW_CHANGES of the chain (of those up to `upto`); 0 when there are fewer."""
    row = conn.execute(
        """SELECT n FROM gallery_change WHERE chain = %(chain)s AND (%(upto)s::bigint IS NULL OR n <= %(upto)s)
           ORDER BY n DESC OFFSET %(window)s LIMIT 1""",
        {"chain": chain, "upto": upto, "window": WINDOW_CHANGES},
    ).fetchone()
    return int(row[0]) if row else 0


# ---------------------------------------------------------------- what the feed points at

_COLUMNS = """t.id, t.member, t.net_sha256, t.ciphertext, t.key_id, t.policy, k.epoch, k.wrapped, t.chain,
  m.home_store, m.phone_tail, t.kind"""
_GALLERY = "t.chain = %s AND m.region = %s AND t.net_sha256 = %s"
_FROM = "face_template t JOIN member m ON m.id = t.member JOIN face_key k ON k.id = t.key_id"


def templates_of(
    conn: Connection[Any], chain: ChainId, region: RegionId, net: str, members: Sequence[MemberId]
) -> list[GalleryRow]:
    """The net's templates of these members as far as they belong to the region."""
    rows = conn.execute(
        f"SELECT {_COLUMNS} FROM {_FROM} WHERE {_GALLERY} AND t.member = ANY(%s) ORDER BY t.n",
        (chain, region, net, list(members)),
    ).fetchall()
    return [_row(row) for row in rows]


def count_templates(conn: Connection[Any], chain: ChainId, region: RegionId, net: str) -> int:
    """How many the region has of the net."""
    row = conn.execute(f"SELECT count(*) FROM {_FROM} WHERE {_GALLERY}", (chain, region, net)).fetchone()
    assert row is not None
    return int(row[0])


def all_templates(conn: Connection[Any], chain: ChainId, region: RegionId, net: str) -> Iterator[GalleryRow]:
    """Every template of the region and net, by a server-side cursor inside the caller's transaction."""
    with conn.cursor(name="gallery", binary=True) as cursor:
        cursor.itersize = FETCHED_AT_ONCE
        cursor.execute(f"SELECT {_COLUMNS} FROM {_FROM} WHERE {_GALLERY}", (chain, region, net))
        for row in cursor:
            yield _row(row)


def bucket_elsewhere(conn: Connection[Any], chain: ChainId, region: RegionId, net: str, tail: str) -> list[GalleryRow]:
    """Templates of the chain's other regions whose members' phones end in these digits; BUCKET_TEMPLATES_MAX at most
    and one more, by which the caller sees that there were more."""
    rows = conn.execute(
        f"""SELECT {_COLUMNS} FROM {_FROM}
            WHERE m.chain = %s AND m.phone_tail = %s AND m.region <> %s AND t.chain = %s AND t.net_sha256 = %s
            ORDER BY t.n LIMIT %s""",
        (chain, tail, region, chain, net, BUCKET_TEMPLATES_MAX + 1),
    ).fetchall()
    return [_row(row) for row in rows]


def recent_visitors(conn: Connection[Any], store: StoreId, since: datetime, limit: int) -> list[MemberId]:
    """Members whom their face or their purchase showed in the store since then, the latest last."""
    rows = conn.execute(
        """SELECT member FROM (
             SELECT member, max(at) AS seen FROM (
               SELECT member, at FROM face_decision WHERE store = %(store)s AND at > %(since)s
                 AND outcome = 'accepted' AND member IS NOT NULL
               UNION ALL
               SELECT member, at FROM sale WHERE store = %(store)s AND at > %(since)s AND member IS NOT NULL
             ) AS seen GROUP BY member ORDER BY seen DESC LIMIT %(limit)s) AS latest ORDER BY seen""",
        {"store": store, "since": since, "limit": limit},
    ).fetchall()
    return [MemberId(row[0]) for row in rows]


def _row(row: Sequence[Any]) -> GalleryRow:
    member = MemberId(row[1])
    return GalleryRow(
        TemplateRow(row[0], member, row[2], bytes(row[3]), row[4], row[5], TemplateKind(row[11])),
        KeyRow(row[4], member, row[6], bytes(row[7])),
        ChainId(row[8]),
        StoreId(row[9]),
        row[10],
    )
