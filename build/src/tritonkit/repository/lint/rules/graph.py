"""The configuration held against the ONNX graph, as the onnxruntime backend does when it loads one.

The checks are those of the C++ backend of NVIDIA's images. Where tritonkit's own backend differs
(`tritonkit_onnxruntime`, which also serves `onnxruntime` on the embedded server), the rule says so.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from tritonkit.repository.lint import backends, graphs, images
from tritonkit.repository.lint.contents import Model
from tritonkit.repository.lint.findings import Problem
from tritonkit.repository.lint.registry import ONNXRUNTIME, ONNXRUNTIME_CPP, Context, rule
from tritonkit.repository.lint.rules.releases import image_of
from tritonkit.repository.lint.rules.tensors import declared

_AUTO = "docs/user_guide/model_configuration.md, Auto-Generated Model Configuration"


def _pairs(model: Model) -> Iterator[tuple[graphs.Graph, str, int, Any, graphs.Tensor]]:
    """Every declared tensor with the graph's own of that name."""
    for graph in model.graphs:
        for kind, index, entry in declared(model):
            tensor = (graph.inputs if kind == "input" else graph.outputs).get(entry.name)
            if tensor is not None:
                yield graph, kind, index, entry, tensor


def _flattened(model: Model) -> set[str]:
    """Inputs that the C++ backend gets as one row of all requests; ours pads them, so their dims are the graph's."""
    if model.served.backend != backends.ONNXRUNTIME:
        return set()
    return {entry.name for entry in model.config.input if entry.allow_ragged_batch}


def _where(model: Model, graph: graphs.Graph) -> str:
    return graph.path.relative_to(model.directory).as_posix()


@rule(
    "TK040",
    "tensor-not-in-graph",
    "error",
    "a declared input or output that the graph has not",
    enforced_by=ONNXRUNTIME,
)
def tensor_not_in_graph(model: Model, _: Context) -> Iterator[Problem]:
    """Names must be the graph's own, to the letter. An output of the graph may be left out of the configuration; a
    declared name that the graph has not is refused.
    """
    scattered = {name for entry in model.config.batch_output for name in entry.target_name}
    for graph in model.graphs:
        for kind, index, entry in declared(model):
            known = graph.inputs if kind == "input" else graph.outputs
            allowed = {*known, *(graph.optional if kind == "input" else scattered)}
            if entry.name and entry.name not in allowed:
                yield Problem(
                    f"{_where(model, graph)} has no {kind} {entry.name!r}", f"use one of: {', '.join(known) or 'none'}",
                    model.line((kind, index), "name"),
                )  # fmt: skip


@rule(
    "TK041",
    "graph-input-missing",
    "error",
    "an input of the graph that the configuration leaves out",
    enforced_by=ONNXRUNTIME,
)
def graph_input_missing(model: Model, _: Context) -> Iterator[Problem]:
    """A graph needs all its inputs. Sequence controls, states and `batch_input` targets count, as Triton feeds those.
    Leave out all inputs, and Triton completes them.
    """
    fed = {entry.name for entry in model.config.input} | _fed_by_triton(model)
    for graph in model.graphs:
        missing = [name for name in graph.inputs if name not in fed]
        if model.config.input and missing:
            yield Problem(
                f"input {missing[0]!r} of {_where(model, graph)} is not in the configuration", "declare it",
                model.line("input"),
            )  # fmt: skip


def _fed_by_triton(model: Model) -> set[str]:
    sequence = model.config.sequence_batching
    names = {entry.name for entry in sequence.control_input} | {entry.input_name for entry in sequence.state}
    return names | {name for entry in model.config.batch_input for name in entry.target_name}


@rule(
    "TK042",
    "dtype-differs",
    "error",
    "a data_type that is not the graph's",
    enforced_by=ONNXRUNTIME,
)
def dtype_differs(model: Model, _: Context) -> Iterator[Problem]:
    """Triton converts no data. A graph whose tensor is int64 needs TYPE_INT64, whatever the numbers are."""
    for graph, kind, index, entry, tensor in _pairs(model):
        dtype = _name(entry.data_type)
        if entry.data_type and tensor.dtype and dtype != tensor.dtype:
            yield Problem(
                f"{kind} {entry.name!r} is {dtype}, {_where(model, graph)} has {tensor.dtype}",
                f"say data_type: {tensor.dtype}", model.line((kind, index), "data_type"),
            )  # fmt: skip


def _name(value: int) -> str:
    from tritonclient.grpc import model_config_pb2 as pb

    return str(pb.DataType.Name(value)) if value in pb.DataType.values() else str(value)


