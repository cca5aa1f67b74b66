"""What a configuration says of prepared sizes: its parameters ``batch_sizes``, ``cuda_graphs`` and ``padding``."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

MOST_SIZES = 256  # each holds a CUDA graph; more take minutes to prepare and are a mistake
NUMPY = {
    "TYPE_BOOL": np.bool_, "TYPE_UINT8": np.uint8, "TYPE_UINT16": np.uint16, "TYPE_UINT32": np.uint32,
    "TYPE_UINT64": np.uint64, "TYPE_INT8": np.int8, "TYPE_INT16": np.int16, "TYPE_INT32": np.int32,
    "TYPE_INT64": np.int64, "TYPE_FP16": np.float16, "TYPE_FP32": np.float32, "TYPE_FP64": np.float64,
}  # fmt: skip


class SettingsError(ValueError):
    """A parameter that cannot be followed; the message says which, why, and what to write."""


@dataclass(frozen=True)
class Padding:
    """One dimension that is padded up to a few sizes.

    Attributes:
        name: The dimension's.
        sizes: What it is padded up to, rising.
        inputs: Input to its axis in ``dims`` (which have no batch dimension) and the value that fills it up.
        outputs: Output to its axis; an output that is not here has the same shape whatever the size.
    """

    name: str
    sizes: tuple[int, ...]
    inputs: Mapping[str, tuple[int, float | bool]]
    outputs: Mapping[str, int]


@dataclass(frozen=True)
class Sizes:
    """What is prepared for one model.

    Attributes:
        batches: Batch sizes, rising.
        padding: The padded dimensions, in the order in which sizes name their lengths.
        graphs: Whether each size is captured as a CUDA graph, where it runs on a GPU.
        batched: Whether requests have a batch dimension; without one, ``batches`` is ``(1,)``.
        most_rows: Rows that Triton gives one batch at most.
        dtypes: Input to its numpy dtype.
        dims: Input to its dims, without the batch dimension; -1 where it is padded.
        outputs: What is answered; a graph may have more.
    """

    batches: tuple[int, ...]
    padding: tuple[Padding, ...]
    graphs: bool
    batched: bool
    most_rows: int
    dtypes: Mapping[str, Any]
    dims: Mapping[str, tuple[int, ...]]
    outputs: frozenset[str]

    def shape(self, name: str, lengths: Sequence[int]) -> tuple[int, ...]:
        """An input's shape without the batch dimension, where the padded dimensions have these lengths."""
        dims = list(self.dims[name])
        for padding, length in zip(self.padding, lengths, strict=True):
            if name in padding.inputs:
                dims[padding.inputs[name][0]] = length
        return tuple(dims)


def read_sizes(config: Mapping[str, Any], *, on_gpu: bool) -> Sizes | str:
    """The sizes that a configuration asks for, or why its batches run as they come; empty if it says nothing.

    Args:
        config: The model's configuration, as Triton gives it to a backend.
        on_gpu: Without the parameter ``batch_sizes``, a GPU takes doublings up to ``max_batch_size``, a CPU nothing.

    Raises:
        SettingsError: A parameter has a value that cannot be followed.
    """
    parameters = {name: value["string_value"] for name, value in config.get("parameters", {}).items()}
    text = parameters.get("batch_sizes", "").strip()
    padding = _padding(config, parameters.get("padding", ""))
    graphs = _switch("cuda_graphs", parameters.get("cuda_graphs", "1"))
    if text == "off":
        return "batch_sizes is off"
    if not text and not on_gpu:
        return ""
    largest = int(config["max_batch_size"])
    batches = _batches(text) if text else _doublings(largest)
    reason = _unsuitable(config, padding)
    if reason:
        return reason
    if largest == 0:
        if batches not in {(1,), ()}:
            raise SettingsError("batch_sizes needs max_batch_size above 0: requests without a batch run one by one")
        batches = (1,)
    if text and largest and batches[-1] > largest:
        raise SettingsError(
            f"batch_sizes goes up to {batches[-1]}, max_batch_size is {largest}: leave out what is above"
        )
    count = len(batches) * int(np.prod([len(dimension.sizes) for dimension in padding]))
    if count > MOST_SIZES:
        raise SettingsError(
            f"batch_sizes and padding ask for {count} sizes, at most {MOST_SIZES} are prepared: name fewer sizes"
        )
    return Sizes(
        batches=batches,
        padding=padding,
        graphs=graphs,
        batched=largest > 0,
        most_rows=max(largest, batches[-1]),
        dtypes={tensor["name"]: NUMPY[tensor["data_type"]] for tensor in config["input"]},
        dims={tensor["name"]: tuple(map(int, _dims(tensor))) for tensor in config["input"]},
        outputs=frozenset(tensor["name"] for tensor in config["output"]),
    )


def _dims(tensor: Mapping[str, Any]) -> Sequence[int]:
    """What the graph gets without the batch dimension; protobuf's JSON leaves out a shape that is empty."""
    dims: Sequence[int] = tensor["reshape"].get("shape", ()) if "reshape" in tensor else tensor["dims"]
    return dims


def _doublings(largest: int) -> tuple[int, ...]:
    return (*(2**power for power in range(16) if 2**power < largest), largest) if largest else (1,)


