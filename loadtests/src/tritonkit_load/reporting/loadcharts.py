"""The charts of a load test's page; every point in them is one of the result's."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

from hdrh.histogram import HdrHistogram

from tritonkit.recipe import Slo
from tritonkit_load.load import arrivals
from tritonkit_load.load.result import Load, ModelResult, Percentiles, Point, Second, ServerSide
from tritonkit_load.reporting import chart, rows
from tritonkit_load.reporting.axis import NINES, Axis, Clock, Linear, Percentile, Whole, fitting
from tritonkit_load.reporting.page import counted, short

LITTLE = 0.005  # of a mean latency: less is not worth a line
FEW = 10  # requests: with fewer, a percentile curve shows chance
STEPS = 240  # of a line over time; more would blur it
SHARES = {"p50_ms": 0.5, "p95_ms": 0.95, "p99_ms": 0.99}
TIME = Axis("seconds since the warm-up, as in ARRIVALS", Clock)
PARTS = {  # what a mean latency is made of, in the order in which a request meets it
    "late": "before it was sent", "network": "network and client", "queue": "queue", "compute": "compute",
    "rest": "rest of the server",
}  # fmt: skip


def curve(points: Sequence[Point], slo: Slo | None) -> str:
    """Latency against throughput; invalid points are hollow."""
    lines: list[chart.Mark] = [
        chart.Line("p99", [(point.throughput, _or_nan(point.p99_ms)) for point in points]),
        chart.Line("p50", [(point.throughput, _or_nan(point.p50_ms)) for point in points]),
    ]
    odd = [point for point in points if not point.valid]
    lines += [
        chart.Dots("p99 hollow", [(point.throughput, _or_nan(point.p99_ms)) for point in odd], radius=3.5),
        chart.Dots("p50 hollow", [(point.throughput, _or_nan(point.p50_ms)) for point in odd], radius=3.5),
    ]
    words = "; ".join(
        f"at {short(point.rate)} requests per second offered: {short(point.throughput)} answered, "
        f"p50 {short(point.p50_ms)} ms, p99 {short(point.p99_ms)} ms"
        for point in points
    )
    both = [_or_nan(height) for point in points for height in (point.p50_ms, point.p99_ms)]
    return chart.draw(
        "Latency against throughput", words, Axis("answered per second", Linear), fitting("latency, ms", both), lines,
        level=_limit(slo),
    )  # fmt: skip


def percentiles(name: str, model: ModelResult, load: Load) -> str | None:
    """The percentile curve of both latencies, with the SLO's bounds as rings; None where there are too few requests."""
    quantiles = _quantiles(model.histogram)
    if len(quantiles) == 0:
        return None
    marks: list[chart.Mark] = []
    if load.loop == "open":
        marks.append(chart.Line("service thin", _quantiles(model.service_histogram), marked=False))
    marks.append(chart.Line("latency", quantiles, marked=False))
    largest = quantiles[-1][1]
    bounds = {key: getattr(model.slo, key) for key in SHARES} if model.slo else {}
    rings = [(SHARES[key], bound) for key, bound in bounds.items() if bound and bound <= chart.FAR * largest]
    for share, bound in rings:
        missed = next(value for at, value in reversed(quantiles) if at <= share) > bound
        marks.append(chart.Dots("limit hollow", [(share, bound)], ["SLO"], radius=4.5, above=not missed))
    words = ", ".join(f"{key} {short(value)} ms" for key, value in _listed(model.latency))
    return chart.draw(
        f"{name}: latency by percentile", f"From the scheduled arrival: {words}",
        Axis("percent of requests", Percentile), fitting("latency, ms", (value for _, value in [*quantiles, *rings])),
        marks,
    )  # fmt: skip


def parts(model: ModelResult) -> dict[str, float]:
    """Mean milliseconds of a request in each place, as far as somebody measured it there; empty without a success."""
    if model.latency is None or model.service is None:
        return {}
    late = model.latency.mean - model.service.mean
    if model.server is None:
        return {"late": late, "network": model.service.mean}
    if model.network_ms is None:  # its means are of other requests, too
        return {}
    server = model.server
    means = {"late": late, "network": model.network_ms, "queue": server.queue_ms, "compute": server.compute_ms}
    rest = server.request_ms - server.queue_ms - server.compute_ms
    return means | ({"rest": rest} if rest > LITTLE * model.latency.mean else {})


def where(name: str, model: ModelResult) -> str:
    """One bar: a mean latency and its parts."""
    means = parts(model)
    words = ", ".join(f"{PARTS[style]} {short(value)} ms" for style, value in means.items())
    total = model.latency.mean if model.latency else math.nan
    row = rows.Row("mean latency", f"{short(total)} ms", list(means.items()))
    return rows.draw(f"{name}: where the time went", words, [row])


def batches(name: str, server: ServerSide) -> str:
    """How many executions had which number of samples."""
    counts = sorted(server.batch_sizes.items())
    words = "; ".join(f"{counted(count, 'execution')} of {size}" for size, count in counts)
    return chart.draw(
        f"{name}: batch sizes", words, Axis("samples in an execution", Whole), Axis("executions", Whole),
        [chart.Bars("compute", counts)],
    )  # fmt: skip


