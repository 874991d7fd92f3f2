"""Stores, terminals, members, memberships, sales, the ledger and the clock: the reading side of the API."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Depends, Query, Request, Response

from gateway.auth import ConsoleSession
from gateway.edge import Database, EdgeOf, OfMembership, OfSale, OfTerminal
from gateway.errors import not_found
from gateway.paging import Cursor, Limit, link_next
from gateway.queries import ledger as ledgers
from gateway.queries import members, registry, sales
from gateway.queries.registry import Scope
from gateway.routes.documented import problems
from gateway.views import (
    ClockView,
    ExplanationView,
    LedgerView,
    MembershipView,
    MemberView,
    Page,
    SaleView,
    SessionView,
    StoreView,
    TerminalView,
)
from models.tables.registry import ClockRow

router = APIRouter(prefix="/api/v1")

Search = Annotated[str, Query(max_length=64)]


def scope_of(
    region: Annotated[str, Query(max_length=48)] = "", store: Annotated[str, Query(max_length=48)] = ""
) -> Scope:
    """`region` and `store` of the query: the same two words in every address of the API and the console.

    Lists are of one database: that of `region`; without one that of the deployment's first region.
    """
    return Scope(region, store)


ScopeOf = Annotated[Scope, Depends(scope_of)]


@router.get("/session", tags=["session"], responses=problems())
async def session(request: Request) -> SessionView:
    """The signed-in session and its CSRF token."""
    current: ConsoleSession = request.state.session
    return SessionView(csrf=current.csrf)


@router.get("/stores", tags=["registry"], responses=problems())
async def stores(
    request: Request,
    response: Response,
    database: Database,
    edge: EdgeOf,
    scope: ScopeOf,
    limit: Limit = 50,
    cursor: Cursor = None,
    q: Search = "",
) -> Page[StoreView]:
    """Stores by id."""
    today = (await edge.business_now(database)).date().isoformat()
    page = await registry.list_stores(database, scope, limit, cursor, q, today)
    link_next(request, response, page.next)
    return page


@router.get("/terminals", tags=["registry"], responses=problems())
async def terminals(
    request: Request,
    response: Response,
    database: Database,
    scope: ScopeOf,
    limit: Limit = 50,
    cursor: Cursor = None,
    q: Search = "",
) -> Page[TerminalView]:
    """Terminals in service, by store."""
    page = await registry.list_terminals(database, scope, limit, cursor, q)
    link_next(request, response, page.next)
    return page


@router.get("/terminals/{terminal}", tags=["registry"], responses=problems(404))
async def terminal(database: OfTerminal, terminal: str) -> TerminalView:
    """One terminal."""
    found = await registry.get_terminal(database, terminal)
    if found is None:
        raise not_found("terminal", terminal)
    return found


@router.get("/members", tags=["members"], responses=problems())
async def list_members(
    request: Request,
    response: Response,
    database: Database,
    scope: ScopeOf,
    limit: Limit = 50,
    cursor: Cursor = None,
    q: Search = "",
) -> Page[MemberView]:
    """Members, the newest first. `q`: an exact id, or four phone digits."""
    page = await members.list_members(database, scope, limit, cursor, q)
    link_next(request, response, page.next)
    return page


@router.get("/memberships", tags=["members"], responses=problems())
async def list_memberships(
    request: Request,
    response: Response,
    database: Database,
    scope: ScopeOf,
    limit: Limit = 50,
    cursor: Cursor = None,
    group: Annotated[str, Query(pattern="^(|open|settling|closed|other)$")] = "",
    q: Search = "",
) -> Page[MembershipView]:
    """Memberships, the newest first. `q`: an exact id of one or of its member, or four phone digits."""
    page = await members.list_memberships(database, scope, limit, cursor, group, q)
    link_next(request, response, page.next)
    return page


@router.get("/memberships/{membership}", tags=["members"], responses=problems(404))
async def membership(database: OfMembership, membership: str) -> MembershipView:
    """One membership."""
    found = await members.get_membership(database, membership)
    if found is None:
        raise not_found("membership", membership)
    return found


@router.get("/memberships/{membership}/explain", tags=["members"], responses=problems(404))
async def explain(database: OfMembership, membership: str) -> ExplanationView:
    """The charge in one sentence, in both languages, and the lines that it follows from."""
    found = await members.explain(database, membership)
    if found is None:
        raise not_found("membership", membership)
    return found


@router.get("/sales", tags=["payments"], responses=problems())
async def list_sales(
    request: Request,
    response: Response,
    database: Database,
    scope: ScopeOf,
    limit: Limit = 50,
    cursor: Cursor = None,
    q: Search = "",
    business_date: Annotated[str, Query(pattern=r"^(|\d{4}-\d{2}-\d{2})$")] = "",
) -> Page[SaleView]:
    """Sales, the newest first. `q`: an exact id, or a prefix of the receipt number."""
    page = await sales.list_sales(database, scope, limit, cursor, q, business_date)
    link_next(request, response, page.next)
    return page


@router.get("/sales/{sale}", tags=["payments"], responses=problems(404))
async def sale(database: OfSale, sale: str) -> SaleView:
    """One sale."""
    found = await sales.get_sale(database, sale)
    if found is None:
        raise not_found("sale", sale)
    return found.sale


@router.get("/ledger", tags=["ledger"], responses=problems())
async def ledger(database: Database, _scope: ScopeOf, entity: Annotated[str, Query(max_length=48)] = "") -> LedgerView:
    """Balances; `sum_fen` and `unbalanced_transactions` are over the whole ledger and must be 0.

    Regions that share a database share a ledger; `region` picks the database.
    """
    return await ledgers.ledger(database, entity)


@router.get("/clock", tags=["clock"], responses=problems())
async def clock(database: Database, edge: EdgeOf, _scope: ScopeOf) -> ClockView:
    """The business clock: wall time plus an offset. Regions that share a database share it; `region` picks one."""
    row = await database.get(ClockRow, 1)
    wall_now = edge.now()
    return ClockView(
        business_now=await edge.business_now(database),
        wall_now=wall_now,
        offset_s=row.offset_us / 1e6 if row else 0.0,
        movable=row.movable if row else False,
    )