def _batches(text: str) -> tuple[int, ...]:
    try:
        batches = tuple(int(part) for part in text.split(","))
    except ValueError:
        batches = ()
    if not _rise(batches):
        raise SettingsError(f"batch_sizes is {text!r}; say rising numbers such as 1,2,4,8, or off")
    return batches


def _rise(sizes: Sequence[int]) -> bool:
    return bool(sizes) and list(sizes) == sorted(set(sizes)) and sizes[0] >= 1


def _switch(name: str, text: str) -> bool:
    if text not in {"0", "1"}:
        raise SettingsError(f"{name} is {text!r}; it is 0 or 1")
    return text == "1"


def _unsuitable(config: Mapping[str, Any], padding: Sequence[Padding]) -> str:
    """Why a model cannot run at prepared sizes; empty if it can."""
    if "sequence_batching" in config:
        return "requests of a sequence bring control inputs and states, which have no place in prepared memory"
    for tensor in (*config["input"], *config["output"]):
        if tensor["data_type"] not in NUMPY:
            return f"{tensor['name']!r} is {tensor['data_type']}, which has no place in prepared memory"
    for tensor in config["input"]:
        padded = {dimension.inputs[tensor["name"]][0] for dimension in padding if tensor["name"] in dimension.inputs}
        free = [axis for axis, dim in enumerate(_dims(tensor)) if int(dim) == -1 and axis not in padded]
        if free:
            return f"the dims of input {tensor['name']!r} change, and `padding` does not say how to fill them up"
    for tensor in config["output"]:
        cropped = {dimension.outputs[tensor["name"]] for dimension in padding if tensor["name"] in dimension.outputs}
        free = [axis for axis, dim in enumerate(_dims(tensor)) if int(dim) == -1 and axis not in cropped]
        if free:
            return f"the dims of output {tensor['name']!r} change, and `padding` does not say with what"
    return ""


def _padding(config: Mapping[str, Any], text: str) -> tuple[Padding, ...]:
    if not text:
        return ()
    try:
        entries = json.loads(text)
        dimensions = tuple(_dimension(config, name, entry) for name, entry in entries.items())
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        if isinstance(error, SettingsError):
            raise
        raise SettingsError(
            f"padding cannot be read ({type(error).__name__}: {error}); its form is "
            '{"sequence": {"sizes": [32, 64], "inputs": {"input_ids": {"axis": 0, "value": 0}}, "outputs": {}}}'
        ) from None
    fills: dict[str, Any] = {}
    for dimension in dimensions:
        for name, (_, value) in dimension.inputs.items():
            if fills.setdefault(name, value) != value:
                raise SettingsError(f"padding fills {name!r} with {fills[name]!r} and with {value!r}; say one value")
    if dimensions and int(config["max_batch_size"]) == 0:
        raise SettingsError("padding needs max_batch_size above 0: without batches there is nothing to pad for")
    return dimensions


def _dimension(config: Mapping[str, Any], name: str, entry: Mapping[str, Any]) -> Padding:
    sizes = tuple(int(size) for size in entry["sizes"])
    if not _rise(sizes):
        raise SettingsError(f"padding.{name}.sizes is {entry['sizes']}; say rising numbers such as [32, 64, 128]")
    inputs = {}
    for tensor, place in entry["inputs"].items():
        described = _tensor(config, "input", name, tensor, int(place["axis"]))
        if described["data_type"] not in NUMPY:
            raise SettingsError(f"padding.{name}: input {tensor!r} is {described['data_type']}, which cannot be padded")
        _check_value(name, tensor, NUMPY[described["data_type"]], place["value"])
        inputs[tensor] = (int(place["axis"]), place["value"])
    if not inputs:
        raise SettingsError(f"padding.{name} names no inputs; say which inputs have the dimension")
    outputs = {tensor: int(place["axis"]) for tensor, place in entry.get("outputs", {}).items()}
    for tensor, axis in outputs.items():
        _tensor(config, "output", name, tensor, axis)
    return Padding(name, sizes, inputs, outputs)


def _tensor(config: Mapping[str, Any], kind: str, dimension: str, name: str, axis: int) -> Mapping[str, Any]:
    """The tensor that padding names, if it has a free axis there."""
    described: Mapping[str, Any] | None = next((entry for entry in config[kind] if entry["name"] == name), None)
    if described is None:
        known = ", ".join(entry["name"] for entry in config[kind])
        raise SettingsError(f"padding.{dimension} names the {kind} {name!r}; the model has: {known}")
    dims = _dims(described)
    if not 0 <= axis < len(dims) or int(dims[axis]) != -1:
        raise SettingsError(
            f"padding.{dimension}: {kind} {name!r} has dims {list(map(int, dims))}; name an axis that is -1, not {axis}"
        )
    return described


def _check_value(dimension: str, name: str, dtype: Any, value: Any) -> None:
    if dtype == np.bool_:
        fits = isinstance(value, bool)
    else:
        fits = isinstance(value, (int, float)) and not isinstance(value, bool)
    if fits and np.issubdtype(dtype, np.integer):
        limits = np.iinfo(dtype)
        fits = float(value).is_integer() and limits.min <= value <= limits.max
    if not fits:
        kind = np.dtype(dtype).name
        raise SettingsError(f"padding.{dimension}: input {name!r} is {kind}, which cannot hold {value!r}")
