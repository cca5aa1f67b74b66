"""Padded dimensions of `tritonkit_onnxruntime`: requests of different lengths in one batch, at prepared lengths."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from tritonkit.repository.lint import backends, graphs
from tritonkit.repository.lint.contents import Model, Signature
from tritonkit.repository.lint.findings import Problem
from tritonkit.repository.lint.registry import TRITONKIT, Context, rule
from tritonkit.repository.lint.rules.sizes import (
    BATCH_SIZES,
    PADDING,
    batch_sizes,
    increasing,
    parameter,
    parameter_line,
)

_DECISION = "docs/decisions/0013"
_FORM = '{"sequence": {"sizes": [32, 64], "inputs": {"ids": {"axis": 0, "value": 0}}, "outputs": {"y": {"axis": 0}}}}'
_INTEGERS: dict[str, type[np.integer[Any]]] = {
    "TYPE_INT8": np.int8, "TYPE_INT16": np.int16, "TYPE_INT32": np.int32, "TYPE_INT64": np.int64,
    "TYPE_UINT8": np.uint8, "TYPE_UINT16": np.uint16, "TYPE_UINT32": np.uint32, "TYPE_UINT64": np.uint64,
}  # fmt: skip
_FLOATS: dict[str, type[np.floating[Any]]] = {"TYPE_FP16": np.float16, "TYPE_FP32": np.float32, "TYPE_FP64": np.float64}
Mistakes = Iterator[tuple[str, str]]  # what is wrong, and the fix
_MOST_SIZES = 256  # what the backend prepares at most


def _read(model: Model) -> Any:
    """What `padding` says; None where it is not given or is no JSON."""
    text = parameter(model, PADDING)
    try:
        return None if text is None else json.loads(text)
    except (ValueError, RecursionError):
        return None


def _padded_inputs(model: Model) -> set[str] | None:
    """Names of the inputs with a padded dimension; None where `padding` cannot be read (TK133)."""
    if parameter(model, PADDING) is None:
        return set()
    dimensions = _read(model)
    if not isinstance(dimensions, dict):
        return None
    return {name for name, _, _ in _entries(model, "inputs")}


def _entries(model: Model, kind: str) -> Iterator[tuple[str, Any, dict[str, Any]]]:
    """Name, axis and entry of each tensor that `padding` names, without malformed ones."""
    dimensions = _read(model)
    for dimension in dimensions.values() if isinstance(dimensions, dict) else ():
        tensors = dimension.get(kind) if isinstance(dimension, dict) else None
        for name, entry in tensors.items() if isinstance(tensors, dict) else ():
            if isinstance(entry, dict):
                yield name, entry.get("axis"), entry


@rule(
    "TK133",
    "padding-invalid",
    "error",
    "a padding that is not of its form, or does not fit the model's tensors",
    enforced_by=TRITONKIT,
    source=_DECISION,
)
def padding_invalid(model: Model, _: Context) -> Iterator[Problem]:
    """`padding` is JSON: for each padded dimension the lengths at which the model runs, the inputs that have it, each
    with its axis in `dims` (without the batch) and the value that fills it up, and the outputs that are cut back. An
    axis must be -1 in `dims`; a value must be one that the input's data type holds; strings cannot be padded. Every
    batch size with every length is one prepared size, of which there may be 256. Requests longer than the largest
    length are refused, so a warm-up may not be longer either.
    """
    text = parameter(model, PADDING)
    if text is None:
        return
    dimensions = _read(model)
    if not isinstance(dimensions, dict):
        mistakes: Mistakes = iter([("is no JSON object", f"write it as {_FORM}")])
    else:
        mistakes = _mistakes(model, dimensions)
    for what, fix in mistakes:
        yield Problem(f"parameter padding {what}", fix, parameter_line(model, PADDING))
    for name, value, dtype in _infinite(model):
        yield Problem(
            f"parameter padding fills input {name!r} with {value!r}, which is infinity in {dtype}",
            "give a smaller value", parameter_line(model, PADDING), severity="warning",
        )  # fmt: skip


def _mistakes(model: Model, dimensions: dict[str, Any]) -> Mistakes:
    """What is wrong with the padded dimensions of a model."""
    if dimensions and model.signature is not None and model.signature.max_batch_size == 0:
        yield "is given and max_batch_size is 0: there are no batches to pad for", "set max_batch_size, or remove it"
    correct = True
    for name, dimension in dimensions.items():
        for mistake in _dimension(name, dimension, model.signature):
            correct = False
            yield mistake
    if correct:
        yield from _fills(dimensions)
        yield from _short(model, dimensions)
    batches = batch_sizes(parameter(model, BATCH_SIZES) or "")
    if correct and batches:
        count = len(batches) * math.prod(len(dimension["sizes"]) for dimension in dimensions.values())
        if count > _MOST_SIZES:
            yield f"and batch_sizes make {count} sizes to prepare, {_MOST_SIZES} at most", "name fewer"


def _fills(dimensions: dict[str, Any]) -> Mistakes:
    """Inputs that several dimensions fill with different values."""
    fills: dict[str, Any] = {}
    for dimension in dimensions.values():
        for name, entry in dimension["inputs"].items():
            if fills.setdefault(name, entry["value"]) != entry["value"]:
                yield f"fills input {name!r} with {fills[name]!r} and with {entry['value']!r}", "give one value"


def _short(model: Model, dimensions: dict[str, Any]) -> Mistakes:
    """Warm-ups that are longer than the largest length: the backend refuses such a request."""
    for name, dimension in dimensions.items():
        largest = dimension["sizes"][-1]
        for warmup in model.config.model_warmup:
            for tensor, entry in dimension["inputs"].items():
                dims = warmup.inputs[tensor].dims if tensor in warmup.inputs else ()
                if entry["axis"] < len(dims) and dims[entry["axis"]] > largest:
                    length = dims[entry["axis"]]
                    yield (
                        f"goes up to {largest} in {name!r}, the warm-up {warmup.name!r} brings {length} of {tensor!r}",
                        f"add {length} to its sizes, or warm up with less",
                    )


def _infinite(model: Model) -> Iterator[tuple[str, float, str]]:
    """Input, value and data type where a number is too large for a float, which holds infinity then."""
    for name, _, entry in _entries(model, "inputs"):
        tensor = model.signature.inputs.get(name) if model.signature else None
        value = entry.get("value")
        if not tensor or tensor.dtype not in _FLOATS or not isinstance(value, int | float):
            continue
        if math.isfinite(value) and abs(value) > float(np.finfo(_FLOATS[tensor.dtype]).max):
            yield name, value, tensor.dtype


def _dimension(name: str, dimension: Any, signature: Signature | None) -> Mistakes:
    """What is wrong with one padded dimension."""
    if not isinstance(dimension, dict) or not dimension.get("inputs"):
        yield f"has no inputs in {name!r}", f"write it as {_FORM}"
        return
    sizes = dimension.get("sizes")
    if not isinstance(sizes, list) or not increasing(sizes):
        yield f"has sizes {sizes!r} in {name!r}", "give increasing lengths such as [32, 64, 128]"
    for kind in ("inputs", "outputs"):
        tensors = dimension.get(kind, {})
        if not isinstance(tensors, dict):
            yield f"has {kind} in {name!r} that are no mapping from a tensor to its axis", f"write it as {_FORM}"
            continue
        known = None if signature is None else signature.inputs if kind == "inputs" else signature.outputs
        for tensor, entry in tensors.items():
            yield from _tensor(kind.removesuffix("s"), tensor, entry, known)


def _tensor(kind: str, name: str, entry: Any, known: Mapping[str, graphs.Tensor] | None) -> Mistakes:
    """What is wrong with one tensor of a padded dimension; ``known`` is None where nothing is known of the model's."""
    fields = {"axis", "value"} if kind == "input" else {"axis"}
    if not isinstance(entry, dict) or not fields.issubset(entry):
        yield f"says {json.dumps(entry)} of {kind} {name!r}", f"say {' and '.join(sorted(fields))} of it"
        return
    if known is None:
        return
    if name not in known:
        yield f"names {kind} {name!r}, which the model has not", f"use one of: {', '.join(known) or 'none'}"
        return
    axis, dims = entry["axis"], known[name].dims
    if type(axis) is not int or (dims is not None and not 0 <= axis < len(dims)):
        yield (
            f"has axis {axis!r} for {kind} {name!r}, whose dims are {list(dims or ())}",
            "count from 0, without the batch",
        )
    elif dims is not None and dims[axis] != -1:
        yield f"pads axis {axis} of {kind} {name!r}, which is {dims[axis]} in its dims", "say -1 there, or another axis"
    if kind == "input" and (why := _unfit(entry["value"], known[name].dtype)):
        yield f"fills input {name!r} with {entry['value']!r}: {why}", "give a value of its data_type"


