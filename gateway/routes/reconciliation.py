"""Reconciliation: days per account against the provider's statements, their lines, decisions, and the day close."""

from __future__ import annotations

import csv
import io
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import asdict
from datetime import date, datetime, timedelta
from typing import Annotated

from fastapi import APIRouter, Header, Path, Query, Request, Response
from pydantic import BaseModel, ConfigDict, Field
from sqlmodel.ext.asyncio.session import AsyncSession

from gateway.auth import ConsoleSession
from gateway.console.render import page
from gateway.edge import Edge, EdgeOf
from gateway.queries import day_stores
from gateway.queries.day_stores import StoreOpenView
from gateway.reconciliation import REASON_CHARACTERS_MAX, CloseResult
from gateway.routes.documented import problems
from gateway.views import View
from models.domain.difference_postings import Remedy
from models.domain.differences import Verdict
from models.tables.business_days import DayEvent
from models.tables.differences import DayRun, Line, LineState

router = APIRouter(tags=["reconciliation"])
API = "/api/v1/reconciliation"
DAYS_SHOWN = 35
LINES_MAX = 1_000
DOWNLOAD_LINES_MAX = 1_000_000

Key = Annotated[str, Header(alias="Idempotency-Key", min_length=8, max_length=64)]
Region = Annotated[str, Query(max_length=48)]
Name = Annotated[str, Path(max_length=64)]
Word = Annotated[str, Query(max_length=64)]
Effect = Callable[[], Awaitable[bytes]]


class DayView(View):
    """One account's day as the last run left it; null `statement_fen`: there is no statement yet."""

    provider: str
    account: str
    day: date
    statement_lines: int
    matched: int
    open_lines: int
    lines: int
    statement_fen: int | None
    ledger_fen: int
    fee_fen: int
    difference_fen: int
    open_fen: int
    closed: bool
    run_at: datetime


class LineView(View):
    """A line that is not simply matched."""

    id: str
    provider: str
    account: str
    day: date
    verdict: str
    state: str
    kind: str
    order_no: str
    request_no: str
    trade_no: str
    provider_fen: int
    ours_fen: int
    difference_fen: int
    hold_fen: int
    pair_day: date | None
    store: str
    txn: str
    posted_to: str
    reason: str
    by: str


class ObstacleView(View):
    """Why a day does not close."""

    code: str
    what: str
    lines: list[str]


class CloseView(View):
    """A day that was closed, or what is in the way."""

    entity: str
    day: date
    closed: bool
    obstacles: list[ObstacleView]
    warnings: list[str]
    """Drawers (store/lane) that nobody counted: they keep no day open."""


class EventView(View):
    """A business day that was closed or opened again."""

    entity: str
    day: date
    state: str
    changed_at: datetime
    by: str
    reason: str


class Explain(BaseModel):
    """Why; `remedy` books the difference there, without one nothing is booked."""

    model_config = ConfigDict(extra="forbid")

    reason: Annotated[str, Field(min_length=1, max_length=REASON_CHARACTERS_MAX)]
    remedy: Remedy | None = None


class Reason(BaseModel):
    """Why."""

    model_config = ConfigDict(extra="forbid")

    reason: Annotated[str, Field(min_length=1, max_length=REASON_CHARACTERS_MAX)]


def _by(request: Request) -> str:
    session: ConsoleSession = request.state.session
    return f"console:{session.id}"


# ---------------------------------------------------------------- the page


@router.get("/reconciliation", include_in_schema=False)
async def reconciliation_page(
    request: Request, edge: EdgeOf, region: Region = "", account: Word = "", day: date | None = None, state: Word = ""
) -> Response:
    """Days as a calendar of each account; of one day its lines, with what may be done about them."""
    desk = edge.require_reconciliation()
    days = await desk.days(account=account or None, limit=400, region=region)
    chosen = [one for one in days if one.day == day]
    lines = (
        await desk.lines(account=account or None, day=day, state=state or None, limit=LINES_MAX, region=region)
        if day is not None
        else []
    )
    return page(
        request,
        "reconciliation.html",
        calendar=_calendar(days),
        chosen=chosen,
        day=day,
        account=account,
        state=state,
        lines=lines,
        full=len(lines) == LINES_MAX,
        stores=await _open_by_store(edge, account, day, region) if chosen and account and day is not None else [],
        remedies=[str(one) for one in Remedy],
        verdicts=[str(one) for one in Verdict],
        scope_label=None,
    )


