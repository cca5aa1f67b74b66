"""What one run of an ONNX graph costs: operations, weights and traffic of every layer, for given sizes of its symbols.

Shapes come from ONNX's inference once the symbols have sizes; weights are never read. A layer is what an engine runs as
one kernel: a convolution or product with the pointwise work that follows it. Time is for
:mod:`tritonkit.advisor.latency`.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import onnx

from tritonkit.advisor import operators
from tritonkit.advisor.operators import Kind
from tritonkit.advisor.shapes import Tensor, infer, weights_of
from tritonkit.errors import GraphError

Precision = Literal["fp32", "fp16", "bf16", "int8", "fp8"]
_MATRIX: tuple[Kind, ...] = ("convolution", "depthwise", "matrix", "attention", "recurrent")


@dataclass(frozen=True)
class Layer:
    """What an engine runs as one kernel.

    Attributes:
        name: Of its first node.
        kind: What its time depends on.
        operations: Multiplications and additions of its matrix work.
        pointwise: Numbers that its other nodes compute.
        weights: Numbers of its constants.
        weight_bytes: Bytes of its constants as they are stored.
        floats: Floating-point numbers that it reads and writes, without weights.
        other_bytes: Bytes of whole numbers that it reads and writes.
        nodes: Nodes that it is made of.
        rows: Rows of its matrix work: images × pixels, or texts × tokens; 0 without.
        columns: Columns that come out of its matrix work.
    """

    name: str
    kind: Kind
    operations: float
    pointwise: float
    weights: int
    weight_bytes: int
    floats: int
    other_bytes: int
    nodes: int
    rows: int = 0
    columns: int = 0


@dataclass(frozen=True)
class Cost:
    """One run of a graph.

    Attributes:
        sizes: What the symbols were set to.
        layers: In the order in which they run.
        weight_bytes: Bytes of all constants as they are stored.
        input_bytes: What goes in from the host.
        output_bytes: What comes back.
        peak_floats: The most floating-point numbers of activations alive at a time.
        unknown: Operators that are not known, with how often: counted as elementwise.
        unsized: Nodes whose shapes do not follow from the graph: they count nothing.
        loops: Control flow, whose bodies are not counted.
    """

    sizes: Mapping[str, int]
    layers: tuple[Layer, ...]
    weight_bytes: int
    input_bytes: int
    output_bytes: int
    peak_floats: int
    unknown: Mapping[str, int]
    unsized: tuple[str, ...]
    loops: tuple[str, ...]

    @property
    def operations(self) -> float:
        """Multiplications and additions of all matrix work: what PyTorch's FLOP counter says of the module."""
        return sum(layer.operations for layer in self.layers)

    @property
    def weights(self) -> int:
        """Numbers of all constants that layers use."""
        return sum(layer.weights for layer in self.layers)

    @property
    def floats(self) -> int:
        """Floating-point numbers that pass between layers: each is written once and read by each reader."""
        return sum(layer.floats for layer in self.layers)

    def activation_bytes(self, bytes_each: float) -> float:
        """Bytes of activations that pass through memory, with so many bytes for each floating-point number."""
        return sum(layer.floats * bytes_each + layer.other_bytes for layer in self.layers)


@dataclass
class _Group:
    kind: Kind
    nodes: list[onnx.NodeProto]


def symbols(model: onnx.ModelProto) -> dict[str, list[str]]:
    """Symbols of the inputs' dimensions, with the inputs that have them; a nameless one is ``input[axis]``."""
    constants = {tensor.name for tensor in model.graph.initializer}
    named: dict[str, list[str]] = {}
    for value in model.graph.input:
        if value.name in constants:
            continue
        for axis, dim in enumerate(value.type.tensor_type.shape.dim):
            if not dim.HasField("dim_value") or dim.dim_value < 0:
                named.setdefault(dim.dim_param or f"{value.name}[{axis}]", []).append(value.name)
    return named


