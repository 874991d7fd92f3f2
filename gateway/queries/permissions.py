"""Whether somebody may do something where."""

from __future__ import annotations

from collections.abc import Iterable

from sqlmodel.ext.asyncio.session import AsyncSession

from gateway.errors import Problem
from gateway.queries.ledger_pages import psycopg_of
from models.domain.kill_switch import Place, Scope
from models.domain.permissions import Permission, may, missing, uncovered
from models.tables.permissions import load_grants, place_of


async def require(session: AsyncSession, person: str, permission: Permission, store: str) -> None:
    """Returns when this person may do it at this store. Raises Problem 403 `permission_missing`, with the scope."""
    conn = await psycopg_of(session)
    place = await place_of(conn, store)
    if not may(await load_grants(conn, person), person, permission, place):
        said = missing(person, permission, place)
        raise Problem(403, said.code, said.message, said.do)


async def require_each(session: AsyncSession, person: str, permission: Permission, places: Iterable[Place]) -> None:
    """As `require`, at each of these places. Raises Problem 403 for the first where it is missing."""
    place = uncovered(await load_grants(await psycopg_of(session), person), person, permission, places)
    if place is not None:
        said = missing(person, permission, place)
        raise Problem(403, said.code, said.message, said.do)


async def require_over(session: AsyncSession, person: str, permission: Permission, scope: Scope, place: Place) -> None:
    """As `require`, for all of a region or a chain: `place` names it, and nothing below it. Raises Problem 403."""
    if may(await load_grants(await psycopg_of(session), person), person, permission, place):
        return
    needed = f"{permission} at {scope}"
    said = f"{person} has no permission {needed}" if person else f"nobody in particular is signed in; it takes {needed}"
    do = f"`storeops permissions grant {person or 'PERSON'} {permission} --{scope.kind} {scope.name}`"
    do += "" if person else ", and sign in with `storeops login --as PERSON`"
    raise Problem(403, "permission_missing", said, do)
