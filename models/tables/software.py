"""Images of terminals' software. The rows say what there is; the files lie in the data folder by their SHA-256."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from psycopg import AsyncConnection
from psycopg.rows import TupleRow
from sqlalchemy import BigInteger, CheckConstraint
from sqlmodel import Field, SQLModel

from models.domain.ids import RegionId, TerminalId
from models.domain.software import Image, Recorded, version_of
from models.tables.base import instant

Connection = AsyncConnection[TupleRow]


class SoftwareImageRow(SQLModel, table=True):
    """One version. It never changes: what is wrong is removed while nobody runs it, or followed by a higher number."""

    __tablename__ = "software_image"
    __table_args__ = (CheckConstraint("size_bytes > 0 AND length(sha256) = 64", name="software_image_formed"),)
    name: str = Field(primary_key=True)
    number: str = Field(primary_key=True)
    sha256: str
    size_bytes: int = Field(sa_type=BigInteger)
    profile: str
    notes_zh: str
    notes_en: str
    added_by: str
    added_at: datetime = instant()


_COLUMNS = "name, number, sha256, size_bytes, profile, notes_zh, notes_en, added_by, added_at"


async def list_images(conn: Connection) -> list[Image]:
    """All, by name and the newest first."""
    cursor = await conn.execute(f"SELECT {_COLUMNS} FROM software_image ORDER BY name, added_at DESC, number")
    return [Image(*row) for row in await cursor.fetchall()]


async def load_recorded(conn: Connection) -> dict[str, Recorded]:
    """By the version that terminals report."""
    cursor = await conn.execute("SELECT name, number, sha256, profile FROM software_image")
    return {version_of(row[0], row[1]): Recorded(row[2], row[3]) for row in await cursor.fetchall()}


async def load_changed(conn: Connection, region: RegionId) -> dict[TerminalId, str]:
    """Terminals of a region that are another family by their software, with the family that was registered."""
    cursor = await conn.execute(
        """SELECT t.id, t.delivered_profile FROM terminal t JOIN store s ON s.id = t.store
           WHERE s.region = %s AND t.delivered_profile <> ''""",
        (region,),
    )
    return {TerminalId(row[0]): row[1] for row in await cursor.fetchall()}


async def add_image(conn: Connection, image: Image) -> bool:
    """Record a version; False when there is one of that name and number already."""
    cursor = await conn.execute(
        f"""INSERT INTO software_image ({_COLUMNS}) VALUES (%s, %s, %s, %s, %s, %s, %s, %s, %s)
            ON CONFLICT DO NOTHING RETURNING 1""",
        (
            image.name,
            image.number,
            image.sha256,
            image.size_bytes,
            image.profile,
            image.notes_zh,
            image.notes_en,
            image.added_by,
            image.added_at,
        ),
    )
    return await cursor.fetchone() is not None


async def remove_image(conn: Connection, image: Image) -> None:
    """Forget a version."""
    await conn.execute("DELETE FROM software_image WHERE name = %s AND number = %s", (image.name, image.number))


async def users_of(conn: Connection, image: Image) -> dict[str, Any]:
    """Terminals that are told to run it, and that say they do."""
    cursor = await conn.execute(
        """SELECT (SELECT count(*) FROM desired WHERE software->>'sha256' = %s),
             (SELECT count(*) FROM presence WHERE software = %s)""",
        (image.sha256, image.version),
    )
    row = await cursor.fetchone()
    assert row is not None
    return {"desired": row[0], "running": row[1]}
