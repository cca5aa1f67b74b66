"""Requests in, answers out: gathers rows into prepared memory, runs the pieces, hands each request its own rows.

A runner does the work on its device; all that is the same on every device is here.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from .planning import Lengths, Piece, Planner, Size
from .settings import Sizes

# Bytes gathered before they are sent to the device while the next ones are gathered: large enough that a copy's fixed
# cost (some microseconds) does not count.
CHUNK_BYTES = 2**21
ALIGNMENT = 256  # bytes; what onnxruntime's kernels expect of a tensor's address

Array = Any  # a numpy array, or what the runner calls a tensor on its device
Inputs = Mapping[str, Array]


class Runner(Protocol):
    """A session on one device, with memory for one batch.

    Attributes:
        session: onnxruntime's.
        output_names: The graph's outputs, in its order.
        facts: What preparing found, for the log and the passport.
    """

    session: Any
    output_names: Sequence[str]
    facts: dict[str, Any]

    def staging(self, name: str, nbytes: int) -> np.ndarray:
        """Host memory that the device copies from and to: bytes, kept for this name."""

    def prepare(self, size: Size) -> Mapping[str, tuple[tuple[int, ...], Any]]:
        """Make a size ready; its outputs' shapes, batch dimension included, and dtypes."""

    def cost_ms(self, size: Size) -> float:
        """What one run of a prepared size takes, in milliseconds."""

    def device_tensor(self, capsule: Any) -> Array:
        """A tensor in the device's memory, from a DLPack capsule."""

    def upload(self, name: str, row: int, rows: Array) -> None:
        """Send rows to the input's memory, from its ``row`` on."""

    def launch(self, size: Size) -> None:
        """Run a size on what was uploaded."""

    def download(self, name: str, row: int, rows: np.ndarray) -> None:
        """Fetch an output's rows, from its ``row`` on; they are there after :meth:`wait`."""

    def keep(self, name: str, size: Size, row: int, rows: int) -> Array:
        """An output's rows as a tensor in the device's memory."""

    def wait(self) -> None:
        """Wait for everything that was begun."""

    def to_host(self, array: Array) -> np.ndarray:
        """A request's input as a host array, wherever it lies."""

    def clear(self) -> None:
        """Forget the rows of earlier batches, which fill up later ones: they may be what a run failed on."""


@dataclass(frozen=True)
class _Span:
    """One request's rows in its group."""

    request: int
    inputs: Inputs
    first: int
    rows: int
    lengths: Lengths
    on_device: bool


