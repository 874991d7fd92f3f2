"""Price files in, invoices and points out."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any

from fastapi import APIRouter, Path, Query, Request
from pydantic import BaseModel
from sqlmodel.ext.asyncio.session import AsyncSession

from gateway.edge import EdgeOf
from gateway.errors import not_found
from gateway.queries import invoices, points
from gateway.routes.documented import problems
from models.domain.invoices import Invoice
from models.domain.price_file import FILE_BYTES_MAX, JUMP_PERCENT
from models.tables.members import MemberRow
from models.tables.points import Account

router = APIRouter(tags=["papers"])

Ident = Annotated[str, Path(max_length=64)]


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


class PointsView(BaseModel):
    """A member's points by brand; one point is worth one fen when it is paid with."""

    member: str
    accounts: list[Account]


@router.post(
    "/api/v1/chains/{chain}/prices",
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
    chain: Annotated[str, Path(max_length=48)],
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


@router.get("/api/v1/invoices/{ident}", responses=problems(404))
async def invoice(edge: EdgeOf, ident: Ident) -> Invoice:
    """What may be invoiced of a sale (by its id or receipt) or of a membership's charge, with its corrections."""
    for engine in edge.books:
        async with AsyncSession(engine) as session:
            found = await invoices.invoice_of(session, ident)
        if found is not None:
            return found
    raise not_found("sale or membership", ident)


@router.get("/api/v1/members/{member}/points", responses=problems(404))
async def member_points(edge: EdgeOf, member: Ident) -> PointsView:
    """What a member earned, spent and may spend now."""
    async with AsyncSession(await edge.database_with(MemberRow, member)) as session:
        if await session.get(MemberRow, member) is None:
            raise not_found("member", member)
        now: datetime = await edge.business_now(session)
        return PointsView(member=member, accounts=await points.accounts(session, member, now))
