"""Whether somebody may do something where."""

from __future__ import annotations

from sqlmodel.ext.asyncio.session import AsyncSession

from gateway.errors import Problem
from gateway.queries.ledger_pages import psycopg_of
from models.domain.permissions import Permission, may, missing
from models.tables.permissions import load_grants, place_of


async def require(session: AsyncSession, person: str, permission: Permission, store: str) -> None:
    """Returns when this person may do it at this store. Raises Problem 403 `permission_missing`, with the scope."""
    conn = await psycopg_of(session)
    place = await place_of(conn, store)
    if not may(await load_grants(conn, person), person, permission, place):
        said = missing(person, permission, place)
        raise Problem(403, said.code, said.message, said.do)
