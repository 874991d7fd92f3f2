"""Public keys of terminals' depth cameras, as stored: which may sign liveness scores, and which no longer do.

The table is in registry.py: a host, which is to start fast, imports no SQLModel.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Any

from psycopg import AsyncConnection
from psycopg.rows import class_row

from models.domain.ids import RegionId

Connection = AsyncConnection[Any]


@dataclass(frozen=True, slots=True)
class StoredKey:
    """One key of one terminal, in the database's order: the newest first."""

    terminal: str
    fingerprint: str
    public_key: str
    """64 hex digits."""
    added_at: datetime
    added_by: str
    ended_at: datetime | None
    ended_by: str


@dataclass(frozen=True, slots=True)
class Keyed:
    """A registered terminal, its row locked."""

    profile: str
    retired: bool


async def load_keys(conn: AsyncConnection[Any], region: RegionId) -> dict[str, tuple[bytes, ...]]:
    """The keys that may sign now, by terminal of the region; terminals without one are left out."""
    cursor = await conn.execute(
        """SELECT k.terminal, array_agg(k.public_key ORDER BY k.added_at DESC) FROM liveness_key k
           JOIN terminal t ON t.id = k.terminal JOIN store s ON s.id = t.store
           WHERE k.ended_at IS NULL AND s.region = %s GROUP BY k.terminal""",
        (region,),
    )
    return {row[0]: tuple(map(bytes.fromhex, row[1])) for row in await cursor.fetchall()}


async def keys_of(conn: AsyncConnection[Any], terminal: str) -> list[StoredKey]:
    """All that were ever registered with a terminal, those that count first, then the newest."""
    cursor = conn.cursor(row_factory=class_row(StoredKey))
    await cursor.execute(
        """SELECT terminal, fingerprint, public_key, added_at, added_by, ended_at, ended_by FROM liveness_key
           WHERE terminal = %s ORDER BY ended_at IS NOT NULL, added_at DESC, fingerprint""",
        (terminal,),
    )
    return await cursor.fetchall()


async def lock(conn: AsyncConnection[Any], terminal: str) -> Keyed | None:
    """Whoever else changes this terminal's keys waits for the caller's transaction."""
    cursor = conn.cursor(row_factory=class_row(Keyed))
    await cursor.execute(
        "SELECT profile, retired_at IS NOT NULL OR revoked_at IS NOT NULL AS retired FROM terminal"
        " WHERE id = %s FOR UPDATE",
        (terminal,),
    )
    return await cursor.fetchone()


async def holder_of(conn: AsyncConnection[Any], public_key: str) -> str | None:
    """The terminal with which this key counts now."""
    cursor = await conn.execute(
        "SELECT terminal FROM liveness_key WHERE public_key = %s AND ended_at IS NULL", (public_key,)
    )
    row = await cursor.fetchone()
    return None if row is None else str(row[0])


async def add_key(
    conn: AsyncConnection[Any], terminal: str, fingerprint: str, public_key: str, by: str, at: datetime
) -> None:
    """This key may sign from now on."""
    await conn.execute(
        """INSERT INTO liveness_key (terminal, fingerprint, public_key, added_at, added_by, ended_by)
           VALUES (%s, %s, %s, %s, %s, '')""",
        (terminal, fingerprint, public_key, at, by),
    )


async def end_keys(
    conn: AsyncConnection[Any], terminal: str, by: str, at: datetime, *, only: str = "", but: str = ""
) -> list[str]:
    """These keys of a terminal sign nothing any more: all, `only` one, or all `but` one; their fingerprints."""
    cursor = await conn.execute(
        """UPDATE liveness_key SET ended_at = %(at)s, ended_by = %(by)s WHERE terminal = %(terminal)s
             AND ended_at IS NULL AND (%(only)s = '' OR fingerprint = %(only)s) AND fingerprint <> %(but)s
           RETURNING fingerprint""",
        {"at": at, "by": by, "terminal": terminal, "only": only, "but": but},
    )
    return sorted(row[0] for row in await cursor.fetchall())
