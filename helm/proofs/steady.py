"""One pod at a constant rate: what a signal is at a share of the capacity, and how near a real pod comes to it.

Event simulation alone, no fleet and no day.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from proofs.measure import Observed
from proofs.service import Service, serve

SHARES = (0.2, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9)
LANES, LONG_S = 16, 20.0
# How far the simulated number in flight may be from the measured one: as a part of it, or requests if that is more.
BOUND, LEAST_BOUND = 0.35, 0.35
# Up to this share of the capacity. Beyond it, a real pod on one core is slower than its batches: answers are sent while
# the next batch runs, on the same core, and a run of some seconds is mostly luck.
HELD_SHARE = 0.75


@dataclass(frozen=True)
class Point:
    """A pod under Poisson arrivals.

    Attributes:
        share: Of the capacity.
        rate: Requests a second.
        in_flight: Mean in the pod.
        waiting: Mean of them in no batch.
        queue_ms: Mean before a batch begins.
        p50_ms, p99_ms: Of a request's time in the pod.
        busy: Share of the time in which it worked: a GPU's utilization.
    """

    share: float
    rate: float
    in_flight: float
    waiting: float
    queue_ms: float
    p50_ms: float
    p99_ms: float
    busy: float


@dataclass(frozen=True)
class Check:
    """A measured pod beside the simulated one; ``share`` of the simulated capacity."""

    rate: float
    share: float
    valid: bool
    in_flight: float
    simulated_in_flight: float
    p50_ms: float
    simulated_p50_ms: float
    p99_ms: float
    simulated_p99_ms: float

    @property
    def agrees(self) -> bool:
        """Within ``BOUND``, or beyond ``HELD_SHARE``."""
        if self.share > HELD_SHARE:
            return True
        return abs(self.simulated_in_flight - self.in_flight) <= max(BOUND * self.in_flight, LEAST_BOUND)


def point(pod: Service, rate: float, *, seconds: float = LONG_S, seed: int = 0) -> Point:
    """Simulate one rate on 16 pods, for so many seconds each."""
    random = np.random.default_rng(seed)
    most = int(rate * seconds + 6 * np.sqrt(rate * seconds) + 20)
    arrivals = np.cumsum(random.exponential(1 / rate, (LANES, most)), axis=1)
    counted = (arrivals < seconds).sum(axis=1)
    nothing = np.zeros(LANES, dtype=np.int64)
    found = serve(pod, arrivals, counted, nothing, np.inf, random, span_s=seconds, keep=True)
    assert found.latencies is not None
    times = found.latencies[np.isfinite(found.latencies)] * 1000
    waiting = float(found.waiting_s.mean() / seconds)
    return Point(
        rate / pod.capacity, rate, float(found.in_flight_s.mean() / seconds), waiting, waiting / rate * 1000,
        float(np.percentile(times, 50)), float(np.percentile(times, 99)), float(found.busy_s.mean() / seconds),
    )  # fmt: skip


def curve(pod: Service) -> list[Point]:
    """All of ``SHARES``."""
    return [point(pod, share * pod.capacity) for share in SHARES]


def checks(pod: Service, observed: Sequence[Observed]) -> list[Check]:
    """Each measured rate beside its simulation."""
    found = []
    for one in observed:
        simulated = point(pod, one.rate)
        found.append(
            Check(one.rate, simulated.share, one.valid, one.in_flight, simulated.in_flight, one.p50_ms,
                  simulated.p50_ms, one.p99_ms, simulated.p99_ms)
        )  # fmt: skip
    return found
