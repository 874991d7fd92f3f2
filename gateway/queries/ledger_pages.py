"""What the ledger's pages and API read: the same functions that the command line uses, over the gateway's session."""

from __future__ import annotations

from typing import Any

from psycopg import AsyncConnection
from sqlmodel.ext.asyncio.session import AsyncSession

from gateway.paging import decode_cursor, encode_cursor
from gateway.views import EntryView, Page, View
from models.domain.franchise import MONEY, Statement
from models.tables import franchise, owners
from models.tables.ledger_balances import balances
from models.tables.ledger_journal import Booked, Wanted, journal, transactions_of


class BookedView(View):
    """One transaction with its legs."""

    id: str
    kind: str
    request_number: str
    memo: str
    refers_to: str | None
    business_date: str
    booked_at: str
    trace: str
    entries: list[EntryView]


class AccountBalanceView(View):
    """The sum of one account of one legal entity, in fen, debit positive."""

    entity: str
    account: str
    book: str
    amount_fen: int


class StatementLineView(View):
    """One line of a franchise statement. `money`: it says where the money is, else what the store earned."""

    key: str
    line: str
    party: str
    money: bool
    fen: int
    legs: int


class StatementAccountView(View):
    """An account of the entity over the month: this store's part of its change, and everybody else's."""

    account: str
    opening_fen: int
    store_fen: int
    rest_fen: int
    closing_fen: int


class StatementView(View):
    """One store under one legal entity in one month. `difference_fen` from the ledger is 0, or it is wrong."""

    store: str
    entity: str
    month: str
    from_date: str
    to_date: str
    earned_fen: int
    difference_fen: int
    rows: list[StatementLineView]
    accounts: list[StatementAccountView]


class LineAmountView(View):
    """A transaction behind a line, and what it puts into it: debit positive, in fen."""

    business_date: str
    transaction: str
    kind: str
    request_number: str
    fen: int


class OwnerView(View):
    """Whose a store is, from a business date on."""

    store: str
    entity: str
    from_date: str


async def psycopg_of(session: AsyncSession) -> AsyncConnection[Any]:
    """The session's own connection, as the functions of models.tables take it."""
    raw = await (await session.connection()).get_raw_connection()
    connection: AsyncConnection[Any] = raw.driver_connection  # type: ignore[assignment]
    return connection


async def balance_views(session: AsyncSession, entity: str, account: str, on: str) -> list[AccountBalanceView]:
    """Balances that are not 0, of everybody where nothing is said."""
    found = await balances(await psycopg_of(session), entity=entity or None, account=account or None, on=on or None)
    return [
        AccountBalanceView(entity=one.entity, account=one.account, book=str(one.book), amount_fen=one.fen)
        for one in found
    ]


async def journal_page(session: AsyncSession, wanted: Wanted, limit: int, cursor: str | None) -> Page[BookedView]:
    """One page of the journal."""
    key = decode_cursor(cursor, 2)
    page = await journal(await psycopg_of(session), wanted, limit=limit, after=(key[0], key[1]) if key else None)
    views = [booked_view(one) for one in page.booked]
    return Page(items=views, next=encode_cursor(page.after) if page.after else None)


async def transaction(session: AsyncSession, name: str) -> BookedView | None:
    """One transaction by its id."""
    found = await transactions_of(await psycopg_of(session), [name])
    return booked_view(found[0]) if found else None


async def statement_views(session: AsyncSession, store: str, month: str) -> list[Statement]:
    """The store's statements of the month."""
    return await franchise.statements(await psycopg_of(session), store, month)


async def line_page(
    session: AsyncSession, store: str, entity: str, month: str, key: str, limit: int, cursor: str | None
) -> Page[LineAmountView]:
    """The transactions behind one line of a statement."""
    after = decode_cursor(cursor, 2)
    conn = await psycopg_of(session)
    found, following = await franchise.line_page(
        conn, store, entity, month, key, limit=limit, after=(after[0], after[1]) if after else None
    )
    booked = {
        one.transaction.id: one.transaction
        for one in await transactions_of(conn, [amount.transaction for amount in found])
    }
    views = [
        LineAmountView(
            business_date=one.business_date,
            transaction=one.transaction,
            kind=booked[one.transaction].kind,
            request_number=booked[one.transaction].request_number,
            fen=one.fen,
        )
        for one in found
    ]
    return Page(items=views, next=encode_cursor(following) if following else None)


async def owners_of(session: AsyncSession, store: str) -> list[owners.Owner]:
    """Every owner that a store had, has or will have."""
    return await owners.owners_of(await psycopg_of(session), store)


async def move_store(session: AsyncSession, store: str, entity: str, from_date: str) -> OwnerView:
    """A store changes hands; committed when this returns. Raises Refused as models.tables.owners.move_store."""
    moved = await owners.move_store(await psycopg_of(session), store, entity, from_date)
    await session.commit()
    return OwnerView(store=moved.store, entity=moved.entity, from_date=moved.from_date)


def booked_view(booked: Booked) -> BookedView:
    """As the pages and the API show it."""
    one = booked.transaction
    return BookedView(
        id=one.id,
        kind=one.kind,
        request_number=one.request_number,
        memo=one.memo,
        refers_to=one.refers_to,
        business_date=one.entries[0].business_date,
        booked_at=booked.booked_at.isoformat(),
        trace=booked.trace,
        entries=[
            EntryView(
                transaction=one.id,
                kind=one.kind,
                leg=entry.leg,
                entity=entry.entity,
                account=entry.account,
                amount_fen=entry.amount_fen,
                business_date=entry.business_date,
                book=str(entry.book),
            )
            for entry in one.entries
        ],
    )


def statement_view(one: Statement) -> StatementView:
    """As the API shows it."""
    return StatementView(
        store=one.store,
        entity=one.entity,
        month=one.month,
        from_date=one.from_date,
        to_date=one.to_date,
        earned_fen=one.earned_fen,
        difference_fen=one.difference_fen,
        rows=[
            StatementLineView(
                key=row.key,
                line=str(row.line),
                party=row.party,
                money=row.line in MONEY,
                fen=row.shown_fen,
                legs=row.legs,
            )
            for row in one.rows
        ],
        accounts=[
            StatementAccountView(
                account=row.account,
                opening_fen=row.opening_fen,
                store_fen=row.store_fen,
                rest_fen=row.rest_fen,
                closing_fen=row.closing_fen,
            )
            for row in one.accounts
        ],
    )