class SizedExecution:
    """Runs batches at prepared sizes.

    Args:
        sizes: What to prepare.
        runner: What runs them.

    Raises:
        ValueError: An output's first dimension is not the batch, or an output changes with a padded dimension that
            ``padding`` does not name for it.
        MemoryError: The device has not enough memory; the message says at which size and what lowers it.
    """

    def __init__(self, sizes: Sizes, runner: Runner) -> None:
        self.sizes = sizes
        self.runner = runner
        self._outputs: dict[Size, Mapping[str, tuple[tuple[int, ...], Any]]] = {}
        grids = [dimension.sizes for dimension in sizes.padding]
        # The largest first: what it leaves behind is large enough for all others.
        for lengths in itertools.product(*(reversed(grid) for grid in grids)):
            for batch in reversed(sizes.batches):
                size = Size(batch, lengths)
                self._outputs[size] = runner.prepare(size)
                self._check_outputs(size)
        self._planner = Planner(sizes.batches, grids, sizes.most_rows, runner.cost_ms)
        self._staging_bytes = self._largest()

    @property
    def facts(self) -> dict[str, Any]:
        """What preparing found: device, whether graphs are used and why not, bytes of context, session and sizes."""
        return self.runner.facts

    def device_tensor(self, capsule: Any) -> Array:
        """A tensor in the device's memory, from a DLPack capsule."""
        return self.runner.device_tensor(capsule)

    @property
    def output_names(self) -> Sequence[str]:
        """The outputs, in the order in which they are answered."""
        return self.runner.output_names

    def run(self, requests: Sequence[Inputs]) -> list[list[Array]]:
        """Every request's outputs, in order.

        An answer may lie in memory that the next call overwrites.

        Args:
            requests: For each, input name to rows; with the batch dimension where the model has one.

        Raises:
            ValueError: A length is above the largest prepared one, or inputs of a request contradict each other.
        """
        answers: list[list[Array]] = [[] for _ in requests]
        used = dict.fromkeys((*self.sizes.dims, *self.output_names), 0)
        try:
            groups = self._grouped(requests)
            hand_outs = [self._run_group(lengths, spans, used, answers) for lengths, spans in groups]
            self.runner.wait()
        except Exception:
            self.runner.clear()
            raise
        for hand_out in hand_outs:
            hand_out()
        return answers

    def _grouped(self, requests: Sequence[Inputs]) -> list[tuple[Lengths, list[_Span]]]:
        buckets: dict[Lengths, list[tuple[int, Inputs, int, Lengths]]] = {}
        for index, inputs in enumerate(requests):
            rows, lengths = self._measure(inputs)
            buckets.setdefault(self._planner.fit(lengths), []).append((index, inputs, rows, lengths))
        counts = {lengths: sum(member[2] for member in members) for lengths, members in buckets.items()}
        if sum(counts.values()) > self.sizes.most_rows:
            raise ValueError(f"a batch of {sum(counts.values())} rows; max_batch_size is {self.sizes.most_rows}")
        groups = []
        for lengths, keys in self._planner.groups(counts):
            spans, first = [], 0
            for key in keys:
                for index, inputs, rows, own in buckets[key]:
                    device = not all(isinstance(array, np.ndarray) for array in inputs.values())
                    spans.append(_Span(index, inputs, first, rows, own, device))
                    first += rows
            groups.append((lengths, spans))
        return groups

    def _measure(self, inputs: Inputs) -> tuple[int, Lengths]:
        """Rows and lengths of one request, which its inputs must agree on."""
        leading = next(iter(inputs.values()))
        rows = leading.shape[0] if self.sizes.batched else 1
        lengths = []
        for dimension in self.sizes.padding:
            name, (axis, _) = next(iter(dimension.inputs.items()))
            lengths.append(inputs[name].shape[axis + 1])
        for name in self.sizes.dims:
            shape = self.sizes.shape(name, lengths)
            expected = (rows, *shape) if self.sizes.batched else shape
            if tuple(inputs[name].shape) != expected:
                raise ValueError(f"input {name!r} has shape {list(inputs[name].shape)}, expected {list(expected)}")
        return rows, tuple(lengths)

    def _run_group(
        self, lengths: Lengths, spans: Sequence[_Span], used: dict[str, int], answers: list[list[Array]]
    ) -> Callable[[], None]:
        """Begin all pieces of one group; what is returned hands out its answers, after everything is done."""
        rows = spans[-1].first + spans[-1].rows
        pieces = self._planner.pieces(rows, lengths)
        sent = {
            name: self._place(name, (rows, *self.sizes.shape(name, lengths)), dtype, used)
            for name, dtype in self.sizes.dtypes.items()
        }
        described = self._outputs[pieces[0].size]
        fetched = {
            name: self._place(name, (rows, *(shape[1:] if self.sizes.batched else shape)), dtype, used)
            for name, (shape, dtype) in described.items()
        }
        kept: dict[int, list[tuple[str, Array]]] = {}
        for piece in pieces:
            covered = [
                span for span in spans if span.first < piece.start + piece.rows and span.first + span.rows > piece.start
            ]
            for name, staging in sent.items():
                self._send(name, staging, covered, piece)
            self.runner.launch(piece.size)
            self._fetch(fetched, covered, piece, kept)
        return lambda: self._answer(spans, fetched, kept, answers)

    def _place(self, name: str, shape: tuple[int, ...], dtype: Any, used: dict[str, int]) -> np.ndarray:
        """The next free part of a tensor's staging memory, as an array."""
        count = int(np.prod(shape))
        start = used[name]
        nbytes = count * np.dtype(dtype).itemsize
        used[name] = start + -(-nbytes // ALIGNMENT) * ALIGNMENT
        block = self.runner.staging(name, self._staging_bytes[name])
        return block[start : start + nbytes].view(dtype).reshape(shape)

    def _send(self, name: str, staging: np.ndarray, spans: Sequence[_Span], piece: Piece) -> None:
        """Gather an input's rows of one piece, and send them on as they come together."""
        row_bytes = staging.nbytes // len(staging)
        begin = end = piece.start  # rows that are gathered and not sent yet
        for span in spans:
            start, stop = max(span.first, piece.start), min(span.first + span.rows, piece.start + piece.rows)
            source = span.inputs[name]
            if not self.sizes.batched:
                source = source[None]
            source = source[start - span.first : stop - span.first]
            if not isinstance(source, np.ndarray) and source.shape[1:] == staging.shape[1:]:
                if end > begin:
                    self.runner.upload(name, begin - piece.start, staging[begin:end])
                self.runner.upload(name, start - piece.start, source)
                begin = end = stop
                continue
            self._fill(name, staging[start:stop], self.runner.to_host(source))
            end = stop
            if (end - begin) * row_bytes >= CHUNK_BYTES:
                self.runner.upload(name, begin - piece.start, staging[begin:end])
                begin = end
        if end > begin:
            self.runner.upload(name, begin - piece.start, staging[begin:end])

    def _fill(self, name: str, place: np.ndarray, rows: np.ndarray) -> None:
        """Copy rows to their place, and fill up what the padded dimensions leave."""
        if place.shape == rows.shape:
            place[...] = rows
            return
        (value,) = {dimension.inputs[name][1] for dimension in self.sizes.padding if name in dimension.inputs}
        place[...] = value
        place[tuple(map(slice, rows.shape))] = rows

    def _fetch(
        self,
        fetched: Mapping[str, np.ndarray],
        spans: Sequence[_Span],
        piece: Piece,
        kept: dict[int, list[tuple[str, Array]]],
    ) -> None:
        """Begin to bring a piece's outputs back: to the host, or to where their request's inputs lie."""
        if not any(span.on_device for span in spans):
            for name, rows in fetched.items():
                self.runner.download(name, 0, rows[piece.start : piece.start + piece.rows])
            return
        for span in spans:
            start, stop = max(span.first, piece.start), min(span.first + span.rows, piece.start + piece.rows)
            for name, rows in fetched.items():
                if span.on_device and stop - start == span.rows and not self._crops(name):
                    tensor = self.runner.keep(name, piece.size, start - piece.start, span.rows)
                    kept.setdefault(span.request, []).append((name, tensor))
                else:
                    self.runner.download(name, start - piece.start, rows[start:stop])

    def _answer(
        self,
        spans: Sequence[_Span],
        fetched: Mapping[str, np.ndarray],
        kept: Mapping[int, list[tuple[str, Array]]],
        answers: list[list[Array]],
    ) -> None:
        for span in spans:
            on_device = dict(kept.get(span.request, ()))
            answer = []
            for name, rows in fetched.items():
                if name in on_device:
                    answer.append(on_device[name])
                    continue
                part = self._cropped(name, rows[span.first : span.first + span.rows], span.lengths)
                answer.append(part if self.sizes.batched else part[0])
            answers[span.request] = answer

    def _crops(self, name: str) -> bool:
        return any(name in dimension.outputs for dimension in self.sizes.padding)

    def _cropped(self, name: str, rows: np.ndarray, lengths: Lengths) -> np.ndarray:
        """An output's rows without what padding added."""
        if not self._crops(name):
            return rows
        place = [slice(None)] * rows.ndim
        for dimension, length in zip(self.sizes.padding, lengths, strict=True):
            if name in dimension.outputs:
                place[dimension.outputs[name] + 1] = slice(length)
        return np.ascontiguousarray(rows[tuple(place)])

    def _check_outputs(self, size: Size) -> None:
        """Refuse outputs that cannot be cut into rows and cropped to what a request sent."""
        reference = self._outputs[next(iter(self._outputs))]
        for name, (shape, _) in self._outputs[size].items():
            if self.sizes.batched and shape[:1] != (size.batch,):
                raise ValueError(
                    f"output {name!r} has shape {list(shape)} for a batch of {size.batch}: its first dimension is not "
                    "the batch; set max_batch_size to 0, or batch_sizes to off"
                )
            expected = list(reference[name][0])
            if self.sizes.batched:
                expected[0] = size.batch
            for dimension, length in zip(self.sizes.padding, size.lengths, strict=True):
                if name in dimension.outputs:
                    expected[dimension.outputs[name] + 1] = length
            if list(shape) != expected:
                dimensions = ", ".join(dimension.name for dimension in self.sizes.padding)
                raise ValueError(
                    f"output {name!r} has shape {list(shape)} at {describe(size, self.sizes)}, expected {expected}: it "
                    f"changes with a padded dimension ({dimensions}); name it under `outputs` in `padding`"
                )

    def _largest(self) -> dict[str, int]:
        """Bytes of staging memory a tensor: all rows at the largest size, and room to align each group."""
        most = Size(self.sizes.batches[-1], tuple(dimension.sizes[-1] for dimension in self.sizes.padding))
        rows = {
            name: int(np.prod(self.sizes.shape(name, most.lengths))) * np.dtype(dtype).itemsize
            for name, dtype in self.sizes.dtypes.items()
        }
        rows |= {
            name: int(np.prod(shape[1:] if self.sizes.batched else shape)) * np.dtype(dtype).itemsize
            for name, (shape, dtype) in self._outputs[most].items()
        }
        return {name: self.sizes.most_rows * (row + ALIGNMENT) for name, row in rows.items()}


def describe(size: Size, sizes: Sizes) -> str:
    """A size as a person reads it: ``batch 8, sequence 64``."""
    parts = [f"batch {size.batch}"] if sizes.batched else ["one request"]
    parts += [f"{dimension.name} {length}" for dimension, length in zip(sizes.padding, size.lengths, strict=True)]
    return ", ".join(parts)


def open_execution(
    graph: Path,
    sizes: Sizes,
    options: Any,
    device: int | None,
    cuda_options: Mapping[str, str] | None = None,
    inspect: Callable[[Any], None] = lambda _: None,
) -> SizedExecution:
    """Open a graph and prepare its sizes.

    Args:
        graph: An ONNX file.
        sizes: What to prepare.
        options: onnxruntime's session options.
        device: The CUDA device; None for the CPU.
        cuda_options: Options of onnxruntime's CUDA provider.
        inspect: Called with the session before sizes are prepared; what it raises is raised here.

    Raises:
        ValueError: See :class:`SizedExecution`.
        MemoryError: See :class:`SizedExecution`.
        RuntimeError: The GPU's driver is too old.
    """
    if device is None:
        from .cpu import CpuRunner

        runner: Runner = CpuRunner(graph, sizes, options)
        inspect(runner.session)
        return SizedExecution(sizes, runner)
    from .cuda import CudaRunner
    from .memory import exclusive

    with exclusive(device):  # what is free before and after tells what this instance takes
        runner = CudaRunner(graph, sizes, options, device, cuda_options or {})
        inspect(runner.session)
        return SizedExecution(sizes, runner)
