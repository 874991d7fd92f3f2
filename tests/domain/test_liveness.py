"""Liveness as a rule of values: a veto is a veto, and a flat picture has no depth however it is moved."""

from __future__ import annotations

import math
from itertools import product

import pytest
from hypothesis import given
from hypothesis import strategies as st

from models.domain.liveness import (
    ChallengeMode,
    Landmarks,
    Liveness,
    LivenessPolicy,
    Side,
    TurnResult,
    in_time,
    nose_motion,
)

HEAD = ((-32.0, 0.0, 0.0), (32.0, 0.0, 0.0), (0.0, 36.0, -24.0), (-25.0, 70.0, -2.0), (25.0, 70.0, -2.0))
"""Millimetres: eyes, nose before them, corners of the mouth; x to the subject's left as a camera sees it, z away."""

Point3 = tuple[float, float, float]


def seen(head: tuple[Point3, ...], yaw_deg: float, pitch_deg: float = 0.0, away_mm: float = 500.0) -> Landmarks:
    """Through a pinhole; a positive yaw is a turn to the subject's left."""
    yaw, pitch = math.radians(yaw_deg), math.radians(pitch_deg)
    points = []
    for x, y, z in head:
        x, z = x * math.cos(yaw) - z * math.sin(yaw), x * math.sin(yaw) + z * math.cos(yaw)
        y, z = y * math.cos(pitch) - z * math.sin(pitch), y * math.sin(pitch) + z * math.cos(pitch)
        points.append((600 * x / (z + away_mm), 600 * y / (z + away_mm)))
    a, b, c, d, e = points
    return a, b, c, d, e


FLAT = tuple((x, y, 0.0) for x, y, _ in HEAD)
STRAIGHT = seen(HEAD, 0)
POLICY = LivenessPolicy(challenge=ChallengeMode.ALWAYS)
angles = st.floats(-45, 45)


@pytest.mark.parametrize(("yaw", "side"), [(45, Side.LEFT), (30, Side.LEFT), (-45, Side.RIGHT), (-30, Side.RIGHT)])
def test_a_head_that_turns_is_seen_to_turn_and_where(yaw: float, side: Side) -> None:
    other = Side.RIGHT if side is Side.LEFT else Side.LEFT
    assert POLICY.judge_turn(STRAIGHT, seen(HEAD, yaw), side, 0.7) is TurnResult.TURNED
    assert POLICY.judge_turn(STRAIGHT, seen(HEAD, yaw), other, 0.7) is TurnResult.WRONG_WAY
    assert POLICY.judge_turn(STRAIGHT, seen(HEAD, yaw / 5), side, 0.7) is TurnResult.NOT_TURNED
    assert POLICY.judge_turn(STRAIGHT, seen(HEAD, yaw), side, 0.39) is TurnResult.ANOTHER_FACE


@given(angles, st.floats(-25, 25), st.floats(300, 3000), st.sampled_from(Side))
def test_a_photograph_never_turns(yaw: float, pitch: float, away_mm: float, side: Side) -> None:
    result = POLICY.judge_turn(STRAIGHT, seen(FLAT, yaw, pitch, away_mm), side, 0.9)
    assert result is TurnResult.NOT_TURNED
    assert POLICY.judge(None, turn=result) is Liveness.IN_DOUBT


@given(*[st.floats(-3, 3)] * 4, *[st.floats(-500, 500)] * 2)
def test_no_affine_motion_of_a_picture_is_depth(a: float, b: float, c: float, d: float, dx: float, dy: float) -> None:
    moved = tuple((a * x + b * y + dx, c * x + d * y + dy) for x, y in STRAIGHT)
    assert abs(nose_motion(STRAIGHT, moved)) < 0.05 or math.dist(moved[0], moved[1]) < 1  # type: ignore[arg-type]


@given(st.lists(st.tuples(st.floats(-1e4, 1e4), st.floats(-1e4, 1e4)), min_size=10, max_size=10))
def test_any_ten_points_give_a_number(points: list[tuple[float, float]]) -> None:
    first, second = tuple(points[:5]), tuple(points[5:])
    assert math.isfinite(nose_motion(first, second))  # type: ignore[arg-type]
    assert nose_motion(((1.0, 1.0),) * 5, STRAIGHT) == 0.0, "no plane"


