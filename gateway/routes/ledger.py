"""The ledger's pages: balances, journal, franchise statements; and the same by the API, with the owners of a store."""

from __future__ import annotations

from calendar import monthrange
from typing import Annotated

from fastapi import APIRouter, Header, Path, Query, Request, Response
from pydantic import BaseModel, ConfigDict, Field
from sqlmodel.ext.asyncio.session import AsyncSession

from gateway.console import charts
from gateway.console.render import page
from gateway.edge import Database, EdgeOf, OfStore
from gateway.errors import not_found
from gateway.paging import Cursor, Limit, link_next
from gateway.queries import ledger_pages, registry
from gateway.queries.ledger_pages import (
    AccountBalanceView,
    BookedView,
    LineAmountView,
    OwnerView,
    StatementView,
)
from gateway.queries.registry import Scope
from gateway.routes.documented import problems
from gateway.views import Page
from models.domain.franchise import MONEY, Line, Statement
from models.tables.ledger_journal import Wanted
from models.tables.registry import StoreRow

router = APIRouter(tags=["ledger"])
API = "/api/v1/ledger"

Word = Annotated[str, Query(max_length=160)]
Name = Annotated[str, Query(min_length=1, max_length=64)]
Day = Annotated[str, Query(pattern=r"^(|\d{4}-\d{2}-\d{2})$", description="a business date")]
Month = Annotated[str, Query(pattern=r"^(|\d{4}-(0[1-9]|1[0-2]))$")]
Key = Annotated[str, Header(alias="Idempotency-Key", min_length=8, max_length=64)]
DAYS_DRAWN = (Line.CASH, Line.PROVIDER, Line.COLLECTED_BY, Line.OWED_BY)
STORES_OFFERED = 200


class OwnerBody(BaseModel):
    """Whose the store is, and the business date from which it is."""

    model_config = ConfigDict(extra="forbid")

    entity: Annotated[str, Field(min_length=1, max_length=64)]
    from_date: Annotated[str, Field(pattern=r"^\d{4}-\d{2}-\d{2}$")]


def _wanted(entity: str, account: str, since: str, until: str, membership: str, sale: str) -> Wanted:
    return Wanted(*(word.strip() or None for word in (entity, account, since, until, membership, sale)))


# ---------------------------------------------------------------- the pages


@router.get("/ledger", include_in_schema=False)
async def ledger_page(
    request: Request,
    database: Database,
    edge: EdgeOf,
    cursor: Cursor = None,
    tab: Annotated[str, Query(pattern="^(balances|journal)$")] = "balances",
    entity: Word = "",
    account: Word = "",
    on: Day = "",
    since: Day = "",
    until: Day = "",
    membership: Word = "",
    sale: Word = "",
) -> Response:
    """Balances by entity, and the journal behind each."""
    found, booked = [], None
    if tab == "balances":
        found = await ledger_pages.balance_views(database, entity, account, on)
    else:
        wanted = _wanted(entity, account, since, until, membership, sale)
        booked = await ledger_pages.journal_page(database, wanted, edge.settings.page_rows, cursor)
    sums = {book: sum(one.amount_fen for one in found if one.book == book) for book in ("posted", "pending")}
    return page(
        request,
        "ledger.html",
        tab=tab,
        balances=found,
        sums=sums,
        booked=booked,
        entity=entity,
        account=account,
        on=on,
        since=since,
        until=until,
        membership=membership,
        sale=sale,
        scope_label=None,
    )


@router.get("/ledger/transactions/{transaction}", include_in_schema=False)
async def transaction_card(request: Request, database: Database, transaction: str) -> Response:
    """One transaction in the drawer."""
    found = await ledger_pages.transaction(database, transaction)
    if found is None:
        raise not_found("transaction", transaction)
    return page(request, "parts/transaction.html", booked=found, scope_label=None)


@router.get("/statement", include_in_schema=False)
async def statement_page(
    request: Request,
    database: Database,
    edge: EdgeOf,
    store: Annotated[str, Query(max_length=64)] = "",
    month: Month = "",
    entity: Word = "",
    line: Word = "",
    cursor: Cursor = None,
) -> Response:
    """The franchise statement of a store and month, every line open to its transactions."""
    month = month or (await edge.business_now(database)).date().isoformat()[:7]
    if store:  # another region may keep it
        engine = await edge.database_with(StoreRow, store)
        async with AsyncSession(engine, expire_on_commit=False) as session:
            return await _statement(request, session, edge, store, month, entity, line, cursor)
    stores = (await registry.list_stores(database, Scope(), STORES_OFFERED, None, "")).items
    return page(request, "statement.html", store=None, stores=stores, month=month, statements=[], scope_label=None)


