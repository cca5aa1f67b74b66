"""A search for the best configuration as one self-contained HTML page: what was won, what was tried."""

from __future__ import annotations

import math
from collections.abc import Sequence

from markupsafe import Markup

from tritonkit_load.reporting import advice, chart, page, verdict_text
from tritonkit_load.reporting.axis import Axis, Linear, Whole, fitting
from tritonkit_load.reporting.page import Headline, counted, short
from tritonkit_load.reporting.tuning_result import Ratio, Trial, TuningResult

AHEAD = 1.1  # a trial's estimate is luck in part: less is no lead
BEFORE, DEFAULT = "what was served before", "Triton's default"
CAUSES = {
    "slo": "No configuration meets the SLO", "generator": "No configuration could be measured",
    "server": "A configuration was not served",
}  # fmt: skip
FATES = {"measured": "measured", "pruned": "stopped early", "failed": "failed", "unsent": "not measured"}


def render(result: TuningResult) -> str:
    """The page."""
    best, default = _numbered(result, result.best), _numbered(result, result.default)
    settings = list(dict.fromkeys(name for trial in result.trials for name in trial.settings))
    trials = sorted(result.trials, key=lambda trial: (-_or(trial.capacity, -1.0), trial.number))
    return page.render(
        "tune.html.j2", advice=advice.after_tuning(result), result=result,
        headline=headline(result), best=best, default=default, settings=settings,
        trials=trials, fates=FATES, drawn=any(trial.capacity is not None for trial in trials),
        spent=_spent(result), front={trial.number for trial in front(result.trials)},
        pareto=Markup(_pareto(result, best, default)), progress=Markup(_progress(result.trials)),
        facts={"SLO": result.slo} | result.environment,
    )  # fmt: skip


def headline(result: TuningResult) -> Headline:
    """What the search won over Triton's default, as far as it was measured."""
    best, default = _numbered(result, result.best), _numbered(result, result.default)
    cut = ("The search was interrupted.",) if result.partial else ()
    if result.failure:
        notes = result.notes if result.cause == "slo" else ()  # a larger budget would not have helped
        failed = (f"Wanted: {result.slo}.", verdict_text.sentence(result.failure), *notes)
        return Headline("unsure" if result.cause == "generator" else "bad", CAUSES[result.cause], failed)
    if best is None or best.capacity is None:
        return Headline("bad", "No configuration meets the SLO", (f"Wanted: {result.slo}.", *cut))
    capacity = served(result) or short(best.capacity)
    why = f"{capacity} requests a second at {result.slo}"
    if default is not None and default.capacity is not None:
        why += f"; Triton's default, dynamic_batching {{}} with one instance, serves {short(default.capacity)}"
    elif default is not None:
        why += "; Triton's default, dynamic_batching {} with one instance, does not meet it at any rate"
    reasons = (why + ".", *map(verdict_text.sentence, gains(result)), *result.notes, *cut)
    if result.ratio is None:
        return Headline("unsure", f"{capacity} requests a second within the SLO", reasons)
    return Headline("unsure" if cut else _tone(result.ratio), _won(result.ratio, DEFAULT), reasons)


def served(result: TuningResult) -> str:
    """The best's capacity and its interval, as further runs have confirmed it; empty if none did."""
    limit = result.capacity
    if limit is None:
        return ""
    between = f"95 % interval {short(limit.low)} " + (f"to {short(limit.high)}" if limit.high else "upwards")
    return f"{'at least ' if limit.at_least else ''}{short(limit.rate)} ({between})"


def gains(result: TuningResult) -> tuple[str, ...]:
    """What was won over each reference, as console and page say it: a gain only if its whole interval is above 1."""
    best = _numbered(result, result.best)
    if result.partial or best is None:
        return ()
    sentences, faster = [], _faster(result, best)
    for what, number, ratio in (
        (BEFORE, result.current, result.over_current), (DEFAULT, result.default, result.ratio)
    ):  # fmt: skip
        other = _numbered(result, number)
        if number == result.best:
            sentences.append(f"the best is {what}")
        elif ratio is not None:
            sentences.append(
                f"{_won(ratio, what)}: measured side by side, the ratio is {ratio.median:.2f}, "
                f"between {ratio.low:.2f} and {ratio.high:.2f}"
            )
        elif other is not None and other.capacity is None:
            sentences.append(f"{what} does not meet the SLO at any rate")
        elif other is None or other is not faster:
            sentences.append(f"no gain over {what} is claimed: there was no time for enough rounds side by side")
    if faster:
        names = {result.current: BEFORE, result.default: DEFAULT}
        settings = ", ".join(f"{name} {value}" for name, value in faster.settings.items())
        sentences.append(
            f"{names.get(faster.number, settings)} served {short(faster.capacity)} where this served "
            f"{short(best.capacity)}, and its rounds side by side are too few, or too unlike, to change the recipe: "
            "the same command with a larger BUDGET goes on"
        )
    return tuple(sentences)


