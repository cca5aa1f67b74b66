"""Changes to a graph that keep what it computes in fp32 and lose less in 8 bits.

Smoothing moves outliers of activations into weights, which have one scale a channel (Xiao et al., "SmoothQuant",
2022, equation 4). Bias correction takes the mean error that rounded weights make out of the bias (Nagel et al.,
"Data-free quantization through weight equalization and bias correction", 2019, section 4.2).
"""

from __future__ import annotations

from collections.abc import Mapping, Set

import numpy as np
import onnx
from onnx import helper

from tritonkit.precision import qdq
from tritonkit.precision.calibration import Statistics
from tritonkit.precision.onnxgraph import Array, OnnxGraph


def smooth(graph: OnnxGraph, chosen: Set[str], among: Set[str], seen: Statistics, alpha: float) -> list[str]:
    """Divide the channels of matrix products' inputs, and multiply the weights' rows, by the same factors.

    Args:
        graph: Changed in place.
        chosen: Names of the nodes that will be quantized.
        among: Names of all nodes that could be: factors are theirs together, whichever are chosen.
        seen: Observations of their inputs.
        alpha: How much of an outlier moves to the weights: 0 none, 1 all.

    Returns:
        The new inputs, whose ranges are still to be observed.
    """
    groups: dict[str, list[onnx.NodeProto]] = {}
    for node in graph.nodes:
        if node.op_type == "MatMul" and node.name in among and graph.constants[node.input[1]].ndim == 2:
            groups.setdefault(node.input[0], []).append(node)
    muls: dict[str, onnx.NodeProto] = {}
    for name, sharing in groups.items():
        heaviest = np.maximum.reduce([np.abs(graph.constants[node.input[1]]).max(axis=1) for node in sharing])
        factors = _factors(seen[name].absmax, heaviest, alpha)
        readers = [node for node in sharing if node.name in chosen]
        if not readers:
            continue
        weights = [graph.constants[node.input[1]] for node in readers]
        for node, weight in zip(readers, weights, strict=True):
            smoothed = graph.set_constant(
                f"{node.input[1]}_{node.name}_smoothed", (weight * factors[:, None]).astype(weight.dtype)
            )
            node.input[1] = smoothed
            node.input[0] = f"{name}_smoothed"
        inverse = graph.set_constant(f"{name}_smoothing", (1 / factors).astype(weights[0].dtype))
        muls[name] = helper.make_node("Mul", [name, inverse], [f"{name}_smoothed"], f"{name}_smooth")
    nodes = [muls[name] for name in graph.inputs if name in muls]
    for node in graph.nodes:
        nodes.append(node)
        nodes += [muls[output] for output in node.output if output in muls]
    graph.replace_nodes(nodes)
    return [f"{name}_smoothed" for name in muls]


def _factors(activations: Array, weights: Array, alpha: float) -> Array:
    factors = np.maximum(activations, 1e-5) ** alpha / np.maximum(weights, 1e-5) ** (1 - alpha)
    clipped: Array = np.clip(factors / np.exp(np.log(factors).mean()), 1e-3, 1e3)
    return clipped


def correct_biases(graph: OnnxGraph, chosen: Set[str], seen: Statistics, scheme: qdq.Scheme) -> None:
    """Add to each quantized node's bias what its rounded weights take from the mean output.

    Args:
        graph: Not quantized yet; changed in place. Nodes without a bias of their own or an addition of one stay.
        chosen: Names of the nodes that will be quantized.
        seen: Observations of their inputs.
        scheme: How weights will be rounded.
    """
    for node in graph.nodes:
        if node.name not in chosen:
            continue
        weight = graph.constants[node.input[1]]
        axis = qdq.channel_axis(node, weight)
        scale = qdq.weight_scale(weight, axis, scheme.weights)
        rounded = qdq.to_number(weight, scale, axis, scheme.weights).astype(np.float32) * _along(
            scale, axis, weight.ndim
        )
        lost = _mean_output(node, weight - rounded, seen[node.input[0]].mean)
        if lost is not None:
            _add_to_bias(graph, node, lost)


def _along(scale: Array, axis: int, rank: int) -> Array:
    return scale.reshape([-1 if index == axis else 1 for index in range(rank)]) if scale.ndim else scale


def _mean_output(node: onnx.NodeProto, weight: Array, mean: Array) -> Array | None:
    """The mean output of a node for a mean input, a number a channel; None where that is not a sum over channels."""
    attributes: Mapping[str, object] = {
        attribute.name: helper.get_attribute_value(attribute) for attribute in node.attribute
    }
    if node.op_type == "Conv" and len(mean) == weight.shape[1] * int(attributes.get("group", 1)):  # type: ignore[call-overload]
        groups = int(attributes.get("group", 1))  # type: ignore[call-overload]
        per_input = weight.sum(axis=tuple(range(2, weight.ndim)))  # (outputs, inputs of a group)
        means = mean.reshape(groups, -1).repeat(len(weight) // groups, axis=0)
        return np.asarray((per_input * means).sum(axis=1))
    if node.op_type == "MatMul" and weight.ndim == 2 and len(mean) == len(weight):
        return np.asarray(mean @ weight)
    if node.op_type == "Gemm" and not attributes.get("transA") and attributes.get("alpha", 1.0) == 1.0:
        return np.asarray(weight @ mean if attributes.get("transB") else mean @ weight)
    return None


def _add_to_bias(graph: OnnxGraph, node: onnx.NodeProto, lost: Array) -> None:
    if node.op_type != "MatMul":
        if len(node.input) > 2 and node.input[2] in graph.constants:
            bias = graph.constants[node.input[2]]
            node.input[2] = graph.set_constant(
                f"{node.input[2]}_{node.name}_corrected", (bias + lost).astype(bias.dtype)
            )
        return
    readers = graph.consumers[node.output[0]]
    if len(readers) == 1 and readers[0].op_type == "Add":
        index = next((i for i, name in enumerate(readers[0].input) if name in graph.constants), None)
        if index is not None and graph.constants[readers[0].input[index]].shape == lost.shape:
            bias = graph.constants[readers[0].input[index]]
            readers[0].input[index] = graph.set_constant(f"{node.name}_corrected", (bias + lost).astype(bias.dtype))
