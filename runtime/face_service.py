"""Face workers and their desk as Ray actors: one process a worker, one thread in it, one desk in a region.

Questions go through the desk (actors/face_desk.py decides, this file does). A worker that dies is started again by
Ray and its questions are with others meanwhile; a desk that dies is started again, finds the workers by name, and the
hosts ask it again. Nothing here is a record.

The desk's process is to be small and there at once, so this module imports neither nets nor database at its top, and
the plant travels through the desk unopened.
"""

from __future__ import annotations

import asyncio
import os
import pickle
import threading
import time
from collections.abc import Callable, Coroutine
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import ray
import structlog
from ray.exceptions import RayActorError, RayError, RayTaskError

from actors.face_desk import Act, Busy, DeskPolicy, FaceDesk, Lost, Restart, Send, Start, Stop
from actors.face_lines import Verb
from actors.face_scaling import Scaling
from models.domain.errors import Bug, StoreOpsError
from models.domain.ids import RegionId
from models.domain.messages import FaceOutcome
from models.domain.recognition import (
    ConsentToken,
    EnrolConsent,
    EnrolRequest,
    FaceAnswer,
    IdentifyRequest,
    RescoreRequest,
    ShotRequest,
)
from runtime import origin
from runtime.face_stream import AnsweringThread, Line, Listener, connect
from runtime.metrics import FACE_DESK, Pusher, push_every
from runtime.ray_actors import NAMESPACE, actor_options
from runtime.ray_faces import Cover, busy, face_desk_name, face_names, face_worker_name, in_pieces, sealed_answer
from runtime.ray_metrics import FaceMetrics, RaySink
from runtime.telemetry import configure_logs

if TYPE_CHECKING:
    from actors.galleries import Galleries
    from models.faces.nets import Nets
    from runtime.gallery_keeper import GalleryKeeper
    from runtime.plant import Plant

log = structlog.get_logger()

Kind = TypeVar("Kind")

GALLERY_WHOLE_S_MAX = 5.0
"""How long a worker's start waits for its gallery; then it serves, and asks for digits until it is whole."""
AGAIN_S = 0.1
HEALTH_S_MAX = 1.0
QUESTIONS_MAX = 20_000
"""Calls of a desk that may wait at once; far above what it lets in, so that it is the desk that turns away."""


# ---------------------------------------------------------------- a worker