def _faster(result: TuningResult, best: Trial) -> Trial | None:
    """The fastest trial where nothing was changed although it was clearly ahead: its lead was not proved."""
    fastest = max(result.trials, key=lambda trial: _or(trial.capacity, 0.0))
    ahead = _or(fastest.capacity, 0.0) > AHEAD * _or(best.capacity, 0.0)
    return fastest if ahead and result.best == result.current else None


def front(trials: Sequence[Trial]) -> list[Trial]:
    """The trials that no other one beats in both capacity and p99, by rising capacity."""
    best: list[Trial] = []
    whole = [trial for trial in trials if trial.status == "measured" and trial.capacity is not None]
    for trial in sorted(whole, key=lambda trial: (-_or(trial.capacity, 0.0), _or(trial.p99_ms, math.inf))):
        if trial.p99_ms is not None and (not best or trial.p99_ms < _or(best[-1].p99_ms, math.inf)):
            best.append(trial)
    return best[::-1]


def _won(ratio: Ratio, over: str) -> str:
    if ratio.low > 1:
        return f"{ratio.median:.2f} times the capacity of {over}"
    if ratio.high < 1:
        return f"Only {ratio.median:.2f} times the capacity of {over}"
    return f"No clear gain over {over}"


def _tone(ratio: Ratio) -> page.Tone:
    return "good" if ratio.low > 1 else "bad" if ratio.high < 1 else "unsure"


def _spent(result: TuningResult) -> str:
    """How much was tried, and in what time."""
    fates = [trial.status for trial in result.trials]
    each = [f"{fates.count(fate):,} {name}" for fate, name in FATES.items() if fate in fates]
    seconds = sum(trial.seconds for trial in result.trials) if result.took_s is None else result.took_s
    return (
        f"{counted(len(fates), 'configuration')} in {_time(seconds, result.budget_s)}"
        f"{': ' if each else ''}{', '.join(each)}."
    )


def _time(spent_s: float, budget_s: float) -> str:
    """As much of the budget as was spent, in minutes where that is more than two."""
    if budget_s < 120:
        return f"{spent_s:.0f} of {budget_s:.0f} seconds"
    return f"{spent_s / 60:.1f} of {budget_s / 60:g} minutes"


def _pareto(result: TuningResult, best: Trial | None, default: Trial | None) -> str:
    """Capacity against p99 at it: right and down is better."""
    trials = [trial for trial in result.trials if trial.capacity is not None and trial.p99_ms is not None]
    edge = front(trials)
    marks: list[chart.Mark] = [
        chart.Dots("pruned hollow", _points([trial for trial in trials if trial.status != "measured"]), radius=3),
        chart.Dots("theirs", _points([trial for trial in trials if trial.status == "measured"]), radius=3),
        chart.Line("measured", _points(edge)),
    ]
    if default in trials and default is not None and default != best:
        marks.append(chart.Dots("limit", _points([default]), ["default"], radius=5))
    if best in trials and best is not None:
        marks.append(chart.Dots("best", _points([best]), ["best"], radius=5))
    description = "The front: " + "; ".join(
        f"trial {trial.number}, {short(trial.capacity)} requests per second with a p99 of {short(trial.p99_ms)} ms"
        for trial in edge
    )
    level = chart.Level("limit", result.slo_p99_ms, f"SLO {result.slo_p99_ms:g} ms") if result.slo_p99_ms else None
    return chart.draw(
        "Capacity against latency", description, Axis("capacity, requests per second", Linear),
        fitting("p99 at capacity, ms", [trial.p99_ms for trial in trials if trial.p99_ms]), marks, level=level,
    )  # fmt: skip


def _progress(trials: Sequence[Trial]) -> str:
    """Capacity by trial, and the best so far."""
    order = sorted(trials, key=lambda trial: trial.number)
    points = [(float(trial.number), _or(trial.capacity, math.nan)) for trial in order]
    best: list[tuple[float, float]] = []
    for (number, capacity), trial in zip(points, order, strict=True):
        before = best[-1][1] if best else math.nan
        counts = trial.status == "measured" and not capacity <= before and math.isfinite(capacity)
        if best:
            best.append((number, before))
        if counts:
            best.append((number, capacity))
    description = "; ".join(f"from trial {number:g} on {short(capacity)}" for number, capacity in _rises(best))
    return chart.draw(
        "The best so far", f"The best capacity: {description}", Axis("trial", Whole),
        Axis("capacity, requests per second", Linear),
        [chart.Line("measured", best, marked=False), chart.Dots("theirs", points, radius=3)],
    )  # fmt: skip


def _rises(best: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
    return [point for index, point in enumerate(best) if index == 0 or point[1] > best[index - 1][1]]


def _points(trials: Sequence[Trial]) -> list[tuple[float, float]]:
    return [(_or(trial.capacity, math.nan), _or(trial.p99_ms, math.nan)) for trial in trials]


def _numbered(result: TuningResult, number: int | None) -> Trial | None:
    return next((trial for trial in result.trials if trial.number == number), None)


def _or(value: float | None, otherwise: float) -> float:
    return otherwise if value is None else value
