"""What a module returns, as tensors by name, and the wrapper that would return tensors where it does not.

A graph has a flat list of tensors. Modules return more than that: tuples in tuples, None, caches, objects.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch

from tritonkit import dtypes

_TORCH = {"float16": "fp16", "float32": "fp32", "float64": "fp64"}


def by_name(result: Any) -> dict[str, Any]:
    """What a module returned, each part under its name.

    A lone tensor is ``output``; a mapping has keys, a named tuple and a dataclass have fields; parts of a sequence are
    ``output_0`` and so on. Anything else has no parts.
    """
    if isinstance(result, torch.Tensor):
        return {"output": result}
    return {name: value for name, _, value in _parts(result, "")}


def dtype_of(tensor: torch.Tensor) -> str | None:
    """The recipe's word for a tensor's type; None for a type that Triton's ONNX Runtime backend does not serve."""
    name = str(tensor.dtype).removeprefix("torch.")
    name = _TORCH.get(name, name)
    return name if name in dtypes.BY_NAME else None


def problem(name: str, value: Any) -> str:
    """Why a part of a result cannot be an output, as a sentence; empty if it can be."""
    if not isinstance(value, torch.Tensor):
        return f"output {name!r} is {_described(value)}, not a tensor"
    if dtype_of(value) is None:
        kind = str(value.dtype).removeprefix("torch.")
        return f"output {name!r} is {kind}, which Triton's ONNX Runtime backend does not serve"
    return ""


def wrapper(result: Any, parameters: Sequence[str], load: str, batch: int | None = None) -> str:
    """Python code of a module that returns every tensor of a result by a name, and nothing else.

    Args:
        result: What the module returned.
        parameters: What ``forward`` takes.
        load: An expression that makes the module.
        batch: The batch that the result is of: tensors that have it elsewhere are turned, those without it left out.
    """
    tensors = dict(_expressions(result, "result", "", batch))
    returned = ", ".join(f'"{name}": {expression}' for name, expression in tensors.items())
    names = ", ".join(parameters)
    return f"""\
class Flat(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.module = {load}

    def forward(self, {names}):
        result = self.module({names})
        return {{{returned}}}


def flat():
    return Flat()
"""


def _parts(result: Any, expression: str) -> Iterator[tuple[str, str, Any]]:
    """Name, Python expression and value of every part of a result."""
    if isinstance(result, Mapping):
        yield from ((str(key), f"{expression}[{key!r}]", value) for key, value in result.items())
    elif isinstance(result, tuple) and hasattr(result, "_fields"):
        yield from ((name, f"{expression}.{name}", getattr(result, name)) for name in result._fields)
    elif dataclasses.is_dataclass(result):
        names = [field.name for field in dataclasses.fields(result)]
        yield from ((name, f"{expression}.{name}", getattr(result, name)) for name in names)
    elif isinstance(result, Sequence) and not isinstance(result, str):
        yield from ((f"output_{index}", f"{expression}[{index}]", value) for index, value in enumerate(result))


def _expressions(value: Any, expression: str, name: str, batch: int | None) -> Iterator[tuple[str, str]]:
    """Names and expressions of all tensors in a value, however deep."""
    if not isinstance(value, torch.Tensor):
        for part, inner, each in _parts(value, expression):
            joined = f"{name}_{part.removeprefix('output_')}" if name else part
            yield from _expressions(each, inner, joined, batch)
        return
    if batch is not None and batch not in value.shape:
        return
    if batch is not None and value.shape[0] != batch:
        expression += f".transpose(0, {list(value.shape).index(batch)})"
    if value.is_complex():
        expression = f"torch.view_as_real({expression})"
    elif dtype_of(value) is None:
        expression += ".float()"
    yield re.sub(r"\W", "_", name or "output"), expression


def _described(value: Any) -> str:
    if value is None:
        return "None"
    if isinstance(value, (tuple, list)):
        inner = ", ".join(
            "tensor" if isinstance(element, torch.Tensor) else type(element).__name__ for element in value
        )
        return f"a {type(value).__name__} ({inner})"
    return f"a {type(value).__name__}"
