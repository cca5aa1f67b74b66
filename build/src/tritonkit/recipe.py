"""What a recipe may say: one YAML file, parsed once, here, into plain frozen data.

It knows the words and their bounds. Whether the source loads, or a graph agrees with the recipe, is for
:mod:`tritonkit.sources` and :mod:`tritonkit.graph`.
"""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, get_args

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from tritonkit.dtypes import BY_NAME, Dtype
from tritonkit.errors import RecipeError

Dim = Annotated[int, Field(ge=1)] | Annotated[str, Field(pattern=r"^[A-Za-z_][A-Za-z0-9_]*$")]
Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9_][A-Za-z0-9_.\-]*$")]
Precision = Literal["fp32", "fp16", "int8", "fp8"]
PRECISIONS: tuple[Precision, ...] = get_args(Precision)


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, str_strip_whitespace=True)


class TensorSpec(_Section):
    """One input or output, without its batch dimension.

    Attributes:
        dtype: A word of :mod:`tritonkit.dtypes`, for example ``fp32``.
        dims: Sizes, or names of dynamic dimensions that ``shapes`` bounds.
    """

    dtype: str
    dims: tuple[Dim, ...]

    @field_validator("dtype")
    @classmethod
    def _known(cls, value: str) -> str:
        if value not in BY_NAME:
            raise ValueError(f"unknown dtype {value!r}; one of: {', '.join(BY_NAME)}")
        return value

    @property
    def type(self) -> Dtype:
        """The dtype under all its names."""
        return BY_NAME[self.dtype]

    def shape(self, sizes: Mapping[str, int]) -> tuple[int, ...]:
        """``dims`` with every name replaced by its size in ``sizes``."""
        return tuple(sizes[dim] if isinstance(dim, str) else dim for dim in self.dims)


class OutputSpec(TensorSpec):
    """One output; ``labels`` names its classes: a text file, or ``module:function`` → list of str."""

    labels: str | None = None


class Range(_Section):
    """The sizes that a dynamic dimension may take; ``opt`` is the one to be fast at."""

    min: Annotated[int, Field(ge=1)]
    opt: Annotated[int, Field(ge=1)]
    max: Annotated[int, Field(ge=1)]

    @model_validator(mode="after")
    def _ordered(self) -> Range:
        if not self.min <= self.opt <= self.max:
            raise ValueError(f"min <= opt <= max must hold, got {self.min}, {self.opt}, {self.max}")
        return self


class OnnxSource(_Section):
    """A graph that exists already."""

    onnx: str


class HfSource(_Section):
    """A local Hugging Face model directory."""

    hf: str


class Batching(_Section):
    """How Triton gathers requests into batches, and how many may wait.

    The queue is bounded only where ``instances`` is 2 or more, unless a bound is asked for by name: with one
    instance, Triton up to 26.07 stalls for half a second now and then when its queue has any bound
    (docs/decisions/0003).

    `make tune` measures all of these, and writes what it found here (docs/tuning.md).

    Attributes:
        max_batch_size: The largest batch that Triton makes, and takes; the recipe's own if not given.
        max_queue_delay_us: How long the first request of a batch may wait for others, in microseconds.
        instances: Copies of the model that run at the same time, per device.
        threads: onnxruntime's threads inside one operator, per instance. Read by CPU targets only.
        max_queue_size: Requests that may wait, 256 if not given; one more is refused at once, which is what
            keeps an overloaded server answering. 0: any number.
        queue_timeout_ms: A request that waited longer is refused unrun, as its caller has given up; 2000 if
            not given. 0: never.
        precision: The variant that served most under load, where that is not the one that the gate finds fastest
            in process. The gate still refuses it when it is not accurate. TensorRT does not read it.
    """

    max_batch_size: Annotated[int, Field(ge=1, le=4096)] | None = None
    max_queue_delay_us: Annotated[int, Field(ge=0, le=1_000_000)] = 1000
    instances: Annotated[int, Field(ge=1, le=64)] = 2
    threads: Annotated[int, Field(ge=1, le=256)] = 1
    max_queue_size: Annotated[int, Field(ge=0, le=100_000)] | None = None
    queue_timeout_ms: Annotated[int, Field(ge=0, le=600_000)] | None = None
    precision: Precision | None = None

    @property
    def bounded(self) -> bool:
        """Whether the queue has a bound in size or time."""
        asked = {self.max_queue_size, self.queue_timeout_ms}
        return any(asked) or (None in asked and self.instances > 1)


class Calibration(_Section):
    """How the ranges of activations are found for int8 and fp8.

    Attributes:
        method: ``minmax``, ``percentile`` or ``entropy``; the one that measures best if not given.
        samples: How many of the recipe's samples are used. The gate judges on others.
    """

    method: Literal["minmax", "percentile", "entropy"] | None = None
    samples: Annotated[int, Field(ge=2, le=10_000)] = 128


