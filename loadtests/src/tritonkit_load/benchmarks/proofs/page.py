"""The comparison of autoscaler settings as one self-contained HTML page; plays nothing itself."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from markupsafe import Markup

from tritonkit_load.benchmarks.proofs import choice, service, steady, trace
from tritonkit_load.benchmarks.proofs.choice import Row
from tritonkit_load.benchmarks.proofs.simulation import Floats, Outcome
from tritonkit_load.reporting import chart, page
from tritonkit_load.reporting.axis import Axis, Linear, Whole, fitting
from tritonkit_load.reporting.page import Headline

EVERY = 5  # minutes a point of a line: more would not be seen
TITLES = {"cpu": "A pod on one CPU core", "gpu": "A pod with one GPU"}
DRAWN = (
    "pendingRequests: 8", "pendingRequests: 1", "queueTime: 2 ms", "utilization: 80 %",
    "in flight: 2, Kubernetes' own behaviour",
)  # fmt: skip


@dataclass(frozen=True)
class Panel:
    """One chart with its legend and a sentence."""

    name: str
    chart: Markup
    styles: tuple[str, str]
    keys: tuple[str, str]
    caption: str


def render(
    played: Mapping[str, tuple[Sequence[Row], Sequence[Outcome]]], checks: Mapping[str, Sequence[steady.Check]],
    command: str, created: str, facts: Mapping[str, str],
) -> str:  # fmt: skip
    """Render the page.

    Args:
        played: Rows and days of each kind of pod.
        checks: Of each kind that was measured, a real pod beside the simulation.
        command: The command that made it.
        created: ISO time.
        facts: Facts about the machine.
    """
    rows = [row for kind_rows, _ in played.values() for row in kind_rows]
    best = choice.best(rows)
    kinds = [_kind(kind, kind_rows, days, best[kind]) for kind, (kind_rows, days) in played.items()]
    return page.render(
        "autoscaler.html.j2",
        headline=headline(rows, best),
        advice=next_steps(rows, best, checks),
        criterion=choice.result(rows)["criterion"] + ".",
        kinds=kinds,
        checks={TITLES[kind]: beside for kind, beside in checks.items()},
        command=command,
        created=created,
        facts=dict(facts),
    )  # fmt: skip


def headline(rows: Sequence[Row], best: Mapping[str, str]) -> Headline:
    """The best settings, and what they cost."""
    minutes = choice.DAYS * 1440
    why = [
        f"{TITLES[row.kind]}: {page.counted(row.bad_minutes, 'bad minute')} of {minutes:,}, {row.pod_hours:.0f} "
        f"pod-hours and {page.counted(row.changes, 'change')} of the number of pods a day."
        for row in rows
        if row.name == best[row.kind]
    ]
    names = " and ".join(f"{name} ({kind})" for kind, name in best.items())
    return Headline("good", f"{names}: the best of the chart’s signal", tuple(why))


def next_steps(
    rows: Sequence[Row], best: Mapping[str, str], checks: Mapping[str, Sequence[steady.Check]]
) -> tuple[str, ...]:
    """What to set in the chart, what fewer bad minutes would cost, and what to measure again.

    Args:
        rows: Rows of all kinds of pod.
        best: Each kind's best setting, by name.
        checks: Of each kind that was measured, a real pod beside the simulation.
    """
    texts = [text for kind, name in best.items() for text in _setting([row for row in rows if row.kind == kind], name)]
    steps = [row.step_bad for row in rows if row.name == best[row.kind] and row.step_bad]
    if steps:
        texts.append(
            f"A step from one pod's load to five pods' costs up to {page.counted(max(steps), 'bad minute')}, as new "
            "pods take that long: where steps are known before, a larger `autoscaling.minReplicas`, or a `cron` "
            "trigger among `autoscaling.keda.triggers`."
        )
    own = "`make bench-autoscaler MEASURE=1 MODEL=my_model.yaml`"
    late = [TITLES[kind] for kind, beside in checks.items() if not all(check.valid for check in beside)]
    if late:
        texts.append(
            f"{' and '.join(late)}: the generator was late at some rates beside the real Triton, so those say little. "
            "End what else uses its cores, and run the same command again."
        )
    if apart := [TITLES[kind] for kind, beside in checks.items() if any(c.valid and not c.agrees for c in beside)]:
        texts.append(
            f"{' and '.join(apart)}: the simulation disagrees with the real pod, so do not take its settings over "
            f"before {own} agrees."
        )
    texts.append(f"{own} times a pod of yours, and shows beside which target it has which share of its capacity.")
    return tuple(texts)


def _setting(rows: Sequence[Row], name: str) -> list[str]:
    """The advice for one kind of pod: its target, and a safer one with its price."""
    row = next(row for row in rows if row.name == name)
    title, chosen = TITLES[row.kind], f"`autoscaling: {{enabled: true, signal: {row.signal}, target: {row.target:g}}}`"
    texts = [f"{title}: {chosen} in the environment's values, then `make deploy`."]
    safer = [
        other
        for other in rows
        if other.signal == row.signal and other.target != row.target and other.bad_minutes < row.bad_minutes
    ]
    if safer:
        cheapest = min(safer, key=lambda other: other.pod_hours)
        texts.append(
            f"{title}: {page.counted(row.bad_minutes, 'bad minute')} with that. `autoscaling.target: "
            f"{cheapest.target:g}` has {cheapest.bad_minutes}, for {cheapest.pod_hours:.0f} pod-hours a day instead of "
            f"{row.pod_hours:.0f}."
        )
    return texts


def _kind(kind: str, rows: Sequence[Row], days: Sequence[Outcome], best: str) -> dict[str, object]:
    pod = service.load(choice.MEASURED[kind])
    day = trace.day(pod.capacity, peak=choice.PEAK)
    single_ms, full_ms = (float(pod.time(np.array(size))) * 1000 for size in (1, pod.max_batch))
    about = (
        f"{pod.name}: {pod.capacity:,.0f} requests a second at most; a batch of one takes {single_ms:.1f} ms, "
        f"one of {pod.max_batch} {full_ms:.0f} ms."
    )
    drawn = [name for name in (best, *DRAWN) if any(row.name == name for row in rows)]
    panels = []
    for name in drawn:
        place = next(index for index, row in enumerate(rows) if row.name == name)
        panels += _panels(rows[place], days[place])
    rate = day.rate.reshape(-1, EVERY * 60).mean(axis=1) / pod.capacity
    return {
        "title": TITLES[kind], "best": best, "about": page.tied(about), "rows": rows, "panels": panels,
        "curve": steady.curve(pod),
        "traffic": Markup(chart.draw(
            "Traffic of the day", f"From {rate.min():.1f} to {rate.max():.1f} pods' capacities", _hours(),
            Axis("pods’ capacities", Linear), [chart.Line("offered", _points(rate), marked=False)],
        )),
    }  # fmt: skip


def _panels(row: Row, day: Outcome) -> list[Panel]:
    """Pods with the bad minutes, and the requests in them."""
    pods = _mean(day.replicas)
    hours = np.flatnonzero(day.bad) / 60
    dots = [(float(hour), 0.4) for hour in hours]
    replicas = chart.draw(
        f"{row.name}: pods", f"From {pods.min():.0f} to {pods.max():.0f} pods; {day.bad_minutes} bad minutes",
        _hours(),
        Axis("pods", Whole),
        [chart.Line("measured", _points(pods), marked=False), chart.Dots("failed", dots, radius=2)],
    )  # fmt: skip
    in_flight, waiting = _mean(day.in_flight), _mean(day.waiting)
    queue = chart.draw(
        f"{row.name}: requests", f"Up to {in_flight.max():,.0f} requests in all pods", _hours(),
        fitting("requests in all pods", [float(value) for value in (*in_flight, *waiting)]),
        [chart.Line("p99", _points(in_flight), marked=False), chart.Line("queue", _points(waiting), marked=False)],
    )  # fmt: skip
    caption = f"{day.bad_minutes} bad minutes, {day.pod_hours:.0f} pod-hours, {day.changes} changes."
    most = f"At most {day.in_flight.max():,.0f} in flight in a minute’s mean, {day.ready.max():.0f} pods ready."
    return [
        Panel(row.name, Markup(replicas), ("measured", "failed"), ("pods", "bad minute"), caption),
        Panel(f"{row.name}: queue", Markup(queue), ("p99", "queue"), ("in flight", "waiting"), most),
    ]  # fmt: skip


def _hours() -> Axis:
    return Axis("hour of the day", Linear)


def _mean(values: Floats) -> Floats:
    return np.asarray(values[: len(values) // EVERY * EVERY].reshape(-1, EVERY).mean(axis=1))


def _points(values: Floats) -> list[tuple[float, float]]:
    return [(index * EVERY / 60, round(float(value), 3)) for index, value in enumerate(values)]
