"""Rewrites a published net into one that onnxruntime runs fast, with the same numbers.

Three steps over one small graph: `fold` (block-quantised weights become float32, no Dropout, dynamic shapes),
`vector_prelu` (onnxruntime has no vector path for PReLU), `assemble`. Not for nets with branches of control flow.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

Array = NDArray[Any]


@dataclass(slots=True)
class Graph:
    """Nodes in order, and the constants that they name. `net` is the published ModelProto, which is not changed."""

    net: Any
    nodes: list[Any] = field(default_factory=list)
    constants: dict[str, Array] = field(default_factory=dict)

    def only_consumer(self, name: str, op_type: str) -> Any | None:
        """The one node that reads `name`, if there is but one and it is of this type."""
        readers = [node for node in self.nodes if name in node.input]
        outputs = {value.name for value in self.net.graph.output}
        fits = len(readers) == 1 and readers[0].op_type == op_type and name not in outputs
        return readers[0] if fits else None


def attributes_of(node: Any) -> dict[str, Any]:
    """A node's attributes as Python values."""
    return {attribute.name: helper.get_attribute_value(attribute) for attribute in node.attribute}


def fold(net: Any) -> Graph:
    """Float32 weights, one input, no Dropout; PReLU stays. `net` is an onnx ModelProto as published."""
    graph = Graph(net, constants={tensor.name: numpy_helper.to_array(tensor) for tensor in net.graph.initializer})
    constants = graph.constants
    renamed: dict[str, str] = {}
    for node in net.graph.node:
        inputs = [renamed.get(name, name) for name in node.input]
        if node.op_type == "Constant":
            constants[node.output[0]] = numpy_helper.to_array(node.attribute[0].t)
        elif node.op_type == "DequantizeLinear" and inputs[0] in constants:
            quantised, scales, zero = (constants[name] for name in inputs)
            known = attributes_of(node)
            constants[node.output[0]] = fold_blocks(
                quantised, scales, zero, int(known["axis"]), int(known["block_size"])
            )
        elif node.op_type == "Reshape" and inputs[0] in constants:
            constants[node.output[0]] = constants[inputs[0]].reshape(constants[inputs[1]])
        elif node.op_type == "Dropout":
            renamed[node.output[0]] = inputs[0]
        else:
            if node.op_type == "Reshape":
                inputs[1] = _batched_shape(inputs[1], constants)
            copy = onnx.NodeProto()
            copy.CopyFrom(node)
            del copy.input[:]
            copy.input.extend(inputs)
            graph.nodes.append(copy)
    return graph


def fold_blocks(quantised: Array, scales: Array, zero: Array, axis: int, block_size: int) -> NDArray[np.float32]:
    """(q - zero_point) * scale, one scale and zero point per block of `block_size` along `axis`.

    ONNX DequantizeLinear, opset 21, blocked quantisation; the last block may be short.
    """
    length = quantised.shape[axis]
    spread_scales = np.repeat(scales, block_size, axis=axis).take(range(length), axis=axis)
    spread_zero = np.repeat(zero, block_size, axis=axis).take(range(length), axis=axis)
    shifted = quantised.astype(np.float32) - spread_zero.astype(np.float32)
    return np.asarray(shifted * spread_scales, dtype=np.float32)


def vector_prelu(graph: Graph) -> None:
    """PReLU by operations that have vector code, exact for every slope.

    Slopes of at most 1 (all of SFace's but three): x + ReLU((a - 1) x), one multiplication by channel, whose ReLU
    onnxruntime fuses, and one addition; else a x + (1 - a) ReLU(x). A multiplication by channel is written as a
    depthwise 1 x 1 convolution: it stays in the blocked layout of the convolutions around it.
    """
    nodes = []
    for node in graph.nodes:
        if node.op_type != "PRelu" or node.input[1] not in graph.constants:
            nodes.append(node)
            continue
        slopes = graph.constants[node.input[1]]
        if slopes.ndim == 3 and slopes.size == slopes.shape[0] and (slopes <= 1).all():
            nodes += _prelu_by_channel(node, slopes, graph.constants)
        else:
            nodes += _prelu_any(node, slopes, graph.constants)
    graph.nodes = nodes


def _prelu_by_channel(node: Any, slopes: Array, constants: dict[str, Array]) -> list[Any]:
    x, out = node.input[0], node.output[0]
    constants[f"{out}__less"] = (slopes - 1).astype(np.float32).reshape(-1, 1, 1, 1)
    return [
        helper.make_node("Conv", [x, f"{out}__less"], [f"{out}__scaled"], kernel_shape=[1, 1], group=slopes.size),
        helper.make_node("Relu", [f"{out}__scaled"], [f"{out}__lift"]),
        helper.make_node("Add", [x, f"{out}__lift"], [out]),
    ]


def _prelu_any(node: Any, slopes: Array, constants: dict[str, Array]) -> list[Any]:
    x, out = node.input[0], node.output[0]
    constants[f"{out}__rest"] = (1.0 - slopes).astype(np.float32)
    return [
        helper.make_node("Relu", [x], [f"{out}__relu"]),
        helper.make_node("Mul", [x, node.input[1]], [f"{out}__scaled"]),
        helper.make_node("Mul", [f"{out}__relu", f"{out}__rest"], [f"{out}__positive"]),
        helper.make_node("Add", [f"{out}__scaled", f"{out}__positive"], [out]),
    ]


def _batched_shape(name: str, constants: dict[str, Array]) -> str:
    """[1, -1, C] fixes the batch; [0, -1, C] keeps the input's."""
    shape = constants[name]
    if shape.tolist()[:2] != [1, -1]:
        return name
    constants[f"{name}__n"] = np.array([0, *shape.tolist()[1:]], dtype=np.int64)
    return f"{name}__n"


def assemble(graph: Graph, batch: int | None = None) -> Any:
    """The ModelProto, checked. `batch`: a fixed batch; None: dynamic, and H and W where no layer fixes them."""
    net, constants = graph.net, graph.constants
    used = {name for node in graph.nodes for name in node.input}
    data = next(value for value in net.graph.input if value.name in used - constants.keys())
    channels, height, width = (d.dim_value for d in data.type.tensor_type.shape.dim[1:])
    fixed = any(node.op_type in ("Gemm", "Flatten", "DynamicQuantizeMatMul") for node in graph.nodes)
    first = "N" if batch is None else batch
    shape = [first, channels, height, width] if fixed else [first, channels, "H", "W"]
    outputs = []
    for value in net.graph.output:
        dims = [d.dim_value for d in value.type.tensor_type.shape.dim]
        shape_out = [first, dims[1]] if len(dims) == 2 else [first, None, dims[2]]
        outputs.append(helper.make_tensor_value_info(value.name, TensorProto.FLOAT, shape_out))
    weights = [
        numpy_helper.from_array(np.ascontiguousarray(constants[name]), name) for name in sorted(used & constants.keys())
    ]
    data_info = helper.make_tensor_value_info(data.name, TensorProto.FLOAT, shape)
    opsets = {one.domain: one for one in net.opset_import}
    if any(node.domain for node in graph.nodes):
        opsets.setdefault("com.microsoft", helper.make_opsetid("com.microsoft", 1))
    built = helper.make_model(
        helper.make_graph(graph.nodes, net.graph.name, [data_info], outputs, weights),
        opset_imports=list(opsets.values()),
        ir_version=10,
    )
    onnx.checker.check_model(built)
    return built
