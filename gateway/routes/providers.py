"""`POST /api/v1/providers/{provider}/notify`: notifications of payment providers. No session: a signature instead.

The answer is the provider's word for "received" and nothing else, and only after what was told is durable.
"""

from __future__ import annotations

import structlog
from fastapi import APIRouter, Request, Response
from fastapi.responses import PlainTextResponse

from gateway.edge import EdgeOf
from models.domain.notices import Distrusted

log = structlog.get_logger()

router = APIRouter(include_in_schema=False)

BODY_BYTES_MAX = 64 * 1024


@router.post("/api/v1/providers/{provider}/notify")
async def notify(request: Request, provider: str, edge: EdgeOf) -> Response:
    """One notification. 400: not believed. 404: no such provider. 413: too large. 503: not ready, send again."""
    if edge.providers is None:
        return PlainTextResponse("starting", 503, {"Retry-After": "5"})
    body = bytearray()
    async for chunk in request.stream():
        body += chunk
        if len(body) > BODY_BYTES_MAX:
            return PlainTextResponse("too large", 413, {"Connection": "close"})
    answer = await edge.providers.receive(provider, request.headers, bytes(body))
    if answer is None:
        return PlainTextResponse("no such provider", 404)
    if isinstance(answer, Distrusted):
        address = request.client.host if request.client is not None else ""
        log.warning("notification_distrusted", provider=provider, why=answer.why, address=address)
        return PlainTextResponse("fail", 400)
    return Response(answer, media_type="text/plain")
