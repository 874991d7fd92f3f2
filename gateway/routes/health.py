"""Whether this process lives, whether the house is ready, and the plain counts. No session needed for the first two."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from datetime import timedelta
from typing import Annotated

from fastapi import APIRouter, Query, Response
from fastapi.responses import JSONResponse, PlainTextResponse
from sqlalchemy import text
from sqlalchemy.exc import InterfaceError, OperationalError
from sqlalchemy.ext.asyncio import AsyncEngine
from sqlmodel.ext.asyncio.session import AsyncSession

from gateway.edge import Edge, EdgeOf
from gateway.live import Wall
from gateway.queries import privacy
from gateway.startup import startup_document

router = APIRouter()

METRICS_TYPE = "text/plain; version=0.0.4; charset=utf-8"

OF_A_REGION: dict[str, Callable[[Wall, str], int]] = {
    "storeops_terminals_online": lambda wall, region: sum(
        wall.terminals[terminal].online for terminal in wall.terminals_in(region) if terminal in wall.terminals
    ),
    "storeops_terminals": lambda wall, region: len(wall.terminals_in(region)),
    "storeops_sales_today": lambda wall, region: sum(
        wall.stores[store].sales for store in wall.stores_in(region) if store in wall.stores
    ),
    "storeops_takings_fen": lambda wall, region: sum(
        wall.stores[store].takings_fen for store in wall.stores_in(region) if store in wall.stores
    ),
    "storeops_slots_waiting": lambda wall, region: len(wall.waiting_in(region)),
}
"""What the wall knows of a region, as Prometheus names it."""

GATEWAY_METRICS: dict[str, tuple[str, str]] = {
    "storeops_terminals_online": ("gauge", "terminals that are connected"),
    "storeops_terminals": ("gauge", "terminals that are registered"),
    "storeops_sales_today": ("gauge", "sales of this business date"),
    "storeops_takings_fen": ("gauge", "takings of this business date in fen"),
    "storeops_slots_waiting": ("gauge", "slots whose host does not answer"),
    "storeops_outbox_open": ("gauge", "questions with an outside effect that have no answer yet"),
    "storeops_outbox_oldest_seconds": ("gauge", "age of the oldest of them in seconds; 0 when there is none"),
    "storeops_dead_letters": ("gauge", "messages whose turn raised, ever"),
    "storeops_faces_distinct": ("gauge", "members with a stored face template; filing is due from 100,000"),
    "storeops_privacy_requests_open": ("gauge", "requests to erase a person that wait for an officer"),
    "storeops_gateway_consoles": ("gauge", "consoles that watch"),
    "storeops_gateway_frames_total": ("counter", "frames sent to consoles"),
    "storeops_gateway_frames_dropped_total": ("counter", "frames that a slow console missed"),
    "storeops_gateway_responses_total": ("counter", "HTTP responses by status class"),
}
"""Everything that `/metrics` of the gateway exports: kind and meaning."""

PEOPLE_COUNTED_EVERY = timedelta(minutes=1)
BACKLOG_S_MAX = 1.0
_BACKLOG = text(
    """SELECT region, count(*), coalesce(extract(epoch FROM now() - min(created_at)), 0)::bigint, 0
       FROM outbox WHERE done_at IS NULL GROUP BY region
       UNION ALL SELECT region, 0, 0, count(*) FROM dead_letter GROUP BY region"""
)


@router.get("/healthz", tags=["health"])
async def healthz() -> dict[str, str]:
    """This process answers."""
    return {"status": "ok"}


async def _answers(engine: AsyncEngine) -> bool:
    try:
        async with engine.connect() as connection:
            await connection.execute(text("SELECT 1"))
    except (OperationalError, InterfaceError):
        return False
    return True


async def _region_health(edge: Edge) -> dict[str, dict[str, object]]:
    """Each region by itself: one that is away says nothing about the others."""
    if edge.database is None or edge.hosts is None:
        return {}
    books = list(edge.books)
    answers = dict(zip(books, await asyncio.gather(*(_answers(engine) for engine in books)), strict=True))
    health: dict[str, dict[str, object]] = {}
    for region in edge.settings.regions:
        database, waiting = answers[edge.database_of(region.name)], edge.wall.waiting_in(region.name)
        health[region.name] = {"ready": database and not waiting, "database": database, "slots_waiting": list(waiting)}
    return health


@router.get("/readyz", tags=["health"], responses={503: {"description": "not ready; the parts say why"}})
async def readyz(edge: EdgeOf, region: Annotated[str, Query(max_length=48)] = "") -> Response:
    """Ready when every region is, or with `region` that one: its database answers, and so does every slot's host."""
    regions = await _region_health(edge)
    asked = {name: health for name, health in regions.items() if region in {"", name}}
    ready = bool(asked) and all(health["ready"] for health in asked.values())
    body = {
        "ready": ready,
        "database": await _answers(edge.database) if edge.database is not None else False,
        "hosts": edge.hosts is not None,
        "slots_waiting": list(edge.wall.waiting) if edge.hosts is not None else None,
        "regions": regions,
    }
    return JSONResponse(body, 200 if ready else 503, headers={} if ready else {"Retry-After": "1"})


