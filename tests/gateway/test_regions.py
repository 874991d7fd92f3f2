"""A console over two regions with a database each: `local` is the small world, `east` has one store."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import AsyncExitStack

import pytest
import pytest_asyncio
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine
from sqlalchemy.pool import NullPool
from sqlmodel.ext.asyncio.session import AsyncSession

from gateway.app import create_app
from gateway.auth import make_login_link
from gateway.settings import GatewaySettings, ServedRegion
from models.domain.ids import LaneId, RegionId, StoreId, TerminalId, shard_of
from models.domain.live import TerminalTile
from models.tables.items import ItemRow
from models.tables.registry import BookRow, LegalEntityRow, StoreRow, TerminalRow
from runtime.postgres import EmbeddedPostgres, sqlalchemy_url
from runtime.region_hosts import RegionHosts
from tests.conftest import fresh_database
from tests.gateway.conftest import BASE, Console, client_of
from tests.gateway.shop import SmallShop
from tests.gateway.test_api import until
from tests.gateway.world import NOW

SETTINGS = GatewaySettings(
    port=8000,
    regions=(ServedRegion("local", "chain", 1), ServedRegion("east", "harbour", 1)),
    stream_frame_s=0.01,
)
EAST_TILE = TerminalTile(TerminalId("e-001-1"), StoreId("e-001"), LaneId("lane-1"), "face", "dragonfly-2", online=True)


@pytest.fixture(scope="module")
def east_url(embedded_postgres: EmbeddedPostgres, migrated_template: str) -> Iterator[str]:
    """The other region's database: one company, one store, one terminal."""
    store = StoreRow(
        id="e-001", chain="harbour", region="east", shard=shard_of(StoreId("e-001")), name_zh="东店", name_en="East",
        zone="Asia/Shanghai", opened_at=NOW,
    )  # fmt: skip
    terminal = TerminalRow(
        id="e-001-1", store="e-001", lane="lane-1", role="face", profile="dragonfly-2", secret_sha256="",
        registered_at=NOW,
    )  # fmt: skip
    buns: dict[str, object] = {"name": {"zh": "生煎包", "en": "Pan-fried buns"}, "unit_fen": 1280}

    async def fill(url: str) -> None:
        engine = create_async_engine(sqlalchemy_url(url), poolclass=NullPool)
        async with AsyncSession(engine) as session:
            session.add(LegalEntityRow(id="harbour", chain="harbour", name_zh="", name_en="", provider_app="app-3"))
            session.add(BookRow(chain="harbour", version=1, doc={}, created_at=NOW))
            session.add(ItemRow(chain="harbour", code="1", version=1, doc=buns))
            session.add(store)
            await session.commit()
            session.add(terminal)
            await session.commit()
        await engine.dispose()

    with fresh_database(embedded_postgres, migrated_template) as url:
        asyncio.run(fill(url))
        yield url


@pytest.fixture
def east_shop() -> SmallShop:
    return SmallShop([EAST_TILE])


@pytest_asyncio.fixture
async def both(engine: AsyncEngine, east_url: str, shop: SmallShop, east_shop: SmallShop) -> AsyncIterator[Console]:
    """Signed in, with both regions' hosts and databases."""
    east = create_async_engine(sqlalchemy_url(east_url), poolclass=NullPool)
    hosts = RegionHosts({RegionId("local"): shop, RegionId("east"): east_shop})
    app = create_app(SETTINGS, hosts, engine)
    app.state.edge.databases = {"local": engine, "east": east}
    async with AsyncExitStack() as stack:
        await stack.enter_async_context(app.router.lifespan_context(app))
        client = await stack.enter_async_context(client_of(app))
        assert (await client.get(await make_login_link(engine, SETTINGS))).status_code == 303
        csrf = (await client.get("/api/v1/session")).json()["csrf"]
        await until(lambda: ready(client_of(app)))
        yield Console(client, app, csrf)
    await east.dispose()


async def ready(client: object) -> bool:
    async with client as open_client:  # type: ignore[attr-defined]
        return bool((await open_client.get("/readyz")).status_code == 200)


async def ids(console: Console, path: str) -> list[str]:
    response = await console.client.get(path)
    assert response.status_code == 200, response.text
    return [item["id"] for item in response.json()["items"]]


async def test_lists_are_of_the_chosen_regions_database(both: Console) -> None:
    assert "s-001" in await ids(both, "/api/v1/stores")
    assert "s-001" in await ids(both, "/api/v1/stores?region=local")
    assert await ids(both, "/api/v1/stores?region=east") == ["e-001"]
    assert await ids(both, "/api/v1/terminals?region=east") == ["e-001-1"]
    assert await ids(both, "/api/v1/sales?region=east") == []
    ledgers = [(await both.client.get(f"/api/v1/ledger{query}")).json() for query in ("", "?region=east")]
    assert [ledger["transactions"] > 0 for ledger in ledgers] == [True, False]


