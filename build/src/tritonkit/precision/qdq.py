"""Puts QuantizeLinear and DequantizeLinear where a target wants them; decides no range and measures nothing.

TensorRT fuses what stands between explicit pairs: symmetric, on the inputs and weights of compute nodes, never on
biases or outputs. onnxruntime's CPU kernels want whole stretches of the graph in 8 bits: activations of a convolution's
input *and* output, uint8 with a zero point, and int32 biases.
"""

from __future__ import annotations

from collections.abc import Mapping, Set
from dataclasses import dataclass
from typing import Any, Literal

import ml_dtypes
import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import helper

from tritonkit.precision.onnxgraph import OnnxGraph

Array = NDArray[Any]
Ranges = Mapping[str, tuple[float, float]]
Number = Literal["uint8", "int8", "fp8"]
# Largest magnitudes: int8 leaves out -128 so that zero is in the middle; E4M3FN ends at 448 (OCP 8-bit floating point).
LARGEST = {"uint8": 255.0, "int8": 127.0, "fp8": 448.0}
_BOUNDED = {"Clip", "Relu"}  # what a quantizer's own bounds do as well, when it stands behind them


@dataclass(frozen=True)
class Scheme:
    """What 8 bits mean on one target.

    Attributes:
        activations: The type of activations.
        weights: The type of weights; always symmetric, one scale a channel (fp8: one scale a tensor).
        outputs: Whether convolutions' outputs and additions between them are quantized too, and biases with them.
    """

    activations: Number
    weights: Number
    outputs: bool


TENSORRT_INT8 = Scheme("int8", "int8", outputs=False)
TENSORRT_FP8 = Scheme("fp8", "fp8", outputs=False)
CPU_INT8 = Scheme("uint8", "int8", outputs=True)


@dataclass(frozen=True)
class Plan:
    """Where pairs go.

    Attributes:
        tensors: Activations that get a pair.
        reads: (tensor, node): this node reads the dequantized tensor, others read the original.
    """

    tensors: tuple[str, ...]
    reads: Set[tuple[str, str]]


def plan(graph: OnnxGraph, chosen: Set[str], scheme: Scheme) -> Plan:
    """Which activations are quantized when some compute nodes are.

    Args:
        graph: Not changed.
        chosen: Names of compute nodes with constant weights.
        scheme: See :class:`Scheme`.
    """
    tensors: dict[str, None] = {}
    reads: set[tuple[str, str]] = set()
    in_8_bits: set[str] = set()  # made by a kernel that writes 8 bits: every reader reads them

    def write_8_bits(name: str) -> None:
        tensors[name] = None
        in_8_bits.add(name)
        reads.update((name, reader.name) for reader in graph.consumers[name])

    for node in graph.nodes:
        if node.name in chosen:
            tensors[node.input[0]] = None
            reads.add((node.input[0], node.name))
            if scheme.outputs and node.op_type == "Conv":
                write_8_bits(tail(graph, node))
        elif node.op_type == "Add" and scheme.outputs and set(node.input) <= in_8_bits:
            write_8_bits(tail(graph, node))
        elif node.op_type == "Add" and not scheme.outputs:
            for name in _skips(graph, node, chosen):
                tensors[name] = None
                reads.add((name, node.name))
    return Plan(tuple(tensors), reads)


def candidates(graph: OnnxGraph, eligible: Set[str], scheme: Scheme) -> list[str]:
    """Every activation that :func:`plan` may name for any part of the eligible nodes."""
    tensors = dict.fromkeys(plan(graph, eligible, scheme).tensors)
    if not scheme.outputs:  # which side of an addition skips depends on which convolutions are chosen
        for add in graph.nodes:
            if add.op_type == "Add" and _skips(graph, add, eligible):
                tensors.update(dict.fromkeys(name for name in add.input if name not in graph.constants))
    return list(tensors)


def tail(graph: OnnxGraph, node: onnx.NodeProto) -> str:
    """Where a node's output is quantized: behind the activation function that only bounds it."""
    name: str = node.output[0]
    readers = graph.consumers[name]
    if len(readers) == 1 and readers[0].op_type in _BOUNDED and name not in graph.outputs:
        return str(readers[0].output[0])
    return name


