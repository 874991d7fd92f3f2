"""The door for images: everything that a header can say is read before a decoder allocates anything.

One picture per file: what follows the first end marker (a second picture, a video) is never decoded. OpenCV's
decoder turns the picture upright by its EXIF orientation, all eight of them, from either byte order.
"""

from __future__ import annotations

import re
import struct
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from models.domain.face_quality import JPEG_BYTES_MAX, JPEG_PIXELS_MAX, LookReason

Pixels = NDArray[np.uint8]
"""Height x width x 3, blue green red."""

SCANS_MAX = 16
"""A progressive file has about ten. Each costs a walk over all blocks, however few bytes it has: 192 KiB have room
for thousands, which is minutes of one core."""

SEGMENTS_MAX = 1024
"""Segments before and between the scans; cameras write tens."""

_FRAMES_DECODED = frozenset({0xC0, 0xC1, 0xC2})
"""Baseline, extended sequential, progressive; all by Huffman codes (ITU-T T.81, table B.1)."""
_FRAMES_OTHER = frozenset({0xC3, 0xC5, 0xC6, 0xC7, 0xC9, 0xCA, 0xCB, 0xCD, 0xCE, 0xCF, 0xCC, 0xDE, 0xDF})
"""Lossless, differential, arithmetic coding and its conditions, hierarchical."""
_BARE = frozenset({0x01, *range(0xD0, 0xD8)})
_START_OF_IMAGE, _END_OF_IMAGE, _START_OF_SCAN = 0xD8, 0xD9, 0xDA
_AFTER_SCAN = re.compile(rb"\xff[\x01-\xcf\xd8-\xfe]")
"""The first marker after coded data: not a stuffed zero, not a restart, not a fill byte (T.81, B.1.1.5)."""


@dataclass(frozen=True, slots=True)
class _Header:
    """What the frame header says, and where the picture ends (None: it does not)."""

    width: int
    height: int
    end: int | None


def decode_jpeg(
    jpeg: bytes, *, bytes_max: int = JPEG_BYTES_MAX, pixels_max: int = JPEG_PIXELS_MAX
) -> Pixels | LookReason:
    """The image upright in BGR, or why not: `not_jpeg`, `too_large`, `unsupported_jpeg`, `corrupt_jpeg`.

    A file that ends before its end marker is corrupt: half a picture is no evidence of a face. Time and memory are
    bounded by pixels_max and SCANS_MAX (docs: faces, Bad input). Never raises on any bytes.
    """
    if len(jpeg) > bytes_max:
        return LookReason.TOO_LARGE
    if not jpeg.startswith(b"\xff\xd8\xff"):
        return LookReason.NOT_JPEG
    header = _walk(jpeg, pixels_max)
    if isinstance(header, LookReason):
        return header
    if header.end is None:
        return LookReason.CORRUPT_JPEG
    try:
        pixels = cv2.imdecode(np.frombuffer(jpeg, np.uint8, header.end), cv2.IMREAD_COLOR)
    except cv2.error:
        return LookReason.CORRUPT_JPEG
    if pixels is None or pixels.ndim != 3:
        return LookReason.CORRUPT_JPEG
    return np.asarray(pixels, dtype=np.uint8)


def jpeg_size(jpeg: bytes) -> tuple[int, int] | None:
    """(width, height) as the frame header says, before any turn by EXIF; None for a file that is refused."""
    header = _walk(jpeg, JPEG_PIXELS_MAX) if jpeg.startswith(b"\xff\xd8\xff") else LookReason.NOT_JPEG
    return None if isinstance(header, LookReason) else (header.width, header.height)


def _walk(jpeg: bytes, pixels_max: int) -> _Header | LookReason:
    """Every segment and scan up to the end marker (ITU-T T.81, annex B)."""
    at, scans, size = 2, 0, None
    for _ in range(SEGMENTS_MAX):
        while at + 1 < len(jpeg) and jpeg[at : at + 2] == b"\xff\xff":  # fill bytes
            at += 1
        if at + 2 > len(jpeg) or jpeg[at] != 0xFF:
            break
        marker = jpeg[at + 1]
        if marker == _END_OF_IMAGE:
            return LookReason.CORRUPT_JPEG if size is None or not scans else _Header(*size, at + 2)
        if marker == _START_OF_IMAGE or marker in _FRAMES_OTHER:
            return LookReason.CORRUPT_JPEG if marker == _START_OF_IMAGE else LookReason.UNSUPPORTED_JPEG
        if marker in _BARE:
            at += 2
            continue
        if at + 4 > len(jpeg):
            break
        (length,) = struct.unpack_from(">H", jpeg, at + 2)
        if length < 2:
            return LookReason.CORRUPT_JPEG
        if marker in _FRAMES_DECODED:
            frame = LookReason.CORRUPT_JPEG if size else _frame(jpeg[at + 4 : at + 2 + length], length - 2, pixels_max)
            if isinstance(frame, LookReason):
                return frame
            size = frame
        at += 2 + length
        if marker == _START_OF_SCAN:
            scans += 1
            if size is None or scans > SCANS_MAX:
                return LookReason.CORRUPT_JPEG if size is None else LookReason.TOO_LARGE
            found = _AFTER_SCAN.search(jpeg, at)
            if found is None:
                break
            at = found.start()
    return LookReason.CORRUPT_JPEG if size is None or not scans else _Header(*size, None)


def _frame(body: bytes, length: int, pixels_max: int) -> tuple[int, int] | LookReason:
    """(width, height) of a frame header whose picture we decode: 8 bits, grey or three components."""
    if len(body) < length or length < 6:
        return LookReason.CORRUPT_JPEG
    precision, height, width, components = struct.unpack_from(">BHHB", body)
    if width * height > pixels_max:
        return LookReason.TOO_LARGE
    if precision != 8 or components == 4:  # 12 and 16 bits; CMYK and YCCK
        return LookReason.UNSUPPORTED_JPEG
    if components not in (1, 3) or length != 6 + 3 * components or width * height == 0:
        return LookReason.CORRUPT_JPEG
    return width, height
