"""Who gets in, what every response carries, and what no page ever asks of elsewhere."""

from __future__ import annotations

import hashlib
import re
from datetime import timedelta
from html.parser import HTMLParser
from pathlib import Path

import pytest
from fastapi import FastAPI
from fastapi.routing import APIRoute, iter_route_contexts
from sqlalchemy.ext.asyncio import AsyncEngine
from sqlmodel import select
from sqlmodel.ext.asyncio.session import AsyncSession

from gateway.app import create_app
from gateway.auth import NOTIFICATIONS, OPEN_PATHS, OPEN_POSTS, make_login_link
from gateway.edge import Edge, wall_clock
from gateway.settings import GatewaySettings
from gateway.startup import Part, PartState, Startup, startup_from_file, write_startup
from models.tables.registry import LoginRow
from tests.gateway.conftest import BASE, SETTINGS, Console, client_of
from tests.gateway.shop import SmallShop

PAGES = (
    "/wall",
    "/wall?region=local&store=s-002",
    "/members",
    "/members?group=closed",
    "/memberships/ms-1",
    "/payments",
    "/stores",
    "/terminals",
    "/system",
    "/terminal/t-001-1",
    "/wall/stores/s-001",
    "/wall/terminals/t-001-1",
    "/terminals/t-001-1",
    "/scope",
    "/api/v1/docs",
    "/login",
    "/nothing-here",
)
VENDOR = Path(__file__).resolve().parents[2] / "gateway" / "console" / "static" / "vendor"


async def test_a_link_works_once(app: FastAPI, engine: AsyncEngine) -> None:
    link = await make_login_link(engine, SETTINGS)
    async with client_of(app) as client:
        looked_ahead = await client.get(link, headers={"Sec-Purpose": "prefetch;prerender"})
        assert looked_ahead.status_code == 204
        first = await client.get(link)
        assert first.status_code == 303
        cookie = first.headers["set-cookie"]
        assert "HttpOnly" in cookie
        assert "SameSite=lax" in cookie
        assert (await client.get("/wall")).status_code == 200
    async with client_of(app) as other:
        assert (await other.get(link)).status_code == 403
        assert (await other.get("/wall")).status_code == 303


async def test_a_link_ends_after_ten_minutes_and_nothing_secret_is_stored(app: FastAPI, engine: AsyncEngine) -> None:
    link = await make_login_link(engine, SETTINGS, wall_clock() - timedelta(minutes=10))
    async with client_of(app) as client:
        assert (await client.get(link)).status_code == 403
    async with AsyncSession(engine) as session:
        rows = (await session.exec(select(LoginRow))).all()
    secret = link.rsplit("/", 1)[1]
    assert hashlib.sha256(secret.encode()).hexdigest() in {row.secret_sha256 for row in rows}
    assert not any(secret in repr(row) for row in rows)


async def test_a_session_secret_is_no_link_and_a_link_no_session(app: FastAPI, engine: AsyncEngine) -> None:
    link = await make_login_link(engine, SETTINGS)
    async with client_of(app) as client:
        client.cookies.set("storeops", link.rsplit("/", 1)[1])
        assert (await client.get("/wall")).status_code == 303
        client.cookies.clear()
        session = (await client.get(link)).cookies["storeops"]
        assert (await client.get(f"/login/{session}")).status_code == 403


async def test_signing_out_ends_the_session(console: Console) -> None:
    response = await console.client.post("/logout", headers=console.ours)
    assert response.status_code == 204
    assert (await console.client.get("/api/v1/session")).status_code == 401


async def test_a_session_ends_by_itself(console: Console) -> None:
    console.edge.now = lambda: wall_clock() + timedelta(hours=SETTINGS.session_hours, seconds=1)
    assert (await console.client.get("/wall")).status_code == 303


