"""Nodes that are lost, frozen or drained: a cluster of several raylets on this machine, its health check tuned.

`python -m runtime.bench.nodes FOLDER` prints one JSON object: seconds until a lost node's stores are served elsewhere.
"""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import psutil
import ray
from ray._common.utils import get_ray_address_file
from ray._private.utils import read_ray_address
from ray.cluster_utils import Cluster

from models.domain.ids import StoreId, shard_of
from runtime import hosting, layouts
from runtime.bench.asker import Asker
from runtime.bench.failures import Thaw, bare_restart_s, host_thawed, hosts_killed, rows, watch_thaw
from runtime.bench.form import Row, row
from runtime.bench.yard import Yard, open_yard
from runtime.plant import Plant, write_plants
from runtime.ray_actors import NAMESPACE
from runtime.telemetry import configure_logs

HEALTH_CHECK = {
    "health_check_initial_delay_ms": 1000,
    "health_check_period_ms": 500,
    "health_check_timeout_ms": 1000,
    "health_check_failure_threshold": 3,
}
"""A node that does not answer is given up after 1.5 s (its process is gone) to 4.5 s (it is frozen)."""
STORES = 20
STEPS = 4
KILLS, KILLS_OF_A_TRIAL, FULL_RUN_S = 50, 5, 60.0
BARE_RESTARTS = 3
OBJECT_STORE_BYTES = 80 * 1024 * 1024
READY_S_MAX = 60.0
FOUND_DEAD_S_MAX = 30.0
LOOK_EVERY_S = 0.02


@dataclass(frozen=True, slots=True)
class Loss:
    """`served_s`: from the loss to the reply of a question asked after it; `found_s`: until the engine knew."""

    served_s: float
    found_s: float
    lost: int
    doubled: int


class Nodes:
    """A head without hosts, and nodes that may have them."""

    def __init__(self, yard: Yard, nodes: int) -> None:
        self.plant: Plant = yard.plant
        self.stores = yard.stores
        self._size = nodes
        self._temp = tempfile.mkdtemp(prefix="so-ray-")
        self._cluster: Any = None
        self._workers: list[Any] = []

    def start(self) -> None:
        """Raylets, then the region's hosts on them."""
        head = {"num_cpus": 1, "_system_config": HEALTH_CHECK, "include_dashboard": False}
        self._cluster = Cluster(
            initialize_head=True,
            head_node_args={**head, "object_store_memory": OBJECT_STORE_BYTES, "temp_dir": self._temp},
            shutdown_at_exit=False,
        )
        ray.init(address=self._cluster.address, namespace=NAMESPACE, log_to_driver=False, configure_logging=False)
        for _ in range(self._size):
            self.add()
        handles = hosting.start_hosts(self.plant)
        ray.get([handle.serving.remote() for handle in handles], timeout=READY_S_MAX)

    def add(self) -> None:
        """One more node of the region."""
        resources = {f"region:{self.plant.region}": 1}
        node = self._cluster.add_node(num_cpus=1, resources=resources, object_store_memory=OBJECT_STORE_BYTES)
        self._workers.append(node)

    def of(self, node_id: str) -> list[psutil.Process]:
        """The raylet of a node and everything under it."""
        [node] = [one for one in self._workers if one.node_id == node_id]
        raylet = psutil.Process(node.all_processes["raylet"][0].process.pid)
        return [raylet, *raylet.children(recursive=True)]

    def stop(self) -> None:
        """Everything."""
        ray.shutdown()
        nodes = (*self._workers, self._cluster.head_node) if self._cluster is not None else ()
        for node in nodes:
            node.kill_all_processes(check_alive=False, allow_graceful=False)
        if self._cluster is not None and read_ray_address() == self._cluster.address:
            # The cluster's helper leaves its address for whoever looks for an engine on this machine.
            Path(get_ray_address_file(None)).unlink(missing_ok=True)
        shutil.rmtree(self._temp, ignore_errors=True)


@contextmanager
def open_nodes(folder: Path, nodes: int = 2, slots: int = 1) -> Iterator[Nodes]:
    """A region of so many slots on so many nodes."""
    with open_yard(folder, STORES) as yard:
        plant = replace(yard.plant, slots=slots)
        write_plants(plant.data_dir / "secrets", [plant])
        opened = Nodes(Yard(yard.folder, plant, yard.stores), nodes)
        try:
            opened.start()
            yield opened
        finally:
            opened.stop()


async def node_of(plant: Plant, k: int = 0) -> tuple[str, int]:
    """The node and the process of a slot's host."""
    row = (await layouts.snapshot(plant))["hosts"][k]
    return str(row["node"]), int(row["pid"])