class HostedFaceWorker:
    """A face worker in a process of its own: one thread, nets that ran once, the node's gallery."""

    def __init__(self, sealed: bytes) -> None:
        """`sealed`: the plant, pickled."""
        origin.check()
        plant: Plant = pickle.loads(sealed)  # noqa: S301 - our own
        configure_logs(plant.data_dir, f"faces-{plant.region}")
        # Nets and numpy: a host, which is to start fast, has neither.
        from models.faces import devices
        from runtime.face_nets import digests_of
        from runtime.faces import build_face_worker
        from runtime.gallery_keeper import GalleryKeeper, GallerySpec
        from runtime.keyring import open_vault

        vault = open_vault(plant.data_dir / "secrets")
        self._plant = plant
        self._keepers: dict[str, GalleryKeeper] = {}

        def galleries(nets: Nets) -> Galleries:
            place = str(plant.data_dir)
            spec = GallerySpec(place, plant.chain, plant.region, nets.recogniser_sha256, nets.dimension)
            keeper = self._keepers[nets.recogniser_sha256] = GalleryKeeper(spec, vault, plant.database_url)
            return keeper.galleries

        began = time.monotonic()
        devices.choose(devices.Device(plant.faces_device))
        self._worker = build_face_worker(
            plant.faces_cache,
            vault,
            policy=plant.faces_policy,
            galleries=galleries,
            recogniser=plant.faces_recognisers.get(plant.chain, ""),
            in_use=digests_of(plant) or (),
            adaptive=plant.faces_adaptive,
        )
        self._device = devices.in_use()
        self._keeper, *_ = self._keepers.values()  # the current net's; the others are of older ones
        self._metrics = FaceMetrics(plant.region)
        for keeper in self._keepers.values():
            keeper.watch()
        for keeper in self._keepers.values():
            keeper.wait_until_whole(GALLERY_WHOLE_S_MAX)
        self._start_ms = round((time.monotonic() - began) * 1000)
        self._turn = threading.Lock()
        """One question at a time, whichever way it came, and none while a net is retired."""
        self._questions = AnsweringThread(self._open)

    def door(self) -> str:
        """Where the desk connects to when it is on this machine."""
        return self._questions.name

    def ask(self, *pieces: bytes) -> bytes:
        """The same over Ray: for a desk on another machine."""
        return self._open(b"".join(pieces))

    def identify(self, request: IdentifyRequest, consent: ConsentToken) -> FaceAnswer:
        """See FaceWorker."""
        with self._metrics.timed("identify"):
            return self._worker.identify(request, consent)

    def rescore(self, request: RescoreRequest, consent: ConsentToken) -> FaceAnswer:
        """See FaceWorker."""
        with self._metrics.timed("rescore"):
            return self._worker.rescore(request, consent)

    def shoot(self, request: ShotRequest, consent: EnrolConsent) -> FaceAnswer:
        """See FaceWorker."""
        with self._metrics.timed("shoot"):
            return self._worker.shoot(request, consent)

    def enrol(self, request: EnrolRequest, consent: EnrolConsent) -> FaceAnswer:
        """See FaceWorker."""
        from runtime.wash import wash

        with self._metrics.timed("enrol"):
            answer = self._worker.enrol(request, consent)
            wash()  # the shots and their mean are not to stay in freed memory
            return answer

    def health(self) -> dict[str, Any]:
        """A snapshot for the console. Closes an older net that no template is of any more."""
        with self._turn:
            self._retire_nets()
        gallery = self._keeper.health()
        self._metrics.templates(gallery["templates"])
        place = {"pid": os.getpid(), "node": ray.get_runtime_context().get_node_id(), "start_ms": self._start_ms}
        place["device"] = self._device
        return {**place, "version": gallery["version"], "gallery": gallery, **asdict(self._worker.health())}

    def _open(self, letter: bytes) -> bytes:
        """A question's letter, opened, and the answer's, or what whoever asked is to raise."""
        answer: FaceAnswer | Exception
        try:
            verb, request, consent = pickle.loads(letter)  # noqa: S301 - our own
            with self._turn:
                answer = getattr(self, Verb(verb))(request, consent)
        except StoreOpsError as refused:
            answer = refused
        except Exception as error:  # the next question may be a better one
            log.exception("face_worker_bug")
            answer = Bug("face_worker_bug", f"{type(error).__name__} in a face worker", "see its log")
        return sealed_answer(answer)

    def _retire_nets(self) -> None:
        from runtime.face_nets import digests_of

        in_use = digests_of(self._plant) if len(self._keepers) > 1 else None
        for net in self._worker.nets.retire(in_use) if in_use is not None else ():
            self._keepers.pop(net).stop()


# ---------------------------------------------------------------- the desk


@dataclass(frozen=True, slots=True)
class DeskSite:
    """What a desk needs to know, and the plant, which it hands to its workers as it is."""

    region: RegionId
    data_dir: Path
    plant: bytes = field(repr=False)
    workers_min: int
    workers_max: int | None
    idle_s: float

    def policy(self) -> DeskPolicy:
        """Without an upper bound, a worker for each core but one of the region's nodes."""
        most = self.workers_max or cores_for_faces(self.region)
        return DeskPolicy(Scaling(self.workers_min, max(self.workers_min, most), down_hold_s=self.idle_s))


@dataclass(slots=True)
class _Waiting:
    """One question: who asked, what for a worker, and who waits."""

    cover: Cover
    letter: bytes = field(repr=False)
    answer: asyncio.Future[bytes]


