"""Keys of members, apart from what they seal: a row overwritten and deleted here erases templates wherever they are.

No foreign key ties a template to its key: destroying a key must never wait for what it seals.
"""

from __future__ import annotations

from datetime import datetime

from psycopg import AsyncConnection
from psycopg.rows import TupleRow
from sqlalchemy import Index
from sqlmodel import Field, SQLModel

from models.domain.messages import KeyRow
from models.tables.base import blob, instant


class KeyTableRow(SQLModel, table=True):
    """A member's key as the master key of `epoch` wraps it."""

    __tablename__ = "face_key"
    __table_args__ = (Index("face_key_member", "member"),)
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
