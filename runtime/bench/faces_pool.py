"""Face workers behind their desk: throughput beside the bare net, two beside one, one identification end to end.

`python -m runtime.bench.faces_pool FOLDER SECONDS`: the engine, two pools (one worker, two workers) over a gallery of
10,000 templates, and a bare process. A JSON object a line: `{"step": …}`, at last `{"figures": …}`.
"""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass, field, replace
from datetime import UTC, datetime
from functools import partial
from itertools import cycle, islice
from multiprocessing import get_context
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import psutil
import psycopg

from models.domain.errors import NeedsOperator
from models.domain.events import Purpose
from models.domain.face_quality import POLICIES, FaceKind, LookPurpose
from models.domain.ids import MemberId, MessageId, RegionId, SessionId, StoreId
from models.domain.recognition import ConsentToken, Embedding, IdentifyRequest
from models.faces.align import align
from models.faces.embed import FaceEmbedder
from models.faces.jpeg import decode_jpeg
from models.faces.nets import Nets, build_nets
from models.faces.pipeline import FacePipeline
from models.faces.variations import encode_bounded
from runtime.bench.form import Row, quantile, row
from runtime.bench.yard import open_yard
from runtime.keyring import open_vault, require_keyring
from runtime.plant import Plant, read_plant, write_plants
from runtime.processes import log_tail

if TYPE_CHECKING:
    from runtime.bench.faces import Advance, Ground

TEMPLATES = 10_000
ONE, TWO = RegionId("one"), RegionId("two")
STORES = 8
ROUNDS = 5
WARM_S = 1.0
EACH_S_MIN = 0.6
ASKED_AT_ONCE = 4
"""Of each worker: two are with it, two wait at the desk."""
READY_S_MAX = 90.0
FINDS_MIN = 20
CROP_JPEG_QUALITY = 92
STEPS = 2 + ROUNDS
POLICY = "demo"
COPY_MEMBERS = """COPY member (id, chain, region, home_store, name, phone_tail, provider_user, joined_at)
    FROM STDIN"""
COPY_KEYS = "COPY face_key (id, member, epoch, wrapped, made_at) FROM STDIN"
COPY_TEMPLATES = """COPY face_template
    (id, member, chain, store, net_sha256, policy, kind, consent, ciphertext, key_id, at) FROM STDIN"""
OBJECT_STORE_BYTES = 128 * 1024 * 1024


@dataclass(slots=True)
class Figures:
    """Faces a second of each round, milliseconds of one face at a time, milliseconds of CPU for one of many."""

    bare_crops: list[float] = field(default_factory=list)
    look_crops: list[float] = field(default_factory=list)
    one_crops: list[float] = field(default_factory=list)
    bare_frames: list[float] = field(default_factory=list)
    one_frames: list[float] = field(default_factory=list)
    two_frames: list[float] = field(default_factory=list)
    two_crops: list[float] = field(default_factory=list)
    bare_ms: list[float] = field(default_factory=list)
    two_looks: list[float] = field(default_factory=list)
    """Frames a second of two bare processes side by side: what two cores of this machine do at all."""
    found_ms: list[float] = field(default_factory=list)
    bare_crop_cpu_ms: list[float] = field(default_factory=list)
    crop_cpu_ms: list[float] = field(default_factory=list)
    bare_frame_cpu_ms: list[float] = field(default_factory=list)
    frame_cpu_ms: list[float] = field(default_factory=list)
    desk_cpu_ms: list[float] = field(default_factory=list)
    host_cpu_ms: list[float] = field(default_factory=list)


