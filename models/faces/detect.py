"""YuNet on onnxruntime: boxes and five landmarks, decoded as OpenCV's FaceDetectorYN does."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from models.faces.jpeg import Pixels
from models.faces.sessions import open_session

STRIDES = (8, 16, 32)
SCORE_MIN = 0.6
_BOTH_MIN = SCORE_MIN**2
"""Of class times object, whose root is the score."""
NMS_IOU_MAX = 0.3
FACES_MAX = 64
"""Per image: a poster full of faces costs no more than this many."""

BORDER = 0.5
"""Replicated border on each side of a tight crop, as a part of its side: without it YuNet misses most."""


@dataclass(frozen=True, slots=True)
class Face:
    """One face in pixels of the image it was looked for in.

    `landmarks`: 5 x 2, the subject's right eye, left eye, nose, right and left corner of the mouth.
    """

    box: tuple[float, float, float, float]
    landmarks: NDArray[np.float32]
    score: float

    @property
    def eye_distance_px(self) -> float:
        """Between the two eyes, in pixels."""
        return float(np.hypot(*(self.landmarks[1] - self.landmarks[0])))

    def moved(self, scale: float, dx: float, dy: float) -> Face:
        """In the coordinates of another image: scaled first, then shifted."""
        x, y, w, h = self.box
        return Face(
            (x * scale + dx, y * scale + dy, w * scale, h * scale),
            (self.landmarks * scale + np.array([dx, dy], np.float32)).astype(np.float32),
            self.score,
        )


class FaceDetector:
    """Finds faces. One thread, no state between calls."""

    def __init__(self, net: Path | bytes) -> None:
        self._session = open_session(net)
        self._input = self._session.get_inputs()[0].name
        self._outputs = [f"{part}_{s}" for part in ("cls", "obj", "bbox", "kps") for s in STRIDES]

    def find(self, pixels: Pixels, longest_side: int = 320) -> list[Face]:
        """Faces by falling score, in pixels of `pixels`.

        The image is shrunk so that its longest side is `longest_side` (never enlarged): 320 is enough at a
        counter, 640 for groups.
        """
        scale = min(1.0, longest_side / max(pixels.shape[:2]))
        small = _shrunk(pixels, scale) if scale < 1.0 else pixels
        return [face.moved(1 / scale, 0, 0) for face in self.find_as_is(small)]

    def find_in_tight_crop(self, pixels: Pixels, longest_side: int = 320) -> list[Face]:
        """As `find`, with a replicated border around an image that is all face."""
        height, width = pixels.shape[:2]
        top, left = int(height * BORDER), int(width * BORDER)
        whole = height + 2 * top
        step = whole // math.gcd(whole, longest_side)
        if height == width and whole > longest_side and top % step == 0:
            # So many of its pixels become a whole number of pixels: what lies farther out is the same before and after.
            scale = longest_side / whole
            small = _shrunk(_bordered(pixels, step, step), scale)
            outside = (longest_side - len(small)) // 2
            found = self.find_as_is(_bordered(small, outside, outside))
            return [face.moved(1 / scale, -left, -top) for face in found]
        return [face.moved(1, -left, -top) for face in self.find(_bordered(pixels, top, left), longest_side)]

    def find_as_is(self, pixels: Pixels) -> list[Face]:
        """Faces by falling score at the image's own size."""
        height, width = pixels.shape[:2]
        right, bottom = -width % 32, -height % 32
        if right or bottom:
            black = (0, 0, 0)
            pixels = np.asarray(
                cv2.copyMakeBorder(pixels, 0, bottom, 0, right, cv2.BORDER_CONSTANT, value=black), np.uint8
            )
        out = self._session.run(self._outputs, {self._input: cv2.dnn.blobFromImage(pixels)})
        faces: list[NDArray[np.float32]] = []
        for i, stride in enumerate(STRIDES):
            cls, obj, box, points = (np.asarray(out[3 * part + i])[0] for part in range(4))
            both = (cls * obj)[:, 0]  # sigmoids
            keep = np.flatnonzero(both >= _BOTH_MIN)
            if not keep.size:
                continue
            score = np.sqrt(both[keep])
            columns = pixels.shape[1] // stride
            cell = np.stack([keep % columns, keep // columns], axis=1).astype(np.float32)
            centre = (cell + box[keep, :2]) * stride
            size = np.exp(box[keep, 2:]) * stride
            marks = (points[keep].reshape(-1, 5, 2) + cell[:, np.newaxis]) * stride
            faces.append(np.concatenate([centre - size / 2, size, marks.reshape(-1, 10), score[:, np.newaxis]], axis=1))
        if not faces:
            return []
        return _distinct(np.concatenate(faces))


def _bordered(pixels: Pixels, top: int, left: int) -> Pixels:
    return np.asarray(cv2.copyMakeBorder(pixels, top, top, left, left, cv2.BORDER_REPLICATE), np.uint8)


def _shrunk(pixels: Pixels, scale: float) -> Pixels:
    height, width = pixels.shape[:2]
    size = (max(1, round(width * scale)), max(1, round(height * scale)))
    return np.asarray(cv2.resize(pixels, size, interpolation=cv2.INTER_AREA), np.uint8)


def _distinct(rows: NDArray[np.float32]) -> list[Face]:
    """Non-maximum suppression: the best of each heap of boxes that overlap by more than NMS_IOU_MAX."""
    rows = rows[np.argsort(-rows[:, 14], kind="stable")]
    kept: list[Face] = []
    while len(rows) and len(kept) < FACES_MAX:
        x, y, w, h = (float(v) for v in rows[0, :4])
        kept.append(Face((x, y, w, h), rows[0, 4:14].reshape(5, 2).astype(np.float32), float(rows[0, 14])))
        rest = rows[1:]
        across = np.minimum(x + w, rest[:, 0] + rest[:, 2]) - np.maximum(x, rest[:, 0])
        down = np.minimum(y + h, rest[:, 1] + rest[:, 3]) - np.maximum(y, rest[:, 1])
        common = np.clip(across, 0, None) * np.clip(down, 0, None)
        union = w * h + rest[:, 2] * rest[:, 3] - common
        rows = rest[common <= NMS_IOU_MAX * union]
    return kept
