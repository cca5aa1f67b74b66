"""Measures one configuration, as briefly as will do: one short probe tells most of them apart from the best."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace
from typing import Literal

from tritonkit.errors import CheckFailed
from tritonkit_load.tuning.limit import Ask, Bracket, Probe, Unsent, bracket
from tritonkit_load.tuning.losses import twice
from tritonkit_load.tuning.search import Outcome
from tritonkit_load.tuning.space import Settings

# Between the best so far and the next rate to try, up or down. Near the limit a short probe is chance by some percent.
STRIDE = 1.15
FIRST_RESOLUTION = 1.1


def explore(ask: Ask, best: float | None, start: float) -> Outcome:
    """The capacity of one configuration, if it is near the best one's or above.

    Args:
        ask: Runs one rate with this configuration.
        best: The best one's limit so far; None at the first.
        start: Where to begin then.
    """
    probes: list[Probe] = []

    def note(rate: float) -> Probe:
        probes.append(ask(rate))
        return probes[-1]

    return replace(_explored(note, best, start), probes=len(probes))


def _explored(note: Ask, best: float | None, start: float) -> Outcome:
    if best is None:
        return _enclosed(bracket(note, start, resolution=FIRST_RESOLUTION))
    if (first := note(best)).met:
        return _enclosed(bracket(_after(first, note), best, stride=STRIDE, resolution=STRIDE * 1.001))
    if first.overloaded:
        return Outcome("pruned", first.served, why=f"serves {first.served:.0f} of {best:.0f} requests/s")
    if (second := note(best / STRIDE)).met:
        return _enclosed(Bracket(second, first))
    return _missed(second)


def timed(
    configure: Callable[[Settings], None], ask: Ask, settings: Settings, best: float | None, start: float
) -> Outcome:
    """Configure the server and :func:`explore`.

    A configuration that does not load is ``failed``. One with a rate that the generator could not keep is ``unsent``,
    which says nothing of the configuration: the next search tries it again. Where the server is lost, the configuration
    is measured again from the beginning; where it is lost twice, it is ``failed``.
    """
    began = time.monotonic()

    def measure() -> Outcome:
        configure(settings)
        return explore(ask, best, start)

    try:
        outcome = twice(measure)
    except CheckFailed as error:
        status: Literal["unsent", "failed"] = "unsent" if isinstance(error, Unsent) else "failed"
        return Outcome(status, seconds=round(time.monotonic() - began, 1), why=error.message)
    return replace(outcome, seconds=round(time.monotonic() - began, 1))


def _after(first: Probe, ask: Ask) -> Ask:
    """``ask``, with the answer to its first question given already."""
    answers = [first]
    return lambda rate: answers.pop() if answers else ask(rate)


def _enclosed(bounds: Bracket) -> Outcome:
    if (low := bounds.low) is None:
        return _missed(bounds.high)
    return Outcome("measured", bounds.limit, low.rate, low.p50_ms, low.p99_ms)


def _missed(probe: Probe) -> Outcome:
    why = f"misses the SLO at {probe.rate:.0f} requests/s: {probe.why}"
    return Outcome("pruned", min(probe.rate, probe.served), why=why)
