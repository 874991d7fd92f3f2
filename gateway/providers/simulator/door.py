"""What every request passes first: its size, the address it was sent to, and the page that sent it."""

from __future__ import annotations

from urllib.parse import urlsplit

from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

BODY_BYTES_MAX = 256 * 1024
_LOOPBACK = frozenset({"127.0.0.1", "localhost", "::1"})
_SAFE_METHODS = frozenset({"GET", "HEAD", "OPTIONS"})
_HEADERS = {
    "Content-Security-Policy": (
        "default-src 'none'; style-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
    ),
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "same-origin",
    "Cache-Control": "no-store",
}


class Door:
    """Refuses bodies above BODY_BYTES_MAX (413), foreign host names (421) and other sites' pages (403).

    The last two matter even for play money: a page that a person visits must not press the buttons here, and
    a name that resolves to this machine must not make it so (DNS rebinding).
    """

    def __init__(self, app: ASGIApp, *, host: str) -> None:
        self._app = app
        self._hosts = _LOOPBACK | {host}
        self._any_host = host in {"0.0.0.0", "::"}  # noqa: S104  # compared, not bound: served under any name

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        headers = Headers(scope=scope)
        refusal = self._refusal(scope["method"], headers)
        body = b""
        if refusal is None and scope["method"] not in _SAFE_METHODS:
            read = await _read(receive)
            if read is None:
                refusal = JSONResponse({"detail": {"code": "too_large"}}, 413, {"Connection": "close"})
            else:
                body = read
        if refusal is not None:
            await refusal(scope, receive, send)
            return
        replayed = False

        async def replay() -> Message:
            nonlocal replayed
            if replayed:
                return await receive()
            replayed = True
            return {"type": "http.request", "body": body, "more_body": False}

        async def with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                MutableHeaders(scope=message).update(_HEADERS)
            await send(message)

        await self._app(scope, replay, with_headers)

    def _refusal(self, method: str, headers: Headers) -> JSONResponse | None:
        host = headers.get("host", "")
        try:
            known = self._any_host or urlsplit(f"//{host}").hostname in self._hosts
        except ValueError:
            known = False
        if not known:
            return JSONResponse({"detail": {"code": "unknown_host"}}, 421)
        if method in _SAFE_METHODS:
            return None
        origin, site = headers.get("origin"), headers.get("sec-fetch-site", "none")
        if (origin is not None and urlsplit(origin).netloc != host) or site not in {"none", "same-origin"}:
            return JSONResponse({"detail": {"code": "foreign_page"}}, 403)
        length = headers.get("content-length", "0")
        if not length.isascii() or not length.isdigit() or int(length) > BODY_BYTES_MAX:
            return JSONResponse({"detail": {"code": "too_large"}}, 413, {"Connection": "close"})
        return None


async def _read(receive: Receive) -> bytes | None:
    """The whole body, or None when it is larger than it may be."""
    body = bytearray()
    while True:
        message = await receive()
        if message["type"] != "http.request":
            return bytes(body)
        body += message.get("body", b"")
        if len(body) > BODY_BYTES_MAX:
            return None
        if not message.get("more_body", False):
            return bytes(body)
