"""What stands between a camera and a face, drawn over photographs: masks, dark glasses, darkness, a tilted print.

Seeded: the same photograph and seed give the same pixels.
"""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

from models.faces.align import align
from models.faces.detect import Face
from models.faces.jpeg import Pixels
from models.faces.quality import luminance

FABRICS = ("white", "blue", "black", "grey", "pink", "skin", "stripes", "checks", "dots", "clouds")
_PLAIN = {
    "white": (235, 235, 235),
    "blue": (215, 190, 140),
    "black": (35, 35, 35),
    "grey": (128, 128, 128),
    "pink": (190, 170, 235),
    "skin": (140, 170, 215),
}
Floats = NDArray[np.float64]


def masked(pixels: Pixels, face: Face, fabric: str, seed: int) -> Pixels:
    """A cloth from the bridge of the nose to below the chin, rounded by shade, with pleats or without."""
    rng = np.random.default_rng([seed, FABRICS.index(fabric)])
    right, left, _, mouth_right, mouth_left = face.landmarks.astype(np.float64)
    eyes, down = (right + left) / 2, (mouth_right + mouth_left) / 2 - (right + left) / 2
    side = float(np.hypot(*(left - right)))
    along, half, top = (left - right) / side, rng.uniform(0.85, 1.0) * side, rng.uniform(0.35, 0.6)
    outline = np.array([(-1, top + 0.1), (-0.5, top - 0.02), (0, top - 0.12), (0.5, top - 0.02), (1, top + 0.1)])
    outline = np.concatenate([outline, [(0.9, 1.25), (0.45, 1.75), (0, 1.9), (-0.45, 1.75), (-0.9, 1.25)]])
    corners = eyes + outline[:, :1] * half * along + outline[:, 1:] * down
    shape = np.zeros(pixels.shape[:2], np.uint8)
    cv2.fillPoly(shape, [np.round(corners * 16).astype(np.int32)], 255, shift=4, lineType=cv2.LINE_AA)
    y, x = np.mgrid[: pixels.shape[0], : pixels.shape[1]]
    from_eyes, length = np.stack([x, y], axis=-1) - eyes, float(np.hypot(*down))
    across, below = from_eyes @ along / half, from_eyes @ (down / length) / length
    shade = 1 - 0.35 * np.clip(np.abs(across), 0, 1) ** 2 - 0.15 * np.clip(below - 1.2, 0, 1)
    if rng.random() < 0.6:
        shade -= 0.08 * (np.sin(below * 2 * np.pi * rng.uniform(3, 5)) > 0.8)
    light = np.clip(luminance(align(pixels, face.landmarks)) / 140, 0.4, 1.3)
    cloth = _cloth(fabric, x, y, rng) * shade[..., np.newaxis] * light + rng.normal(0, 3, pixels.shape)
    return _over(pixels, cloth, cv2.GaussianBlur(shape, (0, 0), max(1.0, side / 40)))


def _cloth(fabric: str, x: NDArray[np.int64], y: NDArray[np.int64], rng: np.random.Generator) -> Floats:
    if fabric in _PLAIN:
        return np.broadcast_to(np.array(_PLAIN[fabric], np.float64), (*x.shape, 3))
    one, other, period = rng.integers(20, 236, 3), rng.integers(20, 236, 3), int(rng.integers(6, 18))
    if fabric == "stripes":
        pattern = ((x * rng.normal() + y) // period) % 2 < 1
    elif fabric == "checks":
        pattern = (x // period + y // period) % 2 < 1
    elif fabric == "dots":
        pattern = (x % period - period / 2) ** 2 + (y % period - period / 2) ** 2 < (period / 3) ** 2
    else:
        pattern = cv2.GaussianBlur(rng.normal(size=x.shape), (0, 0), period / 3) > 0
    return np.where(pattern[..., np.newaxis], one, other).astype(np.float64)


def in_dark_glasses(pixels: Pixels, face: Face, seed: int) -> Pixels:
    """Two dark lenses and a bridge."""
    rng = np.random.default_rng([seed, 77])
    right, left = face.landmarks[:2].astype(np.float64)
    side = float(np.hypot(*(left - right)))
    down = np.array([-(left - right)[1], (left - right)[0]]) / side
    turned = float(np.degrees(np.arctan2(*(left - right)[::-1])))
    shape = np.zeros(pixels.shape[:2], np.uint8)
    axes = (0.82 * side * rng.uniform(0.9, 1.05), 0.6 * side * rng.uniform(0.9, 1.1))
    for eye in (right, left):
        cv2.ellipse(shape, ((eye + 0.05 * side * down).tolist(), axes, turned), 255, -1, cv2.LINE_AA)
    ends = [tuple(np.round(eye).astype(int).tolist()) for eye in (right, left)]
    cv2.line(shape, ends[0], ends[1], 255, max(1, int(side * 0.06)))
    glass = rng.choice([20.0, 35.0, 50.0]) + rng.normal(0, 3, pixels.shape)
    return _over(pixels, glass, cv2.GaussianBlur(shape, (0, 0), max(0.6, side / 60)))


def _over(pixels: Pixels, cover: Floats, shape: NDArray[np.generic]) -> Pixels:
    part = (np.asarray(shape, np.float64) / 255)[..., np.newaxis]
    return np.asarray(np.clip(pixels * (1 - part) + cover * part, 0, 255), np.uint8)


def darkened(pixels: Pixels, part: float, seed: int) -> Pixels:
    """So much of the light, with the noise that a sensor has then."""
    rng = np.random.default_rng(seed)
    less = pixels * part
    noise = rng.normal(size=pixels.shape) * (1.5 + 0.25 * np.sqrt(less))
    return np.asarray(np.clip(less + noise, 0, 255), np.uint8)


def as_print(pixels: Pixels, face: Face, seed: int) -> Pixels:
    """The photograph as a print that somebody turns and tilts before the camera, in perspective."""
    rng = np.random.default_rng([seed, 5])
    height, width = pixels.shape[:2]
    yaw = np.radians(rng.choice([-1, 1]) * rng.uniform(15, 50))
    pitch, roll = np.radians(rng.uniform(-20, 20)), np.radians(rng.uniform(-15, 15))
    turn = np.array([[np.cos(yaw), 0, np.sin(yaw)], [0, 1, 0], [-np.sin(yaw), 0, np.cos(yaw)]])
    tilt = np.array([[1, 0, 0], [0, np.cos(pitch), -np.sin(pitch)], [0, np.sin(pitch), np.cos(pitch)]])
    lean = np.array([[np.cos(roll), -np.sin(roll), 0], [np.sin(roll), np.cos(roll), 0], [0, 0, 1]])
    away = rng.uniform(4, 12) * face.eye_distance_px
    corners = np.array([[0, 0], [width, 0], [width, height], [0, height]], np.float64)
    flat = np.concatenate([corners - face.landmarks.mean(axis=0), np.zeros((4, 1))], axis=1)
    there = flat @ (lean @ turn @ tilt).T + [0, 0, away]
    seen = there[:, :2] / there[:, 2:] * away + [width / 2, height / 2]
    warp = cv2.getPerspectiveTransform(corners.astype(np.float32), seen.astype(np.float32))
    return np.asarray(cv2.warpPerspective(pixels, warp, (width, height), borderMode=cv2.BORDER_REPLICATE), np.uint8)