class HostedFaceDesk:
    """Does what the pure desk says. Async: a question waits here, the loop never does."""

    def __init__(self, site: DeskSite) -> None:
        origin.check()
        configure_logs(site.data_dir, f"faces-{site.region}")
        self._site = site
        self._clock: Callable[[], float] = time.monotonic
        found = running_face_workers(site.region)
        self._desk = FaceDesk(site.policy(), self._clock(), found)
        self._handles: dict[int, Any] = {n: _handle(site.region, n) for n in found}
        self._lines: dict[int, Line] = {}
        """To the workers of this machine; the others are asked over Ray."""
        self._known: dict[int, dict[str, Any]] = {}
        """What each worker said of itself last."""
        self._waiting: dict[str, _Waiting] = {}
        self._tasks: set[asyncio.Task[Any]] = set()
        self._listener = Listener(self._asked_on_a_line)
        self._door = self._spawn(self._listener.open())
        for n in found:
            self._await_ready(n)
        self._spawn(self._tick())
        self._spawn(push_every(Pusher(RaySink(), site.region), FACE_DESK, self._counts))

    # ------------------------------------------------------------ verbs

    async def door(self) -> str:
        """Where a host of this machine connects to."""
        return await asyncio.shield(self._door)

    async def ask(self, head: bytes, *pieces: bytes) -> bytes:
        """The sealed answer of a worker, or `busy` in time. For a host on another machine."""
        return await asyncio.shield(self._asked(head, b"".join(pieces)))

    def _asked_on_a_line(self, head: bytes, letter: bytes, reply: Callable[[bytes], None]) -> None:
        self._asked(head, letter).add_done_callback(lambda answer: reply(answer.result()))

    def _asked(self, head: bytes, letter: bytes) -> asyncio.Future[bytes]:
        """The same question again joins the one that waits."""
        cover = Cover.unpacked(head)
        waiting = self._waiting.get(cover.question)
        if waiting is None:
            answer: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()
            waiting = self._waiting[cover.question] = _Waiting(cover, letter, answer)
            now = self._clock()
            deadline_s = now + cover.within_s
            self._do(self._desk.ask(cover.question, cover.store, Verb(cover.verb), deadline_s, now))
        return waiting.answer

    async def snapshot(self) -> dict[str, Any]:
        """The desk's counts; its workers with what each says of itself, as far as it says it within a second."""
        asked = [self._ask_health(n) for n in list(self._handles)]
        await asyncio.wait([asyncio.ensure_future(one) for one in asked], timeout=HEALTH_S_MAX) if asked else None
        found = self._desk.snapshot(self._clock())
        for one in found["workers"]:
            one |= self._known.get(one["n"], {})
        return {"region": self._site.region, "pid": os.getpid(), **found}

    # ------------------------------------------------------------ doing

    def _do(self, acts: list[Act]) -> None:
        for act in acts:
            match act:
                case Send(question, worker, life):
                    self._spawn(self._send(question, worker, life))
                case Busy(question, why):
                    session = self._waiting[question].cover.session
                    self._answer(question, sealed_answer(busy(session, question, str(why))))
                case Lost(question):
                    session = self._waiting[question].cover.session
                    log.error("face_kills_workers", session=session, question=question)
                    lost = FaceAnswer(session, question, FaceOutcome.LOST, reason="worker_lost")
                    self._answer(question, sealed_answer(lost))
                case Start(worker, spare):
                    log.info("face_worker_starts", worker=worker, spare=spare)
                    self._handles[worker] = start_face_worker(self._site.region, self._site.plant, worker, spare=spare)
                    self._await_ready(worker)
                case Stop(worker):
                    log.info("face_worker_stops", worker=worker)
                    self._known.pop(worker, None)
                    self._hang_up(worker)
                    ray.kill(self._handles.pop(worker), no_restart=True)
                case Restart(worker):
                    log.warning("face_worker_stuck", worker=worker)
                    ray.kill(self._handles[worker], no_restart=False)
                    self._await_ready(worker)

    async def _send(self, question: str, worker: int, life: int) -> None:
        """Ask a worker; its death is told to the desk, which asks another."""
        waiting, handle = self._waiting.get(question), self._handles.get(worker)
        if waiting is None or handle is None:  # a busy loop: it was given up before it was this task's turn
            self._do(self._desk.unsent(worker, life, question, self._clock()))
            return
        try:
            answer = await self._ask_worker(worker, handle, waiting.letter)
        except (RayError, ConnectionError) as error:
            log.warning("face_worker_lost", worker=worker, error=type(error).__name__)
            if self._desk.life_of(worker) == life:
                self._do(self._desk.lost(worker, life, self._clock()))
                self._await_ready(worker)
            return
        if self._desk.life_of(worker) == life and self._desk.is_open(question):
            self._answer(question, answer)
        self._do(self._desk.answered(worker, life, question, self._clock()))

    async def _ask_worker(self, worker: int, handle: Any, letter: bytes) -> bytes:
        line = self._lines.get(worker)
        if line is not None:
            return await line.ask(b"", letter)
        said: bytes = await handle.ask.remote(*in_pieces(letter))
        return said

    def _answer(self, question: str, answer: bytes) -> None:
        self._waiting.pop(question).answer.set_result(answer)

    # ------------------------------------------------------------ workers

    def _await_ready(self, worker: int) -> None:
        life = self._desk.life_of(worker)
        if life is not None:
            self._spawn(self._until_ready(worker, life))

    async def _until_ready(self, worker: int, life: int) -> None:
        """Ask until it answers. One that is gone for good is started anew under its name."""
        self._hang_up(worker)
        while self._desk.life_of(worker) == life and worker in self._handles:
            handle, line = self._handles[worker], None
            try:
                line = await connect(await handle.door.remote())
                self._known[worker] = await handle.health.remote()
            except RayTaskError:  # its health has a bug; it may see all the same
                log.exception("face_worker_health", worker=worker)
            except RayError as error:
                if line is not None:
                    line.close()
                if isinstance(error, RayActorError) and not _lives(self._site.region, worker):
                    self._handles[worker] = start_face_worker(self._site.region, self._site.plant, worker)
                await asyncio.sleep(AGAIN_S)
                continue
            if self._desk.life_of(worker) == life:
                if line is not None:
                    self._lines[worker] = line
                self._do(self._desk.ready(worker, life, self._clock()))
            elif line is not None:
                line.close()
            return

    def _hang_up(self, worker: int) -> None:
        line = self._lines.pop(worker, None)
        if line is not None:
            line.close()

    async def _ask_health(self, worker: int) -> None:
        with suppress(RayError, KeyError):
            self._known[worker] = await self._handles[worker].health.remote()

    # ------------------------------------------------------------ time

    async def _tick(self) -> None:
        while True:
            now = self._clock()
            try:
                self._do(self._desk.tick(now))
            except Exception:  # the clock goes on: whoever waits is told busy at the next one
                log.exception("face_desk_tick")
            await asyncio.sleep(self._desk.next_tick_s(now))

    async def _counts(self) -> dict[str, Any]:
        found = self._desk.snapshot(self._clock())
        return found | {"workers": len(found["workers"])}

    def _spawn(self, work: Coroutine[Any, Any, Kind]) -> asyncio.Task[Kind]:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task


