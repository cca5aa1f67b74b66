"""How far a variant's outputs are from fp32's, as the numbers that a recipe may bound.

Each metric compares both outputs for the same samples. A model with several outputs gets the worst of their values.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tritonkit import sources
from tritonkit.dependencies import sha256
from tritonkit.errors import RecipeError, SourceError, TritonkitError
from tritonkit.recipe import Recipe

Array = NDArray[Any]
Outputs = Sequence[Mapping[str, Array]]  # one mapping a sample, without batch dimension
CONFIDENT = 0.5  # softmax probability from which a top-1 label is held to
NEIGHBOURS = 10
# Without bounds of the recipe's own: directions of outputs, and labels where outputs are whole numbers.
DEFAULTS = {"cosine": 0.99}
_LEAST_CLASSES = {"top1_agreement": 2, "confident_top1_agreement": 2, "top5_containment": 6}
_TINY = 1e-30


def cosine(reference: Array, got: Array) -> float:
    """Mean cosine similarity, sample by sample."""
    return float(_cosines(reference, got).mean())


def min_cosine(reference: Array, got: Array) -> float:
    """The lowest cosine similarity of any sample."""
    return float(_cosines(reference, got).min())


def max_error(reference: Array, got: Array) -> float:
    """Largest absolute difference, over the reference's largest magnitude."""
    return float(np.abs(reference - got).max() / max(float(np.abs(reference).max()), _TINY))


def mean_error(reference: Array, got: Array) -> float:
    """Mean absolute difference, over the reference's mean magnitude."""
    return float(np.abs(reference - got).mean() / max(float(np.abs(reference).mean()), _TINY))


def sqnr_db(reference: Array, got: Array) -> float:
    """Signal to quantization noise: 10 log10 of the reference's energy over the difference's, in dB."""
    noise = float(np.square(reference - got, dtype=np.float64).sum())
    signal = float(np.square(reference, dtype=np.float64).sum())
    return float(10 * np.log10(max(signal, _TINY) / max(noise, _TINY)))


def top1_agreement(reference: Array, got: Array) -> float:
    """Share of samples with the same largest class."""
    return float((reference.argmax(1) == got.argmax(1)).mean())


def confident_top1_agreement(reference: Array, got: Array) -> float:
    """As :func:`top1_agreement`, over samples whose largest class has a softmax probability above ``CONFIDENT``."""
    shifted = np.exp(reference - reference.max(1, keepdims=True))
    confident = (shifted / shifted.sum(1, keepdims=True)).max(1) > CONFIDENT
    return float((reference.argmax(1) == got.argmax(1))[confident].mean()) if confident.any() else np.nan


def top5_containment(reference: Array, got: Array) -> float:
    """Share of samples whose largest class in fp32 is among the variant's five largest."""
    five = np.argsort(-got, axis=1)[:, :5]
    return float((five == reference.argmax(1)[:, None]).any(1).mean())


def retrieval_overlap(reference: Array, got: Array) -> float:
    """Share of each sample's ``NEIGHBOURS`` nearest others (by cosine) that are the same with both."""
    count = min(NEIGHBOURS, len(reference) - 1)
    if count < 1:
        return np.nan
    nearest = [_nearest(vectors, count) for vectors in (reference, got)]
    return float(np.mean([len(set(a) & set(b)) / count for a, b in zip(*nearest, strict=True)]))


Metric = Callable[[Array, Array], float]
BUILT_IN: dict[str, Metric] = {
    metric.__name__: metric
    for metric in (cosine, min_cosine, max_error, mean_error, sqnr_db, top1_agreement, confident_top1_agreement,
                   top5_containment, retrieval_overlap)
}  # fmt: skip
ERRORS = {"max_error", "mean_error"}  # the less the better; a recipe bounds them from above


def bounds(recipe: Recipe) -> dict[str, float]:
    """What the recipe demands, or the default.

    Raises:
        RecipeError: A metric is not known and is not a ``module:function``.
    """
    for name in recipe.accuracy:
        if name not in BUILT_IN and ":" not in name:
            raise RecipeError(
                f"{recipe.path}: accuracy: there is no metric {name!r}",
                f"known are {', '.join(BUILT_IN)}; or name a function of yours, module:function",
            )
    return dict(recipe.accuracy or DEFAULTS)


def code(recipe: Recipe) -> dict[str, str]:
    """The hashes of the files that the recipe's own metrics are in: their results follow from them.

    Raises:
        SourceError: A metric's module does not import.
    """
    hashes = {}
    for name in recipe.accuracy:
        if ":" in name:
            sources.resolve(name, recipe.directory, f"{recipe.path}: accuracy")
            hashes[name] = sha256(sources.file_of(name, recipe.directory))
    return hashes


