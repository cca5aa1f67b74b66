"""Inputs and outputs as the configuration declares them, before any graph is looked at."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from math import prod
from typing import Any

from tritonclient.grpc import model_config_pb2 as pb

from tritonkit.repository.lint import backends
from tritonkit.repository.lint.contents import Model
from tritonkit.repository.lint.findings import Problem
from tritonkit.repository.lint.registry import CORE, ONNXRUNTIME_CPP, REQUESTS, Context, rule

_INPUT = pb.ModelInput
_DOCS = "docs/user_guide/model_configuration.md"


def declared(model: Model) -> Iterator[tuple[str, int, Any]]:
    """Every input and output of the configuration: kind, index, and the entry itself."""
    for kind in ("input", "output"):
        for index, entry in enumerate(getattr(model.config, kind)):
            yield kind, index, entry


@rule(
    "TK030",
    "tensor-incomplete",
    "error",
    "an input or output without name, data_type or dims",
    enforced_by=CORE,
    source=f"{_DOCS}, Minimal Model Configuration",
)
def tensor_incomplete(model: Model, _: Context) -> Iterator[Problem]:
    """A tensor that is declared at all needs all three. Leave out all inputs and outputs, and Triton completes them for
    ONNX, TensorRT and OpenVINO; the TensorRT backend also completes a half-said tensor, and a Python model may do so in
    `auto_complete_config`, so those are not judged.
    """
    declaring = backends.ONNX | {backends.PYTORCH, backends.TENSORFLOW}
    if model.served.backend not in declaring and not _plain(model):
        return
    for kind, index, entry in declared(model):
        missing = [name for name, value in (
            ("name", entry.name), ("data_type", entry.data_type), ("dims", entry.dims)) if not value]  # fmt: skip
        if missing:
            yield Problem(
                f"{kind} {entry.name or index!r} has no {' and no '.join(missing)}", f"say {', '.join(missing)}",
                model.line((kind, index)),
            )  # fmt: skip


def _plain(model: Model) -> bool:
    """Whether it is an ensemble, or a Python model that completes nothing itself."""
    if model.ensemble:
        return True
    if model.served.backend != backends.PYTHON:
        return False
    sources = [model.version(number) / model.served.filename for number in model.loaded]
    try:
        return not any("auto_complete_config" in path.read_text(errors="replace") for path in sources)
    except OSError:
        return False


@rule("TK031", "dims-invalid", "error", "a dimension that is neither -1 nor at least 1", enforced_by=CORE)
def dims_invalid(model: Model, _: Context) -> Iterator[Problem]:
    """-1 says that a dimension varies. The batch dimension is not among `dims` where max_batch_size is above 0."""
    for kind, index, entry in declared(model):
        for field, dims in (("dims", entry.dims), ("reshape", entry.reshape.shape)):
            wrong = [dim for dim in dims if dim < 1 and dim != -1]
            if wrong:
                yield Problem(
                    f"{kind} {entry.name!r} has {wrong[0]} in its {field}", "use -1 for a size that varies",
                    model.line((kind, index), field),
                )  # fmt: skip


@rule(
    "TK032",
    "reshape-mismatch",
    "error",
    "reshape holds another number of elements than dims",
    enforced_by=CORE,
    source=f"{_DOCS}, Reshape",
)
def reshape_mismatch(model: Model, _: Context) -> Iterator[Problem]:
    """`dims` is what a request brings, `reshape` what the model gets; both must hold the same elements. With -1, the
    parts between the variable dimensions are compared one by one: [2, 4, -1, 6] may become [8, -1, 1, 6]. An empty
    shape is one element, and only for a model that batches.
    """
    for kind, index, entry in declared(model):
        if not entry.HasField("reshape"):
            continue
        shape, dims = list(entry.reshape.shape), list(entry.dims)
        line = model.line((kind, index), "reshape")
        if not shape and model.signature and model.signature.max_batch_size == 0:
            yield Problem(
                f"{kind} {entry.name!r} is reshaped to an empty shape, and the model does not batch",
                "remove reshape, or set max_batch_size", line,
            )  # fmt: skip
        elif all(dim == -1 or dim > 0 for dim in (*shape, *dims)) and _parts(dims) != _parts(shape):
            yield Problem(f"{kind} {entry.name!r} has dims {dims} and reshape {shape}", "make both hold as much", line)


def _parts(dims: Sequence[int]) -> list[int]:
    """The number of elements between variable dimensions."""
    parts: list[list[int]] = [[]]
    for dim in dims:
        if dim == -1:
            parts.append([])
        else:
            parts[-1].append(dim)
    return [prod(part) for part in parts]


@rule("TK033", "tensor-twice", "error", "two inputs, or two outputs, of the same name", enforced_by=REQUESTS)
def tensor_twice(model: Model, _: Context) -> Iterator[Problem]:
    """Triton loads it and keeps the first of them. But it counts both inputs: every request is refused for having one
    too few, and a warm-up too. Of two outputs the second has no effect, which is a warning.
    """
    for kind in ("input", "output"):
        names = Counter(entry.name for entry in getattr(model.config, kind))
        for index, entry in enumerate(getattr(model.config, kind)):
            if entry.name and names[entry.name] > 1:
                names[entry.name] = 0
                yield Problem(
                    f"{kind} {entry.name!r} is declared twice", "remove one", model.line((kind, index)),
                    severity="warning" if kind == "output" else None,
                )  # fmt: skip


@rule("TK034", "format-dims", "error", "format NHWC or NCHW without three dims", enforced_by=CORE)
def format_dims(model: Model, _: Context) -> Iterator[Problem]:
    """The formats say which of height, width and channels is which, so there must be three dims, without the batch."""
    for index, entry in enumerate(model.config.input):
        if entry.format in {_INPUT.FORMAT_NHWC, _INPUT.FORMAT_NCHW} and len(entry.dims) != 3:
            name = _INPUT.Format.Name(entry.format)
            yield Problem(
                f"input {entry.name!r} is {name} and has {len(entry.dims)} dims", "remove format, or give 3 dims",
                model.line(("input", index), "format"),
            )  # fmt: skip


@rule("TK035", "tensorrt-only", "error", "a setting that only TensorRT models have", enforced_by=CORE)
def tensorrt_only(model: Model, _: Context) -> Iterator[Problem]:
    """Shape tensors, non-linear formats and optimization profiles are TensorRT's; Triton refuses them elsewhere."""
    if model.served.backend == backends.TENSORRT:
        return
    for kind, index, entry in declared(model):
        for field in ("is_shape_tensor", "is_non_linear_format_io"):
            if getattr(entry, field):
                yield Problem(f"{kind} {entry.name!r} has {field}", "remove it", model.line((kind, index), field))
    for index, group in enumerate(model.config.instance_group):
        if group.profile:
            line = model.line(("instance_group", index), "profile")
            yield Problem(f"instance group {index} has a profile", "remove it", line)


