"""Proves that a row's answer does not change by its padding, nor by the rows beside it, before requests are padded.

A GPU runs texts of different lengths in one batch by filling the short ones up (``pad`` in a recipe's ``shapes``). That
is right only for a model that does not look at what fills them, as most do by a mask.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from tritonkit import samples
from tritonkit.errors import CheckFailed
from tritonkit.graph import Session, shapes_of
from tritonkit.parity import Measurement, distance
from tritonkit.recipe import Recipe

ROWS = 6  # in a batch, each of another length
CHECK = "padded"


def check(recipe: Recipe, session: Session, real: Sequence[samples.Sample]) -> list[Measurement]:
    """Run rows of different lengths alone and padded in one batch, at the closest prepared size and at the largest.

    Args:
        recipe: Says what is padded, with what, up to which sizes, and the tolerance.
        session: The graph.
        real: Real samples.

    Raises:
        CheckFailed: An answer changes by more than the recipe's tolerance.
    """
    padded = {dimension: bounds for dimension, bounds in recipe.shapes.items() if bounds.pad}
    if not padded:
        return []
    rows = [
        samples.resized(real[index % len(real)], recipe, _lengths(recipe, index / (ROWS - 1))) for index in range(ROWS)
    ]
    alone = [session.run({name: array[None] for name, array in row.items()}) for row in rows]
    measured = []
    for count, widest in ((ROWS // 2, False), (ROWS, False), (ROWS, True)):
        chosen = rows[:count]
        sizes = {
            dimension: bounds.max
            if widest
            else next(
                size for size in bounds.padded_sizes if size >= max(_size(recipe, row, dimension) for row in chosen)
            )
            for dimension, bounds in padded.items()
        }
        measured += _compare(recipe, session, chosen, alone, sizes)
    worst = max(measured, key=lambda measurement: measurement.relative)
    if not worst.relative <= recipe.tolerance:
        raise CheckFailed(
            f"{recipe.name}: output {worst.output!r} changes when a row is padded: relative error {worst.relative:.2e} "
            f"(max abs {worst.max_abs:.2e}) for {worst.inputs}; allowed is {recipe.tolerance:.0e}",
            "the model looks at what fills a row up: give it a mask that says what does, or remove `pad` from `shapes`",
        )
    return measured


def padded_batch(recipe: Recipe, rows: Sequence[samples.Sample], sizes: Mapping[str, int]) -> samples.Sample:
    """Rows of different lengths as one batch, filled up as the recipe says.

    Args:
        recipe: Whose inputs these are.
        rows: Samples without batch dimension.
        sizes: What each padded dimension is filled up to.
    """
    batch = {}
    for name, spec in recipe.inputs.items():
        dims = [sizes.get(str(dim), size) for dim, size in zip(spec.dims, rows[0][name].shape, strict=True)]
        fill = next((recipe.shapes[str(dim)].pad[name] for dim in spec.dims if dim in sizes), 0)
        array = np.full((len(rows), *dims), fill, dtype=spec.type.numpy)
        for place, row in zip(array, rows, strict=True):
            place[tuple(map(slice, row[name].shape))] = row[name]
        batch[name] = array
    return batch


def _compare(
    recipe: Recipe,
    session: Session,
    rows: Sequence[samples.Sample],
    alone: Sequence[Mapping[str, Any]],
    sizes: Mapping[str, int],
) -> list[Measurement]:
    """Each row's answer in the padded batch against its answer alone; of ``alone`` as many as there are rows."""
    batch = padded_batch(recipe, rows, sizes)
    together = session.run(batch)
    measured = []
    for index in range(len(rows)):
        for name, expected in alone[index].items():
            answer: Any = together[name][index : index + 1][tuple(map(slice, (1, *expected.shape[1:])))]
            measured.append(Measurement(CHECK, name, shapes_of(batch), *distance(expected, answer)))
    return measured


def _lengths(recipe: Recipe, share: float) -> dict[str, int]:
    """Sizes of every named dimension; of the padded ones, this share of the way from the smallest to the largest."""
    opt = recipe.sizes("opt")
    return {
        name: round(bounds.min + share * (bounds.max - bounds.min)) if bounds.pad else opt[name]
        for name, bounds in recipe.shapes.items()
    }


def _size(recipe: Recipe, row: samples.Sample, dimension: str) -> int:
    name, spec = next((name, spec) for name, spec in recipe.inputs.items() if dimension in spec.dims)
    return int(row[name].shape[spec.dims.index(dimension)])
