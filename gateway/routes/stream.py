"""The wall as a stream of server-sent events, and as one document."""

from __future__ import annotations

from typing import Annotated

import msgspec
from fastapi import APIRouter, Header, Response
from fastapi.responses import StreamingResponse

from gateway.edge import EdgeOf
from gateway.routes.documented import problems

router = APIRouter(prefix="/api/v1", tags=["wall"])


@router.get("/wall", responses=problems())
async def wall(edge: EdgeOf) -> Response:
    """All tiles as last told by the hosts: the document that a `resync` event carries."""
    return Response(msgspec.json.encode(edge.wall.frame()), media_type="application/json")


@router.get(
    "/wall/events",
    response_class=StreamingResponse,
    responses={200: {"description": "`delta` and `resync` events", "content": {"text/event-stream": {}}}, **problems()},
)
async def wall_events(edge: EdgeOf, last_event_id: Annotated[str, Header(max_length=64)] = "") -> StreamingResponse:
    """Tiles as they change. After `Last-Event-ID`: what was missed, or `resync` with everything."""
    events = await edge.wall.stream(last_event_id)
    return StreamingResponse(
        events, media_type="text/event-stream", headers={"Cache-Control": "no-store", "X-Accel-Buffering": "no"}
    )
