"""Turns of the head and masks on real photographs; an anti-spoofing net through the real runtime."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import cv2
import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from models.domain.errors import NeedsOperator
from models.domain.face_quality import PRODUCTION, FaceKind, LookPurpose, LookReason, covered
from models.domain.liveness import ChallengeMode, LivenessPolicy, Side, TurnResult, nose_motion
from models.domain.recognition import Seen
from models.faces.align import align
from models.faces.catalogue import NetEntry, load_entry, sha256_of
from models.faces.detect import Face
from models.faces.jpeg import Pixels, decode_jpeg
from models.faces.liveness import AntiSpoofing, landmarks_of
from models.faces.nets import Nets
from models.faces.pipeline import FacePipeline
from models.faces.quality import measure
from models.faces.variations import a_moment_later
from tests.faces.disguises import FABRICS, as_print, in_dark_glasses, masked

pytestmark = pytest.mark.faces


@dataclass(frozen=True)
class Photograph:
    person: int
    pixels: Pixels
    face: Face

    @property
    def aside(self) -> float:
        """Offset of the nose over the eye distance, positive to the subject's left."""
        right, left, nose = self.face.landmarks[:3].astype(np.float64)
        return float((nose - (right + left) / 2) @ (left - right) / ((left - right) @ (left - right)))


def nearest(pipeline: FacePipeline, pixels: Pixels, where: tuple[float, float]) -> Face | None:
    found = pipeline.faces(pixels, 320)
    return min(found, key=lambda one: float(np.hypot(*(one.landmarks.mean(axis=0) - where))), default=None)


@pytest.fixture(scope="module")
def photographs(pipeline: FacePipeline, lfw10: Path) -> list[Photograph]:
    taken = []
    for person, folder in enumerate(sorted(one for one in lfw10.iterdir() if one.is_dir())):
        for path in sorted(folder.glob("*.jpg")):
            pixels = decode_jpeg(path.read_bytes())
            assert isinstance(pixels, np.ndarray)
            face = nearest(pipeline, pixels, (pixels.shape[1] / 2, pixels.shape[0] / 2))
            assert face is not None
            taken.append(Photograph(person, pixels, face))
    return taken


def hidden(pipeline: FacePipeline, pixels: Pixels, photograph: Photograph) -> LookReason | None:
    x, y = photograph.face.landmarks.mean(axis=0)
    face = nearest(pipeline, pixels, (float(x), float(y)))
    return LookReason.NO_FACE if face is None else covered(measure(face, align(pixels, face.landmarks), 1))


def test_masks_and_dark_glasses_are_seen_and_bare_faces_are_not_told_of_any(
    pipeline: FacePipeline, photographs: list[Photograph]
) -> None:
    bare = [covered(measure(one.face, align(one.pixels, one.face.landmarks), 1)) for one in photographs]
    assert bare.count(LookReason.MASK) <= 1, "of a hundred"
    assert bare.count(LookReason.SUNGLASSES) == 1, "one of them does wear sunglasses"
    some = list(enumerate(photographs))[::3]
    worn = [hidden(pipeline, masked(one.pixels, one.face, FABRICS[n % 10], n), one) for n, one in some]
    assert sum(reason is not None for reason in worn) >= 0.93 * len(worn)
    dark = [hidden(pipeline, in_dark_glasses(one.pixels, one.face, n), one) for n, one in some]
    assert dark.count(LookReason.SUNGLASSES) >= 0.9 * len(dark)


def test_a_mask_is_asked_for_before_it_is_enrolled(
    pipeline: FacePipeline, photographs: list[Photograph], portrait: bytes
) -> None:
    one = next(each for each in photographs if each.person == 5)
    jpeg = cv2.imencode(".jpg", masked(one.pixels, one.face, "blue", 3), [cv2.IMWRITE_JPEG_QUALITY, 95])[1].tobytes()
    seen = pipeline.look(jpeg, kind=FaceKind.FRAME, purpose=LookPurpose.ENROL, policy=PRODUCTION)
    assert not isinstance(seen, Seen)
    assert seen.reason is LookReason.MASK
    asked = pipeline.look(jpeg, kind=FaceKind.FRAME, purpose=LookPurpose.ENROL, policy=PRODUCTION.mask_asked)
    assert isinstance(asked, Seen), "bare faces that measure as masked must enrol somehow"
    assert isinstance(pipeline.look(portrait, kind=FaceKind.FRAME, purpose=LookPurpose.ENROL, policy=PRODUCTION), Seen)


