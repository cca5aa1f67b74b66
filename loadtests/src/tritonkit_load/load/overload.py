"""What an overloaded server did with its requests: answered in time or late, refused and how fast."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from tritonkit_load.load.recording import Row

WINDOW_S = 0.5
CHANCE = 0.01
REFUSED = "ServerBusy", "QueueFull"  # the client's errors for requests that were not run


@dataclass(frozen=True)
class Served:
    """One run's requests.

    Attributes:
        offered: Requests a second that were due.
        goodput: Answers a second within the SLO, counted from when each was due.
        late: Share of all that was answered too late.
        refused: Share of all that was not run.
        failed: Share of all that failed otherwise.
        p50_ms: Latency of what was answered; None where nothing was.
        p99_ms: See ``p50_ms``.
        refusal_p50_ms: From sending a request to its refusal; None where there was none.
        refusal_p99_ms: See ``refusal_p50_ms``.
    """

    offered: float
    goodput: float
    late: float
    refused: float
    failed: float
    p50_ms: float | None
    p99_ms: float | None
    refusal_p50_ms: float | None
    refusal_p99_ms: float | None


def served(rows: Sequence[Row], seconds: float, slo_ms: float) -> Served:
    """What became of a run's requests.

    Args:
        rows: Every measured request, each with its latency from when it was due, its service time from when it was sent
            (both in ms) and its error's type.
        seconds: That the run was measured for.
        slo_ms: The latency that was promised.
    """
    answered = [latency for _, latency, _, _, error in rows if not error]
    refusals = [service for _, _, service, _, error in rows if error in REFUSED]
    in_time = sum(latency <= slo_ms for latency in answered)
    count = max(len(rows), 1)
    return Served(
        offered=len(rows) / seconds,
        goodput=in_time / seconds,
        late=(len(answered) - in_time) / count,
        refused=len(refusals) / count,
        failed=(len(rows) - len(answered) - len(refusals)) / count,
        p50_ms=_percentile(answered, 50),
        p99_ms=_percentile(answered, 99),
        refusal_p50_ms=_percentile(refusals, 50),
        refusal_p99_ms=_percentile(refusals, 99),
    )


def recovery_s(rows: Sequence[Row], begin_s: float, end_s: float, slo_ms: float) -> float | None:
    """Seconds from a spike's end until as many requests are answered in time as before it.

    Counted in windows of half a second: the end of the last one in which fewer are in time than chance explains, if
    each request were as likely to be as before the spike (one-sided binomial test, :data:`CHANCE` for all windows
    together, divided among them as Bonferroni does). A short queue refuses a few requests at any load, which is no part
    of a spike, and in a window of seven one of them is a seventh.

    Args:
        rows: Every measured request.
        begin_s: When the spike began.
        end_s: When it ended.
        slo_ms: The latency that was promised.

    Returns:
        None where no request was due before the spike, or after it.
    """
    good = np.array([not error and latency <= slo_ms for _, latency, _, _, error in rows])
    due = np.array([row[0] for row in rows])
    before, after = due < begin_s, due >= end_s
    if not before.any() or not after.any():
        return None
    share = float((good[before].sum() + 1) / (before.sum() + 2))  # Laplace's rule: none failed is not never
    windows = ((due - end_s) // WINDOW_S).astype(int)
    after_it = set(windows[after])
    bad = [
        window
        for window in after_it
        if _at_most(int(good[windows == window].sum()), int((windows == window).sum()), share) < CHANCE / len(after_it)
    ]
    return float(WINDOW_S * (max(bad) + 1)) if bad else 0.0


def _at_most(count: int, trials: int, probability: float) -> float:
    """The probability of ``count`` successes or fewer."""
    return sum(
        math.comb(trials, number) * probability**number * (1 - probability) ** (trials - number)
        for number in range(count + 1)
    )


def _percentile(values: Sequence[float], share: float) -> float | None:
    return float(np.percentile(values, share)) if values else None
