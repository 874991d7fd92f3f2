"""Stores change hands: whose a store is from a business date on, said ahead and never over what was booked already."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date
from typing import Any

from psycopg import AsyncConnection, AsyncCursor

from models.domain.accounts import STORE_KINDS
from models.domain.errors import Refused
from models.tables.business_days import closed_through

_BOOKED = """
SELECT max(day) FROM (
    SELECT max(business_date) AS day FROM sale WHERE store = %(store)s AND business_date >= %(date)s
    UNION ALL
    SELECT max(business_date) FROM entry WHERE entity = %(owner)s AND business_date >= %(date)s
      AND split_part(account, ':', 2) = %(store)s AND split_part(account, ':', 1) = ANY(%(kinds)s)
) AS days
"""


@dataclass(frozen=True, slots=True)
class Owner:
    """Whose a store is, and from which business date on."""

    store: str
    entity: str
    from_date: str


@dataclass(frozen=True, slots=True)
class LegalEntity:
    """A company that keeps its own books, with the stores that it owns on a day."""

    id: str
    chain: str
    name_zh: str
    name_en: str
    stores: tuple[str, ...]


async def owners_of(conn: AsyncConnection[Any], store: str) -> list[Owner]:
    """Every owner that a store had, has or will have, by date."""
    cur = await conn.execute(
        "SELECT store, entity, from_date FROM store_entity WHERE store = %s ORDER BY from_date", (store,)
    )
    return [Owner(*row) for row in await cur.fetchall()]


async def entities(conn: AsyncConnection[Any], today: str) -> list[LegalEntity]:
    """All legal entities, and the stores that each owns on `today`."""
    cur = await conn.execute(
        """SELECT l.id, l.chain, l.name_zh, l.name_en, coalesce(array_agg(o.store ORDER BY o.store)
                  FILTER (WHERE o.store IS NOT NULL), '{}')
           FROM legal_entity l LEFT JOIN (
               SELECT DISTINCT ON (store) store, entity FROM store_entity WHERE from_date <= %s
               ORDER BY store, from_date DESC
           ) AS o ON o.entity = l.id GROUP BY l.id ORDER BY l.id""",
        (today,),
    )
    return [LegalEntity(row[0], row[1], row[2], row[3], tuple(row[4])) for row in await cur.fetchall()]


async def move_store(conn: AsyncConnection[Any], store: str, entity: str, from_date: str) -> Owner:
    """From `from_date` (a business date, ISO 8601) on the store is `entity`'s. Saying it again changes nothing.

    Raises Refused: `unknown_store`, `unknown_entity`, `owner_already`, `move_planned` (a later change is said already),
    `move_days_booked` (sales or entries stand on or after that date), `move_day_closed`.
    """
    if _iso(from_date) != from_date:
        raise Refused("date_form", f"{from_date!r} is no date", "say it as in 2026-12-01")
    async with conn.transaction(), conn.cursor() as cur:
        await cur.execute("SELECT chain FROM store WHERE id = %s FOR UPDATE", (store,))
        chain = await cur.fetchone()
        if chain is None:
            raise Refused("unknown_store", f"no store {store!r}", "see the console's list of stores")
        await cur.execute("SELECT 1 FROM legal_entity WHERE id = %s AND chain = %s", (entity, chain[0]))
        if await cur.fetchone() is None:
            raise Refused("unknown_entity", f"{entity!r} is no legal entity of this chain", "storeops entity list")
        owners = await owners_of(conn, store)
        if owners and owners[-1] == Owner(store, entity, from_date):
            return owners[-1]
        await _may_move(cur, owners, Owner(store, entity, from_date))
        await cur.execute(
            "INSERT INTO store_entity (store, from_date, entity) VALUES (%s, %s, %s)"
            " ON CONFLICT (store, from_date) DO UPDATE SET entity = excluded.entity",
            (store, from_date, entity),
        )
    return Owner(store, entity, from_date)


def _iso(text: str) -> str | None:
    try:
        return date.fromisoformat(text).isoformat()
    except ValueError:
        return None


async def _may_move(cur: AsyncCursor[Any], owners: list[Owner], wanted: Owner) -> None:
    later = [one for one in owners if one.from_date > wanted.from_date]
    if later:
        raise Refused(
            "move_planned",
            f"{wanted.store} goes to {later[0].entity} on {later[0].from_date} already",
            "choose a later date",
        )
    before = [one for one in owners if one.from_date < wanted.from_date]
    owner = before[-1].entity if before else ""
    if owner == wanted.entity:
        raise Refused("owner_already", f"{wanted.store} is {owner}'s on that day", "nothing needs to change")
    for one in (owner, wanted.entity):
        closed = await closed_through(cur, one)
        if closed is not None and closed.isoformat() >= wanted.from_date:
            raise Refused(
                "move_day_closed", f"the books of {one} are closed up to {closed}", "choose a date after that"
            )
    values = {"store": wanted.store, "date": wanted.from_date, "owner": owner, "kinds": list(STORE_KINDS)}
    await cur.execute(_BOOKED, values)
    booked = await cur.fetchone()
    if booked is not None and booked[0] is not None:
        raise Refused(
            "move_days_booked",
            f"{wanted.store} has business up to {booked[0]} in the books of {owner}",
            "choose a date after that",
        )
