"""The recipe of a forest of decision trees, which Triton's FIL backend serves.

It is a recipe like any other, with an ``engine``: a forest's input and output have the backend's names, and what only
graphs have it may not say. Whether the file fits is for :mod:`tritonkit.trees.checks`.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from tritonkit.recipe.model import Recipe
from tritonkit.recipe.sections import Section, Target
from tritonkit.recipe.serving import Serving

FOREST_INPUT, FOREST_OUTPUT = "input__0", "output__0"  # docs/model_config.md of fil_backend: always these
MOST_ROWS = 2**20  # the largest batch that the backend's documentation names
Prediction = Literal["probabilities", "classes", "values"]
# What only graphs have, each with its reason.
_OF_GRAPHS = {
    "shapes": "a row has a fixed number of features",
    "tf32": "trees compare and add, and multiply nothing",
    "precisions": "FIL computes in fp32 alone",
    "accuracy": "there are no variants to compare",
    "calibration": "there is no int8",
    "text": "a forest takes numbers",
    "python": "put the functions into a model of their own, and an ensemble before both",
}


class ForestSource(Section):
    """A file that XGBoost (JSON or UBJSON), LightGBM (text) or treelite (a checkpoint) wrote."""

    trees: str


class Fil(Section):
    """Parameters of the FIL backend that change its speed and not its answers. What is not given is the backend's own.

    Attributes:
        layout: How nodes lie in a GPU's memory: ``depth_first`` for deep trees, ``breadth_first`` for shallow ones,
            ``layered`` interleaves trees. From image 25.09 on.
        chunk_size: Rows that a GPU takes at a time: a power of 2 up to 32.
        transfer_threshold: Batches of at most so many rows stay on the CPU.
    """

    layout: Literal["depth_first", "breadth_first", "layered"] | None = None
    chunk_size: Literal[1, 2, 4, 8, 16, 32] | None = None
    transfer_threshold: Annotated[int, Field(ge=0)] | None = None


class ForestRecipe(Recipe):
    """One forest of decision trees: where it comes from, and how it is to be served.

    Attributes:
        engine: ``fil``.
        source: ``{trees: path}``, relative to the recipe, or ``module:function`` returning a fitted model of XGBoost,
            LightGBM or scikit-learn.
        prediction: ``probabilities``, ``classes`` (their numbers) or ``values``; probabilities of a classifier and
            values of any other forest if not given.
        threshold: Of a binary classifier: the probability above which the class is 1. 0.5 if not given.
        convert: Serve a treelite checkpoint of the file, which older images read too (docs/guides/trees.md).
        fil: See :class:`Fil`.
    """

    engine: Literal["fil"]
    source: str | ForestSource  # type: ignore[assignment]
    max_batch_size: Annotated[int, Field(ge=1, le=MOST_ROWS)] = 8192
    tolerance: Annotated[float, Field(gt=0, lt=1)] = 1e-5
    prediction: Prediction | None = None
    threshold: Annotated[float, Field(ge=0, le=1)] | None = None
    convert: bool = False
    fil: Fil = Fil()

    @model_validator(mode="before")
    @classmethod
    def _nothing_of_graphs(cls, data: Any) -> Any:
        section = next((key for key in _OF_GRAPHS if isinstance(data, dict) and key in data), None)
        if section:
            raise ValueError(f"a forest has no {section}: {_OF_GRAPHS[section]}; remove it")
        return data

    @model_validator(mode="after")
    def _tensors_are_the_backends(self) -> ForestRecipe:
        for kind, tensors, name in (("inputs", self.inputs, FOREST_INPUT), ("outputs", self.outputs, FOREST_OUTPUT)):
            spec = tensors.get(name)
            if spec is None or len(tensors) > 1:
                raise ValueError(f"{kind} is {', '.join(tensors)}: a forest has one, {name}")
            if spec.dtype != "fp32" or len(spec.dims) != 1 or not isinstance(spec.dims[0], int):
                raise ValueError(f"{kind}.{name} is not one row of numbers: {{dtype: fp32, dims: [N]}}")
        if self.threshold is not None and self.prediction not in {None, "classes"}:
            raise ValueError(f"threshold decides between classes, and prediction is {self.prediction}")
        return self

    def serving(self, target: Target) -> Serving:
        """How it is served: no delay, as a lone row takes less than one; two instances, as on a CPU, on a GPU too."""
        serving = super().serving(target)
        delay = self.batching.on(target).max_queue_delay_us
        instances = self.batching.on(target).instances
        return replace(serving, max_queue_delay_us=delay or 0, instances=instances or 2, batch_sizes=())

    @property
    def features(self) -> int:
        """Numbers in a row."""
        return int(self.inputs[FOREST_INPUT].dims[0])

    @property
    def columns(self) -> int:
        """Numbers in an answer."""
        return int(self.outputs[FOREST_OUTPUT].dims[0])
