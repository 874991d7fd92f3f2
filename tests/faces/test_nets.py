from __future__ import annotations

import dataclasses
import hashlib
import shutil
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import onnx
import pytest
import yaml
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from models.domain.errors import NeedsOperator
from models.domain.recognition import THRESHOLDS
from models.faces import surgery
from models.faces.align import align
from models.faces.catalogue import (
    CATALOGUE_DIR,
    Carrier,
    NetEntry,
    Precision,
    load_catalogue,
    published_file,
    recognisers,
    the_detector,
)
from models.faces.detect import FaceDetector
from models.faces.embed import SFACE_FEED, FaceEmbedder
from models.faces.nets import Nets, build_nets, build_recogniser
from models.faces.surgery import fold_blocks
from runtime.face_nets import fault_of

pytestmark = pytest.mark.faces

CATALOGUE = load_catalogue()
RECOGNISER, EIGHT_BITS = recognisers(CATALOGUE)
DETECTOR = the_detector(CATALOGUE)


def test_every_net_has_its_licence_text_and_the_published_digest() -> None:
    assert {(entry.name, entry.licence) for entry in CATALOGUE} == {
        ("yunet-2023mar", "MIT"),
        ("sface-2021dec", "Apache-2.0"),
        ("sface-2021dec-8bit", "Apache-2.0"),
    }
    assert "Shiqi Yu" in DETECTOR.licence_path.read_text()
    assert "Apache License" in RECOGNISER.licence_path.read_text()
    assert DETECTOR.sha256 == "49f000ec501fef24739071fc7e68267d32209045b6822c0c72dce1da25726f10"
    assert RECOGNISER.sha256 == "fb143eea07838aa532d1c95df5f69899974ea0140e1fba05e94204be13ed74ee"
    assert RECOGNISER.thresholds == THRESHOLDS
    assert RECOGNISER.feed == SFACE_FEED
    assert RECOGNISER.identity == RECOGNISER.sha256
    assert EIGHT_BITS.precision is Precision.EIGHT_BITS
    assert EIGHT_BITS.identity not in (RECOGNISER.identity, EIGHT_BITS.sha256), "its vectors are other ones"