# ---------------------------------------------------------------- starting them


def start_face_desk(plant: Plant) -> Any:
    """The region's desk, started or found."""
    bounds = plant.faces_workers_min, plant.faces_workers_max, plant.faces_idle_s
    site = DeskSite(plant.region, plant.data_dir, pickle.dumps(plant), *bounds)
    options = actor_options(plant.region, face_desk_name(plant.region), max_concurrency=QUESTIONS_MAX)
    return ray.remote(HostedFaceDesk).options(**options).remote(site)


def start_face_worker(region: str, sealed: bytes, n: int, *, spare: bool = False) -> Any:
    """A face worker, started or found. One thread. A spare one waits for a core that no other worker has."""
    options = actor_options(region, face_worker_name(region, n), max_concurrency=1, num_cpus=1 if spare else 0)
    return ray.remote(HostedFaceWorker).options(**options).remote(sealed)


def start_faces(plant: Plant) -> list[Any]:
    """The region's desk and its least number of workers, side by side; all started or found."""
    sealed = pickle.dumps(plant)
    workers = [start_face_worker(plant.region, sealed, n) for n in range(plant.faces_workers_min)]
    return [start_face_desk(plant), *workers]


def cores_for_faces(region: str) -> int:
    """The cores of the nodes that take the region's actors, less one each for everything else."""
    name = f"region:{region}"
    nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]  # type: ignore[no-untyped-call]
    ours = [node for node in nodes if name in node] or nodes
    return sum(max(1, int(node.get("CPU", 0)) - 1) for node in ours)


def running_face_workers(region: str) -> list[int]:
    """The numbers of the region's workers that have a name now."""
    prefix = face_names(region)
    found = (name.removeprefix(prefix) for name in ray.util.list_named_actors() if name.startswith(prefix))
    return sorted(int(n) for n in found if n.isdecimal())


def _lives(region: str, n: int) -> bool:
    return n in running_face_workers(region)


def _handle(region: str, n: int) -> Any:
    return ray.get_actor(face_worker_name(region, n), namespace=NAMESPACE)
