"""An index over an ONNX graph for rewriting it: who makes a tensor, who reads it, what is constant.

It holds the one model that a variant is made from; :func:`load` copies, so a rewrite never touches the original.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx.version_converter
from numpy.typing import NDArray
from onnx import helper, numpy_helper

from tritonkit import external_data, graph_inspection
from tritonkit.errors import GraphError

Array = NDArray[Any]
NEEDED_OPSET = 19  # fp16 scales, and fp8, in QuantizeLinear
OPSET, IR_VERSION = 20, 9  # what exports have; onnxruntime 1.17 and newer run it
COMPUTE = ("Conv", "ConvTranspose", "Gemm", "MatMul")  # what precision is about: nearly all of a network's work

CONTROL = ("If", "Loop", "Scan")  # nodes with graphs inside, which read tensors around them by name


class OnnxGraph:
    """One graph, indexed; :meth:`refresh` after nodes were added or removed."""

    def __init__(self, model: onnx.ModelProto) -> None:
        self.model = model
        self.constants: dict[str, Array] = {}
        self._fold_constant_nodes()
        stored = {tensor.name for tensor in model.graph.initializer}
        if any(value.name in stored for value in model.graph.input):  # IR 3's way to give an initializer a default
            inputs = [value for value in model.graph.input if value.name not in stored]
            del model.graph.input[:]
            model.graph.input.extend(inputs)
        for index, node in enumerate(model.graph.node):
            node.name = node.name or f"{node.op_type}_{index}"
        for tensor in model.graph.initializer:
            if tensor.data_location != onnx.TensorProto.EXTERNAL:  # weights that were not loaded
                self.constants[tensor.name] = numpy_helper.to_array(tensor)
        self.refresh()

    def _fold_constant_nodes(self) -> None:
        """`Constant` nodes become initializers, so that there is one kind of constant."""
        kept = []
        for node in self.model.graph.node:
            array = _constant(node)
            if array is None:
                kept.append(node)
            else:
                self.model.graph.initializer.append(numpy_helper.from_array(array, node.output[0]))
        if len(kept) < len(self.model.graph.node):
            del self.model.graph.node[:]
            self.model.graph.node.extend(kept)

    def copy(self) -> OnnxGraph:
        """The same graph, to be changed on its own."""
        model = onnx.ModelProto()
        model.CopyFrom(self.model)
        return OnnxGraph(model)

    def refresh(self) -> None:
        """Index nodes again."""
        self._stored = {tensor.name: tensor for tensor in self.model.graph.initializer}
        self.producer: dict[str, onnx.NodeProto] = {}
        self.consumers: dict[str, list[onnx.NodeProto]] = defaultdict(list)
        for node in self.model.graph.node:
            self.producer.update((name, node) for name in node.output if name)
            for name in dict.fromkeys(reads(node)):
                self.consumers[name].append(node)

    @property
    def nodes(self) -> Sequence[onnx.NodeProto]:
        """All nodes, in an order in which they can run."""
        return self.model.graph.node

    @property
    def inputs(self) -> list[str]:
        """Names of the inputs, without initializers."""
        return [value.name for value in self.model.graph.input if value.name not in self.constants]

    @property
    def outputs(self) -> list[str]:
        """Names of the outputs."""
        return [value.name for value in self.model.graph.output]

    def compute_nodes(self) -> list[onnx.NodeProto]:
        """Convolutions and matrix products, with or without constant weights."""
        return [node for node in self.nodes if node.op_type in COMPUTE]

    def weight(self, node: onnx.NodeProto) -> Array | None:
        """The constant second operand of a compute node."""
        return self.constants.get(node.input[1])

    def set_constant(self, name: str, array: Array) -> str:
        """Add or replace an initializer."""
        self.constants[name] = array
        tensor = numpy_helper.from_array(np.asarray(array, order="C"), name)
        if name in self._stored:
            self._stored[name].CopyFrom(tensor)
        else:
            self._stored[name] = self.model.graph.initializer.add()
            self._stored[name].CopyFrom(tensor)
        return name

    def replace_nodes(self, nodes: Iterable[onnx.NodeProto]) -> None:
        """Put other nodes in place of all, drop initializers that nobody reads, and index again."""
        kept = list(nodes)
        del self.model.graph.node[:]
        self.model.graph.node.extend(kept)
        read = {name for node in kept for name in reads(node)} | set(self.outputs)
        initializers = [tensor for tensor in self.model.graph.initializer if tensor.name in read]
        del self.model.graph.initializer[:]
        self.model.graph.initializer.extend(initializers)
        self.constants = {name: array for name, array in self.constants.items() if name in read}
        self.refresh()

    def with_outputs(self, names: Iterable[str]) -> onnx.ModelProto:
        """A copy whose outputs are these tensors, of any shape, for looking inside."""
        copy = self.copy().model
        del copy.graph.output[:]
        copy.graph.output.extend(helper.make_empty_tensor_value_info(name) for name in names)
        return copy


def load(path: Path) -> OnnxGraph:
    """A graph to be rewritten, with its weights, in an opset that has all numbers.

    Raises:
        GraphError: The graph has an older opset and cannot be brought to this one.
    """
    model = external_data.load(path)
    opset = graph_inspection.opset(model)
    if opset < NEEDED_OPSET:
        try:
            model = _converted(model)
        except Exception as error:
            reason = (str(error).strip() or type(error).__name__).splitlines()[0]
            raise GraphError(
                f"{path} has opset {opset}, variants need {NEEDED_OPSET}, and onnx cannot convert it: {reason}",
                f"export it again with opset {OPSET}",
            ) from error
        model.ir_version = max(model.ir_version, IR_VERSION)
    return OnnxGraph(model)


def _converted(model: onnx.ModelProto) -> onnx.ModelProto:
    """The model in the newer opset; onnx converts less than 2 GB, and so a larger one without its weights."""
    if external_data.size_bytes(model) <= external_data.LARGEST_BYTES:
        return onnx.version_converter.convert_version(model, OPSET)
    light = onnx.ModelProto()
    light.CopyFrom(model)
    weights = [tensor for tensor in model.graph.initializer if external_data.is_weight(tensor)]
    names = {tensor.name for tensor in weights} - {value.name for value in model.graph.input}
    kept = [tensor for tensor in light.graph.initializer if not external_data.is_weight(tensor)]
    del light.graph.initializer[:]
    light.graph.initializer.extend(kept)
    light.graph.input.extend(
        helper.make_tensor_value_info(tensor.name, tensor.data_type, tensor.dims)
        for tensor in weights
        if tensor.name in names
    )
    converted: onnx.ModelProto = onnx.version_converter.convert_version(light, OPSET)
    inputs = [value for value in converted.graph.input if value.name not in names]
    del converted.graph.input[:]
    converted.graph.input.extend(inputs)
    converted.graph.initializer.extend(weights)
    return converted


def _constant(node: onnx.NodeProto) -> Array | None:
    """What a `Constant` node of numbers holds; None for any other node."""
    if node.op_type != "Constant" or not node.attribute:
        return None
    attribute = node.attribute[0]
    if attribute.name == "value":
        return numpy_helper.to_array(attribute.t)
    kind = {"value_float": np.float32, "value_floats": np.float32, "value_int": np.int64, "value_ints": np.int64}
    return np.asarray(helper.get_attribute_value(attribute), kind[attribute.name]) if attribute.name in kind else None


def reads(node: onnx.NodeProto) -> list[str]:
    """The tensors that a node reads, those that only its branches and loop bodies read included."""
    names = [name for name in node.input if name]
    for attribute in node.attribute:
        for body in (attribute.g, *attribute.graphs):
            inside = {value.name for value in body.input} | {tensor.name for tensor in body.initializer}
            inside.update(name for inner in body.node for name in inner.output)
            names += [name for inner in body.node for name in reads(inner) if name not in inside]
            names += [value.name for value in body.output if value.name not in inside]
    return names


def sort(model: onnx.ModelProto) -> None:
    """Put nodes into an order in which they can run, changing no more than that needs."""
    available = {value.name for value in model.graph.input} | {tensor.name for tensor in model.graph.initializer}
    waiting, ordered = list(model.graph.node), []
    while waiting:
        left = []
        for node in waiting:
            if available.issuperset(reads(node)):
                available.update(node.output)
                ordered.append(node)
            else:
                left.append(node)
        if len(left) == len(waiting):
            raise ValueError(f"{left[0].name} reads what nothing makes")
        waiting = left
    del model.graph.node[:]
    model.graph.node.extend(ordered)