@router.get("/startup.json", include_in_schema=False)
async def startup(edge: EdgeOf) -> dict[str, object]:
    """What the start-up page ticks off; without links or versions, which are for signed-in people."""
    return startup_document(edge.startup(), edge.ready)


async def _backlog(engine: AsyncEngine) -> list[tuple[str, int, int, int]] | None:
    """(region, open, oldest in seconds, dead letters); None when the database does not answer at once."""
    try:
        async with asyncio.timeout(BACKLOG_S_MAX), engine.connect() as connection:
            return [(row[0], row[1], row[2], row[3]) for row in await connection.execute(_BACKLOG)]
    except (OperationalError, InterfaceError, TimeoutError):
        return None


async def _people(edge: Edge) -> list[str]:
    """Stored faces by chain and open requests, counted once a minute; no line while a database is away."""
    if edge.database is None:
        return []
    if edge.people_counted is None or edge.now() - edge.people_counted[0] > PEOPLE_COUNTED_EVERY:
        faces = {region.chain: 0 for region in edge.settings.regions}
        waiting = 0
        try:
            async with asyncio.timeout(BACKLOG_S_MAX):
                for engine in edge.books:
                    async with AsyncSession(engine) as session:
                        for chain, count in (await privacy.faces(session)).chains.items():
                            faces[chain] = faces.get(chain, 0) + count
                        waiting += await privacy.open_requests(session)
        except (OperationalError, InterfaceError, TimeoutError):
            return []
        edge.people_counted = (edge.now(), faces, waiting)
    _, faces, waiting = edge.people_counted
    return [
        _metric("storeops_faces_distinct", "gauge", [({"chain": chain}, count) for chain, count in faces.items()]),
        _metric("storeops_privacy_requests_open", "gauge", [({}, waiting)]),
    ]


async def _backlogs(edge: Edge) -> list[str]:
    """What stands in the books of each region; no line for one whose database is away."""
    if edge.database is None:
        return []
    books = edge.books
    found = await asyncio.gather(*(_backlog(engine) for engine in books))
    sums: dict[str, list[int]] = {}
    for regions, rows in zip(books.values(), found, strict=True):
        if rows is not None:
            sums |= {region: [0, 0, 0] for region in regions}
            for region, waiting, oldest_s, dead in rows:
                one = sums.setdefault(region, [0, 0, 0])
                sums[region] = [one[0] + waiting, max(one[1], oldest_s), one[2] + dead]
    names = ("storeops_outbox_open", "storeops_outbox_oldest_seconds", "storeops_dead_letters")
    return [
        _metric(name, "gauge", [({"region": region}, sums[region][n]) for region in sums])
        for n, name in enumerate(names)
    ]


@router.get("/metrics", tags=["health"])
async def metrics(edge: EdgeOf) -> PlainTextResponse:
    """Prometheus text: what this gateway, the wall and the books know without asking a host."""
    wall = edge.wall
    lines = [
        _metric(
            name, "gauge", [({"region": region.name}, value(wall, region.name)) for region in edge.settings.regions]
        )
        for name, value in OF_A_REGION.items()
    ]
    lines += await _backlogs(edge)
    lines += await _people(edge)
    lines += [
        _metric("storeops_gateway_consoles", "gauge", [({}, wall.consoles)]),
        _metric("storeops_gateway_frames_total", "counter", [({}, wall.n)]),
        _metric("storeops_gateway_frames_dropped_total", "counter", [({}, wall.dropped)]),
    ]
    for number, (status, count) in enumerate(sorted(edge.responses.items())):
        head = "# TYPE storeops_gateway_responses_total counter\n" if number == 0 else ""
        lines.append(f'{head}storeops_gateway_responses_total{{status="{status}"}} {count}\n')
    return PlainTextResponse("".join(lines), media_type=METRICS_TYPE)


def _metric(name: str, kind: str, samples: Sequence[tuple[dict[str, str], int]]) -> str:
    lines = [f"# TYPE {name} {kind}\n"]
    for labels, value in samples:
        inside = ",".join(f'{key}="{text}"' for key, text in labels.items())
        lines.append(f"{name}{f'{{{inside}}}' if inside else ''} {value}\n")
    return "".join(lines)
