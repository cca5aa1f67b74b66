"""What lint needs of an ONNX file, read once and without its external weights."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import onnx
from google.protobuf.message import DecodeError

from tritonkit import graph_inspection
from tritonkit.dtypes import BY_ONNX

_P = onnx.TensorProto
_LFS = b"version https://git-lfs.github.com/spec/"
_SHAPE_BYTES = 1024
# What onnxruntime's CUDA provider runs by cuDNN, and prepares for one shape.
_CONVOLUTIONS = {"Conv", "ConvTranspose", "FusedConv"}
Dims = tuple[int, ...]


@dataclass(frozen=True)
class Tensor:
    """An input or output: Triton's dtype (empty if it serves none such) and dims, -1 where they may vary.

    Attributes:
        inferred: An output's dims after shape inference with propagated values, where the file leaves some open;
            onnxruntime may find the same.
        certain: The same by the shapes alone, which onnxruntime finds too.
    """

    name: str
    dtype: str
    dims: Dims | None
    kind: str
    inferred: Dims | None = None
    certain: Dims | None = None


@dataclass(frozen=True)
class External:
    """A file that holds weights: its path, and how many bytes it must have at least."""

    path: Path
    size: int


@dataclass(frozen=True)
class Graph:
    """One ONNX file.

    Attributes:
        path: The file.
        inputs: What a request must bring.
        outputs: What it can ask for.
        optional: Initializers that are inputs too: a request may bring them.
        opset: Version of the default operator set.
        ir: Version of the file format.
        externals: Files beside it with weights.
        asymmetric: Quantization nodes whose zero point is not 0, as ``name (why)``.
        precisions: Which of fp16, bf16, int8, fp8 occur in it.
        weight_bytes: Size of the file and of its external weights.
        convolutions: How many nodes are convolutions, also inside loops, branches and functions.
        operators: Domain and type of each node, without those that are functions of the file itself.
        opsets: Version of each domain's operators.
    """

    path: Path
    inputs: dict[str, Tensor]
    outputs: dict[str, Tensor]
    optional: frozenset[str]
    opset: int
    ir: int
    externals: tuple[External, ...]
    asymmetric: tuple[str, ...]
    precisions: frozenset[str]
    weight_bytes: int
    convolutions: int
    operators: frozenset[tuple[str, str]]
    opsets: dict[str, int]


def read(path: Path) -> Graph | str:
    """The graph in a file, or why there is none, as the end of a sentence about the file."""
    if why := unusable(path):
        return why
    try:
        model = onnx.load(path, load_external_data=False)
    except (DecodeError, ValueError, OSError) as error:
        return f"is not an ONNX model ({type(error).__name__})"
    if not model.graph.output:
        return "is not an ONNX model: it has no outputs"
    return _summary(path, model)


def unusable(path: Path) -> str:
    """Why a model file of any kind cannot be right: empty, or only a pointer to itself; empty if it may be."""
    try:
        with path.open("rb") as file:
            start = file.read(len(_LFS))
    except OSError as error:
        return f"cannot be read: {error.strerror}"
    if not start:
        return "is empty"
    return "is a Git LFS pointer, not the file itself" if start == _LFS else ""


def _summary(path: Path, model: onnx.ModelProto) -> Graph:
    graph = model.graph
    initializers = {tensor.name for tensor in graph.initializer}
    externals = _externals(path, list(graph.initializer))
    asymmetric = tuple(_asymmetric(graph))
    return Graph(
        path,
        {value.name: _tensor(value) for value in graph.input if value.name not in initializers},
        {tensor.name: tensor for tensor in _outputs(model)},
        frozenset(value.name for value in graph.input if value.name in initializers),
        graph_inspection.opset(model),
        model.ir_version,
        externals,
        asymmetric,
        graph_inspection.precisions(graph),
        path.stat().st_size + sum(entry.path.stat().st_size for entry in externals if entry.path.is_file()),
        sum(node.op_type in _CONVOLUTIONS for node in _nodes(model)),
        frozenset(_operators(model)),
        {_domain(entry.domain): entry.version for entry in model.opset_import},
    )


def _domain(name: str) -> str:
    """ONNX's own domain has two names."""
    return "" if name == "ai.onnx" else name