async def test_what_has_an_id_is_found_wherever_it_is(both: Console) -> None:
    for terminal, region in (("t-001-1", "local"), ("e-001-1", "east")):
        found = (await both.client.get(f"/api/v1/terminals/{terminal}")).json()
        assert found["region"] == region
        assert (await both.client.get(f"/terminal/{terminal}")).status_code == 200
        assert (await both.client.get(f"/wall/terminals/{terminal}")).status_code == 200
    assert (await both.client.get("/api/v1/terminals/nobody")).status_code == 404
    assert "Pan-fried buns" in (await both.client.get("/terminal/e-001-1")).text, "its own chain's book"
    reply = await both.client.post(
        "/api/v1/terminals/e-001-1/events",
        headers=both.ours,
        json={"v": 1, "id": "i-1", "boot": "b", "seq": 1, "ts": NOW.isoformat(), "type": "session.open", "body": {}},
    )
    assert reply.json()["reply"]["ok"] is True


async def test_the_wall_has_every_region(both: Console) -> None:
    wall = both.edge.wall
    assert {"t-001-1", "e-001-1"} <= wall.terminals.keys()
    frame = (await both.client.get("/api/v1/wall")).json()
    assert frame["clocks"].keys() == {"local", "east"}
    pages = {query: (await both.client.get(f"/wall{query}")).text for query in ("", "?region=east", "?region=local")}
    assert [("e-001" in text, "s-001" in text) for text in pages.values()] == [
        (True, True),
        (True, False),
        (False, True),
    ]


async def test_the_shell_offers_the_regions_and_keeps_the_choice(both: Console, console: Console) -> None:
    page = (await both.client.get("/stores?region=east&q=e")).text
    assert 'id="regions"' in page
    assert 'href="?region=local&amp;q=e"' in page or 'href="?q=e&amp;region=local"' in page
    assert 'href="/members?region=east"' in page
    assert "harbour" in page
    assert '<input type="hidden" name="region" value="east">' in page, "a search stays in the region"
    assert 'id="regions"' not in (await console.client.get("/stores")).text, "one region needs no choice"
    english = {"Accept-Language": "en"}
    notice = "These are the books of local."
    assert notice in (await both.client.get("/stores", headers=english)).text
    assert notice not in (await both.client.get("/stores?region=east", headers=english)).text
    assert "此处显示 local 的账目" in (await both.client.get("/stores", headers={"Accept-Language": "zh"})).text
    picked = (await both.client.get("/scope?q=e-001")).text
    assert "region=east&amp;store=e-001" in picked


async def test_a_region_that_is_away_leaves_the_others(both: Console, east_shop: SmallShop) -> None:
    await east_shop.go_away()
    await until(lambda: waits(both, "east"))
    health = (await both.client.get("/readyz")).json()
    assert (health["ready"], health["slots_waiting"]) == (False, ["east/0"])
    assert [health["regions"][name]["ready"] for name in ("local", "east")] == [True, False]
    assert (await both.client.get("/readyz?region=local")).status_code == 200
    assert (await both.client.get("/readyz?region=east")).status_code == 503
    metrics = (await both.client.get("/metrics")).text
    assert 'storeops_slots_waiting{region="local"} 0\n' in metrics
    assert 'storeops_slots_waiting{region="east"} 1\n' in metrics
    assert metrics.count("# TYPE storeops_slots_waiting gauge") == 1
    assert 'storeops_terminals_online{region="east"} 1\n' in metrics
    assert "east/0" not in (await both.client.get("/system?region=local")).text


async def waits(console: Console, region: str) -> bool:
    return bool(console.edge.wall.waiting_in(region))


async def test_a_database_that_is_away_leaves_the_others(both: Console) -> None:
    gone = create_async_engine("postgresql+psycopg://nobody@127.0.0.1:9/none", poolclass=NullPool)
    both.edge.databases = {**both.edge.databases, "east": gone}
    assert (await both.client.get("/api/v1/stores")).status_code == 200
    assert (await both.client.get("/api/v1/stores?region=east")).status_code == 503
    assert (await both.client.get("/api/v1/terminals/t-001-1")).status_code == 200
    assert (await both.client.get("/api/v1/terminals/e-001-1")).json()["code"] == "database_away"
    regions = (await both.client.get("/readyz")).json()["regions"]
    assert [regions[name]["database"] for name in ("local", "east")] == [True, False]
    await gone.dispose()


async def test_settlement_of_one_region_or_of_all(both: Console) -> None:
    async def settle(region: str) -> Mapping[str, int | str]:
        return {"ok": True, "charge_fen": 100 if region == "east" else 250, "now": "noon", "region": region}

    both.edge.settle = settle

    async def run(query: str, key: str) -> dict[str, object]:
        response = await both.client.post(
            f"/api/v1/settlement/runs{query}", headers=both.ours | {"Idempotency-Key": key}
        )
        answer: dict[str, object] = response.json()
        return answer

    alone = await run("?region=east", "press-east")
    assert alone == {"totals": {"ok": True, "charge_fen": 100, "now": "noon", "region": "east"}}
    every = await run("", "press-every")
    assert every["totals"] == {"ok": True, "charge_fen": 350, "now": "noon"}
    assert every["regions"] == {
        name: {"ok": True, "charge_fen": fen, "now": "noon", "region": name}
        for name, fen in (("local", 250), ("east", 100))
    }
    assert (await run("?region=west", "press-west"))["code"] == "region_not_served"
    assert (await run("?region=local", "press-every"))["code"] == "idempotency_key_reused"


def test_links_begin_with_the_console() -> None:
    assert SETTINGS.base_url == BASE
    assert (SETTINGS.chain_of(""), SETTINGS.chain_of("east")) == ("chain, harbour", "harbour")
