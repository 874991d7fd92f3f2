"""Receipts: a store's chain, one receipt with its lines and returns, the chain verified; the page and the API."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Path, Query, Request, Response
from sqlmodel.ext.asyncio.session import AsyncSession

from gateway.console.render import page
from gateway.edge import Edge, EdgeOf, OfStore
from gateway.errors import Problem, not_found
from gateway.paging import Cursor, Limit, link_next
from gateway.queries import receipts
from gateway.queries.receipts import ChainCheckView, LinkView, Noted, ReceiptView
from gateway.routes.documented import problems
from gateway.views import Page
from models.tables.registry import StoreRow

router = APIRouter(tags=["papers"])

Search = Annotated[str, Query(max_length=64)]
Number = Annotated[int, Path(ge=1, le=2**62)]
Store = Annotated[str, Path(max_length=64)]


@router.get("/receipts", include_in_schema=False)
async def receipts_page(
    request: Request, edge: EdgeOf, store: Search = "", q: Search = "", cursor: Cursor = None
) -> Response:
    """A store's receipts, the newest first, or those of one number."""
    found: Page[LinkView] | None = None
    if q.strip():
        found = Page(items=await _find(edge, q.strip()), next=None)
    elif store:
        async with AsyncSession(await edge.database_with(StoreRow, store)) as session:
            found = await receipts.chain_page(session, store, edge.settings.page_rows, cursor)
    return page(request, "receipts.html", found=found, store=store, q=q, scope_label=None)


@router.get("/receipts/{store}/{n}", include_in_schema=False)
async def receipt_card(request: Request, database: OfStore, store: Store, n: Number) -> Response:
    """One receipt in the drawer."""
    return page(request, "parts/receipt.html", one=await _receipt(database, store, n), scope_label=None)


@router.get("/api/v1/receipts", responses=problems())
async def find_receipts(edge: EdgeOf, q: Annotated[str, Query(min_length=1, max_length=64)]) -> list[LinkView]:
    """By a receipt's number or a sale's id, else by how numbers begin; each with its void and returns."""
    return await _find(edge, q.strip())


@router.get("/api/v1/stores/{store}/receipts", responses=problems())
async def list_receipts(
    request: Request, response: Response, database: OfStore, store: Store, limit: Limit = 50, cursor: Cursor = None
) -> Page[LinkView]:
    """A store's chain, the newest first."""
    found = await receipts.chain_page(database, store, limit, cursor)
    link_next(request, response, found.next)
    return found


@router.get("/api/v1/stores/{store}/receipts/{n}", responses=problems(404))
async def read_receipt(database: OfStore, store: Store, n: Number) -> ReceiptView:
    """One receipt: lines, tenders, returns, and whether its link of the chain holds."""
    return await _receipt(database, store, n)


@router.get("/api/v1/stores/{store}/receipt-chain", responses=problems(404))
async def verify_receipts(
    database: OfStore,
    store: Store,
    head: Annotated[str, Query(max_length=100, description="N:SHA256 noted before: it must still be there")] = "",
) -> ChainCheckView:
    """The whole chain, verified: what is missing, changed or reordered. Note the head for the next time."""
    if await database.get(StoreRow, store) is None:
        raise not_found("store", store)
    return await receipts.check(database, store, _noted(head))


def _noted(text: str) -> Noted | None:
    if not text:
        return None
    n, _, sha256 = text.partition(":")
    try:
        return Noted(int(n), bytes.fromhex(sha256))
    except ValueError:
        raise Problem(422, "bad_head", f"{text!r} is no head", "write it as it was shown, N:SHA256") from None


async def _find(edge: Edge, text: str) -> list[LinkView]:
    found: list[LinkView] = []
    for engine in edge.books:
        async with AsyncSession(engine) as session:
            found += await receipts.find(session, text)
    return found


async def _receipt(session: AsyncSession, store: str, n: int) -> ReceiptView:
    found = await receipts.receipt(session, store, n)
    if found is None:
        raise not_found("receipt", f"{store} {n}")
    return found