async def test_every_address_needs_a_session_but_the_named_ones(app: FastAPI) -> None:
    async with client_of(app) as client:
        checked = 0
        for context in iter_route_contexts(app.routes):
            route = context.original_route
            if not isinstance(route, APIRoute):
                continue
            path = re.sub(r"\{\w+\}", "x", context.path or "")
            if any(path == opened or path.startswith(f"{opened}/") for opened in OPEN_PATHS):
                continue
            for method in route.methods or ():
                if method == "POST" and (path in OPEN_POSTS or NOTIFICATIONS.fullmatch(path)):
                    continue
                response = await client.request(method, path)
                assert response.status_code in {401, 303}, (method, path)
                assert response.status_code == 401 or response.headers["location"] == "/login"
                checked += 1
        assert checked > 25
        assert (await client.get("/api/v1/openapi.json")).status_code == 401
        fragment = await client.get("/memberships/ms-1", headers={"HX-Request": "true"})
        assert (fragment.status_code, fragment.headers["hx-redirect"]) == (401, "/login")


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"X-CSRF-Token": "wrong"},
        {"X-CSRF-Token": "right", "Origin": "https://evil.example"},
        {"X-CSRF-Token": "right", "Origin": "null"},
        {"X-CSRF-Token": "right", "Sec-Fetch-Site": "cross-site"},
        {"X-CSRF-Token": "right", "Sec-Fetch-Site": "same-site"},
        {"X-CSRF-Token": "right", "Sec-Fetch-Site": "none"},
    ],
)
async def test_an_effect_needs_our_token_from_our_page(
    console: Console, headers: dict[str, str], shop: SmallShop
) -> None:
    sent = {name: console.csrf if value == "right" else value for name, value in headers.items()}
    response = await console.client.post("/api/v1/terminals/t-001-1/events", content=b"{}", headers=sent)
    assert (response.status_code, response.json()["code"]) == (403, "csrf")
    assert shop.turns == 0


async def test_our_token_alone_is_enough_for_a_program(console: Console) -> None:
    response = await console.client.post("/logout", headers={"X-CSRF-Token": console.csrf})
    assert response.status_code == 204


async def test_another_host_name_is_refused(console: Console) -> None:
    response = await console.client.get("/healthz", headers={"Host": "rebound.example"})
    assert response.status_code == 400


@pytest.mark.parametrize(
    ("back", "goes"),
    [
        ("/members?q=1", "/members?q=1"),
        ("//evil.example", "/wall"),
        ("https://evil.example", "/wall"),
        ("/\\evil.example", "/wall"),
    ],
)
async def test_switches_stay_at_home(console: Console, back: str, goes: str) -> None:
    response = await console.client.get("/language/zh", params={"back": back})
    assert response.headers["location"] == goes
    assert (await console.client.get("/language/fr")).status_code == 404


