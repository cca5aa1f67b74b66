"""A model's metadata, limits, statistics and repository entries, as values that are the same for both protocols."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

# The datatype in OpenVINO Model Server's metadata of an unknown type, in a MediaPipe graph for example.
_UNKNOWN_DATATYPE = "INVALID"
_MOST_NAMED = 5  # models in one error


@dataclass(frozen=True)
class TensorSpec:
    """One input or output of a model.

    Attributes:
        name: Its name.
        datatype: KServe v2's name of its type, for example ``FP32``; empty where nobody declares it: an array's own
            dtype is used then.
        shape: Its dimensions; -1 is any size. The first one is the batch where the model has a
            `max_batch_size`. Empty for a scalar, and where nobody declares it: any shape is sent then.
        optional: An input that may be left out.
    """

    name: str
    datatype: str = ""
    shape: tuple[int, ...] = ()
    optional: bool = False

    def __str__(self) -> str:
        return f"{self.datatype or 'any datatype'} {list(self.shape) if self.shape else 'of any shape'}"

    @classmethod
    def described(cls, name: str, datatype: str | None, shape: Iterable[Any] | None) -> TensorSpec:
        """A tensor as a server describes it, which may leave out everything but the name.

        Raises:
            TypeError, ValueError: The name is not a string, or a dimension is not a number.
        """
        if not isinstance(name, str) or not isinstance(datatype, str | None):
            raise TypeError(f"a tensor is described by {name!r} and {datatype!r}")
        known = "" if datatype is None or datatype == _UNKNOWN_DATATYPE else datatype
        return cls(name, known, () if shape is None else tuple(map(int, shape)))


@dataclass(frozen=True)
class ModelLimits:
    """The properties of a model that only its configuration has.

    Attributes:
        max_batch_size: The largest batch; 0: the model does not batch.
        optional_inputs: Which inputs may be left out.
        decoupled: Whether a request may have any number of responses.
        parameters: Its ``parameters`` by name.
    """

    max_batch_size: int
    optional_inputs: frozenset[str]
    decoupled: bool = False
    parameters: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class ModelMetadata:
    """What a model is: read from a server, or declared by a caller (``Client(..., models=[...])``).

    Attributes:
        name: Its name.
        versions: The versions that the server has, as strings; empty where it has none or does not tell.
        platform: What runs it, for example ``onnxruntime_onnx``; empty where the server does not tell.
        inputs: Its inputs, in the order of its configuration; empty where nobody declares them: inputs of any name
            are sent then.
        outputs: Its outputs, likewise.
        max_batch_size: The largest batch of one request; 0 where the model does not batch.
        decoupled: Whether a request may have any number of responses; such a model is called with ``stream``.
        parameters: The ``parameters`` of its configuration; a language model's chat template is one of them.
    """

    name: str
    versions: tuple[str, ...] = ()
    platform: str = ""
    inputs: tuple[TensorSpec, ...] = ()
    outputs: tuple[TensorSpec, ...] = ()
    max_batch_size: int = 0
    decoupled: bool = False
    parameters: Mapping[str, str] = field(default_factory=dict, hash=False)

    def limited(self, limits: ModelLimits) -> ModelMetadata:
        """The same model with the limits of its configuration."""
        inputs = tuple(replace(spec, optional=spec.name in limits.optional_inputs) for spec in self.inputs)
        return replace(
            self,
            inputs=inputs,
            max_batch_size=limits.max_batch_size,
            decoupled=limits.decoupled,
            parameters=limits.parameters,
        )


@dataclass(frozen=True)
class Duration:
    """How often something happened, and how long it took in total, in nanoseconds."""

    count: int
    total_ns: int


@dataclass(frozen=True)
class ModelStatistics:
    """What the server counted for one version of a model since it was loaded (Triton's statistics extension).

    Attributes:
        name: The model.
        version: The version.
        inference_count: Samples served: a request with a batch of 4 counts 4.
        execution_count: How often the model ran: a dynamic batch counts 1.
        success, fail: Whole requests.
        queue: Waiting for an instance.
        compute_input, compute_infer, compute_output: Gathering the batch, running the model, handing out
            results.
        executions_by_batch_size: How often the model ran with each batch size.
    """

    name: str
    version: str
    inference_count: int
    execution_count: int
    success: Duration
    fail: Duration
    queue: Duration
    compute_input: Duration
    compute_infer: Duration
    compute_output: Duration
    executions_by_batch_size: Mapping[int, int]

    @property
    def average_batch_size(self) -> float:
        """Samples per run of the model; 0 before the first."""
        return self.inference_count / self.execution_count if self.execution_count else 0.0

    @classmethod
    def from_json(cls, entry: Mapping[str, Any]) -> ModelStatistics:
        """Read one entry of ``model_stats``; numbers may be strings, as protobuf's JSON writes 64-bit ones.

        Raises:
            KeyError, TypeError, ValueError: The entry lacks a field, or a count is not a number.
        """

        def duration(of: str) -> Duration:
            counter = entry["inference_stats"][of]
            return Duration(int(counter["count"]), int(counter["ns"]))

        return cls(
            name=str(entry["name"]),
            version=str(entry["version"]),
            inference_count=int(entry["inference_count"]),
            execution_count=int(entry["execution_count"]),
            success=duration("success"),
            fail=duration("fail"),
            queue=duration("queue"),
            compute_input=duration("compute_input"),
            compute_infer=duration("compute_infer"),
            compute_output=duration("compute_output"),
            executions_by_batch_size={
                int(batch["batch_size"]): int(batch["compute_infer"]["count"]) for batch in entry["batch_stats"]
            },
        )


@dataclass(frozen=True)
class RepositoryEntry:
    """One version of a model in a server's repository.

    Attributes:
        name: The model.
        version: The version; empty for a model that was never loaded.
        state: ``READY``, ``UNAVAILABLE``, ``LOADING`` or ``UNLOADING``; empty for a model that was never
            loaded.
        reason: Why it is not ready.
    """

    name: str
    version: str
    state: str
    reason: str


def fix_for_missing(model: str, version: str, entries: Sequence[RepositoryEntry]) -> str:
    """What to do about a model that a server does not have; empty where its index does not help.

    Args:
        model: As the caller named it.
        version: Likewise; empty for the newest.
        entries: The server's index.
    """
    names = sorted({entry.name for entry in entries})
    if model in names:
        versions = sorted({entry.version for entry in entries if entry.name == model and entry.state == "READY"})
        if not version or not versions or version in versions:
            return ""
        return f"the server has version {' and '.join(versions)} of {model}; leave model_version= out for the newest"
    by_case = {name.lower(): name for name in names}
    near = [by_case[name] for name in difflib.get_close_matches(model.lower(), by_case, n=1)]
    near = near or [name for name in names if model.lower() in name.lower()]
    if near:
        return f"did you mean {' or '.join(near[:_MOST_NAMED])}?"
    if 0 < len(names) <= _MOST_NAMED:
        return f"name a model that the server has: {', '.join(names)}"
    return ""
