"""What is measured on a face, and the help that a dark one gets before it is refused."""

from __future__ import annotations

import math

import cv2
import numpy as np
from numpy.typing import NDArray

from models.domain.face_quality import QualityReport
from models.faces.detect import Face
from models.faces.jpeg import Pixels

DARK_LUMINANCE = 60.0
"""Below this mean (0 to 255) an image is enhanced before it is judged."""

_FOREHEAD, _CHIN = (slice(26, 42), slice(36, 76)), (slice(92, 108), slice(44, 68))
_EYES = (slice(28, 50), slice(63, 85))

Grey = NDArray[np.uint8]

GAMMA_TARGET = 110.0
"""Mean that an enhanced image is brought to."""


def luminance(pixels: Pixels) -> float:
    """Mean luma (ITU-R BT.601), 0 to 255."""
    blue, green, red, _ = cv2.mean(pixels)
    return 0.114 * blue + 0.587 * green + 0.299 * red


def measure(face: Face, crop: Pixels, faces: int, *, dark: float | None = None) -> QualityReport:
    """Quality of one face. `crop` is its aligned crop, enhanced when `dark` (the luminance before) is given."""
    grey = np.asarray(cv2.cvtColor(crop, cv2.COLOR_BGR2GRAY), np.uint8)
    (right_x, right_y), (left_x, left_y), (nose_x, nose_y) = face.landmarks[:3].tolist()
    across, down = left_x - right_x, left_y - right_y
    distance = max(math.hypot(across, down), 1e-6)
    aside = (nose_x - (left_x + right_x) / 2) * across + (nose_y - (left_y + right_y) / 2) * down
    edges = cv2.Laplacian(grey, cv2.CV_16S)  # whole numbers, of 1,020 at most
    return QualityReport(
        faces=faces,
        score=face.score,
        eye_distance_px=distance,
        sharpness=float(cv2.meanStdDev(edges)[1][0, 0]) ** 2,
        roll_deg=math.degrees(math.atan2(down, across)),
        nose_offset=abs(aside) / distance**2,
        luminance=cv2.mean(grey)[0] if dark is None else dark,
        enhanced=dark is not None,
        mouth_cover=mouth_cover(face.score, crop, grey),
        eye_light=eye_light(grey),
    )


def mouth_cover(score: float, crop: Pixels, grey: Grey) -> float:
    """How much speaks for a mask: the sum of three distances from uncovered faces, each in their standard deviations.

    The detector is less sure; the chin has another colour than the forehead; the dark line between the lips is not
    there. None is proof alone (beards, side light, a head turned aside), so that each counts up to 3.
    """
    forehead, chin = (cv2.mean(cv2.cvtColor(crop[at], cv2.COLOR_BGR2LAB)) for at in (_FOREHEAD, _CHIN))
    colour = math.hypot(chin[1] - forehead[1], chin[2] - forehead[2])
    line = cv2.reduce(grey[77:105, 46:67], 1, cv2.REDUCE_AVG, dtype=cv2.CV_32F)[:, 0]
    dark = float((line[:-10] + line[10:] - 2 * line[5:-5]).max())
    lips = dark / (float(cv2.meanStdDev(grey[30:100, 28:84])[1][0, 0]) + 1)
    signs = ((0.928 - score) / 0.010, (colour - 8.0) / 4.5, (3.1 - lips) / 1.2)
    return sum(max(-3.0, min(3.0, sign)) for sign in signs)


def eye_light(grey: Grey) -> float:
    """The lighter quarter of each eye's region against the skin around, of the lighter eye: 0.8 without glasses."""
    skin = max(_quantile(grey[26:38, 36:76], 0.5), _quantile(grey[66:74, 28:84], 0.5))
    lighter = max(_quantile(grey[44:60, columns], 0.75) for columns in _EYES)
    return lighter / (skin + 8)


def _quantile(patch: Grey, part: float) -> float:
    flat = patch.ravel()
    at = int(part * (flat.size - 1))
    return float(np.partition(flat, at)[at])


def expose(pixels: Pixels) -> Pixels:
    """A dark crop as a longer exposure would show it: one gain for all pixels, to a mean of 110.

    For the embedding, because exposure is a factor on the pixels: on ten people's photographs darkened to a
    quarter, the cosine with the bright original is 0.955 (untouched 0.927, gamma 0.910, gamma and CLAHE 0.832:
    equalising by tiles changes the face that the net knows).
    """
    gain = GAMMA_TARGET / max(luminance(pixels), 1.0)
    return np.asarray(np.clip(pixels * np.float32(gain) + np.float32(0.5), 0, 255), dtype=np.uint8)


def enhance(pixels: Pixels) -> Pixels:
    """Lift a dark image for the detector: gamma towards a mean of 110, then CLAHE on lightness (clip 2, 8 x 8)."""
    mean = min(max(luminance(pixels), 1.0), 254.0)
    gamma = math.log(GAMMA_TARGET / 255) / math.log(mean / 255)
    table = np.round(255 * (np.arange(256) / 255) ** gamma).astype(np.uint8)
    lab = cv2.cvtColor(cv2.LUT(pixels, table), cv2.COLOR_BGR2LAB)
    lightness = cv2.createCLAHE(clipLimit=2.0, tileGridSize=(8, 8)).apply(lab[:, :, 0])
    lab[:, :, 0] = lightness
    return np.asarray(cv2.cvtColor(lab, cv2.COLOR_LAB2BGR), dtype=np.uint8)