def batch_symbol(model: onnx.ModelProto) -> str | None:
    """The symbol of the batch: the first dimension of the first input; None where that is a number."""
    constants = {tensor.name for tensor in model.graph.initializer}
    first = next((value for value in model.graph.input if value.name not in constants), None)
    if first is None or not first.type.tensor_type.shape.dim:
        return None
    dim = first.type.tensor_type.shape.dim[0]
    return None if dim.HasField("dim_value") and dim.dim_value >= 0 else dim.dim_param or f"{first.name}[0]"


def precisions(model: onnx.ModelProto) -> tuple[Precision, ...]:
    """What a graph can be served in: as it is stored, and fp16 where that is fp32."""
    elements: Counter[int] = Counter()
    for tensor in model.graph.initializer:
        elements[tensor.data_type] += math.prod(tensor.dims)
    half = elements[onnx.TensorProto.FLOAT16], elements[onnx.TensorProto.BFLOAT16]
    if max(half) > elements[onnx.TensorProto.FLOAT]:
        return ("fp16",) if half[0] >= half[1] else ("bf16",)
    return ("fp32", "fp16")


def load(path: Path) -> onnx.ModelProto:
    """A graph without the weights that lie beside it.

    Raises:
        GraphError: The file is missing or is no ONNX model.
    """
    try:
        model = onnx.load(path, load_external_data=False)
    except FileNotFoundError as error:
        raise GraphError(f"there is no file {path}", "correct the path") from error
    except Exception as error:  # protobuf's own, of several types
        raise GraphError(f"{path} is not a valid ONNX model: {error}", "export or download it again") from error
    if not model.graph.node:
        raise GraphError(f"{path} is an ONNX model without nodes", "export or download it again")
    return model


def measure(model: onnx.ModelProto, sizes: Mapping[str, int]) -> Cost:
    """Count a graph.

    Args:
        model: From :func:`load`; it stays as it is.
        sizes: A positive size for every symbol of :func:`symbols`.

    Raises:
        GraphError: A symbol has no size, or a size that is not positive.
    """
    _check(model, sizes)
    tensors = infer(model, sizes)
    model = tensors.model
    shapes = {name: tensor.shape for name, tensor in tensors.known.items()}
    weights = frozenset(weights_of(model))
    groups = _fuse(model.graph, shapes, weights)
    readers = Counter(name for node in model.graph.node for name in node.input)
    unsized = [
        node.name or node.op_type for node in model.graph.node if any(o and o not in shapes for o in node.output)
    ]
    layers = [_layer(group, tensors.known, weights, readers, model.graph) for group in groups]
    return Cost(
        dict(sizes),
        tuple(layer for layer in layers if layer.kind != "free"),
        sum(tensor.bytes for tensor in weights_of(model).values()),
        _bytes([value.name for value in model.graph.input if value.name not in weights], tensors.known),
        _bytes([value.name for value in model.graph.output], tensors.known),
        _peak(model.graph, tensors.known),
        dict(Counter(_label(node) for node in model.graph.node if not operators.is_known(node))),
        tuple(unsized),
        tuple(node.op_type for node in model.graph.node if node.op_type in operators.CONTROL),
    )


def _check(model: onnx.ModelProto, sizes: Mapping[str, int]) -> None:
    named = symbols(model)
    missing = [name for name in named if name not in sizes]
    if missing:
        raise GraphError(
            f"dimensions without a size: {', '.join(f'{name} (of {named[name][0]})' for name in missing)}",
            f"say the usual size, such as --shape {missing[0]}=128",
        )
    for name, size in sizes.items():
        if size < 1:
            raise GraphError(f"the size of {name} is {size}", "sizes are 1 or more")
        if name not in named:
            raise GraphError(f"the graph has no dimension {name!r}", f"its own are {', '.join(named) or 'all fixed'}")


def _label(node: onnx.NodeProto) -> str:
    return f"{node.domain}.{node.op_type}" if node.domain else node.op_type


