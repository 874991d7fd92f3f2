"""`python -m tests.integration.face_crowd DATA`: a face desk of its own in a running house, and a crowd before it.

Prints one JSON object: what a storm, a worker killed under a burst, a desk killed, and quiet afterwards did to it.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import json
import os
import pickle
import signal
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import ray

from models.domain.errors import RetryLater
from models.domain.events import Purpose
from models.domain.face_quality import FaceKind
from models.domain.ids import ChainId, MessageId, RegionId, SessionId, StoreId
from models.domain.recognition import ConsentToken, IdentifyRequest
from runtime.edge import join_ray
from runtime.face_service import running_face_workers, start_faces
from runtime.plant import Plant, read_plant
from runtime.ray_actors import NAMESPACE
from runtime.ray_faces import Cover, RayFaces, face_desk_name, face_worker_name, face_workers, in_pieces
from runtime.telemetry import configure_logs

REGION = RegionId("crowd")
READY_S_MAX = 60.0
IDLE_S = 2.0
STORM, STORM_EVERY_S, STORM_S = 40, 0.1, 1.5
BURST = 60
STORM_ANSWER_S = 1.5


def picture() -> bytes:
    """A frame without a face: the detector looks at it all the same."""
    noise = np.random.default_rng(11).integers(90, 170, (360, 640, 3), dtype=np.uint8)
    done, encoded = cv2.imencode(".jpg", cv2.GaussianBlur(noise, (9, 9), 0))
    assert done
    return encoded.tobytes()


@dataclass
class Crowd:
    """Asks, and keeps what came back: one entry for each answer."""

    plant: Plant
    jpeg: bytes = field(default_factory=picture)
    numbers: Iterable[int] = field(default_factory=itertools.count)
    hosts: dict[float, RayFaces] = field(default_factory=dict)
    """By patience."""

    def faces(self, answer_s: float) -> RayFaces:
        return self.hosts.setdefault(answer_s, RayFaces(REGION, answer_s))

    def question(self, store: str) -> tuple[IdentifyRequest, ConsentToken]:
        n = next(iter(self.numbers))
        visit, chain = SessionId(f"v{n}"), ChainId(self.plant.chain)
        request = IdentifyRequest(visit, f"q{n}", chain, StoreId(store), self.jpeg, FaceKind.FRAME, b"k" * 32)
        return request, ConsentToken(Purpose.RECOGNISE, visit, MessageId("m"))

    async def between_machines(self) -> list[str]:
        """As a host on another machine asks the desk, and a desk on another machine a worker: over Ray."""
        request, token = self.question("away")
        cover = Cover("identify", request.question, request.session, request.store, 2.8)
        pieces = in_pieces(pickle.dumps(("identify", request, token)))
        desk: Any = ray.get_actor(face_desk_name(REGION), namespace=NAMESPACE)
        worker: Any = ray.get_actor(face_worker_name(REGION, 0), namespace=NAMESPACE)
        said = [await desk.ask.remote(cover.packed(), *pieces), await worker.ask.remote(*pieces)]
        return [str(pickle.loads(one).outcome) for one in said]

    async def ask(self, store: str, answer_s: float, heard: list[tuple[str, str, float]]) -> None:
        began = time.monotonic()
        request, token = self.question(store)
        answer = await self.faces(answer_s).identify(request, token)
        assert answer.question == request.question
        heard.append((store, str(answer.outcome), time.monotonic() - began))

    async def storm(self) -> dict[str, Any]:
        """One store asks without end, another one now and then.

        `late_s`: how late this process itself was woken at worst, which its answers' times contain.
        """
        heard: list[tuple[str, str, float]] = []
        late_s = 0.0
        async with asyncio.TaskGroup() as group:
            for n in range(round(STORM_S / STORM_EVERY_S)):
                for _ in range(STORM):
                    group.create_task(self.ask("storm", STORM_ANSWER_S, heard))
                if n % 2:
                    group.create_task(self.ask("quiet", STORM_ANSWER_S, heard))
                slept = time.monotonic()
                await asyncio.sleep(STORM_EVERY_S)
                late_s = max(late_s, time.monotonic() - slept - STORM_EVERY_S)
        return told(heard) | {"late_s": round(late_s, 3)}

    async def burst(self, strike: Callable[[], None]) -> dict[str, Any]:
        """Four stores at once; in the middle something is struck. Who was frozen before has questions of it then."""
        heard: list[tuple[str, str, float]] = []
        async with asyncio.TaskGroup() as group:
            for n in range(BURST):
                group.create_task(self.ask(f"s{n % 4}", 2.9, heard))
            await until(lambda: len(heard) >= 10)
            strike()
        return told(heard)


def told(heard: list[tuple[str, str, float]]) -> dict[str, Any]:
    stores = sorted({store for store, _, _ in heard})
    return {
        "outcomes": {store: Counter(what for of, what, _ in heard if of == store) for store in stores},
        "slowest_s": round(max(took for _, _, took in heard), 3),
        "answers": len(heard),
    }


async def until(holds: Callable[[], object], timeout_s: float = READY_S_MAX) -> float:
    began = time.monotonic()
    while not holds():
        assert time.monotonic() - began < timeout_s, "not in time"
        await asyncio.sleep(0.02)
    return round(time.monotonic() - began, 2)


async def seen(holds: Callable[[dict[str, Any]], object]) -> dict[str, Any]:
    """The first snapshot of which it holds."""
    deadline = time.monotonic() + READY_S_MAX
    while True:
        with contextlib.suppress(RetryLater):
            found = await face_workers(REGION)
            if holds(found):
                return found
        assert time.monotonic() < deadline, "not in time"
        await asyncio.sleep(0.05)


async def snapshot() -> dict[str, Any]:
    return await seen(lambda _: True)


async def workers_ready(count: int) -> dict[str, Any]:
    return await seen(lambda found: [one["state"] for one in found["workers"]] == ["ready"] * count)


async def run(plant: Plant) -> dict[str, Any]:
    crowd, done = Crowd(plant), dict[str, Any]()
    start_faces(plant)
    await workers_ready(1)
    await crowd.storm()  # the first one shows that a second worker is needed
    done["up"] = len((await workers_ready(2))["workers"])
    done["between_machines"] = await crowd.between_machines()
    done["storm"] = await crowd.storm()
    victim = (await snapshot())["workers"][0]
    os.kill(victim["pid"], signal.SIGSTOP)  # what it is asked stays with it
    done["burst"] = await crowd.burst(lambda: os.kill(victim["pid"], signal.SIGKILL))
    done["after_burst"] = await snapshot()
    back = await seen(lambda found: found["workers"][0].get("pid") not in (None, victim["pid"]))
    done["down_s"] = await until(lambda: running_face_workers(REGION) == [0])
    desk = ray.get_actor(face_desk_name(REGION), namespace=NAMESPACE)
    done["desk_killed"] = await crowd.burst(lambda: ray.kill(desk, no_restart=False))
    after = await workers_ready(1)
    done["before_and_after"] = back, after
    done["afterwards"] = await crowd.burst(lambda: None)
    return done


def end() -> None:
    for name in (face_desk_name(REGION), *(face_worker_name(REGION, n) for n in running_face_workers(REGION))):
        with contextlib.suppress(ValueError):
            ray.kill(ray.get_actor(name, namespace=NAMESPACE), no_restart=True)


if __name__ == "__main__":
    running = read_plant(Path(sys.argv[1]))
    configure_logs()  # to standard error
    join_ray(running)
    mine = replace(running, region=REGION, faces_workers_min=1, faces_workers_max=2, faces_idle_s=IDLE_S)
    with contextlib.redirect_stdout(sys.stderr):
        try:
            result = asyncio.run(run(mine))
        finally:
            end()
    sys.stdout.write(json.dumps(result) + "\n")
