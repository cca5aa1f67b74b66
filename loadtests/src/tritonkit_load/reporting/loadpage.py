"""A load test as one self-contained HTML page: the verdict first, then what it rests on.

The charts are in loadcharts.py, the verdict's words in verdict_text.py; here is what goes where.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any

from markupsafe import Markup

from tritonkit_load.load.result import Check, Load, ModelResult, Result, ServerSide
from tritonkit_load.load.summary import BUSIEST, LATEST_MS
from tritonkit_load.reporting import advice, loadcharts, page, verdict_text
from tritonkit_load.reporting.page import counted, figure, listed, percent, short

ROWS = {"mean": "mean", "p50": "p50", "p90": "p90", "p95": "p95", "p99": "p99", "p999": "p99.9", "max": "largest"}
SEEN = {"late": "generator", "network": "difference", "queue": "server", "compute": "server", "rest": "server"}
OPEN = "Latency counts from the moment a request was due, service time from the moment it was sent."
CLOSED = (
    "In a closed loop a request is due only when the answer before it is there: while the server stalls, nothing is "
    "sent and nothing is counted, so callers that do not wait for each other may see worse than this. "
    "An open loop (--arrivals) counts from a schedule."
)


@dataclass(frozen=True)
class Tile:
    """A figure worth large type.

    Attributes:
        label: What it is.
        value: In its own unit.
        unit: After the value, in small type.
        note: What it is held against.
        met: Whether it holds; None where nothing was wanted.
    """

    label: str
    value: str
    unit: str
    note: str
    met: bool | None = None


def render(result: Result) -> str:
    """The page."""
    models = {name: _model(name, model, result) for name, model in result.models.items()}
    load, series = result.load, result.series
    over_time = []
    if series:
        over_time = [
            Markup(chart)
            for chart in (
                loadcharts.rates(series, load),
                loadcharts.latencies(series, load, result.slo),
                loadcharts.waiting(series, load),
            )
        ]
    return page.render(
        "load.html.j2", advice=advice.after_load(result), result=result,
        headline=verdict_text.headline(result), models=models, over_time=over_time,
        every=loadcharts.merged(series)[1], of=listed(result.models),
        curve=Markup(loadcharts.curve(result.curve, result.slo)) if result.curve else None,
        missed={check.model for check in result.verdict.checks if not check.met}, rows=ROWS, parts=loadcharts.PARTS,
        seen=SEEN, sent=verdict_text.sent(result),
        warm_up=_warm_up(load), health=_health(result), difference=_difference, facts=_facts(result),
    )  # fmt: skip


def _model(name: str, model: ModelResult, result: Result) -> dict[str, Any]:
    """What one model's section shows."""
    checks = {check.name: check for check in result.verdict.checks if check.model == name}
    percentiles = loadcharts.percentiles(name, model, result.load)
    sizes = model.server is not None and model.server.batch_sizes
    parts = loadcharts.parts(model)
    return {
        "figures": model,
        "tiles": _tiles(model, checks, judged=result.verdict.valid, scheduled=result.load.loop == "open"),
        "percentiles": Markup(percentiles) if percentiles else None,
        "parts": parts,
        "where": Markup(loadcharts.where(name, model)) if parts else None,
        "batches": Markup(loadcharts.batches(name, model.server)) if model.server and sizes else None,
        "errors": sorted(model.errors.items(), key=lambda error: -error[1]),
        "server": _server(model.server),
    }


def _tiles(model: ModelResult, checks: dict[str, Check], *, judged: bool, scheduled: bool) -> list[Tile]:
    """One model's tiles; the figures of an invalid run are shown, and not judged."""
    latency = model.latency
    due = f"{short(model.offered)} a second were due" if scheduled else ""
    tiles = [Tile("answered", short(model.throughput), "/s", due)]
    answers = f"of {counted(model.requests - model.failed, 'request')}"
    for key, value in (
        ("p50_ms", latency.p50 if latency else None),
        ("p95_ms", latency.p95 if latency else None),
        ("p99_ms", latency.p99 if latency else None),
    ):
        if key in checks:
            tile = _checked(checks[key], judged)
            tiles.append(replace(tile, note=f"{tile.note}; {answers}"))
        elif key != "p95_ms":
            tiles.append(
                Tile(verdict_text.BOUNDS[key], short(value), "ms" if latency else "", answers if latency else "")
            )
    count = f"{model.failed:,} of {counted(model.requests, 'request')}"
    if "error_rate" in checks:
        tile = _checked(checks["error_rate"], judged)
        tiles.append(Tile(tile.label, tile.value, tile.unit, f"{count}; {tile.note}", tile.met))
    else:
        tiles.append(Tile("failed requests", percent(model.error_rate if model.requests else None), "", count))
    if "goodput" in checks:
        tiles.append(_checked(checks["goodput"], judged))
    return tiles