async def _statement(
    request: Request,
    session: AsyncSession,
    edge: EdgeOf,
    store: str,
    month: str,
    entity: str,
    line: str,
    cursor: str | None,
) -> Response:
    row = await registry.get_store(session, store)
    if row is None:
        raise not_found("store", store)
    found = await ledger_pages.statement_views(session, store, month)
    behind = None
    if line and entity:
        behind = await ledger_pages.line_page(session, store, entity, month, line, edge.settings.page_rows, cursor)
    return page(
        request,
        "statement.html",
        store=row,
        stores=[],
        month=month,
        statements=[(one, _chart(one), _days(one)) for one in found],
        owners=await ledger_pages.owners_of(session, store),
        money=MONEY,
        drawn=DAYS_DRAWN,
        entity=entity,
        line=line,
        behind=behind,
        scope_label={"zh": row.name_zh, "en": row.name_en},
    )


def _days(statement: Statement) -> list[tuple[str, dict[str, int]]]:
    return [(day, lines) for day, lines in statement.days if any(lines.get(str(one)) for one in DAYS_DRAWN)]


def _chart(statement: Statement) -> charts.Chart:
    """Takings of each day of the month in yuan, by where they went; what went back more than came is not drawn."""
    year, month = map(int, statement.month.split("-"))
    by_day = {day: lines for day, lines in statement.days}  # noqa: C416
    columns = []
    for n in range(1, monthrange(year, month)[1] + 1):
        lines = by_day.get(f"{statement.month}-{n:02d}", {})
        columns.append((str(n), {str(one): max(0, lines.get(str(one), 0)) // 100 for one in DAYS_DRAWN}))
    return charts.stacked(columns, [str(one) for one in DAYS_DRAWN])


# ---------------------------------------------------------------- the API


@router.get(API + "/balances", response_model=list[AccountBalanceView], responses=problems())
async def list_balances(
    database: Database, entity: Word = "", account: Word = "", on: Day = ""
) -> list[AccountBalanceView]:
    """Balances that are not 0, now or at the end of a business date. `account`: it, or what begins with it and `:`."""
    return await ledger_pages.balance_views(database, entity, account, on)


@router.get(API + "/journal", response_model=Page[BookedView], responses=problems(409))
async def list_journal(
    request: Request,
    response: Response,
    database: Database,
    limit: Limit = 50,
    cursor: Cursor = None,
    entity: Word = "",
    account: Word = "",
    since: Day = "",
    until: Day = "",
    membership: Word = "",
    sale: Word = "",
) -> Page[BookedView]:
    """Booked transactions: of an account and days, of a membership, of a sale; the newest where nothing is said."""
    wanted = _wanted(entity, account, since, until, membership, sale)
    found = await ledger_pages.journal_page(database, wanted, limit, cursor)
    link_next(request, response, found.next)
    return found


@router.get("/api/v1/stores/{store}/statement", response_model=list[StatementView], responses=problems(404, 409))
async def store_statement(
    database: OfStore,
    store: Annotated[str, Path(max_length=64)],
    month: Annotated[str, Query(pattern=r"^\d{4}-(0[1-9]|1[0-2])$")],
) -> list[StatementView]:
    """The franchise statements of a month: one for each legal entity that owned the store."""
    if await registry.get_store(database, store) is None:
        raise not_found("store", store)
    return [ledger_pages.statement_view(one) for one in await ledger_pages.statement_views(database, store, month)]


@router.get("/api/v1/stores/{store}/statement/line", response_model=Page[LineAmountView], responses=problems(409))
async def store_statement_line(
    request: Request,
    response: Response,
    database: OfStore,
    store: Annotated[str, Path(max_length=64)],
    month: Annotated[str, Query(pattern=r"^\d{4}-(0[1-9]|1[0-2])$")],
    entity: Name,
    key: Name,
    limit: Limit = 50,
    cursor: Cursor = None,
) -> Page[LineAmountView]:
    """The transactions behind one line; they sum to it."""
    found = await ledger_pages.line_page(database, store, entity, month, key, limit, cursor)
    link_next(request, response, found.next)
    return found


@router.post("/api/v1/stores/{store}/owner", response_model=OwnerView, responses=problems(403, 404, 409))
async def move_store(
    database: OfStore, edge: EdgeOf, store: Annotated[str, Path(max_length=64)], body: OwnerBody, key: Key
) -> Response:
    """The store changes hands from a business date on. Refused where that day has business already, or is closed."""

    async def effect() -> bytes:
        moved = await ledger_pages.move_store(database, store, body.entity, body.from_date)
        return moved.model_dump_json().encode()

    asked = f"{store}\n{body.model_dump_json()}".encode()
    answer = await edge.calls.run(f"owner:{key}", asked, effect)
    return Response(answer, media_type="application/json")