def _unfit(value: Any, dtype: str) -> str:
    """Why a data type does not hold a value; empty if it does, or is not known."""
    if dtype == "TYPE_STRING":
        return "strings cannot be padded"
    if dtype == "TYPE_BOOL":
        return "" if isinstance(value, bool) else "TYPE_BOOL holds true and false"
    if isinstance(value, bool) or not isinstance(value, int | float):
        return "it is no number"
    if dtype in _INTEGERS:
        bounds = np.iinfo(_INTEGERS[dtype])
        fits = math.isfinite(value) and value == int(value) and bounds.min <= value <= bounds.max
        return "" if fits else f"{dtype} does not hold it"
    return ""


@rule(
    "TK134",
    "padding-without-ragged",
    "warning",
    "a padded input that keeps requests of different lengths apart",
    source=_DECISION,
)
def padding_without_ragged(model: Model, _: Context) -> Iterator[Problem]:
    """Triton puts requests of different shapes into one batch only where every input that differs says
    `allow_ragged_batch: true`. Without it `padding` still runs at prepared lengths, and each length waits for others of
    its own.
    """
    padded = _padded_inputs(model) or set()
    batches = model.signature is not None and model.signature.max_batch_size > 1
    for index, entry in enumerate(model.config.input):
        if batches and entry.name in padded and not entry.allow_ragged_batch:
            yield Problem(
                f"input {entry.name!r} is padded, and requests of different lengths are not batched together",
                "say allow_ragged_batch: true", model.line(("input", index)),
            )  # fmt: skip