async def _open_by_store(edge: Edge, entity: str, day: date, region: str) -> list[StoreOpenView]:
    found = await edge.require_reconciliation().lines(
        account=entity, day=day, state=str(LineState.OPEN), limit=DOWNLOAD_LINES_MAX, region=region
    )
    async with AsyncSession(edge.database_of(region)) as session:
        return await day_stores.open_by_store(session, entity, day, found)


def _calendar(days: Sequence[DayRun]) -> list[tuple[str, str, list[tuple[date, DayRun | None]]]]:
    """(account, provider, the last DAYS_SHOWN days up to its newest) for each account, oldest day first."""
    rows: dict[tuple[str, str], dict[date, DayRun]] = {}
    for one in days:
        rows.setdefault((one.account, one.provider), {})[one.day] = one
    shown = []
    for (account, provider), found in sorted(rows.items()):
        last = max(found)
        span = [last - timedelta(days=n) for n in reversed(range(DAYS_SHOWN))]
        shown.append((account, provider, [(at, found.get(at)) for at in span]))
    return shown


# ---------------------------------------------------------------- the API


@router.get(API + "/days", responses=problems())
async def list_days(
    edge: EdgeOf,
    account: Word = "",
    since: date | None = None,
    until: date | None = None,
    limit: Annotated[int, Query(ge=1, le=400)] = 100,
    region: Region = "",
) -> list[DayView]:
    """Days that were matched, the newest first."""
    found = await edge.require_reconciliation().days(
        account=account or None, since=since, until=until, limit=limit, region=region
    )
    return [_day(one) for one in found]


@router.get(API + "/lines", response_model=list[LineView], responses=problems())
async def list_lines(
    edge: EdgeOf,
    account: Word = "",
    provider: Word = "",
    day: date | None = None,
    state: Annotated[str, Query(pattern="^(|open|posted|explained)$")] = "",
    after: Word = "",
    limit: Annotated[int, Query(ge=1, le=DOWNLOAD_LINES_MAX)] = 200,
    form: Annotated[str, Query(alias="format", pattern="^(json|csv)$")] = "json",
    region: Region = "",
) -> Response:
    """Lines that are not simply matched, by day and number; `after`: the last id seen. `format=csv` downloads them."""
    found = await edge.require_reconciliation().lines(
        account=account or None,
        provider=provider or None,
        day=day,
        state=state or None,
        after=after,
        limit=limit,
        region=region,
    )
    views = [_line(one) for one in found]
    if form == "csv":
        name = f"reconciliation-{day or 'all'}.csv"
        headers = {"Content-Disposition": f'attachment; filename="{name}"'}
        return Response(_as_csv(views), media_type="text/csv; charset=utf-8", headers=headers)
    return Response(
        b"[" + b",".join(one.model_dump_json().encode() for one in views) + b"]", media_type="application/json"
    )


@router.post(API + "/{account}/{provider}/{day}/runs", response_model=DayView, responses=problems(403, 409))
async def run(edge: EdgeOf, account: Name, provider: Name, day: date, key: Key, region: Region = "") -> Response:
    """Fetch the day's statement if it is not there, and match it with the books."""

    async def effect() -> bytes:
        done = await edge.require_reconciliation().fetch_and_run(account, provider, day, region=region)
        return _day(done).model_dump_json().encode()

    return await _once(edge, f"reconcile:{key}", f"{account}/{provider}/{day}/{region}", effect)


