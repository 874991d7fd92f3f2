"""A gateway process's worth of app on a free port, in a thread, and Debian's Chromium in front of it."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from socket import socket
from typing import Any

import pytest
import uvicorn
from playwright.sync_api import Browser, BrowserContext, Page, expect, sync_playwright
from psycopg import AsyncConnection
from psycopg_pool import AsyncConnectionPool
from sqlalchemy.ext.asyncio import create_async_engine
from sqlalchemy.pool import NullPool
from sqlmodel.ext.asyncio.session import AsyncSession

from gateway.app import create_app
from gateway.auth import make_login_link
from gateway.settings import GatewaySettings
from gateway.startup import Part, PartState, Startup
from models.domain.ids import ChainId, RegionId
from runtime.drawer_desk import DrawersOfAHouse
from runtime.kill_switches import KillSwitchesOfAHouse
from runtime.liveness_keys import LivenessKeysOfAHouse
from runtime.member_money_desk import MemberMoneyOfAHouse
from runtime.membership_desk import MembershipsOfAHouse
from runtime.plant import Plant, Providers
from runtime.postgres import EmbeddedPostgres, sqlalchemy_url
from runtime.price_desk import PricesOfAHouse
from runtime.privacy import Privacy
from runtime.privacy_desk import Desk, MemberLinks
from runtime.reconciliation_desk import ReconciliationDesk
from runtime.rollout_desks import RolloutsOfAHouse
from runtime.settlement import SettlementRunner
from runtime.settlement_desk import SettlementsOfAHouse
from tests.conftest import fresh_database
from tests.gateway.shop import SmallShop, tiles
from tests.gateway.world import fill

CHROMIUM = Path("/usr/bin/chromium")
ARGUMENTS = ["--no-sandbox", "--disable-dev-shm-usage", "--disable-gpu", "--disable-background-networking"]
FAKE_CAMERA = ["--use-fake-device-for-media-stream", "--use-fake-ui-for-media-stream"]
READY_S = 60.0
expect.set_options(
    timeout=20_000
)  # a page that should be there in milliseconds is there later on a machine that stalls
STARTUP = Startup(
    (
        Part("database", PartState.READY, 740),
        Part("broker", PartState.READY, 90, "mosquitto"),
        Part("ray", PartState.READY, 4520),
        Part("hosts", PartState.READY, 1210),
        Part("faces", PartState.READY, 2300),
        Part("simulator", PartState.READY, 310),
    ),
    {"ray_dashboard": "http://127.0.0.1:8265"},
    {"ray": "2.60.0", "postgresql": "18.1"},
)


@dataclass(slots=True)
class Served:
    """A running console. `call` runs a coroutine of the shop on the app's own loop."""

    settings: GatewaySettings
    shop: SmallShop
    loop: asyncio.AbstractEventLoop
    database_url: str

    def call(self, work: object) -> None:
        assert asyncio.iscoroutine(work)
        asyncio.run_coroutine_threadsafe(work, self.loop).result(READY_S)

    def login_link(self) -> str:
        """A fresh one-time link."""

        async def make() -> str:
            engine = create_async_engine(sqlalchemy_url(self.database_url), poolclass=NullPool)
            try:
                return await make_login_link(engine, self.settings)
            finally:
                await engine.dispose()

        return asyncio.run_coroutine_threadsafe(make(), self.loop).result(READY_S)