@rule(
    "TK043",
    "dims-differ",
    "error",
    "dims that do not fit the graph",
    enforced_by=ONNXRUNTIME,
    source="triton-inference-server/server#1338",
)
def dims_differ(model: Model, _: Context) -> Iterator[Problem]:
    """With max_batch_size above 0 the graph's first dimension is the batch and `dims` are the rest; with 0 `dims` are
    all of them. A fixed size in the graph must be said as that size, not as -1. Where the graph's input varies, the
    configuration may fix it. Of an output that the file leaves open counts what onnxruntime infers from the nodes
    before it. `reshape`, if given, is what is compared.
    """
    ragged = _flattened(model)
    for graph, kind, index, entry, tensor in _pairs(model):
        config_dims = list(entry.reshape.shape) if entry.HasField("reshape") else list(entry.dims)
        if tensor.dims is None or not config_dims or entry.name in ragged or _fixed_batch(model, tensor):
            continue
        graph_dims = tensor.certain if kind == "output" and tensor.certain else tensor.dims
        expected = list(graph_dims[1:] if model.config.max_batch_size > 0 else graph_dims)
        if not tensor.dims:
            fits = all(dim == 1 for dim in config_dims)  # a scalar: any number of ones
            expected = [1]
        else:
            fits = len(config_dims) == len(expected) and all(
                actual in {-1, dim} for dim, actual in zip(config_dims, expected, strict=True)
            )
        if not fits:
            batch = " after the batch dimension" if model.config.max_batch_size > 0 and tensor.dims else ""
            yield Problem(
                f"{kind} {entry.name!r} has dims {config_dims}, {_where(model, graph)} has {expected}{batch}",
                f"say dims: {expected}", model.line((kind, index), "dims"),
            )  # fmt: skip


def _fixed_batch(model: Model, tensor: graphs.Tensor) -> bool:
    return model.config.max_batch_size > 0 and bool(tensor.dims) and tensor.dims is not None and tensor.dims[0] != -1


@rule(
    "TK044",
    "batch-fixed",
    "error",
    "max_batch_size above 0 and a graph with a fixed batch dimension",
    enforced_by=ONNXRUNTIME,
)
def batch_fixed(model: Model, _: Context) -> Iterator[Problem]:
    """Batching needs a first dimension that varies in every input and output. A graph that was exported from an example
    of batch 1 has it fixed at 1.
    """
    if model.config.max_batch_size <= 0:
        return
    ragged = _flattened(model)
    scattered = {name for entry in model.config.batch_output for name in entry.target_name}
    for graph in model.graphs:
        for tensor in (*graph.inputs.values(), *graph.outputs.values()):
            if tensor.name not in ragged | scattered and _fixed_batch(model, tensor):
                yield Problem(
                    f"max_batch_size is {model.config.max_batch_size}, and the first dimension of {tensor.name!r} in "
                    f"{_where(model, graph)} is fixed at {(tensor.dims or (0,))[0]}",
                    "export the graph with a dynamic batch dimension, or set max_batch_size: 0",
                    model.line("max_batch_size"),
                )
                break


@rule(
    "TK045",
    "output-dims-fixed",
    "warning",
    "an output that varies in the graph and is fixed in the configuration",
    enforced_by=ONNXRUNTIME_CPP,
)
def output_dims_fixed(model: Model, _: Context) -> Iterator[Problem]:
    """For outputs the C++ backend compares every dimension exactly: where the graph says that a size varies, the
    configuration must say -1. (For inputs it may fix a size.) It is only a warning because onnxruntime may infer a size
    that the file leaves open; sizes that ONNX's own shape inference finds are not reported. tritonkit's own backend
    accepts a fixed size.
    """
    if model.served.backend != backends.ONNXRUNTIME:
        return
    scattered = {name for entry in model.config.batch_output for name in entry.target_name}
    for graph, kind, index, entry, tensor in _pairs(model):
        config_dims = list(entry.reshape.shape) if entry.HasField("reshape") else list(entry.dims)
        expected = list((tensor.dims or ())[1 if model.config.max_batch_size > 0 else 0 :])
        if (
            kind != "output"
            or entry.name in scattered
            or len(config_dims) != len(expected)
            or _fixed_batch(model, tensor)
        ):
            continue
        inferred = list((tensor.inferred or tensor.dims or ())[-len(config_dims) :])
        if (
            any(actual == -1 != dim for dim, actual in zip(config_dims, expected, strict=True))
            and config_dims != inferred
        ):
            yield Problem(
                f"output {entry.name!r} has dims {config_dims}, {_where(model, graph)} has {expected}",
                f"say dims: {expected}", model.line((kind, index), "dims"),
            )  # fmt: skip


