"""The parts of a model's passport, each a frozen model of one key: parity, gate, queue, tuning, forest …"""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, ConfigDict

Number = int | float  # a whole number stays one in the file


class Section(BaseModel):
    """A part of a passport; keys that it does not know stay."""

    model_config = ConfigDict(frozen=True, extra="allow", protected_namespaces=())


class Measurement(Section):
    """How far two computations of one output are apart (:class:`tritonkit.parity.Measurement`)."""

    check: str
    output: str = ""
    inputs: str = ""
    max_abs: Number = 0.0
    relative: Number = 0.0


class ForestParity(Section):
    """How far the backend's scores are from the library's own (:class:`tritonkit.trees.checks.Parity`)."""

    library: str
    version: str = ""
    real_rows: int = 0
    probe_rows: int = 0
    absolute: Number = 0.0
    relative: Number = 0.0
    changed_on_gpu: int = 0


class DeviceMemory(Section):
    """What one instance takes of a GPU, in bytes (:class:`tritonkit.sized_session.DeviceMemory`)."""

    device: str = ""
    context_bytes: int = 0
    session_bytes: int = 0
    sizes_bytes: int = 0

    @property
    def instance_bytes(self) -> int:
        """All of it: each instance is a process with a context, a session and prepared sizes of its own."""
        return self.context_bytes + self.session_bytes + self.sizes_bytes


class GateRow(Section):
    """The measurements of one variant, and the verdict (:class:`tritonkit.precision.gate.Row`)."""

    precision: str
    verdict: str
    why: str = ""
    accuracy: dict[str, Number | None] = {}
    graph_bytes: int = 0
    single_ms: Number | None = None
    batched_ms: Number | None = None
    batch: int = 0
    throughput: Number | None = None
    faster: tuple[Number, Number, Number] | None = None
    seconds: Number = 0.0
    notes: dict[str, Any] | None = None
    accurate: bool = True
    memory: DeviceMemory | None = None


class Gate(Section):
    """What the gate looked at.

    Attributes:
        judged_on: Samples that accuracy was measured on.
        variants: One row for each of them, simplest first.
        machine: The processor that times were measured on; None where none were.
    """

    judged_on: int = 0
    variants: tuple[GateRow, ...] = ()
    machine: str | None = None


class Queue(Section):
    """How many requests may wait, and for how long (:class:`tritonkit.queue_limits.QueueLimits`).

    Attributes:
        at_once: Instances that work at full speed at the same time.
    """

    preferred_batch_size: int
    max_queue_size: int
    queue_timeout_ms: int
    requests_per_s: Number
    slo_ms: Number
    service_ms: Number
    measured: bool = False
    at_once: int | None = None


class Tf32(Section):
    """Whether a GPU may round to TF32, and what that costs: the largest error over the largest magnitude."""

    allowed: bool = True
    largest_error: Number | None = None


class WrittenBy(Section):
    """The library that wrote a forest's file."""

    library: str = ""
    version: str = ""


class Forest(Section):
    """A forest of trees (:meth:`tritonkit.trees.checks.Checked.as_json`)."""

    engine: str = ""
    model_type: str = ""
    written_by: WrittenBy | None = None
    prediction: str = ""
    task: str = ""
    features: int = 0
    classes: int = 0
    trees: int = 0
    depth: int = 0
    nodes: int = 0
    categorical: tuple[int, ...] = ()
    fp64: bool = False
    file_bytes: int = 0
    notes: tuple[str, ...] = ()


class KvCache(Section):
    """The cache of keys and values (:meth:`tritonkit.llm.kv_cache.KvCache.as_json`)."""

    kind: str = ""
    bytes_per_token: int = 0
    groups: tuple[dict[str, Any], ...] = ()


class Adapter(Section):
    """A LoRA adapter of a language model."""

    rank: int = 0
    base: str | None = None


class LanguageModel(Section):
    """A language model (:func:`tritonkit.llm.pipeline.language_model`)."""

    engine: str = ""
    architecture: str = ""
    dtype: str = ""
    quantization: str = "none"
    max_model_len: int = 0
    tensor_parallel_size: int = 1
    parameters: int = 0
    checkpoint_bytes: int = 0
    weights_bytes: int = 0
    kv_cache: KvCache = KvCache()
    adapters: dict[str, Adapter] = {}
    notes: tuple[str, ...] = ()
    mounted: str | None = None


class TuningLoad(Section):
    """The load that a tuned configuration was measured under.

    Attributes:
        arrivals: How requests are spread over time.
        batch_sizes: Samples in a request, as the load test's option has them.
    """

    arrivals: str = ""
    batch_sizes: str = ""


class Tuning(Section):
    """What `make tune` measured of the configuration (:mod:`tritonkit.tuned`).

    Attributes:
        capacity: Requests a second within the SLO.
        throughput: Requests a second of a server that was never idle; None where that was not seen.
    """

    measured: str = ""
    slo: dict[str, Any] = {}
    load: TuningLoad = TuningLoad()
    settings: dict[str, Any] = {}
    capacity: Number | None = None
    interval: tuple[Number | None, ...] | None = None
    throughput: Number | None = None