def measure(recipe: Recipe, reference: Outputs, got: Outputs) -> dict[str, float]:
    """Every metric that the recipe bounds, and the signal to noise ratio.

    Raises:
        SourceError: A metric of the recipe's own fails, or returns something other than a number.
    """
    names = [*bounds(recipe), *({"sqnr_db"} - bounds(recipe).keys())]
    return {name: _compute(recipe, name, reference, got) for name in names}


def failures(recipe: Recipe, measured: Mapping[str, float]) -> list[str]:
    """Which bounds do not hold, in words; what could not be computed does not hold either."""
    violations = []
    for name, bound in bounds(recipe).items():
        value = measured[name]
        if name in ERRORS and not value <= bound:
            violations.append(f"{name} {_shown(value, bound)} is above {bound:g}")
        elif name not in ERRORS and not value >= bound:
            violations.append(f"{name} {_shown(value, bound)} is below {bound:g}")
    return violations


def _shown(value: float, bound: float) -> str:
    """A value with as many digits as tell it from its bound."""
    return f"{value:.4g}" if f"{value:.4g}" != f"{bound:.4g}" else f"{value:.9g}"


def sqnr(reference: Outputs, got: Outputs) -> float:
    """The worst output's :func:`sqnr_db`; what searches compare by, as every error moves it a little."""
    return min(_apply(sqnr_db, *_joined(name, reference, got)) for name in _numbers(reference))


def _compute(recipe: Recipe, name: str, reference: Outputs, got: Outputs) -> float:
    if name in BUILT_IN:
        metric = BUILT_IN[name]
        pairs = [_joined(output, reference, got) for output in _numbers(reference)]
        values = [_apply(metric, *pair) for pair in pairs if pair[0].shape[1] >= _LEAST_CLASSES.get(name, 1)]
        if not values:
            raise RecipeError(
                f"{recipe.path}: accuracy: {name} is for classes, and no output has {_LEAST_CLASSES[name]} values",
                "bound `cosine`, `max_error` or another metric of numbers",
            )
        return max(values) if name in ERRORS else min(values)
    key = f"{recipe.path}: accuracy"
    function = sources.resolve(name, recipe.directory, key)
    try:
        # Copies: a metric that works in place must not change the truth.
        return float(function(copy.deepcopy(list(reference)), copy.deepcopy(list(got))))
    except TritonkitError:
        raise
    except (Exception, SystemExit) as error:
        raise SourceError(
            f"{key}: {name} failed: {type(error).__name__}: {error}",
            "it gets two lists of dicts of arrays (fp32's outputs and the variant's), and returns a number",
        ) from error


def _numbers(reference: Outputs) -> list[str]:
    """The outputs that can be compared as numbers: all but strings."""
    names = [name for name, array in reference[0].items() if array.dtype.kind != "O"]
    if not names:
        raise RecipeError(
            "every output is a string, which no built-in metric compares",
            "bound a metric of your own in the recipe's `accuracy`: module:function",
        )
    return names


def _apply(metric: Metric, reference: Array, got: Array) -> float:
    """A metric on one output; infinities on both sides count as equal, infinities on one side as the worst value."""
    if not np.array_equal(np.isfinite(reference), np.isfinite(got)):
        return np.inf if metric.__name__ in ERRORS else -np.inf
    both = np.isfinite(reference)
    return metric(np.where(both, reference, 0), np.where(both, got, 0))


def _joined(name: str, reference: Outputs, got: Outputs) -> tuple[Array, Array]:
    """One output of all samples as two matrices of equal shape, a sample a row; shorter rows end in zeros."""
    rows = [[np.asarray(sample[name], np.float64).reshape(-1) for sample in side] for side in (reference, got)]
    longest = max(1, *(len(row) for side in rows for row in side))
    padded = [np.stack([np.pad(row, (0, longest - len(row))) for row in side]) for side in rows]
    return padded[0], padded[1]


def _cosines(reference: Array, got: Array) -> Array:
    norms = np.linalg.norm(reference, axis=1) * np.linalg.norm(got, axis=1)
    same = (reference == got).all(axis=1)
    return np.where(same, 1.0, (reference * got).sum(1) / np.maximum(norms, _TINY))


def _nearest(vectors: Array, count: int) -> Array:
    unit = vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), _TINY)
    similarity = unit @ unit.T
    np.fill_diagonal(similarity, -np.inf)
    return np.argsort(-similarity, axis=1, kind="stable")[:, :count]