@rule(
    "TK046",
    "type-not-served",
    "error",
    "an input or output of a type that Triton does not serve",
    enforced_by=ONNXRUNTIME,
)
def type_not_served(model: Model, _: Context) -> Iterator[Problem]:
    """The onnxruntime backend serves tensors of booleans, integers, fp16 to fp64 and strings. bfloat16, fp8, sequences
    and maps (what classifiers of scikit-learn return by default) have no type in Triton.
    """
    for graph in model.graphs:
        for kind, tensors in (("input", graph.inputs), ("output", graph.outputs)):
            for tensor in tensors.values():
                if not tensor.dtype:
                    yield Problem(
                        f"the graph's {kind} {tensor.name!r} is {tensor.kind.lower()}, which Triton does not serve",
                        "cast it inside the graph; for skl2onnx export with zipmap=False", path=graph.path,
                    )  # fmt: skip


@rule(
    "TK047",
    "opset-too-new",
    "error",
    "an opset or file format that the image's onnxruntime does not load",
    enforced_by="onnxruntime of that image",
    source="onnxruntime 1.13 to 1.31 from PyPI, tried with each opset and format",
)
def opset_too_new(model: Model, context: Context) -> Iterator[Problem]:
    """An exporter stamps the newest opset it knows; an older onnxruntime refuses it. Checked only where the image is
    known, from `--image` or from the passport's `image`. For an image whose onnxruntime is known only within bounds, it
    is an error above the upper bound and a warning between them. `tritonkit_onnxruntime` has an onnxruntime of its own,
    the same in every image.
    """
    image = image_of(model, context)
    if model.served.backend == backends.TRITONKIT_ONNXRUNTIME:
        where, limits, newer = backends.TRITONKIT_ONNXRUNTIME, images.OWN, ""
    elif image is not None:
        where, limits, newer = f"image {images.name(image)}", images.limits(image), ", or use a newer image"
    else:
        return
    for graph in model.graphs:
        versions = (graph.ir, graph.opset)
        over = limits.most is not None and _above(versions, limits.most)
        if over or (limits.sure is not None and _above(versions, limits.sure)):
            ir, opset = (limits.most if over else limits.sure) or (0, 0)
            yield Problem(
                f"the graph has opset {graph.opset} and IR version {graph.ir}; {where} has onnxruntime "
                f"{limits.release}, which {'loads' if over else 'surely loads'} up to {opset} and {ir}",
                f"{_older(graph, opset, ir)}{newer}",
                path=graph.path, severity=None if over else "warning",
            )  # fmt: skip


def _older(graph: graphs.Graph, opset: int, ir: int) -> str:
    """How to make a graph that a runtime of these limits loads; the format alone is one number in the file."""
    if graph.opset > opset:
        return f"export it with opset {opset}"
    return f"set model.ir_version = {ir} with the package onnx and save it: the opset fits"


def _above(versions: tuple[int, int], limit: tuple[int, int]) -> bool:
    return versions[0] > limit[0] or versions[1] > limit[1]


@rule(
    "TK048",
    "ragged-graph",
    "error",
    "allow_ragged_batch on an input that is not one variable dimension",
    enforced_by=ONNXRUNTIME_CPP,
    source="docs/user_guide/ragged_batching.md",
)
def ragged_graph(model: Model, _: Context) -> Iterator[Problem]:
    """The C++ backend gets the requests of a ragged batch as one row, so the graph's input must have the shape [-1].
    `tritonkit_onnxruntime` pads requests to one length instead (TK135).
    """
    for graph, kind, index, entry, tensor in _pairs(model):
        if kind == "input" and entry.name in _flattened(model) and tensor.dims not in {None, (-1,)}:
            yield Problem(
                f"input {entry.name!r} allows ragged batches, its shape in {_where(model, graph)} is "
                f"{list(tensor.dims or ())}",
                "remove allow_ragged_batch, or export the input with one dynamic dimension",
                model.line(("input", index), "allow_ragged_batch"),
            )


@rule(
    "TK049",
    "batch-size-completed",
    "info",
    "max_batch_size is left to Triton, which makes it 4",
    source=_AUTO,
)
def batch_size_completed(model: Model, _: Context) -> Iterator[Problem]:
    """Where inputs or outputs are left out and every first dimension varies, Triton takes max_batch_size 0 for "not
    said", makes it 4 (`--backend-config=default-max-batch-size`) and turns dynamic batching on. Declare inputs and
    outputs, and 0 stays 0.
    """
    if model.signature and model.config.max_batch_size == 0 and model.signature.max_batch_size > 0:
        yield Problem(
            f"max_batch_size is not said, so Triton makes it {model.signature.max_batch_size} and batches requests",
            "say max_batch_size; declare inputs and outputs too if the model must not be batched",
            model.line("max_batch_size"), path=None if model.text is not None else model.directory,
        )  # fmt: skip
