"""The sections of a recipe: what each may say, as frozen data that is checked where it is read."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Literal, get_args

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from tritonkit.dtypes import BY_NAME, Dtype

Dim = Annotated[int, Field(ge=1)] | Annotated[str, Field(pattern=r"^[A-Za-z_][A-Za-z0-9_]*$")]
NAME_PATTERN = r"^[A-Za-z0-9_][A-Za-z0-9_.\-]*$"
Name = Annotated[str, Field(pattern=NAME_PATTERN)]
Precision = Literal["fp32", "fp16", "bf16", "int8", "fp8"]
MOST_BATCH = 4096  # the largest batch that a recipe may ask for
MOST_VERSION = 2**53 - 1  # what every reader of JSON holds exactly; Triton's own limit is 2**63 - 1
PRECISIONS: tuple[Precision, ...] = get_args(Precision)
Target = Literal["cpu", "cuda", "tensorrt"]


class Section(BaseModel):
    """What all sections have in common: no unknown keys, and no change after reading."""

    model_config = ConfigDict(extra="forbid", frozen=True, str_strip_whitespace=True)


class TensorSpec(Section):
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


class Range(Section):
    """The sizes that a dynamic dimension may take.

    Attributes:
        min: The smallest.
        opt: The one to be fast at.
        max: The largest.
        pad: Input to the value that fills it up where requests of different sizes run in one batch, for every input
            that has this dimension. A target that does not pad (CPU) does not read it.
        sizes: What is padded up to; doublings from 16 to ``max``, with the sizes halfway between, if not given.
    """

    min: Annotated[int, Field(ge=1)]
    opt: Annotated[int, Field(ge=1)]
    max: Annotated[int, Field(ge=1)]
    pad: dict[str, int | float | bool] = Field(default={})
    sizes: Annotated[tuple[Annotated[int, Field(ge=1)], ...], Field(min_length=1, max_length=32)] | None = None

    @model_validator(mode="after")
    def _ordered(self) -> Range:
        if not self.min <= self.opt <= self.max:
            raise ValueError(f"min <= opt <= max must hold, got {self.min}, {self.opt}, {self.max}")
        if self.sizes and not self.pad:
            raise ValueError("sizes is what requests are padded up to; say with what:  pad: {INPUT: 0}")
        if self.sizes and (list(self.sizes) != sorted(set(self.sizes)) or self.sizes[-1] != self.max):
            raise ValueError(f"sizes must rise and end at max, {self.max}; got {list(self.sizes)}")
        return self

    @property
    def padded_sizes(self) -> tuple[int, ...]:
        """The sizes that are run: ``sizes``, or doublings from 16 with those halfway between them."""
        if self.sizes:
            return self.sizes
        ladder = (step * 2**power for power in range(32) for step in (16, 24))
        return (*(size for size in ladder if self.min <= size < self.max), self.max)


class OnnxSource(Section):
    """A graph that exists already."""

    onnx: str


class HfSource(Section):
    """A local Hugging Face model directory."""

    hf: str


class Batching(Section):
    """How Triton gathers requests into batches, and how many may wait.

    What bounds the queue comes from the recipe's ``slo`` and measured service times where there are both
    (:mod:`tritonkit.queue_limits`). Elsewhere it is bounded only where ``instances`` is 2 or more, unless a bound is
    asked for by name: with one instance, Triton up to 26.07 stalls for half a second now and then when its queue has
    any bound (docs/decisions/0003).

    `make tune` measures all of these, and writes what it found here (docs/guides/tuning.md).

    Attributes:
        target: What this section was measured for; other targets take their defaults. All of them if not given.
        max_batch_size: The largest batch that Triton makes, and takes; the recipe's own if not given.
        preferred_batch_size: The largest batch that Triton makes of requests that wait; a request may have more rows,
            up to ``max_batch_size``. 0, or not given and not derived: as many as fit.
        max_queue_delay_us: How long the first request of a batch may wait for others, in microseconds; the target's
            default if not given (:data:`tritonkit.recipe.serving.QUEUE_DELAY_US`), and none where there is a
            ``preferred_batch_size``, which Triton exceeds where batches wait.
        instances: Copies of the model that run at the same time, per device; the target's default if not given
            (:data:`tritonkit.recipe.serving.INSTANCES`).
        threads: onnxruntime's threads inside one operator, per instance. Read by CPU targets only.
        max_queue_size: Requests that may wait; from the SLO, else 256 (2048 for the target cuda). One more is
            refused at once, which is what keeps an overloaded server answering. 0: any number.
        queue_timeout_ms: A request that waited longer is refused unrun, as its caller has given up; from the SLO,
            else 2000. 0: never.
        precision: The variant that served most under load, where that is not the one that the gate finds fastest
            in process. The gate still refuses it when it is not accurate. TensorRT does not read it.
        batch_sizes: The batches that a GPU is prepared for; others are padded up or run in pieces. Doublings up to
            ``max_batch_size`` if not given. ``[]``: none, batches run as they come.
        cuda_graphs: Whether each prepared size is captured as a CUDA graph.
    """

    target: Target | None = None
    max_batch_size: Annotated[int, Field(ge=1, le=4096)] | None = None
    preferred_batch_size: Annotated[int, Field(ge=0, le=4096)] | None = None
    max_queue_delay_us: Annotated[int, Field(ge=0, le=1_000_000)] | None = None
    instances: Annotated[int, Field(ge=1, le=64)] | None = None
    threads: Annotated[int, Field(ge=1, le=256)] = 1
    max_queue_size: Annotated[int, Field(ge=0, le=100_000)] | None = None
    queue_timeout_ms: Annotated[int, Field(ge=0, le=600_000)] | None = None
    precision: Precision | None = None
    batch_sizes: Annotated[tuple[Annotated[int, Field(ge=1, le=4096)], ...], Field(max_length=32)] | None = None
    cuda_graphs: bool = True

    def on(self, target: Target) -> Batching:
        """What this says of a target: nothing where it was measured for another one."""
        return self if self.target in {None, target} else Batching()

    @model_validator(mode="after")
    def _sizes_rise(self) -> Batching:
        if self.batch_sizes and list(self.batch_sizes) != sorted(set(self.batch_sizes)):
            raise ValueError(f"batch_sizes must rise, got {list(self.batch_sizes)}")
        return self


class Calibration(Section):
    """How the ranges of activations are found for int8 and fp8.

    Attributes:
        method: ``minmax``, ``percentile`` or ``entropy``; the one that measures best if not given.
        samples: How many of the recipe's samples are used. The gate judges on others.
    """

    method: Literal["minmax", "percentile", "entropy"] | None = None
    samples: Annotated[int, Field(ge=2, le=10_000)] = 128


class Percentiles(Section):
    """Bounds of one time that callers wait. What is not given is not judged.

    Attributes:
        p50_ms, p95_ms, p99_ms: Largest value that this share of the requests may have, in milliseconds.
    """

    p50_ms: Annotated[float, Field(gt=0)] | None = None
    p95_ms: Annotated[float, Field(gt=0)] | None = None
    p99_ms: Annotated[float, Field(gt=0)] | None = None

    @property
    def latency_ms(self) -> float | None:
        """The largest latency that is named: what a request must keep to count as goodput."""
        return max((bound for bound in (self.p50_ms, self.p95_ms, self.p99_ms) if bound is not None), default=None)


class Slo(Percentiles):
    """What callers were promised; a load test holds the model against it. What is not given is not judged.

    Attributes:
        p50_ms, p95_ms, p99_ms: Largest latency that this share of the requests may have, from the moment at which
            each was due to be sent, in milliseconds.
        error_rate: Largest share of requests that may fail.
        goodput: Least share of requests that must be answered well and within the largest of the latencies above.
    """

    error_rate: Annotated[float, Field(ge=0, le=1)] = 0.001
    goodput: Annotated[float, Field(gt=0, le=1)] | None = None

    @model_validator(mode="after")
    def _goodput_has_a_latency(self) -> Slo:
        if self.goodput is not None and self.latency_ms is None:
            raise ValueError("goodput counts requests within a latency; add  p99_ms: 50")
        return self


class Text(Section):
    """A tokenizer in front of the model, and an ensemble of both that takes strings.

    Attributes:
        name: The ensemble's name in Triton.
        tokenizer: A ``tokenizer.json``, or ``module:function`` returning the path of one.
        input: The ensemble's one input: a string a sample.
        max_tokens: Longer texts are cut; at most the largest size of the model's dynamic dimension.
        pad_to: Texts are padded to a multiple of this, as Triton batches only requests of equal shapes; not where the
            model itself pads them (``pad`` in ``shapes``, on a GPU).
    """

    name: Name
    tokenizer: str
    input: Name = "text"
    max_tokens: Annotated[int, Field(ge=2, le=1_000_000)] = 256
    pad_to: Annotated[int, Field(ge=1, le=4096)] = 16


class Before(Section):
    """What a Python function makes a model's inputs of.

    Attributes:
        function: Its name in the section's file. It gets each of ``inputs`` by name and returns a dict of the model's
            inputs, for one sample at a time.
        inputs: What the ensemble takes.
    """

    function: str
    inputs: Annotated[dict[str, TensorSpec], Field(min_length=1)]


class After(Section):
    """What a Python function makes of a model's outputs.

    Attributes:
        function: Its name in the section's file. Its parameters are outputs of the model, by name; it returns a dict of
            ``outputs``, for one sample at a time.
        outputs: What the ensemble gives.
    """

    function: str
    outputs: Annotated[dict[str, TensorSpec], Field(min_length=1)]


class Python(Section):
    """Python functions before and after the model, and an ensemble of them all.

    Attributes:
        name: The ensemble's name in Triton.
        file: A Python file, relative to the recipe, which goes into the repository; it imports no file beside it.
        before: See :class:`Before`.
        after: See :class:`After`.
        sample: The function in ``file`` that returns one request's inputs: what the build tries ``before`` with.
        packages: What the functions import beyond the standard library and numpy, each ``name==version``.
    """

    name: Name
    file: str
    before: Before | None = None
    after: After | None = None
    sample: str | None = None
    packages: tuple[Annotated[str, Field(pattern=r"^[A-Za-z0-9._-]+==[A-Za-z0-9.!+_-]+$")], ...] = ()

    @model_validator(mode="after")
    def _whole(self) -> Python:
        if self.before is None and self.after is None:
            raise ValueError("say what runs: before, after or both")
        if self.before is not None and self.sample is None:
            raise ValueError(
                "the build tries `before` with a request; name a function that returns one:  sample: FUNCTION"
            )
        specs = [
            *(self.before.inputs if self.before else {}).values(),
            *(self.after.outputs if self.after else {}).values(),
        ]
        if any(isinstance(dim, str) for spec in specs for dim in spec.dims):
            raise ValueError("dims here are numbers; bytes, text and JSON of any length are one string: dims: []")
        return self