class Document(HTMLParser):
    """What a page would load, run or style."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.loads: list[str] = []
        self.inline: list[str] = []
        self.script = ""
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        values = {name: value or "" for name, value in attrs}
        self.inline += [f"{tag} {name}" for name in values if name.startswith(("on", "style", "hx-on"))]
        for name in ("src", "href", "action", "srcset", "poster", "hx-get", "hx-post"):
            if name in values and not (tag == "a" and values.get("target") == "_blank"):
                self.loads.append(values[name])
        if tag == "style" or (tag == "script" and "src" not in values and values.get("type") != "application/json"):
            self.inline.append(tag)


@pytest.mark.parametrize("language", ["zh", "en"])
@pytest.mark.parametrize("path", PAGES)
async def test_pages_are_strict_and_ask_nothing_of_elsewhere(console: Console, path: str, language: str) -> None:
    response = await console.client.get(path, headers={"Accept-Language": language})
    assert response.status_code in {200, 404}
    policy = response.headers["content-security-policy"]
    assert "default-src 'none'" in policy
    assert "unsafe" not in policy
    assert "http" not in policy
    assert response.headers["x-content-type-options"] == "nosniff"
    assert response.headers["cache-control"] == "no-store"
    document = Document(response.text)
    assert document.inline == []
    assert [address for address in document.loads if not re.match(r"/(?!/)|\?|#", address)] == []
    if language == "en":
        visible = re.sub(r"<script.*?</script>|lang=\"zh-CN\".*?<", "", response.text, flags=re.S)
        data = "陈张李王刘矿泉水三明治咖啡"
        assert {char for char in re.findall(r"[\u3400-\u9fff]", visible) if char not in data} == set()


async def test_fragments_are_bare_and_pages_whole(console: Console) -> None:
    fragment = await console.client.get("/memberships/ms-1", headers={"HX-Request": "true"})
    whole = await console.client.get("/memberships/ms-1")
    assert "<html" not in fragment.text
    assert "<html" in whole.text
    assert "less than the fee" in fragment.text
    assert "不足会费" in fragment.text
    missing = await console.client.get("/memberships/nope", headers={"HX-Request": "true"})
    assert missing.status_code == 404
    assert "<html" not in missing.text


async def test_hostile_names_stay_text(console: Console, engine: AsyncEngine) -> None:
    from models.tables.registry import StoreRow

    name = "</script><script>alert(1)</script>"
    async with AsyncSession(engine) as session:
        row = (await session.exec(select(StoreRow).where(StoreRow.id == "s-020"))).one()
        row.name_en = row.name_zh = name
        session.add(row)
        await session.commit()
    for path in ("/wall", "/stores", "/wall/stores/s-020", "/terminal/t-020-1", "/scope?q=%3C"):
        assert name not in (await console.client.get(path)).text


async def test_static_files_named_by_digest_are_kept(console: Console) -> None:
    page = (await console.client.get("/wall")).text
    addresses = re.findall(r'(?:src|href)="(/static/[^"]+)"', page)
    assert len(addresses) >= 6
    for address in addresses:
        response = await console.client.get(address)
        assert response.status_code == 200
        assert "immutable" in response.headers["cache-control"]
    assert (await console.client.get("/static/../app.py")).status_code == 404
    plain = await console.client.get("/static/js/wire.js")
    assert plain.headers["cache-control"] == "no-cache"


def test_vendored_files_are_what_the_manifest_says() -> None:
    lines = [line.split() for line in (VENDOR / "MANIFEST").read_text().splitlines() if not line.startswith("#")]
    named = {name: digest for digest, name, *_ in lines}
    found = {
        str(file.relative_to(VENDOR)): hashlib.sha256(file.read_bytes()).hexdigest()
        for file in VENDOR.rglob("*")
        if file.is_file() and file.name != "MANIFEST"
    }
    assert found == named


async def test_it_listens_before_the_house_is_there(tmp_path: Path, engine: AsyncEngine, shop: SmallShop) -> None:
    report = tmp_path / "startup.json"
    app = create_app(SETTINGS, startup=startup_from_file(report))
    edge: Edge = app.state.edge
    async with client_of(app) as client:
        assert (await client.get("/healthz")).status_code == 200
        assert (await client.get("/readyz")).status_code == 503
        write_startup(report, Startup((Part("database", PartState.STARTING, 300, "cold start"),)))
        page = await client.get("/", headers={"Accept-Language": "en"})
        assert page.status_code == 200
        assert "Database" in page.text
        assert "cold start" in page.text
        api = await client.get("/api/v1/stores")
        assert (api.status_code, api.headers["retry-after"], api.json()["code"]) == (503, "1", "starting")
        link = await make_login_link(engine, SETTINGS)
        assert "starting" in (await client.get(link, headers={"Accept-Language": "en"})).text
        edge.database = engine
        assert (await client.get("/startup.json")).json()["ready"] is False
        assert (await client.get(link)).status_code == 303
        assert "Database" in (await client.get("/wall", headers={"Accept-Language": "en"})).text
        edge.hosts = shop
        assert (await client.get("/startup.json")).json()["ready"] is True
        assert 'id="canvas"' in (await client.get("/wall")).text


async def test_over_tls_the_cookie_is_bound_to_the_host(engine: AsyncEngine, shop: SmallShop) -> None:
    settings = GatewaySettings(public_url="https://ops.example.test")
    app = create_app(settings, shop, engine)
    async with client_of(app) as client:
        link = await make_login_link(engine, settings)
        response = await client.get(link.replace(settings.base_url, BASE))
        cookie = response.headers["set-cookie"]
        assert cookie.startswith("__Host-storeops=")
        assert "Secure" in cookie