POLICY = LivenessPolicy(challenge=ChallengeMode.ALWAYS)


def test_heads_that_look_elsewhere_have_turned_and_prints_have_not(
    pipeline: FacePipeline, photographs: list[Photograph]
) -> None:
    straight = [one for one in photographs if abs(one.aside) <= POLICY.straight_max]
    turned = wrong = asked = 0
    for first in straight:
        for second in photographs:
            moved = second.aside - first.aside
            if first.person != second.person or abs(moved) < 0.25:
                continue
            asked += 1
            side = Side.LEFT if moved > 0 else Side.RIGHT
            result = POLICY.judge_turn(landmarks_of(first.face), landmarks_of(second.face), side, 1.0)
            turned += result is TurnResult.TURNED
            wrong += result is TurnResult.WRONG_WAY
    assert asked > 100
    assert turned == asked
    assert wrong == 0
    prints = []
    for n, one in enumerate(straight):
        pixels = as_print(one.pixels, one.face, n)
        face = nearest(pipeline, pixels, (pixels.shape[1] / 2, pixels.shape[0] / 2))
        if face is not None:
            prints.append(nose_motion(landmarks_of(one.face), landmarks_of(face)))
    assert len(prints) > 80
    assert sum(abs(moved) >= POLICY.turn_min for moved in prints) <= 3, "either way; one side is asked for"


def test_the_same_frame_twice_or_moved_is_no_turn(pipeline: FacePipeline, photographs: list[Photograph]) -> None:
    for one in photographs[::10]:
        for shift in ((0, 0), (12, -7)):
            warp = np.array([[0.95, -0.1, shift[0]], [0.1, 0.95, shift[1]]])
            pixels = np.asarray(cv2.warpAffine(one.pixels, warp, one.pixels.shape[1::-1]), np.uint8)
            x, y = warp[:, :2] @ one.face.landmarks.mean(axis=0) + warp[:, 2]
            face = nearest(pipeline, pixels, (float(x), float(y)))
            assert face is not None
            for side in Side:
                result = POLICY.judge_turn(landmarks_of(one.face), landmarks_of(face), side, 1.0)
                assert result is TurnResult.NOT_TURNED


# ---------------------------------------------------------------- a net by catalogue


def brightness_net(folder: Path, weight: float = 0.1, **changes: object) -> NetEntry:
    """Two classes from the mean of the blue channel: alive when it is bright. Softmax is left to the reader."""
    image = helper.make_tensor_value_info("image", TensorProto.FLOAT, ["N", 3, 80, 80])
    logits = helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["N", 2])
    weights = numpy_helper.from_array(np.array([[0, weight], [0, 0], [0, 0]], np.float32), "weights")
    bias = numpy_helper.from_array(np.array([0, -weight * 100], np.float32), "bias")
    nodes = [
        helper.make_node("GlobalAveragePool", ["image"], ["pooled"]),
        helper.make_node("Flatten", ["pooled"], ["means"]),
        helper.make_node("Gemm", ["means", "weights", "bias"], ["logits"]),
    ]
    graph = helper.make_graph(nodes, "brightness", [image], [logits], [weights, bias])
    net = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    onnx.save(net, folder / "brightness.onnx")
    (folder / "licence.txt").write_text("none")
    fields: dict[str, object] = {
        "name": "brightness",
        "kind": "liveness",
        "source": "this test",
        "file": "brightness.onnx",
        "sha256": sha256_of(folder / "brightness.onnx"),
        "licence": "none",
        "licence_file": "licence.txt",
        "input": "{tensor: image, layout: NCHW, colour: BGR, mean: 0, scale: 1, alignment: box, size_px: [80, 80]}",
        "alive": "{around: 2.7, index: 1, logits: true}",
        **changes,
    }
    (folder / "brightness.yaml").write_text("".join(f"{key}: {value}\n" for key, value in fields.items()))
    return load_entry(folder / "brightness.yaml")


