"""Measures configurations side by side: in turn, round after round, so that a machine's moods fall upon all alike."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from reporting.tuning_result import Ratio

from tuning.limit import Ask, Probe, bracket
from tuning.space import Settings

STRIDE = 1.1
# Less than this is a tie: it is what a round of such steps can tell apart.
TIE = 1.03


@dataclass(frozen=True)
class Measured:
    """One configuration's limit in every round, and its best run.

    Attributes:
        settings: Which one.
        limits: Requests a second, one number a round; 0 where the SLO was met at no rate.
        at_limit: The run at the highest rate that met the SLO.
        runs: How many it took in all.
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
        runs = [one for one in (self.at_limit, later.at_limit) if one is not None]
        best = max(runs, key=lambda one: one.rate, default=None)
        return Measured(self.settings, (*self.limits, *later.limits), best, self.runs + later.runs)


def rounds(
    configure: Callable[[Settings], None],
    ask: Ask,
    guesses: Mapping[Settings, float],
    count: int,
    say: Callable[[str], None] = lambda _: None,
) -> dict[Settings, Measured]:
    """The limits of some configurations, ``count`` times each, in turn; every other round backwards.

    Args:
        configure: Sets one.
        ask: Runs one rate.
        guesses: The configurations, each with a rate to begin at.
        count: Of rounds.
        say: Is told what is measured.
    """
    limits: dict[Settings, list[float]] = {settings: [] for settings in guesses}
    best: dict[Settings, Probe | None] = dict.fromkeys(guesses)
    runs = dict.fromkeys(guesses, 0)
    around = dict(guesses)
    for turn in range(count):
        for settings in list(guesses)[:: 1 if turn % 2 == 0 else -1]:
            say(f"round {turn + 1} of {count}: {settings}")
            configure(settings)

            def counted(rate: float, settings: Settings = settings) -> Probe:
                runs[settings] += 1
                return ask(rate)

            found = bracket(counted, around[settings], stride=STRIDE, resolution=STRIDE * 1.001)
            limits[settings].append(found.limit)
            around[settings] = found.limit or around[settings]
            before = best[settings]
            if found.low is not None and (before is None or found.low.rate > before.rate):
                best[settings] = found.low
    return {one: Measured(one, tuple(limits[one]), best[one], runs[one]) for one in guesses}


def ratio(ours: Measured, theirs: Measured) -> Ratio | None:
    """How many times the capacity: the median of the rounds, and the lowest and highest of them.

    None where the other one meets the SLO at no rate.
    """
    if not all(theirs.limits):
        return None
    found = [a / b for a, b in zip(ours.limits, theirs.limits, strict=True)]
    return Ratio(statistics.median(found), min(found), max(found))


def beats(ours: Measured, theirs: Measured) -> bool:
    """Whether it is better in every round, and by more than a tie in the middle one."""
    if not all(theirs.limits):
        return ours.capacity > theirs.capacity
    found = ratio(ours, theirs)
    return found is not None and found.low > 1 and found.median >= TIE


def winner(measured: Sequence[Measured]) -> Measured:
    """The one that no later one beats; of two that tie, the one that stands first."""
    best = measured[0]
    for challenger in measured[1:]:
        if beats(challenger, best):
            best = challenger
    return best
