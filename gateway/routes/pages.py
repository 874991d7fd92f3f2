"""The console's pages: one per word of the left navigation, and the fragments of the drawer."""

from __future__ import annotations

from dataclasses import asdict
from typing import Annotated

import msgspec
from fastapi import APIRouter, Query, Request, Response
from fastapi.responses import RedirectResponse
from sqlmodel.ext.asyncio.session import AsyncSession

from gateway import face_figures, host_figures
from gateway.console.render import page
from gateway.edge import Database, EdgeOf, OfMembership, OfSale, OfStore, OfTerminal
from gateway.errors import not_found
from gateway.paging import Cursor
from gateway.queries import ledger, members, registry, sales
from gateway.queries.books import shelf
from gateway.queries.registry import Scope
from gateway.routes.registry import ScopeOf
from models.domain.ids import StoreId, TerminalId

router = APIRouter(include_in_schema=False)

Search = Annotated[str, Query(max_length=64)]
SALES_IN_A_CARD = 5
STORES_IN_THE_PICKER = 12


async def _scope_label(session: AsyncSession, scope: Scope) -> dict[str, str] | None:
    """The name of the store in the scope, for the picker's button."""
    row = await registry.get_store(session, scope.store) if scope.store else None
    return None if row is None else {"zh": row.name_zh, "en": row.name_en}


@router.get("/")
async def home() -> Response:
    """The console opens on the wall."""
    return RedirectResponse("/wall", 303)


@router.get("/scope")
async def scope_choices(request: Request, edge: EdgeOf, path: str = "/wall", q: Search = "") -> Response:
    """The scope picker's list: regions, and stores that begin with what was typed."""
    found = []
    for engine in edge.books:
        async with AsyncSession(engine) as session:
            found.append(await registry.list_stores(session, Scope(), STORES_IN_THE_PICKER, None, q.strip()))
    stores = sorted((store for one in found for store in one.items), key=lambda store: store.id)
    more = len(stores) > STORES_IN_THE_PICKER or any(one.next for one in found)
    target = path if path.startswith("/") and not path.startswith("//") else "/wall"
    shown = stores[:STORES_IN_THE_PICKER]
    return page(request, "parts/scope.html", stores=shown, more=more, regions=edge.settings.regions, target=target)


@router.get("/wall")
async def wall(request: Request, database: Database, edge: EdgeOf, scope: ScopeOf) -> Response:
    """Every store and terminal, live."""
    stores = await registry.wall_stores(database, scope)
    if not scope.region and not scope.store:
        for engine in list(edge.books)[1:]:
            async with AsyncSession(engine) as session:
                stores += await registry.wall_stores(session, scope)
    first = await registry.list_terminals(database, scope, 1, None)
    return page(
        request,
        "wall.html",
        stores=[asdict(store) for store in stores],
        first_terminal=first.items[0].id if first.items else "",
        startup=edge.startup(),
        scope_label=await _scope_label(database, scope),
    )


@router.get("/wall/terminals/{terminal}")
async def terminal_card(request: Request, database: OfTerminal, edge: EdgeOf, terminal: str) -> Response:
    """One terminal: where it stands and what happens there now."""
    found = await registry.get_terminal(database, terminal)
    if found is None:
        raise not_found("terminal", terminal)
    store = await registry.get_store(database, found.store)
    recent = await sales.list_sales(database, Scope(store=found.store), SALES_IN_A_CARD, None)
    return page(
        request,
        "parts/terminal_card.html",
        terminal=found,
        store=store,
        tile=edge.wall.terminals.get(TerminalId(terminal)),
        sales=recent.items,
        scope_label=None,
    )


@router.get("/wall/stores/{store}")
async def store_card(request: Request, database: OfStore, edge: EdgeOf, store: str) -> Response:
    """One store: its day so far, its terminals, its last sales."""
    row = await registry.get_store(database, store)
    if row is None:
        raise not_found("store", store)
    terminals = await registry.list_terminals(database, Scope(store=store), 50, None)
    recent = await sales.list_sales(database, Scope(store=store), SALES_IN_A_CARD, None)
    return page(
        request,
        "parts/store_card.html",
        store=row,
        tile=edge.wall.stores.get(StoreId(store)),
        terminals=[(item, edge.wall.terminals.get(TerminalId(item.id))) for item in terminals.items],
        sales=recent.items,
        switched_off=await edge.kill_switches.of_store(store) if edge.kill_switches is not None else [],
        scope_label=None,
    )


