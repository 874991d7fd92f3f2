"""Which plain class becomes which Ray actor, its name, its resources (faces: face_service.py).

Ray is never a record: a killed actor is started again by Ray, reads PostgreSQL and goes on.
"""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import asdict
from datetime import datetime
from typing import Any

import ray
import structlog
from ray.core.generated import autoscaler_pb2

from models.domain.errors import NeedsOperator
from models.tables.layouts import Layout, first_layout, next_layout, slot_states, wanted_dedicated
from runtime import origin
from runtime.metrics import Pusher, push_host, push_rollouts
from runtime.plant import Plant, Providers, connector, open_pool
from runtime.ray_actors import NAMESPACE, actor_options
from runtime.ray_faces import RayFaces
from runtime.ray_hosts import RayHosts, host_name, host_names, rollouts_name, settlement_name
from runtime.ray_metrics import RaySink, SettlementMetrics
from runtime.region_hosts import RegionHosts
from runtime.rollout_databases import Databases
from runtime.rollouts import RolloutDriver, drive
from runtime.settlement import SettlementLimits, SettlementRunner
from runtime.settlement_desk import BY_CLOCK, SettlementDesk
from runtime.slot_host import SlotHost
from runtime.telemetry import configure_logs

log = structlog.get_logger()


def started(calls: Sequence[Any], timeout_s: float) -> None:
    """Wait for the first answers of actors that start. Raises NeedsOperator `actor_not_started` with what one of them
    died of, which Ray tells as a traceback."""
    try:
        ray.get(list(calls), timeout=timeout_s)
    except ray.exceptions.RayActorError as error:
        why = str(error).strip().rpartition("\n")[2]
        why = why.removeprefix("models.domain.errors.").removeprefix("NeedsOperator: ")
        raise NeedsOperator("actor_not_started", why, "put that right and start again") from error


# ---------------------------------------------------------------- settlement


class HostedSettlement:
    """Settles one region of one chain; all regions run in parallel."""

    def __init__(self, plant: Plant) -> None:
        origin.check()
        configure_logs(plant.data_dir, f"settlement-{plant.region}")
        self._pool = open_pool(plant)
        self._providers = Providers(plant)
        pace = SettlementLimits(
            calls_in_flight_max=plant.provider_calls_in_flight_max, calls_per_s_max=plant.provider_calls_per_s_max
        )
        self._runner = SettlementRunner(plant.chain, plant.region, self._pool, self._providers, pace)
        self._desk = SettlementDesk(plant.chain, plant.region, self._pool)
        self._metrics = SettlementMetrics(plant.region)
        self._lock = asyncio.Lock()
        self._opened = False
        self._watching = asyncio.get_running_loop().create_task(self._watch())

    async def run(self, now: datetime, by: str = "") -> dict[str, Any]:
        """Settle what is due at business time `now`; returns the report as plain values."""
        async with self._lock:
            await self._open()
            began = time.monotonic()
            report = await self._desk.run(self._runner, now, by)
            self._metrics.ran(report, (time.monotonic() - began) * 1000)
        return {**asdict(report), "ok": report.ok}

    async def forecast(self, now: datetime) -> dict[str, Any]:
        """What `run` would charge at `now`; nothing changes, nobody is asked."""
        async with self._lock:
            await self._open()
            return asdict(await self._runner.forecast(now))

    async def _open(self) -> None:
        if not self._opened:
            await self._pool.open()
            self._opened = True

    async def _watch(self) -> None:
        async with self._lock:
            await self._open()
        await self._desk.watch(lambda now: self.run(now, BY_CLOCK))


# ---------------------------------------------------------------- rollouts


class HostedRollouts:
    """Drives the rollouts of one chain, in all its regions, from its start on: nobody has to call it."""

    def __init__(self, plants: Sequence[Plant]) -> None:
        origin.check()
        configure_logs(plants[0].data_dir, f"rollouts-{plants[0].chain}")
        hosts = RegionHosts({plant.region: RayHosts(plant) for plant in plants})
        databases = Databases(plants)
        self._driver = RolloutDriver(databases, hosts)
        loop = asyncio.get_running_loop()
        self._driving = loop.create_task(drive(databases, self._driver))
        pusher = Pusher(RaySink(), plants[0].region)
        self._pushing = loop.create_task(push_rollouts(pusher, self._driver.figures.snapshot))

    async def counts(self) -> dict[str, int]:
        """What it did since its process began."""
        return asdict(self._driver.counts)


# ---------------------------------------------------------------- starting them


def start_host(plant: Plant, k: int) -> Any:
    """A slot's host, started or found. It serves once the layout in force has its slot."""
    options = actor_options(plant.region, host_name(plant.region, k), max_concurrency=256)
    return ray.remote(HostedStoreHost).options(**options).remote(plant, k)


