"""The door for images: size from the header before a decoder allocates anything, and whole files only."""

from __future__ import annotations

import struct

import cv2
import numpy as np
from numpy.typing import NDArray

from models.domain.face_quality import JPEG_BYTES_MAX, JPEG_PIXELS_MAX, LookReason

Pixels = NDArray[np.uint8]
"""Height x width x 3, blue green red."""

_FRAME_HEADERS = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
_BARE = frozenset({0x01, *range(0xD0, 0xD9)})
_START_OF_SCAN = 0xDA
_END = b"\xff\xd9"


def decode_jpeg(
    jpeg: bytes, *, bytes_max: int = JPEG_BYTES_MAX, pixels_max: int = JPEG_PIXELS_MAX
) -> Pixels | LookReason:
    """The image in BGR, or why not: `not_jpeg`, `too_large`, `corrupt_jpeg`.

    A file that ends before its end marker is corrupt: half a picture is no evidence of a face.
    """
    if len(jpeg) > bytes_max:
        return LookReason.TOO_LARGE
    if not jpeg.startswith(b"\xff\xd8\xff"):
        return LookReason.NOT_JPEG
    header = _walk(jpeg)
    if header is None:
        return LookReason.CORRUPT_JPEG
    width, height, scan_at = header
    if width * height > pixels_max:
        return LookReason.TOO_LARGE
    if width * height == 0 or jpeg.rfind(_END) < scan_at:
        return LookReason.CORRUPT_JPEG
    try:
        pixels = cv2.imdecode(np.frombuffer(jpeg, np.uint8), cv2.IMREAD_COLOR)
    except cv2.error:
        return LookReason.CORRUPT_JPEG
    if pixels is None or pixels.ndim != 3:
        return LookReason.CORRUPT_JPEG
    return np.asarray(pixels, dtype=np.uint8)


def jpeg_size(jpeg: bytes) -> tuple[int, int] | None:
    """(width, height) as the frame header says, or None when there is no whole header (ITU-T T.81, B.2.2)."""
    header = _walk(jpeg)
    return None if header is None else header[:2]


def _walk(jpeg: bytes) -> tuple[int, int, int] | None:
    """(width, height, offset of the first scan), walking the segments."""
    at, size = 2, None
    while at + 4 <= len(jpeg):
        if jpeg[at] != 0xFF:
            return None
        marker = jpeg[at + 1]
        if marker == 0xFF:  # fill byte
            at += 1
            continue
        if marker in _BARE:
            at += 2
            continue
        (length,) = struct.unpack_from(">H", jpeg, at + 2)
        if length < 2:
            return None
        if marker in _FRAME_HEADERS:
            if at + 9 > len(jpeg):
                return None
            height, width = struct.unpack_from(">HH", jpeg, at + 5)
            size = (width, height)
        if marker == _START_OF_SCAN:
            return None if size is None else (*size, at)
        at += 2 + length
    return None
