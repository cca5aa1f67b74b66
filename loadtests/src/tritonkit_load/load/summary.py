"""Makes a result of a recording: percentiles, rates, and whether the generator may be believed."""

from __future__ import annotations

import functools
import sys
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime

import numpy as np
from hdrh.histogram import HdrHistogram
from numpy.typing import NDArray

from tritonkit_load.load import arrivals, slo
from tritonkit_load.load.plan import Plan
from tritonkit_load.load.recording import SECOND_DIGITS, Counts, Recording, SecondCounts, encoded, histogram
from tritonkit_load.load.result import (
    GeneratorHealth,
    Load,
    ModelResult,
    Percentiles,
    Point,
    Result,
    Second,
    ServerSide,
)
from tritonkit_load.load.slo import Slo

LATEST_MS = 5.0  # p99 of lateness; with more, the schedule is not the one that was asked for
BUSIEST = 0.9  # of one core; above, the generator measures itself


@dataclass(frozen=True)
class Context:
    """What a recording does not say.

    Attributes:
        plan: With the duration that it really has.
        protocol, host: Where it went.
        processes: How many sent.
        weights: Of the models.
        slos: By model; what is not in it is not judged.
        environment: The machine.
        command: What was typed.
        alone_ms: By model, the fastest request before the test.
        server: By model, the server's side.
    """

    plan: Plan
    protocol: str
    host: str
    processes: int
    weights: Mapping[str, float]
    slos: Mapping[str, Slo | None]
    environment: Mapping[str, str]
    command: str = field(default_factory=lambda: " ".join(sys.argv))
    alone_ms: Mapping[str, float] = field(default_factory=dict)
    server: Mapping[str, ServerSide] = field(default_factory=dict)


def result(recording: Recording, context: Context) -> Result:
    """All figures of one load test."""
    plan = context.plan
    seconds = recording.measured_s
    models = {name: _model(name, recording.models.get(name, Counts()), seconds, context) for name in context.weights}
    health = _health(recording, plan, sum(model.requests for model in models.values()))
    partial = recording.stopped
    load_test = Result(
        created=datetime.now(UTC).isoformat(timespec="seconds"),
        command=context.command,
        partial=partial,
        environment=dict(context.environment),
        load=Load(
            context.protocol, context.host, "open" if plan.open else "closed", plan.arrivals,
            None if plan.open else plan.users, context.processes, plan.warm_up_s, round(seconds, 3),
            plan.batch_sizes, plan.lengths, plan.seed, dict(context.weights),
        ),
        models=models,
        series=_series(recording),
        generator=health,
        verdict=slo.judge(models, valid=health.valid and not partial),
    )  # fmt: skip
    return replace(load_test, curve=_curve(recording, plan, load_test))


def _model(name: str, counts: Counts, seconds: float, context: Context) -> ModelResult:
    model_slo = context.slos.get(name)
    failed = sum(counts.errors.values())
    requests = counts.succeeded + failed
    good = None if model_slo is None or model_slo.latency_ms is None else within(counts.latency, model_slo.latency_ms)
    latency, service = percentiles(counts.latency), percentiles(counts.service)
    server = context.server.get(name)
    network_ms = service.mean - server.request_ms if service and server and server.requests else None
    if network_ms is not None and network_ms < 0:
        network_ms = None  # the server's means are not of these requests alone

    def a_second(number: int) -> float:
        return number / seconds if seconds else 0.0

    return ModelResult(
        requests=requests,
        failed=failed,
        offered=a_second(requests),
        throughput=a_second(counts.completed),
        goodput=None if good is None else a_second(good),
        latency=latency,
        service=service,
        first_response=percentiles(counts.first) if counts.first else None,
        histogram=encoded(counts.latency),
        service_histogram=encoded(counts.service),
        errors=dict(counts.errors.most_common()),
        messages=dict(counts.messages),
        alone_ms=context.alone_ms.get(name),
        slo=model_slo,
        server=server,
        network_ms=network_ms,
        explained=_explained(latency, service, server, network_ms),
    )


def percentiles(hdr: HdrHistogram) -> Percentiles | None:
    """The percentiles in milliseconds of a histogram of microseconds; None where it is empty."""
    if not hdr.get_total_count():
        return None
    values = hdr.get_percentile_to_value_dict([50.0, 90.0, 95.0, 99.0, 99.9, 100.0])
    lowest, highest = _bounds(hdr.significant_figures)
    mean_us = np.dot(hdr.counts, (lowest + highest) / 2) / hdr.get_total_count()
    return Percentiles(float(mean_us) / 1000, *(value / 1000 for value in values.values()))


def within(hdr: HdrHistogram, latency_ms: float) -> int:
    """How many of a histogram's values are no larger, to its resolution."""
    _, highest = _bounds(hdr.significant_figures)
    return int(np.array(hdr.counts)[highest <= latency_ms * 1000].sum())


