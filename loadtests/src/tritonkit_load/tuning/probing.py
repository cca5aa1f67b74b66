"""Asks a generator for one rate after another: each is a short load test, judged by the SLO."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Protocol

from tritonkit.recipe import Slo
from tritonkit_load.load.plan import Plan
from tritonkit_load.load.result import Check, Point, Result
from tritonkit_load.load.summary import BUSIEST
from tritonkit_load.tuning.limit import OVERLOADED, Probe, Unsent

LEAST_ARRIVALS = 3  # that a run should have: it is longer where the rate is low
# Times the SLO's latency: what waits in a shorter run has no time to become as late as the SLO forbids.
LEAST_LONG = 5
# Seconds before another try of a run in which the generator could not keep its schedule: somebody used its core.
PAUSES_S = (0.0, 2.0, 5.0)
# The same for a lenient asker, from its second such rate on: where nobody else uses the machine, waiting does not help.
FEW_PAUSES_S = (0.0, 2.0)


class Runs(Protocol):
    """A generator: :class:`.load.generator.Generator`, or what behaves like one."""

    def run(self, plan: Plan, *, slo: Slo | None = None) -> Result:
        """Send one plan's load."""


@dataclass
class Asker:
    """From a rate to a :class:`.tuning.limit.Probe`; every run draws a schedule of its own.

    Attributes:
        generator: Runs the plans.
        slo: What every run is held against.
        plan: All but the rate: seconds, warm-up, batch sizes, lengths.
        say: Called with a line before each run.
        results: Every run that counts, in order.
        lenient: A rate that the generator cannot keep counts as neither met nor kept, instead of raising Unsent; a
            capacity below it is a lower bound.
        late_at: Rates that the generator could not keep.
        pauses_s: Seconds before each further try of such a rate; None: those of a command without a budget.
    """

    generator: Runs
    slo: Slo
    plan: Plan
    say: Callable[[str], None] = lambda _: None
    results: list[Result] = field(default_factory=list)
    seed: int = 0
    lenient: bool = False
    late_at: list[float] = field(default_factory=list)
    pauses_s: tuple[float, ...] | None = None

    def __call__(self, rate: float) -> Probe:
        """Run one rate.

        Raises:
            Unsent: The generator could not keep its schedule, which says nothing about the server; not if lenient.
        """
        self.say(f"{rate:.0f} requests/s" if rate >= 10 else f"{rate:.3g} requests/s")
        patient = not self.lenient or not self.late_at
        pauses_s = self.pauses_s if self.pauses_s is not None else PAUSES_S if patient else FEW_PAUSES_S
        for pause_s in (*pauses_s, None):
            self.seed += 1
            latency_s = (self.slo.latency_ms or 0.0) / 1000
            long_s = max(self.plan.duration_s, LEAST_ARRIVALS / rate, LEAST_LONG * latency_s)
            plan = replace(self.plan, arrivals=f"poisson:{rate:.6g}", duration_s=long_s, seed=self.seed)
            result = self.generator.run(plan, slo=self.slo)
            # What was not sent as too much was without an answer is the server's doing, unless the generator was too
            # busy to hear the answers.
            if result.generator.valid or (result.generator.capped and result.generator.cpu < BUSIEST):
                self.results.append(result)
                return probe(rate, result)
            if pause_s is not None:
                time.sleep(pause_s)
        self.late_at.append(rate)
        if self.lenient:
            self.results.append(result)
            why = f"the generator could not keep its schedule: {'; '.join(result.generator.why)}"
            return Probe(rate, met=False, served=rate, p50_ms=None, p99_ms=None, why=why, kept=False)
        raise Unsent(
            f"the generator could not keep its schedule at {rate:.0f} requests/s: {'; '.join(result.generator.why)}"
        )


def at_least(late_at: Sequence[float]) -> str:
    """What a reader must know of capacities where the generator could not keep some rates; empty where it kept all."""
    if not late_at:
        return ""
    return f"could not keep {min(late_at):.0f} requests/s: a capacity near that is a lower bound"


def probe(rate: float, result: Result) -> Probe:
    """What a run says of its rate.

    A server that falls behind has not met an SLO, even if the run was over before anybody had waited for too long.
    """
    model, latency = result.model, result.model.latency
    missed = [words(check) for check in result.verdict.checks if not check.met]
    answer = Probe(
        rate,
        met=bool(result.verdict.met) and not result.generator.capped,
        served=model.throughput,
        p50_ms=latency.p50 if latency else None,
        p99_ms=latency.p99 if latency else None,
        error_rate=model.error_rate,
        strain=max((_strain(check) for check in result.verdict.checks), default=math.nan),
        offered=model.offered,
    )
    # Of few arrivals, one that is still under way at the end is a large part.
    if answer.overloaded and model.requests * (1 - OVERLOADED) >= 1:
        missed.append(f"{model.throughput:.0f} of {model.offered:.0f} requests/s served")
        answer = replace(answer, met=False)
    return replace(answer, why=", ".join(missed))


def words(check: Check) -> str:
    """A bound and what was found, as ``p99_ms 61.2, wanted at most 50``."""
    value = "nothing" if check.found is None else f"{check.found:.3g}"
    return f"{check.name} {value}, wanted at {'least' if check.name == 'goodput' else 'most'} {check.wanted:g}"


def bounds(slo: Slo) -> str:
    """An SLO as a person says it: ``p99 ≤ 50 ms, errors ≤ 0.1 %``."""
    latencies = {
        f"{name.removesuffix('_ms')} ≤ {value:g} ms": value
        for name in ("p50_ms", "p95_ms", "p99_ms") if (value := getattr(slo, name)) is not None
    }  # fmt: skip
    parts = [*latencies, f"errors ≤ {slo.error_rate * 100:g} %"]
    return ", ".join([*parts, *([f"goodput ≥ {slo.goodput:.0%}"] if slo.goodput is not None else [])])


def point(answer: Probe) -> Point:
    """As load tests' reports draw it."""
    return Point(answer.rate, answer.served, answer.p50_ms, answer.p99_ms, answer.error_rate, answer.kept, answer.met)


def _strain(check: Check) -> float:
    """A latency over its bound: 1 is at the limit. Counts of failures are no measure of how near the limit is."""
    if not check.name.endswith("_ms") or check.found is None:
        return 0.0 if check.met else math.inf
    return check.found / check.wanted
