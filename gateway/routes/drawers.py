"""Drawers and their shifts, and goods brought back with a manager's approval."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from typing import Annotated
from uuid import NAMESPACE_URL, uuid5

from fastapi import APIRouter, Header, Path, Query, Request, Response
from pydantic import BaseModel, ConfigDict, Field
from sqlmodel.ext.asyncio.session import AsyncSession

from actors.hosts import Delivery
from actors.returning import CASH_APPROVED
from gateway.auth import ConsoleSession
from gateway.console.render import page
from gateway.drawers import Drawer, ShiftReport
from gateway.edge import Edge, EdgeOf
from gateway.errors import not_found
from gateway.queries import permissions
from gateway.queries.registry import get_terminal
from gateway.routes.documented import problems
from gateway.views import View
from models.domain.drawers import FEN_MAX, NAME_CHARACTERS_MAX, REASON_CHARACTERS_MAX, MoveKind
from models.domain.ids import RegionId, TerminalId
from models.domain.permissions import Permission
from models.tables.registry import TerminalRow

router = APIRouter(tags=["drawers"])
API = "/api/v1/stores/{store}/drawers"
SHIFTS_SHOWN = 20

Key = Annotated[str, Header(alias="Idempotency-Key", min_length=8, max_length=64)]
Name = Annotated[str, Path(max_length=64)]
Fen = Annotated[int, Field(ge=0, le=FEN_MAX)]
By = Annotated[str, Field(max_length=NAME_CHARACTERS_MAX, description="Who stands at the drawer; default: you.")]
Effect = Callable[[], Awaitable[ShiftReport]]


class MoveView(View):
    """Cash put in or taken out by hand."""

    kind: str
    fen: int
    reason: str
    by: str
    at: datetime


class TenderView(View):
    """What the lane took otherwise than in cash meanwhile."""

    kind: str
    sales: int
    fen: int


class ShiftView(View):
    """A shift: X while it is open, and then nothing says what the drawer should hold; Z once it was counted.

    expected_fen = float_fen + cash_sales_fen - cash_returns_fen + paid_in_fen - paid_out_fen - drops_fen.
    """

    kind: str
    shift: str
    store: str
    drawer: str
    n: int
    entity: str
    business_date: str
    state: str
    opened_at: datetime
    opened_by: str
    float_fen: int
    paid_in_fen: int
    paid_out_fen: int
    drops_fen: int
    moves: list[MoveView]
    sales: int | None
    returns: int | None
    cash_sales_fen: int | None
    cash_returns_fen: int | None
    expected_fen: int | None
    counted_fen: int | None
    over_short_fen: int | None
    counted_at: datetime | None
    counted_by: str
    ended_at: datetime | None
    ended_by: str
    next_shift: str
    other_tenders: list[TenderView]


class DrawerView(View):
    """A drawer; `shift` null: nobody opened one, what is sold meanwhile belongs to the next count."""

    name: str
    shift: ShiftView | None


class _Body(BaseModel):
    model_config = ConfigDict(extra="forbid")

    by: By = ""


class OpenBody(_Body):
    """The float: change from the safe."""

    float_fen: Fen


class MoveBody(_Body):
    """How much, and why; a drop needs no reason."""

    fen: Annotated[int, Field(ge=1, le=FEN_MAX)]
    reason: Annotated[str, Field(max_length=REASON_CHARACTERS_MAX)] = ""


class CountBody(_Body):
    """What lies in the drawer."""

    counted_fen: Fen


class ReturnedPieces(BaseModel):
    """So many pieces of one line of the receipt."""

    model_config = ConfigDict(extra="forbid")

    line: Annotated[int, Field(ge=1)]
    quantity: Annotated[int, Field(ge=1)]


class ReturnBody(BaseModel):
    """`terminal`: at whose lane the goods came back; cash comes out of its drawer.

    `cash`: where the provider refuses for good to give back, from the drawer instead. Whoever is signed in approves it:
    they need the permission `return.cash` at the terminal's store.
    """

    model_config = ConfigDict(extra="forbid")

    terminal: Annotated[str, Field(min_length=1, max_length=64)]
    lines: Annotated[list[ReturnedPieces], Field(min_length=1, max_length=200)]
    reason: Annotated[str, Field(min_length=1, max_length=REASON_CHARACTERS_MAX)]
    cash: bool = False


def _by(request: Request, said: str) -> str:
    session: ConsoleSession = request.state.session
    return said or f"console:{session.id}"


def _person(request: Request) -> str:
    session: ConsoleSession = request.state.session
    return session.person


# ---------------------------------------------------------------- the page


@router.get("/drawers", include_in_schema=False)
async def drawers_page(
    request: Request,
    edge: EdgeOf,
    store: Annotated[str, Query(max_length=64)] = "",
    shift: Annotated[str, Query(max_length=64)] = "",
) -> Response:
    """Each drawer with what may be done now, and the last shifts on paper."""
    found: Sequence[Drawer] = ()
    reports: Sequence[ShiftReport] = ()
    if store:
        desk = edge.require_drawers()
        found = await desk.drawers(store)
        reports = await desk.reports(store, limit=SHIFTS_SHOWN)
    return page(request, "drawers.html", store=store, drawers=found, reports=reports, shown=shift, scope_label=None)


# ---------------------------------------------------------------- the API


@router.get(API, responses=problems(409))
async def list_drawers(edge: EdgeOf, store: Name) -> list[DrawerView]:
    """The drawers of a store, each with its current shift."""
    found = await edge.require_drawers().drawers(store)
    return [DrawerView(name=one.name, shift=_view(one.shift) if one.shift else None) for one in found]


@router.get("/api/v1/stores/{store}/shifts", response_model=list[ShiftView], responses=problems(409))
async def list_shifts(
    edge: EdgeOf,
    store: Name,
    day: Annotated[str, Query(pattern=r"^(|\d{4}-\d{2}-\d{2})$", description="Business date.")] = "",
    drawer: Annotated[str, Query(max_length=64)] = "",
    limit: Annotated[int, Query(ge=1, le=400)] = 50,
    form: Annotated[str, Query(alias="format", pattern="^(json|csv)$")] = "json",
) -> Response:
    """X and Z reports of a store, the newest first; `format=csv` downloads them."""
    found = await edge.require_drawers().reports(store, day=day, drawer=drawer, limit=limit)
    if form == "csv":
        headers = {"Content-Disposition": f'attachment; filename="shifts-{day or "all"}.csv"'}
        return Response(as_csv(found), media_type="text/csv; charset=utf-8", headers=headers)
    views = b",".join(_view(one).model_dump_json().encode() for one in found)
    return Response(b"[" + views + b"]", media_type="application/json")


@router.get("/api/v1/shifts/{shift}", responses=problems(409))
async def read_shift(edge: EdgeOf, shift: Name) -> ShiftView:
    """One shift on paper."""
    return _view(await edge.require_drawers().report(shift))


@router.post(API + "/{drawer}/open", response_model=ShiftView, responses=problems(403, 409))
async def open_shift(request: Request, edge: EdgeOf, store: Name, drawer: Name, body: OpenBody, key: Key) -> Response:
    """Begin a shift with change from the safe."""

    async def effect() -> ShiftReport:
        by = _by(request, body.by)
        return await edge.require_drawers().open_shift(f"drawer:{key}", store, drawer, body.float_fen, by)

    return await _once(edge, key, f"open {store}/{drawer} {body.model_dump_json()}", effect)


@router.post(API + "/{drawer}/moves/{kind}", response_model=ShiftView, responses=problems(403, 409))
async def move(
    request: Request, edge: EdgeOf, store: Name, drawer: Name, kind: MoveKind, body: MoveBody, key: Key
) -> Response:
    """Cash goes in, out, or to the safe; with a reason unless it is a drop."""

    async def effect() -> ShiftReport:
        by = _by(request, body.by)
        return await edge.require_drawers().move(f"drawer:{key}", store, drawer, kind, body.fen, body.reason, by)

    return await _once(edge, key, f"{kind} {store}/{drawer} {body.model_dump_json()}", effect)


@router.post(API + "/{drawer}/count", response_model=ShiftView, responses=problems(403, 409))
async def count(request: Request, edge: EdgeOf, store: Name, drawer: Name, body: CountBody, key: Key) -> Response:
    """Count the drawer, once; only the answer says what should have been in it."""

    async def effect() -> ShiftReport:
        by = _by(request, body.by)
        return await edge.require_drawers().count(f"drawer:{key}", store, drawer, body.counted_fen, by)

    return await _once(edge, key, f"count {store}/{drawer} {body.model_dump_json()}", effect)


@router.post(API + "/{drawer}/hand-over", response_model=ShiftView, responses=problems(403, 409))
async def hand_over(request: Request, edge: EdgeOf, store: Name, drawer: Name, body: _Body, key: Key) -> Response:
    """The counted money is the next shift's float. Answers that next shift; `by` is who takes over."""

    async def effect() -> ShiftReport:
        return await edge.require_drawers().hand_over(f"drawer:{key}", store, drawer, _by(request, body.by))

    return await _once(edge, key, f"hand-over {store}/{drawer} {body.model_dump_json()}", effect)