def test_the_cache_is_used_and_repaired(nets: Nets, cache_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    good = nets.detector_path.read_bytes()
    nets.detector_path.write_bytes(good[:-1] + bytes([good[-1] ^ 1]))
    assert build_nets(cache_dir) == nets
    assert nets.detector_path.read_bytes() == good, "an altered file is built again, to the same bytes"
    monkeypatch.setattr(onnx, "load", lambda _: pytest.fail("a good cache is not built again"))
    assert build_nets(cache_dir) == nets
    assert not list(cache_dir.glob("*.part"))


def test_another_file_than_the_catalogue_s_is_refused(tmp_path: Path) -> None:
    other = tuple(dataclasses.replace(entry, sha256="0" * 64) for entry in CATALOGUE)
    with pytest.raises(NeedsOperator) as refused:
        build_nets(tmp_path, other)
    assert refused.value.code == "net_altered"
    gone = tuple(dataclasses.replace(entry, carrier=Carrier("no-such-wheel", "net.onnx")) for entry in CATALOGUE)
    with pytest.raises(NeedsOperator) as refused:
        build_nets(tmp_path, gone)
    assert refused.value.code == "net_missing"


def test_a_net_that_disagrees_with_opencv_never_enters_the_cache(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def biased(*args: object) -> object:
        return fold_blocks(*args) * 1.05  # type: ignore[arg-type]

    monkeypatch.setattr(surgery, "fold_blocks", biased)
    with pytest.raises(NeedsOperator) as refused:
        build_nets(tmp_path)
    assert refused.value.code == "net_parity"
    assert not list(tmp_path.iterdir())


def test_a_catalogue_without_licence_text_is_refused(catalogue_dir: Path) -> None:
    (catalogue_dir / "licences" / "YuNet-MIT.txt").unlink()
    with pytest.raises(NeedsOperator) as refused:
        load_catalogue(catalogue_dir)
    assert refused.value.code == "net_licence_missing"


@pytest.fixture
def catalogue_dir(tmp_path: Path) -> Path:
    shutil.copytree(CATALOGUE_DIR, tmp_path / "faces")
    return tmp_path / "faces"


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        ({"name": None}, "name is missing"),
        ({"kind": "oracle"}, "oracle"),
        ({"sha256": "ABC"}, "sha256"),
        ({"dimensoin": 128}, "'dimensoin' is no entry of a net"),
        ({"file": "net.onnx"}, "either `carrier`"),
        ({"dimension": 4}, "dimension"),
        ({"thresholds": [[10, 0.4]]}, "start at N = 1"),
        ({"thresholds": [[1, 0.5], [10, 0.4]]}, "rise with N"),
        ({"thresholds": [[1, 0.5], [10, 0.5]]}, "rise with N"),
        ({"thresholds": [[1, 0.5]]}, "two points at least"),
        ({"parity_cosine_min": 0.5}, "parity_cosine_min"),
        ({"input.layout": "NHWC"}, "NHWC"),
        ({"input.colour": "YUV"}, "YUV"),
        ({"input.scale": 255}, "scale"),
        ({"input.mean": [1, 2]}, "mean"),
        ({"input.mena": 1}, "'mena' is no entry"),
        ({"input.alignment": "box"}, "five_landmarks"),
        ({"input.size_px": [160, 160]}, "[112, 112]"),
        ({"input.tensor": None}, "tensor is missing"),
    ],
)
def test_a_wrong_entry_is_named(catalogue_dir: Path, wrong: dict[str, object], says: str) -> None:
    path = catalogue_dir / "sface-2021dec.yaml"
    raw = yaml.safe_load(path.read_text())
    for key, value in wrong.items():
        *parts, last = key.split(".")
        place = raw[parts[0]] if parts else raw
        if value is None:
            del place[last]
        else:
            place[last] = value
    path.write_text(yaml.safe_dump(raw))
    with pytest.raises(NeedsOperator) as refused:
        load_catalogue(catalogue_dir)
    assert refused.value.code == "net_catalogue"
    assert "sface-2021dec.yaml" in refused.value.message
    assert says in refused.value.message


def test_a_detector_of_another_form_is_refused(catalogue_dir: Path) -> None:
    path = catalogue_dir / "yunet-2023mar.yaml"
    path.write_text(path.read_text().replace("[8, 16, 32]", "[4, 8]"))
    with pytest.raises(NeedsOperator, match="strides"):
        load_catalogue(catalogue_dir)


def test_one_recogniser_comes_first(catalogue_dir: Path) -> None:
    assert [entry.name for entry in recognisers(CATALOGUE)] == ["sface-2021dec", "sface-2021dec-8bit"]
    assert [entry.name for entry in recognisers(CATALOGUE, "sface-2021dec-8bit")] == [
        "sface-2021dec-8bit",
        "sface-2021dec",
    ]
    with pytest.raises(NeedsOperator, match="sface-2021dec-8bit") as refused:
        recognisers(CATALOGUE, "arcface")
    assert refused.value.code == "net_unknown"
    with pytest.raises(NeedsOperator, match="default"):
        recognisers(tuple(dataclasses.replace(entry, default=True) for entry in CATALOGUE))
    with pytest.raises(NeedsOperator, match="one detector"):
        the_detector((DETECTOR, DETECTOR))
    shutil.copy(catalogue_dir / "sface-2021dec.yaml", catalogue_dir / "copy.yaml")
    with pytest.raises(NeedsOperator, match=r"copy\.yaml and sface-2021dec\.yaml have one name"):
        load_catalogue(catalogue_dir)
    (catalogue_dir / "copy.yaml").write_text("")
    with pytest.raises(NeedsOperator, match=r"copy\.yaml: it has no lines"):
        load_catalogue(catalogue_dir)


