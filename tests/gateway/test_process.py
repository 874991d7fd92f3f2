"""The gateway as a process: it listens before the house is there, and ends at once with streams open."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import sys
import threading
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import httpx
import pytest
from sqlalchemy.ext.asyncio import create_async_engine
from sqlalchemy.pool import NullPool

from gateway.app import run_gateway
from gateway.auth import make_login_link
from gateway.edge import Edge
from gateway.settings import GatewaySettings
from runtime.postgres import sqlalchemy_url
from tests.gateway.shop import SmallShop, tiles

LISTENS_S = 45.0
"""Generous for a loaded machine; `storeops bench slice` holds the real limit."""
ENDS_S = 5.0
"""Alone it takes 0.5 s. The server's own patience is set far above, so that only our closing can end the streams."""


def serve(port: int, url: str) -> None:
    """The process under test: the house joins half a second late."""

    async def connect(edge: Edge) -> None:
        await asyncio.to_thread(threading.Event().wait, 0.5)
        edge.database = create_async_engine(sqlalchemy_url(url), poolclass=NullPool)
        edge.hosts = SmallShop(tiles(2))

    run_gateway(GatewaySettings(port=port, shutdown_s=30), connect=connect)


@asynccontextmanager
async def gateway(url: str) -> AsyncIterator[tuple[asyncio.subprocess.Process, GatewaySettings]]:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    process = await asyncio.create_subprocess_exec(sys.executable, "-m", "tests.gateway.test_process", str(port), url)
    try:
        yield process, GatewaySettings(port=port)
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()


async def listening(client: httpx.AsyncClient, path: str, status: int) -> httpx.Response:
    async with asyncio.timeout(LISTENS_S):
        while True:
            try:
                response = await client.get(path)
                if response.status_code == status:
                    return response
            except httpx.TransportError:
                pass
            await asyncio.sleep(0.02)


@pytest.mark.integration
@pytest.mark.parametrize("sign", [signal.SIGINT, signal.SIGTERM])
async def test_it_starts_first_and_ends_at_once(filled_url: str, sign: signal.Signals) -> None:
    async with (
        gateway(filled_url) as (process, settings),
        httpx.AsyncClient(base_url=settings.base_url, timeout=30.0) as client,
    ):
        await listening(client, "/healthz", 200)
        page = await client.get("/", headers={"Accept-Language": "en"})
        assert "storeops is starting" in page.text
        await listening(client, "/readyz", 200)
        engine = create_async_engine(sqlalchemy_url(filled_url), poolclass=NullPool)
        assert (await client.get(await make_login_link(engine, settings))).status_code == 303
        await engine.dispose()
        async with client.stream("GET", "/api/v1/wall/events", timeout=30) as stream:
            lines = stream.aiter_lines()
            assert await anext(lines) == "event: resync"
            poll = asyncio.create_task(client.get("/api/v1/terminals/t-001-1/screen", timeout=30))
            await client.get("/healthz")
            begun = time.monotonic()
            os.kill(process.pid, sign)
            async with asyncio.timeout(ENDS_S):
                async for _ in lines:
                    pass
                await asyncio.gather(poll, return_exceptions=True)
                code = await process.wait()
        assert time.monotonic() - begun < ENDS_S
        assert code in {0, -sign}


if __name__ == "__main__":
    serve(int(sys.argv[1]), sys.argv[2])
