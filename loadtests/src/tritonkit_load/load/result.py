"""What a load test found, as plain data that survives JSON: the one thing that reports, tuning and comparisons read.

It computes nothing: :mod:`.load.summary` fills it from a recording, :mod:`.load.slo` judges it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

from pydantic import TypeAdapter, ValidationError

from tritonkit.errors import InputError
from tritonkit.recipe import Slo


@dataclass(frozen=True)
class Load:
    """What was sent.

    Attributes:
        protocol: ``grpc``, ``http``, ``grpc stream``, or what a user class of another server calls it.
        host: Where it went.
        loop: ``open``: requests leave when the schedule says; ``closed``: when the answer before is there.
        arrivals: The schedule of an open loop, for example ``poisson:100``.
        users: Callers of a closed loop.
        processes: Generator processes that shared the load.
        warm_up_s: Seconds before the measured ones; what was scheduled in them is in no figure.
        duration_s: Seconds that were measured; less than planned where the run was cut short.
        batch_sizes: The distribution of samples a request, for example ``1``.
        lengths: The distribution of the dynamic dimension's size, or ``as sampled``.
        seed: Of the schedule and of every choice.
        models: Model name to its share of the requests, as weights.
    """

    protocol: str
    host: str
    loop: Literal["open", "closed"]
    arrivals: str | None
    users: int | None
    processes: int
    warm_up_s: float
    duration_s: float
    batch_sizes: str
    lengths: str
    seed: int
    models: dict[str, float]


@dataclass(frozen=True)
class Percentiles:
    """Milliseconds; of the requests that succeeded."""

    mean: float
    p50: float
    p90: float
    p95: float
    p99: float
    p999: float
    max: float


@dataclass(frozen=True)
class ServerSide:
    """What Triton counted for one model during the measured seconds; times are means a request, in milliseconds.

    Attributes:
        requests: That succeeded, in the server's eyes.
        inferences: Samples.
        executions: Runs of the model; one serves a whole batch.
        average_batch: Inferences an execution.
        batch_sizes: Batch size to executions of that size.
        request_ms: From the request's arrival to its answer.
        queue_ms: Waiting for an instance.
        compute_ms: The sum of the three below.
        compute_input_ms, compute_infer_ms, compute_output_ms: Gathering the batch, running the model, handing out.
        gpu_utilization: Mean over the run, 0 to 1; None without a GPU or without Triton's metrics.
        gpu_memory_bytes: Largest use over the run.
    """

    requests: int
    inferences: int
    executions: int
    average_batch: float
    batch_sizes: dict[int, int]
    request_ms: float
    queue_ms: float
    compute_ms: float
    compute_input_ms: float
    compute_infer_ms: float
    compute_output_ms: float
    gpu_utilization: float | None = None
    gpu_memory_bytes: int | None = None

    @staticmethod
    def from_json(data: dict[str, Any]) -> ServerSide:
        """Read what `dataclasses.asdict` made, through JSON or not."""
        return TypeAdapter(ServerSide).validate_python(data)


@dataclass(frozen=True)
class ModelResult:
    """One model's figures, warm-up excluded.

    Attributes:
        requests: Scheduled requests that have an answer or an error; those that were never sent have one.
        failed: Those with an error.
        offered: Scheduled requests a second.
        throughput: Successes that came, a second: below ``offered`` where a queue grows.
        goodput: Scheduled requests that succeeded within the SLO's latency, a second; None where it names none.
        latency: From the scheduled arrival to the answer; None where nothing succeeded.
        service: From the actual send to the answer: without what the generator itself was late.
        first_response: Of streams: from the scheduled arrival to the first response.
        histogram: HDR histogram of ``latency`` in microseconds, as base64 (`hdrhistogram`'s ``encode``).
        service_histogram: The same of ``service``.
        errors: Type of error to count.
        messages: Type of error to the first message of it.
        alone_ms: The fastest of some requests sent one after the other before the test: no load makes it faster.
        slo: What the model was held against.
        server: The other side of the wire; None where nobody asked it, or it is not Triton.
        network_ms: Mean ``service`` less the server's mean time a request: network, client and generator; None where
            the server's is larger, as it counted requests that are not among these.
        explained: One sentence: why client and server differ.
    """

    requests: int
    failed: int
    offered: float
    throughput: float
    goodput: float | None
    latency: Percentiles | None
    service: Percentiles | None
    first_response: Percentiles | None
    histogram: str
    service_histogram: str
    errors: dict[str, int]
    messages: dict[str, str]
    alone_ms: float | None = None
    slo: Slo | None = None
    server: ServerSide | None = None
    network_ms: float | None = None
    explained: str = ""

    @property
    def error_rate(self) -> float:
        """Failed requests over all of them."""
        return self.failed / self.requests if self.requests else 0.0


@dataclass(frozen=True)
class Second:
    """One second of the run, all models together, warm-up included (its ``t_s`` is negative).

    Attributes:
        t_s: When it began, from the end of the warm-up.
        offered: Arrivals scheduled in it.
        completed, failed: Answers and errors that came in it.
        p50_ms, p99_ms: Latency of the arrivals scheduled in it, to 1 %; None where none of them succeeded.
        in_flight: Arrivals without an answer at its end.
    """

    t_s: float
    offered: int
    completed: int
    failed: int
    p50_ms: float | None
    p99_ms: float | None
    in_flight: int


@dataclass(frozen=True)
class GeneratorHealth:
    """Whether the generator did what it was told; a run in which it did not says nothing about the server.

    Attributes:
        lateness_p50_ms, lateness_p99_ms, lateness_max_ms: Actual send less schedule; None in a closed loop, which
            has no schedule.
        cpu: The largest share of one core that any of its processes used, measured seconds only.
        cpu_ms_per_request: CPU time of all its processes a request.
        capped: Arrivals that were not sent as too many were without an answer: the server is too slow for them.
        valid: Whether the figures may be used.
        why: What makes them invalid.
    """

    lateness_p50_ms: float | None
    lateness_p99_ms: float | None
    lateness_max_ms: float | None
    cpu: float
    cpu_ms_per_request: float
    capped: int
    valid: bool
    why: tuple[str, ...]


@dataclass(frozen=True)
class Check:
    """One bound of an SLO: what was wanted and what was found, in the unit that ``name`` says.

    Attributes:
        model: Whose.
        name: ``p99_ms``, ``error_rate``, ``goodput``, ...
        wanted: The bound: at most, but at least for ``goodput``.
        found: None where nothing succeeded.
        met: Whether it holds.
    """

    model: str
    name: str
    wanted: float
    found: float | None
    met: bool


@dataclass(frozen=True)
class Verdict:
    """Whether the SLO was met (None: there is none), and whether the run may say so.

    Attributes:
        met: Every check is met.
        valid: The generator kept up, and the run is whole.
        checks: All of them.
        note: What a person should know beside it: that no rate can meet this SLO, for example.
    """

    met: bool | None
    valid: bool
    checks: tuple[Check, ...]
    note: str = ""


@dataclass(frozen=True)
class Point:
    """One rate of a latency-throughput curve.

    Attributes:
        rate: Arrivals a second that were asked for.
        throughput: Successes a second.
        p50_ms, p99_ms: From the scheduled arrival; None where nothing succeeded.
        error_rate: Failed requests over all of them.
        valid: Whether the generator kept up.
        met: Whether the SLO was met; None where there is none.
    """

    rate: float
    throughput: float
    p50_ms: float | None
    p99_ms: float | None
    error_rate: float
    valid: bool
    met: bool | None


@dataclass(frozen=True)
class Limit:
    """The highest rate that meets an SLO, requests a second.

    Attributes:
        rate: It met the SLO in each of ``confirmed`` runs.
        low, high: Where the limit lies with a probability of 95 %; ``high`` is None where nothing was missed.
        confirmed: Runs at ``rate`` that met it.
        at_least: The limit may be higher: the generator could not send more, or the search was ended.
    """

    rate: float
    low: float
    high: float | None
    confirmed: int
    at_least: bool = False


@dataclass(frozen=True)
class Result:
    """One load test.

    Attributes:
        created: ISO 8601.
        command: What a person would type to run it again.
        partial: Whether it was cut short.
        environment: cpu, cores, gpu, python, triton, onnxruntime, locust.
        load, models, series, generator, verdict: See there.
        curve: Where the rate was stepped; else empty.
        capacity: Where it was searched for; the run is then the last one at that rate.
    """

    created: str
    command: str
    partial: bool
    environment: dict[str, str]
    load: Load
    models: dict[str, ModelResult]
    series: tuple[Second, ...]
    generator: GeneratorHealth
    verdict: Verdict
    curve: tuple[Point, ...] = ()
    capacity: Limit | None = None

    @property
    def slo(self) -> Slo | None:
        """The SLO that all models were held against; None where they differ or there is none."""
        slos = [model.slo for model in self.models.values()]
        return slos[0] if slos and all(slo == slos[0] for slo in slos) else None

    @property
    def model(self) -> ModelResult:
        """The only model of a run with one."""
        (model,) = self.models.values()
        return model

    def to_json(self) -> dict[str, Any]:
        """Plain data; :meth:`from_json` reads it."""
        data: dict[str, Any] = _ADAPTER.dump_python(self, mode="json")
        return data

    @staticmethod
    def from_json(data: dict[str, Any]) -> Result:
        """The inverse of :meth:`to_json`.

        Raises:
            InputError: The data is not a load test's result.
        """
        try:
            return _ADAPTER.validate_python(data, strict=False)
        except ValidationError as error:
            where = ".".join(map(str, error.errors()[0]["loc"]))
            raise InputError(
                f"this is no load test result: {where}: {error.errors()[0]['msg']}", "give a result.json"
            ) from error


_ADAPTER = TypeAdapter(Result)