JITTER = ((0.2, -0.1), (-0.1, 0.2), (0.1, 0.1), (0.0, -0.2), (0.1, 0.0))


@pytest.mark.parametrize(
    ("cosine", "moved", "same_image", "said"),
    [
        (1.0, 0.0, True, TurnResult.SAME_FRAME),  # sent again to the byte
        (0.5, 9.0, True, TurnResult.SAME_FRAME),  # whatever was measured in it
        (1.0, 0.0, False, TurnResult.SAME_FRAME),  # the same pixels under other bytes
        (0.9999, 0.3, False, TurnResult.SAME_FRAME),
        (0.9999, 2.0, False, TurnResult.NOT_TURNED),  # somebody who moved a little
        (0.9998, 0.0, False, TurnResult.NOT_TURNED),  # a camera's noise
        (0.39, 0.0, True, TurnResult.ANOTHER_FACE),
    ],
)
def test_one_frame_shown_twice_is_no_second_look(
    cosine: float, moved: float, same_image: bool, said: TurnResult
) -> None:
    """`moved`: how many times JITTER, of which one is 0.2 of the 77 pixels between the eyes: 0.0026."""
    second = tuple((x + moved * dx, y + moved * dy) for (x, y), (dx, dy) in zip(STRAIGHT, JITTER, strict=True))
    result = POLICY.judge_turn(STRAIGHT, second, Side.LEFT, cosine, same_image=same_image)  # type: ignore[arg-type]
    assert result is said
    assert POLICY.judge(900_000, turn=result) is (
        Liveness.IN_DOUBT if said is TurnResult.NOT_TURNED else Liveness.FAILED
    ), "a veto, whatever the device says"


@pytest.mark.parametrize(("apart_ms", "answers"), [(-1, False), (0, True), (20_000, True), (20_001, False)])
def test_a_frame_answers_a_turn_for_so_long(apart_ms: int, answers: bool) -> None:
    assert in_time(1_000_000 + apart_ms, 1_000_000) is answers


SCORES = (None, 0, 199_999, 200_000, 699_999, 700_000, 1_000_000)


@pytest.mark.parametrize("mode", ChallengeMode)
@pytest.mark.parametrize("required", [False, True])
def test_every_combination_of_evidence(mode: ChallengeMode, required: bool) -> None:
    policy = LivenessPolicy(required=required, challenge=mode)
    for device, net, turn in product(SCORES, SCORES, (None, *TurnResult)):
        said = policy.judge(device, net_ppm=net, turn=turn)
        scores = [score for score in (device, net) if score is not None]
        if min(scores, default=1_000_000) < 200_000 or turn in (TurnResult.ANOTHER_FACE, TurnResult.SAME_FRAME):
            assert said is Liveness.FAILED, "a veto, whatever else passed"
        elif turn is not None:
            assert said is (Liveness.PASSED if turn is TurnResult.TURNED else Liveness.IN_DOUBT)
        elif mode is ChallengeMode.ALWAYS or min(scores, default=1_000_000) < 700_000:
            assert said is Liveness.IN_DOUBT
        elif scores:
            assert said is Liveness.PASSED
        else:
            assert said is (Liveness.IN_DOUBT if required else Liveness.NOT_CHECKED)


def test_a_policy_that_contradicts_itself_is_none() -> None:
    for wrong in ({"pass_min": 0.1}, {"net_veto_below": 0.8}, {"veto_below": -0.1}, {"pass_min": 1.1}):
        with pytest.raises(ValueError, match="score"):
            LivenessPolicy(**wrong)  # type: ignore[arg-type]
    for wrong in ({"tries_max": 0.0}, {"same_face_min": 0.0}, {"turn_min": 0.0}, {"straight_max": 0.0}):
        with pytest.raises(ValueError, match="positive"):
            LivenessPolicy(**wrong)  # type: ignore[arg-type]
