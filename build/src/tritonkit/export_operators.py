"""The operators that PyTorch exports with: one table for all exports of a process."""

from __future__ import annotations

import copy
import functools
from typing import Any


@functools.cache
def share() -> None:
    """Let the exports that follow use the same table.

    PyTorch translates its 500 ONNX functions anew for each export, which takes longer than to export a small model,
    and comes to the same each time. A PyTorch that keeps the table elsewhere is left as it is.
    """
    try:
        from torch.onnx._internal.exporter import _registration

        registry: Any = _registration.ONNXRegistry
        make = functools.cache(registry.from_torchlib)
    except (ImportError, AttributeError):
        return

    def from_torchlib(*args: Any, **options: Any) -> Any:
        shared = make(*args, **options)
        table = copy.copy(shared)  # an export may add to its own
        table.functions = {target: list(functions) for target, functions in shared.functions.items()}
        return table

    registry.from_torchlib = staticmethod(from_torchlib)
