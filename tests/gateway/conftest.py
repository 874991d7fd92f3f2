"""The gateway on a real database, with a small shop behind the port `Hosts`."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from urllib.parse import urlsplit

import httpx
import pytest
import pytest_asyncio
from fastapi import FastAPI
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine
from sqlalchemy.pool import NullPool
from sqlmodel.ext.asyncio.session import AsyncSession

from gateway.app import create_app
from gateway.auth import make_login_link
from gateway.edge import Edge
from gateway.settings import GatewaySettings
from runtime.postgres import EmbeddedPostgres, sqlalchemy_url
from tests.conftest import fresh_database
from tests.gateway.shop import SmallShop, tiles
from tests.gateway.world import fill

SETTINGS = GatewaySettings(port=8000, demo=True, stream_frame_s=0.01)
BASE = SETTINGS.base_url


@pytest.fixture(scope="session")
def filled_template(embedded_postgres: EmbeddedPostgres, migrated_template: str) -> Iterator[str]:
    """The name of a migrated database with a small world in it, to copy from."""
    with fresh_database(embedded_postgres, migrated_template) as url:

        async def fill_it() -> None:
            made = create_async_engine(sqlalchemy_url(url), poolclass=NullPool)
            async with AsyncSession(made) as session:
                await fill(session)
            await made.dispose()

        asyncio.run(fill_it())
        yield urlsplit(url).path.lstrip("/")


@pytest.fixture(scope="module")
def filled_url(embedded_postgres: EmbeddedPostgres, filled_template: str) -> Iterator[str]:
    """A small world, shared by a module: tests here only read it and sign in."""
    with fresh_database(embedded_postgres, filled_template) as url:
        yield url


@pytest_asyncio.fixture
async def engine(filled_url: str) -> AsyncIterator[AsyncEngine]:
    """The module's database, from this test's loop."""
    made = create_async_engine(sqlalchemy_url(filled_url), poolclass=NullPool)
    yield made
    await made.dispose()


@pytest.fixture
def shop() -> SmallShop:
    """Twenty stores with three terminals each."""
    return SmallShop(tiles(20))


@dataclass(frozen=True, slots=True)
class Console:
    """A browser that is signed in, and the app behind it."""

    client: httpx.AsyncClient
    app: FastAPI
    csrf: str

    @property
    def edge(self) -> Edge:
        edge: Edge = self.app.state.edge
        return edge

    @property
    def ours(self) -> dict[str, str]:
        """What our own pages send with every effect."""
        return {"X-CSRF-Token": self.csrf, "Origin": BASE, "Sec-Fetch-Site": "same-origin"}


def client_of(app: FastAPI) -> httpx.AsyncClient:
    """A client that has no session yet."""
    transport = httpx.ASGITransport(app, raise_app_exceptions=False)
    return httpx.AsyncClient(transport=transport, base_url=BASE)


@pytest_asyncio.fixture
async def app(engine: AsyncEngine, shop: SmallShop) -> AsyncIterator[FastAPI]:
    """The app with its background tasks running."""
    made = create_app(SETTINGS, shop, engine)
    async with made.router.lifespan_context(made):
        yield made


@pytest_asyncio.fixture
async def console(app: FastAPI, engine: AsyncEngine) -> AsyncIterator[Console]:
    """Signed in by a real link."""
    async with client_of(app) as client:
        link = await make_login_link(engine, SETTINGS)
        assert (await client.get(link)).status_code == 303
        csrf = (await client.get("/api/v1/session")).json()["csrf"]
        yield Console(client, app, csrf)