@contextmanager
def serve(database_url: str, stores: int = 20) -> Iterator[Served]:
    """The app on a free port of the loopback, with the small world in its database, which is migrated."""
    with socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        port = listener.getsockname()[1]
        settings = replace(GatewaySettings(port=port, demo=True, provider_url="http://127.0.0.1:9"))
        shop = SmallShop(tiles(stores))
        engine = create_async_engine(sqlalchemy_url(database_url), poolclass=NullPool)
        app = create_app(settings, shop, engine, startup=lambda: STARTUP, settle=_settled)
        app.state.edge.privacy = Desk(Privacy([database_url], scrubs=False), MemberLinks(b"a test's own"))
        memberships = MembershipsOfAHouse([Plant(Path(), region=RegionId("local"), database_url=database_url)])
        app.state.edge.memberships = memberships
        money = MemberMoneyOfAHouse([Plant(Path(), region=RegionId("local"), database_url=database_url)])
        app.state.edge.member_money = money
        app.state.edge.reconciliation = ReconciliationDesk([Plant(Path(), database_url=database_url)])
        drawers = DrawersOfAHouse([Plant(Path(), region=RegionId("local"), database_url=database_url)])
        app.state.edge.drawers = drawers
        here = Plant(Path(), region=RegionId("local"), chain=ChainId("chain"), database_url=database_url)
        app.state.edge.kill_switches = KillSwitchesOfAHouse([here])
        app.state.edge.liveness_keys = LivenessKeysOfAHouse([here], tell=_told)
        app.state.edge.settlements = SettlementsOfAHouse([here], _forecast)
        rollouts = RolloutsOfAHouse([here])
        app.state.edge.rollouts = rollouts
        app.state.edge.prices = PricesOfAHouse([Plant(Path(), region=RegionId("local"), database_url=database_url)])
        server = uvicorn.Server(uvicorn.Config(app, log_config=None, timeout_graceful_shutdown=1, ws="none"))
        loops: list[asyncio.AbstractEventLoop] = []

        async def run() -> None:
            loops.append(asyncio.get_running_loop())
            async with AsyncSession(engine) as session:
                await fill(session, stores)
            await server.serve([listener])
            await memberships.aclose()
            await money.aclose()
            await drawers.aclose()
            await rollouts.close()
            await engine.dispose()

        thread = threading.Thread(target=lambda: asyncio.run(run()))
        thread.start()
        deadline = time.monotonic() + READY_S
        while not server.started and thread.is_alive() and time.monotonic() < deadline:
            threading.Event().wait(0.02)
        assert server.started
        try:
            yield Served(settings, shop, loops[0], database_url)
        finally:
            loops[0].call_soon_threadsafe(app.state.edge.close)
            server.should_exit = True
            thread.join(READY_S)


async def _forecast(plant: Plant) -> Mapping[str, object]:
    """As the region's actor does it, over the same rows; nobody outside is asked."""
    async with AsyncConnectionPool[AsyncConnection[Any]](
        plant.database_url, min_size=1, max_size=2, open=False
    ) as pool:
        runner = SettlementRunner(plant.chain, plant.region, pool, Providers(plant))
        return asdict(await runner.forecast(datetime.now(UTC)))


async def _told(_plant: Plant, _terminal: str) -> bool:
    return True


async def _settled(_region: str) -> dict[str, int | str]:
    return {"settled": 3, "captured_fen": 1800}


@pytest.fixture(scope="session")
def served(embedded_postgres: EmbeddedPostgres, migrated_template: str) -> Iterator[Served]:
    """One console for the run."""
    with fresh_database(embedded_postgres, migrated_template) as url, serve(url) as running:
        yield running


@pytest.fixture(scope="module")
def chromium() -> Iterator[Browser]:
    """Debian's Chromium. For one module: while it is open, playwright's loop runs in this thread, and no other can."""
    if not CHROMIUM.exists():
        pytest.skip("Debian's Chromium is not installed")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=str(CHROMIUM), args=[*ARGUMENTS, *FAKE_CAMERA])
        yield browser
        browser.close()


@dataclass(slots=True)
class Watched:
    """A page, and everything that went wrong in it."""

    page: Page
    troubles: list[str]


def watch(context: BrowserContext, base: str) -> Watched:
    """A page whose console errors, policy violations and foreign requests are collected."""
    page = context.new_page()
    watched = Watched(page, [])
    page.on("pageerror", lambda error: watched.troubles.append(f"pageerror: {error}"))
    page.on(
        "console",
        lambda message: watched.troubles.append(f"console: {message.text}") if message.type == "error" else None,
    )
    page.on(
        "request",
        lambda request: (
            None
            if request.url.startswith((base, "blob:", "data:"))
            else watched.troubles.append(f"foreign request: {request.url}")
        ),
    )
    return watched


@pytest.fixture
def signed_in(served: Served, chromium: Browser) -> Iterator[Watched]:
    """A page in English that is signed in and shows nothing yet: to draw the wall first would cost more than most
    tests. The test fails when anything went wrong in the page."""
    context = chromium.new_context(locale="en-GB", viewport={"width": 1280, "height": 800})
    watched = watch(context, served.settings.base_url)
    assert context.request.get(served.login_link(), max_redirects=0).status == 303
    yield watched
    context.close()
    assert watched.troubles == []


@pytest.fixture
def console(served: Served, signed_in: Watched) -> Watched:
    """The same, at the wall, where the link leads to."""
    signed_in.page.goto(f"{served.settings.base_url}/wall")
    return signed_in
