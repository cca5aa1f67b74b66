"""Warm-up requests: Triton runs them before a model is ready, and a wrong one keeps the model from loading."""

from __future__ import annotations

from collections.abc import Iterator
from math import prod
from pathlib import Path
from typing import Any

from tritonclient.grpc import model_config_pb2 as pb

from tritonkit.repository.lint import backends, graphs
from tritonkit.repository.lint.contents import Model, Signature, is_file
from tritonkit.repository.lint.findings import Problem
from tritonkit.repository.lint.registry import CORE, Context, rule
from tritonkit.repository.lint.widths import WIDTHS
from tritonkit.repository.model_directory import WARMUP

_DOCS = "docs/user_guide/model_configuration.md, Model Warmup"
_BACKEND = "the model's backend"
_LENGTH_BYTES = 4  # before each string


def _requests(model: Model) -> Iterator[tuple[int, Any]]:
    """The warm-up requests that Triton runs; an ensemble may have none (TK081)."""
    for index, request in enumerate(model.config.model_warmup):
        if request.batch_size > 0 and not model.ensemble:
            yield index, request


def _tensors(model: Model) -> Iterator[tuple[int, str, Any]]:
    for index, request in _requests(model):
        for name, tensor in request.inputs.items():
            yield index, name, tensor


@rule(
    "TK070",
    "warmup-input-missing",
    "error",
    "a warm-up without one of the model's inputs",
    enforced_by=CORE,
    source=_DOCS,
)
def warmup_input_missing(model: Model, _: Context) -> Iterator[Problem]:
    """A warm-up is a request like any other: every input that is not optional must be in it. A name that is no input,
    no sequence control and no state is sent and read by nobody, which is a warning.
    """
    signature = model.signature
    if signature is None:
        return
    sequence = model.config.sequence_batching
    controls = {entry.name for entry in sequence.control_input} | {entry.input_name for entry in sequence.state}
    for index, request in _requests(model):
        line = model.line(("model_warmup", index))
        missing = [name for name in signature.inputs if name not in request.inputs and name not in signature.optional]
        if missing:
            yield Problem(f"the warm-up {request.name!r} has no input {missing[0]!r}", "add it", line)
        for name in request.inputs:
            if name not in signature.inputs and name not in controls:
                yield Problem(
                    f"the warm-up {request.name!r} has an input {name!r}, which the model has not",
                    f"use one of: {', '.join(signature.inputs)}",
                    model.line(("model_warmup", index), ("inputs", name)), severity="warning",
                )  # fmt: skip


@rule("TK071", "warmup-tensor", "error", "a warm-up input of another type or shape", enforced_by=CORE, source=_DOCS)
def warmup_tensor(model: Model, _: Context) -> Iterator[Problem]:
    """`dims` are those of one request, without the batch dimension, and all of them numbers: a warm-up with -1 is
    refused. One of zero_data, random_data and input_data_file must be given.
    """
    signature = model.signature
    for index, name, tensor in _tensors(model):
        place = (("model_warmup", index), ("inputs", name), "value")
        if tensor.WhichOneof("input_data_type") is None:
            yield Problem(
                f"warm-up input {name!r} has no data", "say zero_data: true or input_data_file", model.line(*place)
            )
        if -1 in tensor.dims:
            yield Problem(f"warm-up input {name!r} has -1 in its dims", "give a size", model.line(*place, "dims"))
        elif signature is not None and name in signature.inputs:
            yield from _compare(model, index, tensor, signature.inputs[name])


def _compare(model: Model, index: int, tensor: Any, expected: graphs.Tensor) -> Iterator[Problem]:
    place = (("model_warmup", index), ("inputs", expected.name), "value")
    dtype = pb.DataType.Name(tensor.data_type) if tensor.data_type in pb.DataType.values() else str(tensor.data_type)
    if expected.dtype and dtype != expected.dtype:
        yield Problem(
            f"warm-up input {expected.name!r} is {dtype}, the model's is {expected.dtype}",
            f"say data_type: {expected.dtype}", model.line(*place, "data_type"),
        )  # fmt: skip
    dims = list(tensor.dims)
    fits = expected.dims is None or (
        len(dims) == len(expected.dims)
        and all(size in {-1, dim} for dim, size in zip(dims, expected.dims, strict=True))
    )
    if not fits:
        yield Problem(
            f"warm-up input {expected.name!r} has dims {dims}, the model's are {list(expected.dims or ())}",
            "give dims that fit, without the batch dimension", model.line(*place, "dims"),
        )  # fmt: skip


