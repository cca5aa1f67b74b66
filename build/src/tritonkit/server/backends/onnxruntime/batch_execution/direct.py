"""Runs batches as they come: of models without prepared sizes, and of those that cannot be padded."""

from __future__ import annotations

from collections.abc import Container, Mapping, Sequence
from typing import Any

import numpy as np
import onnxruntime as ort


class DirectExecution:
    """Joins the requests of a batch, runs them, and cuts the answers apart.

    Args:
        session: onnxruntime's session.
        numbers: Inputs that the graph takes without dimensions; on the wire they are ``[1]``.
    """

    def __init__(self, session: Any, numbers: Container[str] = ()) -> None:
        self._session = session
        self.output_names = [output.name for output in session.get_outputs()]
        self._input_names = [entry.name for entry in session.get_inputs()]
        self._numbers = numbers
        self._buffers: dict[str, np.ndarray] = {}

    def run(self, requests: Sequence[Mapping[str, Any]]) -> list[list[np.ndarray]]:
        """Every request's outputs, in order.

        Raises:
            ValueError: An output's first dimension is not the batch, shapes of requests differ, or one lacks an input.
        """
        # Triton adds tensors that the graph need not have, such as the start of a sequence.
        columns = {name: [inputs[name] for inputs in requests if name in inputs] for name in self._input_names}
        if missing := [name for name, arrays in columns.items() if len(arrays) < len(requests)]:
            raise ValueError(f"input {missing[0]!r} is missing; every input of the graph is needed")
        if len(requests) == 1:
            return [self._session.run(self.output_names, {name: self._fed(name, columns[name][0]) for name in columns})]
        counts = [len(array) for array in columns[self._input_names[0]]]
        total = sum(counts)
        outputs = self._session.run(
            self.output_names, {name: self._gather(name, arrays, total) for name, arrays in columns.items()}
        )
        for name, output in zip(self.output_names, outputs, strict=True):
            if output.shape[:1] != (total,):
                raise ValueError(f"output {name!r} has shape {output.shape} for a batch of {total}")
        ends = np.cumsum(counts)
        return [
            [output[end - count : end] for output in outputs] for count, end in zip(counts, ends, strict=True)
        ]  # fmt: skip

    def _fed(self, name: str, array: np.ndarray) -> np.ndarray:
        return array.reshape(()) if name in self._numbers else array

    def device_tensor(self, capsule: Any) -> np.ndarray:
        """The host's copy of a tensor in a GPU's memory, from a DLPack capsule."""
        copy: np.ndarray = ort.OrtValue.from_dlpack(capsule).numpy()
        return copy

    def _gather(self, name: str, arrays: Sequence[np.ndarray], total: int) -> np.ndarray:
        """The rows of all requests in one array; its memory is kept, as fresh pages cost more than the copy."""
        if arrays[0].dtype == object:
            return np.concatenate(arrays)
        buffer = self._buffers.get(name)
        if buffer is None or len(buffer) < total or buffer.shape[1:] != arrays[0].shape[1:]:
            buffer = self._buffers[name] = np.empty((total, *arrays[0].shape[1:]), dtype=arrays[0].dtype)
        return np.concatenate(arrays, out=buffer[:total])
