"""Whether this process lives, whether the house is ready, and the plain counts. No session needed for the first two."""

from __future__ import annotations

from fastapi import APIRouter, Response
from fastapi.responses import JSONResponse, PlainTextResponse
from sqlalchemy import text
from sqlalchemy.exc import InterfaceError, OperationalError

from gateway.edge import Edge, EdgeOf
from gateway.startup import startup_document

router = APIRouter()

METRICS_TYPE = "text/plain; version=0.0.4; charset=utf-8"


@router.get("/healthz", tags=["health"])
async def healthz() -> dict[str, str]:
    """This process answers."""
    return {"status": "ok"}


async def _database_answers(edge: Edge) -> bool:
    if edge.database is None:
        return False
    try:
        async with edge.database.connect() as connection:
            await connection.execute(text("SELECT 1"))
    except (OperationalError, InterfaceError):
        return False
    return True


@router.get("/readyz", tags=["health"], responses={503: {"description": "not ready; the parts say why"}})
async def readyz(edge: EdgeOf) -> Response:
    """Ready when the database answers and every slot's host does."""
    database = await _database_answers(edge)
    waiting = list(edge.wall.waiting) if edge.hosts is not None else None
    ready = database and edge.hosts is not None and not waiting
    body = {"ready": ready, "database": database, "hosts": edge.hosts is not None, "slots_waiting": waiting}
    return JSONResponse(body, 200 if ready else 503, headers={} if ready else {"Retry-After": "1"})


@router.get("/startup.json", include_in_schema=False)
async def startup(edge: EdgeOf) -> dict[str, object]:
    """What the start-up page ticks off; without links or versions, which are for signed-in people."""
    return startup_document(edge.startup(), edge.ready)


@router.get("/metrics", tags=["health"])
async def metrics(edge: EdgeOf) -> PlainTextResponse:
    """Prometheus text: what this gateway and the wall know without asking anybody."""
    wall = edge.wall
    region = edge.settings.region
    online = sum(tile.online for tile in wall.terminals.values())
    lines = [
        _metric("storeops_terminals_online", "gauge", {"region": region}, online),
        _metric("storeops_terminals", "gauge", {"region": region}, len(wall.terminals)),
        _metric("storeops_sales_today", "gauge", {"region": region}, sum(t.sales for t in wall.stores.values())),
        _metric("storeops_takings_fen", "gauge", {"region": region}, sum(t.takings_fen for t in wall.stores.values())),
        _metric("storeops_slots_waiting", "gauge", {"region": region}, len(wall.waiting)),
        _metric("storeops_gateway_consoles", "gauge", {}, wall.consoles),
        _metric("storeops_gateway_frames_total", "counter", {}, wall.n),
        _metric("storeops_gateway_frames_dropped_total", "counter", {}, wall.dropped),
    ]
    for number, (status, count) in enumerate(sorted(edge.responses.items())):
        head = "# TYPE storeops_gateway_responses_total counter\n" if number == 0 else ""
        lines.append(f'{head}storeops_gateway_responses_total{{status="{status}"}} {count}\n')
    return PlainTextResponse("".join(lines), media_type=METRICS_TYPE)


def _metric(name: str, kind: str, labels: dict[str, str], value: int) -> str:
    inside = ",".join(f'{key}="{text}"' for key, text in labels.items())
    return f"# TYPE {name} {kind}\n{name}{f'{{{inside}}}' if inside else ''} {value}\n"