@router.post(API + "/{drawer}/close", response_model=ShiftView, responses=problems(403, 409))
async def close(request: Request, edge: EdgeOf, store: Name, drawer: Name, body: _Body, key: Key) -> Response:
    """The counted money goes to the safe."""

    async def effect() -> ShiftReport:
        return await edge.require_drawers().close(f"drawer:{key}", store, drawer, _by(request, body.by))

    return await _once(edge, key, f"close {store}/{drawer} {body.model_dump_json()}", effect)


@router.post("/api/v1/sales/{sale}/returns", responses=problems(403, 404, 409))
async def approve_return(request: Request, edge: EdgeOf, sale: Name, body: ReturnBody, key: Key) -> Response:
    """Goods of a sale come back at a terminal's lane, approved by who is signed in: as if that terminal sent `return`.

    `sale`: its id or its receipt's number, of any store of the chain. Answers `{reply, screen}` as for an event; the
    same key again changes nothing and gets the same reply.
    """
    async with AsyncSession(await edge.database_with(TerminalRow, body.terminal)) as session:
        found = await get_terminal(session, body.terminal)
        if found is None:
            raise not_found("terminal", body.terminal)
        if body.cash:
            await permissions.require(session, _person(request), Permission.RETURN_CASH, found.store)
    number = str(uuid5(NAMESPACE_URL, f"storeops:return:{key}"))
    event = {
        "v": 1,
        "id": number,
        "boot": number,
        "seq": 1,
        "ts": edge.now().astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z"),
        "mono_ms": 0,
        "type": "return",
        "session": None,
        "clerk": _by(request, _person(request)),
        "replay": False,
        "body": {
            "receipt": sale,
            "lines": [one.model_dump() for one in body.lines],
            "reason": f"{CASH_APPROVED}{body.reason}" if body.cash else body.reason,
        },
    }
    delivery = Delivery(TerminalId(body.terminal), "event", json.dumps(event).encode())
    region = RegionId(found.region)

    async def effect() -> bytes:
        [delivered] = await edge.require_hosts().deliver(region, [delivery])
        return b'{"reply":' + (delivered.reply or b"null") + b',"screen":' + (delivered.screen or b"null") + b"}"

    what = f"{sale} {body.model_dump_json()}".encode()
    return Response(await edge.calls.run(f"return:{key}", what, effect), media_type="application/json")


async def _once(edge: Edge, key: str, what: str, effect: Effect) -> Response:
    async def answer() -> bytes:
        return _view(await effect()).model_dump_json().encode()

    return Response(await edge.calls.run(f"drawer:{key}", what.encode(), answer), media_type="application/json")


def _view(report: ShiftReport) -> ShiftView:
    return ShiftView(**asdict(report))


def as_csv(reports: Sequence[ShiftReport]) -> bytes:
    """A line a shift, with a header; text that a spreadsheet would run as a formula is quoted by '."""
    names = [name for name in ShiftView.model_fields if name not in ("moves", "other_tenders")]
    out = io.StringIO()
    writer = csv.writer(out)
    writer.writerow(names)
    for one in reports:
        row = ["" if (cell := getattr(one, name)) is None else cell for name in names]
        writer.writerow([f"'{cell}" if isinstance(cell, str) and cell[:1] in set("=+-@\t") else cell for cell in row])
    return out.getvalue().encode()
