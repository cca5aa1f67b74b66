"""Optimization profiles: the shapes that an engine must take, and those that it is to be fast at.

From a recipe they come from ``shapes`` and ``max_batch_size``; for a bare graph from the command line.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from tritonkit.errors import InputError
from tritonkit.graph import Signature
from tritonkit.recipe import Recipe

Shape = tuple[int, ...]
# From this largest batch on, batch 1 gets a profile of its own: kernels that are chosen for full batches waste a GPU
# on single requests, and each profile costs build time and its own activation memory.
WIDE_BATCH = 4


@dataclass(frozen=True)
class Bounds:
    """The sizes that one dimension may take; ``opt`` is the one to be fast at."""

    min: int
    opt: int
    max: int


@dataclass(frozen=True)
class Shapes:
    """The three shapes of one input in one profile, batch dimension included."""

    min: Shape
    opt: Shape
    max: Shape


Profile = dict[str, Shapes]
Dims = Mapping[str, Sequence[int | str]]


def from_recipe(recipe: Recipe) -> list[Profile]:
    """The profiles of a recipe's graphs, in the order that ``instance_group.profile`` counts them."""
    ranges = {name: Bounds(bounds.min, bounds.opt, bounds.max) for name, bounds in recipe.shapes.items()}
    return _profiles({name: spec.dims for name, spec in recipe.inputs.items()}, ranges, recipe.max_batch_size)


def from_graph(signature: Signature, ranges: Mapping[str, Bounds], max_batch_size: int) -> list[Profile]:
    """The profiles of a bare graph.

    Args:
        signature: Its inputs; a dynamic dimension without a name is called ``INPUT.AXIS``.
        ranges: Bounds of the dynamic dimensions, by name.
        max_batch_size: More than 0 takes the first dimension of every input as the batch.

    Raises:
        InputError: A dimension has no range, or a range names a dimension that the graph does not have.
    """
    dims = {name: _named(name, tensor.dims) for name, tensor in signature.inputs.items()}
    ranges = dict(ranges)
    for name, sizes in dims.items() if max_batch_size else ():
        if not sizes or isinstance(sizes[0], int):
            raise InputError(
                f"--max-batch-size {max_batch_size}: the first dimension of input {name!r} is not dynamic",
                "export the graph with a dynamic batch dimension, or leave --max-batch-size out",
            )
        ranges[sizes[0]] = Bounds(1, max_batch_size, max_batch_size)
    dynamic = {dim for sizes in dims.values() for dim in sizes if isinstance(dim, str)}
    if unknown := sorted(set(ranges) - dynamic):
        raise InputError(
            f"--shapes {unknown[0]}: the graph has no such dynamic dimension",
            f"its dynamic dimensions are {', '.join(sorted(dynamic)) or 'none'}",
        )
    if missing := sorted(dynamic - set(ranges)):
        raise InputError(
            f"the graph's dimension {missing[0]!r} has no range",
            f"--shapes {missing[0]}=1:16:128 bounds it; --max-batch-size 16 bounds the batch",
        )
    dims = {name: sizes[1:] for name, sizes in dims.items()} if max_batch_size else dims
    return _profiles(dims, ranges, max_batch_size)


def _named(name: str, dims: Sequence[int | str | None] | None) -> tuple[int | str, ...]:
    if dims is None:
        raise InputError(f"the graph's input {name!r} has no shape", "export it again with shapes")
    return tuple(f"{name}.{axis}" if dim is None else dim for axis, dim in enumerate(dims))


def parse_ranges(texts: Sequence[str]) -> dict[str, Bounds]:
    """``name=min:opt:max``, several times or joined by commas.

    Raises:
        InputError: A range is written differently, or its bounds are out of order.
    """
    ranges = {}
    for text in (part.strip() for joined in texts for part in joined.split(",")):
        match = re.fullmatch(r"([^=\s]+)=(\d+):(\d+):(\d+)", text)
        if not match:
            raise InputError(f"--shapes {text!r} is not NAME=MIN:OPT:MAX", "for example --shapes sequence=2:64:256")
        low, best, high = (int(number) for number in match.groups()[1:])
        if not 1 <= low <= best <= high:
            raise InputError(f"--shapes {text}: 1 <= min <= opt <= max must hold", "put the bounds in order")
        ranges[match[1]] = Bounds(low, best, high)
    return ranges


def _profiles(dims: Dims, ranges: Mapping[str, Bounds], max_batch_size: int) -> list[Profile]:
    """First one profile for everything, as Triton uses only the first unless it is told otherwise."""
    if not max_batch_size:
        return [_profile(dims, ranges, None)]
    batches = [Bounds(1, max_batch_size, max_batch_size)]
    if max_batch_size >= WIDE_BATCH:
        batches.append(Bounds(1, 1, 1))
    return [_profile(dims, ranges, batch) for batch in batches]


def _profile(dims: Dims, ranges: Mapping[str, Bounds], batch: Bounds | None) -> Profile:
    profile = {}
    for name, sizes in dims.items():
        bounds = [Bounds(dim, dim, dim) if isinstance(dim, int) else ranges[dim] for dim in sizes]
        bounds = [batch, *bounds] if batch else bounds
        shape = (tuple(bound.min for bound in bounds), tuple(bound.opt for bound in bounds))
        profile[name] = Shapes(*shape, tuple(bound.max for bound in bounds))
    return profile


def check(profiles: Sequence[Profile]) -> None:
    """Refuse profiles that no engine can have.

    Raises:
        InputError: A shape is empty, or bounds are out of order; the message names input, axis and numbers.
    """
    for number, profile in enumerate(profiles):
        for name, shapes in profile.items():
            if not len(shapes.min) == len(shapes.opt) == len(shapes.max):
                raise InputError(f"profile {number}, input {name!r}: its three shapes differ in rank", "give one rank")
            for axis, (low, best, high) in enumerate(zip(shapes.min, shapes.opt, shapes.max, strict=True)):
                if not 1 <= low <= best <= high:
                    raise InputError(
                        f"profile {number}, input {name!r}, axis {axis}: 1 <= min <= opt <= max must hold, "
                        f"got {low}, {best}, {high}",
                        "put the bounds in order",
                    )
