"""Keys of members, apart from what they seal: a row overwritten and deleted here erases templates wherever they are.

No foreign key ties a template to its key: destroying a key must never wait for what it seals.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from datetime import datetime
from typing import Any

from psycopg import AsyncConnection, Connection
from psycopg.rows import TupleRow
from sqlalchemy import Index
from sqlmodel import Field, SQLModel

from models.domain.ids import MemberId
from models.domain.messages import KeyRow
from models.tables.base import blob, instant


class KeyTableRow(SQLModel, table=True):
    """A member's key as the master key of `epoch` wraps it. Stored in parts by the hash of its id (migration 0007)."""

    __tablename__ = "face_key"
    __table_args__ = (Index("face_key_member", "member"), {"postgresql_partition_by": "HASH (id)"})
    id: str = Field(primary_key=True)
    member: str
    epoch: int
    wrapped: bytes = blob()
    made_at: datetime = instant()


async def add_key(conn: AsyncConnection[TupleRow], key: KeyRow, at: datetime) -> None:
    """Store the key of a template that this transaction stored, and no other: one that was refused needs none."""
    await conn.execute(
        """INSERT INTO face_key (id, member, epoch, wrapped, made_at) SELECT %s, %s, %s, %s, %s
           WHERE EXISTS (SELECT 1 FROM face_template WHERE member = %s AND key_id = %s) ON CONFLICT (id) DO NOTHING""",
        (key.id, key.member, key.epoch, key.wrapped, at, key.member, key.id),
    )


async def destroy_keys(conn: AsyncConnection[Any], member: MemberId) -> list[str]:
    """Delete a member's keys; for each the part of the table that held it. What they seal opens nowhere once this
    commits, and the rows leave the files once those parts are written anew (runtime.erasure)."""
    cursor = await conn.execute("DELETE FROM face_key WHERE member = %s RETURNING tableoid::regclass::text", (member,))
    return [row[0] for row in await cursor.fetchall()]


async def key_parts(conn: AsyncConnection[Any]) -> list[str]:
    """The parts of the table."""
    cursor = await conn.execute(
        "SELECT inhrelid::regclass::text FROM pg_inherits WHERE inhparent = 'face_key'::regclass ORDER BY 1"
    )
    return [row[0] for row in await cursor.fetchall()]


# ---------------------------------------------------------------- epochs


def any_epoch_beyond(conn: Connection[Any], known: Collection[int]) -> int | None:
    """An epoch that some key is wrapped by and that is not among the known ones; None when there is none."""
    row = conn.execute("SELECT epoch FROM face_key WHERE epoch <> ALL(%s::int[]) LIMIT 1", (list(known),)).fetchone()
    return None if row is None else int(row[0])


def count_other_epochs(conn: Connection[Any], epoch: int) -> dict[int, int]:
    """How many keys each other epoch wraps."""
    rows = conn.execute("SELECT epoch, count(*) FROM face_key WHERE epoch <> %s GROUP BY epoch", (epoch,))
    return {int(row[0]): int(row[1]) for row in rows.fetchall()}


def lock_keys_of_other_epochs(conn: Connection[Any], epoch: int, after: str, limit: int) -> list[KeyRow]:
    """The next keys by id that another epoch wraps, locked until the transaction ends."""
    rows = conn.execute(
        """SELECT id, member, epoch, wrapped FROM face_key WHERE id > %s AND epoch <> %s
           ORDER BY id LIMIT %s FOR UPDATE""",
        (after, epoch, limit),
    )
    return [KeyRow(row[0], MemberId(row[1]), row[2], bytes(row[3])) for row in rows.fetchall()]


def store_wrapped(conn: Connection[Any], keys: Sequence[KeyRow]) -> None:
    """Put keys in the place of what another epoch wrapped."""
    conn.execute(
        """UPDATE face_key k SET epoch = v.epoch, wrapped = v.wrapped
           FROM unnest(%s::text[], %s::int[], %s::bytea[]) AS v (id, epoch, wrapped) WHERE k.id = v.id""",
        ([key.id for key in keys], [key.epoch for key in keys], [key.wrapped for key in keys]),
    )
