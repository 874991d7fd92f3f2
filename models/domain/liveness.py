"""Is it a person who stands there, or a picture of one? A policy of values; never a certified rate.

Three sources, each optional: the score of a device that vouches for it, an anti-spoofing net of the chain's catalogue,
and a challenge: the customer turns the head, and two frames are compared. What the challenge looks for is depth: the
nose stands before the plane of eyes and mouth, so that it moves against them when a head turns, and does not when a
photograph is moved, turned or tilted. A film of the right turn passes: no source is a proof, and none claims a rate.
Two frames that are one frame, and an answer of another camera or of another moment, are found and do not count.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from enum import StrEnum

from models.domain.device_score import SignedScores

Point = tuple[float, float]
Landmarks = tuple[Point, Point, Point, Point, Point]
"""In pixels: the subject's right eye, left eye, nose, right and left corner of the mouth."""


class Liveness(StrEnum):
    """What the liveness policy says of one image. Never a certified rate."""

    PASSED = "passed"
    NOT_CHECKED = "not_checked"
    IN_DOUBT = "in_doubt"
    FAILED = "failed"


class ChallengeMode(StrEnum):
    """When a face that would be accepted is asked to turn first."""

    OFF = "off"
    IN_DOUBT = "in_doubt"
    ALWAYS = "always"


class Side(StrEnum):
    """The customer's own left or right."""

    LEFT = "left"
    RIGHT = "right"


class TurnResult(StrEnum):
    """What two frames show of a turn that was asked for."""

    TURNED = "turned"
    NOT_TURNED = "not_turned"
    """Too little depth moved: a photograph, or somebody who did not follow."""
    WRONG_WAY = "wrong_way"
    ANOTHER_FACE = "another_face"
    SAME_FRAME = "same_frame"
    """The first frame once more: no camera takes a picture twice."""


@dataclass(frozen=True, slots=True)
class Challenge:
    """Where a visit stands with its turns. The default asks for none.

    `following`: the side to ask for if a turn is needed; None: ask no more, a doubt means digits. `first` set: this
    frame is the answer to a turn to `asked`, and `first` the sealed frame that it belongs to.
    """

    following: Side | None = None
    asked: Side | None = None
    first: bytes | None = field(default=None, repr=False)
    camera: str = ""
    """Whose frame this is: the terminal and its boot. An answer comes from the camera that was asked."""
    at_ms: int = 0
    """When this frame came, by the host's wall clock."""


@dataclass(frozen=True, slots=True)
class LivenessPolicy:
    """How scores (0 to 1, higher is more alive) and a challenge are read.

    `required`: without any evidence a face alone is in doubt. `same_face_min` and `same_frame_min` are cosines,
    `turn_min` and `same_frame_eye_max` eye distances, `straight_max` the nose's offset over the eye distance in the
    first frame (docs: faces, Liveness).
    """

    required: bool = False
    signed: SignedScores = SignedScores.WHEN_KEYED
    """Which scores of devices are read at all."""
    challenge: ChallengeMode = ChallengeMode.OFF
    pass_min: float = 0.7
    veto_below: float = 0.2
    net_pass_min: float = 0.7
    net_veto_below: float = 0.2
    same_face_min: float = 0.40
    same_frame_min: float = 0.9999
    same_frame_eye_max: float = 0.001
    turn_min: float = 0.20
    straight_max: float = 0.25
    tries_max: int = 2
    """Turns that a visit may try; then four digits."""
    face_alone_max_fen: int | None = None
    """A basket above it asks for digits even when the face is clear and alive; None: no limit."""

    def __post_init__(self) -> None:
        for pass_min, veto_below in ((self.pass_min, self.veto_below), (self.net_pass_min, self.net_veto_below)):
            if not 0 <= veto_below <= pass_min <= 1:
                raise ValueError("a liveness score must lie in 0..1, and the veto below the pass")
        if not (0 < self.same_face_min < 1 and self.turn_min > 0 and self.straight_max > 0 and self.tries_max >= 1):
            raise ValueError("the bounds of a liveness challenge must be positive")
        if self.face_alone_max_fen is not None and self.face_alone_max_fen < 0:
            raise ValueError("face_alone_max_fen is 0 or more")

    def judge(self, device_ppm: int | None, *, net_ppm: int | None = None, turn: TurnResult | None = None) -> Liveness:
        """Failed is a veto, whatever else passed; in doubt asks for a turn or for digits. Scores in millionths."""
        read = [
            _read(ppm, pass_min, veto_below)
            for ppm, pass_min, veto_below in (
                (device_ppm, self.pass_min, self.veto_below),
                (net_ppm, self.net_pass_min, self.net_veto_below),
            )
            if ppm is not None
        ]
        if Liveness.FAILED in read or turn in (TurnResult.ANOTHER_FACE, TurnResult.SAME_FRAME):
            return Liveness.FAILED
        if turn is not None:
            return Liveness.PASSED if turn is TurnResult.TURNED else Liveness.IN_DOUBT
        if self.challenge is ChallengeMode.ALWAYS or Liveness.IN_DOUBT in read:
            return Liveness.IN_DOUBT
        if not read:
            return Liveness.IN_DOUBT if self.required else Liveness.NOT_CHECKED
        return Liveness.PASSED

    def judge_turn(
        self, first: Landmarks, second: Landmarks, side: Side, cosine: float, *, same_image: bool = False
    ) -> TurnResult:
        """The second frame against the first, which looked straight. `cosine`: of their embeddings; `same_image`: their
        files are equal to the byte."""
        if cosine < self.same_face_min:
            return TurnResult.ANOTHER_FACE
        if same_image or (cosine >= self.same_frame_min and _moved(first, second) <= self.same_frame_eye_max):
            return TurnResult.SAME_FRAME
        moved = nose_motion(first, second)
        toward = moved if side is Side.LEFT else -moved
        if toward >= self.turn_min:
            return TurnResult.TURNED
        return TurnResult.WRONG_WAY if toward <= -self.turn_min else TurnResult.NOT_TURNED


