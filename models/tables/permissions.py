"""Permissions as rows: read where something is done, so that what is taken away counts at once."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from psycopg import AsyncConnection
from sqlmodel import Field, SQLModel

from models.domain.errors import Refused
from models.domain.ids import ChainId, RegionId, StoreId
from models.domain.kill_switch import Place, Scope, ScopeKind
from models.domain.permissions import Grant, Permission, may
from models.tables.base import instant


class PermissionGrantRow(SQLModel, table=True):
    """One grant (models.domain.permissions.Grant)."""

    __tablename__ = "permission_grant"
    person: str = Field(primary_key=True)
    permission: str = Field(primary_key=True)
    scope_kind: str = Field(primary_key=True)
    scope: str = Field(primary_key=True)
    granted_by: str
    granted_at: datetime = instant()


async def place_of(conn: AsyncConnection[Any], store: str) -> Place:
    """Where a store stands. Raises Refused `unknown_store`."""
    cursor = await conn.execute("SELECT chain, region FROM store WHERE id = %s", (store,))
    row = await cursor.fetchone()
    if row is None:
        raise Refused("unknown_store", f"no store {store!r}", "see the console's list of stores")
    return Place(ChainId(row[0]), RegionId(row[1]), StoreId(store))


async def load_grants(conn: AsyncConnection[Any], person: str | None = None) -> list[Grant]:
    """Everybody's, or one person's."""
    cursor = await conn.execute(
        "SELECT person, permission, scope_kind, scope FROM permission_grant"
        " WHERE %s::text IS NULL OR person = %s ORDER BY person, permission, scope_kind, scope",
        (person, person),
    )
    known = {str(one) for one in Permission}
    return [
        Grant(row[0], Permission(row[1]), Scope(ScopeKind(row[2]), row[3]))
        for row in await cursor.fetchall()
        if row[1] in known
    ]


async def person_may(conn: AsyncConnection[Any], person: str, permission: Permission, store: str) -> bool:
    """Whether this person may do it at this store now."""
    return may(await load_grants(conn, person), person, permission, await place_of(conn, store))


async def save_grant(conn: AsyncConnection[Any], grant: Grant, by: str, at: datetime) -> bool:
    """Give it; False: it was given already."""
    cursor = await conn.execute(
        "INSERT INTO permission_grant VALUES (%s, %s, %s, %s, %s, %s) ON CONFLICT DO NOTHING",
        (grant.person, str(grant.permission), str(grant.scope.kind), grant.scope.name, by, at),
    )
    return cursor.rowcount == 1


async def drop_grant(conn: AsyncConnection[Any], grant: Grant) -> bool:
    """Take it away; False: it was not there."""
    cursor = await conn.execute(
        "DELETE FROM permission_grant WHERE (person, permission, scope_kind, scope) = (%s, %s, %s, %s)",
        (grant.person, str(grant.permission), str(grant.scope.kind), grant.scope.name),
    )
    return cursor.rowcount == 1
