"""YuNet on onnxruntime: boxes and five landmarks, decoded as OpenCV's FaceDetectorYN does."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from models.faces.jpeg import Pixels
from models.faces.sessions import open_session

STRIDES = (8, 16, 32)
SCORE_MIN = 0.6
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
        height, width = pixels.shape[:2]
        scale = min(1.0, longest_side / max(height, width))
        if scale < 1.0:
            size = (max(1, round(width * scale)), max(1, round(height * scale)))
            small = np.asarray(cv2.resize(pixels, size, interpolation=cv2.INTER_AREA), dtype=np.uint8)
        else:
            small = pixels
        return [face.moved(1 / scale, 0, 0) for face in self.find_as_is(small)]

    def find_in_tight_crop(self, pixels: Pixels, longest_side: int = 320) -> list[Face]:
        """As `find`, with a replicated border around an image that is all face."""
        height, width = pixels.shape[:2]
        top, left = int(height * BORDER), int(width * BORDER)
        padded = cv2.copyMakeBorder(pixels, top, top, left, left, cv2.BORDER_REPLICATE)
        return [face.moved(1, -left, -top) for face in self.find(np.asarray(padded, np.uint8), longest_side)]

    def find_as_is(self, pixels: Pixels) -> list[Face]:
        """Faces by falling score at the image's own size."""
        height, width = pixels.shape[:2]
        right, bottom = -width % 32, -height % 32
        padded = cv2.copyMakeBorder(pixels, 0, bottom, 0, right, cv2.BORDER_CONSTANT, value=(0, 0, 0))
        blob = np.ascontiguousarray(padded.transpose(2, 0, 1)[np.newaxis], dtype=np.float32)
        out = self._session.run(self._outputs, {self._input: blob})
        faces: list[NDArray[np.float32]] = []
        for i, stride in enumerate(STRIDES):
            cls, obj, box, points = (np.asarray(out[3 * part + i])[0] for part in range(4))
            score = np.sqrt(np.clip(cls[:, 0], 0, 1) * np.clip(obj[:, 0], 0, 1))
            keep = np.flatnonzero(score >= SCORE_MIN)
            if not keep.size:
                continue
            columns = padded.shape[1] // stride
            cell = np.stack([keep % columns, keep // columns], axis=1).astype(np.float32)
            centre = (cell + box[keep, :2]) * stride
            size = np.exp(box[keep, 2:]) * stride
            marks = (points[keep].reshape(-1, 5, 2) + cell[:, np.newaxis]) * stride
            faces.append(
                np.concatenate([centre - size / 2, size, marks.reshape(-1, 10), score[keep, np.newaxis]], axis=1)
            )
        if not faces:
            return []
        return _distinct(np.concatenate(faces))


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
