"""`python -m tests.integration.engine_probe DATA`: a name per line on stdin, a JSON object per line on stdout."""

from __future__ import annotations

import asyncio
import json
import sys
from pathlib import Path
from typing import Any

import ray

from models.domain.errors import StoreOpsError
from runtime.edge import join_ray
from runtime.hosting import face_worker_name
from runtime.plant import Plant, read_plant
from runtime.ray_hosts import NAMESPACE, RayHosts

ANSWER_S_MAX = 5.0


async def _ask(plant: Plant, hosts: RayHosts, name: str) -> dict[str, Any]:
    async with asyncio.timeout(ANSWER_S_MAX):
        if name == "host":
            return dict(await hosts.health(plant.region, 0))
        worker = ray.get_actor(face_worker_name(plant.region, 0), namespace=NAMESPACE)
        return dict(await worker.health.remote())


async def _serve(plant: Plant) -> None:
    hosts = RayHosts(plant)
    while line := (await asyncio.to_thread(sys.stdin.readline)).strip():
        try:
            answer = await _ask(plant, hosts, line)
        except (StoreOpsError, ray.exceptions.RayError, TimeoutError, ValueError) as error:
            answer = {"error": f"{type(error).__name__}: {error}"}
        sys.stdout.write(json.dumps(answer) + "\n")
        sys.stdout.flush()


if __name__ == "__main__":
    running = read_plant(Path(sys.argv[1]))
    join_ray(running)
    asyncio.run(_serve(running))
