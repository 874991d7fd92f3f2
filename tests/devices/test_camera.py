"""A clip stands in for a camera: frames come as JPEGs that a terminal may send."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest

from devices.camera import LONGEST_SIDE_PX, Camera
from devices.wire import FACE_BYTES_MAX
from models.domain.errors import NeedsOperator


def clip(path: Path, frames: int = 3, size: tuple[int, int] = (320, 240)) -> Path:
    """Motion JPEG whose frames differ in brightness."""
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"MJPG"), 10, size)
    assert writer.isOpened()
    for n in range(frames):
        writer.write(np.full((size[1], size[0], 3), 60 * (n + 1), np.uint8))
    writer.release()
    return path


def brightness(jpeg: bytes) -> int:
    picture = cv2.imdecode(np.frombuffer(jpeg, np.uint8), cv2.IMREAD_COLOR)
    assert picture is not None
    return round(float(picture.mean()))


def test_frames_follow_each_other_and_begin_again(tmp_path: Path) -> None:
    camera = Camera(str(clip(tmp_path / "clip.avi")))
    seen = [brightness(camera.photo()) for _ in range(4)]
    camera.close()
    assert [round(value / 60) for value in seen] == [1, 2, 3, 1]


def test_a_large_noisy_frame_is_made_to_fit(tmp_path: Path) -> None:
    path = tmp_path / "large.avi"
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"MJPG"), 10, (1920, 1080))
    writer.write(np.random.default_rng(1).integers(0, 256, (1080, 1920, 3), np.uint8))
    writer.release()
    camera = Camera(str(path))
    jpeg = camera.photo()
    camera.close()
    assert len(jpeg) <= FACE_BYTES_MAX
    picture = cv2.imdecode(np.frombuffer(jpeg, np.uint8), cv2.IMREAD_COLOR)
    assert picture is not None
    assert max(picture.shape) == LONGEST_SIDE_PX


@pytest.mark.parametrize("source", ["97", "no-such-file.avi"])
def test_without_a_camera_it_says_what_to_do(source: str) -> None:
    with pytest.raises(NeedsOperator) as caught:
        Camera(source)
    assert caught.value.code == "no_camera"
    assert caught.value.do


def test_a_file_that_is_no_video(tmp_path: Path) -> None:
    path = tmp_path / "notes.avi"
    path.write_text("no video")
    with pytest.raises(NeedsOperator) as caught:
        Camera(str(path))
    assert "Motion JPEG" in caught.value.do
