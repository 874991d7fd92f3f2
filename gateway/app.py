"""The gateway: one FastAPI app, and the process that serves it. It listens first; the house joins later."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from datetime import datetime
from socket import socket

import structlog
from fastapi import FastAPI
from sqlalchemy.ext.asyncio import AsyncEngine
from starlette.middleware import Middleware
from starlette.middleware.trustedhost import TrustedHostMiddleware
from starlette.requests import Request
from starlette.responses import Response
from starlette.staticfiles import StaticFiles

from actors.hosts import Hosts
from gateway.auth import SessionGate
from gateway.body_limit import BodyLimit
from gateway.console.render import STATIC, error_page, page
from gateway.doorway import serve
from gateway.edge import Edge, Settle, wall_clock
from gateway.errors import install_errors
from gateway.headers import SecurityHeaders
from gateway.routes import (
    counter,
    dashboard,
    demo,
    drawers,
    enrolment,
    faces,
    health,
    images,
    kill_switches,
    ledger,
    liveness_keys,
    login,
    member,
    member_money,
    memberships,
    pages,
    papers,
    plans,
    prices,
    privacy,
    providers,
    receipts,
    reconciliation,
    registry,
    rollouts,
    rollouts_page,
    settlement,
    settlement_page,
    stream,
    twins,
)
from gateway.settings import GatewaySettings
from gateway.startup import StartupReport, nothing_starts
from models.domain.price_file import FILE_BYTES_MAX

log = structlog.get_logger()

Connect = Callable[[Edge], Awaitable[None]]
"""Runs beside the app and sets `database`, `hosts` and `settle` of the edge as each becomes available."""


def create_app(
    settings: GatewaySettings,
    hosts: Hosts | None = None,
    database: AsyncEngine | None = None,
    *,
    settle: Settle | None = None,
    startup: StartupReport = nothing_starts,
    connect: Connect | None = None,
    now: Callable[[], datetime] = wall_clock,
) -> FastAPI:
    """The app. Serves the start-up page until there are a database and hosts, given now or by `connect`."""
    edge = Edge(settings, hosts=hosts, database=database, settle=settle, startup=startup, now=now)

    @asynccontextmanager
    async def lifespan(_app: FastAPI) -> AsyncIterator[None]:
        tasks = [asyncio.create_task(edge.wall.follow())]
        if connect is not None:
            tasks.append(asyncio.create_task(_connected(connect, edge)))
        try:
            yield
        finally:
            edge.close()
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    app = FastAPI(
        title="storeops",
        version=settings.version,
        description="Stores, terminals, members and settlement of a retail chain. Errors are RFC 9457 problems.",
        openapi_url="/api/v1/openapi.json",
        docs_url=None,
        redoc_url=None,
        lifespan=lifespan,
        middleware=[
            Middleware(SecurityHeaders, edge=edge),
            Middleware(TrustedHostMiddleware, allowed_hosts=settings.host_names),
            Middleware(BodyLimit, body_bytes_max=settings.body_bytes_max, file_bytes_max=FILE_BYTES_MAX),
            Middleware(SessionGate, edge=edge, starting=_starting),
        ],
    )
    app.state.edge = edge
    install_errors(app, error_page)
    for part in (
        health,
        login,
        pages,
        stream,
        registry,
        counter,
        settlement,
        enrolment,
        twins,
        liveness_keys,
        ledger,
        dashboard,
        demo,
        plans,
        papers,
        prices,
        receipts,
        privacy,
        drawers,
        kill_switches,
        rollouts,
        rollouts_page,
        images,
        reconciliation,
        settlement_page,
        providers,
        member,
        member_money,
        memberships,
        faces,
    ):
        app.include_router(part.router)
    app.mount("/static", StaticFiles(directory=STATIC))
    return app


def _starting(request: Request) -> Response:
    return page(request, "starting.html", startup=request.app.state.edge.startup())


async def _connected(connect: Connect, edge: Edge) -> None:
    """`connect` retries by itself; what it raises all the same is logged, and the start-up page stays."""
    try:
        await connect(edge)
    except Exception as error:
        log.exception("connect_failed", error=repr(error))


def run_gateway(
    settings: GatewaySettings,
    *,
    startup: StartupReport = nothing_starts,
    connect: Connect | None = None,
    sockets: list[socket] | None = None,
) -> None:
    """Serve until SIGINT or SIGTERM, then end within `shutdown_s` and a little. Call it first in its process."""
    app = create_app(settings, startup=startup, connect=connect)
    serve(app, settings, app.state.edge.close, sockets)
