"""What every response carries: a strict policy for the browser, and a count of statuses."""

from __future__ import annotations

from typing import Protocol

from starlette.datastructures import MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

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


class Counted(Protocol):
    """Whoever counts responses by status class."""

    responses: dict[str, int]


class SecurityHeaders:
    """Adds HEADERS to every response; static files named with their digest may be kept for ever."""

    def __init__(self, app: ASGIApp, edge: Counted) -> None:
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
