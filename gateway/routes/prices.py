"""Price files: taken, what each changed, and the history of them; the page and the API."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Path, Query, Request, Response
from pydantic import BaseModel
from sqlmodel.ext.asyncio.session import AsyncSession

from gateway.console.render import page
from gateway.edge import Edge, EdgeOf
from gateway.paging import Cursor, Limit, link_next
from gateway.queries import price_files
from gateway.queries.price_files import ItemChangeView, TakenFileView
from gateway.routes.documented import problems
from gateway.views import Page
from models.domain.price_file import FILE_BYTES_MAX, ITEMS_MAX, JUMP_PERCENT

router = APIRouter(tags=["papers"])

API = "/api/v1/chains/{chain}/prices"
Chain = Annotated[str, Path(max_length=48)]
Version = Annotated[int, Path(ge=1, le=2**31 - 1)]


class PricesView(BaseModel):
    """What a price file changes. `version` 0: nothing was written. Amounts of jumps in fen."""

    chain: str
    version: int
    dry_run: bool
    lines: int
    new: int
    changed: int
    prices_changed: int
    gone: int
    same: int
    jumps: int
    jumps_shown: list[dict[str, Any]]


def _session(edge: Edge, chain: str) -> AsyncSession:
    """In the first database that keeps this chain's books."""
    region = next((one.name for one in edge.settings.regions if one.chain == chain), "")
    return AsyncSession(edge.database_of(region))


@router.get("/prices", include_in_schema=False)
async def prices_page(
    request: Request, edge: EdgeOf, chain: Annotated[str, Query(max_length=48)] = "", cursor: Cursor = None
) -> Response:
    """A file is checked, then taken; below, what was taken before."""
    chains = list(dict.fromkeys(one.chain for one in edge.settings.regions))
    chosen = chain or chains[0]
    async with _session(edge, chosen) as session:
        found = await price_files.history(session, chosen, edge.settings.page_rows, cursor)
    return page(
        request,
        "prices.html",
        chains=chains,
        chain=chosen,
        files=found,
        jump_percent=JUMP_PERCENT,
        items_max=ITEMS_MAX,
        bytes_max=FILE_BYTES_MAX,
        scope_label=None,
    )


@router.get("/prices/{chain}/{version}", include_in_schema=False)
async def changes_card(
    request: Request, edge: EdgeOf, chain: Chain, version: Version, cursor: Cursor = None
) -> Response:
    """What one file changed, in the drawer."""
    async with _session(edge, chain) as session:
        found = await price_files.changes(session, chain, version, edge.settings.page_rows, cursor)
    return page(request, "parts/price_changes.html", chain=chain, version=version, changes=found, scope_label=None)


@router.post(
    API,
    responses=problems(403, 409, 413),
    openapi_extra={
        "requestBody": {
            "required": True,
            "description": f"CSV in UTF-8, at most {FILE_BYTES_MAX} bytes",
            "content": {"text/csv": {"schema": {"type": "string", "format": "binary"}}},
        }
    },
)
async def take_prices(
    request: Request,
    edge: EdgeOf,
    chain: Chain,
    effective: Annotated[str, Query(max_length=40, description="from when on, ISO 8601; empty: at once")] = "",
    dry_run: bool = False,
    force: Annotated[bool, Query(description="take prices that jump, too")] = False,
    jump_percent: Annotated[int, Query(ge=1, le=10_000)] = JUMP_PERCENT,
) -> PricesView:
    """Make a price file the chain's next book: all or nothing. The same file again changes nothing."""
    async with AsyncSession(edge.require_database()) as session:
        now = await edge.business_now(session)
    body = await request.body()
    done = await edge.require_prices().take(
        chain, body, effective=effective, dry_run=dry_run, force=force, jump_percent=jump_percent, now=now
    )
    return PricesView(**done)


@router.get(API, responses=problems())
async def list_price_files(
    request: Request, response: Response, edge: EdgeOf, chain: Chain, limit: Limit = 50, cursor: Cursor = None
) -> Page[TakenFileView]:
    """The files that became books of this chain, the newest first."""
    async with _session(edge, chain) as session:
        found = await price_files.history(session, chain, limit, cursor)
    link_next(request, response, found.next)
    return found


@router.get(API + "/{version}", responses=problems())
async def list_price_changes(
    request: Request,
    response: Response,
    edge: EdgeOf,
    chain: Chain,
    version: Version,
    limit: Limit = 50,
    cursor: Cursor = None,
) -> Page[ItemChangeView]:
    """What this version of the chain's book changed of its articles, by code."""
    async with _session(edge, chain) as session:
        found = await price_files.changes(session, chain, version, limit, cursor)
    link_next(request, response, found.next)
    return found