class Slo(_Section):
    """What callers were promised; a load test holds the model against it. What is not given is not judged.

    Attributes:
        p50_ms, p95_ms, p99_ms: Largest latency that this share of the requests may have, from the moment at which
            each was due to be sent, in milliseconds.
        error_rate: Largest share of requests that may fail.
        goodput: Least share of requests that must be answered well and within the largest of the latencies above.
    """

    p50_ms: Annotated[float, Field(gt=0)] | None = None
    p95_ms: Annotated[float, Field(gt=0)] | None = None
    p99_ms: Annotated[float, Field(gt=0)] | None = None
    error_rate: Annotated[float, Field(ge=0, le=1)] = 0.001
    goodput: Annotated[float, Field(gt=0, le=1)] | None = None

    @model_validator(mode="after")
    def _goodput_has_a_latency(self) -> Slo:
        if self.goodput is not None and self.latency_ms is None:
            raise ValueError("goodput counts requests within a latency; add  p99_ms: 50")
        return self

    @property
    def latency_ms(self) -> float | None:
        """The largest latency that is named: what a request must keep to count as goodput."""
        return max((bound for bound in (self.p50_ms, self.p95_ms, self.p99_ms) if bound is not None), default=None)


class Text(_Section):
    """A tokenizer in front of the model, and an ensemble of both that takes strings.

    Attributes:
        name: The ensemble's name in Triton.
        tokenizer: A ``tokenizer.json``, or ``module:function`` returning the path of one.
        input: The ensemble's one input: a string a sample.
        max_tokens: Longer texts are cut; at most the largest size of the model's dynamic dimension.
        pad_to: Texts are padded to a multiple of this: Triton batches only requests of equal shapes.
    """

    name: Name
    tokenizer: str
    input: Name = "text"
    max_tokens: Annotated[int, Field(ge=2, le=1_000_000)] = 256
    pad_to: Annotated[int, Field(ge=1, le=4096)] = 16


class Recipe(_Section):
    """One model: where it comes from, what goes in and out, how it is to be served.

    Attributes:
        name: The model's name in Triton and its directory's name in the repository.
        source: ``module:function`` or ``file.py:function`` returning a ``torch.nn.Module``,
            ``{onnx: path}``, or ``{hf: directory}``. Paths are relative to the recipe.
        inputs: In the order of the module's ``forward``, or named like its parameters.
        outputs: In the order in which the module returns them, or named like its keys.
        shapes: Bounds of every named dimension.
        max_batch_size: 0 means that requests carry the whole shape and are never batched.
        samples: ``module:function`` yielding real inputs, one dict of arrays without batch dimension each.
        tolerance: Largest parity error that is accepted, relative to the output's largest magnitude.
        precisions: Which variants to build; the gate ships the last one that is accurate enough and faster.
        accuracy: Metric to bound, against fp32 (:mod:`tritonkit.precision.metrics`); a metric of one's own is
            named ``module:function``.
        calibration: See :class:`Calibration`.
        slo: See :class:`Slo`.
        gpus: What engines are built for (:mod:`tritonkit.engines.gpus`).
        text: See :class:`Text`.
        batching: See :class:`Batching`.
        path: The file this recipe was read from.
    """

    name: Name
    source: str | OnnxSource | HfSource
    inputs: Annotated[dict[str, TensorSpec], Field(min_length=1)]
    outputs: Annotated[dict[str, OutputSpec], Field(min_length=1)]
    shapes: dict[str, Range] = {}
    max_batch_size: Annotated[int, Field(ge=0, le=4096)] = 16
    samples: str | None = None
    tolerance: Annotated[float, Field(gt=0, lt=1)] = 1e-4
    precisions: Annotated[tuple[Precision, ...], Field(min_length=1)] = ("fp32",)
    accuracy: dict[str, float] = {}
    calibration: Calibration = Calibration()
    slo: Slo | None = None
    gpus: tuple[str, ...] = ()
    text: Text | None = None
    batching: Batching = Batching()
    path: Annotated[Path, Field(exclude=True)] = Path("recipe.yaml")

    @model_validator(mode="after")
    def _dims_are_bounded(self) -> Recipe:
        named = {d for spec in (*self.inputs.values(), *self.outputs.values()) for d in spec.dims}
        names = {d for d in named if isinstance(d, str)}
        if missing := sorted(names - set(self.shapes)):
            raise ValueError(
                f"dimension {missing[0]!r} has no range; add  shapes: {{{missing[0]}: {{min: 1, opt: 16, max: 128}}}}"
            )
        if unused := sorted(set(self.shapes) - names):
            raise ValueError(f"shapes.{unused[0]} bounds a dimension that no input or output uses")
        return self

    @model_validator(mode="after")
    def _names_differ(self) -> Recipe:
        if both := sorted(set(self.inputs) & set(self.outputs)):
            raise ValueError(f"{both[0]!r} is an input and an output; ONNX needs two names")
        return self

    @model_validator(mode="after")
    def _batching_fits(self) -> Recipe:
        said = self.batching
        if said.max_batch_size is not None and said.max_batch_size > self.max_batch_size:
            raise ValueError(
                f"batching.max_batch_size {said.max_batch_size} is above max_batch_size {self.max_batch_size}, "
                "up to which the graph is checked"
            )
        if said.precision not in {None, "fp32", *self.precisions}:
            raise ValueError(f"batching.precision {said.precision} is not one of precisions {list(self.precisions)}")
        return self

    @property
    def largest_batch(self) -> int:
        """The largest batch that Triton makes: what ``batching`` says, else ``max_batch_size``."""
        return self.batching.max_batch_size or self.max_batch_size

    @property
    def directory(self) -> Path:
        """The folder that relative paths in the recipe start from."""
        return self.path.parent

    def sizes(self, which: Literal["min", "opt", "max"]) -> dict[str, int]:
        """The size of every named dimension at one end of its range."""
        return {name: getattr(bounds, which) for name, bounds in self.shapes.items()}


