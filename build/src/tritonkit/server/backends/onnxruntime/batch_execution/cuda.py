"""Prepared sizes on a GPU: a captured CUDA graph for every size, of one session, or of one session each.

A graph without convolutions has one session and one copy of the weights for all sizes. A convolution keeps what it
prepared for one shape only: the next shape throws it away, and with it, it seems, what a captured graph still needs. On
an H200 (onnxruntime 1.31) graphs of EfficientNet-Lite0 in one session gave wrong answers after the other
sizes had been prepared, in most processes. So a graph with convolutions has a session for each size, which never sees
another shape.

Copies go through pinned memory, on the stream that the graph runs on. All sizes share the tensors' device memory: only
one of them runs at a time.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort

from .convolutions import has_convolutions
from .memory import Device
from .planning import Size
from .settings import Sizes

MIB = 2**20
KIND = "cuda"  # onnxruntime's name of the devices whose memory is bound
TIMED_RUNS = 3
ATTEMPTS = 2  # at graphs that answer right: a process's second sessions were right where its first were not
VERIFIED_ROWS = 4
VERIFIED_ERROR = 0.02  # of the largest magnitude: kernels may add up in another order, which for fp16 shows
NO_GRAPH = "-1"  # onnxruntime's number for a run that is neither captured nor replayed


@dataclass(frozen=True)
class DeviceTensor:
    """A tensor in a GPU's memory, contiguous.

    Attributes:
        address: Where it begins.
        shape: With its batch dimension.
        dtype: As numpy has it.
        owner: What keeps the memory alive.
    """

    address: int
    shape: tuple[int, ...]
    dtype: np.dtype
    owner: Any

    @property
    def nbytes(self) -> int:
        """Size in bytes."""
        return int(np.prod(self.shape)) * self.dtype.itemsize

    def copy(self) -> DeviceTensor:
        """The tensor itself: what a run keeps on the device is nobody else's."""
        return self

    def to_dlpack(self) -> Any:
        """A DLPack capsule of the owner's tensor."""
        return self.owner._ortvalue.to_dlpack()

    def __getitem__(self, rows: slice | None) -> DeviceTensor:
        """Rows, or the same tensor with a first dimension of 1 more."""
        if rows is None:
            return DeviceTensor(self.address, (1, *self.shape), self.dtype, self.owner)
        start, stop, _ = rows.indices(self.shape[0])
        row_bytes = self.nbytes // max(self.shape[0], 1)
        return DeviceTensor(
            self.address + start * row_bytes, (stop - start, *self.shape[1:]), self.dtype, self.owner
        )  # fmt: skip


