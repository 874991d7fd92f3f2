"""Builds the nets of the catalogue into files that onnxruntime runs fast, once, and keeps them in a cache by digest.

As published, block-quantised files do not load in onnxruntime, and it has no vector path for PReLU. The build folds
the weights, makes shapes dynamic and rewrites PReLU; the numbers stay those of OpenCV's own run of the published
file, checked here before a file enters the cache, and in tests on faces.
"""

from __future__ import annotations

import json
import os
import tempfile
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import onnx
from numpy.typing import NDArray

from models.domain.errors import NeedsOperator
from models.faces.catalogue import (
    Feed,
    NetEntry,
    NetKind,
    Precision,
    load_catalogue,
    published_file,
    recognisers,
    sha256_of,
    the_detector,
)
from models.faces.eight_bits import eight_bits
from models.faces.sessions import open_session, to_blob
from models.faces.surgery import assemble, fold, vector_prelu

BUILD_REVISION = 2
"""Rises with every change of what the build writes: an older cache is then built again."""

ERROR_CHARACTERS_MAX = 300
"""Of what a library says about a net that it cannot read."""
PARITY_DETECTOR_MAX = 1e-3
"""Largest difference of a raw detector output, on outputs of magnitude about 1."""
DETECTOR_PICTURE_PX = (160, 160)


@dataclass(frozen=True, slots=True)
class Recogniser:
    """A recogniser ready for onnxruntime. `sha256` is its identity in templates and decisions (NetEntry.identity)."""

    name: str
    sha256: str
    path: Path
    feed: Feed
    dimension: int
    thresholds: tuple[tuple[int, float], ...]
    calibration: str = "table"
    """Where the thresholds come from, as decisions record it."""


@dataclass(frozen=True, slots=True)
class Nets:
    """The detector, and the recogniser that a chain enrols with."""

    detector_path: Path
    detector_sha256: str
    recogniser: Recogniser

    @property
    def recogniser_path(self) -> Path:
        """Of the prepared file."""
        return self.recogniser.path

    @property
    def recogniser_sha256(self) -> str:
        """Its identity."""
        return self.recogniser.sha256

    @property
    def dimension(self) -> int:
        """Numbers in one of its vectors."""
        return self.recogniser.dimension

    @property
    def thresholds(self) -> tuple[tuple[int, float], ...]:
        """(templates searched, cosine)."""
        return self.recogniser.thresholds


def build_nets(cache_dir: Path, catalogue: tuple[NetEntry, ...] | None = None, recogniser: str = "") -> Nets:
    """The nets from the cache, or built into it first (about a second each when a folder is new).

    `recogniser`: by name, else the catalogue's default. Safe to call from several processes at once: files are
    complete before they get their name. Raises NeedsOperator when there is no such recogniser, a published file
    is missing or altered, or the built net does not agree with OpenCV or its own catalogue entry.
    """
    entries = load_catalogue() if catalogue is None else catalogue
    detector = the_detector(entries)
    chosen = recognisers(entries, recogniser)[0]
    return Nets(
        detector_path=_cached(cache_dir, detector),
        detector_sha256=detector.identity,
        recogniser=build_recogniser(cache_dir, chosen),
    )


def build_recogniser(cache_dir: Path, entry: NetEntry) -> Recogniser:
    """One recogniser from the cache, or built into it. Raises as `build_nets`."""
    return Recogniser(
        entry.name,
        entry.identity,
        _cached(cache_dir, entry),
        entry.feed,
        entry.dimension,
        entry.thresholds,
        entry.thresholds_from.id if entry.thresholds_from is not None else "table",
    )


def prepare(source: Path, precision: Precision = Precision.FLOAT32) -> bytes:
    """The content of a file for onnxruntime: dynamic N (and H, W), one input, no operation without vector code."""
    graph = fold(onnx.load(str(source)))
    if precision is Precision.EIGHT_BITS:
        eight_bits(graph)
    vector_prelu(graph)
    return bytes(assemble(graph).SerializeToString(deterministic=True))


def _cached(cache_dir: Path, entry: NetEntry) -> Path:
    cache_dir.mkdir(parents=True, exist_ok=True)
    target = cache_dir / f"{entry.name}-{entry.identity[:16]}-b{BUILD_REVISION}.onnx"
    record = target.with_suffix(".json")
    try:
        known = json.loads(record.read_text(encoding="utf-8"))
        if sha256_of(target) == known["sha256"] and known["entry"] == _fingerprint(entry):
            return target
    except (OSError, ValueError, KeyError, TypeError):
        pass  # not there, or half of it: build
    content = built(entry)
    _write_whole(target, content)
    _write_whole(record, json.dumps({"sha256": sha256_of(target), "entry": _fingerprint(entry)}).encode())
    return target


