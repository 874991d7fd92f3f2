"""Frames of a camera or a recorded clip as JPEGs that a terminal may send. OpenCV is loaded only when asked for."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from models.domain.errors import NeedsOperator

if TYPE_CHECKING:
    from models.faces.jpeg import Pixels

LONGEST_SIDE_PX = 1280
JPEG_QUALITY = 90
WARM_UP_FRAMES = 5
"""A camera's first frames are dark: it still measures the light."""
STALE_FRAMES = 2
"""What the driver kept since the last picture: an old moment, not the one that the customer sees."""


class Camera:
    """One video source. Blocking: call it from a thread. A clip begins again at its end."""

    def __init__(self, source: str) -> None:
        """`source`: a camera's number, or the path of a video file. Raises NeedsOperator `no_camera`."""
        os.environ.setdefault("OPENCV_LOG_LEVEL", "ERROR")  # read when it is loaded
        try:
            import cv2
        except ImportError as error:
            raise NeedsOperator("no_camera", "OpenCV is not installed", "pip install opencv-python-headless") from error
        self._cv2 = cv2
        self._clip = not source.isdigit()
        if self._clip and not Path(source).is_file():
            raise NeedsOperator("no_camera", f"there is no file {source}", "give a camera's number or a video file")
        self._source = source
        self._capture: Any = cv2.VideoCapture(source if self._clip else int(source))
        if not self._capture.isOpened():
            self._capture.release()
            raise NeedsOperator("no_camera", f"camera {source} does not open", _what_to_do(self._clip))
        for _ in range(0 if self._clip else WARM_UP_FRAMES):
            self._capture.read()

    def photo(self) -> bytes:
        """The present moment as one JPEG of at most 192 KiB, the whole frame. Raises NeedsOperator `no_picture`."""
        from models.faces.variations import encode_bounded

        return encode_bounded(self._smaller(self._frame()), JPEG_QUALITY)

    def _frame(self) -> Pixels:
        for _ in range(0 if self._clip else STALE_FRAMES):
            self._capture.grab()
        done, frame = self._capture.read()
        if not done and self._clip:
            self._capture.set(self._cv2.CAP_PROP_POS_FRAMES, 0)
            done, frame = self._capture.read()
        if not done or frame is None:
            raise NeedsOperator("no_picture", f"camera {self._source} gives no picture", _what_to_do(self._clip))
        picture: Pixels = frame
        return picture

    def _smaller(self, frame: Pixels) -> Pixels:
        scale = LONGEST_SIDE_PX / max(frame.shape[:2])
        if scale >= 1.0:
            return frame
        smaller: Any = self._cv2.resize(frame, None, fx=scale, fy=scale, interpolation=self._cv2.INTER_AREA)
        return cast("Pixels", smaller)

    def close(self) -> None:
        """Give the camera back."""
        self._capture.release()


def _what_to_do(clip: bool) -> str:
    if clip:
        return "is it a video that OpenCV reads? Motion JPEG in AVI always is"
    return "is one plugged in, is another program using it, may this user read /dev/video*? --photos works without one"
