"""Proves that a graph computes what the module it came from computes, and that a batch does not mix.

Questions on real samples, at several batch sizes and dynamic sizes: does the graph equal the reference? Is a row of
a batch the same whatever the other rows are, and the same as alone? Dynamic batching relies on the last two.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tritonkit import samples, sources
from tritonkit.errors import CheckFailed
from tritonkit.graph import Session, shapes_of
from tritonkit.recipe import Recipe

Array = NDArray[Any]
# Kernels for one row and for many round differently, and ill-conditioned models show it (magika's published graph:
# 4e-3 on noise, with rows that are bit for bit independent of each other). A real dependence is far above this.
ALONE_FACTOR = 100

CHECKS = ("module", "batch", "alone")  # in the order in which a failure explains the later ones

Run = Callable[[Mapping[str, Array]], Mapping[str, Array]]


@dataclass(frozen=True)
class Measurement:
    """How far two computations of one output are apart.

    Attributes:
        check: ``module`` (graph against module), ``batch`` (first row of a batch, with other rows beside it) or
            ``alone`` (rows of a batch against each row by itself, accepted up to ``ALONE_FACTOR`` x tolerance);
            :mod:`tritonkit.padding` adds ``padded``.
        output: The output's name.
        inputs: Shapes of what was run.
        max_abs: Largest absolute difference; for integers, strings and bools the count of differing values.
        relative: ``max_abs`` over the reference's largest magnitude.
    """

    check: str
    output: str
    inputs: str
    max_abs: float
    relative: float


def check(
    recipe: Recipe, session: Session, dataset: Sequence[samples.Sample], reference: Run | None
) -> list[Measurement]:
    """Measure, and refuse what is over ``recipe.tolerance``.

    Args:
        recipe: Says outputs, ranges and tolerance.
        session: The graph.
        dataset: Real samples.
        reference: The module; None where there is only the graph, which leaves the batch checks.

    Raises:
        CheckFailed: A measurement is over the tolerance, or an output has another shape than the recipe says.
    """
    measured: list[Measurement] = []
    for inputs in _cases(recipe, dataset):
        outputs = session.run(inputs)
        _check_shapes(recipe, inputs, outputs)
        if reference is not None:
            measured += _compare("module", recipe, inputs, reference(inputs), outputs)
        if recipe.max_batch_size and len(next(iter(inputs.values()))) > 1:
            measured += _check_rows(recipe, session, inputs, outputs)
    for measurement in sorted(measured, key=lambda m: (CHECKS.index(m.check), -m.relative)):
        allowed = recipe.tolerance * (ALONE_FACTOR if measurement.check == "alone" else 1)
        if not measurement.relative <= allowed:
            raise CheckFailed(_refusal(recipe, measurement, allowed), _advice(recipe, measurement))
    return measured


def _check_rows(
    recipe: Recipe, session: Session, inputs: Mapping[str, Array], outputs: Mapping[str, Array]
) -> list[Measurement]:
    size = len(next(iter(inputs.values())))
    rows = [session.run({name: array[i : i + 1] for name, array in inputs.items()}) for i in range(size)]
    alone = {name: np.concatenate([row[name] for row in rows]) for name in recipe.outputs}
    # The same first row among other rows: its own copies.
    other = session.run({name: np.repeat(array[:1], size, axis=0) for name, array in inputs.items()})
    first, first_among_others = ({name: run[name][:1] for name in recipe.outputs} for run in (outputs, other))
    return [
        *_compare("batch", recipe, inputs, first_among_others, first),
        *_compare("alone", recipe, inputs, alone, outputs),
    ]


def _cases(recipe: Recipe, dataset: Sequence[samples.Sample]) -> Iterator[samples.Sample]:
    """Batches 1, 2 and 3 at the optimal sizes, then the ends of every range."""
    grid = [(1, "opt"), (2, "opt"), (3, "opt")] + ([(2, "min"), (2, "max")] if recipe.shapes else [])
    for size, which in grid:
        sizes = recipe.sizes(which)  # type: ignore[arg-type]
        fitted = [samples.resized(sample, recipe, sizes) for sample in dataset]
        if recipe.max_batch_size == 0:
            if size == 1 or which != "opt":
                yield fitted[0]
        else:
            yield samples.batch(fitted, min(size, recipe.max_batch_size))


def _check_shapes(recipe: Recipe, inputs: Mapping[str, Array], outputs: Mapping[str, Array]) -> None:
    sizes = {
        dim: size
        for name, spec in recipe.inputs.items()
        for dim, size in zip(spec.dims, inputs[name].shape[int(recipe.max_batch_size > 0) :], strict=True)
        if isinstance(dim, str)
    }
    for name, spec in recipe.outputs.items():
        shape = outputs[name].shape
        rest = shape[1:] if recipe.max_batch_size else shape
        batch = len(next(iter(inputs.values()))) if recipe.max_batch_size else 0
        fits = len(rest) == len(spec.dims) and all(
            size == (sizes.get(dim, size) if isinstance(dim, str) else dim)
            for dim, size in zip(spec.dims, rest, strict=True)
        )
        if not fits or (recipe.max_batch_size and shape[0] != batch):
            raise CheckFailed(
                f"{recipe.path}: output {name!r} has shape {list(shape)} for {shapes_of(inputs)}; the recipe says "
                f"{list(spec.dims)}" + (f" after the batch dimension {batch}" if recipe.max_batch_size else ""),
                "correct the output's dims in the recipe",
            )


def _compare(
    kind: str,
    recipe: Recipe,
    inputs: Mapping[str, Array],
    expected: Mapping[str, Array],
    got: Mapping[str, Array],
) -> list[Measurement]:
    return [Measurement(kind, name, shapes_of(inputs), *distance(expected[name], got[name])) for name in recipe.outputs]


def distance(expected: Array, got: Array) -> tuple[float, float]:
    """Largest absolute difference, and that over the largest magnitude expected.

    Arrays of different shapes, and values that are finite on one side only, are infinitely far apart.
    """
    if expected.shape != got.shape:
        return float("inf"), float("inf")
    if expected.dtype.kind != "f":
        differing = float(np.count_nonzero(expected != got))
        return differing, differing
    a, b = expected.astype(np.float64), got.astype(np.float64)
    same = (a == b) | (np.isnan(a) & np.isnan(b))  # infinities are equal to themselves only
    with np.errstate(invalid="ignore"):
        apart = np.where(same, 0.0, np.abs(a - b))
    max_abs = float(np.nan_to_num(apart, nan=np.inf, posinf=np.inf).max(initial=0.0))
    scale = float(np.abs(a[np.isfinite(a)]).max(initial=0.0))
    if max_abs == 0.0:
        return 0.0, 0.0
    return max_abs, max_abs / scale if scale else float("inf")


def _refusal(recipe: Recipe, worst: Measurement, allowed: float) -> str:
    than = {
        "module": "the module it came from",
        "batch": "the same row gives beside other rows",
        "alone": "the same rows give one at a time",
    }[worst.check]
    return (
        f"{recipe.name}: output {worst.output!r} differs from {than}: relative error {worst.relative:.2e} "
        f"(max abs {worst.max_abs:.2e}) for {worst.inputs}; allowed is {allowed:.0e}"
    )


def _advice(recipe: Recipe, worst: Measurement) -> str:
    if worst.check == "module":
        return "look for randomness or data-dependent branches in forward, or raise `tolerance` if this is close enough"
    return (
        "the model mixes the rows of a batch: correct it, or serve it without batches, by a recipe that this writes:  "
        + sources.init_command(recipe, batched=False)
    )