class CudaRunner:
    """An onnxruntime session on one GPU; see :class:`.sized.Runner`.

    Args:
        graph: An ONNX file.
        sizes: Which inputs there are, and whether graphs are captured.
        options: onnxruntime's session options.
        number: The CUDA device.
        cuda_options: Options of the CUDA provider.

    Raises:
        RuntimeError: The driver is too old, or the CUDA provider does not start.
    """

    def __init__(
        self,
        graph: Path,
        sizes: Sizes,
        options: Any,
        number: int,
        cuda_options: Mapping[str, str],
    ) -> None:
        # Its own logger warns at every session that CUDA is no plugin; what a session has to say is in its options.
        ort.set_default_logger_severity(3)
        if hasattr(ort, "preload_dlls"):
            ort.preload_dlls()  # CUDA's libraries, where they come from Python packages
        self._device = Device(number)
        self._graph, self._sizes, self._options = graph, sizes, options
        self._cuda_options = dict(cuda_options)
        self.facts: dict[str, Any] = {
            "device": self._device.name, "capability": list(self._device.capability), "graphs": sizes.graphs,
            "context_bytes": self._device.context_bytes, "sizes_bytes": 0,
        }  # fmt: skip
        self._one_session_a_size = has_convolutions(graph)
        before = self._device.free_bytes()[0]
        self.session = self._open()
        self.facts["session_bytes"] = before - self._device.free_bytes()[0]
        self.output_names = [output.name for output in self.session.get_outputs() if output.name in sizes.outputs]
        self._staging: dict[str, np.ndarray] = {}
        self._blocks: dict[str, tuple[int, int]] = {}  # tensor → address and bytes on the device
        self._runs: dict[Size, tuple[Any, ...]] = {}  # session, binding and run options
        self._row_bytes: dict[tuple[str, Size], int] = {}
        self._shapes: dict[Size, dict[str, tuple[tuple[int, ...], Any]]] = {}
        self._answers: dict[Size, dict[str, np.ndarray]] = {}
        self._costs: dict[Size, float] = {}

    def _open(self) -> Any:
        """The session; without graphs where onnxruntime cannot capture this model."""
        if self.facts["graphs"]:
            try:
                return self._session_with({"enable_cuda_graph": "1"})
            except Exception as error:
                if _is_memory(error):
                    raise
                self._note_no_graphs(_reason(error))
        return self._session_with({})

    def _session_with(self, more: Mapping[str, str]) -> Any:
        provider = self._cuda_options | dict(more) | {
            "device_id": str(self._device.number), "user_compute_stream": str(int(self._device.stream)),
        }  # fmt: skip
        session = ort.InferenceSession(
            str(self._graph), self._options,
            providers=[("CUDAExecutionProvider", provider), "CPUExecutionProvider"],
        )  # fmt: skip
        if "CUDAExecutionProvider" not in session.get_providers():
            raise RuntimeError("onnxruntime's CUDA provider did not start; its reason is in the log above")
        return session

    def _note_no_graphs(self, reason: str) -> None:
        self.facts["graphs"] = False
        self.facts["why_no_graphs"] = reason

    def _bind_anew(self) -> None:
        """Open sessions anew, and bind every size that was prepared so far."""
        prepared = list(self._runs)
        self._runs.clear()
        self.session = None  # frees its memory before the next one takes as much
        self.session = self._open()
        for size in prepared:
            self._choose_session()
            self._bind(size)
            self._time(size)

    def _choose_session(self) -> None:
        """A session that has seen no other size, where sizes do not share one; the first is there already."""
        if self._one_session_a_size and self._runs:
            self.session = self._open()

    def staging(self, name: str, nbytes: int) -> np.ndarray:
        """Pinned memory."""
        if name not in self._staging:
            self._staging[name] = self._device.allocate_pinned(nbytes)
        return self._staging[name]

    def prepare(self, size: Size) -> Mapping[str, tuple[tuple[int, ...], Any]]:
        """Run it, give its outputs a place, capture it, and time it."""
        before = self._device.free_bytes()[0]
        try:
            self._prepare(size)
        except Exception as error:
            if _is_memory(error):
                free, total = self._device.free_bytes()
                raise MemoryError(
                    f"the GPU has no memory for batch {size.batch}{list(size.lengths) or ''}: {_reason(error)}; "
                    f"{free // MIB} of {total // MIB} MiB are free. Lower batch_sizes or max_batch_size, or count in "
                    "instance_group, or raise gpu_mem_limit"
                ) from error
            raise
        self.facts["sizes_bytes"] += before - self._device.free_bytes()[0]
        return self._shapes[size]

    def _prepare(self, size: Size) -> None:
        self._choose_session()
        for name, dtype in self._sizes.dtypes.items():
            self._reserve(name, size, self._input_shape(name, size), dtype)
        self._shapes[size], self._answers[size] = self._discover(size)
        for name, (shape, dtype) in self._shapes[size].items():
            self._reserve(name, size, shape, dtype)
        if self.facts["graphs"]:
            try:
                self._bind(size)
            except Exception as error:
                if _is_memory(error):
                    raise
                self._note_no_graphs(_reason(error))
                self._runs[size] = ()  # among those that are bound anew
                self._bind_anew()
        else:
            self._bind(size)
        self._time(size)

    def verify(self) -> None:
        """Replay every graph once, and compare with the run before it was captured.

        Where an answer differs, all are captured anew, and if one differs again, the sizes run without graphs. A graph
        reads memory at fixed addresses, so a fault in what it was given shows only after other sizes were prepared: as
        a wrong answer, never as an error.
        """
        self.facts["sessions"] = len(self._runs) if self._one_session_a_size else 1
        for attempt in range(ATTEMPTS):
            wrong = next((size for size in self._runs if not self._answers_as_before(size)), None)
            if not self.facts["graphs"] or wrong is None:
                return
            if attempt + 1 == ATTEMPTS:
                self._note_no_graphs(f"the graph of batch {wrong.batch} gave another answer than the run before it")
            self._bind_anew()

    def _answers_as_before(self, size: Size) -> bool:
        self.launch(size)
        return all(_near(rows, self._first_rows(name, size)) for name, rows in self._answers[size].items())

    def _first_rows(self, name: str, size: Size) -> np.ndarray:
        """The first rows of an output's memory, on the host."""
        shape, dtype = self._shapes[size][name]
        rows = np.empty((min(shape[0], VERIFIED_ROWS), *shape[1:]) if shape else (), dtype)
        self._device.to_host(rows, self._blocks[name][0])
        self.wait()
        return rows

    def _time(self, size: Size) -> None:
        times = []
        for _ in range(TIMED_RUNS + 1):
            start = time.perf_counter()
            self.launch(size)
            self.wait()
            times.append((time.perf_counter() - start) * 1000)
        self._costs[size] = statistics.median(times[1:])

    def _input_shape(self, name: str, size: Size) -> tuple[int, ...]:
        shape = self._sizes.shape(name, size.lengths)
        return (size.batch, *shape) if self._sizes.batched else shape

    def _reserve(self, name: str, size: Size, shape: tuple[int, ...], dtype: Any) -> None:
        """Device memory for a tensor; the first size is the largest, so a later one finds it large enough."""
        nbytes = int(np.prod(shape)) * np.dtype(dtype).itemsize
        self._row_bytes[name, size] = nbytes // size.batch
        if name not in self._blocks or self._blocks[name][1] < nbytes:
            self._blocks[name] = (self._device.allocate(max(nbytes, 1)), nbytes)
            if name in self._sizes.dtypes:
                self._fill(name, nbytes, np.dtype(dtype))

    def _fill(self, name: str, nbytes: int, dtype: np.dtype) -> None:
        """Values to prepare with: random ones of photographs and other measurements, zeros of indices and masks."""
        random = np.random.default_rng(0)
        if dtype == np.uint8:
            values = random.integers(0, 256, nbytes, np.uint8)
        elif dtype.kind == "f":
            values = random.random(nbytes // dtype.itemsize, np.float32).astype(dtype)
        else:
            return
        self._device.to_device(self._blocks[name][0], values)
        self.wait()

    def _discover(self, size: Size) -> tuple[dict[str, tuple[tuple[int, ...], Any]], dict[str, np.ndarray]]:
        """Shapes and dtypes of the outputs, and the first rows of each, from a run that places them freely."""
        binding = self._bound_inputs(size)
        for name in self.output_names:
            binding.bind_output(name, KIND, self._device.number)
        self.session.run_with_iobinding(binding, _run_options(NO_GRAPH))
        shapes, answers = {}, {}
        kinds = {output.name: output.type for output in self.session.get_outputs()}
        for name, value in zip(self.output_names, binding.get_outputs(), strict=True):
            shapes[name] = (tuple(value.shape()), _DTYPES[kinds[name]])
            answers[name] = value.numpy()[:VERIFIED_ROWS] if value.shape() else value.numpy()
        return shapes, answers

    def _bound_inputs(self, size: Size) -> Any:
        binding = self.session.io_binding()
        for name, dtype in self._sizes.dtypes.items():
            address = self._blocks[name][0]
            binding.bind_input(name, KIND, self._device.number, dtype, list(self._input_shape(name, size)), address)
        return binding

    def _bind(self, size: Size) -> None:
        binding = self._bound_inputs(size)
        for name, (shape, dtype) in self._shapes[size].items():
            binding.bind_output(name, KIND, self._device.number, dtype, list(shape), self._blocks[name][0])
        number = str(len(self._runs) + 1) if self.facts["graphs"] else NO_GRAPH
        options = _run_options(number)
        self.session.run_with_iobinding(binding, options)  # captures, if it is a graph's first
        self._runs[size] = (self.session, binding, options)

    def cost_ms(self, size: Size) -> float:
        """The median of some runs."""
        return self._costs[size]

    def device_tensor(self, capsule: Any) -> DeviceTensor:
        """A tensor that another process or library put into the GPU's memory, from a DLPack capsule."""
        owner = ort.OrtValue.from_dlpack(capsule)
        return DeviceTensor(owner.data_ptr(), tuple(owner.shape()), np.dtype(_DTYPES[owner.data_type()]), owner)

    def to_host(self, array: Any) -> np.ndarray:
        """A request's input as a host array: what is padded on its way to the GPU passes the host."""
        if not isinstance(array, DeviceTensor):
            return np.asarray(array)
        copy = np.empty(array.shape, array.dtype)
        self._device.to_host(copy, array.address)
        self.wait()
        return copy

    def upload(self, name: str, row: int, rows: Any) -> None:
        """Begin to copy rows, from pinned memory or from a GPU."""
        address = self._blocks[name][0] + row * (rows.nbytes // max(rows.shape[0], 1))
        if isinstance(rows, DeviceTensor):
            self._device.within(address, rows.address, rows.nbytes)
        else:
            self._device.to_device(address, rows)

    def launch(self, size: Size) -> None:
        """Run a size."""
        session, binding, options = self._runs[size]
        session.run_with_iobinding(binding, options)

    def download(self, name: str, row: int, rows: np.ndarray) -> None:
        """Begin to copy an output's rows to pinned memory."""
        self._device.to_host(rows, self._blocks[name][0] + row * (rows.nbytes // max(len(rows), 1)))

    def keep(self, name: str, size: Size, row: int, rows: int) -> DeviceTensor:
        """A copy of an output's rows, in memory that onnxruntime lends and takes back when it is no longer used."""
        shape, dtype = self._shapes[size][name]
        shape = (rows, *shape[1:]) if self._sizes.batched else shape
        owner = ort.OrtValue.ortvalue_from_shape_and_type(list(shape), dtype, KIND, self._device.number)
        tensor = DeviceTensor(owner.data_ptr(), shape, np.dtype(dtype), owner)
        self._device.within(tensor.address, self._blocks[name][0] + row * self._row_bytes[name, size], tensor.nbytes)
        return tensor

    def wait(self) -> None:
        """Wait for the stream."""
        self._device.wait()

    def clear(self) -> None:
        """Zeros again, after what was begun has ended."""
        for name in self._sizes.dtypes:
            self._device.zero(*self._blocks[name])
        self.wait()


def _run_options(graph_number: str) -> Any:
    """Options of a run: its graph's number."""
    options = ort.RunOptions()
    options.add_run_config_entry("gpu_graph_id", graph_number)
    return options


def _near(expected: np.ndarray, answer: np.ndarray) -> bool:
    if expected.dtype.kind != "f":
        return bool(np.array_equal(expected, answer))
    expected, answer = expected.astype(np.float64), answer.astype(np.float64)
    largest = np.abs(expected[np.isfinite(expected)]).max(initial=0.0)
    return bool(np.allclose(answer, expected, rtol=0, atol=VERIFIED_ERROR * largest, equal_nan=True))


def _is_memory(error: Exception) -> bool:
    text = str(error).lower()
    return isinstance(error, MemoryError) or any(
        word in text
        for word in ("failed to allocate memory", "out of memory", "available memory of", "memoryallocation")
    )


def _reason(error: Exception) -> str:
    """The message of onnxruntime, without the place in its source."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return (lines[0] if lines else type(error).__name__)[:300]


_DTYPES = {
    "tensor(bool)": np.bool_, "tensor(uint8)": np.uint8, "tensor(uint16)": np.uint16, "tensor(uint32)": np.uint32,
    "tensor(uint64)": np.uint64, "tensor(int8)": np.int8, "tensor(int16)": np.int16, "tensor(int32)": np.int32,
    "tensor(int64)": np.int64, "tensor(float16)": np.float16, "tensor(float)": np.float32, "tensor(double)": np.float64,
}  # fmt: skip