@rule(
    "TK036",
    "optional-batched",
    "error",
    "an optional input of an ONNX model that batches",
    enforced_by=ONNXRUNTIME_CPP,
)
def optional_batched(model: Model, _: Context) -> Iterator[Problem]:
    """In an ONNX model an optional input is an initializer that a request may replace. The C++ backend refuses it where
    max_batch_size is above 0, as the requests of one batch could differ. The embedded server's backend accepts it.
    """
    for index, entry in enumerate(model.config.input):
        if entry.optional and model.served.backend == backends.ONNXRUNTIME and model.config.max_batch_size > 0:
            yield Problem(
                f"input {entry.name!r} is optional and max_batch_size is {model.config.max_batch_size}",
                "set max_batch_size: 0, or make it required", model.line(("input", index), "optional"),
            )  # fmt: skip


@rule(
    "TK037",
    "batch-tensor",
    "error",
    "batch_input or batch_output names a tensor that is not declared, or has a wrong type",
    enforced_by=CORE,
    source="docs/user_guide/ragged_batching.md",
)
def batch_tensor(model: Model, _: Context) -> Iterator[Problem]:
    """Ragged batching adds inputs that describe the batch. Each is made from one declared input (`source_input`) and is
    TYPE_INT32 or TYPE_FP32; a `batch_output` scatters declared outputs.
    """
    completed = model.served.backend == backends.TENSORRT or (not model.config.input and not _plain(model))
    for index, entry in enumerate(model.config.batch_input):
        if entry.data_type not in {pb.TYPE_INT32, pb.TYPE_FP32}:
            line = model.line(("batch_input", index), "data_type")
            yield Problem("a batch_input is TYPE_INT32 or TYPE_FP32", "say one of them", line)
    for field in ("batch_input", "batch_output"):
        for index, entry in enumerate(getattr(model.config, field)):
            if len(entry.source_input) != 1:
                line = model.line((field, index), "source_input")
                yield Problem(f"{field} {index} has {len(entry.source_input)} source_input", "name one input", line)
    for index, entry in enumerate(model.config.batch_output):
        for name, count in Counter(entry.target_name).items():
            if count > 1:
                line = model.line(("batch_output", index), "target_name")
                yield Problem(f"batch_output {index} names {name!r} twice", "name it once", line)
    if not completed:
        yield from _unknown_names(model)


def _unknown_names(model: Model) -> Iterator[Problem]:
    inputs = {entry.name for entry in model.config.input}
    outputs = {entry.name for entry in model.config.output}
    for field, names, known, kind in (
        ("batch_input", "source_input", inputs, "input"),
        ("batch_output", "source_input", inputs, "input"),
        ("batch_output", "target_name", outputs, "output"),
    ):
        for index, entry in enumerate(getattr(model.config, field)):
            for name in getattr(entry, names):
                if name not in known:
                    line = model.line((field, index), names)
                    yield Problem(f"{field} {index} names {name!r}, which is no {kind}", f"name an {kind}", line)


@rule(
    "TK038",
    "ragged-without-batching",
    "warning",
    "allow_ragged_batch on a model that does not batch",
    source="docs/user_guide/ragged_batching.md",
)
def ragged_without_batching(model: Model, _: Context) -> Iterator[Problem]:
    """`allow_ragged_batch` lets requests of different sizes share a batch, so it says nothing without batches."""
    for index, entry in enumerate(model.config.input):
        if entry.allow_ragged_batch and model.signature and model.signature.max_batch_size == 0:
            yield Problem(
                f"input {entry.name!r} allows ragged batches and max_batch_size is 0",
                "set max_batch_size, or remove it",
                model.line(("input", index), "allow_ragged_batch"),
            )  # fmt: skip