def _operators(model: onnx.ModelProto) -> Iterator[tuple[str, str]]:
    own = {(function.domain, function.name) for function in model.functions}
    for node in _nodes(model):
        if (node.domain, node.op_type) not in own:
            yield _domain(node.domain), str(node.op_type)


def _nodes(model: onnx.ModelProto) -> Iterator[onnx.NodeProto]:
    """Every node, also of subgraphs and of the model's own functions."""
    left = [*model.graph.node, *(node for function in model.functions for node in function.node)]
    while left:
        node = left.pop()
        yield node
        for attribute in node.attribute:
            left += [*attribute.g.node, *(inner for graph in attribute.graphs for inner in graph.node)]


def _outputs(model: onnx.ModelProto) -> Iterator[Tensor]:
    """The outputs; shapes are inferred only if one leaves more than its first dimension open. Changes ``model``."""
    outputs = [_tensor(value) for value in model.graph.output]
    if not any(tensor.dims and -1 in tensor.dims[1:] for tensor in outputs):
        yield from outputs
        return
    for tensor in model.graph.initializer:
        if len(tensor.raw_data) > _SHAPE_BYTES:
            tensor.ClearField("raw_data")  # weights; inference needs the numbers of shapes only
    try:
        plain, propagated = (
            {
                value.name: _tensor(value).dims
                for value in onnx.shape_inference.infer_shapes(model, data_prop=far).graph.output
            }
            for far in (False, True)
        )
    except (onnx.shape_inference.InferenceError, ValueError, RuntimeError):  # a graph that it does not understand
        yield from outputs
        return
    for output in outputs:
        yield replace(output, inferred=propagated.get(output.name), certain=plain.get(output.name))


def _tensor(value: onnx.ValueInfoProto) -> Tensor:
    if not value.type.HasField("tensor_type"):
        return Tensor(value.name, "", None, str(value.type.WhichOneof("value") or "nothing").removesuffix("_type"))
    tensor = value.type.tensor_type
    known = BY_ONNX.get(tensor.elem_type)
    kind = _P.DataType.Name(tensor.elem_type) if tensor.elem_type in _P.DataType.values() else str(tensor.elem_type)
    dims = None
    if tensor.HasField("shape"):
        dims = tuple(int(dim.dim_value) if dim.HasField("dim_value") else -1 for dim in tensor.shape.dim)
    return Tensor(value.name, known.triton if known else "", dims, kind)


def _externals(path: Path, tensors: list[onnx.TensorProto]) -> tuple[External, ...]:
    sizes: dict[str, int] = {}
    for tensor in tensors:
        if tensor.data_location != _P.EXTERNAL:
            continue
        external = {entry.key: entry.value for entry in tensor.external_data}
        end = _integer(external.get("offset")) + _integer(external.get("length"))
        sizes[external.get("location", "")] = max(sizes.get(external.get("location", ""), 0), end)
    return tuple(External(Path(os.path.normpath(path.parent / name)), size) for name, size in sizes.items())


def _integer(text: str | None) -> int:
    return int(text) if text and text.isdigit() else 0


def _asymmetric(graph: onnx.GraphProto) -> Iterator[str]:
    """Nodes that TensorRT refuses (a zero point that is not 0), or takes for int8 (unsigned)."""
    for node, zero in graph_inspection.zero_points(graph):
        name = node.name or node.output[0]
        if zero is not None and zero.data_type == _P.UINT8:
            yield f"{name} (uint8)"
        elif zero is not None and zero.data_type == _P.INT8 and _any_nonzero(zero):
            yield f"{name} (zero point not 0)"


def _any_nonzero(tensor: onnx.TensorProto) -> bool:
    if tensor.data_location == _P.EXTERNAL:
        return False  # unknown: it is in a file that is not read
    return any(tensor.raw_data) or any(tensor.int32_data)