def load(path: Path) -> Recipe:
    """Read a recipe.

    Raises:
        RecipeError: The file is missing or is no YAML mapping, or a value is not allowed; the message
            has the line and, for an unknown key, the nearest known one.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise RecipeError(f"cannot read recipe {path}: {error}", "check the path") from error
    try:
        node = yaml.compose(text, Loader=yaml.SafeLoader)
        data = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise RecipeError(f"{path} is not valid YAML: {error}", "correct the syntax at that line") from error
    if not isinstance(data, dict):
        raise RecipeError(
            f"{path}: a recipe is a mapping with name, source, inputs and outputs",
            "`tritonkit init MODEL` writes one",
        )
    try:
        return Recipe.model_validate({**data, "path": path})
    except ValidationError as error:
        raise _explain(path, node, error) from error


def _explain(path: Path, node: yaml.Node | None, error: ValidationError) -> RecipeError:
    """All problems of a recipe as one error, each with its line."""
    problems = []
    fixes = []
    for item in error.errors():
        keys = [part for part in item["loc"] if not _is_union_branch(part)]
        where = ".".join(str(part) for part in keys) or "recipe"
        message = item["msg"].removeprefix("Value error, ")
        if item["type"] == "extra_forbidden":
            known = _known_keys(keys[:-1])
            near = difflib.get_close_matches(str(keys[-1]), known, n=1)
            message = "unknown key" + (f", did you mean {near[0]!r}?" if near else "")
            fixes.append(f"keys known here: {', '.join(known)}")
        line = _line(node, keys)
        text = f"{path}:{line}: {where}: {message}"
        if text not in problems:
            problems.append(text)
    return RecipeError("\n".join(problems), fixes[0] if fixes else "correct the recipe at that line")


def _is_union_branch(part: int | str) -> bool:
    """Pydantic puts the branch of a union it tried into an error's location; a reader has no use for it."""
    return isinstance(part, str) and (part in {"str", "int", "OnnxSource", "HfSource"} or "[" in part)


def _known_keys(parents: Sequence[int | str]) -> list[str]:
    sections: dict[str, type[BaseModel]] = {
        "inputs": TensorSpec,
        "outputs": OutputSpec,
        "shapes": Range,
        "batching": Batching,
        "calibration": Calibration,
        "slo": Slo,
        "text": Text,
        "source": OnnxSource,
    }
    model = sections.get(str(parents[0]), Recipe) if parents else Recipe
    return sorted(name for name in model.model_fields if name != "path")


def _line(node: yaml.Node | None, keys: Sequence[int | str]) -> int:
    """The 1-based line of the deepest key of ``keys`` that the document has."""
    line = 1
    for key in keys:
        child: tuple[yaml.Node, yaml.Node] | None = None
        if isinstance(node, yaml.MappingNode):
            child = next((pair for pair in node.value if pair[0].value == str(key)), None)
        elif isinstance(node, yaml.SequenceNode) and isinstance(key, int) and key < len(node.value):
            child = (node.value[key], node.value[key])
        if child is None:
            break
        line, node = child[0].start_mark.line + 1, child[1]
    return int(line)


def as_json(recipe: Recipe) -> dict[str, Any]:
    """The recipe as plain data, for hashing and passports; the file's own path is not part of it."""
    return recipe.model_dump(mode="json")