def rows(figures: Figures) -> list[Row]:
    """The promises."""
    middle = statistics.median

    def rate(what: str, mine: list[float], name: str, theirs: list[float], target: str | None) -> Row:
        return row(what, middle(mine), "faces/s", name, middle(theirs), target)

    def found(per_cent: int, target: str | None) -> Row:
        baseline = (f"bare look in process, p{per_cent}", quantile(figures.bare_ms, per_cent))
        what = f"identification of one 720p JPEG among {TEMPLATES:,}, p{per_cent}"
        return row(what, quantile(figures.found_ms, per_cent), "ms", *baseline, target)

    def cpu(what: str, mine: list[float], name: str, theirs: list[float]) -> Row:
        return row(what, middle(mine), "ms", name, middle(theirs))

    one, two, crops = figures.one_frames, figures.two_frames, figures.one_crops
    return [
        rate("one worker, 720p frames", one, "bare look in process, the same frames", figures.bare_frames, ">= 0.9 x"),
        rate(
            "one worker, aligned crops", crops, "bare look in process, the same crops", figures.look_crops, ">= 0.9 x"
        ),
        rate("one worker, aligned crops, by the net", crops, "bare embedding net", figures.bare_crops, ">= 0.9 x"),
        rate("two workers, 720p frames", two, "one worker", one, ">= 1.8 x"),
        rate("two workers, aligned crops", figures.two_crops, "one worker", crops, ">= 1.8 x"),
        rate("two workers, 720p frames, beside", two, "two bare looks side by side", figures.two_looks, None),
        rate("two bare looks side by side", figures.two_looks, "bare look in process", figures.bare_frames, None),
        found(50, "<= 35"),
        found(99, None),
        cpu("worker's CPU for an aligned crop", figures.crop_cpu_ms, "bare net", figures.bare_crop_cpu_ms),
        cpu("worker's CPU for a 720p frame", figures.frame_cpu_ms, "bare look", figures.bare_frame_cpu_ms),
        cpu("desk's CPU for a 720p frame", figures.desk_cpu_ms, "the worker's", figures.frame_cpu_ms),
        cpu("host's CPU for a 720p frame", figures.host_cpu_ms, "the worker's", figures.frame_cpu_ms),
    ]


# ---------------------------------------------------------------- the parent: servers, a gallery, pictures


def measure(ground: Ground, advance: Advance) -> list[Row]:
    """Rows. Raises NeedsOperator `bench_faces` with the end of the log when the engine or a worker does not come up."""
    folder = ground.folder / "pool"
    folder.mkdir()
    folder.chmod(0o755)  # the database's user walks through it when we are root
    nets = build_nets(ground.cache)
    with open_yard(folder, STORES) as yard:
        plant = replace(yard.plant, faces_cache=ground.cache, faces_policy=POLICY)
        require_keyring(plant.data_dir / "secrets", [plant.database_url], lambda _: None)
        fill(plant, nets, yard.stores)
        write_plants(plant.data_dir / "secrets", [plant])
        for n, frame in enumerate(ground.frames):
            (folder / f"frame-{n:03d}.jpg").write_bytes(frame)
        advance(f"{TEMPLATES:,} templates")
        return rows(_run(folder, ground.seconds, advance))


def fill(plant: Plant, nets: Nets, stores: tuple[StoreId, ...]) -> None:
    """So many members of both regions, each with a template of a direction of its own."""
    vault = open_vault(plant.data_dir / "secrets")
    vectors = np.random.default_rng(17).normal(size=(TEMPLATES, nets.dimension))
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    at = datetime(2026, 11, 22, 4, 0, tzinfo=UTC)
    with psycopg.connect(plant.database_url, autocommit=True) as conn, conn.transaction(), conn.cursor() as cursor:
        for region in (ONE, TWO):
            sealed = [
                vault.make_template(
                    MemberId(f"{region}-{n}"),
                    f"t-{region}-{n}",
                    nets.recogniser_sha256,
                    POLICY,
                    Embedding(vector.astype("<f4").tobytes()),
                )
                for n, vector in enumerate(vectors)
            ]
            with cursor.copy(COPY_MEMBERS) as copy:
                for n, one in enumerate(sealed):
                    store, tail = stores[n % len(stores)], f"{n % 10_000:04d}"
                    copy.write_row((one.template.member, plant.chain, region, store, "", tail, "", at))
            with cursor.copy(COPY_KEYS) as copy:
                for one in sealed:
                    copy.write_row((one.key.id, one.key.member, one.key.epoch, one.key.wrapped, at))
            with cursor.copy(COPY_TEMPLATES) as copy:
                for n, one in enumerate(sealed):
                    t, store = one.template, stores[n % len(stores)]
                    copy.write_row(
                        (
                            t.id,
                            t.member,
                            plant.chain,
                            store,
                            t.net_sha256,
                            t.policy,
                            t.kind.value,
                            "m",
                            t.ciphertext,
                            t.key_id,
                            at,
                        )
                    )


def _run(folder: Path, seconds: float, advance: Advance) -> Figures:
    """In a process of its own: the engine reads its kind of authentication when it is imported."""
    log = folder / "pool.log"
    environment = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")}
    ours = {"RAY_USAGE_STATS_ENABLED": "0", "RAY_worker_niceness": "0", "OMP_NUM_THREADS": "1"}
    with log.open("ab") as errors:
        command = [sys.executable, "-m", "runtime.bench.faces_pool", str(folder), str(seconds)]
        with subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=errors, text=True, env=environment | ours
        ) as process:
            assert process.stdout is not None
            for line in process.stdout:
                said = json.loads(line)
                if "figures" in said:
                    process.wait()
                    return Figures(**said["figures"])
                advance(said["step"])
    raise NeedsOperator("bench_faces", f"the pool of the benchmark: {log_tail(log)}", "see the log")


