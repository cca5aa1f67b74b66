"""What is sent: real samples of recipes, batched and sized as a stated distribution says, made before the test.

Numbers are drawn from a distribution written as ``4`` (always), ``1-8`` (each alike), ``1,2,4`` (each alike) or
``1:0.7,8:0.3`` (with weights).
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from tritonkit import samples
from tritonkit.errors import InputError
from tritonkit.recipe import Recipe
from tritonkit.recipe import load as load_recipe
from tritonkit.samples import Sample
from tritonkit_load.load.plan import AS_SAMPLED, Plan

SAMPLES = 128  # of each recipe; photographs take time to decode
DRAWN = 1024  # different requests, which then come again
MOST_VALUES = 1_000_000  # of a distribution; more is a slip of the pen
MOST_BYTES = 256_000_000  # of one process, for models whose samples have many sizes


@dataclass(frozen=True)
class Request:
    """One request: a model and its inputs, with their batch dimension where the model has one.

    ``model`` is a name, or ``NAME/VERSION``.
    """

    model: str
    inputs: Sample

    @property
    def target(self) -> tuple[str, str]:
        """The model's name, and the version; empty where the server chooses it."""
        return split_version(self.model)


@dataclass(frozen=True)
class Distribution:
    """Numbers and their probabilities."""

    text: str
    values: tuple[int, ...]
    weights: tuple[float, ...]

    def draw(self, random: np.random.Generator) -> int:
        """One of the values, by its weight."""
        return self.values[0] if len(self.values) == 1 else int(random.choice(self.values, p=self.weights))


def distribution(text: str, what: str) -> Distribution:
    """Read a distribution of whole numbers from 1.

    Raises:
        InputError: The text is no distribution; the message begins with ``what``.
    """
    text = text.strip()
    if (match := re.fullmatch(r"(\d+)-(\d+)", text)) and int(match[2]) - int(match[1]) < MOST_VALUES:
        values = list(range(int(match[1]), int(match[2]) + 1))
        weights = [1.0] * len(values)
    elif re.fullmatch(r"\d+(:\d*\.?\d+)?(,\d+(:\d*\.?\d+)?)*", text):
        pairs = [part.partition(":") for part in text.split(",")]
        values = [int(value) for value, _, _ in pairs]
        weights = [float(weight or 1) for _, _, weight in pairs]
    else:
        values, weights = [], []
    if not values or min(values) < 1 or not sum(weights) > 0:
        raise InputError(f"{what} {text!r} are no distribution", "4, 1-8, 1,2,4 or 1:0.7,8:0.3")
    return Distribution(text, tuple(values), tuple(weight / sum(weights) for weight in weights))


class Library:
    """Recipes and their samples, read once, for any number of plans."""

    def __init__(self, paths: Sequence[Path]) -> None:
        """Read them.

        Raises:
            TritonkitError: A recipe or its samples cannot be used.
        """
        recipes = [load_recipe(path) for path in paths]
        self.recipes = {recipe.name: recipe for recipe in recipes}
        if len(self.recipes) < len(recipes):
            raise InputError("two recipes have the same name", "give each recipe once")
        self.samples = {recipe.name: samples.load(recipe, SAMPLES) for recipe in recipes}

    def weights(self, plan: Plan) -> dict[str, float]:
        """Each model's share as the plan has it; all alike where it says nothing.

        Raises:
            InputError: The plan names a model that no recipe has.
        """
        for name, weight in plan.models.items():
            if split_version(name)[0] not in self.recipes or not weight > 0:
                raise InputError(
                    f"{name!r} with weight {weight:g} cannot be part of the mix",
                    f"weights above 0 of {', '.join(self.recipes)}",
                )
        return dict(plan.models) or dict.fromkeys(self.recipes, 1.0)

    def requests(self, plan: Plan) -> tuple[Request, ...]:
        """The requests of a plan, in the order in which they are sent, again and again.

        Raises:
            InputError: A model does not take such batches or lengths.
        """
        weights = self.weights(plan)
        batches = distribution(plan.batch_sizes, "batch sizes")
        lengths = None if plan.lengths == AS_SAMPLED else distribution(plan.lengths, "lengths")
        bases = {name: split_version(name)[0] for name in weights}
        for of in bases.values():
            check(self.recipes[of], plan)
        makers = {name: _Maker(self.recipes[of], self.samples[of], batches, lengths) for name, of in bases.items()}
        random = np.random.default_rng(plan.seed)
        share = np.array(list(weights.values())) / sum(weights.values())
        requests: list[Request] = []
        size = 0
        for name in random.choice(list(weights), size=DRAWN, p=share):
            inputs, new = makers[name].make(random)
            requests.append(Request(str(name), inputs))
            size += new
            if size > MOST_BYTES:
                break
        return tuple(requests)