FRAMES_APART_MS_MAX = 20_000
"""From the frame that asked for a turn to the one that answers it: 15 s to turn, 3 s for a worker, and a reserve."""


def in_time(at_ms: int, asked_ms: int) -> bool:
    """Whether a frame may still answer a turn that was asked for upon a frame at `asked_ms`; else it is a first one."""
    return 0 <= at_ms - asked_ms <= FRAMES_APART_MS_MAX


NO_CHALLENGE = Challenge()
PLAIN = LivenessPolicy()
"""Scores are read where a device vouches for them; nothing is required and nobody is asked to turn."""


def nose_motion(first: Landmarks, second: Landmarks) -> float:
    """How far the nose moved against the plane of eyes and mouth, along the eye line of the second frame.

    In its eye distances; positive when the head turned to the subject's left. The plane's own motion is the affine map
    that brings the four other points nearest to where they are now (least squares), which every motion of a flat
    picture before a distant camera is. 0.0 when the points have no plane.
    """
    plane, now = (first[0], first[1], first[3], first[4]), (second[0], second[1], second[3], second[4])
    mapped = _map_affine(plane, now, first[2])
    along = (now[1][0] - now[0][0], now[1][1] - now[0][1])
    square = along[0] ** 2 + along[1] ** 2
    if mapped is None or square < 1e-9:
        return 0.0
    return ((second[2][0] - mapped[0]) * along[0] + (second[2][1] - mapped[1]) * along[1]) / square


def _moved(first: Landmarks, second: Landmarks) -> float:
    """The farthest that any point moved along an axis, in eye distances of the first frame."""
    (x0, y0), (x1, y1) = first[:2]
    moves = [abs(a - b) for one, other in zip(first, second, strict=True) for a, b in zip(one, other, strict=True)]
    return max(moves) / max(math.hypot(x1 - x0, y1 - y0), 1e-9)


def _map_affine(source: tuple[Point, ...], target: tuple[Point, ...], point: Point) -> Point | None:
    """Where the least-squares affine map source -> target brings a point; None when the sources lie on a line."""
    n = len(source)
    sx, sy = (sum(p[axis] for p in source) / n for axis in (0, 1))
    tx, ty = (sum(p[axis] for p in target) / n for axis in (0, 1))
    xx = yy = xy = 0.0
    toward = [0.0, 0.0, 0.0, 0.0]
    for (x, y), (u, v) in zip(source, target, strict=True):
        x, y, u, v = x - sx, y - sy, u - tx, v - ty
        xx, yy, xy = xx + x * x, yy + y * y, xy + x * y
        toward = [toward[0] + u * x, toward[1] + u * y, toward[2] + v * x, toward[3] + v * y]
    determinant = xx * yy - xy * xy
    if determinant <= 1e-6 * max(xx, yy) ** 2:
        return None
    dx, dy = point[0] - sx, point[1] - sy
    a, b = (dx * yy - dy * xy) / determinant, (dy * xx - dx * xy) / determinant
    return tx + toward[0] * a + toward[1] * b, ty + toward[2] * a + toward[3] * b


def _read(ppm: int, pass_min: float, veto_below: float) -> Liveness:
    score = ppm / 1_000_000
    if score < veto_below:
        return Liveness.FAILED
    return Liveness.PASSED if score >= pass_min else Liveness.IN_DOUBT
