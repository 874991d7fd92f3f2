"""The ledger as it is: balances are sums, and every sum of all legs is 0."""

from __future__ import annotations

from collections.abc import Sequence

from sqlalchemy import func
from sqlmodel import col, select
from sqlmodel.ext.asyncio.session import AsyncSession

from gateway.views import BalanceView, EntryView, LedgerView
from models.tables.books import EntryRow, TransactionRow

ENTRIES_MAX = 500
BALANCES_MAX = 5_000


async def entries_of(session: AsyncSession, requests: Sequence[str]) -> list[EntryView]:
    """The legs booked under these request numbers, in booking order."""
    query = (
        select(EntryRow, TransactionRow)
        .join(TransactionRow, col(TransactionRow.id) == col(EntryRow.txn))
        .where(col(TransactionRow.request_number).in_(requests))
        .order_by(col(TransactionRow.booked_at), col(EntryRow.txn), col(EntryRow.leg))
        .limit(ENTRIES_MAX)
    )
    return [
        EntryView(
            transaction=entry.txn,
            kind=transaction.kind,
            leg=entry.leg,
            entity=entry.entity,
            account=entry.account,
            amount_fen=entry.amount_fen,
            business_date=entry.business_date,
            book=entry.book,
        )
        for entry, transaction in (await session.exec(query)).all()
    ]


async def ledger(session: AsyncSession, entity: str = "") -> LedgerView:
    """Balances by entity, account and book; the sum over all of them; transactions that do not sum to 0."""
    total = func.coalesce(func.sum(col(EntryRow.amount_fen)), 0)
    keys = (col(EntryRow.entity), col(EntryRow.account), col(EntryRow.book))
    balances = select(*keys, total).group_by(*keys).order_by(*keys).limit(BALANCES_MAX)
    if entity:
        balances = balances.where(col(EntryRow.entity) == entity)
    broken = (
        select(col(EntryRow.txn))
        .group_by(col(EntryRow.txn), col(EntryRow.entity), col(EntryRow.book))
        .having(func.sum(col(EntryRow.amount_fen)) != 0)
        .subquery()
    )
    return LedgerView(
        balances=[
            BalanceView(entity=owner, account=account, book=book, amount_fen=int(fen))
            for owner, account, book, fen in (await session.exec(balances)).all()
        ],
        transactions=(await session.exec(select(func.count()).select_from(TransactionRow))).one(),
        sum_fen=int((await session.exec(select(total))).one()),
        unbalanced_transactions=(await session.exec(select(func.count()).select_from(broken))).one(),
    )