# ---------------------------------------------------------------- the child: engine, pools, trials


class Bare:
    """What a worker does and nothing around it, in a process of its own."""

    def __init__(self, cache: str, frames: list[bytes]) -> None:
        nets = build_nets(Path(cache))
        self._pipeline = FacePipeline(nets)
        self._embedder = FaceEmbedder(nets.recogniser_path, nets.recogniser.feed)
        self._frames = frames
        self._crops = []
        self.crops: list[bytes] = []
        for frame in frames:
            pixels = decode_jpeg(frame)
            assert isinstance(pixels, np.ndarray)
            face = max(self._pipeline.faces(pixels), key=lambda one: one.eye_distance_px)
            crop = align(pixels, face.landmarks)
            self._crops.append(crop)
            self.crops.append(encode_bounded(crop, CROP_JPEG_QUALITY))
        self._pipeline.warm_up()

    def aligned(self) -> list[bytes]:
        """The crops as a terminal sends them."""
        return self.crops

    def embed(self, seconds: float) -> tuple[float, float]:
        """Crops a second, by the net alone; milliseconds of CPU for each."""
        return _rate(self._embedder.embed, self._crops, seconds)

    def look(self, seconds: float) -> tuple[float, float]:
        """Frames a second: decode, detect, align, judge, embed; milliseconds of CPU for each."""
        return _rate(self._look, self._frames, seconds)

    def look_at_crops(self, seconds: float) -> tuple[float, float]:
        """The same of crops."""
        return _rate(partial(self._look, kind=FaceKind.CROP), self.crops, seconds)

    def look_ms(self, count: int) -> list[float]:
        """Milliseconds of each."""
        taken = []
        for frame in islice(cycle(self._frames), count):
            began = time.perf_counter()
            self._look(frame)
            taken.append((time.perf_counter() - began) * 1000)
        return taken

    def _look(self, jpeg: bytes, kind: FaceKind = FaceKind.FRAME) -> object:
        return self._pipeline.look(jpeg, kind=kind, purpose=LookPurpose.PROBE, policy=POLICIES[POLICY])


class BareProcess:
    """A Bare in a process of its own, asked by the name of its verb."""

    def __init__(self, cache: Path, frames: list[bytes]) -> None:
        self._executor = ProcessPoolExecutor(1, get_context("spawn"), _open_bare, (str(cache), frames))

    async def ask(self, verb: str, *arguments: float) -> Any:
        """What its verb returns."""
        return await asyncio.get_running_loop().run_in_executor(self._executor, _ask_bare, verb, *arguments)


_bare: list[Bare] = []
"""Of the bare process: the one it holds."""


def _open_bare(cache: str, frames: list[bytes]) -> None:
    _bare.append(Bare(cache, frames))


def _ask_bare(verb: str, *arguments: float) -> Any:
    return getattr(_bare[0], verb)(*arguments)


def _rate(do: Callable[[Any], object], things: list[Any], seconds: float) -> tuple[float, float]:
    began, cpu = time.perf_counter(), time.process_time()
    for done, one in enumerate(cycle(things), 1):
        do(one)
        if (took := time.perf_counter() - began) >= seconds:
            return done / took, (time.process_time() - cpu) * 1000 / done
    raise AssertionError("nothing to do")


