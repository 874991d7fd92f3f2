"""Plans & offers: what a chain offers, in words, and what a basket would cost. The same by the API."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Query, Request, Response
from pydantic import ValidationError
from sqlmodel.ext.asyncio.session import AsyncSession

from gateway.console.render import page
from gateway.edge import Database, Edge, EdgeOf
from gateway.errors import not_found
from gateway.plan_words import benefit_words, fee_words, period_words, voucher_words
from gateway.pricing_preview import preview, words
from gateway.pricing_views import (
    BenefitView,
    OffersView,
    PlanView,
    PreviewLine,
    PreviewMembership,
    PreviewRequest,
    PreviewView,
    VoucherView,
)
from gateway.queries import pricing, registry
from gateway.queries.pricing import VoucherFigures
from gateway.queries.registry import Scope
from gateway.routes.documented import problems
from gateway.routes.registry import ScopeOf
from models.domain.errors import Refused
from models.domain.plans import Plan
from models.domain.vouchers import Voucher

router = APIRouter(tags=["plans"])

Typed = Annotated[str, Query(max_length=4_000)]
NOTHING = VoucherFigures(0, 0, 0)


@router.get("/api/v1/offers", responses=problems(404))
async def offers(database: Database, edge: EdgeOf, scope: ScopeOf) -> OffersView:
    """The plans with their versions, and the vouchers of the book in force."""
    found = await _offers(database, edge, scope.region)
    if found is None:
        raise not_found("book of chain", edge.settings.chain_of(scope.region))
    return found


@router.post("/api/v1/pricing/preview", responses=problems(403, 404, 409))
async def preview_price(database: Database, edge: EdgeOf, asked: PreviewRequest) -> PreviewView:
    """What a basket costs, by the function that prices it at the till. Nothing is reserved or counted."""
    return await _preview(database, edge, asked)


@router.get("/plans", include_in_schema=False)
async def plans_page(
    request: Request,
    database: Database,
    edge: EdgeOf,
    scope: ScopeOf,
    shop: Annotated[str, Query(max_length=64)] = "",
    basket: Typed = "",
    vouchers: Typed = "",
    plan: Annotated[str, Query(max_length=64)] = "",
    used: Annotated[str, Query(max_length=12)] = "",
) -> Response:
    """Plans, vouchers, and the preview of what was typed."""
    stores = await registry.list_stores(database, Scope(), 100, None, "")
    answer, problem = None, None
    at_store = shop or scope.store or (stores.items[0].id if stores.items else "")
    if basket.strip():
        try:
            answer = await _preview(database, edge, typed(at_store, basket, vouchers, plan, used))
        except (Refused, ValidationError) as error:
            problem = error if isinstance(error, Refused) else Refused("typed_wrong", "", "")
    return page(
        request,
        "plans.html",
        offers=await _offers(database, edge, scope.region),
        stores=stores.items,
        at_store=at_store,
        basket=basket,
        vouchers=vouchers,
        plan=plan,
        used=used,
        answer=answer,
        problem=problem,
        scope_label=None,
    )


def typed(store: str, basket: str, vouchers: str, plan: str, used: str) -> PreviewRequest:
    """What was typed on the page: a line `CODE` or `CODE PIECES` each, codes apart by blanks, u in fen. Raises
    Refused `typed_wrong` or ValidationError."""
    lines = []
    for row in basket.splitlines():
        parts = row.split()
        if not parts:
            continue
        if len(parts) > 2 or (len(parts) == 2 and not parts[1].isascii()) or not parts[-1].isalnum():
            raise Refused("typed_wrong", row, "CODE PIECES")
        pieces = parts[1] if len(parts) == 2 else "1"
        if not pieces.isdecimal() or len(pieces) > 4:
            raise Refused("typed_wrong", row, "CODE PIECES")
        lines.append(PreviewLine(code=parts[0], quantity=int(pieces)))
    if used and (not used.isdecimal() or not used.isascii()):
        raise Refused("typed_wrong", used, "fen")
    membership = PreviewMembership(plan=plan, used_fen=int(used or "0")) if plan else None
    return PreviewRequest(store=store, lines=lines, vouchers=vouchers.split(), membership=membership)


async def _preview(database: AsyncSession, edge: Edge, asked: PreviewRequest) -> PreviewView:
    store = await pricing.store_of(database, asked.store)
    if store is None:
        raise not_found("store", asked.store)
    book = await pricing.newest_book(database, store.chain, [line.code for line in asked.lines], store.id)
    if book is None:
        raise not_found("book of chain", store.chain)
    return preview(asked, book, store, await edge.business_now(database))


async def _offers(database: AsyncSession, edge: Edge, region: str) -> OffersView | None:
    chain = edge.settings.chain_of(region).partition(", ")[0]
    book = await pricing.newest_book(database, chain)
    if book is None:
        return None
    plans = await pricing.plan_versions(database, chain)
    newest = {plan.id: plan.version for plan in (*reversed(plans), *book.plans.values())}
    figures = await pricing.voucher_figures(database, chain)
    return OffersView(
        chain=chain,
        book_version=book.version,
        plans=[_plan(plan, newest[plan.id] == plan.version) for plan in plans],
        vouchers=[_voucher(one, figures.get(one.id, NOTHING)) for one in book.vouchers.values()],
    )


def _plan(plan: Plan, newest: bool) -> PlanView:
    return PlanView(
        id=plan.id,
        version=plan.version,
        newest=newest,
        name=words(plan.name),
        owner=plan.owner_entity,
        fee_fen=plan.fee_fen,
        fee=words(fee_words(plan)),
        period=words(period_words(plan.period)),
        benefits=[
            BenefitView(id=one.id, name=words(one.name), words=words(benefit_words(one)), quota=one.quota)
            for one in plan.benefits
        ],
    )


def _voucher(voucher: Voucher, figures: VoucherFigures) -> VoucherView:
    return VoucherView(
        id=voucher.id,
        code=voucher.code,
        name=words(voucher.name),
        words=words(voucher_words(voucher)),
        funder=voucher.funder,
        valid_from=voucher.valid_from,
        valid_until=voucher.valid_until,
        quota=voucher.quota,
        member_quota=voucher.member_quota,
        offered=voucher.offered,
        reserved=figures.reserved,
        used=figures.used,
        given_fen=figures.given_fen,
    )
