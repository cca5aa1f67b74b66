"""One model's recipe, and the rules that hold between its sections."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
from pydantic import Field, field_validator, model_validator

from tritonkit import gpus as catalogue
from tritonkit.errors import InputError
from tritonkit.recipe.sections import (
    MOST_BATCH,
    MOST_VERSION,
    Batching,
    Calibration,
    HfSource,
    Name,
    OnnxSource,
    OutputSpec,
    Precision,
    Python,
    Range,
    Section,
    Slo,
    Target,
    TensorSpec,
    Text,
)
from tritonkit.recipe.serving import Serving, resolve


class Recipe(Section):
    """One model: where it comes from, what goes in and out, how it is to be served.

    Attributes:
        name: The model's name in Triton and its directory's name in the repository.
        source: ``module:function`` or ``file.py:function`` returning a ``torch.nn.Module``,
            ``{onnx: path}``, or ``{hf: directory}``. Paths are relative to the recipe.
        version: The number of the version that the recipe is built into, and served as, where others of the model stay
            beside it (docs/guides/versions.md). 1 if not given, and Triton then serves the highest that there is.
        traffic: Version to share, for every version that is to be served. Only ``version`` if not given. Callers
            choose by it (:class:`tritonkit_client.Traffic`); one that names no version gets the highest.
        inputs: In the order of the module's ``forward``, or named like its parameters.
        outputs: In the order in which the module returns them, or named like its keys.
        shapes: Bounds of the inputs' named dimensions. One that only outputs have is what the model makes it.
        max_batch_size: 0 means that requests carry the whole shape and are never batched.
        samples: ``module:function`` yielding real inputs, one dict of arrays without batch dimension each.
        tolerance: Largest parity error that is accepted, relative to the output's largest magnitude.
        tf32: Whether a GPU may multiply fp32 with TF32's 10 bits of mantissa, as onnxruntime does by default. The
            passport has what it costs in accuracy, where a GPU measured it.
        precisions: Which variants to build; the gate ships the last one that is accurate enough and faster.
        accuracy: Metric to bound, against fp32 (:mod:`tritonkit.precision.metrics`); a metric of one's own is
            named ``module:function``.
        calibration: See :class:`Calibration`.
        slo: See :class:`Slo`.
        gpus: What engines are built for (:mod:`tritonkit.gpus`).
        text: See :class:`Text`.
        python: See :class:`Python`.
        batching: See :class:`Batching`.
        path: The file this recipe was read from.
    """

    name: Name
    source: str | OnnxSource | HfSource
    version: Annotated[int, Field(ge=1, le=MOST_VERSION)] | None = None
    traffic: dict[Annotated[int, Field(ge=1, le=MOST_VERSION)], Annotated[float, Field(ge=0, allow_inf_nan=False)]] = (
        Field(default={})
    )
    inputs: Annotated[dict[str, TensorSpec], Field(min_length=1)]
    outputs: Annotated[dict[str, OutputSpec], Field(min_length=1)]
    shapes: dict[str, Range] = Field(default={})
    max_batch_size: Annotated[int, Field(ge=0, le=MOST_BATCH)] = 16
    samples: str | None = None
    tolerance: Annotated[float, Field(gt=0, lt=1)] = 1e-4
    tf32: bool = True
    precisions: Annotated[tuple[Precision, ...], Field(min_length=1)] = ("fp32",)
    accuracy: dict[str, float] = Field(default={})
    calibration: Calibration = Calibration()
    slo: Slo | None = None
    gpus: tuple[str, ...] = ()
    text: Text | None = None
    python: Python | None = None
    batching: Batching = Batching()
    path: Annotated[Path, Field(exclude=True)] = Path("recipe.yaml")

    @model_validator(mode="after")
    def _dims_are_bounded(self) -> Recipe:
        needed = {d for spec in self.inputs.values() for d in spec.dims if isinstance(d, str)}
        names = needed | {d for spec in self.outputs.values() for d in spec.dims if isinstance(d, str)}
        unused = sorted(set(self.shapes) - names)
        if missing := sorted(needed - set(self.shapes)):
            other = f", and shapes.{unused[0]} no dimension: use one name for both, or" if unused else ";"
            example = f"shapes: {{{missing[0]}: {{min: 1, opt: 16, max: 128}}}}"
            raise ValueError(f"dimension {missing[0]!r} has no range{other} add  {example}")
        if unused:
            raise ValueError(f"shapes.{unused[0]} bounds a dimension that no input or output uses")
        return self

    @field_validator("gpus")
    @classmethod
    def _gpus_are_known(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        try:
            catalogue.get_all(value)
        except InputError as error:
            raise ValueError(f"{error.message}: {error.fix}") from None
        return value

    @model_validator(mode="after")
    def _padding_fits(self) -> Recipe:
        for dimension, bounds in self.shapes.items():
            if bounds.pad:
                _check_padding(self, dimension, bounds)
        for name, spec in self.inputs.items():
            fills = {self.shapes[dim].pad[name] for dim in spec.dims if isinstance(dim, str) and self.shapes[dim].pad}
            if len(fills) > 1:
                raise ValueError(f"{name!r} is padded with {' and '.join(map(str, sorted(fills)))}; give one value")
        return self

    @model_validator(mode="after")
    def _names_differ(self) -> Recipe:
        if both := sorted(set(self.inputs) & set(self.outputs)):
            raise ValueError(f"{both[0]!r} is an input and an output; ONNX needs two names")
        return self

    @model_validator(mode="after")
    def _traffic_fits(self) -> Recipe:
        if self.traffic and not sum(self.traffic.values()) > 0:
            raise ValueError(f"traffic gives no version a share; for example  traffic: {{{self.number}: 1}}")
        if (section := self.text or self.python) and len(self.traffic) > 1:
            raise ValueError(
                f"traffic names {len(self.traffic)} versions, and the ensemble {section.name!r} calls only the "
                "highest; give the second one a recipe with names of its own"
            )
        return self

    @model_validator(mode="after")
    def _one_ensemble(self) -> Recipe:
        if self.text and self.python:
            raise ValueError("a recipe has `text` or `python`, not both: tokenize in python.before")
        return self

    @property
    def entry(self) -> str:
        """The model that callers use: the ensemble, where the recipe makes one."""
        section = self.text or self.python
        return section.name if section else self.name

    @model_validator(mode="after")
    def _batching_fits(self) -> Recipe:
        batching = self.batching
        if batching.max_batch_size is not None and batching.max_batch_size > self.max_batch_size:
            raise ValueError(
                f"batching.max_batch_size {batching.max_batch_size} is above max_batch_size {self.max_batch_size}, "
                "up to which the graph is checked"
            )
        if (batching.preferred_batch_size or 0) > max(self.largest_batch, 1):
            raise ValueError(
                f"batching.preferred_batch_size {batching.preferred_batch_size} is above the largest batch, "
                f"{self.largest_batch}"
            )
        if batching.batch_sizes and 0 < self.largest_batch < batching.batch_sizes[-1]:
            raise ValueError(
                f"batching.batch_sizes goes up to {batching.batch_sizes[-1]}, max_batch_size is {self.largest_batch}: "
                "leave out what is above"
            )
        if batching.precision not in {None, "fp32", *self.precisions}:
            raise ValueError(
                f"batching.precision {batching.precision} is not one of precisions {list(self.precisions)}"
            )
        return self

    @property
    def largest_batch(self) -> int:
        """The largest batch that Triton makes: what ``batching`` says, else ``max_batch_size``."""
        return self.batching.max_batch_size or self.max_batch_size

    @property
    def number(self) -> int:
        """The version that the recipe is built into."""
        return self.version or 1

    @property
    def served(self) -> tuple[int, ...]:
        """The versions that are served; empty where the recipe names none, which leaves it to Triton."""
        return tuple(sorted(self.traffic)) or ((self.version,) if self.version else ())

    @property
    def directory(self) -> Path:
        """The folder that relative paths in the recipe start from."""
        return self.path.parent

    def serving(self, target: Target) -> Serving:
        """How the model is served on a target: what ``batching`` says of it, and the target's defaults for the rest."""
        return resolve(self.batching, self.max_batch_size, target)

    def sizes(self, which: Literal["min", "opt", "max"]) -> dict[str, int]:
        """The size of every named dimension at one end of its range."""
        return {name: getattr(bounds, which) for name, bounds in self.shapes.items()}


