"""Requests in, answers out: gathers rows into prepared memory, runs the pieces, hands each request its own rows.

A runner does the work on its device; all that is the same on every device is here.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from .planning import Lengths, Piece, Planner, Size
from .rows import Array, Group, Inputs, Rows, Span
from .settings import Sizes

# Bytes gathered before they are sent to the device while the next ones are gathered: large enough that a copy's fixed
# cost (some microseconds) does not count.
CHUNK_BYTES = 2**21
ALIGNMENT = 256  # bytes; what onnxruntime's kernels expect of a tensor's address


class Runner(Protocol):
    """A session on one device, with memory for one batch.

    Attributes:
        session: onnxruntime's.
        output_names: The outputs that are answered, in the graph's order.
        facts: What preparing found, for the log and the passport.
    """

    session: Any
    output_names: Sequence[str]
    facts: dict[str, Any]

    def staging(self, name: str, nbytes: int) -> np.ndarray:
        """Host memory that the device copies from and to: bytes, kept for this name."""

    def prepare(self, size: Size) -> Mapping[str, tuple[tuple[int, ...], Any]]:
        """Make a size ready; its outputs' shapes, batch dimension included, and dtypes."""

    def verify(self) -> None:
        """Make sure that every prepared size still answers as when it was prepared, after all the others."""

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
        runner.verify()
        self._planner = Planner(sizes.batches, grids, sizes.most_rows, runner.cost_ms)
        self._rows = Rows(sizes, self._planner)
        self._fills = {name: place[1] for dimension in sizes.padding for name, place in dimension.inputs.items()}
        self._cropped = {name for dimension in sizes.padding for name in dimension.outputs}
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
        groups = self._rows.group(requests)
        try:
            begun = self._begin_all(groups)
        except Exception:
            # It may have failed on rows of an earlier batch: an index that is valid among 30 tokens is not among 8.
            self.runner.clear()
            try:
                begun = self._begin_all(groups)
            except Exception:
                self.runner.clear()
                raise
        answers: list[list[Array]] = [[]] * len(requests)
        for group, fetched, kept in begun:
            for span in group.spans:
                answers[span.request] = self._answer(span, fetched, kept.get(span.request, {}))
        return answers

    def _begin_all(
        self, groups: Sequence[Group]
    ) -> list[tuple[Group, Mapping[str, np.ndarray], Mapping[int, Mapping[str, Array]]]]:
        """Run all groups to the end; returns each with what :meth:`_begin` returns for it."""
        used = dict.fromkeys((*self.sizes.dims, *self.output_names), 0)
        begun = [(group, *self._begin(group, used)) for group in groups]
        self.runner.wait()
        return begun

    def _begin(
        self, group: Group, used: dict[str, int]
    ) -> tuple[Mapping[str, np.ndarray], Mapping[int, Mapping[str, Array]]]:
        """Begin all pieces of one group; returns its outputs' places: on the host, and by request on the device."""
        pieces = self._planner.pieces(group.rows, group.lengths)
        sent = {
            name: self._place(name, (group.rows, *self.sizes.shape(name, group.lengths)), dtype, used)
            for name, dtype in self.sizes.dtypes.items()
        }
        fetched = {
            name: self._place(name, (group.rows, *(shape[1:] if self.sizes.batched else shape)), dtype, used)
            for name, (shape, dtype) in self._outputs[pieces[0].size].items()
        }
        kept: dict[int, dict[str, Array]] = {}
        small = {name: rows for name, rows in sent.items() if rows.nbytes < CHUNK_BYTES and not group.on_device}
        for name, rows in small.items():
            self._gather(name, rows, group)
        for piece in pieces:
            for name, rows in sent.items():
                if name in small:
                    self.runner.upload(name, 0, rows[piece.start : piece.start + piece.rows])
                else:
                    self._stream(name, rows, group, piece)
            self.runner.launch(piece.size)
            if group.on_device:
                self._fetch(fetched, group, piece, kept)
            else:
                for name, rows in fetched.items():
                    self.runner.download(name, 0, rows[piece.start : piece.start + piece.rows])
        return fetched, kept

    def _place(self, name: str, shape: tuple[int, ...], dtype: Any, used: dict[str, int]) -> np.ndarray:
        """The next free part of a tensor's staging memory, as an array."""
        start = used[name]
        nbytes = math.prod(shape) * np.dtype(dtype).itemsize
        used[name] = start + -(-nbytes // ALIGNMENT) * ALIGNMENT
        block = self.runner.staging(name, self._staging_bytes[name])
        return block[start : start + nbytes].view(dtype).reshape(shape)

    def _gather(self, name: str, place: np.ndarray, group: Group) -> None:
        """An input's rows of a whole group, in one go."""
        if group.equal or name not in self._fills:
            arrays = [span.inputs[name] for span in group.spans]
            np.concatenate(arrays if self.sizes.batched else [array[None] for array in arrays], out=place)
            return
        place[...] = self._fills[name]
        for span in group.spans:
            rows = span.inputs[name]
            place[(slice(span.first, span.first + span.rows), *map(slice, rows.shape[1:]))] = rows

    def _stream(self, name: str, staging: np.ndarray, group: Group, piece: Piece) -> None:
        """Gather an input's rows of one piece, and send them on as they come together."""
        row_bytes = staging.nbytes // len(staging)
        begin = end = piece.start  # rows that are gathered and not sent yet
        for span, start, stop in _within(piece, group.spans):
            source = span.inputs[name] if self.sizes.batched else span.inputs[name][None]
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
        place[...] = self._fills[name]
        place[tuple(map(slice, rows.shape))] = rows

    def _fetch(
        self, fetched: Mapping[str, np.ndarray], group: Group, piece: Piece, kept: dict[int, dict[str, Array]]
    ) -> None:
        """Begin to bring each request's outputs to the host, or keep them on the device if its inputs came from there.

        What is cropped, and what two pieces share, passes the host.
        """
        for span, start, stop in _within(piece, group.spans):
            for name, rows in fetched.items():
                if span.on_device and stop - start == span.rows and name not in self._cropped:
                    tensor = self.runner.keep(name, piece.size, start - piece.start, span.rows)
                    kept.setdefault(span.request, {})[name] = tensor
                else:
                    self.runner.download(name, start - piece.start, rows[start:stop])

    def _answer(self, span: Span, fetched: Mapping[str, np.ndarray], kept: Mapping[str, Array]) -> list[Array]:
        answer = []
        for name, rows in fetched.items():
            if name in kept:
                answer.append(kept[name])
                continue
            part = rows[span.first : span.first + span.rows]
            if name in self._cropped:
                part = self._crop(name, part, span.lengths)
            answer.append(part if self.sizes.batched else part[0])
        return answer

    def _crop(self, name: str, rows: np.ndarray, lengths: Lengths) -> np.ndarray:
        """An output's rows without what padding added."""
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


def _within(piece: Piece, spans: Sequence[Span]) -> Iterator[tuple[Span, int, int]]:
    """The spans that a piece holds rows of, with the first of these rows and the one after the last."""
    for span in spans:
        start, stop = max(span.first, piece.start), min(span.first + span.rows, piece.start + piece.rows)
        if start < stop:
            yield span, start, stop


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
    try:
        from .cuda import CudaRunner
        from .memory import exclusive
    except ModuleNotFoundError as error:
        raise RuntimeError(
            f"{error.name} is not installed, which prepared sizes on a GPU need: install cuda-bindings beside "
            "onnxruntime-gpu, or set the parameter batch_sizes to off"
        ) from error

    with exclusive(device):  # what is free before and after tells what this instance takes
        runner = CudaRunner(graph, sizes, options, device, cuda_options or {})
        inspect(runner.session)
        return SizedExecution(sizes, runner)
