"""Who exists: stores, terminals, slots, and the clock."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import func, or_, tuple_
from sqlmodel import col, select
from sqlmodel.ext.asyncio.session import AsyncSession

from gateway.paging import cut, decode_cursor, encode_cursor
from gateway.views import Page, StoreView, TerminalView
from models.tables.registry import LayoutRow, SlotRow, StoreEntityRow, StoreRow, TerminalRow
from models.tables.twins import PresenceRow


@dataclass(frozen=True, slots=True)
class Scope:
    """Which part of the chain a page is about; empty: all of it."""

    region: str = ""
    store: str = ""


def _store_view(row: StoreRow, entity: str | None, terminals: int) -> StoreView:
    return StoreView(
        id=row.id,
        region=row.region,
        name_zh=row.name_zh,
        name_en=row.name_en,
        zone=row.zone,
        basket_owner=row.basket_owner,
        entity=entity,
        terminals=terminals,
        labels=row.labels,
    )


async def list_stores(
    session: AsyncSession, scope: Scope, limit: int, cursor: str | None, q: str = "", today: str = "9999-12-31"
) -> Page[StoreView]:
    """Stores by id. `q`: the exact id, else a prefix of id or name. `today` picks the dated legal entity."""
    entity = (
        select(StoreEntityRow.entity)
        .where(col(StoreEntityRow.store) == col(StoreRow.id), col(StoreEntityRow.from_date) <= today)
        .order_by(col(StoreEntityRow.from_date).desc())
        .limit(1)
        .scalar_subquery()
    )
    terminals = (
        select(func.count())
        .select_from(TerminalRow)
        .where(col(TerminalRow.store) == col(StoreRow.id), col(TerminalRow.retired_at).is_(None))
        .scalar_subquery()
    )
    query = select(StoreRow, entity, terminals).order_by(col(StoreRow.id)).limit(limit + 1)
    if scope.region:
        query = query.where(col(StoreRow.region) == scope.region)
    if scope.store:
        query = query.where(col(StoreRow.id) == scope.store)
    if q:
        names = (col(StoreRow.id), col(StoreRow.name_zh), col(StoreRow.name_en))
        query = query.where(or_(*(name.istartswith(q, autoescape=True) for name in names)))
    if key := decode_cursor(cursor, 1):
        query = query.where(col(StoreRow.id) > key[0])
    rows, more = cut((await session.exec(query)).all(), limit)
    views = [_store_view(row, owner, count) for row, owner, count in rows]
    return Page(items=views, next=encode_cursor([views[-1].id]) if more else None)


async def get_store(session: AsyncSession, store: str) -> StoreRow | None:
    """One store."""
    return await session.get(StoreRow, store)


def _terminal_view(row: TerminalRow, region: str, presence: PresenceRow | None) -> TerminalView:
    return TerminalView(
        id=row.id,
        store=row.store,
        region=region,
        lane=row.lane,
        role=row.role,
        profile=row.profile,
        online=presence.online if presence else False,
        software=presence.software if presence else "",
        changed_at=presence.changed_at if presence else None,
        revoked=row.revoked_at is not None,
    )


async def list_terminals(
    session: AsyncSession, scope: Scope, limit: int, cursor: str | None, q: str = ""
) -> Page[TerminalView]:
    """Terminals in service, by store and id. `q`: a prefix of the id."""
    query = (
        select(TerminalRow, StoreRow.region, PresenceRow)
        .join(StoreRow, col(StoreRow.id) == col(TerminalRow.store))
        .outerjoin(PresenceRow, col(PresenceRow.terminal) == col(TerminalRow.id))
        .where(col(TerminalRow.retired_at).is_(None))
        .order_by(col(TerminalRow.store), col(TerminalRow.id))
        .limit(limit + 1)
    )
    if scope.region:
        query = query.where(col(StoreRow.region) == scope.region)
    if scope.store:
        query = query.where(col(TerminalRow.store) == scope.store)
    if q:
        query = query.where(col(TerminalRow.id).istartswith(q, autoescape=True))
    if key := decode_cursor(cursor, 2):
        query = query.where(tuple_(col(TerminalRow.store), col(TerminalRow.id)) > key)
    rows, more = cut((await session.exec(query)).all(), limit)
    views = [_terminal_view(*row) for row in rows]
    return Page(items=views, next=encode_cursor([views[-1].store, views[-1].id]) if more else None)


async def get_terminal(session: AsyncSession, terminal: str) -> TerminalView | None:
    """One terminal in service."""
    found = await session.exec(
        select(TerminalRow, StoreRow.region, PresenceRow)
        .join(StoreRow, col(StoreRow.id) == col(TerminalRow.store))
        .outerjoin(PresenceRow, col(PresenceRow.terminal) == col(TerminalRow.id))
        .where(col(TerminalRow.id) == terminal, col(TerminalRow.retired_at).is_(None))
    )
    row = found.first()
    return None if row is None else _terminal_view(*row)


@dataclass(frozen=True, slots=True)
class WallStore:
    """A store as the wall draws it."""

    id: str
    zh: str
    en: str


async def wall_stores(session: AsyncSession, scope: Scope, stores_max: int = 5_000) -> list[WallStore]:
    """Names of the scope's stores, by id; at most `stores_max`."""
    query = select(StoreRow.id, StoreRow.name_zh, StoreRow.name_en).order_by(col(StoreRow.id)).limit(stores_max)
    if scope.region:
        query = query.where(col(StoreRow.region) == scope.region)
    if scope.store:
        query = query.where(col(StoreRow.id) == scope.store)
    return [WallStore(*row) for row in (await session.exec(query)).all()]


async def list_regions(session: AsyncSession) -> list[str]:
    """Regions that have stores."""
    return list((await session.exec(select(StoreRow.region).distinct().order_by(col(StoreRow.region)))).all())


@dataclass(frozen=True, slots=True)
class SlotState:
    """Who holds a slot, and since when."""

    region: str
    k: int
    epoch: int
    holder: str
    claimed_at: datetime | None


async def list_slots(session: AsyncSession) -> list[SlotState]:
    """Every host slot of the layouts in force."""
    standing = select(LayoutRow.region, LayoutRow.layout).where(col(LayoutRow.ended_at).is_(None))
    query = select(SlotRow).where(tuple_(SlotRow.region, SlotRow.layout).in_(standing))
    rows = (await session.exec(query.order_by(col(SlotRow.region), col(SlotRow.k)).limit(1_000))).all()
    return [SlotState(row.region, row.k, row.epoch, row.holder, row.claimed_at) for row in rows]
