"""Sample inputs of a recipe: real ones where it names them, valid ones where it does not.

A sample is one dict of arrays without the batch dimension. Samples feed the parity check, warm-up and load
tests, so that each of them sees what production sees.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from itertools import islice
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tritonkit import sources
from tritonkit.errors import SourceError, TritonkitError
from tritonkit.recipe import Recipe, TensorSpec

Array = NDArray[Any]
Sample = dict[str, Array]


def load(recipe: Recipe, count: int) -> list[Sample]:
    """The first ``count`` samples, each checked against the recipe's inputs.

    Raises:
        SourceError: The function fails, yields nothing, or yields something that the recipe's inputs
            do not allow; the message names the sample and the input.
    """
    if recipe.samples is None:
        return [_synthetic(recipe, seed) for seed in range(count)]
    key = f"{recipe.path}: samples"
    function = sources.resolve(recipe.samples, recipe.directory, key)
    try:
        samples: list[Mapping[str, object]] = list(islice(_iterate(function()), count))
    except TritonkitError:
        raise
    except (Exception, SystemExit) as error:
        raise SourceError(
            f"{key} failed: {type(error).__name__}: {error}{sources.place(error)}",
            "run the function by itself to see its traceback",
        ) from error
    if not samples:
        raise SourceError(f"{key}: {recipe.samples} yielded no sample", "yield at least one dict of arrays")
    return [_checked(recipe, index, sample) for index, sample in enumerate(samples)]


def resized(sample: Sample, recipe: Recipe, sizes: Mapping[str, int]) -> Sample:
    """``sample`` with its dynamic dimensions cut, or continued from their start, to ``sizes``.

    The values stay ones that the real sample has, so token ids stay valid token ids.
    """
    result = {}
    for name, spec in recipe.inputs.items():
        array = sample[name]
        for axis, dim in enumerate(spec.dims):
            if isinstance(dim, str):
                array = np.take(array, np.arange(sizes[dim]), axis=axis, mode="wrap")
        result[name] = array
    return result


def batch(samples: Sequence[Sample], size: int) -> Sample:
    """``size`` samples of equal shapes as one batch of arrays, starting again when they run out."""
    chosen = [samples[i % len(samples)] for i in range(size)]
    return {name: np.stack([sample[name] for sample in chosen]) for name in chosen[0]}


def as_requested(recipe: Recipe, inputs: Mapping[str, Array]) -> Sample:
    """Inputs, with their batch dimension if there is one, in the shapes that a request has.

    Triton allows no empty shape: a number by itself (``dims: []``) goes over the wire as ``[1]``.
    """
    return {name: array if recipe.inputs[name].dims else array[..., None] for name, array in inputs.items()}


def _iterate(result: object) -> Iterable[Mapping[str, object]]:
    if not isinstance(result, Iterable):
        raise SourceError("samples: the function must return or yield dicts of arrays", "use `yield`")
    return result


def _checked(recipe: Recipe, index: int, sample: Mapping[str, object]) -> Sample:
    where = f"{recipe.path}: sample {index}"
    if not isinstance(sample, Mapping) or set(sample) != set(recipe.inputs):
        given = sorted(sample) if isinstance(sample, Mapping) else type(sample).__name__
        raise SourceError(f"{where} has {given}, the recipe's inputs are {sorted(recipe.inputs)}", "name them alike")
    return {
        name: _checked_array(recipe, f"{where}, input {name!r}", spec, sample[name])
        for name, spec in recipe.inputs.items()
    }


def _checked_array(recipe: Recipe, where: str, spec: TensorSpec, value: object) -> Array:
    array = np.asarray(value)
    if spec.dtype == "string":
        array = array.astype(np.object_)
    if array.dtype != spec.type.numpy:
        raise SourceError(f"{where}: is {array.dtype}, the recipe says {spec.dtype}", "cast it in the samples function")
    fits = len(array.shape) == len(spec.dims) and all(
        size == dim if isinstance(dim, int) else recipe.shapes[dim].min <= size <= recipe.shapes[dim].max
        for size, dim in zip(array.shape, spec.dims, strict=True)
    )
    if not fits:
        raise SourceError(
            f"{where}: has shape {list(array.shape)}, the recipe says {list(spec.dims)}"
            + "".join(f", {name} in [{r.min}, {r.max}]" for name, r in recipe.shapes.items()),
            "a sample has no batch dimension; correct `dims` or `shapes`, or the sample",
        )
    return array


def _synthetic(recipe: Recipe, seed: int) -> Sample:
    """Noise for floats; 0 and 1 for integers, which are valid as ids, masks and lengths alike."""
    random = np.random.default_rng(seed)
    sizes = recipe.sizes("opt")
    sample: Sample = {}
    for name, spec in recipe.inputs.items():
        shape = spec.shape(sizes)
        if spec.dtype == "string":
            sample[name] = np.full(shape, b"text", dtype=np.object_)
        elif spec.type.numpy.kind == "f":
            sample[name] = np.asarray(random.standard_normal(shape), dtype=spec.type.numpy)
        else:
            values = random.integers(0, 2, shape)
            if shape:
                values[..., :1] = 1  # a mask must leave something
            sample[name] = np.asarray(values, dtype=spec.type.numpy)
    return sample
