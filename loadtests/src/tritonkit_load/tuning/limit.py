"""Finds the highest rate that meets an SLO, by asking of one rate after another whether it does.

It knows no server: what it asks is a function from a rate to a :class:`Probe`. Whether a rate is met is partly chance
(a Poisson burst, a busy machine), so a limit has an interval.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from tritonkit.errors import CheckFailed
from tritonkit_load.load.result import Limit

BUSY_FIX = "leave its cores to it: end what else runs on this machine, or use one with more cores"
LEAST = 1.0  # requests a second; a server that cannot meet the SLO at that rate cannot meet it
FIRST_STRIDE = 2.0
OVERLOADED = 0.9  # of the arrivals; a server that answers less has no more to give
SURE = 0.9  # of the runs at a capacity must meet the SLO
LEVEL = 0.95
# The share of runs whose outcome says nothing of the rate: somebody else used the machine.
LAPSE = 0.02
# Rates that the generator could not keep, until a search ends with what it has proved: each costs some runs.
MOST_LATE = 6
MOST_UNSENT = 3  # of one bracket, while no rate was met below them
# How fast a probability falls from 3/4 to 1/4 around the limit, as a part of the rate: all that is plausible.
SLOPES = np.geomspace(0.002, 0.2, 25)


class Unsent(CheckFailed):
    """The generator could not send a rate, which says nothing of the server."""

    def __init__(self, message: str) -> None:
        super().__init__(message, BUSY_FIX)


@dataclass(frozen=True)
class Probe:
    """The outcome of a run at one rate.

    Attributes:
        rate: Arrivals a second.
        met: Whether the run met the SLO.
        served: Successes a second, while the load lasted.
        p50_ms: From the scheduled arrival; None where nothing succeeded.
        p99_ms: The same.
        error_rate: Failed requests over all of them.
        strain: The SLO's latency that is nearest to its bound, over that; 1 is the limit. NaN if it names none.
        why: Why the SLO was missed or the rate was not kept; empty where it was met.
        offered: Arrivals a second that chance gave the run; the rate if not given.
        kept: Whether the generator kept the rate; if not, the run says nothing of the server.
    """

    rate: float
    met: bool
    served: float
    p50_ms: float | None
    p99_ms: float | None
    error_rate: float = 0.0
    strain: float = math.nan
    why: str = ""
    offered: float | None = None
    kept: bool = True

    @property
    def overloaded(self) -> bool:
        """Whether the server could not keep up with the rate, whatever the SLO."""
        return self.served < OVERLOADED * (self.rate if self.offered is None else self.offered)


Ask = Callable[[float], Probe]


class Ended(Exception):
    """A search has to end with what it knows: its time is up, or the generator can send no more."""


def until(ask: Ask, end: float, takes_s: float) -> Ask:
    """``ask``, with :class:`Ended` in place of a run that would not be over by ``end`` (``time.monotonic()``).

    Args:
        ask: Runs one rate.
        end: When the time is up.
        takes_s: Seconds of a run, roughly.
    """

    def in_time(rate: float) -> Probe:
        if time.monotonic() + takes_s > end:
            raise Ended
        return ask(rate)

    return in_time


@dataclass(frozen=True)
class Bracket:
    """Two rates with the limit between them.

    Attributes:
        low: The highest that met the SLO; None if none did.
        high: The lowest that did not.
    """

    low: Probe | None
    high: Probe

    @property
    def limit(self) -> float:
        """The best guess at the limit: where the strain would be 1, if its logarithm rose evenly with the rate's.

        A server that was overloaded gives no more than it gave. Without strains it is the middle; below a rate that the
        generator could not send it is what was met: at least that.
        """
        if self.low is None:
            return 0.0
        if not self.high.kept:
            return self.low.rate
        low, high = self.low.rate, self.high.rate
        if self.high.overloaded:
            high = min(high, max(low, self.high.served))
        part = 0.5
        if 0 < self.low.strain < 1 < self.high.strain < math.inf:
            part = -math.log(self.low.strain) / math.log(self.high.strain / self.low.strain)
        return float(low * (high / low) ** part)


def bracket(
    ask: Ask, start: float, *, stride: float = FIRST_STRIDE, resolution: float = 1.05, least: float = LEAST
) -> Bracket:
    """Enclose the limit: up or down by ``stride`` until the answer changes, then halve what is left.

    Down, each step is the square of the one before: a server that misses an SLO at every rate is soon at ``least``.
    A rate that the generator cannot send is no answer: with a rate that was met below it, the bracket ends there.

    Args:
        ask: Runs one rate.
        start: Where to begin.
        stride: Factor between the first rates.
        resolution: Largest factor between the two rates that are returned.
        least: The lowest rate that is tried.

    Raises:
        Unsent: The generator could send none of :data:`MOST_UNSENT` rates, each below the one before.
    """
    low: Probe | None = None
    high: Probe | None = None
    rate, down, unsent = max(start, least), stride, 0
    while low is None or high is None:
        try:
            probe = ask(rate)
        except Unsent as error:
            unsent += 1
            if low is None and (unsent == MOST_UNSENT or rate <= least):
                raise
            probe, down = _unsent(rate, error), max(down, FIRST_STRIDE)
        if probe.met:
            low = probe
            rate *= stride
        else:
            high = probe
            if rate <= least:
                return Bracket(None, high)
            rate = max(least, min(rate / down, probe.served if probe.overloaded else rate))
            down *= down
    while high.rate > low.rate * resolution:
        middle = math.sqrt(low.rate * high.rate)
        try:
            probe = ask(middle)
        except Unsent as error:
            probe = _unsent(middle, error)
        low, high = (probe, high) if probe.met else (low, probe)
    return Bracket(low, high)


def _unsent(rate: float, error: Unsent) -> Probe:
    return Probe(rate, met=False, served=rate, p50_ms=None, p99_ms=None, why=error.message, kept=False)


@dataclass(frozen=True)
class Capacity:
    """The highest rate that meets the SLO.

    Attributes:
        rate: It met the SLO in every one of ``confirmed`` runs; the next higher rate did not.
        low: The lower end of the interval (:func:`interval`).
        high: The upper end of the interval.
        confirmed: How many runs there were at ``rate``.
        points: All runs, in order.
        at_least: The limit may be higher: the generator could not send more, or the search was ended.
        interrupted: A person ended it.
    """

    rate: float
    low: float
    high: float
    confirmed: int
    points: tuple[Probe, ...]
    at_least: bool = False
    interrupted: bool = False

    @property
    def limit(self) -> Limit:
        """As reports keep it."""
        return Limit(self.rate, self.low, finite(self.high), self.confirmed, self.at_least)

    @property
    def at_rate(self) -> Probe:
        """The last run at ``rate`` that met the SLO."""
        return [point for point in self.points if point.rate == self.rate and point.met][-1]


def capacity(
    ask: Ask, start: float | None = None, *, resolution: float = 1.05, times: int = 3, least: float = LEAST
) -> Capacity:
    """The limit, from nothing: the lowest rate, a bracket, halving, and then the same rate again and again.

    A rate counts when it has met the SLO in ``times`` further runs and the next higher one has not; where one run
    misses it, the next lower rate is tried. A search that has to end early (Ctrl-C, :class:`Ended`, several rates that
    the generator could not keep) returns the highest rate that was met below all that were missed, as a lower bound.

    Args:
        ask: Runs one rate.
        start: A first guess; if not given, what one caller would get who waits for each answer.
        resolution: Factor between the rates that are told apart.
        times: Runs that confirm a rate.
        least: The lowest rate that is tried, requests a second.

    Raises:
        CheckFailed: The lowest rate does not meet the SLO, or the generator cannot send even that.
    """
    points: list[Probe] = []

    def note(rate: float) -> Probe:
        points.append(ask(rate))
        if sum(not point.kept for point in points) >= MOST_LATE:
            raise Ended
        return points[-1]

    interrupted = False
    try:
        first = note(least)
        if not first.met and not (first := note(least)).met:  # a second time: it may have been the machine
            raise _hopeless(first)
        bounds = bracket(note, start or 1000 / max(first.p50_ms or 1.0, 0.1), resolution=resolution, least=least)
        rate = confirm(note, bounds.low.rate if bounds.low else least, resolution=resolution, times=times, least=least)
    except (Ended, KeyboardInterrupt) as end:
        interrupted = isinstance(end, KeyboardInterrupt)
        rate = proved(points)
        if not rate:
            raise _hopeless(points[-1]) if points and not interrupted else end from None
    return of_points(points, rate, interrupted=interrupted)


def confirm(ask: Ask, rate: float, *, resolution: float = 1.05, times: int = 3, least: float = LEAST) -> float:
    """The rate near this one that meets the SLO in each of some runs, while the next higher one does not.

    Raises:
        CheckFailed: Not even ``least`` requests a second meet the SLO.
    """
    last: Probe | None = None

    def confirmed(rate: float) -> bool:
        nonlocal last
        return all((last := ask(rate)).met for _ in range(times))

    if confirmed(rate):
        while confirmed(rate * resolution):  # what was missed before may have been the machine
            rate *= resolution
        return rate
    while not confirmed(rate := max(least, rate / resolution)):
        if rate <= least and last is not None:
            raise _hopeless(last)
    return rate


def of_points(points: Sequence[Probe], rate: float, *, interrupted: bool = False) -> Capacity:
    """What some runs say of a limit, of which one rate is known to meet the SLO."""
    kept = [point for point in points if point.kept]
    low, high = interval(kept)
    missed = min((point.rate for point in kept if not point.met and point.rate > rate), default=math.inf)
    late = min((point.rate for point in points if not point.kept and point.rate > rate), default=math.inf)
    at_least = interrupted or math.isinf(missed) or late < missed
    if math.isinf(missed):
        high = math.inf  # no run is evidence of one
    runs = sum(point.rate == rate and point.met for point in points)
    return Capacity(rate, min(low, rate), max(high, rate), runs, tuple(points), at_least, interrupted)


def proved(points: Sequence[Probe]) -> float:
    """The highest rate that was met, below all that were missed; 0 if there is none."""
    missed = min((point.rate for point in points if point.kept and not point.met), default=math.inf)
    return max((point.rate for point in points if point.met and point.rate < missed), default=0.0)


def interval(points: Sequence[Probe], sure: float = SURE, level: float = LEVEL) -> tuple[float, float]:
    """Between which rates the limit lies with a probability of ``level``.

    The limit is the rate at which a run meets the SLO with a probability of ``sure``. That probability is taken as a
    logistic function of the rate's logarithm, with every midpoint and every plausible slope equally likely before
    (Bayes, on a grid); the interval holds the middle ``level`` of what the runs leave likely.
    """
    rates = np.log([point.rate for point in points])
    met = np.array([point.met for point in points])
    middles = np.linspace(rates.min() - 0.5, rates.max() + 0.5, 4000)
    # The logistic function falls from 3/4 to 1/4 within 2 ln 3 of its scale.
    scales = SLOPES / (2 * math.log(3))
    weights = np.zeros((len(scales), len(middles)))
    for rate, was_met in zip(rates, met, strict=True):
        exponent = np.clip((rate - middles[None, :]) / scales[:, None], -500, 500)
        chance = LAPSE / 2 + (1 - LAPSE) / (1 + np.exp(exponent))
        weights += np.log(chance if was_met else 1 - chance)
    weights = np.exp(weights - weights.max())
    limits = middles[None, :] - scales[:, None] * math.log(sure / (1 - sure))
    order = np.argsort(limits, axis=None)
    cumulated = np.cumsum(weights.ravel()[order])
    ends = np.searchsorted(cumulated, cumulated[-1] * np.array([(1 - level) / 2, (1 + level) / 2]))
    low, high = np.exp(limits.ravel()[order][ends])
    return float(low), float(high)


def finite(value: float) -> float | None:
    """The value with two decimals; None for infinity, which JSON cannot hold."""
    return round(value, 2) if math.isfinite(value) else None


def _hopeless(probe: Probe) -> CheckFailed:
    if not probe.kept:
        return CheckFailed(
            f"nothing is proved: at {probe.rate:g} requests/s {probe.why}",
            BUSY_FIX,
        )
    return CheckFailed(
        f"the SLO is not met at {probe.rate:g} request a second: {probe.why or 'it was missed'}",
        "loosen the SLO, or make the model faster: no rate will meet it as it is",
    )