def found_dead_s(node_id: str, since: float) -> float:
    """Seconds from `since` until the engine gives the node up."""
    while time.monotonic() - since < FOUND_DEAD_S_MAX:
        if not any(node["Alive"] for node in ray.nodes() if node["NodeID"] == node_id):  # type: ignore[no-untyped-call]
            break
        time.sleep(LOOK_EVERY_S)
    return time.monotonic() - since


async def node_lost(nodes: Nodes, rate_hz: float = 50.0) -> Loss:
    """SIGKILL to everything of the node that has slot 0, under load."""
    async with Asker(nodes.plant, _served_by_0(nodes)).open() as asker:
        await asker.ask()
        async with asker.asking(rate_hz):
            node, _ = await node_of(nodes.plant)
            for process in nodes.of(node):
                process.kill()
            lost_at = time.monotonic()
            finding = asyncio.create_task(asyncio.to_thread(found_dead_s, node, lost_at))
            question = await asker.ask()
            found_s = await finding
        held = await asker.rows()
    return Loss(question.answered_at - lost_at, found_s, max(0, asker.asked - held), max(0, held - asker.asked))


async def node_frozen(nodes: Nodes, rate_hz: float = 50.0) -> tuple[Loss, Thaw]:
    """SIGSTOP to everything of the node that has slot 0, until it is served elsewhere; then SIGCONT."""
    async with Asker(nodes.plant, _served_by_0(nodes)).open() as asker:
        await asker.ask()
        node, pid = await node_of(nodes.plant)
        family = nodes.of(node)
        try:
            async with asker.asking(rate_hz):
                for process in family:
                    process.suspend()
                frozen_at = time.monotonic()
                finding = asyncio.create_task(asyncio.to_thread(found_dead_s, node, frozen_at))
                question = await asker.ask()
                found_s = await finding
            held = await asker.rows()
            loss = Loss(
                question.answered_at - frozen_at, found_s, max(0, asker.asked - held), max(0, held - asker.asked)
            )
            # The successor is drained: whatever moves from here on is the thawed host's doing.
            await layouts.drain(nodes.plant, None)
        finally:
            thaw = await watch_thaw(nodes.plant, asker, psutil.Process(pid), family)
        await layouts.resume(nodes.plant)
        await asker.ask()
    return loss, thaw


async def node_drained(nodes: Nodes) -> float:
    """Move slot 0 off its node in order; the longest that a question waited, in seconds."""
    async with Asker(nodes.plant, _served_by_0(nodes)).open() as asker:
        await asker.ask()
        node, _ = await node_of(nodes.plant)
        async with asker.asking(50.0):
            await layouts.leave_node(nodes.plant, node)
        moved, _ = await node_of(nodes.plant)
        assert moved != node, "the host is where it was"
        return asker.longest_s


def _served_by_0(nodes: Nodes) -> Sequence[StoreId]:
    return [store for store in nodes.stores if shard_of(store) % nodes.plant.slots == 0][:2]


def measure(seconds: float, advance: Callable[[str], None]) -> list[Row]:
    """Rows of `storeops bench runtime`, about five minutes: STEPS calls of `advance`; with fewer seconds, fewer kills.

    Raises what a part raises that does not come up.
    """
    kills = KILLS if seconds >= FULL_RUN_S else KILLS_OF_A_TRIAL
    folder = Path(tempfile.mkdtemp(prefix="so-nodes-"))
    folder.chmod(0o755)  # the servers' user passes through it when root starts them
    try:
        advance("raylets")
        with open_nodes(folder) as nodes:
            stores = _served_by_0(nodes)
            advance("hosts killed")
            bare_s = statistics.median(bare_restart_s() for _ in range(BARE_RESTARTS))
            killed = asyncio.run(hosts_killed(nodes.plant, stores, kills))
            advance("a host frozen")
            thaw = asyncio.run(host_thawed(nodes.plant, stores))
            advance("a node lost")
            lost = asyncio.run(node_lost(nodes))
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    found = "the engine gives the node up"
    elsewhere = row("node lost: served elsewhere", lost.served_s, "s", found, lost.found_s, "<= 8")
    return [*rows(killed, thaw, bare_s), elsewhere]


def main() -> None:
    """All three, one after another."""
    configure_logs()
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    os.environ.setdefault("RAY_worker_niceness", "0")  # as a house does
    found: dict[str, Any] = {}
    with open_nodes(Path(sys.argv[1])) as nodes:
        found["drained_longest_s"] = asyncio.run(node_drained(nodes))
        nodes.add()
        loss, thaw = asyncio.run(node_frozen(nodes))
        found["frozen"], found["thawed"] = asdict(loss), asdict(thaw)
        nodes.add()
        found["lost"] = asdict(asyncio.run(node_lost(nodes)))
    sys.stdout.write(json.dumps(found) + "\n")


if __name__ == "__main__":
    main()