def _skips(graph: OnnxGraph, add: onnx.NodeProto, chosen: Set[str]) -> list[str]:
    """The input of a residual addition that does not come from a quantized convolution: quantized, both fuse."""
    makers = {name: graph.producer.get(name) for name in add.input if name not in graph.constants}
    convolved = [
        name for name, maker in makers.items() if maker is not None and maker.op_type == "Conv" and maker.name in chosen
    ]
    return [name for name in makers if name not in convolved[:1]] if convolved and len(makers) == 2 else []


def insert(graph: OnnxGraph, chosen: Set[str], ranges: Ranges, scheme: Scheme) -> None:
    """Quantize some nodes of a graph.

    Args:
        graph: Changed in place.
        chosen: Names of compute nodes with constant weights.
        ranges: The range of every activation that :func:`plan` names.
        scheme: See :class:`Scheme`.
    """
    _Inserter(graph, chosen, ranges, scheme).run()


class _Inserter:
    def __init__(self, graph: OnnxGraph, chosen: Set[str], ranges: Ranges, scheme: Scheme) -> None:
        self.graph, self.chosen, self.ranges, self.scheme = graph, chosen, ranges, scheme
        self.plan = plan(graph, chosen, scheme)
        self.pairs: dict[str, list[onnx.NodeProto]] = {}  # tensor → its Q and DQ
        self.scales: dict[str, float] = {}

    def run(self) -> None:
        for name in self.plan.tensors:
            self._pair(name)
        absorbed = self._absorbed() if self.scheme.outputs else set()
        nodes: list[onnx.NodeProto] = []
        for name in self.graph.inputs:
            nodes += self.pairs.get(name, [])
        for node in self.graph.nodes:
            if node.output[0] in absorbed:
                self.pairs[node.output[0]][0].input[0] = node.input[0]
                nodes += self.pairs[node.output[0]]
                continue
            if node.name in self.chosen:
                nodes += self._weights(node)
            for index, name in enumerate(node.input):
                if (name, node.name) in self.plan.reads:
                    node.input[index] = f"{name}_dequantized"
            nodes.append(node)
            for output in node.output:
                nodes += self.pairs.get(output, [])
        self.graph.replace_nodes(nodes)

    def _pair(self, name: str) -> None:
        """Q and DQ of one activation. An output of the graph keeps its unquantized tensor under its own name."""
        scale, zero = parameters(*self.ranges[name], self.scheme.activations)
        self.scales[name] = scale
        constants = [
            self.graph.set_constant(f"{name}_scale", np.array(scale, np.float32)),
            self.graph.set_constant(f"{name}_zero_point", zero),
        ]
        stored, output = f"{name}_quantized", f"{name}_dequantized"
        self.pairs[name] = [
            helper.make_node("QuantizeLinear", [name, *constants], [stored], f"{name}_q"),
            helper.make_node("DequantizeLinear", [stored, *constants], [output], f"{name}_dq"),
        ]

    def _absorbed(self) -> set[str]:
        """Outputs of bounds that the quantizer behind them has anyway; onnxruntime fuses only what has none."""
        outputs = set()
        for name in self.pairs:
            node = self.graph.producer.get(name)
            if node is None or node.op_type not in _BOUNDED or len(self.graph.consumers[node.input[0]]) > 1:
                continue
            if name in self.graph.outputs or any(
                (name, reader.name) not in self.plan.reads or name not in reader.input
                for reader in self.graph.consumers[name]
            ):
                continue
            scale, zero = parameters(*self.ranges[name], self.scheme.activations)
            low, high = _bounds(self.graph, node)
            if low >= -int(zero) * scale - 1e-6 and low <= 0 and (255 - int(zero)) * scale <= high * (1 + 1e-6):
                outputs.add(name)
        return outputs

    def _weights(self, node: onnx.NodeProto) -> list[onnx.NodeProto]:
        """A node's weight, stored in 8 bits; its bias too where the kernel wants that."""
        weight = self.graph.constants[node.input[1]]
        axis = channel_axis(node, weight)
        scale = weight_scale(weight, axis, self.scheme.weights)
        bias = self.graph.constants.get(node.input[2]) if self.scheme.outputs and len(node.input) > 2 else None
        input_scale = self.scales[node.input[0]]
        if bias is not None and bias.shape != scale.shape:
            bias = None  # not one number a channel: it stays float
        if bias is not None:  # a channel without weights still has its bias, which must fit 32 bits at this scale
            scale = np.maximum(scale, np.abs(bias) / (input_scale * 2.0**30)).astype(np.float32)
        nodes = [self._stored(node, 1, to_number(weight, scale, axis, self.scheme.weights), scale, axis)]
        if bias is not None:
            bias_scale = (scale * input_scale).astype(np.float32)
            nodes.append(self._stored(node, 2, np.rint(bias / bias_scale).astype(np.int32), bias_scale, 0))
        return nodes

    def _stored(self, node: onnx.NodeProto, index: int, quantized: Array, scale: Array, axis: int) -> onnx.NodeProto:
        """An operand as quantized constant and its DequantizeLinear, for this node alone."""
        name = f"{node.input[index]}_{node.name}"
        constants = [
            self.graph.set_constant(f"{name}_quantized", quantized),
            self.graph.set_constant(f"{name}_scale", scale),
            self.graph.set_constant(f"{name}_zero_point", np.zeros(scale.shape, quantized.dtype)),
        ]
        node.input[index] = f"{name}_dequantized"
        dequantizer = helper.make_node("DequantizeLinear", constants, [node.input[index]], f"{name}_dq")
        if scale.ndim:
            dequantizer.attribute.append(helper.make_attribute("axis", axis))
        return dequantizer


