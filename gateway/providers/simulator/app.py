"""The simulator's web application and its process."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from pathlib import Path

import uvicorn
from fastapi import FastAPI

from gateway.providers.simulator import faults
from gateway.providers.simulator.database import Database
from gateway.providers.simulator.door import Door
from gateway.providers.simulator.operations import operations_router
from gateway.providers.simulator.pages import pages_router
from gateway.providers.simulator.protocol import FAULTY, Simulator, gateway_router
from gateway.providers.simulator.routes import sim_router
from gateway.providers.simulator.wechat import wechat_router

GRACE_S = 1
DELIVER_EVERY_S = 0.2


def create_simulator_app(
    data_dir: Path, *, clock: Callable[[], datetime] = lambda: datetime.now(UTC), host: str = "127.0.0.1"
) -> FastAPI:
    """The provider over the database in `data_dir` (created if absent; opened when the application starts).

    `clock` is the provider's own: real time, whatever our business clock says. `host` is the address it is
    served at: requests that name another one are refused.
    """

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        database = Database(data_dir)
        simulator = app.state.simulator = Simulator(database, clock)
        courier = asyncio.create_task(_deliver(simulator))
        try:
            yield
        finally:
            courier.cancel()
            await asyncio.gather(courier, return_exceptions=True)
            await simulator.courier.aclose()
            database.close()

    app = FastAPI(title="storeops provider simulator", lifespan=lifespan, docs_url=None, redoc_url=None)
    app.include_router(gateway_router())
    app.include_router(wechat_router())
    app.include_router(sim_router())
    app.include_router(operations_router())
    app.include_router(pages_router())
    app.add_middleware(Door, host=host)
    return app


async def _deliver(simulator: Simulator) -> None:
    """Send notifications as they become due by the provider's clock."""
    while True:
        with simulator.database.transaction() as db:
            simulator.expire(db)
        if not await simulator.courier.deliver():
            await asyncio.sleep(DELIVER_EVERY_S)


def run_simulator(host: str, port: int, data_dir: Path, script: str = "") -> None:
    """Serve until SIGINT or SIGTERM, then end within about GRACE_S seconds. Blocks.

    `script`: faults to begin with, YAML or JSON. Raises ValueError when it makes no sense, before anything is served.
    """
    if script:
        story = faults.parse_script(script, FAULTY)
        database = Database(data_dir)
        with database.transaction() as db:
            faults.play(db, story)
        database.close()
    config = uvicorn.Config(
        create_simulator_app(data_dir, host=host),
        host=host,
        port=port,
        log_level="warning",
        access_log=False,
        server_header=False,
        timeout_graceful_shutdown=GRACE_S,
        limit_concurrency=256,
    )
    uvicorn.Server(config).run()
