"""The demo's summary as one self-contained HTML page: no script, no font and no style from elsewhere.

What is counted here is only what to draw; every figure on the page is one of the summary's.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from markupsafe import Markup

from tritonkit_load.reporting import advice, chart, page
from tritonkit_load.reporting.axis import Axis, Linear
from tritonkit_load.reporting.page import figure

Json = dict[str, Any]
DOTS = 2500  # more than that in one chart are only a bigger file
COMPARED = {  # what tritonkit.parity.Measurement.check names
    "module": "Largest difference from the PyTorch module",
    "batch": "Largest difference of a row beside other rows",
    "alone": "Largest difference between rows in a batch and the same rows alone",
}


def render(summary: Json) -> str:
    """The page.

    Args:
        summary: What ``make demo`` writes to ``summary.json``; a figure may be NaN.
    """
    sections = {name: _section(name, model) for name, model in summary["models"].items()}
    return page.render(
        "demo.html.j2", summary=summary, sections=sections, compared=COMPARED, advice=advice.after_demo(summary)
    )


def _section(name: str, model: Json) -> Json:
    """Both charts of a model, its fastest step, and how its dots were thinned."""
    steps, requests = model["curve"], model["requests"]
    points = list(zip(requests["start_s"], requests["latency_ms"], strict=True))
    every = max(1, math.ceil(len(points) / DOTS))
    measured = [step for step in steps if step["throughput"] > 0 and math.isfinite(step["p99_ms"])]
    return {
        "curve": Markup(_curve(name, steps)),
        "over_time": Markup(_over_time(name, steps, requests, thin(points, every))),
        "every": every,
        "requests": len(points),
        "failed": sum(step["failed"] for step in steps),
        "last": max(measured, key=lambda step: step["users"], default=None),
        "fastest": max(measured, key=lambda step: step["throughput"], default=None),
    }


def thin(points: Sequence[tuple[float, float]], every: int) -> list[tuple[float, float]]:
    """Every n-th point and, as these are what one looks for, all of the slowest 1 %."""
    if every == 1 or not points:
        return list(points)
    limit = sorted((latency for _, latency in points), reverse=True)[len(points) // 100]
    return [point for index, point in enumerate(points) if index % every == 0 or point[1] > limit]


def _curve(name: str, steps: Sequence[Json]) -> str:
    users = [str(step["users"]) for step in steps]
    lines = [
        chart.Line("p99", [(step["throughput"], step["p99_ms"]) for step in steps], users),
        chart.Line("p50", [(step["throughput"], step["p50_ms"]) for step in steps], users, above=False),
    ]
    words = "; ".join(
        f"{_users(step['users'])}: {figure(step['throughput'])} requests per second, "
        f"p50 {figure(step['p50_ms'])} ms, p99 {figure(step['p99_ms'])} ms"
        for step in steps
    )
    return chart.draw(
        f"{name}: latency against throughput", words, Axis("requests per second", Linear), Axis("latency, ms", Linear),
        lines,
    )  # fmt: skip


def _over_time(name: str, steps: Sequence[Json], requests: Json, points: Sequence[tuple[float, float]]) -> str:
    began: dict[int, float] = {}
    for start, users in zip(requests["start_s"], requests["users"], strict=True):
        began[users] = min(start, began.get(users, start))
    order = sorted({step["users"] for step in steps} & began.keys(), key=began.__getitem__)
    ends = [*(began[users] for users in order), max(requests["start_s"], default=0.0)][1:]
    bands = [
        chart.Band(began[users], end, _users(users), str(users), shaded=index % 2 == 1)
        for index, (users, end) in enumerate(zip(order, ends, strict=True))
    ]
    slowest = max((latency for latency in requests["latency_ms"] if math.isfinite(latency)), default=math.nan)
    words = f"{len(requests['start_s']):,} requests; the slowest took {figure(slowest)} ms. " + "; ".join(
        f"{_users(users)} from {began[users]:.1f} s" for users in order
    )
    return chart.draw(
        f"{name}: latency over time", words, Axis("seconds since the first request", Linear),
        Axis("latency, ms", Linear), [chart.Dots("dot", points)], bands,
    )  # fmt: skip


def _users(count: int) -> str:
    return "1 user" if count == 1 else f"{count} users"
