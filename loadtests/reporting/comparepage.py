"""A comparison of servers as one self-contained HTML page: who serves the most, then everything it costs."""

from __future__ import annotations

from collections.abc import Sequence

from markupsafe import Markup

from reporting import comparison_advice, page, rows
from reporting.comparison_result import ComparisonResult, Row, ordered, overlap
from reporting.page import NOTHING, Headline, counted, short


def render(result: ComparisonResult) -> str:
    """The page."""
    models = {name: ordered(found) for name, found in result.models.items()}
    return page.render(
        "compare.html.j2", result=result, headline=headline(result), models=models,
        advice=comparison_advice.after_comparison(result),
        capacity={name: Markup(_capacity(name, found)) for name, found in models.items()},
        latency={name: Markup(_latency(name, found)) for name, found in models.items()},
        memory={name: Markup(_memory(name, found)) for name, found in models.items()},
        rounds=counted(result.rounds, "round"),
        ceiling={name: ceiling(runs, on_gpu=result.on_gpu) for name, runs in result.ceiling.items()},
    )  # fmt: skip


def headline(result: ComparisonResult) -> Headline:
    """On how many models ours is first, and by how much; whatever that is."""
    wins, losses, compared, why = 0, 0, 0, []
    for model, found in result.models.items():
        ours = next((row for row in found if row.ours), None)
        best = next((row for row in ordered(found) if not row.ours), None)
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


def _capacity(model: str, found: Sequence[Row]) -> str:
    drawn = []
    for row in found:
        style = "ours" if row.ours else "theirs"
        if row.capacity is None:
            drawn.append(rows.Row(row.name, "not measured", []))
            continue
        interval = (row.low, row.high) if row.low is not None and row.high is not None else None
        said = short(row.capacity) + (f" ({short(row.low)} to {short(row.high)})" if interval else "")
        drawn.append(rows.Row(row.name, said, [(style, row.capacity)], interval, style))
    words = "; ".join(f"{row.name}: {row.said}" for row in drawn)
    return rows.draw(f"{model}: capacity at the SLO", f"Requests per second: {words}", drawn)


def _latency(model: str, found: Sequence[Row]) -> str:
    drawn = []
    for row in found:
        style = "ours" if row.ours else "theirs"
        if row.p50_ms is None or row.p99_ms is None:
            drawn.append(rows.Row(row.name, NOTHING, []))
            continue
        said = f"{short(row.p50_ms)} and {short(row.p99_ms)} ms"
        drawn.append(rows.Row(row.name, said, [("p50", row.p50_ms), ("p99", row.p99_ms - row.p50_ms)], None, style))
    words = "; ".join(f"{row.name}: {row.said}" for row in drawn)
    return rows.draw(f"{model}: p50 and p99 at half the capacity", words, drawn)


def _memory(model: str, found: Sequence[Row]) -> str:
    drawn = []
    for row in found:
        style = "ours" if row.ours else "theirs"
        if row.memory_mb is None:
            drawn.append(rows.Row(row.name, NOTHING, []))
        else:
            drawn.append(rows.Row(row.name, f"{row.memory_mb:,.0f} MB", [(style, row.memory_mb)], None, style))
    words = "; ".join(f"{row.name}: {row.said}" for row in drawn)
    return rows.draw(f"{model}: memory", words, drawn)