class _Maker:
    """Makes requests of one model."""

    def __init__(
        self, recipe: Recipe, originals: Sequence[Sample], batches: Distribution, lengths: Distribution | None
    ) -> None:
        self.recipe = recipe
        self.samples = originals
        self.batches = batches
        self.lengths = lengths
        # Samples of one shape lie in one array, twice over as far as a batch may reach: a request is then a view of it.
        self.pool = (
            None
            if recipe.shapes
            else samples.as_requested(recipe, samples.batch(originals, len(originals) + max(batches.values)))
        )

    def make(self, random: np.random.Generator) -> tuple[Sample, int]:
        """One request's inputs, and how many bytes of memory they take beyond those of others."""
        first = int(random.integers(len(self.samples)))
        size = self.batches.draw(random)
        if not self.recipe.max_batch_size:
            rows = self.samples[first : first + 1]
        elif self.pool is not None:
            return {name: array[first : first + size] for name, array in self.pool.items()}, 0
        else:
            rows = [self.samples[(first + index) % len(self.samples)] for index in range(size)]
        if self.recipe.shapes:
            sizes = self._sizes(rows[0], random)
            rows = [samples.resized(row, self.recipe, sizes) for row in rows]
        inputs = samples.batch(rows, size) if self.recipe.max_batch_size else rows[0]
        inputs = samples.as_requested(self.recipe, inputs)
        return inputs, sum(array.nbytes for array in inputs.values())

    def _sizes(self, sample: Sample, random: np.random.Generator) -> dict[str, int]:
        """The dynamic dimensions of a request: as drawn, or those of its first sample."""
        if self.lengths is not None:
            return dict.fromkeys(self.recipe.shapes, self.lengths.draw(random))
        return {
            dim: size
            for name, spec in self.recipe.inputs.items()
            for dim, size in zip(spec.dims, sample[name].shape, strict=True)
            if isinstance(dim, str)
        }


def check(recipe: Recipe, plan: Plan) -> None:
    """Refuse batches or lengths that a model does not take, before anything is built for them.

    Raises:
        InputError: The model does not take them; the message says what it takes.
    """
    batches = distribution(plan.batch_sizes, "batch sizes")
    most = max(recipe.largest_batch, 1)
    if max(batches.values) > most:
        raise InputError(
            f"batch sizes {batches.text!r} are too large for {recipe.name}",
            f"its max_batch_size is {recipe.largest_batch}; at most {most} samples a request",
        )
    if plan.lengths == AS_SAMPLED:
        return
    lengths = distribution(plan.lengths, "lengths")
    if len(recipe.shapes) != 1:
        raise InputError(
            f"lengths {lengths.text!r} are given, and {recipe.name} has {len(recipe.shapes)} dynamic dimensions",
            f"leave lengths {AS_SAMPLED}",
        )
    ((dim, bounds),) = recipe.shapes.items()
    if min(lengths.values) < bounds.min or max(lengths.values) > bounds.max:
        raise InputError(
            f"lengths {lengths.text!r} are outside of {recipe.name}'s range of {dim!r}",
            f"between {bounds.min} and {bounds.max}",
        )


def split_version(model: str) -> tuple[str, str]:
    """``NAME/VERSION`` as name and version; the version is empty where none is named. A file of a recipe is a name."""
    name, _, version = model.rpartition("/")
    return (name, version) if name and version.isdecimal() else (model, "")


def mix(text: str) -> dict[str, float]:
    """Weights of models, or of versions of one, written ``a:3,b:1`` and ``a/1:9,a/2:1``; empty for empty.

    Raises:
        InputError: The text is not a list of names with weights.
    """
    weights: dict[str, float] = {}
    for part in filter(None, text.split(",")):
        name, _, weight = part.strip().partition(":")
        try:
            weights[name] = float(weight or 1)
        except ValueError:
            weights[name] = math.nan
        if not math.isfinite(weights[name]):
            raise InputError(f"the mix {text!r} is no list of models and weights", "model_a:3,model_b:1")
    return weights
