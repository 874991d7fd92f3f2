"""What is done in fewer steps gives what the plain way gives."""

from __future__ import annotations

import math

import cv2
import numpy as np
import pytest

from models.faces.align import REFERENCE, align, misalignment_px, similarity
from models.faces.detect import Face, FaceDetector
from models.faces.jpeg import Pixels, decode_jpeg
from models.faces.nets import Nets
from models.faces.pipeline import CROP_SIDE, FacePipeline
from models.faces.quality import measure

pytestmark = pytest.mark.faces


@pytest.fixture(scope="module")
def seen(pipeline: FacePipeline, portrait: bytes) -> tuple[Face, Pixels]:
    """A face, and its aligned crop."""
    pixels = decode_jpeg(portrait)
    assert isinstance(pixels, np.ndarray)
    face = pipeline.faces(pixels)[0]
    return face, align(pixels, face.landmarks)


@pytest.mark.parametrize("side", [112, 168, 113, 90])
def test_a_border_after_shrinking_is_the_border_before(nets: Nets, seen: tuple[Face, Pixels], side: int) -> None:
    """At 112 and 168 the grids of both images meet at the border, at the others it is added first."""
    detector = FaceDetector(nets.detector_path)
    crop = np.asarray(cv2.resize(seen[1], (side, side)), np.uint8)
    border = side // 2
    whole = cv2.copyMakeBorder(crop, border, border, border, border, cv2.BORDER_REPLICATE)
    plain = [face.moved(1, -border, -border) for face in detector.find(np.asarray(whole, np.uint8), CROP_SIDE)]
    found = detector.find_in_tight_crop(crop, CROP_SIDE)
    assert len(found) == len(plain) == 1
    assert found[0].score == plain[0].score
    assert np.array_equal(found[0].landmarks, plain[0].landmarks)
    assert found[0].box == plain[0].box


def test_a_face_is_measured_as_by_plain_formulas(seen: tuple[Face, Pixels]) -> None:
    face, crop = seen
    report = measure(face, crop, 1)
    grey = cv2.cvtColor(crop, cv2.COLOR_BGR2GRAY)
    right, left, nose = face.landmarks[:3].astype(np.float64)
    line = left - right
    assert report.sharpness == pytest.approx(float(cv2.Laplacian(grey, cv2.CV_64F).var()), rel=1e-12)
    assert report.luminance == pytest.approx(float(grey.mean()), rel=1e-12)
    assert report.eye_distance_px == pytest.approx(float(np.hypot(*line)), rel=1e-12)
    assert report.roll_deg == pytest.approx(math.degrees(math.atan2(line[1], line[0])), rel=1e-12)
    assert report.nose_offset == pytest.approx(abs((nose - (left + right) / 2) @ line) / (line @ line), rel=1e-9)


def test_misalignment_is_what_the_warp_still_moves(seen: tuple[Face, Pixels]) -> None:
    landmarks = seen[0].landmarks
    warp = similarity(landmarks)
    moved = REFERENCE @ warp[:, :2].T + warp[:, 2]
    assert misalignment_px(landmarks) == pytest.approx(float(np.hypot(*(moved - REFERENCE).T).mean()), rel=1e-9)
    assert misalignment_px(np.ones((5, 2), np.float32)) == math.inf