def _bounds(graph: OnnxGraph, node: onnx.NodeProto) -> tuple[float, float]:
    """What a Clip or Relu bounds to."""
    if node.op_type == "Relu":
        return 0.0, np.inf
    bounds = [graph.constants.get(name) for name in [*node.input[1:], "", ""][:2]]
    low, high = (float(value) if value is not None and value.size else None for value in bounds)
    return -np.inf if low is None else low, np.inf if high is None else high


def parameters(low: float, high: float, number: Number) -> tuple[float, Array]:
    """Scale and zero point that put a range onto an 8-bit type."""
    if number == "uint8":
        scale = max(high - low, 1e-8) / LARGEST["uint8"]
        return scale, np.array(np.clip(np.rint(-low / scale), 0, 255), np.uint8)
    scale = max(abs(low), abs(high), 1e-8) / LARGEST[number]
    return scale, np.zeros((), np.int8 if number == "int8" else ml_dtypes.float8_e4m3fn)


def channel_axis(node: onnx.NodeProto, weight: Array) -> int:
    """The weight's axis that has one entry an output channel."""
    if node.op_type == "Conv":
        return 0
    if node.op_type == "ConvTranspose":
        return 1
    if node.op_type == "Gemm" and any(attribute.name == "transB" and attribute.i for attribute in node.attribute):
        return 0
    return weight.ndim - 1


def weight_scale(weight: Array, axis: int, number: Number) -> Array:
    """One scale a channel; fp8 has range enough for one a tensor."""
    if number == "fp8":
        return np.array(max(float(np.abs(weight).max()), 1e-8) / LARGEST["fp8"], np.float32)
    others = tuple(index for index in range(weight.ndim) if index != axis)
    scale: Array = np.maximum(np.abs(weight).max(axis=others), 1e-8) / LARGEST[number]
    return scale.astype(np.float32)


def to_number(weight: Array, scale: Array, axis: int, number: Number) -> Array:
    """A weight on the grid of an 8-bit type, as that type."""
    shape = [-1 if index == axis else 1 for index in range(weight.ndim)]
    divided = weight / (scale.reshape(shape) if scale.ndim else scale)
    if number == "fp8":
        return np.clip(divided, -LARGEST["fp8"], LARGEST["fp8"]).astype(ml_dtypes.float8_e4m3fn)
    return np.clip(np.rint(divided), -127, 127).astype(np.int8)
