"""How long a request waits for its batch, and how many replicas keep a promise: a queue that is served in batches.

Requests arrive at random (Poisson). A server that becomes free takes all that wait, up to the largest batch; Triton's
dynamic batcher does so with ``max_queue_delay_microseconds: 0``.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]
MOST_BUSY = 0.95  # of the largest rate; above it a queue of random arrivals has no steady length worth a promise
_STEPS = 7  # of the bisection: the rate to less than a percent
_MOMENTS = 6  # of a batch's time at which a request may arrive
_RARE = 1e-4  # states of the queue that are seen less often are left out
_MOST_BATCHES, _SETTLED = 2000, 1e-6  # of the steady state: probability that still moves with one more batch
_LEAST_STATES = 160  # of the queue that are counted: at MOST_BUSY a longer one is rarer than 1e-6


@dataclass(frozen=True)
class Service:
    """What one replica does.

    Attributes:
        batch_ms: Batch size to the time of a batch in milliseconds, for some sizes, the largest included.
        request_ms: What a request takes beside its batch: the way there and back.
        limit_rps: Requests a second that its host can carry, whatever the GPU does.
    """

    batch_ms: Mapping[int, float]
    request_ms: float = 0.0
    limit_rps: float = math.inf

    @property
    def largest(self) -> int:
        """The largest batch."""
        return max(self.batch_ms)

    @property
    def most_rps(self) -> float:
        """Requests a second of batch after batch, each the best size."""
        return min(self.limit_rps, max(1e3 * size / ms for size, ms in self.batch_ms.items()))

    def ms(self, batch: float) -> float:
        """The time of a batch of any size, between the sizes that are known."""
        sizes = sorted(self.batch_ms)
        if batch <= sizes[0]:
            return self.batch_ms[sizes[0]]
        for low, high in itertools.pairwise(sizes):
            if batch <= high:
                part = (batch - low) / (high - low)
                return self.batch_ms[low] + part * (self.batch_ms[high] - self.batch_ms[low])
        return self.batch_ms[sizes[-1]]


def p99_ms(service: Service, rps: float) -> float:
    """The time that 99 % of the requests stay within, in milliseconds; infinite where they come faster than they leave.

    The queue's lengths at the ends of batches are a Markov chain (Bailey 1954, "On queueing processes with bulk
    service"), followed until it is steady. A request then waits for the rest of the batch that runs, for full
    batches before it, and for its own.
    """
    if rps >= service.most_rps:
        return math.inf
    latency, weight = _latencies(service, rps / 1e3)
    order = np.argsort(latency)
    total = np.cumsum(weight[order])
    return float(service.request_ms + latency[order][np.searchsorted(total, 0.99 * total[-1])])


def mean_batch(service: Service, rps: float) -> float:
    """Requests in a batch on average."""
    if rps >= service.most_rps:
        return float(service.largest)
    steady, sizes, _ = _steady(service, rps / 1e3)
    return float((steady * sizes).sum())


def largest_rps(service: Service, p99_bound_ms: float, busy: float = MOST_BUSY) -> float:
    """The largest rate that keeps a promise, requests a second; 0 where not even a lone request keeps it.

    Args:
        service: One replica.
        p99_bound_ms: The promise.
        busy: The largest share of the replica's rate.
    """
    if service.request_ms + service.ms(1) > p99_bound_ms:
        return 0.0
    low, high = 0.0, service.most_rps * busy
    if p99_ms(service, high) <= p99_bound_ms:
        return high
    for _ in range(_STEPS):
        middle = (low + high) / 2
        low, high = (middle, high) if p99_ms(service, middle) <= p99_bound_ms else (low, middle)
    return low


def _steady(service: Service, per_ms: float) -> tuple[Array, Array, Array]:
    """Of the queue's lengths at the ends of batches: how likely each is, the batch that follows, and its time."""
    largest = service.largest
    lengths = np.arange(max(3 * largest, _LEAST_STATES) + 1)
    sizes = np.clip(lengths, 1, largest)
    times = np.array([service.ms(size) for size in range(1, largest + 1)])[sizes - 1]
    left = np.maximum(0, lengths - largest)
    arrived = lengths[None, :] - left[:, None]
    step = _poisson(per_ms * times, arrived)
    step[:, -1] += 1 - step.sum(1)  # whatever is longer counts as the longest
    # Batch after batch, until nothing changes: a solver's threads would fight over a busy machine's cores.
    steady = np.eye(1, len(lengths))[0]
    for _ in range(_MOST_BATCHES):
        following = steady @ step
        settled = float(np.abs(following - steady).sum()) < _SETTLED
        steady = following
        if settled:
            break
    return steady, sizes, times


def _latencies(service: Service, per_ms: float) -> tuple[Array, Array]:
    """Latencies of requests, and how likely each is."""
    steady, _, times = _steady(service, per_ms)
    largest, full = service.largest, service.ms(service.largest)
    kept = np.flatnonzero(steady > _RARE)
    left = np.maximum(0, kept - largest)[:, None, None]
    elapsed = ((np.arange(_MOMENTS) + 0.5) / _MOMENTS * times[kept][:, None])[:, :, None]
    most = per_ms * float(times[kept].max())
    count = min(len(steady), int(most + 5 * math.sqrt(most)) + 6)
    before = np.arange(count)[None, None, :]  # requests that came in this batch's time before it
    weight = (steady[kept] * per_ms * times[kept] / _MOMENTS)[:, None, None] * _poisson(per_ms * elapsed, before)
    batches, place = np.divmod(left + before, largest)
    waited = times[kept][:, None, None] - elapsed + batches * full
    own = np.clip(place + 1 + per_ms * waited, 1, largest)
    known = np.array([[size, service.ms(size)] for size in range(1, largest + 1)])
    latency = waited + np.interp(own, known[:, 0], known[:, 1])
    # Who comes to a free server begins a batch alone.
    return np.append(latency.ravel(), service.ms(1)), np.append(weight.ravel(), steady[0])


def _poisson(mean: Array, count: Array) -> Array:
    """Probability of a count; broadcasts, and is 0 for negative counts."""
    mean = np.maximum(mean if mean.ndim == count.ndim else mean[:, None], 1e-12)
    factorial = np.append(0.0, np.cumsum(np.log(np.arange(1, max(2, int(count.max()) + 1)))))
    whole = np.maximum(count, 0)
    value: Array = np.exp(whole * np.log(mean) - mean - factorial[whole])
    return np.where(count < 0, 0.0, value)