class HostedStoreHost(SlotHost):
    """With what only Ray knows: the node it runs on."""

    def __init__(self, plant: Plant, k: int) -> None:
        node = ray.get_runtime_context().get_node_id()
        super().__init__(plant, k, RayFaces(plant.region), node)
        self._pushing = asyncio.get_running_loop().create_task(push_host(Pusher(RaySink(), plant.region), self.health))


def restart_host(name: str) -> None:
    """End a host's process; Ray starts it again, where nodes take actors."""
    ray.kill(ray.get_actor(name, namespace=NAMESPACE), no_restart=False)


def close_node(node_id: str) -> None:
    """Place nothing new on a node, as `ray drain-node` does it; what runs there goes on until it is moved.

    Raises NeedsOperator `node_not_drained`.
    """
    client = ray._raylet.GcsClient(address=ray.get_runtime_context().gcs_address)  # type: ignore[attr-defined]
    reason = autoscaler_pb2.DRAIN_NODE_REASON_PREEMPTION  # type: ignore[attr-defined]
    accepted, why = client.drain_node(node_id, reason, "storeops hosts leave", 0)
    if not accepted:
        raise NeedsOperator("node_not_drained", why or "the engine refused", "see `ray status`")


class Bare:
    """The least that Ray can start again: what a host's restart is measured against."""

    def pid(self) -> int:
        """Its process."""
        return os.getpid()


def start_bare() -> Any:
    """A bare actor, nameless: it ends with whoever started it."""
    return ray.remote(Bare).options(num_cpus=0, max_restarts=-1).remote()


def start_hosts(plant: Plant) -> list[Any]:
    """Every host of the region's layout in force that is not drained, started or found. Repeating it changes nothing.

    A region's first start makes a layout of `plant.slots`; processes of no layout are ended.
    """
    layout, drained = asyncio.run(_layout_at_start(plant))
    handles = [start_host(plant, k) for k in layout.ks if k not in drained]
    end_hosts_beyond(layout)
    return handles


def start_missing_hosts(plant: Plant) -> list[str]:
    """Start what the layout has and nobody runs: a change of layout was killed on its way. Returns the names."""
    layout, drained = asyncio.run(_layout_in_force(plant))
    running = set(running_hosts(plant.region))
    missing = [k for k in layout.ks if k not in drained and host_name(plant.region, k) not in running]
    for k in missing:
        start_host(plant, k)
    return [host_name(plant.region, k) for k in missing]


async def _layout_in_force(plant: Plant) -> tuple[Layout, set[int]]:
    async with await connector(plant)() as conn:
        layout = await first_layout(conn, plant.region, plant.slots)
        return layout, {k for k, state in (await slot_states(conn, layout)).items() if state.drained}


async def _layout_at_start(plant: Plant) -> tuple[Layout, set[int]]:
    """The layout in force, brought in step with the stores that are to be dedicated."""
    layout, drained = await _layout_in_force(plant)
    async with await connector(plant)() as conn:
        wanted = await wanted_dedicated(conn, plant.region)
        if layout.dedicated != tuple(wanted):
            return await next_layout(conn, layout, layout.slots, wanted), set()
    return layout, drained


def running_hosts(region: str) -> list[str]:
    """Names of the region's hosts, of whatever layout."""
    return [name for name in ray.util.list_named_actors() if name.startswith(host_name(region, 0)[:-1])]


def stop_hosts(regions: Sequence[str], timeout_s: float) -> list[Any]:
    """Stop every host of these regions in order, all at once, for so long at most; returns their handles."""
    handles = []
    for name in (name for region in regions for name in running_hosts(region)):
        with suppress(ValueError):
            handles.append(ray.get_actor(name, namespace=NAMESPACE))
    calls: list[Any] = [handle.stop.remote() for handle in handles]
    if calls:
        ray.wait(calls, num_returns=len(calls), timeout=timeout_s)
    return handles


def end_hosts_beyond(layout: Layout) -> list[str]:
    """End processes that the layout does not have: they hold no slot and only wait. Returns their names."""
    names = sorted(set(running_hosts(layout.region)) - set(host_names(layout)))
    for name in names:
        end_host(name)
    return names


def end_host(name: str) -> None:
    """End a host's process for good, if there is one."""
    with suppress(ValueError):
        ray.kill(ray.get_actor(name, namespace=NAMESPACE), no_restart=True)


def start_settlement(plant: Plant) -> Any:
    """A region's settlement actor, started or found."""
    options = actor_options(plant.region, settlement_name(plant.chain, plant.region), max_concurrency=4)
    return ray.remote(HostedSettlement).options(**options).remote(plant)


def start_rollouts(plants: Sequence[Plant]) -> list[Any]:
    """One actor for each chain, started or found; placed in the first region, whose database is the rollouts' home."""
    handles = []
    for chain in dict.fromkeys(plant.chain for plant in plants):
        theirs = [plant for plant in plants if plant.chain == chain]
        options = actor_options(theirs[0].region, rollouts_name(chain), max_concurrency=4)
        handles.append(ray.remote(HostedRollouts).options(**options).remote(theirs))
    return handles
