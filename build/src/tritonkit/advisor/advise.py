"""Ranks GPUs and precisions for one graph, a rate and a promise, and says why in sentences.

The model's cost comes from :mod:`~tritonkit.advisor.graph_cost`, times from :mod:`~tritonkit.advisor.latency` and
:mod:`~tritonkit.advisor.queueing`, prices from :mod:`tritonkit.gpus` or the caller.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

from tritonkit import gpus
from tritonkit.advisor import cpu, latency, queueing, serving
from tritonkit.advisor.graph_cost import Cost, Precision
from tritonkit.advisor.latency import Bound, Engine
from tritonkit.advisor.validation import rows
from tritonkit.errors import InputError
from tritonkit.gpus import Gpu

Verdict = Literal["best", "good", "too slow", "too large", "no peak"]
UTILIZATION = 0.8  # of a replica's largest rate; what is left takes bursts, and what a prediction is off
_AS_MUCH = 0.98  # of what the largest batch holds: less is a difference
_USABLE = 0.92  # of device memory: the rest is the driver's, and fragments
# Precisions of tritonkit's targets: int8 and fp8 for a GPU are TensorRT's alone (docs/guides/precision.md).
_PRECISIONS: Mapping[Engine, tuple[Precision, ...]] = {
    "onnxruntime": ("fp32", "fp16", "bf16"), "tensorrt": ("fp32", "fp16", "bf16", "int8", "fp8"),
}  # fmt: skip


@dataclass(frozen=True)
class Options:
    """What is to be served, and on what.

    Attributes:
        rps: Requests a second, of one sample each; None asks what one GPU can do.
        p99_ms: What 99 % of the answers stay within, in milliseconds; None promises nothing.
        gpus: Which to consider.
        engines: Which to consider.
        precisions: Which to consider.
        max_batch: The largest batch.
        instances: Of the model on a GPU.
        utilization: The largest share of a replica's rate.
        prices: US dollars an hour of one GPU, by key, before the catalogue's own; of ``cpu``, of one core.
        cpu: Whether one core of a CPU is considered, too.
    """

    rps: float | None = None
    p99_ms: float | None = None
    gpus: tuple[Gpu, ...] = field(default_factory=gpus.all)
    engines: tuple[Engine, ...] = ("onnxruntime", "tensorrt")
    precisions: tuple[Precision, ...] = ("fp32", "fp16")
    max_batch: int = 64
    instances: int = serving.INSTANCES
    utilization: float = UTILIZATION
    prices: Mapping[str, float] = field(default_factory=dict)
    cpu: bool = False

    def __post_init__(self) -> None:
        for name, value in (("--rps", self.rps), ("--p99-ms", self.p99_ms)):
            if value is not None and not (math.isfinite(value) and value > 0):
                raise InputError(f"{name} is {value:g}", "give a number above 0, or leave it out")
        if not 0 < self.utilization <= queueing.MOST_BUSY:
            raise InputError(
                f"--utilization is {self.utilization:g}", f"give a share above 0 and up to {queueing.MOST_BUSY}"
            )
        if self.max_batch < 1 or self.instances < 1:
            raise InputError(f"batch {self.max_batch}, instances {self.instances}", "both are 1 or more")
        for key, price in self.prices.items():
            if key != cpu.KEY:
                gpus.get(key)
            if not (math.isfinite(price) and price >= 0):
                raise InputError(f"the price of {key} is {price:g}", "give US dollars an hour, 0 or more")


@dataclass(frozen=True)
class Candidate:
    """One GPU with one engine and precision.

    Attributes:
        gpu: Key in the catalogue, or ``cpu``: one core.
        engine: What runs the graph.
        precision: Of the layers with weights.
        verdict: ``best`` is the cheapest that holds; without prices the one with the fewest GPUs.
        memory_gib: Of all instances.
        fits: Whether that is there.
        lone_ms: A request that meets no other.
        p99_ms: At the rate, on each of the replicas; None without a rate.
        bound: What most of a full batch's time goes to.
        batch: Requests in a batch on average at the rate; without one the best batch.
        most_rps: Requests a second of one replica, with no promise.
        holds_rps: Requests a second of one replica within the promise and the utilisation.
        replicas: GPUs for the rate; None where none are enough.
        utilization: Of the replicas at the rate.
        usd_per_hour: Of all replicas; None without a price.
        usd_per_million: For a million requests at the rate, or at ``holds_rps`` without one.
        measured: Whether rows of this GPU and engine were fitted on; else the figures carry over from other GPUs.
        reasons: Sentences.
    """

    gpu: str
    engine: Engine
    precision: Precision
    verdict: Verdict
    memory_gib: float
    fits: bool
    lone_ms: float | None
    p99_ms: float | None
    bound: Bound | None
    batch: float
    most_rps: float
    holds_rps: float
    replicas: int | None
    utilization: float | None
    usd_per_hour: float | None
    usd_per_million: float | None
    measured: bool
    reasons: tuple[str, ...]


@dataclass(frozen=True)
class Advice:
    """What is recommended, and all that was considered, the best first.

    Attributes:
        candidates: Ranked.
        notes: Sentences about all of them: what was counted as what, what the prices are of.
        impossible: Why no candidate holds the promise, and by how much; empty where one does.
    """

    candidates: tuple[Candidate, ...]
    notes: tuple[str, ...]
    impossible: str


def advise(batches: Mapping[int, Cost], options: Options) -> Advice:
    """Consider every GPU, engine and precision.

    Args:
        batches: Batch size to the graph's cost, from 1 to ``options.max_batch``.
        options: What is to be served.
    """
    candidates = [
        _candidate(batches, gpu, engine, precision, options)
        for gpu in options.gpus
        for engine in options.engines
        for precision in options.precisions
        if precision in _PRECISIONS[engine]
    ]
    if options.cpu and "onnxruntime" in options.engines:
        candidates += [_core(batches, name, options) for name in cpu.PRECISIONS if name in options.precisions]
    ranked = sorted(candidates, key=_rank)
    if ranked and ranked[0].verdict == "good":
        ranked[0] = _as_best(ranked[0], ranked)
    return Advice(tuple(ranked), tuple(_notes(batches, options)), _impossible(batches, ranked, options))


def largest_batch(batches: Mapping[int, Cost], candidate: Candidate, options: Options) -> int:
    """The smallest largest batch with which as few GPUs carry the rate, or one GPU holds as much: it saves memory.

    Args:
        batches: As for :func:`advise`.
        candidate: Of its advice.
        options: The same.
    """
    if candidate.gpu == cpu.KEY:
        return max(batches)
    gpu, known = gpus.get(candidate.gpu), latency.coefficients(candidate.engine)
    for largest in sorted(batches):
        some = {size: cost for size, cost in batches.items() if size <= largest}
        service = serving.service(some, gpu, candidate.precision, candidate.engine, known, options.instances)
        holds = service.most_rps * options.utilization
        if options.p99_ms is not None:
            holds = queueing.largest_rps(service, options.p99_ms, options.utilization)
        if candidate.replicas and options.rps and holds * candidate.replicas >= options.rps:
            return largest
        if not candidate.replicas and holds >= _AS_MUCH * candidate.holds_rps:
            return largest
    return max(batches)


def cheapest(advice: Advice) -> list[Candidate]:
    """The best candidate of each GPU, the best GPU first."""
    first: dict[str, Candidate] = {}
    for candidate in advice.candidates:
        first.setdefault(candidate.gpu, candidate)
    return list(first.values())


def _candidate(
    batches: Mapping[int, Cost], gpu: Gpu, engine: Engine, precision: Precision, options: Options
) -> Candidate:
    memory = serving.memory_bytes(batches, precision, options.instances)
    fits = memory <= gpu.memory_gib * 2**30 * _USABLE
    measured = (gpu.key, engine) in _measured()
    if not latency.supports(gpu, precision):
        why = f"{gpu.name} has no published {precision} peak: nothing is predicted"
        return Candidate(gpu.key, engine, precision, "no peak", memory / 2**30, fits, None, None, None, 0, 0, 0, None,
                         None, None, None, measured, (why,))  # fmt: skip
    known = latency.coefficients(engine)
    service = serving.service(batches, gpu, precision, engine, known, options.instances)
    holds, replicas, rate = _load(service, options)
    best = max(batches, key=lambda size: size / service.batch_ms[size])
    full = latency.predict(batches[best], gpu, precision, known)
    hour = options.prices.get(gpu.key)
    if hour is None and (price := gpus.price(gpu)):
        hour = price.usd_per_hour
    verdict: Verdict = "too large" if not fits else "too slow" if not holds else "good"
    return Candidate(
        gpu.key, engine, precision, verdict, memory / 2**30, fits, service.request_ms + service.ms(1),
        queueing.p99_ms(service, rate) if rate else None, full.bound,
        queueing.mean_batch(service, rate) if options.rps and rate else best, service.most_rps, holds, replicas,
        rate / service.most_rps if rate else None,
        None if hour is None else hour * (replicas or 1),
        None if hour is None or not rate else hour / (rate * 3600) * 1e6, measured,
        tuple(_reasons(gpu, precision, service, full, holds, options, memory, measured)),
    )  # fmt: skip


def _core(batches: Mapping[int, Cost], precision: cpu.Precision, options: Options) -> Candidate:
    """One core of the CPU that was measured; replicas are cores, with an instance each."""
    service = cpu.service(batches, precision, cpu.coefficients())
    holds, cores, rate = _load(service, options)
    hour = options.prices.get(cpu.KEY)
    best = max(batches, key=lambda size: size / service.batch_ms[size])
    where = "docs/measurements/serving.md"
    return Candidate(
        cpu.KEY, "onnxruntime", precision, "good" if holds else "too slow",
        cpu.memory_bytes(batches, precision) / 2**30, True, service.request_ms + service.ms(1),
        queueing.p99_ms(service, rate) if rate else None, "compute",
        queueing.mean_batch(service, rate) if options.rps and rate else best, service.most_rps, holds, cores,
        rate / service.most_rps if rate else None, None if hour is None else hour * (cores or 1),
        None if hour is None or not rate else hour / (rate * 3600) * 1e6, True,
        (f"of one core with one instance, of an AMD EPYC virtual machine ({where}): another CPU is another figure",),
    )  # fmt: skip


def _load(service: queueing.Service, options: Options) -> tuple[float, int | None, float]:
    """What one replica holds, how many the rate takes, and the rate of each."""
    holds = service.most_rps * options.utilization
    if options.p99_ms is not None:
        holds = queueing.largest_rps(service, options.p99_ms, options.utilization)
    replicas = math.ceil(options.rps / holds - 1e-9) if options.rps and holds else None
    return holds, replicas, options.rps / replicas if options.rps and replicas else holds


def _reasons(
    gpu: Gpu, precision: Precision, service: queueing.Service, full: latency.Prediction, holds: float,
    options: Options, memory: int, measured: bool,
) -> list[str]:  # fmt: skip
    total = full.ms
    shares = ", ".join(f"{name} {ms / total:.0%}" for name, ms in full.shares.items() if ms / total >= 0.05)
    reasons = [f"of a full batch's {total:.2f} ms: {shares}"]
    if memory > gpu.memory_gib * 2**30 * _USABLE:
        reasons.append(
            f"{options.instances} instances take {memory / 2**30:.1f} GiB, and {_USABLE:.0%} of {gpu.memory_gib} GiB "
            "can be used: fewer instances, or a smaller largest batch"
        )
    if service.most_rps >= serving.MOST_RPS:
        reasons.append(
            f"more than {serving.MOST_RPS:,} requests a second were measured of no server: none are promised"
        )
    elif service.limit_rps <= service.most_rps:
        reasons.append(f"{options.instances} instances carry {service.limit_rps:,.0f} requests a second at most")
    if options.p99_ms is not None and 0 < holds < service.most_rps * options.utilization * 0.999:
        reasons.append(
            f"within {options.p99_ms:g} ms a replica holds {holds:,.0f} of {service.most_rps:,.0f} requests a second"
        )
    if precision in {"int8", "fp8"}:
        reasons.append(f"only if the gate accepts {precision} for this model: `tritonkit build` measures its accuracy")
    if not measured:
        reasons.append("no measured row of this GPU with this engine: carried over from others' by published peaks")
    return reasons


def _rank(candidate: Candidate) -> tuple[float, ...]:
    order = {"best": 0, "good": 0, "too large": 1, "too slow": 2, "no peak": 3}[candidate.verdict]
    unpriced = candidate.usd_per_million is None
    cost = candidate.usd_per_hour if candidate.replicas else candidate.usd_per_million
    # At one price, the precision that asks least of the model's accuracy.
    risk = list(latency.BYTES).index(candidate.precision)
    return order, unpriced, cost or 0.0, candidate.replicas or 1, risk, -candidate.holds_rps


def _as_best(candidate: Candidate, ranked: Sequence[Candidate]) -> Candidate:
    from dataclasses import replace

    others = [other for other in ranked[1:] if other.verdict == "good" and other.gpu != candidate.gpu]
    reasons = list(candidate.reasons)
    if others and candidate.usd_per_million is not None and others[0].usd_per_million is not None:
        more = others[0].usd_per_million / candidate.usd_per_million - 1
        reasons.insert(0, f"the next GPU, {others[0].gpu}, costs {more:.0%} more a request")
    return replace(candidate, verdict="best", reasons=tuple(reasons))


def _notes(batches: Mapping[int, Cost], options: Options) -> list[str]:
    sample = batches[min(batches)]
    notes = [
        f"one sample: {sample.operations / 1e9:.2f} GFLOP, {sample.weights / 1e6:.1f} M weights in layers, "
        f"{sample.floats / 1e6:.1f} M numbers between layers, "
        f"{(sample.input_bytes + sample.output_bytes) / 1e3:.1f} kB of tensors"
    ]
    if options.rps:
        gbits = options.rps * (sample.input_bytes + sample.output_bytes) * 8 / 1e9
        notes.append(f"on the wire: {gbits:.2f} Gbit/s of tensors at {options.rps:g} requests a second")
    if sample.unknown:
        listed = ", ".join(f"{name} ({count})" for name, count in sample.unknown.items())
        notes.append(f"operators that are not known, counted as elementwise: {listed}")
    if sample.loops:
        notes.append(f"not counted: what runs inside {', '.join(dict.fromkeys(sample.loops))}")
    if sample.unsized:
        first = sample.unsized[0]
        notes.append(f"{len(sample.unsized)} nodes have shapes that depend on data, and count nothing: {first} …")
    listed_prices = (gpus.price(gpu) for gpu in options.gpus if gpu.key not in options.prices)
    price = next(filter(None, listed_prices), None)
    if price:
        notes.append(f"prices: {price.source}; {price.dated}; --price GPU=USD gives your own")
    return notes


def _impossible(batches: Mapping[int, Cost], ranked: Sequence[Candidate], options: Options) -> str:
    """Which bound forbids a promise, and by how much."""
    if not ranked or options.p99_ms is None:
        return ""
    if any(candidate.verdict in {"best", "good", "too large"} for candidate in ranked):
        return ""
    able = [candidate for candidate in ranked if candidate.lone_ms is not None and candidate.gpu != cpu.KEY]
    if not able:
        return ""
    quickest = min(able, key=lambda candidate: candidate.lone_ms or math.inf)
    gpu = gpus.get(quickest.gpu)
    alone = latency.predict(batches[1], gpu, quickest.precision, latency.coefficients(quickest.engine))
    parts: dict[str, float] = {"the way there and back": serving.REQUEST_MS} | dict(alone.shares.items())
    listed = ", ".join(f"{name} {ms:.2f}" for name, ms in sorted(parts.items(), key=lambda part: -part[1]))
    floor = _physical_ms(batches[1], gpu, quickest.precision)
    physical = (
        f"even at the GPU's published peaks one sample takes {floor:.3f} ms" if floor > options.p99_ms
        else f"the peaks of the GPU alone would allow {floor:.3f} ms: launches and the way there are what forbids it"
    )  # fmt: skip
    return (
        f"no GPU answers within {options.p99_ms:g} ms: a lone request takes {quickest.lone_ms:.2f} ms on the quickest, "
        f"{gpu.name} in {quickest.precision}, {(quickest.lone_ms or 0) - options.p99_ms:.2f} ms too long ({listed}); "
        f"{physical}"
    )


def _physical_ms(cost: Cost, gpu: Gpu, precision: Precision) -> float:
    """The least time that a GPU's published peaks allow: all operations, or all weights read once."""
    compute = cost.operations / (latency.tensor_peak(gpu, precision) * 1e12)
    memory = cost.weights * latency.BYTES[precision] / (gpu.bandwidth_gbs * 1e9)
    return max(compute, memory) * 1e3


@functools.cache
def _measured() -> frozenset[tuple[str, str]]:
    return frozenset((row.gpu, row.engine) for row in rows())
