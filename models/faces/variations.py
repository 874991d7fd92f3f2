"""Camera variations of one photograph, for a demonstration that has no second one of anybody.

Seeded: the same photograph and seed give the same bytes on one installation. What is made here is labelled
`variations` wherever it is shown; it says nothing about the accuracy on real second photographs.
"""

from __future__ import annotations

import cv2
import numpy as np

from models.domain.face_quality import JPEG_BYTES_MAX
from models.faces.detect import Face
from models.faces.jpeg import Pixels

MARGIN = 1.0
"""Generous: as much around a face's box, on each side, as the box's own side, where no other face is met."""

FRAME_PX = 600
"""Longest side of a variation before its random scale: as a terminal's camera would show one customer."""

_JPEG_QUALITY, _JPEG_QUALITY_STEP = 90, 10


def cut_out(pixels: Pixels, face: Face, others: list[Face]) -> Pixels:
    """One face with a margin that stops short of everybody else's box."""
    height, width = pixels.shape[:2]
    x, y, w, h = face.box
    left, top, right, bottom = x - MARGIN * w, y - MARGIN * h, x + (1 + MARGIN) * w, y + (1 + MARGIN) * h
    for other in others:
        ox, oy, ow, oh = other.box
        if ox < right and ox + ow > left and oy < bottom and oy + oh > top:
            # Give way on the side where the least is lost.
            cuts = {"left": ox + ow - left, "right": right - ox, "top": oy + oh - top, "bottom": bottom - oy}
            possible = {
                "left": ox + ow <= x,
                "right": ox >= x + w,
                "top": oy + oh <= y,
                "bottom": oy >= y + h,
            }
            side = min((name for name in cuts if possible[name]), key=lambda name: cuts[name], default=None)
            left = ox + ow if side == "left" else left
            right = ox if side == "right" else right
            top = oy + oh if side == "top" else top
            bottom = oy if side == "bottom" else bottom
    x0, y0, x1, y1 = max(0, round(left)), max(0, round(top)), min(width, round(right)), min(height, round(bottom))
    return np.ascontiguousarray(pixels[y0:y1, x0:x1])


def vary(person: Pixels, seed: int) -> bytes:
    """One seeded JPEG of a cut-out person: shift, scale, gamma, noise, JPEG quality. At most 192 KiB."""
    rng = np.random.default_rng(seed)
    height, width = person.shape[:2]
    scale = FRAME_PX / max(height, width) * rng.uniform(0.85, 1.15)
    shift = rng.uniform(-0.05, 0.05, size=2) * (width * scale, height * scale)
    size = (round(width * scale), round(height * scale))
    warp = np.array([[scale, 0.0, shift[0]], [0.0, scale, shift[1]]])
    frame = cv2.warpAffine(person, warp, size, flags=cv2.INTER_CUBIC, borderMode=cv2.BORDER_REPLICATE)
    gamma = rng.uniform(0.75, 1.3)
    table = np.round(255 * (np.arange(256) / 255) ** gamma).astype(np.uint8)
    noise = rng.normal(0.0, rng.uniform(1.0, 5.0), frame.shape)
    noisy = np.clip(cv2.LUT(frame, table) + noise, 0, 255).astype(np.uint8)
    return encode_bounded(noisy, int(rng.integers(75, 96)))


def a_moment_later(jpeg: bytes, seed: int) -> bytes:
    """The same person standing still: a sensor never gives one frame twice. What is no image comes back as it is."""
    frame = cv2.imdecode(np.frombuffer(jpeg, np.uint8), cv2.IMREAD_COLOR) if jpeg else None
    if frame is None:
        return jpeg
    noise = np.random.default_rng(seed).normal(0.0, 1.0, frame.shape)
    return encode_bounded(np.clip(frame + noise, 0, 255).astype(np.uint8), _JPEG_QUALITY)


def encode_bounded(pixels: Pixels, quality: int) -> bytes:
    """A JPEG of at most 192 KiB: the quality falls until it fits."""
    while True:
        done, encoded = cv2.imencode(".jpg", pixels, [cv2.IMWRITE_JPEG_QUALITY, quality])
        assert done, "OpenCV encodes every 8-bit image"
        if len(encoded) <= JPEG_BYTES_MAX or quality <= _JPEG_QUALITY_STEP:
            return bytes(encoded.tobytes())
        quality -= _JPEG_QUALITY_STEP