def test_a_net_of_the_catalogue_is_fed_and_read_as_its_entry_says(tmp_path: Path) -> None:
    net = AntiSpoofing.of_catalogue((brightness_net(tmp_path),))
    assert net is not None
    face = Face((40, 40, 20, 20), np.zeros((5, 2), np.float32), 0.9)
    for value in (80, 100, 130):
        expected = 1 / (1 + np.exp(-0.1 * (value - 100)))
        pixels = np.zeros((100, 100, 3), np.uint8)
        pixels[:, :, 0] = value
        assert net.score_ppm(pixels, face) == pytest.approx(expected * 1e6, abs=5)
        pixels[20:80, 20:80, 0] = value
        pixels[:20], pixels[80:] = 0, 0
        assert net.score_ppm(pixels, face) == pytest.approx(expected * 1e6, rel=0.05, abs=5), "54 px around the box"
    edge = replace(face, box=(-500.0, 95.0, 4.0, 900.0))
    assert 0 <= net.score_ppm(np.zeros((100, 100, 3), np.uint8), edge) <= 1_000_000
    assert AntiSpoofing.of_catalogue(()) is None


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({"alive": "{around: 2.7, index: 2, logits: true}"}, "net_unfit"),
        ({"alive": "{around: 2.7, index: 1, logits: false}", "weight": 1.0}, "net_unfit"),
        ({"alive": "{around: 0.5, index: 1, logits: true}"}, "net_catalogue"),
        ({"alive": "{around: 2.7, index: 16, logits: true}"}, "net_catalogue"),
        ({"alive": "{index: 1, logits: true}"}, "net_catalogue"),
        ({"input": "{tensor: x, layout: NCHW, colour: BGR, mean: 0, scale: 1, alignment: box}"}, "net_catalogue"),
        (
            {"input": "{tensor: x, layout: NCHW, colour: BGR, mean: 0, scale: 1, alignment: box, size_px: [80, 80]}"},
            "net_unfit",
        ),
        ({"sha256": "ab" * 32}, "net_altered"),
    ],
)
def test_a_net_that_is_not_what_its_entry_says_is_refused_at_load(
    tmp_path: Path, changes: dict[str, object], code: str
) -> None:
    weight = changes.pop("weight", -1.0)
    assert isinstance(weight, float)
    with pytest.raises(NeedsOperator) as refused:
        AntiSpoofing.of_catalogue((brightness_net(tmp_path, weight, **changes),))
    assert refused.value.code == code


def test_two_liveness_nets_are_one_too_many(tmp_path: Path) -> None:
    entry = brightness_net(tmp_path)
    with pytest.raises(NeedsOperator, match="several"):
        AntiSpoofing.of_catalogue((entry, replace(entry, name="another")))


def test_the_net_s_score_comes_with_the_look(nets: Nets, portrait: bytes, tmp_path: Path) -> None:
    pipeline = FacePipeline(nets, anti_spoofing=AntiSpoofing(brightness_net(tmp_path)))
    probe = pipeline.look(portrait, kind=FaceKind.FRAME, purpose=LookPurpose.PROBE, policy=PRODUCTION)
    shot = pipeline.look(portrait, kind=FaceKind.FRAME, purpose=LookPurpose.ENROL, policy=PRODUCTION)
    assert isinstance(probe, Seen)
    assert isinstance(shot, Seen)
    assert probe.liveness_ppm is not None
    assert shot.liveness_ppm is None, "enrolment does not ask"
    assert probe.landmarks is not None
    assert probe.landmarks[0][0] < probe.landmarks[1][0], "the subject's right eye is at the left"


def test_a_still_person_is_another_frame_and_the_same_frame_is_not(
    pipeline: FacePipeline, photographs: list[Photograph]
) -> None:
    """Of one photograph of each: the same pixels under other bytes are one frame, a sensor's noise makes another."""
    for one in photographs[::50]:
        jpeg = cv2.imencode(".jpg", cv2.resize(one.pixels, None, fx=2.4, fy=2.4))[1].tobytes()
        first = seen_in(pipeline, jpeg)
        again = seen_in(pipeline, jpeg[:2] + b"\xff\xfe\x00\x06hell" + jpeg[2:])
        later = seen_in(pipeline, a_moment_later(jpeg, 1))
        assert judged(first, again) is TurnResult.SAME_FRAME
        assert judged(first, later) is TurnResult.NOT_TURNED
    assert a_moment_later(b"no image", 1) == b"no image"


def seen_in(pipeline: FacePipeline, jpeg: bytes) -> Seen:
    seen = pipeline.look(jpeg, kind=FaceKind.FRAME, purpose=LookPurpose.PROBE, policy=PRODUCTION)
    assert isinstance(seen, Seen)
    return seen


def judged(first: Seen, second: Seen) -> TurnResult:
    assert first.landmarks is not None
    assert second.landmarks is not None
    alike = float(np.frombuffer(first.embedding, np.float32) @ np.frombuffer(second.embedding, np.float32))
    return POLICY.judge_turn(first.landmarks, second.landmarks, Side.LEFT, alike)
