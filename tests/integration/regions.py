"""Three regions in one process: hosts as Ray runs them, over real databases and brokers, without Ray.

`south` and `west` are the chain `sunrise` in one database and on one broker; `east` is the chain `harbour` in another
database and on another broker.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import psycopg
import yaml

from actors.hosts import Delivered, Delivery
from devices.agent_config import AgentConfig
from devices.simulator import ProviderUsers, SimulatedTerminal
from gateway.live import Wall
from gateway.settings import GatewaySettings, ServedRegion
from models.domain.ids import RegionId, StoreId, TerminalId
from models.domain.live import Changes
from models.domain.recognition import (
    ConsentToken,
    EnrolConsent,
    EnrolRequest,
    FaceAnswer,
    IdentifyRequest,
    RescoreRequest,
    ShotRequest,
)
from runtime.broker import EmbeddedBroker
from runtime.chains import demo_secret, terminals_of
from runtime.datadir import open_data_dir
from runtime.deployment import Place, places_of
from runtime.furnish import furnish, plants_of
from runtime.plant import Plant
from runtime.region_hosts import RegionHosts
from runtime.servers import Brokers, Databases
from runtime.settings import CONFIGS, load_settings
from runtime.slot_host import SlotHost
from runtime.telemetry import configure_logs

KEY = "terminals of this test"
PATIENCE_S = 45.0


class NoFaces:
    """Nobody shows a face here. Implements `runtime.asks.FaceService`."""

    async def identify(self, request: IdentifyRequest, consent: ConsentToken) -> FaceAnswer:
        raise AssertionError(request)

    async def rescore(self, request: RescoreRequest, consent: ConsentToken) -> FaceAnswer:
        raise AssertionError(request)

    async def shoot(self, request: ShotRequest, consent: EnrolConsent) -> FaceAnswer:
        raise AssertionError(request)

    async def enrol(self, request: EnrolRequest, consent: EnrolConsent) -> FaceAnswer:
        raise AssertionError(request)


class OneHost:
    """The Hosts port of a region with one host in this process."""

    def __init__(self, host: SlotHost) -> None:
        self._host = host

    async def deliver(self, region: RegionId, batch: Sequence[Delivery]) -> list[Delivered]:
        return await self._host.deliver(batch)

    async def changes(self, region: RegionId, slot: int, epoch: int, since: int) -> Changes:
        return await self._host.changes(epoch, since)

    async def screen(self, region: RegionId, terminal: TerminalId, session: str, rev: int) -> bytes:
        return await self._host.screen(terminal, session, rev)

    async def slots(self, region: RegionId) -> int:
        return 1

    async def health(self, region: RegionId, slot: int) -> Mapping[str, object]:
        return await self._host.health()


@dataclass
class Regions:
    """What runs."""

    plants: Mapping[str, Plant]
    brokers: Mapping[str, EmbeddedBroker]
    hosts: Mapping[str, SlotHost]
    wall: Wall
    folder: Path

    def rows(self, region: str, query: str, *values: object) -> list[tuple[Any, ...]]:
        """What a region's database says."""
        with psycopg.connect(self.plants[region].database_url, autocommit=True) as conn:
            return conn.execute(query.encode(), values).fetchall()

    @asynccontextmanager
    async def terminal(self, region: str, store: str, suffix: str = "f1") -> AsyncIterator[SimulatedTerminal]:
        """One registered terminal, connected, with its desired document."""
        plant, name = self.plants[region], f"{store}-{suffix}"
        config = AgentConfig(
            host=plant.broker_host,
            port=plant.broker_port,
            region=plant.region,
            store=StoreId(store),
            terminal=TerminalId(name),
            profile="dragonfly-2",
            secret=demo_secret(KEY, name),
            outbox_path=self.folder / f"{name}.sqlite",
            resend_first_s=0.5,
            reconnect_s_min=0.1,
            reconnect_s_max=0.3,
        )
        async with httpx.AsyncClient(timeout=30.0, trust_env=False) as http:
            terminal = SimulatedTerminal.of(config, ProviderUsers(http, plant.provider_url))
            await terminal.agent.start(PATIENCE_S)
            try:
                await until(lambda: bool(terminal.agent.desired), f"the desired document of {name}")
                yield terminal
            finally:
                await terminal.agent.stop()


async def until(holds: Callable[[], bool], what: str) -> None:
    """Look again and again. Raises AssertionError after PATIENCE_S."""
    deadline = time.monotonic() + PATIENCE_S
    while not holds():
        assert time.monotonic() < deadline, f"not within {PATIENCE_S} s: {what}"
        await asyncio.sleep(0.02)


def write_settings(folder: Path, urls: Mapping[str, str], brokers: Mapping[str, str]) -> Path:
    """A settings file of the three regions, and its chain's file with one store in `west`."""
    chain = yaml.safe_load((CONFIGS / "chains" / "demo.yaml").read_text(encoding="utf-8"))
    chain["stores"] = [store for store in chain["stores"] if store["id"] in {"gz-tianhe", "sz-futian"}]
    for store, region in zip(chain["stores"], ("south", "west"), strict=True):
        store["region"] = region
    (folder / "sunrise.yaml").write_text(yaml.safe_dump(chain, allow_unicode=True), encoding="utf-8")

    def described(chain_file: str, place: str) -> dict[str, Any]:
        return {"chain": chain_file, "database": {"url": urls[place]}, "broker": brokers[place]}

    regions = {
        "south": described("sunrise.yaml", "sunrise"),
        "west": described("sunrise.yaml", "sunrise"),
        "east": described("harbour.yaml", "harbour"),
    }
    path = folder / "regions.yaml"
    path.write_text(yaml.safe_dump({"regions": regions}), encoding="utf-8")
    return path


@asynccontextmanager
async def open_regions(
    folder: Path, urls: Mapping[str, str], brokers: Mapping[str, EmbeddedBroker], provider_url: str
) -> AsyncIterator[Regions]:
    """Furnished as `up` does it, each region with one host, and a wall that follows all of them."""
    settings = load_settings(
        write_settings(folder, urls, {name: broker.info.url for name, broker in brokers.items()}), {}, {}
    )
    data, places = open_data_dir(folder), places_of(settings)
    servers = Brokers(data, settings.broker, places)
    servers.start({})
    for place in places:
        _let_in(brokers["harbour" if place.name == "east" else "sunrise"], place)
    found = Databases(data, places, "this-test").start()
    accounts = await furnish(data, places, found, provider_url=provider_url, may_jump=False, key=KEY)
    everywhere = Plant(data.root, provider_url=provider_url, pepper=b"pepper")
    plants = {str(plant.region): plant for plant in plants_of(everywhere, places, found, servers, accounts)}
    hosts = {region: SlotHost(plant, 0, NoFaces(), "here") for region, plant in plants.items()}
    served = tuple(ServedRegion(place.name, place.chain, place.slots) for place in places)
    port = RegionHosts({RegionId(region): OneHost(host) for region, host in hosts.items()})
    wall = Wall(GatewaySettings(regions=served, stream_frame_s=0.01), lambda: port)
    following = asyncio.create_task(wall.follow())
    try:
        assert [await host.ready() for host in hosts.values()] == ["serving"] * 3
        yield Regions(plants, brokers, hosts, wall, folder)
    finally:
        following.cancel()
        await asyncio.gather(following, *(host.stop() for host in hosts.values()), return_exceptions=True)
        configure_logs()  # the hosts' files are closed


def _let_in(broker: EmbeddedBroker, place: Place) -> None:
    assert place.doc is not None
    broker.add_users({one.terminal: one.secret for one in terminals_of(place.doc, KEY)})