@rule(
    "TK135",
    "ragged-without-padding",
    "warning",
    "allow_ragged_batch for tritonkit_onnxruntime on a varying input that has no padding",
    source=_DECISION,
)
def ragged_without_padding(model: Model, _: Context) -> Iterator[Problem]:
    """With `allow_ragged_batch` a batch holds requests of different lengths. tritonkit's backend makes one tensor of
    them by filling each up to a prepared length, and `padding` says with what. Without it such a batch fails as one and
    its requests run one by one. (NVIDIA's C++ backend flattens them instead: TK048.)
    """
    padded = _padded_inputs(model)
    if padded is None or model.served.backend != backends.TRITONKIT_ONNXRUNTIME:
        return
    for index, entry in enumerate(model.config.input):
        if entry.allow_ragged_batch and -1 in entry.dims and entry.name not in padded:
            yield Problem(
                f"input {entry.name!r} allows ragged batches and has no padding: requests of different lengths run one "
                "by one",
                "add it to padding, or remove allow_ragged_batch",
                model.line(("input", index), "allow_ragged_batch"),
            )  # fmt: skip


@rule(
    "TK138",
    "sizes-unused",
    "warning",
    "batch_sizes or padding on a model whose batches run as they come all the same",
    source=_DECISION,
)
def sizes_unused(model: Model, _: Context) -> Iterator[Problem]:
    """A prepared size fixes every shape. Where a dimension of a tensor is -1 and `padding` does not name it,
    or where a tensor holds strings, the backend runs batches as they come and says so in the log.
    """
    sizes = batch_sizes(parameter(model, BATCH_SIZES) or "")
    parameter_name = next((name for name in (PADDING, BATCH_SIZES) if parameter(model, name) is not None), None)
    if model.signature is None or parameter_name is None or (parameter_name == BATCH_SIZES and not sizes):
        return
    for kind, tensors in (("input", model.signature.inputs), ("output", model.signature.outputs)):
        named = {(name, axis) for name, axis, _ in _entries(model, f"{kind}s")}
        for name, tensor in tensors.items():
            free = [axis for axis, dim in enumerate(tensor.dims or ()) if dim == -1 and (name, axis) not in named]
            if free or tensor.dtype == "TYPE_STRING":
                why = f"axis {free[0]} of {kind} {name!r} varies" if free else f"{kind} {name!r} holds strings"
                yield Problem(
                    f"parameter {parameter_name} does nothing: {why}",
                    "name that axis in padding, or remove the parameters", parameter_line(model, parameter_name),
                )  # fmt: skip
                return
