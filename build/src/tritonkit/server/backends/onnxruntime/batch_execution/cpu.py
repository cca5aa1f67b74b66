"""Prepared sizes on a CPU: the same rows, padding and pieces, without graphs."""

from __future__ import annotations

import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort

from .planning import Size
from .settings import Sizes


class CpuRunner:
    """An onnxruntime session on the CPU; see :class:`.sized.Runner`."""

    def __init__(self, graph: Path, sizes: Sizes, options: Any) -> None:
        self.session = ort.InferenceSession(str(graph), options, providers=["CPUExecutionProvider"])
        self._sizes = sizes
        self.output_names = [output.name for output in self.session.get_outputs() if output.name in sizes.outputs]
        self.facts: dict[str, Any] = {"graphs": False}
        self._staging: dict[str, np.ndarray] = {}
        self._inputs: dict[str, np.ndarray] = {}
        self._results: dict[str, np.ndarray] = {}
        self._costs: dict[Size, float] = {}

    def staging(self, name: str, nbytes: int) -> np.ndarray:
        """Plain memory."""
        if name not in self._staging:
            self._staging[name] = np.zeros(nbytes, np.uint8)
        return self._staging[name]

    def prepare(self, size: Size) -> Mapping[str, tuple[tuple[int, ...], Any]]:
        """Run it twice: once for its shapes, once for its time."""
        for name, dtype in self._sizes.dtypes.items():
            rows = size.batch * int(np.prod(self._sizes.shape(name, size.lengths)))
            nbytes = rows * np.dtype(dtype).itemsize
            if name not in self._inputs or len(self._inputs[name]) < nbytes:
                self._inputs[name] = np.zeros(nbytes, np.uint8)
        self.launch(size)
        start = time.perf_counter()
        self.launch(size)
        self._costs[size] = (time.perf_counter() - start) * 1000
        return {name: (result.shape, result.dtype) for name, result in self._results.items()}

    def verify(self) -> None:
        """A CPU's sizes share nothing that one could spoil for another."""

    def cost_ms(self, size: Size) -> float:
        """What the second run took."""
        return self._costs[size]

    def device_tensor(self, _capsule: Any) -> Any:
        """Triton gives an instance on the CPU no tensors that lie elsewhere."""
        raise TypeError("a tensor in a GPU's memory was given to an instance on the CPU")

    def to_host(self, array: np.ndarray) -> np.ndarray:
        """The array itself."""
        return array

    def upload(self, name: str, row: int, rows: np.ndarray) -> None:
        """Copy rows to where the session reads."""
        nbytes = rows.nbytes // len(rows)
        self._inputs[name][row * nbytes : (row + len(rows)) * nbytes] = rows.reshape(-1).view(np.uint8)

    def launch(self, size: Size) -> None:
        """Run a size on what was uploaded."""
        inputs = {}
        for name, dtype in self._sizes.dtypes.items():
            shape = self._sizes.shape(name, size.lengths)
            shape = (size.batch, *shape) if self._sizes.batched else shape
            nbytes = int(np.prod(shape)) * np.dtype(dtype).itemsize
            inputs[name] = self._inputs[name][:nbytes].view(dtype).reshape(shape)
        results = self.session.run(self.output_names, inputs)
        self._results = dict(zip(self.output_names, results, strict=True))

    def download(self, name: str, row: int, rows: np.ndarray) -> None:
        """Copy an output's rows."""
        result = self._results[name] if self._sizes.batched else self._results[name][None]
        rows[...] = result[row : row + len(rows)]

    def wait(self) -> None:
        """Everything is done when it returns."""

    def clear(self) -> None:
        """Zeros again."""
        for block in self._inputs.values():
            block[:] = 0
