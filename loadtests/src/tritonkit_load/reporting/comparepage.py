"""A comparison of servers as one self-contained HTML page: who serves the most, then everything it costs."""

from __future__ import annotations

from collections.abc import Sequence

from markupsafe import Markup

from tritonkit_load.reporting import comparison_advice, page, rows
from tritonkit_load.reporting.comparison_result import ComparisonResult, Row, ordered, overlap
from tritonkit_load.reporting.page import NOTHING, Headline, counted, short


def render(result: ComparisonResult) -> str:
    """The page."""
    models = {name: ordered(servers) for name, servers in result.models.items()}
    return page.render(
        "compare.html.j2", result=result, headline=headline(result), models=models,
        advice=comparison_advice.after_comparison(result),
        capacity={name: Markup(_capacity(name, servers)) for name, servers in models.items()},
        latency={name: Markup(_latency(name, servers)) for name, servers in models.items()},
        memory={name: Markup(_memory(name, servers)) for name, servers in models.items()},
        rounds=counted(result.rounds, "round"),
        ceiling={name: ceiling(runs, on_gpu=result.on_gpu) for name, runs in result.ceiling.items()},
    )  # fmt: skip


def headline(result: ComparisonResult) -> Headline:
    """On how many models ours is first, and by how much; whatever that is."""
    wins, losses, compared, why = 0, 0, 0, []
    for model, servers in result.models.items():
        ours = next((server for server in servers if server.ours), None)
        best = next((server for server in ordered(servers) if not server.ours), None)
        ratio = _ratio(ours, best)
        if ours is None or best is None or ratio is None:
            missing = "no other server" if ours and ours.capacity is not None else "tritonkit"
            why.append(f"{model}: {missing} could not be measured.")
            continue
        compared += 1
        if not overlap(ours, best):
            wins += ratio > 1
            losses += ratio < 1
        why.append(f"{model}: {_against(ours, best, ratio)}.")
    if result.partial:
        why.append("The comparison was interrupted.")
    count = len(result.models)
    if wins == count > 0:
        return Headline("unsure" if result.partial else "good", "tritonkit serves the most", tuple(why))
    if not compared:
        return Headline("bad", "Nothing could be compared", tuple(why))
    title = f"tritonkit is clearly first on {wins or 'none'} of {counted(count, 'model')}"
    return Headline("bad" if losses and not wins else "unsure", title, tuple(why))


def ceiling(runs: float, *, on_gpu: bool = False) -> str:
    """What the graph alone would allow, in words."""
    if on_gpu:
        return (
            "The graph alone, in one process on the GPU, largest batches of one size with copies from and to the host: "
            f"{short(runs)} samples a second."
        )
    return f"The model alone, in one process on the servers' core, one sample at a time: {short(runs)} a second."


def _ratio(ours: Row | None, best: Row | None) -> float | None:
    """Our capacity over that of the best of the others; None where there is none to compare."""
    if ours is None or best is None or ours.capacity is None or not best.capacity:
        return None
    return ours.capacity / best.capacity


def _against(ours: Row, best: Row, ratio: float) -> str:
    """Ours against the best of the others, in words."""
    both = f"{short(ours.capacity)} against {short(best.capacity)} requests a second within the SLO"
    if overlap(ours, best):
        return f"{ours.name} and {best.name} are too close to tell apart ({both})"
    times = f"{ratio:.2f} times" if ratio > 1 else f"only {ratio:.2f} times"
    return f"{ours.name} serves {times} what {best.name} does, the best of the others ({both})"


def _capacity(model: str, servers: Sequence[Row]) -> str:
    bars = []
    for server in servers:
        style = "ours" if server.ours else "theirs"
        if server.capacity is None:
            bars.append(rows.Row(server.name, "not measured", []))
            continue
        interval = (server.low, server.high) if server.low is not None and server.high is not None else None
        figure = short(server.capacity) + (f" ({short(server.low)} to {short(server.high)})" if interval else "")
        bars.append(rows.Row(server.name, figure, [(style, server.capacity)], interval, style))
    words = "; ".join(f"{bar.name}: {bar.figure}" for bar in bars)
    return rows.draw(f"{model}: capacity at the SLO", f"Requests per second: {words}", bars)


def _latency(model: str, servers: Sequence[Row]) -> str:
    bars = []
    for server in servers:
        style = "ours" if server.ours else "theirs"
        if server.p50_ms is None or server.p99_ms is None:
            bars.append(rows.Row(server.name, NOTHING, []))
            continue
        figure = f"{short(server.p50_ms)} and {short(server.p99_ms)} ms"
        bars.append(
            rows.Row(server.name, figure, [("p50", server.p50_ms), ("p99", server.p99_ms - server.p50_ms)], None, style)
        )
    words = "; ".join(f"{bar.name}: {bar.figure}" for bar in bars)
    return rows.draw(f"{model}: p50 and p99 at half the capacity", words, bars)


def _memory(model: str, servers: Sequence[Row]) -> str:
    bars = []
    for server in servers:
        style = "ours" if server.ours else "theirs"
        if server.memory_mb is None:
            bars.append(rows.Row(server.name, NOTHING, []))
        else:
            bars.append(rows.Row(server.name, f"{server.memory_mb:,.0f} MB", [(style, server.memory_mb)], None, style))
    words = "; ".join(f"{bar.name}: {bar.figure}" for bar in bars)
    return rows.draw(f"{model}: memory", words, bars)
