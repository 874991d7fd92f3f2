"""A member's loyalty points: the figures and the last moves."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

from sqlmodel import col, select
from sqlmodel.ext.asyncio.session import AsyncSession

from models.domain.ids import LegalEntityId, MemberId, SaleId, StoreId
from models.domain.points import Move, MoveKind
from models.tables.points import Account, PointsMoveRow, account_of


async def accounts(session: AsyncSession, member: str, now: datetime) -> list[Account]:
    """The member's accounts by brand at business time `now`; none for somebody who never had points."""
    rows = (await session.exec(select(PointsMoveRow).where(col(PointsMoveRow.member) == member))).all()
    moves = [_move(row) for row in rows]
    return [account_of(brand, _of(moves, brand), now) for brand in sorted({move.brand for move in moves})]


def _of(moves: Sequence[Move], brand: str) -> list[Move]:
    return [move for move in moves if move.brand == brand]


def _move(row: PointsMoveRow) -> Move:
    return Move(
        row.id,
        row.brand,
        LegalEntityId(row.owner),
        None if row.member is None else MemberId(row.member),
        MoveKind(row.kind),
        row.points,
        SaleId(row.sale),
        StoreId(row.store),
        row.at,
        row.expires_at,
    )
