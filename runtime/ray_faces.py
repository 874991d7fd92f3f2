"""The face service as hosts see it: one desk in each region, asked over Ray. And the names of its actors.

Apart from face_service.py, so that who only asks does not import what runs in an actor.
"""

from __future__ import annotations

import asyncio
import time
from dataclasses import replace
from typing import Any, NoReturn, TypeVar

import ray
import structlog
from ray.exceptions import RayError, RayTaskError

from models.domain.errors import RetryLater, StoreOpsError
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
from runtime.ray_actors import NAMESPACE

log = structlog.get_logger()

FACE_ANSWER_S_MAX = 2.9
"""From the ask to its answer; the session waits for 3 s. After it the answer is `busy`, whatever happened."""
TRAVEL_S_MAX = 0.1
"""The desk has so much less: its answer must arrive in time."""
AGAIN_S = 0.05
SNAPSHOT_S_MAX = 5.0
PIECE_BYTES = 64 * 1024
"""Ray puts an argument above 100 KiB into shared memory, which takes longer than to copy it twice: a JPEG of 130 kB
arrives after 1.3 ms in pieces and after 2.7 ms in one, for half the CPU (docs/decisions/faces-through-a-desk.md)."""

Pictured = TypeVar("Pictured", IdentifyRequest, ShotRequest)
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


def in_pieces(request: FaceRequest) -> tuple[FaceRequest, list[bytes]]:
    """The request without its picture, and the picture in pieces that travel inside the call."""
    if not isinstance(request, IdentifyRequest | ShotRequest):
        return request, []
    jpeg = request.jpeg
    return replace(request, jpeg=b""), [jpeg[at : at + PIECE_BYTES] for at in range(0, len(jpeg), PIECE_BYTES)]


def whole(request: Pictured, pieces: tuple[bytes, ...]) -> Pictured:
    """The request with its picture."""
    return replace(request, jpeg=b"".join(pieces))


def busy(request: FaceRequest, why: str) -> FaceAnswer:
    """Nobody looked. Nothing is known of the face, and nothing was counted."""
    return FaceAnswer(request.session, request.question, FaceOutcome.BUSY, reason=why, prompt="face_busy")


class RayFaces:
    """The face service over Ray. Asks the region's desk, again while that is restarted; the last word is `busy`."""

    def __init__(self, region: RegionId, answer_s_max: float = FACE_ANSWER_S_MAX) -> None:
        self._region = region
        self._answer_s_max = answer_s_max
        self._handle: Any = None

    async def identify(self, request: IdentifyRequest, consent: ConsentToken) -> FaceAnswer:
        return await self._call("identify", request, consent)

    async def rescore(self, request: RescoreRequest, consent: ConsentToken) -> FaceAnswer:
        return await self._call("rescore", request, consent)

    async def shoot(self, request: ShotRequest, consent: EnrolConsent) -> FaceAnswer:
        return await self._call("shoot", request, consent)

    async def enrol(self, request: EnrolRequest, consent: EnrolConsent) -> FaceAnswer:
        return await self._call("enrol", request, consent)

    async def _call(self, verb: str, request: FaceRequest, consent: ConsentToken) -> FaceAnswer:
        """Raises what the worker's verb raises (Refused); never for an engine that is away."""
        deadline = time.monotonic() + self._answer_s_max
        small, pieces = in_pieces(request)
        while (left_s := deadline - time.monotonic()) > 0:
            try:
                async with asyncio.timeout(left_s):
                    within_s = left_s - TRAVEL_S_MAX
                    answer: FaceAnswer = await self._desk().ask.remote(verb, within_s, small, consent, *pieces)
            except RayTaskError as error:
                raise_own(error)
            except TimeoutError:
                break
            except (RayError, ValueError) as error:  # ValueError: nobody has its name at the moment
                log.warning("face_desk_unavailable", verb=verb, error=type(error).__name__)
                self._handle = None
                await asyncio.sleep(AGAIN_S)
            else:
                return answer
        return busy(request, "no_desk")

    def _desk(self) -> Any:
        if self._handle is None:
            self._handle = ray.get_actor(face_desk_name(self._region), namespace=NAMESPACE)
        return self._handle


def raise_own(error: RayTaskError) -> NoReturn:
    """What an actor raised: ours as it was, a bug with Ray's traceback."""
    if isinstance(error.cause, StoreOpsError):
        raise error.cause from None
    raise error


async def face_workers(region: str) -> dict[str, Any]:
    """A region's desk and its workers, as plain values. Raises RetryLater `desk_away`."""
    try:
        desk: Any = ray.get_actor(face_desk_name(region), namespace=NAMESPACE)
        async with asyncio.timeout(SNAPSHOT_S_MAX):
            found: dict[str, Any] = await desk.snapshot.remote()
            return found
    except (RayError, ValueError, TimeoutError) as error:
        raise RetryLater("desk_away", f"the face desk of {region} does not answer", "try again", 1.0) from error
