"""Made-up results of load tests, for tests of what is drawn from them; seeded, so that pages are the same each time."""

from __future__ import annotations

from dataclasses import replace
from typing import Literal

import numpy as np
from hdrh.histogram import HdrHistogram
from numpy.typing import NDArray

from tritonkit.recipe import Slo
from tritonkit_load.load.result import (
    Check,
    GeneratorHealth,
    Load,
    ModelResult,
    Percentiles,
    Point,
    Result,
    Second,
    ServerSide,
    Verdict,
)
from tritonkit_load.reporting.comparison_result import ComparisonResult, Row
from tritonkit_load.reporting.tuning_result import Ratio, Trial, TuningResult

Array = NDArray[np.float64]
HOSTILE = """'"><img src=x onerror="alert(1)">&</title></svg>{{ 1 }}]]>"""
LONG = "a_model_with_a_rather_long_name_that_must_not_widen_a_phone"
HEALTHY = GeneratorHealth(0.12, 0.83, 3.4, 0.41, 0.9, 0, True, ())


def latencies(count: int, middle: float = 12.0, spread: float = 0.35, seed: int = 1) -> Array:
    """Milliseconds, log-normal as latencies are."""
    return np.random.default_rng(seed).lognormal(np.log(middle), spread, count)


def encoded(ms: Array) -> str:
    histogram = HdrHistogram(1, 3_600_000_000, 3)
    for value in ms:
        histogram.record_value(int(value * 1e3))
    text: bytes = histogram.encode()
    return text.decode()


def percentiles(ms: Array) -> Percentiles | None:
    if not len(ms):
        return None
    p50, p90, p95, p99, p999 = np.percentile(ms, [50, 90, 95, 99, 99.9])
    return Percentiles(*map(float, (ms.mean(), p50, p90, p95, p99, p999, ms.max())))


