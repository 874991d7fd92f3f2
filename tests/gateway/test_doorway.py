"""The gateway's first second: what is answered before the app is loaded, what waits for it, and how it ends."""

from __future__ import annotations

import asyncio
import signal
import threading
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import httpx

from gateway.app import create_app
from gateway.doorway import Doorway, Loaded
from gateway.headers import CONTENT_SECURITY_POLICY
from gateway.settings import GatewaySettings
from gateway.startup import Part, PartState, Startup

SETTINGS = GatewaySettings(port=80)
PAGE = {"Accept": "text/html", "Accept-Language": "en"}


def report() -> Startup:
    return Startup((Part("database", PartState.STARTING, 1200),), {"ray_dashboard": "http://secret"})


@asynccontextmanager
async def standing(load: Callable[[], Loaded]) -> AsyncIterator[httpx.AsyncClient]:
    """A doorway as its server runs it: lifespan first, then requests, then the end."""
    doorway = Doorway(SETTINGS, report, load)
    told: asyncio.Queue[dict[str, Any]] = asyncio.Queue()
    said: asyncio.Queue[Any] = asyncio.Queue()
    life = asyncio.create_task(doorway({"type": "lifespan"}, told.get, said.put))
    await told.put({"type": "lifespan.startup"})
    assert (await said.get())["type"] == "lifespan.startup.complete"
    transport = httpx.ASGITransport(app=doorway)
    async with httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1") as client:
        yield client
    doorway.close()
    await told.put({"type": "lifespan.shutdown"})
    async with asyncio.timeout(30):
        await life
    assert (await said.get())["type"] == "lifespan.shutdown.complete"


class SlowApp:
    """The real app, loaded when the test says so."""

    def __init__(self) -> None:
        self.may_load = threading.Event()
        self.app = create_app(SETTINGS, startup=report)

    def load(self) -> Loaded:
        assert self.may_load.wait(30)
        return self.app


async def test_pages_and_liveness_do_not_wait_for_the_app() -> None:
    slow = SlowApp()
    async with standing(slow.load) as client:
        assert (await client.get("/healthz")).json() == {"status": "ok"}
        page = await client.get("/wall", headers=PAGE)
        assert page.status_code == 200
        assert "storeops is starting" in page.text
        assert 'data-part="database"' in page.text
        assert page.headers["content-security-policy"] == CONTENT_SECURITY_POLICY
        assert page.headers["cache-control"] == "no-store"
        document = await client.get("/startup.json")
        assert document.json()["ready"] is False
        assert "secret" not in document.text
        assert (await client.get("/static/js/starting.js")).status_code == 200
        assert (await client.get("/healthz", headers={"Host": "evil.example"})).status_code == 400
        slow.may_load.set()


async def test_programs_wait_for_the_app_and_never_get_a_page() -> None:
    slow = SlowApp()
    async with standing(slow.load) as client:
        asking = [asyncio.create_task(client.get(path, headers=PAGE)) for path in ("/readyz", "/api/v1/stores")]
        posting = asyncio.create_task(client.post("/api/v1/terminals/a/events", json={}))
        done, _ = await asyncio.wait({*asking, posting}, timeout=0.2)
        assert not done
        slow.may_load.set()
        ready, stores, posted = await asyncio.gather(*asking, posting)
        assert ready.status_code == 503
        assert ready.json()["database"] is False
        assert stores.json()["code"] == "starting"
        assert posted.json()["code"] == "starting"


async def test_the_app_takes_over_and_lives_as_long_as_the_door() -> None:
    slow = SlowApp()
    slow.may_load.set()
    edge = slow.app.state.edge
    async with standing(slow.load) as client:
        await client.get("/readyz")
        assert edge.responses == {"5xx": 1}
        assert "storeops is starting" in (await client.get("/wall", headers=PAGE)).text
        assert edge.responses == {"5xx": 1, "2xx": 1}, "the app answers now"
        assert not edge.stopping.is_set()
    assert edge.stopping.is_set()


async def test_an_end_before_the_app_is_loaded() -> None:
    slow = SlowApp()
    async with standing(slow.load) as client:
        assert (await client.get("/healthz")).status_code == 200
        asyncio.get_running_loop().call_later(0.05, slow.may_load.set)
    assert not slow.app.state.edge.responses


async def test_an_app_that_cannot_be_loaded_ends_the_process() -> None:
    ended = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, ended.set)

    def broken() -> Loaded:
        raise ImportError("a file is missing")

    try:
        async with standing(broken) as client:
            assert (await client.get("/healthz")).status_code == 200
            async with asyncio.timeout(30):
                await ended.wait()
    finally:
        asyncio.get_running_loop().remove_signal_handler(signal.SIGTERM)
