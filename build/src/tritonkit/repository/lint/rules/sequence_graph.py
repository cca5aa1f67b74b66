"""What the sequence batcher sends and takes, held against the ONNX graph."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from tritonclient.grpc import model_config_pb2 as pb

from tritonkit.repository.lint import graphs, pbtxt
from tritonkit.repository.lint.contents import Model
from tritonkit.repository.lint.findings import Problem
from tritonkit.repository.lint.registry import ONNXRUNTIME, Context, rule

_CONTROL_TYPES = {"int32_false_true": "TYPE_INT32", "fp32_false_true": "TYPE_FP32", "bool_false_true": "TYPE_BOOL"}


@dataclass(frozen=True)
class _Tensor:
    """A tensor between the batcher and the graph; a control's dims must be the graph's, to the letter."""

    what: str
    name: str
    dtype: str
    dims: tuple[int, ...]
    output: bool
    exact: bool
    place: tuple[pbtxt.Step, ...]


@rule(
    "TK140",
    "sequence-not-in-graph",
    "error",
    "a control or state of sequences that the graph has not, or has otherwise",
    enforced_by=ONNXRUNTIME,
    source="docs/user_guide/model_execution.md, Stateful Models",
)
def sequence_not_in_graph(model: Model, _: Context) -> Iterator[Problem]:
    """A control is an input of the graph with the shape [1] after the batch dimension, and of the type of its values. A
    state is an input and an output, of the type and dims that the configuration says.
    """
    for graph in model.graphs:
        where = graph.path.relative_to(model.directory).as_posix()
        for tensor in _tensors(model):
            kind, known = ("output", graph.outputs) if tensor.output else ("input", graph.inputs)
            own = known.get(tensor.name)
            line = model.line("sequence_batching", *tensor.place)
            if own is None and tensor.name not in graph.optional:
                yield Problem(
                    f"{where} has no {kind} {tensor.name!r} for {tensor.what}",
                    f"use one of: {', '.join(known) or 'none'}", line,
                )  # fmt: skip
            elif own is not None:
                yield from (
                    Problem(f"{tensor.what} {tensor.name!r} {difference}", fix, line)
                    for difference, fix in _differences(model, tensor, own, where)
                )


def _tensors(model: Model) -> Iterator[_Tensor]:
    batching = model.config.sequence_batching
    for index, entry in enumerate(batching.control_input):
        for control in entry.control[:1]:
            control_types = [kind for field, kind in _CONTROL_TYPES.items() if getattr(control, field)]
            dtype = control_types[0] if control_types else _type_name(control.data_type)
            yield _Tensor("the control", entry.name, dtype, (1,), False, True, (("control_input", index),))
    for index, state in enumerate(batching.state):
        dims, dtype, place = tuple(state.dims), _type_name(state.data_type), (("state", index),)
        yield _Tensor("the state", state.input_name, dtype, dims, False, False, place)
        yield _Tensor("the state", state.output_name, dtype, dims, True, False, place)


def _type_name(value: int) -> str:
    return str(pb.DataType.Name(value)) if value in pb.DataType.values() else str(value)


def _differences(model: Model, tensor: _Tensor, own: graphs.Tensor, where: str) -> Iterator[tuple[str, str]]:
    """What a tensor of the graph has otherwise, and the fix."""
    if own.dtype and tensor.dtype != own.dtype:
        yield f"is {tensor.dtype}, {where} has {own.dtype}", "say the graph's type, or export it with this one"
    if own.dims is None:
        return
    batched = model.config.max_batch_size > 0
    rest = own.dims[1:] if batched else own.dims
    fits = len(rest) == len(tensor.dims) and all(
        actual == dim or (actual == -1 and not tensor.exact) for dim, actual in zip(tensor.dims, rest, strict=True)
    )
    if not fits:
        after = " after the batch dimension" if batched else ""
        fix = f"export it with {list(tensor.dims)}" if tensor.exact else f"say dims: {list(rest)}"
        yield f"has dims {list(tensor.dims)}, {where} has {list(rest)}{after}", fix
