"""Traffic to replay: requests a second, for a day with a spike and a step, and for a step alone.

Rates are in shares of one pod's capacity, so that a trace means the same for any model. It knows no pods.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

DAY_S = 24 * 3600
HOUR_S = 3600


@dataclass(frozen=True)
class Trace:
    """Arrivals of each second.

    Attributes:
        name: In a word.
        rate: Requests a second that were meant, without chance.
        arrivals: As many as came: a Poisson number of that rate.
    """

    name: str
    rate: NDArray[np.float64]
    arrivals: NDArray[np.int64]

    @property
    def seconds(self) -> int:
        """How long it is."""
        return len(self.arrivals)


def day(capacity: float, *, peak: float = 6.0, seed: int = 0) -> Trace:
    """24 hours: a night, two humps, wander and noise, a spike and a step.

    From a tenth of the peak at four in the morning to all of it in the afternoon. Over that lies a factor that wanders
    (log-normal, 8 %, correlated over a minute). At 11:00 the rate is doubled for 10 minutes within 30
    seconds, as after a push notification; at 20:00 a batch client adds a third of the peak from one second to the next,
    for an hour.

    Args:
        capacity: Requests a second that one pod serves at most.
        peak: Height of the day in pods' capacities, without spike and noise.
        seed: Of the noise and the Poisson numbers.
    """
    at = np.arange(DAY_S) / HOUR_S
    daily = 0.45 - 0.35 * np.cos((at - 4) * 2 * np.pi / 24)
    humps = 0.15 * np.exp(-(((at - 10.5) / 1.5) ** 2)) + 0.2 * np.exp(-(((at - 16) / 2) ** 2))
    shape = daily + humps
    spike = np.interp(at, [11, 11 + 30 / HOUR_S, 11 + 1 / 6, 11 + 1 / 6 + 30 / HOUR_S], [1, 2, 2, 1])
    step = np.where((at >= 20) & (at < 21), 1 / 3, 0.0)
    return _drawn("day", (shape / shape.max() * spike + step) * peak * capacity, seed)


def step(capacity: float, *, low: float = 1.0, high: float = 5.0, seed: int = 0) -> Trace:
    """Three quarters of an hour: ``low`` pods' capacities, ``high`` from the fifteenth minute, ``low`` again."""
    at = np.arange(45 * 60)
    return _drawn("step", np.where((at >= 900) & (at < 1800), high, low) * capacity, seed)


def quiet(capacity: float, *, seed: int = 0) -> Trace:
    """A day of a model that is asked now and then: half an hour at a fifth of a pod after two hours of nothing."""
    at = np.arange(DAY_S) % (2.5 * HOUR_S)
    return _drawn("quiet", np.where(at >= 2 * HOUR_S, 0.2, 0.0) * capacity, seed, wander=0.0)


def _drawn(name: str, rate: NDArray[np.float64], seed: int, *, wander: float = 0.08, memory_s: float = 60) -> Trace:
    random = np.random.default_rng(seed)
    kept = np.exp(-1 / memory_s)
    shocks = random.standard_normal(len(rate)) * np.sqrt(1 - kept**2)
    level, levels = 0.0, np.empty(len(rate))
    for second, shock in enumerate(shocks):
        level = kept * level + shock
        levels[second] = level
    noisy = rate * np.exp(wander * levels - wander**2 / 2)
    return Trace(name, rate, random.poisson(noisy))
