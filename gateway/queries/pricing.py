"""Plans, vouchers and books for the page of offers, and what the preview of a price needs."""

from __future__ import annotations

import json
from collections.abc import Collection
from dataclasses import dataclass

from sqlalchemy import case, func
from sqlalchemy.dialects.postgresql import distinct_on
from sqlmodel import col, select
from sqlmodel.ext.asyncio.session import AsyncSession

from models.domain.book import ChainBook
from models.domain.ids import ChainId
from models.domain.plans import Plan, plan_from_dict
from models.domain.pricing import Item
from models.tables.directory import chain_book
from models.tables.items import ItemRow, item_from_json
from models.tables.members import PlanRow
from models.tables.registry import BookRow, StoreBookRow, StoreRow
from models.tables.vouchers import VoucherUseRow

PLAN_VERSIONS_MAX = 100


@dataclass(frozen=True, slots=True)
class VoucherFigures:
    """How often a voucher is reserved and was used, and what it gave, net of what came back."""

    reserved: int
    used: int
    given_fen: int


async def newest_book(
    session: AsyncSession, chain: str, codes: Collection[str] = (), store: str = ""
) -> ChainBook | None:
    """The book in force, at a store the one that is pinned there, with those of its articles that `codes` names; None
    when the chain has none."""
    of_chain = col(BookRow.chain) == chain
    pinned = select(StoreBookRow.version).where(col(StoreBookRow.store) == store)
    version = (await session.exec(pinned)).first() if store else None
    wanted = ~col(BookRow.candidate) if version is None else col(BookRow.version) == version
    query = select(BookRow).where(of_chain, wanted).order_by(col(BookRow.version).desc()).limit(1)
    row = (await session.exec(query)).first()
    if row is None:
        return None
    items = await items_of(session, chain, codes, row.version)
    return chain_book(ChainId(chain), row.version, {"plans": [], **row.doc}, items)


async def items_of(session: AsyncSession, chain: str, codes: Collection[str], version: int) -> dict[str, Item]:
    """Those of these articles that this version of the book has."""
    newest = (
        select(ItemRow.code, ItemRow.doc)
        .where(col(ItemRow.chain) == chain, col(ItemRow.code).in_(codes), col(ItemRow.version) <= version)
        .ext(distinct_on(col(ItemRow.code)))
        .order_by(col(ItemRow.code), col(ItemRow.version).desc())
    )
    found = (await session.exec(newest)).all()
    items = (item_from_json(code, json.dumps(doc)) for code, doc in found if doc is not None)
    return {item.code: item for item in items if item is not None}


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
