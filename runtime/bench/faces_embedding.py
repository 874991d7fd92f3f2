"""Embeddings: our nets beside OpenCV's FaceRecognizerSF, a bare session and insightface, on the same crops, in turn.

CPU time of this process, one thread each. FaceRecognizerSF refuses the published file (its weights are inputs), so it
gets the same net with the weights folded and nothing else changed: the form that OpenCV runs fastest.
"""

from __future__ import annotations

import importlib
import importlib.util
import sys
import time
import zipfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from statistics import median
from types import ModuleType
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np
import onnx
from numpy.typing import NDArray

from models.domain.errors import NeedsOperator
from models.faces.align import align
from models.faces.catalogue import NetEntry, Precision, load_catalogue, published_file, recognisers, the_detector
from models.faces.detect import FaceDetector
from models.faces.embed import FaceEmbedder
from models.faces.jpeg import Pixels
from models.faces.nets import Recogniser, build_nets, build_recogniser
from models.faces.sessions import open_session, to_blob
from models.faces.surgery import assemble, fold
from runtime.bench.form import Row, row
from runtime.photos import fetch_wheel

if TYPE_CHECKING:
    from runtime.bench.faces import Advance, Ground

STEPS = 3
CROPS_MAX = 24
ROUNDS_MIN = 20
DETECTOR_SIDE_PX = 320
UNIT = "embeddings/s of CPU"
OPENCV, CLASSIC, BARE, PACKAGE = "FaceRecognizerSF", "classic", "bare", "insightface"

Run = Callable[[int], Any]
"""One trial on the crop or frame of this number."""


def measure(ground: Ground, advance: Advance) -> list[Row]:
    """Rows of embeddings per second of CPU time. Raises NeedsOperator when a net or the wheel is missing."""
    cv2.setNumThreads(1)
    catalogue = load_catalogue()
    exact = recognisers(catalogue)[0]
    eight = next(entry for entry in recognisers(catalogue) if entry.precision is Precision.EIGHT_BITS)
    ours = {entry.name: build_recogniser(ground.cache, entry) for entry in (exact, eight)}
    folded = folded_file(exact, ground.folder)
    crops = _crops(ground)
    runs = _recognisers(ours, exact, folded, crops, fetch_wheel_of(ground))
    advance("embedding: checks")
    parity = {name: _parity(runs, name, len(crops)) for name in ours}
    speeds = timed(runs, len(crops), 0.6 * ground.seconds)
    advance("embedding: crops")
    frames = timed(_pipelines(ground, ours[exact.name], folded, catalogue), len(ground.frames), 0.4 * ground.seconds)
    advance("embedding: frames")
    return [*_rows(exact.name, eight.name, speeds), *_parity_rows(parity), *_frame_rows(frames)]


def folded_file(entry: NetEntry, folder: Path) -> Path:
    """The published net with float32 weights, batch 1, and nothing else changed: PReLU as it is."""
    path = folder / f"{entry.name}-folded.onnx"
    onnx.save(assemble(fold(onnx.load(str(published_file(entry)))), batch=1), str(path))
    return path


def timed(runs: Mapping[str, Run], inputs: int, seconds: float) -> dict[str, float]:
    """Runs per second of CPU time, medians of trials in turn, each name's trials on the same inputs."""
    for run in runs.values():
        run(0)
    taken: dict[str, list[float]] = {name: [] for name in runs}
    until, trial = time.monotonic() + seconds, 0
    while time.monotonic() < until or trial < ROUNDS_MIN:
        for name, run in runs.items():
            began = time.process_time()
            run(trial % inputs)
            taken[name].append(time.process_time() - began)
        trial += 1
    return {name: 1 / median(values) for name, values in taken.items()}


# ---------------------------------------------------------------- crop -> vector


def _crops(ground: Ground) -> list[Pixels]:
    detector = FaceDetector(build_nets(ground.cache).detector_path)
    crops: list[Pixels] = []
    for jpeg in ground.frames[:CROPS_MAX]:
        pixels = _decoded(jpeg)
        if faces := detector.find(pixels, DETECTOR_SIDE_PX):
            crops.append(align(pixels, faces[0].landmarks))
    if not crops:
        raise NeedsOperator("bench_frames", "no face was found in any frame", "fetch the photographs again")
    return crops


def _recognisers(
    ours: Mapping[str, Recogniser], exact: NetEntry, folded: Path, crops: list[Pixels], wheel: Path
) -> dict[str, Run]:
    embedders = {name: FaceEmbedder(net.path, net.feed) for name, net in ours.items()}
    opencv = cv2.FaceRecognizerSF.create(str(folded), "")
    classic = cv2.dnn.readNetFromONNX(str(folded), cv2.dnn.ENGINE_CLASSIC)
    session = open_session(ours[exact.name].path)
    blobs = [to_blob(crop, exact.feed) for crop in crops]

    def by_classic(i: int) -> Any:
        classic.setInput(cv2.dnn.blobFromImage(crops[i], 1.0, (112, 112), swapRB=True), exact.feed.tensor)
        return classic.forward()

    def ours_by(embedder: FaceEmbedder) -> Run:
        return lambda i: embedder.embed(crops[i])

    package = _insightface(folded, wheel)
    return {
        **{name: ours_by(embedder) for name, embedder in embedders.items()},
        OPENCV: lambda i: opencv.feature(crops[i]),
        CLASSIC: by_classic,
        BARE: lambda i: session.run(None, {exact.feed.tensor: blobs[i]})[0],
        PACKAGE: lambda i: package.get_feat(crops[i]),
    }


