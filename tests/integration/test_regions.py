"""Several regions in one deployment: each serves its own stores, from its own database, over its own broker."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from gateway.providers.simulator import SimulatorAdmin
from models.domain.ids import StoreId
from models.domain.screen import ScreenState
from runtime.broker import EmbeddedBroker
from runtime.postgres import EmbeddedPostgres
from tests.conftest import fresh_database, running_broker
from tests.integration.money_shop import running_simulator
from tests.integration.regions import Regions, open_regions, until

pytestmark = [pytest.mark.integration]
WATER, TEA = ("6901234561005", 200), ("6901234571004", 420)


@pytest.fixture(scope="module")
def far_broker() -> Iterator[EmbeddedBroker]:
    with running_broker() as server:
        yield server


@pytest.fixture
async def regions(
    embedded_postgres: EmbeddedPostgres,
    migrated_template: str,
    shared_broker: EmbeddedBroker,
    far_broker: EmbeddedBroker,
    data_dir: Path,
) -> AsyncIterator[Regions]:
    with (
        fresh_database(embedded_postgres, migrated_template) as sunrise,
        fresh_database(embedded_postgres, migrated_template) as harbour,
        running_simulator(data_dir / "provider") as provider,
    ):
        urls = {"sunrise": sunrise, "harbour": harbour}
        brokers = {"sunrise": shared_broker, "harbour": far_broker}
        async with open_regions(data_dir, urls, brokers, provider.url) as running:
            yield running


async def test_each_region_serves_its_own_stores(regions: Regions) -> None:
    async with regions.terminal("south", "gz-tianhe") as south, regions.terminal("east", "sh-pudong") as east:
        await asyncio.gather(south.scan(WATER[0], 3), east.scan(TEA[0], 2))
        stores = regions.wall.stores
        shown = {"gz-tianhe-f1", "sz-futian-f1", "sh-pudong-f1"}
        await until(lambda: shown <= regions.wall.terminals.keys(), "the wall shows all regions")
        paid = await asyncio.gather(south.pay_qr("lin"), east.pay_qr("lin"))
        assert [screen.state for screen in paid] == [ScreenState.PAID] * 2
        assert [screen.gross_fen for screen in paid] == [600, 840]
        await until(lambda: {"gz-tianhe", "sh-pudong"} <= stores.keys(), "both sales on the wall")
        assert [stores[StoreId(one)].sales for one in ("gz-tianhe", "sh-pudong")] == [1, 1]
        assert regions.wall.waiting == ()

        # The money of each is in its own database, and together it is what the provider took.
        sold = {
            region: regions.rows(region, "SELECT store, entity, gross_fen FROM sale") for region in ("south", "east")
        }
        assert sold == {"south": [("gz-tianhe", "chain", 600)], "east": [("sh-pudong", "harbour", 840)]}
        clearing = "SELECT sum(amount_fen)::bigint FROM entry WHERE account = 'provider_clearing:alipay'"
        assert [regions.rows(region, clearing) for region in ("south", "east")] == [[(600,)], [(840,)]]
        async with SimulatorAdmin(regions.plants["south"].provider_url) as admin:
            assert (await admin.books())["net_fen"] == 1440

        # One region's broker dies with a visit under way; the other goes on, and nobody's visit is lost.
        await asyncio.gather(south.open_session(), east.open_session())
        again = await south.scan(WATER[0])
        dead = regions.brokers["sunrise"]
        assert dead.pid is not None
        await asyncio.to_thread(dead.stop)
        await east.scan(TEA[0])
        assert (await east.pay_cash(500)).state is ScreenState.PAID
        assert regions.wall.waiting == ()
        waiting = asyncio.create_task(south.scan(WATER[0]))
        await asyncio.to_thread(dead.start)
        assert (await waiting).session == again.session
        assert (await south.pay_cash(500)).gross_fen == 400
        for region in ("south", "east"):
            assert not regions.rows(region, "SELECT txn FROM entry GROUP BY txn, entity HAVING sum(amount_fen) <> 0")
            assert regions.rows(region, "SELECT count(*) FROM sale") == [(2,)]


async def test_a_chain_knows_its_members_in_every_region_that_shares_its_database(regions: Regions) -> None:
    async with regions.terminal("south", "gz-tianhe") as south, regions.terminal("west", "sz-futian") as west:
        await south.open_session()
        await south.consent("membership")
        member = (await south.enrol("light-10", phone="13800001234", user="lin")).member
        assert member is not None
        await west.open_session()
        await west.agent.request("identify", {"by": "phone", "value": "13800001234"}, session=west.session)
        screen = await west.agent.wait_screen(lambda one: one.session == west.session and one.member is not None, 10.0)
        assert screen.member == member
    async with regions.terminal("east", "sh-pudong") as east:
        await east.open_session()
        await east.agent.request("identify", {"by": "phone", "value": "13800001234"}, session=east.session)
        screen = await east.agent.wait_screen(lambda one: one.session == east.session and one.rev > 1, 10.0)
        assert screen.member is None
