"""Which autoscaler settings are compared, on which pods and traffic, and which of them the chart should have.

It plays the replays of :mod:`.simulation` and judges them; measuring, printing and drawing are elsewhere.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass
from multiprocessing import get_context
from pathlib import Path
from typing import Any

from tritonkit.errors import InputError
from tritonkit_load.benchmarks.proofs import hpa, service, trace
from tritonkit_load.benchmarks.proofs.kernel import Kernel
from tritonkit_load.benchmarks.proofs.simulation import LATE, Outcome, Setting, Signal, Start, replay

HERE = Path(__file__).parent
MEASURED = {"cpu": HERE / "measured.json", "gpu": HERE / "measured-gpu.json"}
RESULT = HERE / "autoscaler.json"
# p99: one or two of the largest batches (92 and 18 ms), which a pod keeps up to some four fifths of its capacity.
SLO_S = {"cpu": 0.1, "gpu": 0.03}
WINDOW_S = 60
MOST, LEAST = 20, 2
PEAK = 6.0  # pods' capacities
DAYS = 3  # each with its own noise: how a spike meets a fleet is luck, and one day's luck chooses badly
# Good enough: on all days of either kind of pod, at most one minute in 200 is bad, and one request in 5,000 lost.
BAD_SHARE, LOST_SHARE = 0.005, 0.0002
# Pod-hours that differ by less are a tie, and fewer bad minutes decide it: a default serves models that nobody has
# measured, and the last few pod-hours bring it to where one that batches less well is overloaded.
TIE = 0.05

UP = hpa.Rules(0, (hpa.Policy("Percent", 100, 15), hpa.Policy("Pods", 4, 15)))
DOWN = hpa.Rules(300, (hpa.Policy("Percent", 10, 60),))
SIGNALS: dict[Signal, tuple[float, ...]] = {
    "inFlightRequests": (1.5, 2, 3, 4, 6, 8, 12, 16),
    "pendingRequests": (0.5, 1, 8),
    "queueTime": (1, 2, 5),
    "utilization": (60, 70, 80),
}
UNITS = {"inFlightRequests": "", "pendingRequests": "", "queueTime": " ms", "utilization": " %"}
OUR_SIGNAL: Signal = "inFlightRequests"  # the chart's; why is in docs/measurements/autoscaling.md
BEHAVIOURS = {
    "in flight: 2, Kubernetes' own behaviour": (hpa.DEFAULT_UP, hpa.DEFAULT_DOWN),
    "in flight: 2, down after 10 minutes": (UP, hpa.Rules(600, DOWN.policies)),
    "in flight: 2, up after 30 s": (hpa.Rules(30, UP.policies), DOWN),
}


@dataclass(frozen=True)
class Row:
    """One setting on one kind of pod: the days' figures, and the step's.

    Attributes:
        kind: ``cpu`` or ``gpu``.
        name: The setting's.
        signal, target: Its; no signal for a fixed number of pods.
        bad_minutes: Of all days, with a p99 over the SLO or more than one request in a hundred lost.
        lost: Requests refused or without a pod, of all days.
        late: Share of the requests that were late.
        pod_hours: What a day costs.
        changes: Of the number of pods, a day.
        step_bad: Bad minutes of the step's 45.
        good: It meets what ``BAD_SHARE`` and ``LOST_SHARE`` say.
    """

    kind: str
    name: str
    signal: str
    target: float
    bad_minutes: int
    lost: int
    late: float
    pod_hours: float
    changes: int
    step_bad: int
    good: bool


def compared() -> list[Setting]:
    """Every setting that is played; the first ones differ in signal and target, the others in behaviour."""
    settings = [
        Setting(f"{signal}: {target:g}{UNITS[signal]}", signal, target, least=LEAST, most=MOST, up=UP, down=DOWN)
        for signal, targets in SIGNALS.items()
        for target in targets
    ]
    for name, (up, down) in BEHAVIOURS.items():
        settings.append(Setting(name, OUR_SIGNAL, 2, least=LEAST, most=MOST, up=up, down=down))
    return [*settings, Setting("9 pods, no autoscaler", most=MOST, fixed=9)]


def start(pod: service.Service) -> Start:
    """A pod's start: the load is the pod's, the rest :class:`.simulation.Start`'s assumptions."""
    return Start(load_s=pod.load_s)


def play(kind: str) -> tuple[list[Row], list[Outcome]]:
    """All settings on one kind of pod: rows, and the first day's outcomes in the same order."""
    pod = service.load(MEASURED[kind])
    kernel = Kernel(pod, SLO_S[kind])
    settings = compared()
    days = [
        replay(trace.day(pod.capacity, peak=PEAK, seed=day), settings, kernel, start(pod), window_s=WINDOW_S, seed=day)
        for day in range(DAYS)
    ]
    steps = replay(trace.step(pod.capacity), settings, kernel, start(pod), window_s=WINDOW_S)
    return [_row(kind, each, step) for *each, step in zip(*days, steps, strict=True)], days[0]


