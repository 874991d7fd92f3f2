"""What every response carries: a strict policy for the browser, and a count of statuses."""

from __future__ import annotations

from starlette.datastructures import Headers, MutableHeaders
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from gateway.edge import Edge
from gateway.errors import Problem, answer

CONTENT_SECURITY_POLICY = "; ".join(
    (
        "default-src 'none'",
        "script-src 'self'",
        "style-src 'self'",
        "connect-src 'self'",
        "img-src 'self' blob: data:",
        "font-src 'self'",
        "media-src 'self' blob:",
        "form-action 'self'",
        "base-uri 'none'",
        "frame-ancestors 'none'",
    )
)
"""No inline script or style, no eval, nothing from elsewhere. blob: and data: are photographs and icons."""

HEADERS = {
    "Content-Security-Policy": CONTENT_SECURITY_POLICY,
    "X-Content-Type-Options": "nosniff",
    # Not no-referrer: with it browsers send `Origin: null` with forms, and the check of the origin would fail.
    "Referrer-Policy": "same-origin",
    "Permissions-Policy": "camera=(self), microphone=(), geolocation=(), payment=()",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
}

IMMUTABLE = "public, max-age=31536000, immutable"


class SecurityHeaders:
    """Adds HEADERS to every response; static files named with their digest may be kept for ever."""

    def __init__(self, app: ASGIApp, edge: Edge) -> None:
        self._app = app
        self._edge = edge

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return

        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for name, value in HEADERS.items():
                    headers.setdefault(name, value)
                if scope["path"].startswith("/static/"):
                    digested = scope["query_string"].startswith(b"v=")
                    headers.setdefault("Cache-Control", IMMUTABLE if digested else "no-cache")
                else:
                    headers.setdefault("Cache-Control", "no-store")
                status = f"{message['status'] // 100}xx"
                self._edge.responses[status] = self._edge.responses.get(status, 0) + 1
            await send(message)

        await self._app(scope, receive, send_with_headers)


class BodyLimit:
    """Refuses a body that says it is too long, and stops reading one that turns out to be.

    Ours, because the framework's own limit answers in plain text where every other refusal is a problem document.
    """

    def __init__(self, app: ASGIApp, body_bytes_max: int) -> None:
        self._app = app
        self._body_bytes_max = body_bytes_max

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        too_large = f"a body is at most {self._body_bytes_max} bytes"
        declared = Headers(scope=scope).get("content-length", "0")
        if not declared.isdecimal() or int(declared) > self._body_bytes_max:
            problem = Problem(413, "too_large", too_large, "send less")
            await answer(Request(scope, receive), problem)(scope, receive, send)
            return
        received = 0

        async def counted() -> Message:
            nonlocal received
            message = await receive()
            received += len(message.get("body", b"")) if message["type"] == "http.request" else 0
            if received > self._body_bytes_max:
                # FastAPI passes an HTTPException on and turns any other error of reading into 400.
                raise HTTPException(413, too_large)
            return message

        await self._app(scope, counted, send)
