"""Is what the worker saw alive? Weighs its evidence, and seals the frame before a turn of the head."""

from __future__ import annotations

import struct
from collections.abc import Mapping
from dataclasses import dataclass
from operator import mul

from actors.face_ports import Vault
from models.domain.liveness import ChallengeMode, Landmarks, Liveness, LivenessPolicy, TurnResult
from models.domain.nets import pack, unpack
from models.domain.recognition import Decision, DigitsReason, Embedding, IdentifyRequest, Seen

FIRST = "first_frame"
"""Kind of the sealed blob: it can never be passed off as a probe or a shot."""

_POINTS = struct.Struct("<10d")


@dataclass(frozen=True, slots=True)
class Weighed:
    """What to search for, by net, and whether it was alive. After a turn it is the first frame that is searched for:
    it looked straight."""

    liveness: Liveness
    probes: Mapping[str, Embedding]


def weigh(
    vault: Vault, request: IdentifyRequest, seen: Seen, probes: Mapping[str, Embedding], policy: LivenessPolicy
) -> Weighed:
    """Device's score, net's score and turn together. Raises Refused when the first frame does not open any more."""
    turn: TurnResult | None = None
    challenge = request.challenge
    if challenge.first is not None and challenge.asked is not None:
        points, first = _opened(vault.open(request.visit_key, request.session, FIRST, challenge.first))
        turn = TurnResult.NOT_TURNED
        common = next((net for net in probes if net in first), None)
        if seen.landmarks is not None and common is not None:
            alike = _cosine(first[common], probes[common])
            turn = policy.judge_turn(points, seen.landmarks, challenge.asked, alike)
        probes = first
    return Weighed(policy.judge(request.liveness_ppm, net_ppm=seen.liveness_ppm, turn=turn), probes)


def may_turn(request: IdentifyRequest, decision: Decision, policy: LivenessPolicy) -> bool:
    """Only liveness is missing, and a turn may be asked for. Where digits are asked anyway they are the way."""
    return (
        decision.record.reason == DigitsReason.LIVENESS_IN_DOUBT.value
        and policy.challenge is not ChallengeMode.OFF
        and request.challenge.following is not None
        and not request.digits_required
    )


def first_frame(
    vault: Vault, request: IdentifyRequest, seen: Seen, probes: Mapping[str, Embedding], policy: LivenessPolicy
) -> bytes | None:
    """The sealed frame that a turn is held against: the one of an earlier try, else this; None: it looked aside."""
    if request.challenge.first is not None:
        return request.challenge.first
    if seen.landmarks is None or seen.quality.nose_offset > policy.straight_max:
        return None
    points = _POINTS.pack(*(axis for point in seen.landmarks for axis in point))
    return vault.seal(request.visit_key, request.session, FIRST, points + pack(probes))


def _opened(payload: bytes) -> tuple[Landmarks, Mapping[str, Embedding]]:
    right, left, nose, mouth_right, mouth_left = struct.iter_unpack("<2d", payload[: _POINTS.size])
    return (right, left, nose, mouth_right, mouth_left), unpack(payload[_POINTS.size :])


def _cosine(one: Embedding, other: Embedding) -> float:
    """Of unit vectors of one net."""
    form = f"<{len(one) // 4}f"
    return float(sum(map(mul, struct.unpack(form, one), struct.unpack(form, other))))
