"""`python -m tests.integration.engine_probe DATA`: a line of words on stdin, a JSON object per line on stdout.

`host`, `faces`: a snapshot. `snapshot`, `resize 3`, `dedicate STORE`, `undedicate STORE`, `drain 0`, `resume`: as
`storeops hosts` does it. `resize 3 aborted 2`: given up at its second step, or before its `commit`;
`resize 3 killed 2`: this process is killed there. `software TERMINAL VERSION`: what `storeops terminal desired` does;
`activate TERMINAL VERSION`: the command, and what became of it.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import sys
from pathlib import Path
from typing import Any, TextIO

import ray

from models.domain.errors import Refused, StoreOpsError
from models.domain.ids import StoreId
from models.tables import layouts as tables
from runtime import commands, layouts
from runtime.edge import join_ray
from runtime.images import Images
from runtime.plant import Plant, read_plant
from runtime.ray_actors import NAMESPACE
from runtime.ray_faces import face_worker_name
from runtime.ray_hosts import RayHosts
from runtime.telemetry import configure_logs

ANSWER_S_MAX = 5.0


async def _ask(plant: Plant, hosts: RayHosts, name: str) -> dict[str, Any]:
    async with asyncio.timeout(ANSWER_S_MAX):
        if name == "host":
            return dict(await hosts.health(plant.region, 0))
        if name == "metrics":
            [node, *_] = [one for one in ray.nodes() if one["Alive"]]  # type: ignore[no-untyped-call]
            return {"url": f"http://{node['NodeManagerAddress']}:{node['MetricsExportPort']}/metrics"}
        worker = ray.get_actor(face_worker_name(plant.region, 0), namespace=NAMESPACE)
        return dict(await worker.health.remote())


async def _software(plant: Plant, verb: str, terminal: str, version: str) -> dict[str, Any]:
    if verb == "activate":
        asked = commands.new_command("activate", [f"version={version}"], 20)
        row = await commands.command(plant, terminal, asked)
        return {"status": row["status"], "detail": row["detail"]}
    images = Images([plant])
    wanted = commands.Change(software=images.release(await images.find(version)))
    try:
        result = (await commands.set_desired(plant, [terminal], wanted))[terminal]
    except Refused as refused:
        return {"ok": False, "code": refused.code}
    return {"ok": result.ok, "code": result.code}


async def _change(plant: Plant, verb: str, value: str) -> dict[str, Any]:
    if verb in {"software", "activate"}:
        return await _software(plant, verb, *value.split(" ", 1))
    if verb == "snapshot":
        return await layouts.snapshot(plant)
    if verb == "resize":
        slots, *how = value.split()
        return await (_interrupted(plant, int(slots), *how) if how else layouts.resize(plant, int(slots)))
    if verb == "drain":
        return await layouts.drain(plant, None if value == "all" else [int(value)])
    if verb == "resume":
        return await layouts.resume(plant)
    return await layouts.dedicate(plant, StoreId(value), verb == "dedicate")


class _Aborted(BaseException):
    """No handler of the change may see this, as none sees a SIGKILL."""


async def _interrupted(plant: Plant, slots: int, how: str, where: str) -> dict[str, Any]:
    steps: list[str] = []

    def say(line: str) -> None:
        steps.append(line)
        if str(len(steps)) == where:
            if how == "killed":
                os.kill(os.getpid(), signal.SIGKILL)
            raise _Aborted

    async def dies(*_: Any) -> Any:
        raise _Aborted

    commit = tables.next_layout
    if where == "commit":
        tables.next_layout = dies  # type: ignore[assignment]
    try:
        await layouts.resize(plant, slots, say)
    except _Aborted:
        return {"aborted": where, "steps": steps}
    finally:
        tables.next_layout = commit
    raise AssertionError(steps)


async def _serve(plant: Plant, answers: TextIO) -> None:
    hosts = RayHosts(plant)
    while line := (await asyncio.to_thread(sys.stdin.readline)).strip():
        try:
            verb, _, value = line.partition(" ")
            asks = verb in {"host", "faces", "metrics"}
            answer = await _ask(plant, hosts, verb) if asks else await _change(plant, verb, value)
        except (StoreOpsError, ray.exceptions.RayError, TimeoutError, ValueError) as error:
            answer = {"error": f"{type(error).__name__}: {error}"}
        answers.write(json.dumps(answer) + "\n")
        answers.flush()


if __name__ == "__main__":
    running = read_plant(Path(sys.argv[1]))
    configure_logs()  # to standard error: standard output has answers only
    join_ray(running)
    with contextlib.redirect_stdout(sys.stderr):  # where the engine's client prints what it notices
        asyncio.run(_serve(running, sys.__stdout__ or sys.stdout))
