"""What `make bench-gpu` measured: written by bench_gpu.py, drawn by gpupage.py; JSON both ways.

Parts that were measured in separate calls are put together by :meth:`GpuResult.merged`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, TypeVar

from pydantic import TypeAdapter

Json = dict[str, Any]
Part = TypeVar("Part")


@dataclass(frozen=True)
class Spread:
    """A figure over rounds: the median, the lowest and the highest, and how many there were."""

    median: float
    low: float
    high: float
    rounds: int


@dataclass(frozen=True)
class Memory:
    """Bytes on a GPU.

    Attributes:
        instances: Copies that the figures are of, on one GPU.
        context: CUDA's context, for one instance, as the backend reports it.
        session: The weights and what onnxruntime adds, likewise.
        sizes: All prepared sizes, likewise.
        device: What the driver says of all instances: in use with them, less in use without them.
    """

    instances: int
    context: int
    session: int
    sizes: int
    device: int

    @property
    def reported(self) -> int:
        """What the backend reports, of all instances."""
        return self.instances * (self.context + self.session + self.sizes)


@dataclass(frozen=True)
class InProcess:
    """One graph in one process, without a server; milliseconds a batch, copies from and to the host included.

    Attributes:
        model: The recipe's name.
        precision: The variant.
        tokens: Of each text; 0 for images.
        error: The largest difference of any output from onnxruntime's on the CPU, over the largest output.
        changing_ms: A batch where batch sizes change all the time, on onnxruntime as it comes.
        plain_ms: Batch size to a batch where sizes never change, on onnxruntime as it comes.
        prepared_ms: Batch size to a batch at prepared sizes.
        alternating: Prepared sizes in random order, over the same sizes each by itself.
        per_s: Samples a second in batches of the largest size; what served figures are held against.
        size_ms: Prepared size to milliseconds of its graph alone, without copies.
        size_bytes: Prepared size to what preparing it took of the GPU's memory; the largest is prepared first, and
            what it took serves the others too.
        prepare_s: Seconds that preparing all sizes took.
        graphs: Whether sizes are replayed as CUDA graphs.
        memory: Of one instance.
    """

    model: str
    precision: str
    tokens: int
    error: float
    changing_ms: Spread | None
    plain_ms: dict[int, Spread]
    prepared_ms: dict[int, Spread]
    alternating: Spread
    per_s: Spread
    size_ms: dict[str, float]
    size_bytes: dict[str, int]
    prepare_s: float
    graphs: bool
    memory: Memory


@dataclass(frozen=True)
class Load:
    """One number of requests in flight.

    Attributes:
        in_flight: The number.
        rate: Requests a second, one sample each.
        p50_ms: Median latency.
        p99_ms: 99th percentile.
        batch: Samples in Triton's batches, on average.
        failed: Requests that failed.
        server_cores: CPU that tritonserver used, in cores.
        instance_cores: CPU that all instances used.
        caller_cores: CPU that the callers used.
    """

    in_flight: int
    rate: Spread
    p50_ms: Spread
    p99_ms: Spread
    batch: float
    failed: int
    server_cores: float
    instance_cores: float
    caller_cores: float


@dataclass(frozen=True)
class Served:
    """One model behind Triton, with one number of instances.

    Attributes:
        model: The recipe's name.
        precision: The variant.
        instances: Copies, on each GPU.
        gpus: GPUs that it runs on.
        ready_s: Seconds until the server was ready.
        loads: By requests in flight.
        alone_per_s: Samples a second in process at the largest batch, in the same rounds.
        alone_ms: One sample in process, in the same rounds.
        ratio: The largest rate of each round, over in process.
        above_ms: p50 with one request in flight, less one sample in process; None where it was not measured.
        memory: On the first GPU.
    """

    model: str
    precision: str
    instances: int
    gpus: int
    ready_s: float
    loads: tuple[Load, ...]
    alone_per_s: Spread
    alone_ms: Spread
    ratio: Spread
    above_ms: Spread | None
    memory: Memory


@dataclass(frozen=True)
class Mixed:
    """Texts of many lengths against texts of one.

    Attributes:
        model: The recipe's name.
        precision: The variant.
        where: ``in process`` or ``served``.
        lengths: What was mixed, and with what it is compared, in words.
        mixed_per_s: Tokens a second, lengths mixed.
        equal_per_s: Tokens a second, lengths equal.
        ratio: The first over the second, by rounds.
        error: The largest difference of a mixed answer from the same text's alone and unpadded, over the largest
            output.
        tolerance: What parity allows for rows of a batch.
    """

    model: str
    precision: str
    where: str
    lengths: str
    mixed_per_s: Spread
    equal_per_s: Spread
    ratio: Spread
    error: float
    tolerance: float


@dataclass(frozen=True)
class Scaling:
    """Two GPUs beside one, both with the same instances on each GPU.

    Attributes:
        model: The recipe's name.
        precision: The variant.
        instances: On each GPU.
        gpus: How many.
        in_flight: Requests.
        one: Requests a second on the first GPU.
        all: Requests a second on all of them.
        ratio: The second over the first, by rounds.
    """

    model: str
    precision: str
    instances: int
    gpus: int
    in_flight: int
    one: Spread
    all: Spread
    ratio: Spread


@dataclass(frozen=True)
class GateRow:
    """What the gate of a build made of one variant."""

    model: str
    precision: str
    verdict: str
    why: str


@dataclass(frozen=True)
class GpuResult:
    """Everything that was measured.

    Attributes:
        created: ISO time with its zone, of the last part.
        command: As typed, for the last part.
        environment: {"gpu": …, "cores": …}: what the figures depend on.
        gate: Verdicts on the variants.
        in_process: Graphs in one process.
        served: Models behind Triton.
        mixed: Texts of mixed lengths.
        scaling: Several GPUs.
    """

    created: str
    command: str
    environment: dict[str, str]
    gate: tuple[GateRow, ...] = ()
    in_process: tuple[InProcess, ...] = ()
    served: tuple[Served, ...] = ()
    mixed: tuple[Mixed, ...] = ()
    scaling: tuple[Scaling, ...] = ()

    def to_json(self) -> Json:
        """Plain data for json.dumps."""
        return asdict(self)

    @classmethod
    def from_json(cls, data: Json) -> GpuResult:
        """The result back; raises pydantic's ValidationError, which names the field, where the data does not fit."""
        return TypeAdapter(cls).validate_python(data)

    def merged(self, earlier: GpuResult) -> GpuResult:
        """This result with the parts of an earlier one that it does not measure anew."""
        return replace(
            self,
            environment=earlier.environment | self.environment,
            gate=_merged(earlier.gate, self.gate, lambda row: (row.model, row.precision)),
            in_process=_merged(earlier.in_process, self.in_process, lambda row: (row.model, row.precision)),
            served=_merged(
                earlier.served, self.served, lambda row: (row.model, row.precision, row.instances, row.gpus)
            ),
            mixed=_merged(earlier.mixed, self.mixed, lambda row: (row.model, row.precision, row.where)),
            scaling=_merged(earlier.scaling, self.scaling, lambda row: (row.model, row.precision, row.in_flight)),
        )


def _merged(earlier: Sequence[Part], later: Sequence[Part], key: Callable[[Part], tuple[Any, ...]]) -> tuple[Part, ...]:
    """Both, in a fixed order; of two with the same key the later one."""
    parts = {key(part): part for part in (*earlier, *later)}
    return tuple(parts[name] for name in sorted(parts))