@functools.cache
def _bounds(digits: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """The smallest and the largest value (microseconds) of each of a histogram's counters.

    The library would go through the counters one by one in Python, for every mean.
    """
    empty = histogram(digits)
    lowest = [empty.get_value_from_index(index) for index in range(empty.counts_len)]
    return np.array(lowest), np.array([empty.get_highest_equivalent_value(value) for value in lowest])


def _health(recording: Recording, plan: Plan, requests: int) -> GeneratorHealth:
    late = percentiles(recording.lateness) if plan.open else None
    cpu = max((usage.cpu_s / usage.wall_s for usage in recording.cpu.values() if usage.wall_s), default=0.0)
    spent_ms = sum(usage.cpu_s for usage in recording.cpu.values()) * 1000
    why = list(recording.problems)
    if late is not None and late.p99 > LATEST_MS:
        why.append(f"1 % of the requests left {late.p99:.1f} ms or more after their time; {LATEST_MS:g} ms are allowed")
    if cpu >= BUSIEST:
        why.append(f"a generator process used {cpu:.0%} of a core; use more processes, or another machine")
    elif (shared := _crowded(recording)) >= BUSIEST:
        why.append(f"the generator's processes used {shared:.0%} of the cores that they share; give them more cores")
    if recording.capped:
        why.append(f"{recording.capped} requests were not sent, as too many were without an answer: a lower rate")
    if not requests:
        why.append("no request was sent in the measured seconds")
    return GeneratorHealth(
        late.p50 if late else None, late.p99 if late else None, late.max if late else None,
        cpu, spent_ms / requests if requests else 0.0, recording.capped, not why, tuple(why),
    )  # fmt: skip


def _crowded(recording: Recording) -> float:
    """The largest share of the cores of some processes that these used together: none may look busy by itself."""
    together: dict[tuple[str, tuple[int, ...]], float] = defaultdict(float)
    for name, usage in recording.cpu.items():
        if usage.cores and usage.wall_s:
            together[name.rpartition(":")[0], usage.cores] += usage.cpu_s / usage.wall_s
    return max((used / len(cores) for (_, cores), used in together.items()), default=0.0)


def _explained(
    latency: Percentiles | None, service: Percentiles | None, server: ServerSide | None, network_ms: float | None
) -> str:
    if latency is None or service is None:
        return "No request succeeded."
    waited = latency.mean - service.mean
    text = f"Of {latency.mean:.2f} ms that a request took on average, "
    before = f"{waited:.2f} ms passed before it was sent, " if waited >= 0.005 else ""
    if server is None or network_ms is None:
        text += f"{before}{service.mean:.2f} ms from there to its answer."
        if server is None or not server.requests:
            return text
        return (
            f"{text} The server's mean is {server.request_ms:.2f} ms, of {server.requests} successes: it counts those "
            "for which nobody waited any more, those of the end of a warm-up, and those of other callers, too."
        )
    rest = server.request_ms - server.queue_ms - server.compute_ms
    return (
        f"{text}{before}{server.queue_ms:.2f} ms in the server's queue, {server.compute_ms:.2f} ms in the model "
        f"(with its batch), {rest:.2f} ms elsewhere in the server, and {network_ms:.2f} ms in network, client and "
        "generator."
    )


def _series(recording: Recording) -> tuple[Second, ...]:
    """Every second from the first to the last that anything happened in."""
    numbers = recording.seconds.keys()
    seconds, in_flight = [], 0
    for number in range(min(numbers, default=0), max(numbers, default=-1) + 1):
        second = recording.seconds.get(number, SecondCounts())
        in_flight += second.offered - second.completed - second.failed
        p50_ms, p99_ms = (
            second.latency.get_value_at_percentile(share) / 1000 if second.latency else None for share in (50, 99)
        )
        seconds.append(
            Second(float(number), second.offered, second.completed, second.failed, p50_ms, p99_ms, in_flight)
        )
    return tuple(seconds)


def _curve(recording: Recording, plan: Plan, load_test: Result) -> tuple[Point, ...]:
    """A point for each step of a schedule that the test came to the end of; of whole seconds."""
    if plan.arrivals is None or not plan.arrivals.strip().startswith("steps:"):
        return ()  # a recording would be read again, and may be gone
    steps = arrivals.parse(plan.arrivals).steps(plan.duration_s)
    return tuple(_point(recording, step, load_test) for step in steps if step.end_s <= recording.measured_s + 1e-6)


def _point(recording: Recording, step: arrivals.Step, load_test: Result) -> Point:
    numbers = range(-int(-step.start_s // 1), int(step.end_s // 1))
    seconds = [recording.seconds.get(number, SecondCounts()) for number in numbers]
    latency = histogram(SECOND_DIGITS)
    for second in seconds:
        if second.latency is not None:
            latency.add(second.latency)
    completed, failed = sum(counts.completed for counts in seconds), sum(counts.failed for counts in seconds)
    quantiles = percentiles(latency)
    error_rate = failed / (completed + failed) if completed + failed else 0.0
    met = None
    if load_test.slo is not None:
        offered = sum(counts.offered for counts in seconds)
        bound = load_test.slo.latency_ms
        share = within(latency, bound) / offered if bound is not None and offered else None
        met = all(check.met for check in slo.checks("", load_test.slo, quantiles, error_rate, share))
    return Point(
        step.rate, completed / len(numbers), quantiles.p50 if quantiles else None,
        quantiles.p99 if quantiles else None, error_rate, load_test.generator.valid, met,
    )  # fmt: skip