@rule("TK072", "warmup-file", "error", "a warm-up file that is missing or too short", enforced_by=CORE, source=_DOCS)
def warmup_file(model: Model, _: Context) -> Iterator[Problem]:
    """`input_data_file` is looked for in the folder `warmup` of the model and holds the raw values of one request: the
    product of dims times the width of the type. Strings have 4 bytes of length before each. A longer file is read in
    part, which is a warning.
    """
    for index, name, tensor in _tensors(model):
        if tensor.WhichOneof("input_data_type") != "input_data_file" or -1 in tensor.dims:
            continue
        path = model.directory / WARMUP / tensor.input_data_file
        line = model.line(("model_warmup", index), ("inputs", name), "value", "input_data_file")
        if not is_file(path):
            yield Problem(f"warmup/{tensor.input_data_file} is not there", "put the input's raw bytes there", line)
        elif tensor.data_type == pb.TYPE_STRING:
            if not _holds_strings(path, prod(tensor.dims)):
                yield Problem(
                    f"warmup/{tensor.input_data_file} does not hold {prod(tensor.dims)} strings",
                    "write each as 4 bytes of length and its bytes (tritonclient's serialize_byte_tensor)", line,
                )  # fmt: skip
        elif tensor.data_type in WIDTHS:
            yield from _compare_size(path, prod(tensor.dims) * WIDTHS[tensor.data_type], line)


def _compare_size(path: Path, expected: int, line: int | None) -> Iterator[Problem]:
    size = path.stat().st_size
    if size != expected:
        yield Problem(
            f"warmup/{path.name} has {size:,} bytes, dims and data_type make {expected:,}",
            "write it again, or correct dims",
            line, severity="warning" if size > expected else None,
        )  # fmt: skip


def _holds_strings(path: Path, count: int) -> bool:
    data = path.read_bytes()
    offset = 0
    for _ in range(count):
        if offset + _LENGTH_BYTES > len(data):
            return False
        offset += _LENGTH_BYTES + int.from_bytes(data[offset : offset + _LENGTH_BYTES], "little")
    return offset == len(data)


@rule("TK073", "warmup-batch", "error", "a warm-up batch above max_batch_size", enforced_by=_BACKEND, source=_DOCS)
def warmup_batch(model: Model, _: Context) -> Iterator[Problem]:
    """The request is repeated `batch_size` times in one batch, which the backend refuses to run if it is too large. A
    model that does not batch takes 1. With the Python backend of Triton 24.10 the load sometimes never ends.
    """
    signature: Signature | None = model.signature
    if signature is None or model.served.backend not in backends.ONNX | {backends.PYTHON, backends.TENSORRT}:
        return
    for index, request in _requests(model):
        if request.batch_size > max(signature.max_batch_size, 1):
            yield Problem(
                f"the warm-up {request.name!r} is a batch of {request.batch_size}, max_batch_size is "
                f"{signature.max_batch_size}",
                "use a smaller one", model.line(("model_warmup", index), "batch_size"),
            )  # fmt: skip


@rule("TK074", "warmup-skipped", "warning", "a warm-up that never runs", source=_DOCS)
def warmup_skipped(model: Model, _: Context) -> Iterator[Problem]:
    """`batch_size` 0, which is also what it is when it is not given, makes Triton skip the warm-up without a word.
    Models that do not batch need 1.
    """
    for index, request in enumerate(model.config.model_warmup):
        if request.batch_size == 0:
            yield Problem(
                f"the warm-up {request.name!r} has batch_size 0 and never runs", "say batch_size: 1",
                model.line(("model_warmup", index), "batch_size"),
            )  # fmt: skip
