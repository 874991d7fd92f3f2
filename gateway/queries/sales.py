"""Sales as they were frozen at payment."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from sqlalchemy import func, tuple_
from sqlmodel import col, select
from sqlmodel.ext.asyncio.session import AsyncSession

from gateway.paging import cut, decode_cursor, decode_instant, encode_cursor
from gateway.queries.ledger import entries_of
from gateway.queries.registry import Scope
from gateway.views import EntryView, Page, SaleView
from models.domain.facts import UNCLEAR_MONEY
from models.tables.entities import DeadLetterRow, OutboxRow
from models.tables.members import UsageRow
from models.tables.registry import StoreRow
from models.tables.sales import IncidentRow, ReturnRow, SaleRow, VoidRow

USES_MAX = 100


def sale_view(row: SaleRow) -> SaleView:
    """What a list shows of a sale."""
    return SaleView(
        id=row.id,
        receipt=row.receipt,
        store=row.store,
        lane=row.lane,
        terminal=row.terminal,
        business_date=row.business_date,
        at=row.at,
        member=row.member,
        membership=row.membership,
        gross_fen=row.gross_fen,
        discount_fen=row.discount_fen,
        due_fen=row.due_fen,
        tenders=[str(tender.get("kind", "")) for tender in row.tenders],
        voided_at=row.voided_at,
    )


async def list_sales(
    session: AsyncSession, scope: Scope, limit: int, cursor: str | None, q: str = "", business_date: str = ""
) -> Page[SaleView]:
    """Sales, the newest first. `q`: an exact id, or a prefix of the receipt number."""
    query = select(SaleRow).order_by(col(SaleRow.at).desc(), col(SaleRow.id).desc()).limit(limit + 1)
    if scope.region:
        query = query.where(
            col(SaleRow.store).in_(select(StoreRow.id).where(col(StoreRow.region) == scope.region)),
        )
    if scope.store:
        query = query.where(col(SaleRow.store) == scope.store)
    if business_date:
        query = query.where(col(SaleRow.business_date) == business_date)
    if q:
        query = query.where((col(SaleRow.id) == q) | col(SaleRow.receipt).istartswith(q, autoescape=True))
    if key := decode_cursor(cursor, 2):
        query = query.where(tuple_(col(SaleRow.at), col(SaleRow.id)) < (decode_instant(key[0]), key[1]))
    rows, more = cut((await session.exec(query)).all(), limit)
    views = [sale_view(row) for row in rows]
    return Page(items=views, next=encode_cursor([views[-1].at.isoformat(), views[-1].id]) if more else None)


@dataclass(frozen=True, slots=True)
class SaleDetail:
    """One sale with its frozen documents and its bookings."""

    sale: SaleView
    lines: list[dict[str, Any]]
    tenders: list[dict[str, Any]]
    uses: list[dict[str, Any]]
    entity: str
    rounding_fen: int
    entries: list[EntryView]


async def get_sale(session: AsyncSession, sale: str) -> SaleDetail | None:
    """One sale, by its id."""
    row = await session.get(SaleRow, sale)
    if row is None:
        return None
    void = (await session.exec(select(VoidRow.id).where(VoidRow.sale == sale))).first()
    uses = (await session.exec(select(UsageRow.id).where(UsageRow.sale == sale).limit(USES_MAX))).all()
    returns = (await session.exec(select(ReturnRow.id).where(ReturnRow.sale == sale).limit(USES_MAX))).all()
    return SaleDetail(
        sale=sale_view(row),
        lines=list(row.lines),
        tenders=list(row.tenders),
        uses=list(row.uses),
        entity=row.entity,
        rounding_fen=row.rounding_fen,
        entries=await entries_of(session, [row.id, *uses, *([void] if void else []), *returns]),
    )


@dataclass(frozen=True, slots=True)
class Backlog:
    """What waits, or needs a person."""

    outbox_open: int
    dead_letters: int
    unclear: int
    """Orders whose cancel or refund the provider did not answer clearly for long: somebody must look at them."""


async def backlog(session: AsyncSession) -> Backlog:
    """Asks that were not answered yet, messages whose turn raised, and money whose fate is unclear."""
    waiting = select(func.count()).select_from(OutboxRow).where(col(OutboxRow.done_at).is_(None))
    dead = select(func.count()).select_from(DeadLetterRow)
    unclear = select(func.count(func.distinct(IncidentRow.detail))).where(col(IncidentRow.kind).in_(UNCLEAR_MONEY))
    counts = [(await session.exec(one)).one() for one in (waiting, dead, unclear)]
    return Backlog(*counts)