def _check_padding(recipe: Recipe, dimension: str, bounds: Range) -> None:
    """Refuse a ``pad`` that does not name every input with this dimension, each with a value that it can hold."""
    where = f"shapes.{dimension}.pad"
    if recipe.max_batch_size == 0:
        raise ValueError(f"{where}: max_batch_size is 0, so no requests share a batch and there is nothing to pad")
    users = [name for name, spec in recipe.inputs.items() if dimension in spec.dims]
    if unknown := sorted(set(bounds.pad) - set(users)):
        reason = f"has no dimension {dimension}" if unknown[0] in recipe.inputs else "is no input"
        raise ValueError(f"{where}: {unknown[0]!r} {reason}; inputs that have it: {', '.join(users) or 'none'}")
    if missing := [name for name in users if name not in bounds.pad]:
        raise ValueError(f"{where}: the input {missing[0]!r} has this dimension too; say what fills it")
    for name, value in bounds.pad.items():
        spec = recipe.inputs[name]
        if spec.dtype == "string":
            raise ValueError(f"{where}: {name!r} is string, which cannot be padded")
        if spec.dims.count(dimension) > 1:
            raise ValueError(f"{where}: {name!r} has the dimension {dimension} twice, which cannot be padded")
        if not holds(spec.type.numpy, value):
            raise ValueError(f"{where}: {name!r} is {spec.dtype}, which cannot hold {value!r}")
    for name, output in recipe.outputs.items():
        if output.dims.count(dimension) > 1:
            raise ValueError(
                f"{where}: the output {name!r} has the dimension {dimension} twice, which cannot be cropped"
            )


def holds(dtype: Any, value: float | bool) -> bool:
    """Whether an array of a numpy dtype can hold a value exactly, up to the rounding of floating point."""
    if np.issubdtype(dtype, np.bool_) or isinstance(value, bool):
        return bool(np.issubdtype(dtype, np.bool_)) and isinstance(value, bool)
    if np.issubdtype(dtype, np.integer):
        limits = np.iinfo(dtype)
        return limits.min <= value <= limits.max and float(value).is_integer()
    return bool(abs(value) <= np.finfo(dtype).max)


def as_json(recipe: Recipe) -> dict[str, Any]:
    """The recipe as plain data, for hashing and passports; the file's own path is not part of it."""
    return recipe.model_dump(mode="json")
