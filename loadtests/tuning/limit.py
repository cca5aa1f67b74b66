"""Finds the highest rate that meets an SLO, by asking of one rate after another whether it does.

It knows no server: what it asks is a function from a rate to a :class:`Probe`. Whether a rate is met is partly chance
(a Poisson burst, a busy machine), so a limit has an interval.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from tritonkit.errors import CheckFailed

LEAST = 1.0  # requests a second; a server that cannot meet the SLO at that rate cannot meet it
FIRST_STRIDE = 2.0
OVERLOADED = 0.9  # of the arrivals; a server that answers less has no more to give
SURE = 0.9  # of the runs at a capacity must meet the SLO
LEVEL = 0.95
# A run in this many fails, or passes, whatever the rate: somebody else used the machine.
LAPSE = 0.02
# How fast a probability falls from 3/4 to 1/4 around the limit, as a part of the rate: all that is plausible.
SLOPES = np.geomspace(0.002, 0.2, 25)


@dataclass(frozen=True)
class Probe:
    """What one rate came to.

    Attributes:
        rate: Arrivals a second.
        met: Whether the SLO was.
        served: Successes a second, while the load lasted.
        p50_ms: From the scheduled arrival; None where nothing succeeded.
        p99_ms: The same.
        error_rate: Failed requests over all of them.
        strain: The SLO's latency that is nearest to its bound, over that; 1 is the limit. NaN if it names none.
        said: What was missed, in words.
        offered: Arrivals a second that there really were, as chance had it; the rate if not given.
    """

    rate: float
    met: bool
    served: float
    p50_ms: float | None
    p99_ms: float | None
    error_rate: float = 0.0
    strain: float = math.nan
    said: str = ""
    offered: float | None = None

    @property
    def overloaded(self) -> bool:
        """Whether the server could not keep up with the rate, whatever the SLO."""
        return self.served < OVERLOADED * (self.rate if self.offered is None else self.offered)


Ask = Callable[[float], Probe]


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

        A server that was overloaded gives no more than it gave. Without strains it is the middle.
        """
        if self.low is None:
            return 0.0
        low, high = self.low.rate, self.high.rate
        if self.high.overloaded:
            high = min(high, max(low, self.high.served))
        part = 0.5
        if 0 < self.low.strain < 1 < self.high.strain < math.inf:
            part = -math.log(self.low.strain) / math.log(self.high.strain / self.low.strain)
        return float(low * (high / low) ** part)


def bracket(ask: Ask, start: float, *, stride: float = FIRST_STRIDE, resolution: float = 1.05) -> Bracket:
    """Enclose the limit: up or down by ``stride`` until the answer changes, then halve what is left.

    Args:
        ask: Runs one rate.
        start: Where to begin.
        stride: Factor between the first rates.
        resolution: Largest factor between the two rates that are returned.
    """
    low: Probe | None = None
    high: Probe | None = None
    rate = max(start, LEAST)
    while low is None or high is None:
        found = ask(rate)
        if found.met:
            low = found
            rate *= stride
        else:
            high = found
            if rate <= LEAST:
                return Bracket(None, high)
            rate = max(LEAST, min(rate / stride, found.served if found.overloaded else rate))
    while high.rate > low.rate * resolution:
        found = ask(math.sqrt(low.rate * high.rate))
        low, high = (found, high) if found.met else (low, found)
    return Bracket(low, high)


@dataclass(frozen=True)
class Capacity:
    """The highest rate that meets the SLO.

    Attributes:
        rate: It met the SLO in every one of ``confirmed`` runs; the next higher rate did not.
        low: Of the interval (:func:`interval`).
        high: Of the interval.
        confirmed: How many runs there were at ``rate``.
        points: All runs, in order.
    """

    rate: float
    low: float
    high: float
    confirmed: int
    points: tuple[Probe, ...]

    @property
    def at_rate(self) -> Probe:
        """The last run at ``rate``."""
        return [point for point in self.points if point.rate == self.rate][-1]


def capacity(ask: Ask, start: float | None = None, *, resolution: float = 1.05, times: int = 3) -> Capacity:
    """The limit, from nothing: one request a second, a bracket, halving, and then the same rate again and again.

    A rate counts when it has met the SLO in ``times`` further runs and the next higher one has not; where one run
    misses it, the next lower rate is tried.

    Args:
        ask: Runs one rate.
        start: A first guess; if not given, what one caller would get who waits for each answer.
        resolution: Factor between the rates that are told apart.
        times: Runs that confirm a rate.

    Raises:
        CheckFailed: One request a second does not meet the SLO.
    """
    points: list[Probe] = []

    def note(rate: float) -> Probe:
        points.append(ask(rate))
        return points[-1]

    first = note(LEAST)
    if not first.met and not (first := note(LEAST)).met:  # a second time: it may have been the machine
        raise _hopeless(first)
    found = bracket(note, start or 1000 / max(first.p50_ms or 1.0, 0.1), resolution=resolution)
    rate = found.low.rate if found.low else LEAST

    def confirmed(rate: float) -> bool:
        return all(note(rate).met for _ in range(times))

    if confirmed(rate):
        while confirmed(rate * resolution):  # what was missed before may have been the machine
            rate *= resolution
    else:
        while not confirmed(rate := max(LEAST, rate / resolution)):
            if rate <= LEAST:
                raise _hopeless(points[-1])
    low, high = interval(points)
    return Capacity(rate, low, high, sum(point.rate == rate for point in points), tuple(points))


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


def _hopeless(found: Probe) -> CheckFailed:
    return CheckFailed(
        f"the SLO is not met at {found.rate:g} request a second: {found.said or 'it was missed'}",
        "loosen the SLO, or make the model faster: no rate will meet it as it is",
    )
