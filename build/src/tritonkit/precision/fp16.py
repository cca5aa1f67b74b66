"""fp16 by casts in the graph: everything but the nodes that real samples show to be dangerous.

A node is dangerous when fp16 cannot hold what it makes or sums up inside, or when rounding makes its result much
worse than its inputs are. That is measured on the fp32 graph with every tensor rounded, so it needs no GPU.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import onnx
from onnx import TensorProto, helper

from tritonkit import external_data, samples
from tritonkit.graph import Session
from tritonkit.precision import onnxgraph
from tritonkit.precision.onnxgraph import Array, OnnxGraph

LARGEST = float(np.finfo(np.float16).max)  # 65504
SMALLEST = 2.0**-24  # the smallest subnormal
HALF = {TensorProto.FLOAT16, TensorProto.BFLOAT16}
TOO_LARGE = f"which fp16 cannot hold (it ends at {LARGEST:.0f})"
OWN_ERROR = 1e-2  # relative error that a node may add to those of its inputs; fp16 rounds to 5e-4
LOOKED_AT = 16  # samples; each is run with every tensor as an output
# What a kernel sums up inside, where fp16 would overflow though the result is small.
_SUMS_SQUARES = {"LayerNormalization", "ReduceL2", "ReduceSumSquare", "LpNormalization", "InstanceNormalization"}
# onnxruntime 1.32 ends the process while it optimizes fp16 for a CPU: an LSTM's output that is squeezed, transposed and
# multiplied.
CRASHES = ("MatmulTransposeFusion",)
_MASKED = {"Add", "Where", "Expand", "Sum"}
_SUMS = {"ReduceSum", "ReduceMean", "ReduceL1", "GlobalAveragePool"}


@dataclass(frozen=True)
class Danger:
    """A node that stays in fp32, and why."""

    node: str
    op: str
    reason: str


def dangers(graph: OnnxGraph, dataset: Sequence[samples.Sample], batched: bool) -> list[Danger]:
    """Run samples in fp32 and with everything rounded to fp16, and compare node by node.

    Args:
        graph: The fp32 graph; not changed.
        dataset: Real samples.
        batched: Whether the graph takes a batch dimension that the samples lack.
    """
    floats = _float_tensors(graph, dataset[0], batched)
    if not floats:
        return []
    exact = Session(graph.with_outputs(floats), optimize=False)
    rounded = Session(_rounded(graph, floats), optimize=False)
    errors: dict[str, float] = dict.fromkeys(floats, 0.0)
    reasons: dict[str, Danger] = {}
    too_large: set[str] = set()
    for node in graph.nodes:
        far = next(
            (name for name in node.input if name in graph.constants and _beyond(graph.constants[name]).any()), ""
        )
        if far:
            reasons[node.name] = Danger(node.name, node.op_type, f"reads the constant {far}, {TOO_LARGE}")
    for sample in dataset[:LOOKED_AT]:
        inputs = samples.batch([sample], 1) if batched else sample
        true, near = exact.run(inputs), rounded.run(inputs)
        for name in floats:
            errors[name] = max(errors[name], _relative(true[name], near[f"{name}__rounded"]))
        too_large.update(name for name in floats if _largest(true[name]) > LARGEST)
        for node in graph.nodes:
            reason = _reason(node, true, errors)
            if reason:
                reasons.setdefault(node.name, Danger(node.name, node.op_type, reason))
    for name in sorted(too_large):  # whoever reads it must get it in fp32
        for reader in graph.consumers[name]:
            reasons.setdefault(reader.name, Danger(reader.name, reader.op_type, f"reads {name}, {TOO_LARGE}"))
    return list(reasons.values())


def _largest(array: Array) -> float:
    """The largest finite magnitude."""
    return float(np.abs(array[np.isfinite(array)]).max(initial=0))


def clip_masks(graph: OnnxGraph) -> list[str]:
    """Bring masks into fp16's range: constants of -3.4e38 that are added or selected, and only mean "far below".

    They become half of what fp16 ends at, so that adding a score to them does not overflow either. A constant that is
    multiplied or divided by is no mask: its node is a danger instead.

    Returns:
        Their names.
    """
    masks = []
    for name, array in graph.constants.items():
        readers = graph.consumers[name]
        if not _beyond(array).any() or not readers or any(reader.op_type not in _MASKED for reader in readers):
            continue
        if (array[_beyond(array)] < 0).all():
            masks.append(name)
    for name in masks:
        array = graph.constants[name]
        graph.set_constant(name, np.where(np.isfinite(array), array.clip(-LARGEST / 2, None), array))
    return masks


def _beyond(array: Array) -> Array:
    """Where a constant is finite and fp16 would make it infinite."""
    if array.dtype != np.float32:
        return np.zeros(array.shape, bool)
    far: Array = np.isfinite(array) & (np.abs(array) > LARGEST)
    return far


def convert(model: onnx.ModelProto, kept: Sequence[str]) -> onnx.ModelProto:
    """The same graph in fp16, with casts around the kept nodes and at inputs and outputs, whose types stay.

    Args:
        model: An fp32 graph, with or without Q/DQ; changed in place.
        kept: Names of nodes that stay in fp32.
    """
    from onnxruntime.transformers import float16

    inner = [node.name for node in model.graph.node if node.op_type in onnxgraph.CONTROL]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it warns of each weight that becomes zero or is clipped
        converted: onnx.ModelProto = float16.convert_float_to_float16(
            external_data.infer_shapes(model), keep_io_types=True, node_block_list=[*kept, *inner],
            min_positive_val=SMALLEST, max_finite_val=LARGEST, disable_shape_infer=True,
        )  # fmt: skip
    cast_for_bodies(converted)
    _rejoin(converted)
    onnxgraph.sort(converted)  # the library puts the casts of inputs last
    return converted


def cast_for_bodies(model: onnx.ModelProto) -> None:
    """Let the graphs inside If, Loop and Scan, which stay in fp32, read what is around them in fp32.

    The library casts a kept node's inputs, and not what the graphs inside it read by name.

    Args:
        model: Converted, with control nodes kept; changed in place.
    """
    half = {tensor.name for tensor in model.graph.initializer if tensor.data_type in HALF}
    half |= {value.name for value in model.graph.value_info if value.type.tensor_type.elem_type in HALF}
    half |= {node.output[0] for node in model.graph.node if node.op_type == "Cast" and _to(node) in HALF}
    casts: dict[str, onnx.NodeProto] = {}
    for node in [node for node in model.graph.node if node.op_type in onnxgraph.CONTROL]:
        around = (set(onnxgraph.reads(node)) - set(node.input)) & half
        for name in around:
            casts[name] = helper.make_node(
                "Cast", [name], [f"{name}__fp32"], f"{name}__fp32_cast", to=TensorProto.FLOAT
            )
        for attribute in node.attribute:
            for body in (attribute.g, *attribute.graphs):
                _rename_reads(body, {name: f"{name}__fp32" for name in around})
    model.graph.node.extend(casts.values())


def _rename_reads(body: onnx.GraphProto, names: Mapping[str, str]) -> None:
    """Let a graph inside a node, and those inside its nodes, read other tensors from around it."""
    for node in body.node:
        for index, name in enumerate(node.input):
            node.input[index] = names.get(name, name)
        for attribute in node.attribute:
            for inner in (attribute.g, *attribute.graphs):
                _rename_reads(inner, names)
    for value in body.output:  # a body may hand out a tensor from around it
        value.name = names.get(value.name, value.name)


def _rejoin(model: onnx.ModelProto) -> None:
    """Let neighbours that both stay in fp32 hand over fp32: the library casts down and up between them."""
    casts = {node.output[0]: node for node in model.graph.node if node.op_type == "Cast"}
    for node in casts.values():
        before = casts.get(node.input[0])
        if before is None or _to(node) != TensorProto.FLOAT or _to(before) != TensorProto.FLOAT16:
            continue
        if before.input[0].endswith("_cast_to_fp16"):  # what the library calls a kept node's own output
            node.op_type, node.input[0] = "Identity", before.input[0]
            del node.attribute[:]
    read = {name for node in model.graph.node for name in onnxgraph.reads(node)}
    read |= {value.name for value in model.graph.output}
    for node in casts.values():
        if node.op_type == "Cast" and node.output[0] not in read:
            model.graph.node.remove(node)


def _to(cast: onnx.NodeProto) -> int:
    return next(int(attribute.i) for attribute in cast.attribute if attribute.name == "to")


def emulated(model: onnx.ModelProto) -> onnx.ModelProto:
    """An fp16 graph in fp32 arithmetic with every fp16 tensor rounded to fp16's grid and range.

    onnxruntime's CPU kernels compute fp16 in fp32 and drop casts between them, so that nothing overflows there which
    would on a GPU. Pairs of casts that the graph itself has, it keeps. Sums inside a kernel are fp32, as tensor cores'.

    Args:
        model: Changed in place.
    """
    inferred = external_data.infer_shapes(model).graph
    half = {value.name for value in inferred.value_info if value.type.tensor_type.elem_type == TensorProto.FLOAT16}
    nodes = []
    for node in model.graph.node:
        if node.op_type == "Cast" and _to(node) == TensorProto.FLOAT16:
            node.attribute[0].i = TensorProto.FLOAT
        rounded = [name for name in node.output if name in half]
        for index, name in enumerate(node.output):
            if name in half:
                node.output[index] = f"{name}__exact"
        nodes.append(node)
        for name in rounded:
            nodes += [
                helper.make_node("Cast", [f"{name}__exact"], [f"{name}__half"], to=TensorProto.FLOAT16),
                helper.make_node("Cast", [f"{name}__half"], [name], to=TensorProto.FLOAT),
            ]
    kept = [*nodes]
    del model.graph.node[:]
    model.graph.node.extend(kept)
    for tensor in model.graph.initializer:
        if tensor.data_type == TensorProto.FLOAT16:
            array = onnx.numpy_helper.to_array(tensor).astype(np.float32)
            tensor.CopyFrom(onnx.numpy_helper.from_array(array, tensor.name))
    del model.graph.value_info[:]
    return model


def _float_tensors(graph: OnnxGraph, sample: samples.Sample, batched: bool) -> list[str]:
    """Activations of type fp32, found by running: shape inference does not know all of them."""
    names = [name for node in graph.nodes for name in node.output if name]
    inputs = samples.batch([sample], 1) if batched else sample
    seen = Session(graph.with_outputs(names), optimize=False).run(inputs)
    return [name for name in names if getattr(seen[name], "dtype", None) == np.float32]


def _rounded(graph: OnnxGraph, floats: Sequence[str]) -> onnx.ModelProto:
    """The graph in fp32 arithmetic, with every weight and activation on fp16's grid."""
    model = graph.with_outputs(f"{name}__rounded" for name in floats)
    activations = set(floats)
    nodes = []
    for node in model.graph.node:
        for index, name in enumerate(node.input):
            if name in activations:
                node.input[index] = f"{name}__rounded"
        nodes.append(node)
        for name in node.output:
            if name in activations:
                nodes += [
                    helper.make_node("Cast", [name], [f"{name}__half"], to=TensorProto.FLOAT16),
                    helper.make_node("Cast", [f"{name}__half"], [f"{name}__rounded"], to=TensorProto.FLOAT),
                ]
    replacement = [*nodes]
    del model.graph.node[:]
    model.graph.node.extend(replacement)
    for tensor in model.graph.initializer:
        if tensor.data_type == TensorProto.FLOAT:
            array = onnx.numpy_helper.to_array(tensor)
            held = np.where(np.isfinite(array), array.clip(-LARGEST, LARGEST), array).astype(np.float16)
            tensor.CopyFrom(onnx.numpy_helper.from_array(held.astype(np.float32), tensor.name))
    return model


