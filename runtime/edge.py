"""The gateway's process: it listens at once, then loads its app, and joins the database and Ray when they are there.

`python -m runtime.edge serve-gateway DATA SETTINGS`: started by `up`, as is the provider's simulator by
`provider-sim DATA PORT`. What is imported here at the top is what the first page of the console waits for; everything
else is imported where it is used.
"""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from gateway.doorway import Doorway, Loaded, serve
from gateway.settings import GatewaySettings
from gateway.startup import startup_from_file
from models.domain.errors import NeedsOperator
from runtime import origin

if TYPE_CHECKING:
    from gateway.edge import Edge, Settle
    from runtime.plant import Plant
    from runtime.region_hosts import RegionHosts

VERB = "serve-gateway"
PROVIDER_VERB = "provider-sim"
LOOK_EVERY_S = 0.2


def gateway_argv(data_dir: Path, settings: GatewaySettings) -> tuple[str, ...]:
    """How `up` starts this process."""
    return (sys.executable, "-m", "runtime.edge", VERB, str(data_dir), msgspec.json.encode(settings).decode())


def provider_argv(data_dir: Path, port: int) -> tuple[str, ...]:
    """How `up` starts the payment provider's simulator: `storeops provider-sim` without the command line's imports."""
    return (sys.executable, "-m", "runtime.edge", PROVIDER_VERB, str(data_dir), str(port))


def main() -> None:
    """Serve until SIGTERM."""
    origin.check()
    verb, data, values = sys.argv[1:]
    if verb == PROVIDER_VERB:
        from gateway.providers.simulator import run_simulator
        from runtime.ports import LOOPBACK
        from runtime.telemetry import configure_logs

        configure_logs()
        run_simulator(LOOPBACK, int(values), Path(data))
        return
    assert verb == VERB, verb
    serve_gateway(Path(data), msgspec.json.decode(values, type=GatewaySettings))


def serve_gateway(data_dir: Path, settings: GatewaySettings) -> None:
    """Serve the console and the API of the house that runs on `data_dir`, until SIGTERM."""
    startup = startup_from_file(data_dir / "startup.json")

    def load() -> Loaded:
        from gateway.app import create_app
        from runtime.telemetry import configure_logs

        configure_logs(data_dir, "gateway")
        return create_app(settings, startup=startup, connect=connect)

    async def connect(edge: Edge) -> None:
        await join(edge, data_dir)

    doorway = Doorway(settings, startup, load)
    serve(doorway, settings, doorway.close)


async def join(edge: Edge, data_dir: Path) -> None:
    """Give the edge its database and hosts as soon as the house has them."""
    plants = await _plants_when_there(data_dir)
    from sqlalchemy.ext.asyncio import create_async_engine

    from runtime.postgres import sqlalchemy_url

    engines = {
        url: create_async_engine(sqlalchemy_url(url), pool_size=5, pool_pre_ping=True)
        for url in dict.fromkeys(plant.database_url for plant in plants)
    }
    edge.database = engines[plants[0].database_url]
    edge.metrics_token, edge.dashboard_token = await asyncio.to_thread(_tokens, data_dir, plants[0])
    edge.databases = {plant.region: engines[plant.database_url] for plant in plants}
    edge.hosts = await asyncio.to_thread(_hosts_of, plants)
    from runtime.ray_faces import face_workers

    edge.face_desks = face_workers
    edge.settle = _settle_of({plant.region: plant for plant in plants})
    from runtime.credentials import Credentials

    credentials = await asyncio.to_thread(Credentials, plants)
    edge.enrols = credentials
    edge.images = data_dir / "images"
    from runtime.provider_desk import ProvidersOfAHouse

    edge.providers = await asyncio.to_thread(ProvidersOfAHouse, plants)
    from runtime.membership_desk import MembershipsOfAHouse

    edge.memberships = MembershipsOfAHouse(plants)
    from runtime.member_money_desk import MemberMoneyOfAHouse

    edge.member_money = MemberMoneyOfAHouse(plants)
    from runtime.drawer_desk import DrawersOfAHouse

    edge.drawers = DrawersOfAHouse(plants)
    from runtime.kill_switches import KillSwitchesOfAHouse

    edge.kill_switches = KillSwitchesOfAHouse(plants)
    from runtime.liveness_keys import LivenessKeysOfAHouse

    edge.liveness_keys = LivenessKeysOfAHouse(plants)
    from runtime.rollout_desks import RolloutsOfAHouse

    edge.rollouts = rollouts = RolloutsOfAHouse(plants)
    from runtime.price_desk import PricesOfAHouse

    edge.prices = PricesOfAHouse(plants)
    from runtime.privacy_desk import desk_of

    desk = await asyncio.to_thread(desk_of, plants)
    edge.privacy = desk
    from runtime.settlement_desk import SettlementsOfAHouse

    edge.settlements = SettlementsOfAHouse(plants, _forecast)
    from runtime.daily_statements import DailyStatements
    from runtime.reconciliation_desk import ReconciliationDesk

    edge.reconciliation = reconciliation = ReconciliationDesk(plants)
    from runtime.points_expiry import PointsExpiry

    duties = (DailyStatements(plants, reconciliation), PointsExpiry(plants))
    try:
        await asyncio.gather(credentials.watch(), desk.watch(), *(duty.watch() for duty in duties))
    finally:
        await rollouts.close()


def _tokens(data_dir: Path, plant: Plant) -> tuple[str, str]:
    """Prometheus' own, and that of Ray's dashboard."""
    from runtime.datadir import open_data_dir

    dashboard = Path(plant.ray_token_path).read_text(encoding="utf-8").strip()
    return open_data_dir(data_dir, create=False).secret("metrics-token"), dashboard


def _hosts_of(plants: Sequence[Plant]) -> RegionHosts:
    """In a thread: joining takes seconds, and pages are served meanwhile."""
    join_ray(plants[0])
    from runtime.ray_hosts import RayHosts
    from runtime.region_hosts import RegionHosts

    return RegionHosts({plant.region: RayHosts(plant) for plant in plants})


async def _plants_when_there(data_dir: Path) -> tuple[Plant, ...]:
    from runtime.plant import read_plants

    while True:
        try:
            return read_plants(data_dir)
        except NeedsOperator:
            await asyncio.sleep(LOOK_EVERY_S)


def join_ray(plant: Plant) -> None:
    """Join the engine that `up` started, with its token; nothing happens when this process is in it already.

    Call it before anything imports ray: it reads the kind of authentication when it is imported.
    """
    os.environ["RAY_AUTH_MODE"] = "token"
    os.environ["RAY_AUTH_TOKEN_PATH"] = plant.ray_token_path
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    import ray

    if ray.is_initialized():
        return
    ray.init(address=plant.ray_address, namespace="storeops", log_to_driver=False, configure_logging=False)


async def _forecast(plant: Plant) -> Mapping[str, object]:
    from runtime.administration import forecast_regions

    found: Mapping[str, object] = (await forecast_regions([plant], None))["regions"][0]
    return found


def _settle_of(plants: Mapping[str, Plant]) -> Settle:
    async def settle(region: str) -> Mapping[str, int | str]:
        from psycopg_pool import AsyncConnectionPool

        from runtime.clock import business_now
        from runtime.ray_hosts import settlement_actor

        plant = plants[region]
        pool = AsyncConnectionPool(plant.database_url, min_size=1, max_size=1, open=False)
        async with pool:
            now = await business_now(pool)
        report = await settlement_actor(plant.chain, plant.region).run.remote(now)
        return {name: value for name, value in report.items() if isinstance(value, int | str)}

    return settle


if __name__ == "__main__":
    main()