@router.get("/members")
async def memberships(
    request: Request,
    database: Database,
    edge: EdgeOf,
    scope: ScopeOf,
    cursor: Cursor = None,
    group: Annotated[str, Query(pattern="^(|open|settling|closed|other)$")] = "",
    q: Search = "",
) -> Response:
    """Memberships with the benefit used against the fee."""
    found = await members.list_memberships(database, scope, edge.settings.page_rows, cursor, group, q.strip())
    return page(
        request,
        "members.html",
        memberships=found,
        group=group,
        q=q,
        groups=list(members.STATE_GROUPS),
        business_now=await edge.business_now(database),
        can_settle=edge.settle is not None,
        scope_label=await _scope_label(database, scope),
    )


@router.get("/memberships/{membership}")
async def membership(request: Request, database: OfMembership, membership: str) -> Response:
    """One member's charge, explained."""
    found = await members.explain(database, membership)
    if found is None:
        raise not_found("membership", membership)
    return page(request, "parts/membership.html", explained=found, m=found.membership, scope_label=None)


@router.get("/payments")
async def payments(
    request: Request, database: Database, edge: EdgeOf, scope: ScopeOf, cursor: Cursor = None, q: Search = ""
) -> Response:
    """Sales, the newest first."""
    found = await sales.list_sales(database, scope, edge.settings.page_rows, cursor, q.strip())
    return page(request, "payments.html", sales=found, q=q, scope_label=await _scope_label(database, scope))


@router.get("/payments/{sale}")
async def payment(request: Request, database: OfSale, sale: str) -> Response:
    """One receipt and its bookings."""
    found = await sales.get_sale(database, sale)
    if found is None:
        raise not_found("sale", sale)
    store = await registry.get_store(database, found.sale.store)
    return page(request, "parts/sale.html", detail=found, sale=found.sale, store=store, scope_label=None)


@router.get("/stores")
async def stores(
    request: Request, database: Database, edge: EdgeOf, scope: ScopeOf, cursor: Cursor = None, q: Search = ""
) -> Response:
    """Stores by id, with their day so far."""
    today = (await edge.business_now(database)).date().isoformat()
    found = await registry.list_stores(database, scope, edge.settings.page_rows, cursor, q.strip(), today)
    return page(
        request,
        "stores.html",
        stores=found,
        tiles=edge.wall.stores,
        q=q,
        scope_label=await _scope_label(database, scope),
    )


@router.get("/terminals")
async def terminals(
    request: Request, database: Database, edge: EdgeOf, scope: ScopeOf, cursor: Cursor = None, q: Search = ""
) -> Response:
    """Terminals by store, as the hosts see them now."""
    found = await registry.list_terminals(database, scope, edge.settings.page_rows, cursor, q.strip())
    return page(
        request,
        "terminals.html",
        terminals=found,
        tiles=edge.wall.terminals,
        q=q,
        scope_label=await _scope_label(database, scope),
    )


@router.get("/system")
async def system(request: Request, database: Database, edge: EdgeOf) -> Response:
    """What runs, since when, what the hosts do, and whether the books balance."""
    slots = await registry.list_slots(database)
    return page(
        request,
        "system.html",
        startup=edge.startup(),
        slots=slots,
        figures=await host_figures.look(edge.hosts, slots),
        desks=await face_figures.look(edge.face_desks, [region.name for region in edge.settings.regions]),
        waiting=edge.wall.waiting,
        books=list(edge.books.values()),
        backlog=await sales.backlog(database),
        ledger=await ledger.ledger(database),
        wall=edge.wall,
        business_now=await edge.business_now(database),
        wall_now=edge.now(),
        scope_label=None,
    )


@router.get("/terminal/{terminal}")
async def virtual_terminal(request: Request, database: OfTerminal, edge: EdgeOf, terminal: str) -> Response:
    """A terminal in the browser: outside the shell, as a customer sees it."""
    found = await registry.get_terminal(database, terminal)
    if found is None:
        raise not_found("terminal", terminal)
    tile = edge.wall.terminals.get(TerminalId(terminal))
    store = await registry.get_store(database, found.store)
    shelved = await shelf(database, store.chain if store is not None else "")
    return page(
        request,
        "terminal.html",
        terminal=found,
        store=store,
        online=tile.online if tile else found.online,
        shelf=shelved,
        consents=msgspec.to_builtins(shelved.consents),
        switched_off=await edge.kill_switches.of_store(found.store) if edge.kill_switches is not None else [],
    )


@router.get("/api/v1/docs")
async def documentation(request: Request) -> Response:
    """Swagger UI, from our own files."""
    return page(request, "docs.html")