def rates(series: Sequence[Second], load: Load) -> str:
    """Offered, completed and failed in each second."""
    steps, _ = merged(series)
    times = [step.t_s for step in steps]
    marks = [
        chart.Line("offered", [*zip(times, (step.offered for step in steps), strict=True)]),
        chart.Line("completed", [*zip(times, (step.completed for step in steps), strict=True)]),
    ]
    failed = sum(second.failed for second in series)
    if failed:
        marks.append(chart.Line("failed", [*zip(times, (step.failed for step in steps), strict=True)]))
    words = (
        f"In {counted(len(series), 'second')}: {sum(second.offered for second in series):,} requests were due, "
        f"{sum(second.completed for second in series):,} were answered, {failed:,} failed"
    )
    return chart.draw("Requests over time", words, TIME, Axis("requests per second", Whole), marks, _bands(load))


def latencies(series: Sequence[Second], load: Load, slo: Slo | None) -> str:
    """p50 and p99 of the requests that were due in each second."""
    steps, _ = merged(series)
    times = [step.t_s for step in steps]
    p50, p99 = [_or_nan(step.p50_ms) for step in steps], [_or_nan(step.p99_ms) for step in steps]
    marks = [chart.Line("p99", [*zip(times, p99, strict=True)]), chart.Line("p50", [*zip(times, p50, strict=True)])]
    worst = max((value for value in p99 if math.isfinite(value)), default=math.nan)
    words = f"The largest p99 of a second is {short(worst)} ms"
    return chart.draw(
        "Latency over time", words, TIME, fitting("latency, ms", [*p50, *p99]), marks, _bands(load), _limit(slo)
    )


def waiting(series: Sequence[Second], load: Load) -> str:
    """Requests without an answer at the end of each second."""
    steps, _ = merged(series)
    in_flight = [step.in_flight for step in steps]
    marks = [chart.Line("queue", [*zip((step.t_s for step in steps), in_flight, strict=True)])]
    words = f"At most {counted(max(in_flight, default=0), 'request')} without an answer at the end of a second"
    return chart.draw("Requests without an answer", words, TIME, Axis("requests", Whole), marks, _bands(load))


def merged(series: Sequence[Second]) -> tuple[Sequence[Second], int]:
    """A long run in fewer steps, so that lines stay lines: mean rates, largest latencies; and the seconds of a step."""
    every = math.ceil(len(series) / STEPS)
    if every < 2:
        return series, 1
    return [_merge(series[at : at + every]) for at in range(0, len(series), every)], every


def _merge(seconds: Sequence[Second]) -> Second:
    count = len(seconds)
    p50, p99 = (
        max((value for value in values if value is not None), default=None)
        for values in ([second.p50_ms for second in seconds], [second.p99_ms for second in seconds])
    )
    return Second(
        seconds[0].t_s, round(sum(second.offered for second in seconds) / count),
        round(sum(second.completed for second in seconds) / count),
        math.ceil(sum(second.failed for second in seconds) / count),  # a single failure is seen
        p50, p99, max(second.in_flight for second in seconds),
    )  # fmt: skip


def _quantiles(encoded: str) -> list[tuple[float, float]]:
    """(share of all requests, milliseconds at most) from a histogram of microseconds; none where they are few."""
    if not encoded:
        return []
    histogram = HdrHistogram.decode(encoded)
    count = histogram.get_total_count()
    if count < FEW:
        return []
    steps = int(min(math.log10(count), NINES) * 20)
    shares = [1 - 10 ** (-step / 20) for step in range(steps + 1)]
    quantiles = [(share, histogram.get_value_at_percentile(share * 100) / 1e3) for share in shares]
    # The slowest request stands in the middle of its own share.
    return [*quantiles, (1 - 0.5 / count, histogram.get_max_value() / 1e3)]


def _listed(latency: Percentiles | None) -> Iterable[tuple[str, float]]:
    return (
        [("p50", latency.p50), ("p90", latency.p90), ("p99", latency.p99), ("largest", latency.max)] if latency else []
    )


def _limit(slo: Slo | None) -> chart.Level | None:
    if slo is None or slo.p99_ms is None:
        return None
    return chart.Level("limit", slo.p99_ms, f"SLO, p99 {slo.p99_ms:g} ms")


def _bands(load: Load) -> list[chart.Band]:
    """The warm-up, before zero, and a spike, when its schedule says."""
    bands = [chart.Band(-load.warm_up_s, 0, "warm-up", shaded=True)] if load.warm_up_s > 0 else []
    if load.arrivals and load.arrivals.strip().startswith("spike:"):
        start_s, long_s = arrivals.parse(load.arrivals).spike
        bands.append(chart.Band(start_s, start_s + long_s, "spike"))
    return bands


def _or_nan(value: float | None) -> float:
    return math.nan if value is None else value
