"""A terminal in the browser: the real protocol through the gateway. Its bytes go to the hosts as they came."""

from __future__ import annotations

import asyncio
import io
from collections.abc import Awaitable
from typing import Annotated, TypeVar

import msgspec
import segno
from fastapi import APIRouter, Header, Query, Request, Response
from sqlmodel.ext.asyncio.session import AsyncSession

from actors.hosts import Delivery
from gateway.edge import Edge, EdgeOf
from gateway.errors import Problem, not_found
from gateway.queries.registry import get_terminal
from gateway.routes.documented import problems
from gateway.views import TerminalView
from models.domain.errors import RetryLater
from models.domain.ids import RegionId, TerminalId
from models.tables.registry import TerminalRow

router = APIRouter(prefix="/api/v1", tags=["counter"])
T = TypeVar("T")

JSON = "application/json"
JPEG_BEGINS = b"\xff\xd8\xff"
QR_TEXT_CHARACTERS_MAX = 512


class _Id(msgspec.Struct):
    """The only field of an event that the gateway reads: the host decodes the rest."""

    id: str = ""


async def _terminal(edge: Edge, name: str) -> TerminalView:
    async with AsyncSession(await edge.database_with(TerminalRow, name)) as session:
        found = await get_terminal(session, name)
    if found is None:
        raise not_found("terminal", name)
    return found


async def _unless_stopping(edge: Edge, answer: Awaitable[T]) -> T:
    """The answer, or RetryLater as soon as the gateway stops: no request outlives it."""
    task = asyncio.ensure_future(answer)
    stopping = asyncio.ensure_future(edge.stopping.wait())
    try:
        await asyncio.wait({task, stopping}, return_when=asyncio.FIRST_COMPLETED)
        if not task.done():
            raise RetryLater("stopping", "the gateway is stopping", "send the same again", after_s=1)
        return task.result()
    finally:
        task.cancel()
        stopping.cancel()


async def _deliver(edge: Edge, terminal: TerminalView, delivery: Delivery) -> Response:
    hosts = edge.require_hosts()
    [delivered] = await _unless_stopping(edge, hosts.deliver(RegionId(terminal.region), [delivery]))
    body = b'{"reply":' + (delivered.reply or b"null") + b',"screen":' + (delivered.screen or b"null") + b"}"
    return Response(body, media_type=JSON)


@router.post(
    "/terminals/{terminal}/events",
    responses=problems(403, 404, 413),
    openapi_extra={"requestBody": {"content": {JSON: {"schema": {"type": "object"}}}, "required": True}},
)
async def send_event(
    request: Request,
    edge: EdgeOf,
    terminal: str,
    idempotency_key: Annotated[str | None, Header(max_length=64)] = None,
) -> Response:
    """Send one event envelope of the terminal protocol; answers `{reply, screen}` after the commit.

    The envelope's `id` is the idempotency key: the same bytes sent again get the same reply and have no second
    effect. A refusal by the host is a reply with `ok:false`, not an HTTP error.
    """
    body = await request.body()
    if len(body) > edge.settings.event_bytes_max:
        raise Problem(413, "too_large", f"an event is at most {edge.settings.event_bytes_max} bytes", "send less")
    if idempotency_key is not None:
        try:
            event = msgspec.json.decode(body, type=_Id)
        except msgspec.DecodeError as error:
            raise Problem(422, "invalid_request", f"the body is not an event: {error}", "mend the body") from error
        if event.id != idempotency_key:
            raise Problem(422, "idempotency_key_reused", "the key is not the event's id", "send the event's id")
    found = await _terminal(edge, terminal)
    return await _deliver(edge, found, Delivery(TerminalId(terminal), "event", body))


@router.post(
    "/terminals/{terminal}/faces",
    responses=problems(403, 404, 413),
    openapi_extra={
        "requestBody": {
            "content": {"image/jpeg": {"schema": {"type": "string", "format": "binary"}}},
            "required": True,
        }
    },
)
async def send_face(
    request: Request,
    edge: EdgeOf,
    terminal: str,
    face_id: Annotated[str, Header(max_length=36)],
    face_boot: Annotated[str, Header(max_length=36)],
    face_seq: Annotated[int, Header(ge=1)],
    face_kind: Annotated[str, Header(pattern="^(frame|crop)$")] = "frame",
    face_session: Annotated[str | None, Header(max_length=64)] = None,
) -> Response:
    """Send one JPEG with the user properties of the protocol's face channel as headers; as for events."""
    body = await request.body()
    if len(body) > edge.settings.face_bytes_max:
        raise Problem(413, "too_large", f"a face is at most {edge.settings.face_bytes_max} bytes", "scale it down")
    if not body.startswith(JPEG_BEGINS):
        raise Problem(422, "not_jpeg", "the body is not a JPEG", "send image/jpeg")
    found = await _terminal(edge, terminal)
    properties = {"id": face_id, "boot": face_boot, "seq": str(face_seq), "kind": face_kind}
    if face_session:
        properties["session"] = face_session
    return await _deliver(edge, found, Delivery(TerminalId(terminal), "face", body, properties))


@router.get("/terminals/{terminal}/screen", responses=problems(404))
async def screen(
    edge: EdgeOf,
    terminal: str,
    session: Annotated[str, Query(max_length=64)] = "",
    rev: Annotated[int, Query(ge=0)] = 0,
) -> Response:
    """The lane's screen document once it is newer than (session, rev); waits up to 20 s. 204: none yet."""
    found = await _terminal(edge, terminal)
    hosts = edge.require_hosts()
    shown = await _unless_stopping(edge, hosts.screen(RegionId(found.region), TerminalId(terminal), session, rev))
    return Response(shown, media_type=JSON) if shown else Response(status_code=204)


@router.get("/qr.svg", responses=problems())
async def qr(text: Annotated[str, Query(min_length=1, max_length=QR_TEXT_CHARACTERS_MAX)]) -> Response:
    """A QR code as SVG: dark on light with its quiet zone, whatever the page's colours."""
    out = io.BytesIO()
    segno.make_qr(text, error="m").save(out, kind="svg", scale=6, dark="#000", light="#fff", svgns=True, xmldecl=False)
    return Response(out.getvalue(), media_type="image/svg+xml")
