"""Is what the worker saw alive? Weighs its evidence, and seals the frame before a turn of the head."""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Mapping
from dataclasses import dataclass, replace
from operator import mul

from actors.face_ports import Vault
from models.domain.liveness import ChallengeMode, Landmarks, Liveness, LivenessPolicy, TurnResult, in_time
from models.domain.nets import pack, unpack
from models.domain.recognition import Decision, DigitsReason, Embedding, IdentifyRequest, Seen

FIRST = "turn"
"""Kind of the sealed blob: it can never be passed off as a probe or a shot."""

_HEAD = struct.Struct("<10dq32s32s")
"""Landmarks, when the turn was asked for, the SHA-256 of the camera's name and of the image."""


@dataclass(frozen=True, slots=True)
class FirstFrame:
    """The frame before a turn, as it is sealed: never the image itself."""

    points: Landmarks
    asked_ms: int
    camera: bytes
    image: bytes
    probes: Mapping[str, Embedding]

    def packed(self) -> bytes:
        """For the seal."""
        axes = (axis for point in self.points for axis in point)
        return _HEAD.pack(*axes, self.asked_ms, self.camera, self.image) + pack(self.probes)

    @classmethod
    def unpacked(cls, payload: bytes) -> FirstFrame:
        """What `packed` made."""
        *axes, asked_ms, camera, image = _HEAD.unpack_from(payload)
        right, left, nose, mouth_right, mouth_left = zip(axes[::2], axes[1::2], strict=True)
        points = (right, left, nose, mouth_right, mouth_left)
        return cls(points, asked_ms, camera, image, unpack(payload[_HEAD.size :]))


@dataclass(frozen=True, slots=True)
class Weighed:
    """What to search for, by net, and whether it was alive. After a turn it is the first frame that is searched for:
    it looked straight. `first`: the frame that this one answered; None: it answers none."""

    liveness: Liveness
    probes: Mapping[str, Embedding]
    first: FirstFrame | None = None


def weigh(
    vault: Vault, request: IdentifyRequest, seen: Seen, probes: Mapping[str, Embedding], policy: LivenessPolicy
) -> Weighed:
    """Device's score, net's score and turn together. Raises Refused when the first frame does not open any more."""
    turn: TurnResult | None = None
    first: FirstFrame | None = None
    challenge = request.challenge
    if challenge.first is not None and challenge.asked is not None:
        first = FirstFrame.unpacked(vault.open(request.visit_key, request.session, FIRST, challenge.first))
        if first.camera != _sha256(challenge.camera.encode()) or not in_time(challenge.at_ms, first.asked_ms):
            first = None
    if first is not None and challenge.asked is not None:
        turn = TurnResult.NOT_TURNED
        common = next((net for net in probes if net in first.probes), None)
        same_image = first.image == _sha256(request.jpeg)
        if seen.landmarks is not None and common is not None:
            alike = _cosine(first.probes[common], probes[common])
            turn = policy.judge_turn(first.points, seen.landmarks, challenge.asked, alike, same_image=same_image)
        probes = first.probes
    liveness = policy.judge(request.liveness_ppm, net_ppm=seen.liveness_ppm, turn=turn)
    if (
        first is None
        and challenge.first is not None
        and challenge.following is None
        and liveness is not Liveness.FAILED
    ):
        liveness = Liveness.IN_DOUBT  # the last turn was not answered by this frame, and no other may be asked for
    return Weighed(liveness, probes, first)


def may_turn(request: IdentifyRequest, decision: Decision, policy: LivenessPolicy) -> bool:
    """Only liveness is missing, and a turn may be asked for. Where digits are asked anyway they are the way."""
    return (
        decision.record.reason == DigitsReason.LIVENESS_IN_DOUBT.value
        and policy.challenge is not ChallengeMode.OFF
        and request.challenge.following is not None
        and not request.digits_required
    )


def first_frame(
    vault: Vault, request: IdentifyRequest, seen: Seen, alive: Weighed, policy: LivenessPolicy
) -> bytes | None:
    """The sealed frame that a turn is held against: the one of an earlier try, else this; None: it looked aside."""
    asked_ms = request.challenge.at_ms
    if alive.first is not None:
        first = replace(alive.first, asked_ms=asked_ms)
    elif seen.landmarks is None or seen.quality.nose_offset > policy.straight_max:
        return None
    else:
        camera, image = _sha256(request.challenge.camera.encode()), _sha256(request.jpeg)
        first = FirstFrame(seen.landmarks, asked_ms, camera, image, alive.probes)
    return vault.seal(request.visit_key, request.session, FIRST, first.packed())


def _sha256(octets: bytes) -> bytes:
    return hashlib.sha256(octets).digest()


def _cosine(one: Embedding, other: Embedding) -> float:
    """Of unit vectors of one net."""
    form = f"<{len(one) // 4}f"
    return float(sum(map(mul, struct.unpack(form, one), struct.unpack(form, other))))
