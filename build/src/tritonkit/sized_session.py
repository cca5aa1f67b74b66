"""A graph as a GPU serves it: at prepared sizes, with CUDA graphs, by the very code of the server's backend."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from google.protobuf import json_format

from tritonkit.errors import GraphError
from tritonkit.graph import Array, Session, session_options, shapes_of
from tritonkit.recipe import Recipe
from tritonkit.repository import config

_BACKEND = Path(__file__).with_name("server") / "backends" / "onnxruntime" / "batch_execution"
CODE = (Path(__file__), *sorted(_BACKEND.glob("*.py")))  # what measurements at prepared sizes depend on


@dataclass(frozen=True)
class DeviceMemory:
    """What one instance takes of a GPU's memory, in bytes.

    Attributes:
        device: The GPU that it was measured on.
        context_bytes: CUDA's context of the process.
        session_bytes: The weights, and what onnxruntime adds.
        sizes_bytes: All prepared sizes: tensors, what lies between layers, and their CUDA graphs.
    """

    device: str
    context_bytes: int
    session_bytes: int
    sizes_bytes: int

    def as_json(self) -> dict[str, Any]:
        """As the passport has it."""
        return asdict(self)


class SizedSession:
    """One graph at the sizes of its recipe's CUDA configuration; called like :class:`tritonkit.graph.Session`.

    Args:
        path: An ONNX file.
        recipe: Whose configuration says the sizes.
        device: The CUDA device; None runs the same on the CPU, without graphs.

    Raises:
        GraphError: The graph cannot be prepared; the message says why.
    """

    def __init__(self, path: Path, recipe: Recipe, device: int | None = 0) -> None:
        # Here, as it loads onnxruntime, which a build that finds everything in the store does not need.
        from tritonkit.server.backends.onnxruntime.batch_execution import open_execution, read_sizes

        self._recipe = recipe
        described = json_format.MessageToDict(config.build(recipe, "cuda"), preserving_proto_field_name=True)
        described.setdefault("max_batch_size", 0)  # protobuf leaves out what is 0
        accelerators = described["optimization"]["execution_accelerators"]["gpu_execution_accelerator"]
        try:
            sizes = read_sizes(described, on_gpu=True)
        except ValueError as error:
            raise GraphError(f"{recipe.path}: {error}", "see docs/guides/gpu.md for what can be prepared") from error
        self.why_not_sized = sizes if isinstance(sizes, str) else ""
        self._plain: Session | None = None
        self._execution: Any = None
        if isinstance(sizes, str):
            self._plain = Session(path, device="cuda" if device is not None else "cpu", tf32=recipe.tf32)
            return
        try:
            self._execution = open_execution(path, sizes, session_options(0), device, accelerators[0]["parameters"])
        except (ValueError, MemoryError, RuntimeError) as error:
            raise GraphError(f"{path} cannot be prepared: {error}", "see docs/guides/gpu.md for what can be") from error

    @property
    def memory(self) -> DeviceMemory | None:
        """What it takes on the GPU; None on a CPU, or where batches run as they come."""
        facts = self._execution.facts if self._execution else {}
        if "device" not in facts:
            return None
        return DeviceMemory(facts["device"], facts["context_bytes"], facts["session_bytes"], facts["sizes_bytes"])

    def run(self, inputs: Mapping[str, Array]) -> dict[str, Array]:
        """All outputs for one batch, however large; in memory of their own.

        Raises:
            GraphError: The graph rejects these inputs.
        """
        if self._plain is not None:
            return self._plain.run(inputs)
        if not self._recipe.max_batch_size:
            return self._answer(inputs)
        rows = len(next(iter(inputs.values())))
        most = self._execution.sizes.most_rows
        parts = [
            self._answer({name: array[start : start + most] for name, array in inputs.items()})
            for start in range(0, rows, most)
        ]
        return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}

    def _answer(self, inputs: Mapping[str, Array]) -> dict[str, Array]:
        try:
            answer = self._execution.run([inputs])[0]
        except Exception as error:
            raise GraphError(f"the graph does not run on {shapes_of(inputs)}: {error}", "check `shapes`") from error
        return {name: array.copy() for name, array in zip(self._execution.output_names, answer, strict=True)}
