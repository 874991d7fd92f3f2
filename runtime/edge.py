"""The gateway's process: it listens at once, and joins the database and Ray when they are there."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Mapping
from pathlib import Path

import structlog
from psycopg_pool import AsyncConnectionPool
from sqlalchemy.ext.asyncio import create_async_engine

from gateway.app import run_gateway
from gateway.edge import Edge, Settle
from gateway.settings import GatewaySettings
from gateway.startup import startup_from_file
from models.domain.errors import NeedsOperator
from runtime.clock import business_now
from runtime.plant import Plant, read_plant
from runtime.postgres import sqlalchemy_url
from runtime.telemetry import configure_logs

log = structlog.get_logger()

LOOK_EVERY_S = 0.2


def serve(data_dir: Path, settings: GatewaySettings) -> None:
    """Serve until SIGTERM."""
    configure_logs(data_dir, "gateway")

    async def connect(edge: Edge) -> None:
        plant = await _plant_when_there(data_dir)
        edge.database = create_async_engine(sqlalchemy_url(plant.database_url), pool_size=5, pool_pre_ping=True)
        await asyncio.to_thread(join_ray, plant)
        from runtime.hosting import RayHosts

        edge.hosts = RayHosts(plant.slots)
        edge.settle = _settle_of(plant)

    run_gateway(settings, startup=startup_from_file(data_dir / "startup.json"), connect=connect)


async def _plant_when_there(data_dir: Path) -> Plant:
    while True:
        try:
            return read_plant(data_dir)
        except NeedsOperator:
            await asyncio.sleep(LOOK_EVERY_S)


def join_ray(plant: Plant) -> None:
    """Join the engine that `up` started, with its token."""
    os.environ["RAY_AUTH_MODE"] = "token"
    os.environ["RAY_AUTH_TOKEN_PATH"] = plant.ray_token_path
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    import ray

    ray.init(address=plant.ray_address, namespace="storeops", log_to_driver=False, configure_logging=False)


def _settle_of(plant: Plant) -> Settle:
    async def settle() -> Mapping[str, int | str]:
        from runtime.hosting import settlement_actor

        pool = AsyncConnectionPool(plant.database_url, min_size=1, max_size=1, open=False)
        async with pool:
            now = await business_now(pool)
        report = await settlement_actor(plant.chain, plant.region).run.remote(now)
        return {name: value for name, value in report.items() if isinstance(value, int | str)}

    return settle
