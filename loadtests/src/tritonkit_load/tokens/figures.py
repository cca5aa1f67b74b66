"""What the times of streamed answers say. Every formula is written out in :data:`FORMULAS`, which reports print."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from tritonkit_load.tokens.streams import Answer

FORMULAS = {
    "TTFT": "time to the first token: from the moment at which the request was due until its first token came; of "
    "requests that were due in the measured seconds",
    "ITL": "inter-token latency: from one token of an answer to the next, each gap by itself, the first token in none; "
    "tokens that came in one response have no time between them; of gaps that ended in the measured seconds",
    "tokens/s": "output tokens of all streams that came in the measured seconds, over these seconds",
    "due": "a stream's request is due when its last one has ended (a closed loop)",
}


@dataclass(frozen=True)
class Times:
    """Milliseconds of many like things; NaN where there are none.

    Attributes:
        count: How many.
        p50: Half of them took no longer; the next two say the same of 95 % and 99 %.
        p95: See ``p50``.
        p99: See ``p50``.
        max: The longest.
    """

    count: int
    p50: float
    p95: float
    p99: float
    max: float


@dataclass(frozen=True)
class Figures:
    """One measurement.

    Attributes:
        streams: At a time.
        seconds: Measured.
        requests: Due in these seconds.
        output_tokens: That came in them.
        output_tokens_per_s: These, a second.
        ttft_ms: See :data:`FORMULAS`.
        itl_ms: See :data:`FORMULAS`.
        joined: Share of the gaps that are nothing, as both tokens came in one response.
    """

    streams: int
    seconds: float
    requests: int
    output_tokens: int
    output_tokens_per_s: float
    ttft_ms: Times
    itl_ms: Times
    joined: float


def figures(answers: Sequence[Answer], streams: int, seconds: float) -> Figures:
    """The figures of the ``seconds`` from 0 on; what came before them was the warm-up."""
    waits = first_tokens_ms(answers, seconds)
    times = gaps_ms(answers, seconds)
    tokens = sum(count for answer in answers for at, count in answer.arrivals if 0 <= at < seconds)
    joined = sum(time == 0 for time in times) / len(times) if times else math.nan
    return Figures(streams, seconds, len(waits), tokens, tokens / seconds, summary(waits), summary(times), joined)


def first_tokens_ms(answers: Iterable[Answer], seconds: float) -> list[float]:
    """TTFT of each answer whose request was due in the measured seconds."""
    return [
        (answer.arrivals[0][0] - answer.due_s) * 1e3
        for answer in answers
        if 0 <= answer.due_s < seconds and answer.arrivals
    ]


def gaps_ms(answers: Iterable[Answer], seconds: float) -> list[float]:
    """Each time from one token to the next that ended in the measured seconds."""
    gaps: list[float] = []
    for answer in answers:
        joined = [0.0] * (answer.arrivals[0][1] - 1) if answer.arrivals and 0 <= answer.arrivals[0][0] < seconds else []
        gaps += joined
        for (before, _), (at, count) in pairwise(answer.arrivals):
            if 0 <= at < seconds:
                gaps += [(at - before) * 1e3, *[0.0] * (count - 1)]
    return gaps


def summary(times_ms: Sequence[float]) -> Times:
    """Percentiles; the smallest value that so many do not exceed (no interpolation: each one was measured)."""
    if not times_ms:
        return Times(0, math.nan, math.nan, math.nan, math.nan)
    p50, p95, p99 = np.percentile(times_ms, [50, 95, 99], method="inverted_cdf")
    return Times(len(times_ms), float(p50), float(p95), float(p99), float(max(times_ms)))


def quantiles(times_ms: Sequence[float]) -> list[tuple[float, float]]:
    """(share of all, milliseconds at most) for a curve: twenty points for each nine that so many times resolve."""
    if not times_ms:
        return []
    steps = int(math.log10(len(times_ms)) * 20)
    shares = [1 - 10 ** (-step / 20) for step in range(steps + 1)]
    values = np.percentile(times_ms, [share * 100 for share in shares], method="inverted_cdf")
    return [(round(share, 6), round(float(value), 3)) for share, value in zip(shares, values, strict=True)]