def test_blocks_fold_as_onnx_says() -> None:
    q = np.array([[10, 20, 30, 40, 50]], np.int8)
    folded = fold_blocks(q, np.array([[1, 2, 3]], np.float32), np.array([[10, 0, 50]], np.int8), 1, 2)
    assert folded.tolist() == [[0, 10, 60, 80, 0]]


def test_shapes_are_dynamic_and_only_the_image_is_an_input(nets: Nets) -> None:
    recogniser = onnx.load(str(nets.recogniser_path))
    assert [value.name for value in recogniser.graph.input] == ["data"]
    assert recogniser.graph.input[0].type.tensor_type.shape.dim[0].dim_param == "N"
    assert not {"PRelu", "Dropout", "DequantizeLinear"} & {node.op_type for node in recogniser.graph.node}
    detector = onnx.load(str(nets.detector_path))
    assert [d.dim_param for d in detector.graph.input[0].type.tensor_type.shape.dim] == ["N", "", "H", "W"]


def test_embeddings_and_boxes_are_opencv_s(nets: Nets, lfw10: Path) -> None:
    """The reference runs the published files: YuNet as FaceDetectorYN, SFace by the same steps as FaceRecognizerSF.

    FaceRecognizerSF.feature itself refuses the published file since OpenCV 5.0 (its weights are graph inputs).
    """
    theirs = cv2.FaceDetectorYN.create(str(published_file(DETECTOR)), "", (320, 320), 0.6, 0.3, 5000)
    aligner = cv2.FaceRecognizerSF.create(str(published_file(RECOGNISER)), "")
    reference = cv2.dnn.readNetFromONNX(str(published_file(RECOGNISER)))
    ours, embedder = FaceDetector(nets.detector_path), FaceEmbedder(nets.recogniser_path)
    worst_cosine, faces = 1.0, 0
    for photograph in sorted(lfw10.glob("*/*_000[1-4].jpg")):
        pixels = np.asarray(cv2.imread(str(photograph)), np.uint8)
        theirs.setInputSize((pixels.shape[1], pixels.shape[0]))
        expected, found = theirs.detect(pixels)[1], ours.find_as_is(pixels)
        assert len(expected) == len(found)
        for row, face in zip(expected, found, strict=True):
            assert np.allclose(row[:4], face.box, atol=0.01)
            assert np.allclose(row[4:14], face.landmarks.ravel(), atol=0.01)
            assert row[14] == pytest.approx(face.score, abs=1e-4)
        crop = np.asarray(aligner.alignCrop(pixels, expected[0]), np.uint8)
        assert np.abs(crop.astype(int) - align(pixels, found[0].landmarks)).max() <= 1
        reference.setInput(cv2.dnn.blobFromImage(crop, 1.0, (112, 112), swapRB=True), "data")
        vector = reference.forward().ravel().astype(np.float64)
        cosine = float(vector @ embedder.embed(crop).astype(np.float64) / np.linalg.norm(vector))
        worst_cosine, faces = min(worst_cosine, cosine), faces + 1
    assert faces == 40
    assert worst_cosine >= 0.99999


def test_the_eight_bit_net_stays_near_the_exact_one(nets: Nets, cache_dir: Path, lfw10: Path) -> None:
    """Ten people, their first photographs: near the exact net's vectors, and nobody nearer to a stranger."""
    other = build_recogniser(cache_dir, EIGHT_BITS)
    exact, fast = FaceEmbedder(nets.recogniser_path), FaceEmbedder(other.path, other.feed)
    detector = FaceDetector(nets.detector_path)
    crops = []
    for photograph in sorted(lfw10.glob("*/*_000[12].jpg")):
        pixels = np.asarray(cv2.imread(str(photograph)), np.uint8)
        crops.append(align(pixels, detector.find(pixels)[0].landmarks))
    ours, theirs = (np.stack([net.embed(crop) for crop in crops]) for net in (exact, fast))
    cosines = (ours * theirs).sum(axis=1)
    assert 0.998 <= cosines.min() < 0.99999
    assert np.abs(ours @ ours.T - theirs @ theirs.T).max() <= 0.03


# ---------------------------------------------------------------- nets that someone brings


