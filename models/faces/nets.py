"""Builds the two nets into files that onnxruntime runs fast, once, and keeps them in a cache by digest.

As published, the block-quantised files do not load in onnxruntime, and it has no vector path for PReLU. The
build folds the weights, makes shapes dynamic and rewrites PReLU; the numbers stay those of OpenCV's own run of
the published file (cosine >= 0.99999, checked here before a file enters the cache, and in tests on faces).
"""

from __future__ import annotations

import json
import os
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from models.domain.errors import NeedsOperator
from models.faces.catalogue import NetEntry, load_catalogue, published_file, sha256_of, the_one
from models.faces.sessions import open_session

BUILD_REVISION = 1
"""Rises with every change of what the build writes: an older cache is then built again."""

PARITY_COSINE_MIN = 0.99999
PARITY_DETECTOR_MAX = 1e-3
"""Largest difference of a raw detector output, on outputs of magnitude about 1."""


@dataclass(frozen=True, slots=True)
class Nets:
    """Two files ready for onnxruntime. The digests are those of the published nets: their identity in records."""

    detector_path: Path
    recogniser_path: Path
    detector_sha256: str
    recogniser_sha256: str
    dimension: int
    thresholds: tuple[tuple[int, float], ...]


def build_nets(cache_dir: Path, catalogue: tuple[NetEntry, ...] | None = None) -> Nets:
    """The nets from the cache, or built into it first (about a second each way a folder is new).

    Safe to call from several processes at once: files are complete before they get their name. Raises
    NeedsOperator when a published file is missing or altered, or when the built net does not agree with OpenCV.
    """
    entries = load_catalogue() if catalogue is None else catalogue
    detector, recogniser = the_one(entries, "detector"), the_one(entries, "recogniser")
    cache_dir.mkdir(parents=True, exist_ok=True)
    return Nets(
        detector_path=_cached(cache_dir, detector),
        recogniser_path=_cached(cache_dir, recogniser),
        detector_sha256=detector.sha256,
        recogniser_sha256=recogniser.sha256,
        dimension=recogniser.dimension,
        thresholds=recogniser.thresholds,
    )


def _cached(cache_dir: Path, entry: NetEntry) -> Path:
    target = cache_dir / f"{entry.name}-{entry.sha256[:16]}-b{BUILD_REVISION}.onnx"
    record = target.with_suffix(".json")
    try:
        known = json.loads(record.read_text(encoding="utf-8"))["sha256"]
        if sha256_of(target) == known:
            return target
    except (OSError, ValueError, KeyError, TypeError):
        pass  # not there, or half of it: build
    source = published_file(entry)
    net = onnx.load(str(source))
    built = prepare(net)
    content = built.SerializeToString(deterministic=True)
    _check_parity(entry, source, content)
    _write_whole(target, content)
    _write_whole(record, json.dumps({"sha256": sha256_of(target), "published": entry.sha256}).encode())
    return target


def _write_whole(target: Path, content: bytes) -> None:
    handle, name = tempfile.mkstemp(dir=target.parent, prefix=target.name, suffix=".part")
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(content)
        os.replace(name, target)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise


# ---------------------------------------------------------------- graph surgery


def prepare(net: Any) -> Any:
    """A new net: float32 weights, one input with dynamic N (and H, W), no Dropout, PReLU rewritten.

    `net` is an onnx ModelProto as published; it is not changed.
    """
    graph = net.graph
    constants = {tensor.name: numpy_helper.to_array(tensor) for tensor in graph.initializer}
    nodes = []
    renamed: dict[str, str] = {}
    for node in graph.node:
        node_inputs = [renamed.get(name, name) for name in node.input]
        if node.op_type == "Constant":
            constants[node.output[0]] = numpy_helper.to_array(node.attribute[0].t)
        elif node.op_type == "DequantizeLinear" and node_inputs[0] in constants:
            quantised, scales, zero = (constants[name] for name in node_inputs)
            attributes = {a.name: helper.get_attribute_value(a) for a in node.attribute}
            constants[node.output[0]] = fold_blocks(
                quantised, scales, zero, int(attributes["axis"]), int(attributes["block_size"])
            )
        elif node.op_type == "Reshape" and node_inputs[0] in constants:
            constants[node.output[0]] = constants[node_inputs[0]].reshape(constants[node_inputs[1]])
        elif node.op_type == "Dropout":
            renamed[node.output[0]] = node_inputs[0]
        elif node.op_type == "PRelu":
            nodes += _prelu(node_inputs[0], node_inputs[1], node.output[0], constants)
        else:
            if node.op_type == "Reshape":
                node_inputs[1] = _batched_shape(node_inputs[1], constants)
            copy = onnx.NodeProto()
            copy.CopyFrom(node)
            del copy.input[:]
            copy.input.extend(node_inputs)
            nodes.append(copy)
    return _assemble(net, nodes, constants)


