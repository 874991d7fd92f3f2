"""The face service as hosts see it: one desk in each region, found over Ray. And the names of its actors.

Apart from face_service.py, so that who only asks does not import what runs in an actor.
"""

from __future__ import annotations

import asyncio
import json
import pickle
import time
from dataclasses import dataclass
from typing import Any

import ray
import structlog
from ray.exceptions import RayError, RayTaskError

from models.domain.errors import RetryLater
from models.domain.ids import RegionId, SessionId, StoreId
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
from runtime.face_stream import Line, connect
from runtime.ray_actors import NAMESPACE

log = structlog.get_logger()

FACE_ANSWER_S_MAX = 2.9
"""From the ask to its answer; the session waits for 3 s. After it the answer is `busy`, whatever happened."""
TRAVEL_S_MAX = 0.1
"""The desk has so much less: its answer must arrive in time."""
AGAIN_S = 0.05
SNAPSHOT_S_MAX = 5.0
PIECE_BYTES = 64 * 1024
"""Between machines. Ray puts an argument above 100 KiB into shared memory, which takes longer than to copy it twice: a
JPEG of 130 kB arrives after 1.3 ms in pieces and after 2.7 ms in one, for half the CPU
(docs/decisions/faces-through-a-desk.md)."""

FaceRequest = IdentifyRequest | RescoreRequest | ShotRequest | EnrolRequest


def face_desk_name(region: str) -> str:
    """The name of a region's desk."""
    return f"faces/{region}/desk"


def face_worker_name(region: str, n: int) -> str:
    """The name of a face worker."""
    return f"faces/{region}/{n}"


def face_names(region: str) -> str:
    """What the names of a region's desk and workers begin with."""
    return f"faces/{region}/"


@dataclass(frozen=True, slots=True)
class Cover:
    """What the desk reads of a question: the rest is a letter to a worker, which it passes on unopened."""

    verb: str
    question: str
    session: SessionId
    store: StoreId
    within_s: float

    def packed(self) -> bytes:
        """As `unpacked` reads it."""
        return json.dumps([self.verb, self.question, self.session, self.store, self.within_s]).encode()

    @classmethod
    def unpacked(cls, head: bytes) -> Cover:
        verb, question, session, store, within_s = json.loads(head)
        return cls(verb, question, SessionId(session), StoreId(store), within_s)


def in_pieces(letter: bytes) -> list[bytes]:
    """Pieces that travel inside a call."""
    return [letter[at : at + PIECE_BYTES] for at in range(0, len(letter), PIECE_BYTES)]


def sealed_answer(answer: FaceAnswer | Exception) -> bytes:
    """What whoever asked opens: an answer, or what is raised there."""
    return pickle.dumps(answer, protocol=pickle.HIGHEST_PROTOCOL)


def busy(session: SessionId, question: str, why: str) -> FaceAnswer:
    """Nobody looked. Nothing is known of the face, and nothing was counted."""
    return FaceAnswer(session, question, FaceOutcome.BUSY, reason=why, prompt="face_busy")


class RayFaces:
    """The face service as a host asks it, on one event loop. The last word is `busy`.

    Asks the region's desk, again while that is restarted: over a stream when it is on this machine, else over Ray.
    """

    def __init__(self, region: RegionId, answer_s_max: float = FACE_ANSWER_S_MAX) -> None:
        self._region = region
        self._answer_s_max = answer_s_max
        self._handle: Any = None
        self._line: Line | None = None
        self._opening = asyncio.Lock()

    async def identify(self, request: IdentifyRequest, consent: ConsentToken) -> FaceAnswer:
        return await self._call("identify", request, consent)

    async def rescore(self, request: RescoreRequest, consent: ConsentToken) -> FaceAnswer:
        return await self._call("rescore", request, consent)

    async def shoot(self, request: ShotRequest, consent: EnrolConsent) -> FaceAnswer:
        return await self._call("shoot", request, consent)

    async def enrol(self, request: EnrolRequest, consent: EnrolConsent) -> FaceAnswer:
        return await self._call("enrol", request, consent)

    async def _call(self, verb: str, request: FaceRequest, consent: ConsentToken) -> FaceAnswer:
        """Raises what the worker's verb raises (Refused, Bug); never for an engine that is away."""
        deadline = time.monotonic() + self._answer_s_max
        letter = pickle.dumps((verb, request, consent), protocol=pickle.HIGHEST_PROTOCOL)
        while (left_s := deadline - time.monotonic()) > 0:
            cover = Cover(verb, request.question, request.session, request.store, left_s - TRAVEL_S_MAX)
            try:
                async with asyncio.timeout(left_s):
                    said = await self._ask(cover.packed(), letter)
            except RayTaskError:
                raise
            except TimeoutError:
                break
            except (RayError, ValueError, ConnectionError) as error:  # ValueError: nobody has its name at the moment
                log.warning("face_desk_unavailable", verb=verb, error=type(error).__name__)
                self._handle = None
                await asyncio.sleep(AGAIN_S)
            else:
                answer: FaceAnswer | Exception = pickle.loads(said)  # noqa: S301 - our own
                if isinstance(answer, Exception):
                    raise answer
                return answer
        return busy(request.session, request.question, "no_desk")

    async def _ask(self, head: bytes, letter: bytes) -> bytes:
        if self._line is None or self._line.closed:
            await self._open()
        line = self._line
        if line is not None:
            return await line.ask(head, letter)
        said: bytes = await self._handle.ask.remote(head, *in_pieces(letter))
        return said

    async def _open(self) -> None:
        """Find the desk once for all that ask meanwhile, and a line to it if there is one."""
        async with self._opening:
            if self._handle is None or (self._line is not None and self._line.closed):
                handle: Any = ray.get_actor(face_desk_name(self._region), namespace=NAMESPACE)
                self._line = await connect(await handle.door.remote())
                self._handle = handle


async def face_workers(region: str) -> dict[str, Any]:
    """A region's desk and its workers, as plain values. Raises RetryLater `desk_away`."""
    try:
        desk: Any = ray.get_actor(face_desk_name(region), namespace=NAMESPACE)
        async with asyncio.timeout(SNAPSHOT_S_MAX):
            found: dict[str, Any] = await desk.snapshot.remote()
            return found
    except (RayError, ValueError, TimeoutError) as error:
        raise RetryLater("desk_away", f"the face desk of {region} does not answer", "try again", 1.0) from error