def model(
    ms: Array, late: float = 0.1, errors: dict[str, int] | None = None, slo: Slo | None = None, seconds: float = 60.0
) -> ModelResult:
    """One model that answered with these latencies, ``late`` of which passed before each send."""
    service = np.maximum(ms - late, 0.01)
    failed = sum((errors or {}).values())
    mean = float(service.mean()) if len(ms) else 0.0
    count = len(ms)
    server = ServerSide(
        requests=count, inferences=count, executions=max(count // 3, 1), average_batch=3.0,
        batch_sizes={1: count // 9, 2: count // 14, 3: count // 12, 4: count // 8}, request_ms=mean * 0.86,
        queue_ms=mean * 0.3, compute_ms=mean * 0.55, compute_input_ms=mean * 0.01, compute_infer_ms=mean * 0.53,
        compute_output_ms=mean * 0.01,
    )  # fmt: skip
    return ModelResult(
        requests=len(ms) + failed, failed=failed, offered=(len(ms) + failed) / seconds, throughput=len(ms) / seconds,
        goodput=float((ms <= slo.latency_ms).sum()) / seconds if slo and slo.latency_ms else None,
        latency=percentiles(ms), service=percentiles(service), first_response=None, histogram=encoded(ms),
        service_histogram=encoded(service), errors=errors or {}, messages=dict.fromkeys(errors or {}, "refused"), slo=slo,
        server=server if len(ms) else None, network_ms=mean * 0.14 if len(ms) else None, alone_ms=4.2,
        explained="The client's mean is 1.80 ms longer than the server's: the wire, and the client's own work.",
    )  # fmt: skip


def checks(models: dict[str, ModelResult]) -> tuple[Check, ...]:
    verdicts = []
    for name, figures in models.items():
        if figures.slo and figures.slo.p99_ms:
            p99 = figures.latency.p99 if figures.latency else None
            verdicts.append(
                Check(name, "p99_ms", figures.slo.p99_ms, p99, p99 is not None and p99 <= figures.slo.p99_ms)
            )
        if figures.slo:
            rate = figures.error_rate if figures.requests else None
            verdicts.append(
                Check(
                    name,
                    "error_rate",
                    figures.slo.error_rate,
                    rate,
                    rate is not None and rate <= figures.slo.error_rate,
                )
            )
    return tuple(verdicts)


def series(seconds: int, rate: int, stall_at: int | None = None, warm_up: int = 5) -> tuple[Second, ...]:
    """Seconds of steady load; from ``stall_at`` on, two in which nothing is answered."""
    random = np.random.default_rng(3)
    timeline = []
    for second in range(-warm_up, seconds):
        stalled = stall_at is not None and stall_at <= second < stall_at + 2
        offered = int(random.poisson(rate))
        p99 = None if stalled and second == stall_at else float(2000 if stalled else random.normal(30, 3))
        timeline.append(
            Second(float(second), offered, 0 if stalled else offered, 3 if stalled else 0,
                   None if p99 is None else p99 * 0.4, p99, rate * 2 if stalled else 2)
        )  # fmt: skip
    return tuple(timeline)


def steps() -> tuple[Point, ...]:
    """Rates up to and beyond what the server can do."""
    points = []
    for rate in (20, 40, 80, 120, 160, 200, 240):
        throughput = min(rate, 190.0)
        p99 = 12 + 900 / max(205 - rate, 5) if rate <= 200 else 800.0
        points.append(Point(rate, throughput, p99 * 0.45, p99, 0.0, rate < 240, p99 <= 50))
    return tuple(points)


def result(models: dict[str, ModelResult] | None = None, **changes: object) -> Result:
    """A whole result; ``changes`` replace its fields, and the verdict follows from the models unless it is given."""
    models = models if models is not None else {"efficientnet_lite0": model(latencies(7200), slo=Slo(p99_ms=50))}
    judged = checks(models)
    whole = Result(
        created="2026-11-24T12:05:00+00:00",
        command="make loadtest MODEL=efficientnet_lite0 ARRIVALS=poisson:120 DURATION=60s",
        partial=False,
        environment={"cpu": "AMD EPYC 9R14", "cores": "2", "gpu": "none", "python": "3.11.9", "triton": "2.51.0",
                     "onnxruntime": "1.32.0", "locust": "2.47.0"},
        load=Load("grpc", "grpc://127.0.0.1:8001", "open", "poisson:120", None, 1, 5.0, 60.0, "1", "as sampled", 0,
                  dict.fromkeys(models, 1.0)),
        models=models,
        series=series(60, 120),
        generator=HEALTHY,
        verdict=Verdict(all(check.met for check in judged) if judged else None, True, judged),
    )  # fmt: skip
    return replace(whole, **changes)  # type: ignore[arg-type]


def tuning(count: int = 34) -> TuningResult:
    """A search that gets better, with every fate of a trial in it."""
    random = np.random.default_rng(5)
    trials = [Trial(0, _settings("fp32", 1, 8, 0, 1), "measured", 101.0, 18.2, 48.9, 21.0)]
    for number in range(1, count):
        settings = _settings(
            str(random.choice(["fp32", "fp16", "int8"])), int(random.integers(1, 3)), int(2 ** random.integers(2, 7)),
            int(random.choice([0, 200, 500, 1000, 5000])), int(random.integers(1, 3)),
        )  # fmt: skip
        if number % 11 == 5:
            trials.append(Trial(number, settings, "failed", None, None, None, 3.0, "Triton refused: not enough memory"))
            continue
        capacity = float(min(60 + 3 * number + random.normal(40, 30), 215))
        p99 = float(random.uniform(24, 50))
        status: Literal["measured", "pruned"] = "pruned" if capacity < 100 and number % 2 else "measured"
        why = "below the best at half the budget" if status == "pruned" else ""
        trials.append(Trial(number, settings, status, capacity, p99 * 0.4, p99, 16.0, why))
    best = max((trial for trial in trials if trial.status == "measured"), key=lambda trial: trial.capacity or 0.0)
    return TuningResult(
        "efficientnet_lite0", "2026-11-24T12:05:00+00:00", "make tune MODEL=efficientnet_lite0 BUDGET=10m",
        {"cpu": "AMD EPYC 9R14", "cores": "2"}, "p99 ≤ 50 ms, errors ≤ 0.1 %", 50.0, 600.0, tuple(trials), best.number, 0,
        Ratio(2.08, 1.94, 2.21), False, ("build/recipes/efficientnet_lite0.yaml",),
    )  # fmt: skip


def _settings(variant: str, instances: int, batch: int, delay: int, threads: int) -> dict[str, str]:
    return {"variant": variant, "instances": str(instances), "max batch": str(batch), "queue delay": f"{delay} µs",
            "threads": str(threads), "queue policy": "none"}  # fmt: skip


def comparison() -> ComparisonResult:
    """Seven servers on two models; ours is ahead on the first, and too close to call on the second."""
    peers = [
        ("FastAPI", 96, 30),
        ("LitServe", 118, 31),
        ("BentoML", 131, 40),
        ("MLServer", 88, 28),
        ("PyTriton", 140, 22),
    ]
    first = [_row("tritonkit", 212, 74, ours=True), *(_row(name, rate, lines) for name, rate, lines in peers)]
    second = [_row("tritonkit", 141, 74, ours=True), *(_row(name, rate, lines) for name, rate, lines in peers[:-1])]
    broken = Row(
        "PyTriton", "0.7.0", False, None, None, None, None, None, None, None, 22, "batch 16", "its server died: exit 1"
    )
    return ComparisonResult(
        "2026-11-24T12:05:00+00:00", "make compare", {"cpu": "AMD EPYC 9R14", "cores": "2"},
        {"efficientnet_lite0": "p99 ≤ 50 ms, errors ≤ 0.1 %", "all_minilm_l6_v2": "p99 ≤ 60 ms, errors ≤ 0.1 %"},
        {"efficientnet_lite0": 234.5, "all_minilm_l6_v2": 156.7}, 5,
        "smallest and largest", {"efficientnet_lite0": tuple(first), "all_minilm_l6_v2": (*second, broken)},
        ("The same ONNX graph in the same precision, one core for each server, and the same payloads.",),
    )  # fmt: skip


def _row(name: str, rate: float, lines: int, *, ours: bool = False) -> Row:
    settings = f"one worker, 1 thread, batches of at most 16 within 2 ms, as {name}'s documentation advises"
    return Row(
        name, "0.115.4", ours, rate, rate * 0.95, rate * 1.04, 900 / rate, 3100 / rate, 400 + rate, 2.4, lines, settings
    )