def play_all() -> dict[str, tuple[list[Row], list[Outcome]]]:
    """Every kind of pod, each in a process of its own."""
    with ProcessPoolExecutor(len(MEASURED), mp_context=get_context("spawn")) as pool:
        return dict(zip(MEASURED, pool.map(play, MEASURED), strict=True))


def _row(kind: str, days: Sequence[Outcome], step: Outcome) -> Row:
    bad, lost = sum(day.bad_minutes for day in days), sum(day.lost + day.refused for day in days)
    requests, minutes = sum(day.requests for day in days), sum(len(day.bad) for day in days)
    late = sum(day.late for day in days) / requests
    setting = step.setting
    return Row(
        kind, setting.name, "" if setting.fixed else setting.signal, setting.target, bad, lost, late,
        round(sum(day.pod_hours for day in days) / len(days), 1), round(sum(day.changes for day in days) / len(days)),
        step.bad_minutes, bad <= BAD_SHARE * minutes and lost <= LOST_SHARE * requests,
    )  # fmt: skip


def best(rows: Sequence[Row]) -> dict[str, str]:
    """Each kind's good setting of our signal with fewest pod-hours; of a tie, that with fewest bad minutes.

    Args:
        rows: Of all kinds.

    Raises:
        InputError: None is good on some kind of pod.
    """
    return {kind: _best([row for row in rows if row.kind == kind]) for kind in dict.fromkeys(row.kind for row in rows)}


def _best(rows: Sequence[Row]) -> str:
    good = [row for row in rows if row.signal == OUR_SIGNAL and row.good]
    if not good:
        raise InputError(f"no setting is good on the pod {rows[0].kind}", "compare others, or ask for less")
    fewest = min(row.pod_hours for row in good)
    return min((row for row in good if row.pod_hours <= fewest * (1 + TIE)), key=lambda row: row.bad_minutes).name


def recommended(rows: Sequence[Row]) -> dict[str, dict[str, Any]]:
    """Each kind's best setting as the chart's ``autoscaling`` values."""
    settings = {setting.name: setting for setting in compared()}
    return {kind: values(settings[name]) for kind, name in best(rows).items()}


def values(setting: Setting) -> dict[str, Any]:
    """A setting as the chart's ``autoscaling`` values."""
    return {
        "signal": setting.signal, "target": setting.target, "window": f"{WINDOW_S // 60}m",
        "hpa": {"metric": setting.metric},
        "behavior": {"scaleUp": _behaviour(setting.up), "scaleDown": _behaviour(setting.down)},
    }  # fmt: skip


def _behaviour(rules: hpa.Rules) -> dict[str, Any]:
    policies = [
        {"type": policy.kind, "value": policy.value, "periodSeconds": policy.period_s} for policy in rules.policies
    ]
    return {"stabilizationWindowSeconds": rules.window_s, "selectPolicy": rules.select, "policies": policies}


def from_values(autoscaling: Mapping[str, Any], name: str = "the chart's default") -> Setting:
    """The chart's ``autoscaling`` values as a setting; what they leave out is as Kubernetes has it."""

    def rules(side: str, otherwise: hpa.Rules) -> hpa.Rules:
        given = autoscaling.get("behavior", {}).get(side)
        if given is None:
            return otherwise
        policies = tuple(
            hpa.Policy(policy["type"], policy["value"], policy["periodSeconds"]) for policy in given["policies"]
        )
        window = given.get("stabilizationWindowSeconds", otherwise.window_s)
        return hpa.Rules(window, policies, given.get("selectPolicy", "Max"))

    return Setting(
        name, autoscaling["signal"], autoscaling["target"], metric=autoscaling.get("hpa", {}).get("metric", "pods"),
        least=LEAST, most=MOST, up=rules("scaleUp", hpa.DEFAULT_UP), down=rules("scaleDown", hpa.DEFAULT_DOWN),
    )  # fmt: skip


def result(rows: Sequence[Row]) -> dict[str, Any]:
    """What is kept of a comparison: its rows, what follows from them, and what it was made of."""
    slos = " or ".join(f"{slo_s * 1000:g} ms ({kind})" for kind, slo_s in SLO_S.items())
    return {
        "criterion": f"At most {BAD_SHARE:.1%} of the minutes of {DAYS} days have a p99 over {slos} (or lose "
        f"{LATE:.0%} of their requests) and at most {LOST_SHARE:.2%} of the requests are lost; "
        f"of those settings of {OUR_SIGNAL}, for each kind of pod the "
        f"one with the fewest pod-hours, and of a tie within {TIE:.0%} that with the fewest bad "
        "minutes",
        "best": best(rows), "recommended": recommended(rows), "made_of": made_of(),
        "rows": [asdict(row) for row in rows],
    }  # fmt: skip


def made_of() -> str:
    """SHA-256 of the code and the measurements that a result comes from: another one means to play it again."""
    names = ["service.py", "kernel.py", "trace.py", "signals.py", "hpa.py", "simulation.py", "choice.py"]
    digest = hashlib.sha256()
    for path in [*(HERE / name for name in names), *MEASURED.values()]:
        digest.update(path.read_bytes())
    return digest.hexdigest()
