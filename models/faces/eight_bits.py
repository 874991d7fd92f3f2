"""A recogniser with its large matrices multiplied in 8-bit integers: about half the time, slightly other vectors.

Convolutions of 1 x 1 over many channels do nine tenths of SFace's work, and in float32 they already run at the
core's peak: only smaller numbers make them faster. Weights are scaled per output channel, activations per image
when they come (no calibration images), by onnxruntime's DynamicQuantizeMatMul. The rest stays float32.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from onnx import helper

from models.faces.surgery import Array, Graph, attributes_of

CHANNELS_MIN = 128
"""Below, the images are large and the matrices small: little to gain, and most of the difference comes from there."""


def eight_bits(graph: Graph) -> None:
    """Replace [1 x 1 Conv, BatchNormalization, PReLU] and the last Gemm, its batch normalisation included."""
    done: set[int] = set()
    nodes: list[Any] = []
    for node in graph.nodes:
        if id(node) in done:
            continue
        if node.op_type == "Conv" and _is_pointwise(node, graph):
            norm = graph.only_consumer(node.output[0], "BatchNormalization")
            act = graph.only_consumer(norm.output[0], "PRelu") if norm is not None else None
            if norm is not None and act is not None and act.input[1] in graph.constants:
                done |= {id(norm), id(act)}
                nodes += _pointwise(node, norm, act, graph)
                continue
        if node.op_type == "Gemm" and node.input[1] in graph.constants and _is_plain(node):
            norm = graph.only_consumer(node.output[0], "BatchNormalization")
            if norm is not None:
                done.add(id(norm))
                nodes.append(_gemm(node, norm, graph))
                continue
        nodes.append(node)
    graph.nodes = nodes


def _is_pointwise(node: Any, graph: Graph) -> bool:
    weights = graph.constants.get(node.input[1])
    known = attributes_of(node)
    return (
        weights is not None
        and weights.shape[2:] == (1, 1)
        and weights.shape[1] >= CHANNELS_MIN
        and known.get("group", 1) == 1
        and not any(known.get("pads", ()))
        and set(known.get("strides", (1,))) == {1}
        and len(node.input) == 2
    )


def _is_plain(node: Any) -> bool:
    known = attributes_of(node)
    return (known.get("alpha", 1.0), known.get("beta", 1.0), known.get("transA", 0), known.get("transB", 0)) == (
        1.0,
        1.0,
        0,
        1,
    )


def _affine(norm: Any, constants: dict[str, Array]) -> tuple[Array, Array]:
    """A batch normalisation as (factor, shift) per channel, float64."""
    gamma, beta, mean, variance = (constants[name].astype(np.float64) for name in norm.input[1:5])
    factor = gamma / np.sqrt(variance + float(attributes_of(norm).get("epsilon", 1e-5)))
    return factor, beta - mean * factor


def _quantised(weights: Array, bias: Array, name: str, constants: dict[str, Array]) -> list[str]:
    """Rows per output channel as int8 with a scale each; the names of what DynamicQuantizeMatMul takes after A."""
    scales = np.maximum(np.abs(weights).max(axis=1), 1e-12) / 127
    constants[f"{name}__q"] = np.round(weights / scales[:, np.newaxis]).astype(np.int8).T
    constants[f"{name}__scale"] = scales.astype(np.float32)
    constants[f"{name}__bias"] = bias.astype(np.float32)
    return [f"{name}__q", f"{name}__scale", "", f"{name}__bias"]


def _product(source: str, out: str, operands: list[str]) -> Any:
    return helper.make_node("DynamicQuantizeMatMul", [source, *operands], [out], domain="com.microsoft")


def _pointwise(conv: Any, norm: Any, act: Any, graph: Graph) -> list[Any]:
    """In N x H x W x C, where a 1 x 1 convolution is one product; the PReLU as in surgery, before it goes back."""
    factor, shift = _affine(norm, graph.constants)
    weights = graph.constants[conv.input[1]][:, :, 0, 0].astype(np.float64) * factor[:, np.newaxis]
    name, slopes = act.output[0], graph.constants[act.input[1]].reshape(-1)
    operands = _quantised(weights, shift, name, graph.constants)
    steps = [
        helper.make_node("Transpose", [conv.input[0]], [f"{name}__last"], perm=[0, 2, 3, 1]),
        _product(f"{name}__last", f"{name}__y", operands),
    ]
    if (slopes <= 1).all():
        graph.constants[f"{name}__less"] = (slopes - 1).astype(np.float32)
        steps += [
            helper.make_node("Mul", [f"{name}__y", f"{name}__less"], [f"{name}__scaled"]),
            helper.make_node("Relu", [f"{name}__scaled"], [f"{name}__lift"]),
            helper.make_node("Add", [f"{name}__y", f"{name}__lift"], [f"{name}__active"]),
        ]
    else:
        graph.constants[f"{name}__slopes"] = slopes.astype(np.float32)
        steps.append(helper.make_node("PRelu", [f"{name}__y", f"{name}__slopes"], [f"{name}__active"]))
    return [*steps, helper.make_node("Transpose", [f"{name}__active"], [name], perm=[0, 3, 1, 2])]


def _gemm(gemm: Any, norm: Any, graph: Graph) -> Any:
    factor, shift = _affine(norm, graph.constants)
    weights = graph.constants[gemm.input[1]].astype(np.float64) * factor[:, np.newaxis]
    bias = graph.constants[gemm.input[2]].astype(np.float64) * factor + shift
    name = norm.output[0]
    return _product(gemm.input[0], name, _quantised(weights, bias, name, graph.constants))