def _parity(runs: Mapping[str, Run], name: str, inputs: int) -> float:
    """The worst cosine with FaceRecognizerSF's vectors."""
    return min(_cosine(runs[name](i), runs[OPENCV](i)) for i in range(inputs))


def _cosine(one: Any, other: Any) -> float:
    a, b = (np.asarray(vector, dtype=np.float64).ravel() for vector in (one, other))
    return float(a @ b / (np.linalg.norm(a) * np.linalg.norm(b)))


def _rows(exact: str, eight: str, speeds: Mapping[str, float]) -> list[Row]:
    opencv = "OpenCV's FaceRecognizerSF, new engine"
    return [
        row(f"crop to vector, {eight}", speeds[eight], UNIT, opencv, speeds[OPENCV], ">= 1.8 x"),
        row(f"crop to vector, {exact}", speeds[exact], UNIT, opencv, speeds[OPENCV], ">= 1 x"),
        row(f"crop to vector, {exact}", speeds[exact], UNIT, "OpenCV's classic engine", speeds[CLASSIC], ">= 1.8 x"),
        row(
            f"crop to vector, {exact}", speeds[exact], UNIT, "a bare session of the same file", speeds[BARE], ">= 0.9 x"
        ),
        row(
            f"crop to vector, {exact}",
            speeds[exact],
            UNIT,
            "insightface 2.1, ArcFaceONNX on one thread",
            speeds[PACKAGE],
            ">= 1.5 x",
        ),
    ]


def _parity_rows(parity: Mapping[str, float]) -> list[Row]:
    least = {entry.name: 0.99999 if entry.precision is Precision.FLOAT32 else 0.998 for entry in load_catalogue()}
    return [
        row(f"worst cosine, {name}", worst, "cosine", "FaceRecognizerSF's vectors", 1.0, f">= {least[name]}")
        for name, worst in parity.items()
    ]


# ---------------------------------------------------------------- JPEG of 1280 x 720 -> vector


def _pipelines(ground: Ground, exact: Recogniser, folded: Path, catalogue: tuple[NetEntry, ...]) -> dict[str, Run]:
    detector = FaceDetector(build_nets(ground.cache).detector_path)
    embedder = FaceEmbedder(exact.path, exact.feed)
    yunet = cv2.FaceDetectorYN.create(str(published_file(the_detector(catalogue))), "", (320, 320), 0.6, 0.3, 5000)
    sface = cv2.FaceRecognizerSF.create(str(folded), "")

    def ours(i: int) -> Any:
        pixels = _decoded(ground.frames[i])
        return embedder.embed(align(pixels, detector.find(pixels, DETECTOR_SIDE_PX)[0].landmarks))

    def opencv(i: int) -> Any:
        """As its documentation shows, on the image shrunk as we shrink it; landmarks in the whole image's pixels."""
        pixels = _decoded(ground.frames[i])
        scale = DETECTOR_SIDE_PX / max(pixels.shape[:2])
        size = (round(pixels.shape[1] * scale), round(pixels.shape[0] * scale))
        yunet.setInputSize(size)
        face: NDArray[np.float32] = yunet.detect(cv2.resize(pixels, size, interpolation=cv2.INTER_AREA))[1][0]
        face[:14] /= scale
        return sface.feature(sface.alignCrop(pixels, face))

    return {"ours": ours, OPENCV: opencv}


def _frame_rows(frames: Mapping[str, float]) -> list[Row]:
    baseline = "OpenCV: FaceDetectorYN, alignCrop, feature"
    return [row("720p JPEG to vector", frames["ours"], UNIT, baseline, frames[OPENCV], ">= 1 x")]


def _decoded(jpeg: bytes) -> Pixels:
    pixels = cv2.imdecode(np.frombuffer(jpeg, np.uint8), cv2.IMREAD_COLOR)
    assert pixels is not None
    return np.asarray(pixels, dtype=np.uint8)


# ---------------------------------------------------------------- a well-known package


def fetch_wheel_of(ground: Ground) -> Path:
    """The pinned wheel of insightface, which the photographs are from too."""
    from runtime.bench.faces import WHEEL_DIR

    wheel = fetch_wheel(WHEEL_DIR)
    folder = ground.folder / "insightface"
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(folder, [name for name in archive.namelist() if name.endswith(".py")])
    return folder


def _insightface(folded: Path, folder: Path) -> Any:
    """Its recogniser, on one thread as ours.

    Of the package only this class is imported: its `__init__` would import what needs SciPy and scikit-image, and of
    scikit-image it uses one class, to align, which is not measured here.
    """
    with _importable(folder):
        module = importlib.import_module("insightface.model_zoo.arcface_onnx")
        return module.ArcFaceONNX(str(folded), open_session(folded))


@contextmanager
def _importable(folder: Path) -> Iterator[None]:
    before = set(sys.modules)
    for name in ("insightface", "insightface.model_zoo", "insightface.utils"):
        package = ModuleType(name)
        package.__path__ = [str(folder.joinpath(*name.split(".")))]
        sys.modules[name] = package
    if importlib.util.find_spec("skimage") is None:
        sys.modules["skimage"] = ModuleType("skimage")
        sys.modules["skimage"].transform = ModuleType("transform")  # type: ignore[attr-defined]
    try:
        yield
    finally:
        for name in set(sys.modules) - before:
            if name.split(".")[0] in ("insightface", "skimage"):
                del sys.modules[name]