class Pool:
    """One region's desk, asked as a host asks it."""

    def __init__(self, region: RegionId, plant: Plant, workers: int) -> None:
        from runtime.face_service import start_faces
        from runtime.ray_faces import RayFaces

        self._plant, self._workers = plant, workers
        self._faces = RayFaces(region)
        self._asked = 0
        self._processes: list[psutil.Process] = []
        mine = replace(plant, region=region, faces_workers_min=workers, faces_workers_max=workers)
        self._desk, *self._started = start_faces(mine)

    async def ready(self) -> None:
        """Return when all workers are there, their gallery whole."""
        async with asyncio.timeout(READY_S_MAX):
            while True:
                found = await self._desk.snapshot.remote()
                there = [one for one in found["workers"] if one["state"] == "ready"]
                if len(there) == self._workers and all(sum(one["templates"].values()) == TEMPLATES for one in there):
                    self._processes = [psutil.Process(), *(psutil.Process(one["pid"]) for one in (found, *there))]
                    return
                await asyncio.sleep(0.1)

    async def find(self, jpeg: bytes, kind: FaceKind = FaceKind.FRAME) -> float:
        """One identification; its milliseconds. Raises NeedsOperator when nobody looked."""
        self._asked += 1
        visit = SessionId(f"v{self._asked}")
        request = IdentifyRequest(
            visit, f"q{self._asked}", self._plant.chain, StoreId(f"s{self._asked % STORES:04d}"), jpeg, kind, b"k" * 32
        )
        began = time.perf_counter()
        answer = await self._faces.identify(request, ConsentToken(Purpose.RECOGNISE, visit, MessageId("m")))
        if answer.decision is None:
            raise NeedsOperator("bench_faces", f"{answer.outcome}: {answer.reason}", "run it on a quiet machine")
        return (time.perf_counter() - began) * 1000

    async def rate(self, jpegs: list[bytes], kind: FaceKind, seconds: float) -> tuple[float, float, float, float]:
        """Identifications a second, ASKED_AT_ONCE for each worker at a time; milliseconds of CPU for each, of the
        workers, of the desk, and of this process, which asks as a host does."""
        source, done, began, cpu = cycle(jpegs), 0, time.perf_counter(), self._cpu_ms()

        async def customer() -> None:
            nonlocal done
            while time.perf_counter() - began < seconds:
                await self.find(next(source), kind)
                done += 1

        await asyncio.gather(*(customer() for _ in range(ASKED_AT_ONCE * self._workers)))
        took = time.perf_counter() - began
        host, desk, *workers = (now - before for now, before in zip(self._cpu_ms(), cpu, strict=True))
        return done / took, sum(workers) / done, desk / done, host / done

    def _cpu_ms(self) -> list[float]:
        """Of this process, of the desk, and of each worker."""
        return [(one.cpu_times().user + one.cpu_times().system) * 1000 for one in self._processes]


async def trials(plant: Plant, frames: list[bytes], seconds: float) -> Figures:
    """All kinds in turn, ROUNDS times."""
    bare, beside = (BareProcess(plant.faces_cache, frames) for _ in range(2))
    one, two = Pool(ONE, plant, 1), Pool(TWO, plant, 2)
    crops: list[bytes] = await bare.ask("aligned")
    await asyncio.gather(one.ready(), two.ready(), beside.ask("aligned"))
    for pool in (one, two):
        await pool.rate(frames, FaceKind.FRAME, WARM_S)
    _say({"step": "workers ready"})
    figures = Figures()
    each_s = max(EACH_S_MIN, seconds / (8 * ROUNDS))
    finds = max(FINDS_MIN, round(each_s * 20))
    for n in range(ROUNDS):
        _keep(await bare.ask("embed", each_s), figures.bare_crops, figures.bare_crop_cpu_ms)
        _keep(await bare.ask("look_at_crops", each_s), figures.look_crops)
        _keep(await one.rate(crops, FaceKind.CROP, each_s), figures.one_crops, figures.crop_cpu_ms)
        _keep(await bare.ask("look", each_s), figures.bare_frames, figures.bare_frame_cpu_ms)
        _keep(
            await one.rate(frames, FaceKind.FRAME, each_s),
            figures.one_frames,
            figures.frame_cpu_ms,
            figures.desk_cpu_ms,
            figures.host_cpu_ms,
        )
        _keep(await two.rate(frames, FaceKind.FRAME, each_s), figures.two_frames)
        both = await asyncio.gather(bare.ask("look", each_s), beside.ask("look", each_s))
        figures.two_looks.append(sum(rate for rate, _ in both))
        _keep(await two.rate(crops, FaceKind.CROP, each_s), figures.two_crops)
        figures.bare_ms += await bare.ask("look_ms", finds)
        figures.found_ms += [await one.find(frame) for frame in islice(cycle(frames), finds)]
        _say({"step": f"faces, round {n + 1}"})
    return figures


def _keep(measured: tuple[float, ...], *places: list[float]) -> None:
    for value, place in zip(measured, places, strict=False):
        place.append(value)


def _say(line: dict[str, Any]) -> None:
    sys.stdout.write(json.dumps(line) + "\n")
    sys.stdout.flush()


def main(folder: Path, seconds: float) -> None:
    """The child's program."""
    temp = tempfile.mkdtemp(prefix="so-ray-")  # short: Unix sockets live inside
    import ray

    try:
        ray.init(
            address="local",
            namespace="storeops",
            include_dashboard=False,
            log_to_driver=False,
            configure_logging=False,
            object_store_memory=OBJECT_STORE_BYTES,
            _temp_dir=temp,
        )
        frames = [path.read_bytes() for path in sorted(folder.glob("frame-*.jpg"))]
        figures = asyncio.run(trials(read_plant(folder / "data"), frames, seconds))
        ray.shutdown()
        _say({"figures": asdict(figures)})
    finally:
        shutil.rmtree(temp, ignore_errors=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]), float(sys.argv[2]))
