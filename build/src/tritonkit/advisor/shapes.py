"""Shapes of every tensor of an ONNX graph, once its symbols have sizes; weights are never read."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import inliner, numpy_helper
from onnx.reference import ReferenceEvaluator

Array = NDArray[Any]
_SMALL = 64  # numbers of a constant that shapes may be computed from
_ROUNDS = 20  # of folding; each resolves one chain of Shape … Reshape
_FLOATING: set[int] = {
    onnx.TensorProto.FLOAT, onnx.TensorProto.FLOAT16, onnx.TensorProto.BFLOAT16, onnx.TensorProto.DOUBLE,
    onnx.TensorProto.FLOAT8E4M3FN, onnx.TensorProto.FLOAT8E5M2,
}  # fmt: skip
_BITS: dict[int, int] = {
    onnx.TensorProto.BFLOAT16: 16, onnx.TensorProto.FLOAT8E4M3FN: 8, onnx.TensorProto.FLOAT8E5M2: 8,
    onnx.TensorProto.INT4: 4, onnx.TensorProto.UINT4: 4, onnx.TensorProto.STRING: 128,
}  # fmt: skip


@dataclass(frozen=True)
class Tensor:
    """A tensor of known shape; ``element`` is ONNX's number of its type."""

    shape: tuple[int, ...]
    element: int

    @property
    def elements(self) -> int:
        """How many numbers it has."""
        return math.prod(self.shape)

    @property
    def floating(self) -> bool:
        """Whether they are floating-point."""
        return self.element in _FLOATING

    @property
    def bytes(self) -> int:
        """As it is stored."""
        return math.ceil(self.elements * _bits(self.element) / 8)


@dataclass(frozen=True)
class Shapes:
    """A graph whose symbols have sizes, and the tensors whose shapes follow."""

    model: onnx.ModelProto
    known: Mapping[str, Tensor]


def _bits(element: int) -> int:
    if element in _BITS:
        return _BITS[element]
    return int(onnx.helper.tensor_dtype_to_np_dtype(element).itemsize * 8)


def weights_of(model: onnx.ModelProto) -> dict[str, Tensor]:
    """Constants of a graph: initializers, and what nodes of type Constant hold."""
    constants = {tensor.name: Tensor(tuple(tensor.dims), tensor.data_type) for tensor in model.graph.initializer}
    for node in model.graph.node:
        if node.op_type == "Constant":
            for attribute in node.attribute:
                if attribute.name == "value":
                    constants[node.output[0]] = Tensor(tuple(attribute.t.dims), attribute.t.data_type)
    return constants


def infer(model: onnx.ModelProto, sizes: Mapping[str, int]) -> Shapes:
    """Set symbols, and let shapes follow.

    Args:
        model: It stays as it is.
        sizes: Of the symbols of the inputs; a nameless dimension is ``input[axis]``.
    """
    bound = _light(model)
    for value in bound.graph.input:
        for axis, dim in enumerate(value.type.tensor_type.shape.dim):
            size = sizes.get(dim.dim_param or f"{value.name}[{axis}]")
            if size is not None and not (dim.HasField("dim_value") and dim.dim_value >= 0):
                dim.dim_value = size
    del bound.graph.value_info[:]
    for value in bound.graph.output:
        value.type.tensor_type.ClearField("shape")
    known: dict[str, Tensor] = {}
    for _ in range(_ROUNDS):
        try:
            inferred = onnx.shape_inference.infer_shapes(bound, data_prop=True)
        except Exception:  # protobuf's and inference's own; what is known stays known
            break
        known = _known(inferred)
        if all(name in known for node in bound.graph.node for name in node.output if name):
            break
        if not _fold(bound, known):
            break
    return Shapes(bound, known)


def _light(model: onnx.ModelProto) -> onnx.ModelProto:
    """A copy whose large constants have dims and a type, and no numbers: inference reads no more of them."""
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    if copy.functions:
        copy = inliner.inline_local_functions(copy)
    for place, tensor in enumerate(copy.graph.initializer):
        if math.prod(tensor.dims) > _SMALL or tensor.data_location == onnx.TensorProto.EXTERNAL:
            light = onnx.TensorProto(name=tensor.name, dims=list(tensor.dims), data_type=tensor.data_type)
            copy.graph.initializer[place].CopyFrom(light)
    return copy


def _known(model: onnx.ModelProto) -> dict[str, Tensor]:
    tensors = weights_of(model)
    for value in (*model.graph.input, *model.graph.value_info, *model.graph.output):
        tensor = value.type.tensor_type
        dims = [dim.dim_value for dim in tensor.shape.dim if dim.HasField("dim_value")]
        if tensor.HasField("shape") and len(dims) == len(tensor.shape.dim):
            tensors[value.name] = Tensor(tuple(dims), tensor.elem_type)
    return tensors


def _fold(model: onnx.ModelProto, known: Mapping[str, Tensor]) -> bool:
    """Replace small whole-number nodes whose inputs are known by constants; whether there were any."""
    values: dict[str, Array] = {
        tensor.name: numpy_helper.to_array(tensor) for tensor in model.graph.initializer
        if _has_data(tensor)
    }  # fmt: skip
    changed = False
    kept = []
    for node in model.graph.node:
        arrays = _constant_outputs(node, values, known)
        if arrays is None:
            kept.append(node)
            continue
        values |= arrays
        changed = True
        model.graph.initializer.extend(numpy_helper.from_array(array, name) for name, array in arrays.items())
    if changed:
        del model.graph.node[:]
        model.graph.node.extend(kept)
    return changed


def _has_data(tensor: onnx.TensorProto) -> bool:
    return bool(tensor.raw_data or tensor.int64_data or tensor.int32_data or tensor.float_data or 0 in tensor.dims)


def _constant_outputs(
    node: onnx.NodeProto, values: Mapping[str, Array], known: Mapping[str, Tensor]
) -> dict[str, Array] | None:
    if node.op_type == "Shape" and node.input[0] in known:
        ends = {attribute.name: attribute.i for attribute in node.attribute}
        shape = known[node.input[0]].shape[ends.get("start", 0) : ends.get("end")]
        return {node.output[0]: np.array(shape, np.int64)}
    if node.op_type in {"Constant", "If", "Loop", "Scan"} or not node.input:
        return None
    if any(name and name not in values for name in node.input):
        return None
    out = [known.get(name) for name in node.output]
    if any(tensor is not None and tensor.elements > _SMALL for tensor in out):
        return None
    if sum(values[name].size for name in node.input if name) > 4 * _SMALL:
        return None
    try:
        results = ReferenceEvaluator(node).run(None, {name: values[name] for name in node.input if name})
    except Exception:  # whatever a reference kernel lacks, inference goes on without it
        return None
    arrays = {name: np.asarray(value) for name, value in zip(node.output, results, strict=False) if name}
    return None if any(array.size > _SMALL for array in arrays.values()) else arrays
