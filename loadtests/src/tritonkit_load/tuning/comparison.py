"""Measures configurations side by side: in turn, round after round, so that what disturbs the machine disturbs all."""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from tritonkit.errors import CheckFailed
from tritonkit_load.reporting.tuning_result import Ratio
from tritonkit_load.tuning.limit import Ask, Bracket, Ended, Probe, bracket
from tritonkit_load.tuning.losses import ServerLost, twice
from tritonkit_load.tuning.space import Settings

STRIDE = 1.1
# Less than this is a tie: it is what a round of such steps can tell apart.
TIE = 1.03
# Rounds from which on a ratio has an interval: two of them say next to nothing of how much they vary.
LEAST_ROUNDS = 3
# Student's t for a two-sided probability of 95 %, by the number of rounds (any statistics table; degrees of freedom are
# one fewer); with more rounds it is smaller, and the last is used.
STUDENT = {3: 4.303, 4: 3.182, 5: 2.776, 6: 2.571, 7: 2.447}


@dataclass(frozen=True)
class Measured:
    """One configuration's limit in every round, and its best run.

    Attributes:
        settings: The configuration.
        limits: Requests a second, one number a round; 0 where the SLO was met at no rate.
        at_limit: The run at the highest rate that met the SLO.
        runs: How many runs the limits took.
    """

    settings: Settings
    limits: tuple[float, ...]
    at_limit: Probe | None
    runs: int

    @property
    def capacity(self) -> float:
        """The median of the rounds."""
        return statistics.median(self.limits)

    def and_then(self, later: Measured) -> Measured:
        """The same configuration with later rounds, too."""
        runs = [probe for probe in (self.at_limit, later.at_limit) if probe is not None]
        best = max(runs, key=lambda probe: probe.rate, default=None)
        return Measured(self.settings, (*self.limits, *later.limits), best, self.runs + later.runs)


def rounds(
    configure: Callable[[Settings], None],
    ask: Ask,
    guesses: Mapping[Settings, float],
    count: int,
    say: Callable[[str], None] = lambda _: None,
) -> dict[Settings, Measured]:
    """The limits of some configurations, ``count`` times each, in turn; every other round backwards.

    Where the server is lost, the configuration is measured again; where it is lost twice, the limit is 0.

    Args:
        configure: Serves one configuration.
        ask: Runs one rate.
        guesses: The configurations, each with a rate to begin at.
        count: Number of rounds.
        say: Called with a line on what is measured.

    Raises:
        Ended: ``ask`` ended the measurement within the first round; of later ones, those that are whole count.
        CheckFailed: likewise, where the generator could send none of a configuration's rates. Where it sent some, the
            configuration's limit is the highest of them that was met: at least that.
    """
    limits: dict[Settings, list[float]] = {settings: [] for settings in guesses}
    best: dict[Settings, Probe | None] = dict.fromkeys(guesses)
    runs = dict.fromkeys(guesses, 0)
    around = dict(guesses)

    def limit_of(settings: Settings) -> Bracket:
        def counted(rate: float) -> Probe:
            runs[settings] += 1
            return ask(rate)

        return _limit(configure, counted, settings, around[settings])

    for turn in range(count):
        whole: dict[Settings, Bracket] = {}
        try:
            for settings in list(guesses)[:: 1 if turn % 2 == 0 else -1]:
                say(f"round {turn + 1} of {count}: {settings}")
                whole[settings] = limit_of(settings)
        except (Ended, CheckFailed):
            if turn == 0:
                raise
            break
        for settings, bounds in whole.items():
            limits[settings].append(bounds.limit)
            around[settings] = bounds.limit or around[settings]
            before = best[settings]
            if bounds.low is not None and (before is None or bounds.low.rate > before.rate):
                best[settings] = bounds.low
    return {
        settings: Measured(settings, tuple(limits[settings]), best[settings], runs[settings]) for settings in guesses
    }


def _limit(configure: Callable[[Settings], None], ask: Ask, settings: Settings, start: float) -> Bracket:
    """The limit of one configuration; 0 where the server is lost with it twice."""

    def measure() -> Bracket:
        configure(settings)
        return bracket(ask, start, stride=STRIDE, resolution=STRIDE * 1.001)

    try:
        return twice(measure)
    except ServerLost as error:
        return Bracket(None, Probe(start, met=False, served=0.0, p50_ms=None, p99_ms=None, why=error.message))


def ratio(ours: Measured, theirs: Measured) -> Ratio | None:
    """How many times the capacity: the median of the rounds, and where the mean lies with a probability of 95 %.

    The interval is Student's, of the ratios' logarithms. None where either meets the SLO at no rate in some round, or
    there are fewer than :data:`LEAST_ROUNDS` rounds.
    """
    if not all(theirs.limits) or not all(ours.limits) or len(ours.limits) < LEAST_ROUNDS:
        return None
    logarithms = [math.log(a / b) for a, b in zip(ours.limits, theirs.limits, strict=True)]
    count, middle, mean = len(logarithms), statistics.median(logarithms), statistics.mean(logarithms)
    width = STUDENT[min(count, max(STUDENT))] * statistics.stdev(logarithms) / math.sqrt(count)
    low, high = min(mean - width, middle), max(mean + width, middle)
    return Ratio(math.exp(middle), math.exp(low), math.exp(high))


def beats(ours: Measured, theirs: Measured) -> bool:
    """Whether the whole interval of their ratio is above 1, and the middle round is better by more than a tie."""
    if not theirs.capacity:
        return ours.capacity > theirs.capacity
    gain = ratio(ours, theirs)
    return gain is not None and gain.low > 1 and gain.median >= TIE


def winner(measured: Sequence[Measured]) -> Measured:
    """The one that no later one beats; of two that tie, the one that stands first."""
    best = measured[0]
    for challenger in measured[1:]:
        if beats(challenger, best):
            best = challenger
    return best
