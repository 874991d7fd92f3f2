"""Images of terminals' software, by their SHA-256, in ranges. No session: terminals have none, and the address, 256
bits that stand in a terminal's desired document alone, is what lets a client in."""

from __future__ import annotations

import asyncio
import re
from http import HTTPStatus

from fastapi import APIRouter, Request, Response
from starlette.responses import FileResponse

from gateway.edge import EdgeOf
from gateway.headers import IMMUTABLE

router = APIRouter()
_SHA256 = re.compile(r"[0-9a-f]{64}")


@router.api_route("/images/{sha256}", methods=["GET", "HEAD"], include_in_schema=False)
async def image(request: Request, edge: EdgeOf, sha256: str) -> Response:
    """The whole file, or the range asked for. The name is a digest and nothing else: no path is ever made of it."""
    del request
    if edge.images is None:
        return Response(status_code=HTTPStatus.SERVICE_UNAVAILABLE, headers={"Retry-After": "2"})
    path = edge.images / sha256
    if not _SHA256.fullmatch(sha256) or not await asyncio.to_thread(path.is_file):
        return Response(status_code=HTTPStatus.NOT_FOUND)
    headers = {"ETag": f'"{sha256}"', "Cache-Control": IMMUTABLE}
    return FileResponse(path, media_type="application/octet-stream", headers=headers)