def _relative(true: Array, near: Array) -> float:
    """Root mean square error over the true tensor's; infinite where one is finite and the other not."""
    finite = np.isfinite(true)
    if not np.array_equal(finite, np.isfinite(near)):
        return np.inf
    difference, size = np.where(finite, true - np.where(finite, near, 0), 0), np.where(finite, true, 0)
    return float(
        np.sqrt(np.square(difference, dtype=np.float64).mean() / max(np.square(size, dtype=np.float64).mean(), 1e-30))
    )


def _reason(node: onnx.NodeProto, true: Mapping[str, Array], errors: Mapping[str, float]) -> str:
    inputs = [true[name] for name in node.input if name in true]
    outputs = [name for name in node.output if name in true]
    if not outputs:
        return ""
    largest = max(_largest(true[name]) for name in outputs)
    if largest > LARGEST:
        return f"makes {largest:.3g}, fp16 ends at {LARGEST:.0f}"
    inside = _inside(node, inputs[0]) if inputs else 0.0
    if inside > LARGEST:
        return f"sums up to {inside:.3g} inside, fp16 ends at {LARGEST:.0f}"
    before = max((errors[name] for name in node.input if name in errors), default=0.0)
    after = max(errors[name] for name in outputs)
    if after > OWN_ERROR and after > 10 * before:
        return f"relative error {after:.1e} from inputs with {before:.1e}"
    return ""


def _inside(node: onnx.NodeProto, array: Array) -> float:
    """The largest partial sum of a reduction over the last axis (over all positions for pooling)."""
    finite = np.where(np.isfinite(array), array, 0).astype(np.float64)
    if node.op_type in _SUMS_SQUARES:
        return float(np.square(finite).sum(axis=-1).max(initial=0))
    if node.op_type in _SUMS:
        axes = tuple(range(2, finite.ndim)) if finite.ndim == 4 else (-1,)
        return float(np.abs(finite).sum(axis=axes).max(initial=0))
    return 0.0
