"""The gateway's first second: it listens, shows what starts, and hands over to the app once that is loaded.

Loading the app (its framework, its queries, all routes) takes seconds of a processor; nobody who opens the console
waits for that. Kept light: what this file imports is what a person waits for.
"""

from __future__ import annotations

import asyncio
import logging
import signal
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from socket import socket
from typing import Any, Protocol

import uvicorn
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.middleware.trustedhost import TrustedHostMiddleware
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Mount, Route
from starlette.staticfiles import StaticFiles
from starlette.types import ASGIApp, Receive, Scope, Send

from gateway.console.render import STATIC, page
from gateway.headers import SecurityHeaders
from gateway.settings import GatewaySettings
from gateway.startup import StartupReport, startup_document

AT_ONCE = ("/healthz", "/startup.json")
FOR_PROGRAMS = ("/api/", "/readyz", "/metrics")
"""Addresses that a program asks: they wait for the app, and never get a page."""


class Loaded(Protocol):
    """The app, as `load` returns it."""

    @property
    def state(self) -> Any: ...
    @property
    def router(self) -> Any: ...
    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None: ...


@dataclass(slots=True)
class _Threshold:
    """As much of an edge as the start-up page needs."""

    settings: GatewaySettings
    startup: StartupReport
    responses: dict[str, int] = field(default_factory=dict)


class Doorway:
    """An ASGI app that answers at once and becomes the real one. The app's lifespan runs inside ours."""

    def __init__(self, settings: GatewaySettings, startup: StartupReport, load: Callable[[], Loaded]) -> None:
        """`load` runs in a thread, once, when the server listens."""
        self._load = load
        self._waiting = _waiting_room(_Threshold(settings, startup))
        self._app: Loaded | None = None
        self._loaded = asyncio.Event()
        self._closing = asyncio.Event()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self._lifespan(receive, send)
            return
        if self._app is None and not _at_once(scope):
            await self._loaded.wait()
        await (self._app or self._waiting)(scope, receive, send)

    def close(self) -> None:
        """The server stops: the app ends its streams."""
        self._closing.set()
        self._loaded.set()
        if self._app is not None:
            self._app.state.edge.close()

    async def _lifespan(self, receive: Receive, send: Send) -> None:
        """Listening does not wait for the app."""
        await receive()
        await send({"type": "lifespan.startup.complete"})
        running = asyncio.create_task(self._run())
        await receive()
        self._closing.set()
        await running
        await send({"type": "lifespan.shutdown.complete"})

    async def _run(self) -> None:
        """A failure to load the app ends the process: whoever started it starts another."""
        try:
            app = await asyncio.to_thread(self._load)
        except Exception:
            logging.getLogger("storeops").exception("the gateway's app could not be loaded")
            signal.raise_signal(signal.SIGTERM)
            return
        if self._closing.is_set():
            return
        async with app.router.lifespan_context(app):
            self._app = app
            self._loaded.set()
            await self._closing.wait()


def _at_once(scope: Scope) -> bool:
    """What need not wait for the app: liveness, the start-up page and what it needs."""
    path = scope["path"]
    if path in AT_ONCE or path.startswith("/static/"):
        return True
    accept = dict(scope["headers"]).get(b"accept", b"")
    return scope.get("method") == "GET" and b"text/html" in accept and not path.startswith(FOR_PROGRAMS)


def _waiting_room(threshold: _Threshold) -> ASGIApp:
    async def healthz(_request: Request) -> Response:
        return JSONResponse({"status": "ok"})

    async def startup(_request: Request) -> Response:
        return JSONResponse(startup_document(threshold.startup(), ready=False))

    async def starting(request: Request) -> Response:
        return page(request, "starting.html", startup=threshold.startup())

    app = Starlette(
        routes=[
            Route("/healthz", healthz),
            Route("/startup.json", startup),
            Mount("/static", StaticFiles(directory=STATIC)),
            Route("/{path:path}", starting),
        ],
        middleware=[
            Middleware(SecurityHeaders, edge=threshold),
            Middleware(TrustedHostMiddleware, allowed_hosts=threshold.settings.host_names),
        ],
    )
    app.state.edge = threshold
    return app


class _Server(uvicorn.Server):
    """Ends streams and long polls before it waits for connections, so that a stop takes no time."""

    def __init__(self, config: uvicorn.Config, close: Callable[[], None]) -> None:
        super().__init__(config)
        self._close = close

    async def shutdown(self, sockets: list[socket] | None = None) -> None:
        self._close()
        await super().shutdown(sockets)


def serve(
    app: ASGIApp, settings: GatewaySettings, close: Callable[[], None], sockets: list[socket] | None = None
) -> None:
    """Serve until SIGINT or SIGTERM, then end within `shutdown_s` and a little. Call it first in its process."""
    config = uvicorn.Config(
        app,
        host=settings.host,
        port=settings.port,
        log_config=None,
        access_log=False,
        server_header=False,
        timeout_graceful_shutdown=settings.shutdown_s,
        timeout_keep_alive=30,
        lifespan="on",
        ws="none",
    )
    # uvicorn raises the signal again once everything is closed: an interrupt is the normal end, no traceback.
    with suppress(KeyboardInterrupt):
        _Server(config, close).run(sockets)