def small_net(path: Path, *, dimension: int = 16, slopes: float = 0.25, name: str = "pixels") -> NetEntry:
    """A recogniser of a few layers with PReLU, written by another tool; its catalogue entry, sha256 measured."""
    rng = np.random.default_rng(5)
    constants: dict[str, NDArray[Any]] = {
        "w": rng.normal(size=(4, 3, 8, 8)).astype(np.float32) / 50,
        "a": np.full((4, 1, 1), slopes, np.float32),
        "fc": rng.normal(size=(dimension, 4 * 14 * 14)).astype(np.float32),
        "b": np.zeros(dimension, np.float32),
    }
    nodes = [
        helper.make_node("Conv", [name, "w"], ["y"], kernel_shape=[8, 8], strides=[8, 8]),
        helper.make_node("PRelu", ["y", "a"], ["z"]),
        helper.make_node("Flatten", ["z"], ["flat"]),
        helper.make_node("Gemm", ["flat", "fc", "b"], ["out"], transB=1),
    ]
    graph = helper.make_graph(
        nodes,
        "small",
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, [1, 3, 112, 112])],
        [helper.make_tensor_value_info("out", TensorProto.FLOAT, [1, dimension])],
        [numpy_helper.from_array(value, key) for key, value in constants.items()],
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), str(path))
    feed = dataclasses.replace(RECOGNISER.feed, tensor="pixels", mean=(127.5, 127.5, 127.5), scale=1 / 128)
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    return dataclasses.replace(
        RECOGNISER, name="small", carrier=path, sha256=digest, feed=feed, dimension=16, default=False
    )


@pytest.mark.parametrize("slopes", [0.25, -0.5, 1.75])
def test_a_net_from_a_path_is_checked_and_runs(tmp_path: Path, slopes: float) -> None:
    """Slopes below, in and above [0, 1]: each form of the rewritten PReLU gives OpenCV's numbers."""
    entry = small_net(tmp_path / "small.onnx", slopes=slopes)
    built = build_recogniser(tmp_path / "cache", entry)
    crop = np.random.default_rng(1).integers(0, 256, (112, 112, 3), dtype=np.uint8)
    vector = FaceEmbedder(built.path, built.feed).embed(crop)
    reference = cv2.dnn.readNetFromONNX(str(tmp_path / "small.onnx"))
    blob = (crop[:, :, ::-1].transpose(2, 0, 1)[np.newaxis].astype(np.float32) - 127.5) / 128
    reference.setInput(np.ascontiguousarray(blob), "pixels")
    theirs = reference.forward().ravel()
    assert vector.shape == (16,)
    assert float(vector @ theirs / np.linalg.norm(theirs)) >= 0.99999


def test_a_net_that_is_not_as_described_is_refused(tmp_path: Path) -> None:
    for net, code in (
        (small_net(tmp_path / "wide.onnx", dimension=32), "net_shape"),
        (small_net(tmp_path / "named.onnx", name="data"), "net_shape"),
        (dataclasses.replace(small_net(tmp_path / "gone.onnx"), carrier=tmp_path / "nowhere.onnx"), "net_missing"),
    ):
        with pytest.raises(NeedsOperator) as refused:
            build_recogniser(tmp_path / "cache", net)
        assert refused.value.code == code
        told = fault_of(net)
        assert told is not None, "`storeops faces nets` says so before anything runs on it"
        assert (told.code, told.message) == (code, refused.value.message)
    assert fault_of(small_net(tmp_path / "fine.onnx")) is None
    assert [fault_of(entry) for entry in CATALOGUE] == [None] * len(CATALOGUE)
    garbage = tmp_path / "garbage.onnx"
    garbage.write_bytes(b"not a net")
    entry = dataclasses.replace(
        RECOGNISER, carrier=garbage, sha256=hashlib.sha256(b"not a net").hexdigest(), name="garbage"
    )
    with pytest.raises(NeedsOperator) as refused:
        build_recogniser(tmp_path / "cache", entry)
    assert refused.value.code == "net_unfit"
    assert "no ONNX file" in refused.value.message
