"""Leases as rows. Whoever changes one holds its membership's row lock."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any

from psycopg import AsyncCursor

from models.domain.leases import LeaseStanding

_COLUMNS = "id, membership, benefit, store, uses, used, state = 'open', until, lapses_at, granted_at"

# A sale whose uses are not posted yet may still need the lease.
_ON_THE_WAY = """
SELECT EXISTS (SELECT 1 FROM outbox WHERE done_at IS NULL AND verb = 'PostUses'
    AND request @> jsonb_build_object('uses', jsonb_build_array(jsonb_build_object('lease', %s::text))))
"""


async def load_leases(cur: AsyncCursor[Any], leases: Sequence[str]) -> dict[str, LeaseStanding]:
    """Those of these leases that exist."""
    await cur.execute(f"SELECT {_COLUMNS} FROM lease WHERE id = ANY(%s)", (list(leases),))
    return {row[0]: LeaseStanding(*row) for row in await cur.fetchall()}


async def insert_lease(cur: AsyncCursor[Any], lease: LeaseStanding, *, terminal: str, session: str) -> None:
    """A new lease, open and unused."""
    await cur.execute(
        "INSERT INTO lease (id, membership, benefit, store, terminal, session, uses, used, state, granted_at, until,"
        " lapses_at) VALUES (%s, %s, %s, %s, %s, %s, %s, 0, 'open', %s, %s, %s)",
        (
            lease.id,
            lease.membership,
            lease.benefit,
            lease.store,
            terminal,
            session,
            lease.uses,
            lease.granted_at,
            lease.until,
            lease.lapses_at,
        ),
    )


async def add_lease_use(cur: AsyncCursor[Any], lease: str) -> None:
    """One more use of it has come back. The database refuses one too many."""
    await cur.execute("UPDATE lease SET used = used + 1 WHERE id = %s", (lease,))


async def end_lease(cur: AsyncCursor[Any], lease: str, at: datetime) -> None:
    """What it has left is free; ending it again changes nothing."""
    await cur.execute("UPDATE lease SET state = 'ended', ended_at = %s WHERE id = %s AND state = 'open'", (at, lease))


async def uses_on_the_way(cur: AsyncCursor[Any], lease: str) -> bool:
    """Is there a sale whose uses of this lease are not posted yet?"""
    await cur.execute(_ON_THE_WAY, (lease,))
    row = await cur.fetchone()
    assert row is not None
    return bool(row[0])
