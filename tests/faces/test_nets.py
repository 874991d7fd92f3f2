from __future__ import annotations

import dataclasses
import shutil
from pathlib import Path

import cv2
import numpy as np
import onnx
import pytest

from models.domain.errors import NeedsOperator
from models.domain.recognition import THRESHOLDS
from models.faces import nets as building
from models.faces.align import align
from models.faces.catalogue import CATALOGUE_DIR, load_catalogue, published_file, the_one
from models.faces.detect import FaceDetector
from models.faces.embed import FaceEmbedder
from models.faces.nets import Nets, build_nets, fold_blocks

pytestmark = pytest.mark.faces

CATALOGUE = load_catalogue()
RECOGNISER = the_one(CATALOGUE, "recogniser")
DETECTOR = the_one(CATALOGUE, "detector")


def test_every_net_has_its_licence_text_and_the_published_digest() -> None:
    assert {(entry.name, entry.licence) for entry in CATALOGUE} == {
        ("yunet-2023mar", "MIT"),
        ("sface-2021dec", "Apache-2.0"),
    }
    assert "Shiqi Yu" in DETECTOR.licence_path.read_text()
    assert "Apache License" in RECOGNISER.licence_path.read_text()
    assert DETECTOR.sha256 == "49f000ec501fef24739071fc7e68267d32209045b6822c0c72dce1da25726f10"
    assert RECOGNISER.sha256 == "fb143eea07838aa532d1c95df5f69899974ea0140e1fba05e94204be13ed74ee"
    assert RECOGNISER.thresholds == THRESHOLDS


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
    gone = tuple(dataclasses.replace(entry, distribution="no-such-wheel") for entry in CATALOGUE)
    with pytest.raises(NeedsOperator) as refused:
        build_nets(tmp_path, gone)
    assert refused.value.code == "net_missing"


def test_a_net_that_disagrees_with_opencv_never_enters_the_cache(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def biased(*args: object) -> object:
        return fold_blocks(*args) * 1.05  # type: ignore[arg-type]

    monkeypatch.setattr(building, "fold_blocks", biased)
    with pytest.raises(NeedsOperator) as refused:
        build_nets(tmp_path)
    assert refused.value.code == "net_parity"
    assert not list(tmp_path.iterdir())


def test_a_catalogue_without_licence_text_or_with_two_recognisers_is_refused(tmp_path: Path) -> None:
    shutil.copytree(CATALOGUE_DIR, tmp_path / "faces")
    (tmp_path / "faces" / "licences" / "YuNet-MIT.txt").unlink()
    with pytest.raises(NeedsOperator) as refused:
        load_catalogue(tmp_path / "faces")
    assert refused.value.code == "net_licence_missing"
    with pytest.raises(NeedsOperator):
        the_one((RECOGNISER, RECOGNISER), "recogniser")
    (tmp_path / "faces" / "sface-2021dec.yaml").write_text("name: half a file\n")
    with pytest.raises(NeedsOperator):
        load_catalogue(tmp_path / "faces")


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