def fold_blocks(
    quantised: NDArray[Any], scales: NDArray[Any], zero: NDArray[Any], axis: int, block_size: int
) -> NDArray[np.float32]:
    """(q - zero_point) * scale, one scale and zero point per block of `block_size` along `axis`.

    ONNX DequantizeLinear, opset 21, blocked quantisation; the last block may be short.
    """
    length = quantised.shape[axis]
    spread_scales = np.repeat(scales, block_size, axis=axis).take(range(length), axis=axis)
    spread_zero = np.repeat(zero, block_size, axis=axis).take(range(length), axis=axis)
    shifted = quantised.astype(np.float32) - spread_zero.astype(np.float32)
    return np.asarray(shifted * spread_scales, dtype=np.float32)


def _prelu(x: str, slope: str, out: str, constants: dict[str, NDArray[Any]]) -> list[Any]:
    """PReLU(x) = a*x + (1-a)*ReLU(x): exact for every slope, in- or outside [0, 1]; each part is vectorised."""
    constants[f"{slope}__rest"] = (1.0 - constants[slope]).astype(np.float32)
    return [
        helper.make_node("Relu", [x], [f"{out}__relu"]),
        helper.make_node("Mul", [x, slope], [f"{out}__scaled"]),
        helper.make_node("Mul", [f"{out}__relu", f"{slope}__rest"], [f"{out}__positive"]),
        helper.make_node("Add", [f"{out}__scaled", f"{out}__positive"], [out]),
    ]


def _batched_shape(name: str, constants: dict[str, NDArray[Any]]) -> str:
    """[1, -1, C] fixes the batch; [0, -1, C] keeps the input's."""
    shape = constants[name]
    if shape.tolist()[:2] != [1, -1]:
        return name
    constants[f"{name}__n"] = np.array([0, *shape.tolist()[1:]], dtype=np.int64)
    return f"{name}__n"


def _assemble(net: Any, nodes: list[Any], constants: dict[str, NDArray[Any]]) -> Any:
    used = {name for node in nodes for name in node.input}
    data = net.graph.input[0]
    channels, height, width = (d.dim_value for d in data.type.tensor_type.shape.dim[1:])
    fixed = any(node.op_type in ("Gemm", "Flatten") for node in nodes)
    shape = ["N", channels, height, width] if fixed else ["N", channels, "H", "W"]
    outputs = []
    for value in net.graph.output:
        dims = [d.dim_value for d in value.type.tensor_type.shape.dim]
        shape_out = ["N", dims[1]] if len(dims) == 2 else ["N", None, dims[2]]
        outputs.append(helper.make_tensor_value_info(value.name, TensorProto.FLOAT, shape_out))
    weights = [
        numpy_helper.from_array(np.ascontiguousarray(constants[name]), name) for name in sorted(used & constants.keys())
    ]
    graph = helper.make_graph(
        nodes,
        net.graph.name,
        [helper.make_tensor_value_info(data.name, TensorProto.FLOAT, shape)],
        outputs,
        weights,
    )
    built = helper.make_model(graph, opset_imports=list(net.opset_import), ir_version=10)
    onnx.checker.check_model(built)
    return built


# ---------------------------------------------------------------- parity with OpenCV


def _check_parity(entry: NetEntry, source: Path, content: bytes) -> None:
    """Compare with OpenCV's run of the published file on one seeded image. Raises NeedsOperator when they part."""
    picture = _seeded_picture()
    reference = cv2.dnn.readNetFromONNX(str(source))
    session = open_session(content)
    name = session.get_inputs()[0].name
    if entry.kind == "recogniser":
        blob = cv2.dnn.blobFromImage(picture, 1.0, (112, 112), swapRB=True)
        reference.setInput(blob, name)
        theirs = reference.forward().ravel().astype(np.float64)
        ours = np.asarray(session.run(None, {name: blob})[0]).ravel().astype(np.float64)
        cosine = float(theirs @ ours / (np.linalg.norm(theirs) * np.linalg.norm(ours)))
        agrees, figure = cosine >= PARITY_COSINE_MIN, f"cosine {cosine:.7f}"
    else:
        blob = cv2.dnn.blobFromImage(picture, 1.0, (160, 160))
        reference.setInput(blob, name)
        names = [value.name for value in session.get_outputs()]
        theirs_all = reference.forward(names)
        ours_all = session.run(names, {name: blob})
        worst = max(
            float(np.abs(np.asarray(a).ravel() - np.asarray(b).ravel()).max())
            for a, b in zip(theirs_all, ours_all, strict=True)
        )
        agrees, figure = worst <= PARITY_DETECTOR_MAX, f"largest difference {worst:.2e}"
    if not agrees:
        raise NeedsOperator(
            "net_parity",
            f"{entry.name}: the built net and OpenCV disagree ({figure})",
            "do not use this installation for faces; reinstall the locked versions",
        )


def _seeded_picture() -> NDArray[np.uint8]:
    noise = np.random.default_rng(20211201).integers(0, 256, (14, 14, 3), dtype=np.uint8)
    return np.asarray(cv2.resize(noise, (160, 160), interpolation=cv2.INTER_CUBIC), dtype=np.uint8)