@router.post(API + "/lines/{line}/explain", response_model=LineView, responses=problems(403, 409))
async def explain(request: Request, edge: EdgeOf, line: Name, body: Explain, key: Key, region: Region = "") -> Response:
    """Explain an open line by a sentence, or book its difference where `remedy` says."""
    by = _by(request)

    async def effect() -> bytes:
        desk = edge.require_reconciliation()
        if body.remedy is None:
            done = await desk.explain(line, body.reason, by, region=region)
        else:
            done = await desk.resolve(line, body.remedy, body.reason, by, region=region)
        return _line(done).model_dump_json().encode()

    return await _once(edge, f"explain:{key}", f"{line}\n{body.model_dump_json()}", effect)


@router.post("/api/v1/days/{entity}/{day}/close", response_model=CloseView, responses=problems(403, 409))
async def close_day(request: Request, edge: EdgeOf, entity: Name, day: date, key: Key, region: Region = "") -> Response:
    """Close a business day, and those before it; `closed` false says what is in the way, with the lines' ids."""
    by = _by(request)

    async def effect() -> bytes:
        return (
            _close(await edge.require_reconciliation().close(entity, day, by, region=region)).model_dump_json().encode()
        )

    return await _once(edge, f"close:{key}", f"{entity}/{day}/{region}", effect)


@router.post("/api/v1/days/{entity}/{day}/reopen", response_model=EventView, responses=problems(403, 409))
async def reopen_day(
    request: Request, edge: EdgeOf, entity: Name, day: date, body: Reason, key: Key, region: Region = ""
) -> Response:
    """Open the last closed day again; the reason stays in the audit."""
    by = _by(request)

    async def effect() -> bytes:
        event = await edge.require_reconciliation().reopen(entity, day, body.reason, by, region=region)
        return _event(event).model_dump_json().encode()

    return await _once(edge, f"reopen:{key}", f"{entity}/{day}/{body.reason}", effect)


@router.get("/api/v1/days/{entity}/{day}/stores", responses=problems())
async def list_open_stores(edge: EdgeOf, entity: Name, day: date, region: Region = "") -> list[StoreOpenView]:
    """Which stores have something open on this day: unexplained lines, uncounted drawers."""
    return await _open_by_store(edge, entity, day, region)


@router.get("/api/v1/days", responses=problems())
async def list_events(edge: EdgeOf, entity: Word = "", region: Region = "") -> list[EventView]:
    """Business days that were closed or opened again, the newest first."""
    return [_event(one) for one in await edge.require_reconciliation().events(entity or None, region=region)]


async def _once(edge: Edge, key: str, what: str, effect: Effect) -> Response:
    return Response(await edge.calls.run(key, what.encode(), effect), media_type="application/json")


def _day(run: DayRun) -> DayView:
    names = DayView.model_fields
    return DayView(**{name: value for name, value in asdict(run).items() if name in names})


def _line(line: Line) -> LineView:
    values = {**asdict(line), "difference_fen": line.difference_fen}
    return LineView(**{name: values[name] for name in LineView.model_fields})


def _close(result: CloseResult) -> CloseView:
    obstacles = [ObstacleView(code=one.code, what=one.what, lines=list(one.lines)) for one in result.obstacles]
    return CloseView(
        entity=result.entity,
        day=result.day,
        closed=result.closed,
        obstacles=obstacles,
        warnings=list(result.warnings),
    )


def _event(event: DayEvent) -> EventView:
    return EventView(**asdict(event))


def _as_csv(views: Sequence[LineView]) -> bytes:
    """With a header; text that a spreadsheet would run as a formula is quoted by '."""
    out = io.StringIO()
    writer = csv.writer(out)
    writer.writerow(LineView.model_fields)
    for view in views:
        row = [getattr(view, name) for name in LineView.model_fields]
        writer.writerow([f"'{cell}" if isinstance(cell, str) and cell[:1] in set("=+-@\t") else cell for cell in row])
    return out.getvalue().encode()
