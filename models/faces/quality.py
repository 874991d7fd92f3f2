"""What is measured on a face, and the help that a dark one gets before it is refused."""

from __future__ import annotations

import math

import cv2
import numpy as np

from models.domain.face_quality import QualityReport
from models.faces.detect import Face
from models.faces.jpeg import Pixels

DARK_LUMINANCE = 60.0
"""Below this mean (0 to 255) an image is enhanced before it is judged."""

GAMMA_TARGET = 110.0
"""Mean that an enhanced image is brought to."""


def luminance(pixels: Pixels) -> float:
    """Mean luma (ITU-R BT.601), 0 to 255."""
    return float(cv2.cvtColor(pixels, cv2.COLOR_BGR2GRAY).mean())


def measure(face: Face, crop: Pixels, faces: int, *, dark: float | None = None) -> QualityReport:
    """Quality of one face. `crop` is its aligned crop, enhanced when `dark` (the luminance before) is given."""
    grey = cv2.cvtColor(crop, cv2.COLOR_BGR2GRAY)
    right, left, nose = (face.landmarks[i].astype(np.float64) for i in range(3))
    line = left - right
    distance = max(float(np.hypot(*line)), 1e-6)
    return QualityReport(
        faces=faces,
        score=face.score,
        eye_distance_px=distance,
        sharpness=float(cv2.Laplacian(grey, cv2.CV_64F).var()),
        roll_deg=math.degrees(math.atan2(line[1], line[0])),
        nose_offset=abs(float((nose - (left + right) / 2) @ line)) / distance**2,
        luminance=float(grey.mean()) if dark is None else dark,
        enhanced=dark is not None,
    )


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
