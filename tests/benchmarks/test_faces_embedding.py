from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest

from models.faces.catalogue import load_catalogue, recognisers
from models.faces.embed import FaceEmbedder
from models.faces.nets import build_recogniser
from runtime.bench.faces_embedding import ROUNDS_MIN, Run, folded_file, timed

pytestmark = pytest.mark.faces


def test_opencv_s_recogniser_takes_the_folded_file_and_sees_the_same(tmp_path: Path) -> None:
    """The baseline of the benchmark is the same net: it refuses the file as published."""
    entry = recognisers(load_catalogue())[0]
    opencv = cv2.FaceRecognizerSF.create(str(folded_file(entry, tmp_path)), "")
    built = build_recogniser(tmp_path, entry)
    ours = FaceEmbedder(built.path, built.feed)
    crop = np.random.default_rng(2).integers(0, 256, (112, 112, 3), dtype=np.uint8)
    theirs = np.asarray(opencv.feature(crop), np.float64).ravel()
    assert float(ours.embed(crop) @ theirs / np.linalg.norm(theirs)) >= 0.99999


def test_trials_take_turns_on_the_same_inputs() -> None:
    seen: list[tuple[str, int]] = []

    def noting(name: str) -> Run:
        return lambda i: seen.append((name, i))

    speeds = timed({name: noting(name) for name in ("a", "b")}, 3, 0.0)
    assert list(speeds) == ["a", "b"]
    trials = seen[2:]  # the first of each is to warm up
    assert trials == [(name, trial % 3) for trial in range(ROUNDS_MIN) for name in ("a", "b")]
