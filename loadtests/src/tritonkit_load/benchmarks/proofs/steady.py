"""One pod at a constant rate: what a signal is at a share of the capacity, and how near a real pod comes to it.

Also how much longer a real pod's batches take when requests come by chance than while callers always wait.

Event simulation alone, no fleet and no day.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from tritonkit_load.benchmarks.proofs.service import Seconds, Service, serve

SHARES = (0.2, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9)
LANES, LONG_S = 16, 20.0
# How far the simulated number in flight may be from the measured one: as a part of it, or requests if that is more.
BOUND, LEAST_BOUND = 0.25, 0.25
# Up to this share of the capacity. Beyond it, a run of some seconds is mostly luck, and a real pod on one core slower
# than its batches: answers are sent while the next batch runs, on the same core.
HELD_SHARE = 0.8
# A pod whose batches are fuller than this part of the largest one may be overloaded: they say nothing of its pace.
FULL = 0.75
FACTORS, HALVINGS = (0.8, 1.6), 8


@dataclass(frozen=True)
class Observed:
    """A real pod under Poisson arrivals.

    Attributes:
        rate: Requests a second.
        in_flight: Mean in the server: rate times the server's mean time a request (Little's law).
        waiting: Mean of them in no batch yet.
        batch: Mean batch.
        p50_ms: Of a request's time, seen by the generator.
        p99_ms: Of the same.
        valid: The generator kept its schedule; if not, something else used the machine, and the figures say little.
    """

    rate: float
    in_flight: float
    waiting: float
    batch: float
    p50_ms: float
    p99_ms: float
    valid: bool


@dataclass(frozen=True)
class Point:
    """A pod under Poisson arrivals.

    Attributes:
        share: Of the capacity.
        rate: Requests a second.
        in_flight: Mean in the pod.
        waiting: Mean of them in no batch.
        batch: Mean batch.
        queue_ms: Mean before a batch begins.
        p50_ms, p99_ms: Of a request's time in the pod.
        busy: Share of the time in which it worked: a GPU's utilization.
    """

    share: float
    rate: float
    in_flight: float
    waiting: float
    batch: float
    queue_ms: float
    p50_ms: float
    p99_ms: float
    busy: float


@dataclass(frozen=True)
class Check:
    """A measured pod beside the simulated one.

    Attributes:
        rate: Requests a second.
        share: Of the simulated capacity.
        valid: The generator kept its schedule.
        fits: The slowdown was taken from this rate, so that it is no check.
    """

    rate: float
    share: float
    valid: bool
    fits: bool
    in_flight: float
    simulated_in_flight: float
    p50_ms: float
    simulated_p50_ms: float
    p99_ms: float
    simulated_p99_ms: float

    @property
    def agrees(self) -> bool:
        """Within ``BOUND``, or not compared: beyond ``HELD_SHARE``, or the rate that the slowdown comes from."""
        if self.fits or self.share > HELD_SHARE:
            return True
        return abs(self.simulated_in_flight - self.in_flight) <= max(BOUND * self.in_flight, LEAST_BOUND)


def _simulate(pod: Service, rate: float, seconds: float, seed: int, *, keep: bool) -> Seconds:
    random = np.random.default_rng(seed)
    most = int(rate * seconds + 6 * np.sqrt(rate * seconds) + 20)
    arrivals = np.cumsum(random.exponential(1 / rate, (LANES, most)), axis=1)
    counted = (arrivals < seconds).sum(axis=1)
    nothing = np.zeros(LANES, dtype=np.int64)
    return serve(pod, arrivals, counted, nothing, np.inf, random, span_s=seconds, keep=keep)


def point(pod: Service, rate: float, *, seconds: float = LONG_S, seed: int = 0) -> Point:
    """Simulate one rate on 16 pods, for so many seconds each."""
    simulated = _simulate(pod, rate, seconds, seed, keep=True)
    assert simulated.latencies is not None
    times = simulated.latencies[np.isfinite(simulated.latencies)] * 1000
    waiting = float(simulated.waiting_s.mean() / seconds)
    return Point(
        rate / pod.capacity, rate, float(simulated.in_flight_s.mean() / seconds), waiting,
        _mean_batch(simulated), waiting / rate * 1000,
        float(np.percentile(times, 50)), float(np.percentile(times, 99)), float(simulated.busy_s.mean() / seconds),
    )  # fmt: skip


def _mean_batch(simulated: Seconds) -> float:
    return float(simulated.taken.sum() / simulated.batches.sum())


def curve(pod: Service) -> list[Point]:
    """The simulated points of all ``SHARES``."""
    return [point(pod, share * pod.capacity) for share in SHARES]


def busiest(pod: Service, observed: Sequence[Observed]) -> Observed | None:
    """The highest rate that the generator kept and whose batches are not full; None if there is none."""
    usable = [sample for sample in observed if sample.valid and sample.batch <= FULL * pod.max_batch]
    return max(usable, key=lambda sample: sample.rate, default=None)


def slowdown(pod: Service, observed: Sequence[Observed]) -> float:
    """How much longer a batch takes while requests come by chance than while callers always wait; 1 if nothing says it.

    It is the factor with which the simulated pod has the real one's mean batch at the busiest rate: a pod that is
    hardly ever idle takes what has come in its last batch's time. Requests in flight have no part in it.

    Args:
        pod: As measured with callers that always wait.
        observed: The real one under Poisson arrivals.
    """
    busy = busiest(pod, observed)
    if busy is None:
        return 1.0
    low, high = FACTORS
    for _ in range(HALVINGS):
        middle = (low + high) / 2
        slower = replace(pod, seconds=tuple(seconds * middle for seconds in pod.seconds))
        overloaded = busy.rate >= slower.capacity
        if overloaded or _mean_batch(_simulate(slower, busy.rate, LONG_S, 0, keep=False)) > busy.batch:
            high = middle
        else:
            low = middle
    return round((low + high) / 2, 3)


def checks(pod: Service, observed: Sequence[Observed]) -> list[Check]:
    """Each measured rate beside its simulation."""
    fitted, beside = busiest(pod, observed), []
    for sample in observed:
        simulated = point(pod, sample.rate)
        beside.append(
            Check(sample.rate, simulated.share, sample.valid, sample == fitted, sample.in_flight, simulated.in_flight,
                  sample.p50_ms, simulated.p50_ms, sample.p99_ms, simulated.p99_ms)
        )  # fmt: skip
    return beside
