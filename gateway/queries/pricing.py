"""Plans, vouchers and books for the page of offers, and what the preview of a price needs."""

from __future__ import annotations

from dataclasses import dataclass

from sqlalchemy import case, func
from sqlmodel import col, select
from sqlmodel.ext.asyncio.session import AsyncSession

from models.domain.book import ChainBook
from models.domain.ids import ChainId
from models.domain.plans import Plan, plan_from_dict
from models.tables.directory import chain_book
from models.tables.members import PlanRow
from models.tables.registry import BookRow, StoreRow
from models.tables.vouchers import VoucherUseRow

PLAN_VERSIONS_MAX = 100


@dataclass(frozen=True, slots=True)
class VoucherFigures:
    """How often a voucher is reserved and was used, and what it gave, net of what came back."""

    reserved: int
    used: int
    given_fen: int


async def newest_book(session: AsyncSession, chain: str) -> ChainBook | None:
    """The book in force; None when the chain has none."""
    query = select(BookRow).where(col(BookRow.chain) == chain).order_by(col(BookRow.version).desc()).limit(1)
    row = (await session.exec(query)).first()
    return None if row is None else chain_book(ChainId(chain), row.version, {"plans": [], **row.doc})


async def store_of(session: AsyncSession, store: str) -> StoreRow | None:
    """A store, or None."""
    return await session.get(StoreRow, store)


async def plan_versions(session: AsyncSession, chain: str) -> list[Plan]:
    """The plans' versions, by id, the newest of each first; at most PLAN_VERSIONS_MAX."""
    query = (
        select(PlanRow.doc)
        .where(col(PlanRow.chain) == chain)
        .order_by(col(PlanRow.id), col(PlanRow.version).desc())
        .limit(PLAN_VERSIONS_MAX)
    )
    return [plan_from_dict(doc) for doc in (await session.exec(query)).all()]


async def voucher_figures(session: AsyncSession, chain: str) -> dict[str, VoucherFigures]:
    """By voucher: uses reserved and booked, and fen given."""
    state = col(VoucherUseRow.state)
    booked = state.in_(("posted", "returned"))
    query = (
        select(
            VoucherUseRow.voucher,
            func.count(case((state == "open", 1))),
            func.count(case((state == "posted", 1))),
            func.coalesce(func.sum(case((booked, col(VoucherUseRow.fen) - col(VoucherUseRow.returned_fen)))), 0),
        )
        .where(col(VoucherUseRow.chain) == chain)
        .group_by(VoucherUseRow.voucher)
    )
    return {row[0]: VoucherFigures(row[1], row[2], int(row[3])) for row in (await session.exec(query)).all()}