def _fuse(graph: onnx.GraphProto, shapes: Mapping[str, operators.Shape], weights: frozenset[str]) -> list[_Group]:
    """Pointwise nodes join the layer that made the last of their inputs; all others begin a layer of their own."""
    groups: list[_Group] = []
    made_in: dict[str, int] = {}
    for node in graph.node:
        kind = operators.kind(node, shapes, weights)
        sources = [made_in[name] for name in node.input if name in made_in]
        joins = bool(sources) and (kind == "free" or (kind == "elementwise" and groups[max(sources)].kind != "free"))
        if joins:
            place = max(sources)
            groups[place].nodes.append(node)
        else:
            place = len(groups)
            groups.append(_Group(kind, [node]))
        made_in |= dict.fromkeys(filter(None, node.output), place)
    return groups


def _layer(
    group: _Group, known: Mapping[str, Tensor], weights: frozenset[str], readers: Counter[str], graph: onnx.GraphProto
) -> Layer:
    shapes = {name: tensor.shape for name, tensor in known.items()}
    inside = Counter(name for node in group.nodes for name in node.input)
    produced = {name for node in group.nodes for name in node.output if name}
    outputs = {value.name for value in graph.output}
    free = {name for node in group.nodes if node.op_type in operators.FREE for name in node.output}
    read = {name for name in inside if name not in produced and name not in weights}
    written = {name for name in produced - free if readers[name] > inside[name] or name in outputs}
    # What a free node gives away is what was written before it.
    written |= {
        node.input[0] for node in group.nodes
        if node.op_type in operators.FREE and node.input and node.input[0] in produced - free
        and any(readers[name] > inside[name] or name in outputs for name in node.output)
    }  # fmt: skip
    traffic = [known[name] for name in (*read, *written) if name in known]
    constants = [known[name] for name in inside if name in weights and name in known]
    if group.kind == "movement" and group.nodes[0].op_type in {"Gather", "GatherND"}:
        constants = [tensor for tensor in constants if tensor.elements < 2**16]  # a table is read where it is asked
    operations, rows, columns = 0.0, 0, 0
    first = group.nodes[0]
    if group.kind in _MATRIX:
        try:
            operations = operators.operations(first, shapes)
            rows, columns = _matrix(first, shapes)
        except (KeyError, IndexError):
            operations = 0.0
    pointwise = sum(
        known[name].elements for node in group.nodes if operators.kind(node, shapes, weights) == "elementwise"
        for name in node.output if name in known
    )  # fmt: skip
    return Layer(
        first.name or first.op_type, group.kind, operations, pointwise,
        sum(tensor.elements for tensor in constants if tensor.floating), sum(tensor.bytes for tensor in constants),
        sum(tensor.elements for tensor in traffic if tensor.floating),
        sum(tensor.bytes for tensor in traffic if not tensor.floating),
        sum(node.op_type not in operators.FREE for node in group.nodes), rows, columns,
    )  # fmt: skip


def _matrix(node: onnx.NodeProto, shapes: Mapping[str, operators.Shape]) -> tuple[int, int]:
    """Rows and columns of the product that a node is; a convolution is one over pixels."""
    output = shapes[node.output[0]]
    if node.op_type in operators.CONVOLUTIONS or node.op_type == "ConvTranspose":
        return math.prod(output) // output[1], output[1]
    return math.prod(output[:-1]), output[-1]


def _bytes(names: Iterable[str], known: Mapping[str, Tensor]) -> int:
    return sum(known[name].bytes for name in names if name in known)


def _peak(graph: onnx.GraphProto, known: Mapping[str, Tensor]) -> int:
    """The most floating-point numbers alive at a time, each from the node that makes it to the last that reads it."""
    last = {name: place for place, node in enumerate(graph.node) for name in node.input}
    ends: dict[int, list[str]] = {}
    for name, place in last.items():
        ends.setdefault(place, []).append(name)
    alive, peak = 0, 0
    counted: set[str] = set()
    for place, node in enumerate(graph.node):
        if node.op_type not in operators.FREE:
            for name in node.output:
                if name in known and known[name].floating and name in last:
                    alive += known[name].elements
                    counted.add(name)
        peak = max(peak, alive)
        alive -= sum(known[name].elements for name in ends.get(place, ()) if name in counted)
    return peak
