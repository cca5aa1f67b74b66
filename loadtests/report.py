"""The demo's summary as one self-contained HTML page: no script, no font and no style from elsewhere."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import chart
import jinja2

DOTS = 1200  # more than that in one chart are only a bigger file


def render(summary: dict[str, Any]) -> str:
    """The page.

    Args:
        summary: What ``make demo`` writes to ``summary.json``.
    """
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent), autoescape=True, undefined=jinja2.StrictUndefined,
        trim_blocks=True, lstrip_blocks=True,
    )  # fmt: skip
    charts = {name: _charts(name, model) for name, model in summary["models"].items()}
    return environment.get_template("report.html.j2").render(summary=summary, charts=charts)


def _charts(name: str, model: dict[str, Any]) -> dict[str, object]:
    """Both charts of a model, and how many requests a dot of the second stands for."""
    steps = model["curve"]
    users = [f"{step['users']}" for step in steps]
    lines = [
        chart.Series("p99", [(step["throughput"], step["p99_ms"]) for step in steps], users),
        chart.Series("p50", [(step["throughput"], step["p50_ms"]) for step in steps]),
    ]
    curve = chart.draw(f"{name}: latency against throughput", "requests per second", "latency, ms", lines)
    requests = model["requests"]
    points = list(zip(requests["start_s"], requests["latency_ms"], strict=True))
    thinning = max(1, -(-len(points) // DOTS))
    dots = chart.Series("dot", points[::thinning], line=False)
    over_time = chart.draw(f"{name}: latency over time", "seconds since the first request", "latency, ms", [dots])
    return {"curve": curve, "over_time": over_time, "thinning": thinning}
