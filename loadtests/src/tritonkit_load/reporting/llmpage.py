"""The summary of `make demo-llm` as one self-contained HTML page: no script, no font and no style from elsewhere.

What is counted here is only what to draw; every figure on the page is one of the summary's.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from markupsafe import Markup

from tritonkit_load.reporting import advice, chart, page
from tritonkit_load.reporting.axis import Axis, Linear, Percentile, fitting
from tritonkit_load.reporting.page import counted, figure

Json = dict[str, Any]


def render(summary: Json) -> str:
    """The page.

    Args:
        summary: What ``make demo-llm`` writes to ``summary.json``; a figure may be NaN.
    """
    steps = summary["curve"]
    measured = [step for step in steps if step["output_tokens_per_s"] > 0]
    charts = {
        "ttft": Markup(_curve("time to the first token", steps, "ttft_ms", "p95")),
        "itl": Markup(_curve("time from token to token", steps, "itl_ms", "p99")),
        "first_tokens": Markup(_first_tokens(steps, summary["first_tokens"])),
        "gaps": Markup(_gaps(summary["gaps"])),
    }
    fastest = max(measured, key=lambda step: step["output_tokens_per_s"], default=None)
    return page.render(
        "demo_llm.html.j2", summary=summary, charts=charts, fastest=fastest, advice=advice.after_llm_demo(summary)
    )


def _curve(what: str, steps: Sequence[Json], times: str, upper: str) -> str:
    streams = [str(step["streams"]) for step in steps]
    lines = [
        chart.Line("p99", [(step["output_tokens_per_s"], step[times][upper]) for step in steps], streams),
        chart.Line("p50", [(step["output_tokens_per_s"], step[times]["p50"]) for step in steps], streams, above=False),
    ]
    words = "; ".join(
        f"{_streams(step['streams'])}: {figure(step['output_tokens_per_s'])} tokens per second, "
        f"p50 {figure(step[times]['p50'])} ms, {upper} {figure(step[times][upper])} ms"
        for step in steps
    )
    return chart.draw(
        f"{what} against throughput", words, Axis("output tokens per second", Linear), Axis(f"{what}, ms", Linear),
        lines,
    )  # fmt: skip


def _first_tokens(steps: Sequence[Json], dots: Sequence[Json]) -> str:
    ends = [0.0]
    for step in steps:
        ends.append(ends[-1] + step["seconds"])
    bands = [
        chart.Band(ends[index], ends[index + 1], _streams(step["streams"]), str(step["streams"]), shaded=index % 2 == 1)
        for index, step in enumerate(steps)
    ]
    slowest = max((dot["ttft_ms"] for dot in dots), default=math.nan)
    return chart.draw(
        "every answer's first token", f"{counted(len(dots), 'answer')}; the longest wait was {figure(slowest)} ms",
        Axis("measured seconds", Linear), Axis("time to the first token, ms", Linear),
        [chart.Dots("dot", [(dot["start_s"], dot["ttft_ms"]) for dot in dots])], bands,
    )  # fmt: skip


def _gaps(distributions: Sequence[Json]) -> str:
    """By percentile: the fewest streams and the most."""
    ends = [*distributions[:1], *distributions[1:][-1:]]
    lines = [
        chart.Line(style, distribution["points"], marked=False)
        for style, distribution in zip(("network", "measured"), ends, strict=False)
    ]
    words = "; ".join(
        f"{_streams(distribution['streams'])}: at most {figure(distribution['points'][-1][1])} ms"
        for distribution in ends
        if distribution["points"]
    )
    values = (value for distribution in ends for _, value in distribution["points"])
    return chart.draw(
        "time from token to token by percentile", words, Axis("percent of the gaps", Percentile),
        fitting("time from token to token, ms", values), lines,
    )  # fmt: skip


def _streams(count: int) -> str:
    return counted(count, "stream")