def _checked(check: Check, judged: bool) -> Tile:
    measured, bound = verdict_text.value_and_bound(check)
    value, _, unit = measured.partition(" ")
    return Tile(
        verdict_text.BOUNDS.get(check.name, check.name), value, unit, f"{bound} wanted", check.met if judged else None
    )


def _server(server: ServerSide | None) -> list[tuple[str, str]]:
    """What Triton counted."""
    if server is None:
        return []
    figures = [
        ("requests", f"{server.requests:,}"),
        ("samples", f"{server.inferences:,}"),
        ("executions", f"{server.executions:,}"),
        ("samples an execution", figure(server.average_batch, ",.2f")),
        ("mean time in the queue", f"{short(server.queue_ms)} ms"),
        ("to gather the batch", f"{short(server.compute_input_ms)} ms"),
        ("to run the model", f"{short(server.compute_infer_ms)} ms"),
        ("to hand out answers", f"{short(server.compute_output_ms)} ms"),
    ]
    if server.gpu_utilization is not None:
        figures.append(("GPU busy", percent(server.gpu_utilization)))
    if server.gpu_memory_bytes is not None:
        figures.append(("GPU memory, at most", f"{server.gpu_memory_bytes / 1e9:,.1f} GB"))
    return figures


def _difference(model: ModelResult, load: Load, first: bool) -> str:
    """What it means that latency and service time are alike, or are not; what they are only beside the first model."""
    if load.loop == "closed":
        return CLOSED if first else ""
    means = f"{OPEN} " if first else ""
    if model.latency is None or model.service is None:
        return means
    latency, service = model.latency.p99, model.service.p99
    if not math.isfinite(latency - service):
        return means
    both = f"{short(latency)} ms against {short(service)} ms at p99"
    if latency - service <= max(1.0, 0.05 * latency):
        return f"{means}Here they agree ({both}): next to nothing of it was waiting to be sent."
    return (
        f"{means}Here they differ ({both}): requests waited before they could be sent, and a measurement "
        "that begins with the send would have hidden it."
    )


def _warm_up(load: Load) -> str:
    if load.warm_up_s <= 0:
        return f"No warm-up: every figure covers the whole {load.duration_s:,.3g} s."
    return (
        f"Figures cover {load.duration_s:,.3g} s; the {load.warm_up_s:,.3g} s of warm-up before them are excluded, "
        "and only shaded in the charts over time, whose clock begins after it."
    )


def _health(result: Result) -> list[tuple[str, str, str]]:
    """The generator's own figures, and their limits."""
    health, figures = result.generator, []
    if health.lateness_p99_ms is not None:
        figures += [
            ("sent late, p50", f"{short(health.lateness_p50_ms)} ms", ""),
            ("sent late, p99", f"{short(health.lateness_p99_ms)} ms", f"at most {LATEST_MS:g} ms wanted"),
            ("sent late, largest", f"{short(health.lateness_max_ms)} ms", ""),
        ]
    figures += [
        ("busiest process", f"{percent(health.cpu)} of a core", f"less than {BUSIEST * 100:g} % wanted"),
        ("CPU time a request", f"{short(health.cpu_ms_per_request)} ms", ""),
    ]
    if health.capped:
        figures.append(("never sent", counted(health.capped, "request"), ""))
    return figures


def _facts(result: Result) -> dict[str, str]:
    """What a reader must know to run it again, beside the command."""
    load = result.load
    facts = {
        "server": load.host, "samples a request": load.batch_sizes, "lengths": load.lengths,
        "generator processes": str(load.processes), "seed": str(load.seed),
    }  # fmt: skip
    if len(load.models) > 1:
        facts["weights"] = ", ".join(f"{name} {weight:.4g}" for name, weight in load.models.items())
    return facts | result.environment