def built(entry: NetEntry) -> bytes:
    """The net's file for onnxruntime, checked. Raises NeedsOperator, as `build_nets`."""
    source = published_file(entry)
    try:
        content = prepare(source, entry.precision)
        check_built(entry, source, content)
    except NeedsOperator:
        raise
    except Exception as error:  # what a foreign file makes onnx, onnxruntime or OpenCV raise is of any type
        raise _unfit(entry, source, error) from error
    return content


def _unfit(entry: NetEntry, source: Path, error: Exception) -> NeedsOperator:
    if type(error).__name__ == "DecodeError":  # of protobuf, which comes with onnx
        what, do = f"{source.name} is no ONNX file, or a part of one", "export or fetch it again"
    else:
        what, do = " ".join(str(error).split())[:ERROR_CHARACTERS_MAX], "export the net to plain ONNX operations"
    return NeedsOperator("net_unfit", f"{entry.name}: {what}", do)


def _fingerprint(entry: NetEntry) -> str:
    """What the checks of a cached file depended on: another feed or dimension is checked again."""
    return f"{entry.identity} {entry.dimension} {entry.parity_cosine_min} {entry.feed}"


def _write_whole(target: Path, content: bytes) -> None:
    handle, name = tempfile.mkstemp(dir=target.parent, prefix=target.name, suffix=".part")
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(content)
        os.replace(name, target)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise


# ---------------------------------------------------------------- what a built net must show


def check_built(entry: NetEntry, source: Path, content: bytes) -> None:
    """Input and output as the catalogue says, and parity with OpenCV's run of the published file.

    On one seeded image. Raises NeedsOperator `net_shape` or `net_parity`.
    """
    session = open_session(content)
    tensor = session.get_inputs()[0].name
    if tensor != entry.feed.tensor:
        raise _misdescribed(entry, f"its input is {tensor!r}, the catalogue says {entry.feed.tensor!r}")
    outputs = [value.name for value in session.get_outputs()]
    blob = to_blob(_seeded_picture(entry.feed.size_px or DETECTOR_PICTURE_PX), entry.feed)
    ours = [np.asarray(out) for out in session.run(outputs, {tensor: blob})]
    if entry.kind is NetKind.RECOGNISER and (len(ours) != 1 or ours[0].shape != (1, entry.dimension)):
        shapes = ", ".join(str(out.shape) for out in ours)
        raise _misdescribed(entry, f"it gives {shapes}, the catalogue says one vector of {entry.dimension}")
    reference = cv2.dnn.readNetFromONNX(str(source))
    reference.setInput(blob, tensor)
    theirs = [np.asarray(out) for out in reference.forward(outputs)]
    if entry.kind is NetKind.RECOGNISER:
        cosine = _cosine(ours[0], theirs[0])
        agrees, figure = cosine >= entry.parity_cosine_min, f"cosine {cosine:.7f}"
    else:
        worst = max(float(np.abs(a.ravel() - b.ravel()).max()) for a, b in zip(ours, theirs, strict=True))
        agrees, figure = worst <= PARITY_DETECTOR_MAX, f"largest difference {worst:.2e}"
    if not agrees:
        raise NeedsOperator(
            "net_parity",
            f"{entry.name}: the built net and OpenCV disagree ({figure})",
            "do not use this installation for faces; reinstall the locked versions",
        )


def _misdescribed(entry: NetEntry, why: str) -> NeedsOperator:
    return NeedsOperator("net_shape", f"{entry.name}: {why}", "correct the catalogue file")


def _cosine(one: NDArray[np.float32], other: NDArray[np.float32]) -> float:
    a, b = one.ravel().astype(np.float64), other.ravel().astype(np.float64)
    return float(a @ b / (np.linalg.norm(a) * np.linalg.norm(b)))


def _seeded_picture(size_px: tuple[int, int]) -> NDArray[np.uint8]:
    noise = np.random.default_rng(20211201).integers(0, 256, (14, 14, 3), dtype=np.uint8)
    return np.asarray(cv2.resize(noise, size_px[::-1], interpolation=cv2.INTER_CUBIC), dtype=np.uint8)
