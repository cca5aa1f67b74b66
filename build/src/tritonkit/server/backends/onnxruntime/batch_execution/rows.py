"""Requests as rows: what each of them sent, checked, and which of them run at a common length."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from .planning import Lengths, Planner
from .settings import Sizes

Array = Any  # a numpy array, or what the runner calls a tensor on its device
Inputs = Mapping[str, Array]


class Span(NamedTuple):
    """One request's rows in its group.

    Attributes:
        request: Its place among the requests.
        inputs: What it sent.
        first: Its first row.
        rows: How many it has.
        lengths: Its own lengths of the padded dimensions.
        on_device: Whether any of its inputs lies in the device's memory.
    """

    request: int
    inputs: Inputs
    first: int
    rows: int
    lengths: Lengths
    on_device: bool


class Group(NamedTuple):
    """Requests that run at the same lengths, one after another.

    Attributes:
        lengths: The prepared lengths that they run at.
        spans: In the order of their rows.
        rows: Of all.
        equal: Whether every request has just these lengths, so that nothing is filled up.
        on_device: Whether any input of any of them lies in the device's memory.
    """

    lengths: Lengths
    spans: list[Span]
    rows: int
    equal: bool
    on_device: bool


class Rows:
    """Measures requests and groups them.

    Args:
        sizes: Which inputs there are, and which of their dimensions are padded.
        planner: Which prepared lengths there are, and what they cost.
    """

    def __init__(self, sizes: Sizes, planner: Planner) -> None:
        self._sizes = sizes
        self._planner = planner
        self._names = tuple(sizes.dims)
        self._leading = self._names[0]
        # For every padded dimension, an input that has it, and where.
        self._rulers = tuple(
            (name, axis + 1) for name, (axis, _) in (next(iter(padding.inputs.items())) for padding in sizes.padding)
        )
        self._shapes: dict[Lengths, tuple[tuple[str, tuple[int, ...]], ...]] = {}

    def group(self, requests: Sequence[Inputs]) -> list[Group]:
        """All requests, in groups.

        Raises:
            ValueError: A length is above the largest prepared one, inputs of a request contradict each other, or there
                are more rows than a batch may have.
        """
        buckets: dict[Lengths, list[tuple[int, Inputs, int, Lengths]]] = {}
        counts: dict[Lengths, int] = {}
        for index, inputs in enumerate(requests):
            rows, own = self._measure(inputs)
            lengths = self._planner.fit(own) if own else own
            buckets.setdefault(lengths, []).append((index, inputs, rows, own))
            counts[lengths] = counts.get(lengths, 0) + rows
        if sum(counts.values()) > self._sizes.most_rows:
            raise ValueError(f"a batch of {sum(counts.values())} rows; max_batch_size is {self._sizes.most_rows}")
        return [
            _group(lengths, [member for key in keys for member in buckets[key]])
            for lengths, keys in self._planner.groups(counts)
        ]

    def _measure(self, inputs: Inputs) -> tuple[int, Lengths]:
        """Rows and lengths of one request, which its inputs must agree on."""
        batched = self._sizes.batched
        if missing := self._sizes.dims.keys() - inputs.keys():
            raise ValueError(f"input {min(missing)!r} is missing; every input of the graph is needed")
        rows = inputs[self._leading].shape[0] if batched else 1
        lengths = tuple([inputs[name].shape[axis] for name, axis in self._rulers])
        shapes = self._shapes.get(lengths)
        if shapes is None:
            shapes = tuple((name, self._sizes.shape(name, lengths)) for name in self._names)
            if len(self._shapes) < 4096:  # lengths are the callers' to choose
                self._shapes[lengths] = shapes
        for name, shape in shapes:
            actual = inputs[name].shape
            if actual != ((rows, *shape) if batched else shape):
                expected = [rows, *shape] if batched else list(shape)
                raise ValueError(f"input {name!r} has shape {list(actual)}, expected {expected}")
        return rows, lengths


def _group(lengths: Lengths, members: Sequence[tuple[int, Inputs, int, Lengths]]) -> Group:
    spans: list[Span] = []
    first, any_on_device = 0, False
    for index, inputs, rows, own in members:
        on_device = not all(isinstance(array, np.ndarray) for array in inputs.values())
        any_on_device |= on_device
        spans.append(Span(index, inputs, first, rows, own, on_device))
        first += rows
    return Group(lengths, spans, first, all(span.lengths == lengths for span in spans), any_on_device)
