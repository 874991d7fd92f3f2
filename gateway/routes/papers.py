"""Invoices and points: what may be invoiced, as page, JSON and CSV; what a member earned and spent."""

from __future__ import annotations

import csv
import io
from datetime import datetime
from typing import Annotated

from fastapi import APIRouter, Path, Query, Request, Response
from pydantic import BaseModel
from sqlmodel.ext.asyncio.session import AsyncSession

from gateway.console.render import page
from gateway.edge import Database, Edge, EdgeOf
from gateway.errors import not_found
from gateway.paging import Cursor
from gateway.queries import invoices, members, points, sales
from gateway.routes.documented import problems
from gateway.routes.registry import ScopeOf
from models.domain.invoices import Invoice
from models.tables.members import MemberRow
from models.tables.points import Account

router = APIRouter(tags=["papers"])

Ident = Annotated[str, Path(max_length=64)]
CSV_COLUMNS = (
    "number", "issuer", "store", "at", "reason", "line", "code", "name", "quantity", "tax", "rate_bp", "gross_fen",
    "net_fen", "tax_fen",
)  # fmt: skip


class PointsView(BaseModel):
    """A member's points by brand; one point is worth one fen when it is paid with."""

    member: str
    accounts: list[Account]


@router.get("/invoices", include_in_schema=False)
async def invoices_page(
    request: Request,
    database: Database,
    edge: EdgeOf,
    scope: ScopeOf,
    cursor: Cursor = None,
    tab: Annotated[str, Query(pattern="^(sales|memberships)$")] = "sales",
    q: Annotated[str, Query(max_length=64)] = "",
) -> Response:
    """Sales and memberships that are over, each with what may be invoiced of it."""
    rows, text = edge.settings.page_rows, q.strip()
    return page(
        request,
        "invoices.html",
        tab=tab,
        q=q,
        sales=await sales.list_sales(database, scope, rows, cursor, text) if tab == "sales" else None,
        memberships=await members.list_memberships(database, scope, rows, cursor, "closed", text)
        if tab == "memberships"
        else None,
        scope_label=None,
    )


@router.get("/invoices/{ident}", include_in_schema=False)
async def invoice_card(request: Request, edge: EdgeOf, ident: Ident) -> Response:
    """One invoice in the drawer."""
    return page(request, "parts/invoice.html", invoice=await _invoice(edge, ident), ident=ident, scope_label=None)


@router.get("/api/v1/invoices/{ident}", response_model=Invoice, responses=problems(404))
async def invoice(
    edge: EdgeOf, ident: Ident, form: Annotated[str, Query(alias="format", pattern="^(json|csv)$")] = "json"
) -> Invoice | Response:
    """What may be invoiced of a sale (by its id or receipt) or of a membership's charge, with its corrections."""
    found = await _invoice(edge, ident)
    if form == "json":
        return found
    headers = {"Content-Disposition": 'attachment; filename="invoice.csv"'}
    return Response(as_csv(found), media_type="text/csv; charset=utf-8", headers=headers)


def as_csv(found: Invoice) -> bytes:
    """A line for each line of each document; text that a spreadsheet would run as a formula is quoted by '."""
    out = io.StringIO()
    writer = csv.writer(out)
    writer.writerow(CSV_COLUMNS)
    for one in (*found.documents, *found.corrections):
        for line in one.lines:
            row = [
                one.number, one.issuer, one.store, one.at.isoformat(), one.reason, line.line, line.code, line.name,
                line.quantity, line.tax, line.rate_bp, line.gross_fen, line.net_fen, line.tax_fen,
            ]  # fmt: skip
            writer.writerow(
                [f"'{cell}" if isinstance(cell, str) and cell[:1] in set("=+-@\t") else cell for cell in row]
            )
    return out.getvalue().encode()


async def _invoice(edge: Edge, ident: str) -> Invoice:
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
