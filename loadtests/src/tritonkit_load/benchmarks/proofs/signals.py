"""What Prometheus sees of the pods, and the chart's signals from it, by the same arithmetic as the chart's PromQL.

The expressions themselves are in the chart, in ``files/queries.yaml``; ``tests/helm`` has Prometheus evaluate them on
samples of a simulation and compares. One scrape at a time for all pods: real scrapes are spread over the interval.
"""

from __future__ import annotations

from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

Floats: TypeAlias = NDArray[np.float64]

# Rows of what is scraped: counters of Triton in its units, the pending gauge, and busy seconds.
REQUESTS, DURATION_US, QUEUE_US, BUSY, PENDING = range(5)
COUNTERS = 4


class Scrapes:
    """The samples of the last window, of every pod of every fleet.

    Args:
        shape: (fleets, pods).
        every_s: Scrape interval.
        window_s: Range of the averages; whole intervals.
    """

    def __init__(self, shape: tuple[int, int], every_s: int, window_s: int) -> None:
        self.every_s, self.window_s = every_s, window_s
        self._kept = window_s // every_s
        self._samples = np.zeros((self._kept, 5, *shape))
        self._age = np.zeros(shape, dtype=np.int64)  # samples in the window, of the pod that is there now
        self._at = 0.0

    def add(self, now: float, samples: Floats, up: NDArray[np.bool_]) -> None:
        """One scrape: (5, fleets, pods), of the pods that answer."""
        self._samples = np.concatenate([self._samples[1:], samples[None]])
        self._age = np.where(up, np.minimum(self._age + 1, self._kept), 0)
        self._at = now

    @property
    def seen(self) -> NDArray[np.bool_]:
        """Which pods have a sample."""
        return np.asarray(self._age > 0)

    def rates(self, now: float) -> Floats:
        """``rate(counter[window])`` at ``now`` as Prometheus extrapolates it: (4, fleets, pods), NaN below two samples.

        Source: prometheus.io, "rate()", and ``extrapolatedRate`` in its promql/functions.go: the increase between the
        first and the last sample, stretched to the window's ends where a sample lies within 1.1 intervals of them,
        else by half an interval; and never back beyond the time at which the counter would have been zero.
        """
        count = np.maximum(self._age, 1)
        first = np.take_along_axis(self._samples[:, :COUNTERS], (self._kept - count)[None, None], axis=0)[0]
        gain = self._samples[-1, :COUNTERS] - first
        sampled = np.where(count > 1, (count - 1) * self.every_s, 1) * 1.0
        after = now - self._at
        before = np.broadcast_to(self.window_s - after - sampled, gain.shape)
        with np.errstate(divide="ignore", invalid="ignore"):
            zero = np.where(gain > 0, sampled * first / np.where(gain > 0, gain, 1), np.inf)
        before = np.minimum(before, zero)
        near = 1.1 * self.every_s
        half = self.every_s / 2
        reach = sampled + np.where(before < near, before, half) + (after if after < near else half)
        return np.where(self._age > 1, gain * reach / sampled / self.window_s, np.nan)

    def pending(self) -> Floats:
        """``avg_over_time(nv_inference_pending_request_count[window])``: (fleets, pods), NaN without a sample."""
        place = np.arange(self._kept)[:, None, None] >= self._kept - self._age
        total = np.where(place, self._samples[:, PENDING], 0).sum(axis=0)
        return np.where(self._age > 0, total / np.maximum(self._age, 1), np.nan)


def per_pod(scrapes: Scrapes, now: float) -> dict[str, Floats]:
    """Each signal of each pod, (fleets, pods), NaN where the expression gives nothing."""
    rates, pending = scrapes.rates(now), scrapes.pending()
    flying = rates[DURATION_US] / 1e6
    with np.errstate(divide="ignore", invalid="ignore"):
        waited = rates[QUEUE_US] / 1000 / np.where(rates[REQUESTS] > 0, rates[REQUESTS], np.nan)
    return {
        "inFlightRequests": np.where(flying > pending, flying, pending),
        "pendingRequests": pending,
        "queueTime": np.where(np.isfinite(waited), waited, np.where(scrapes.seen, 0.0, np.nan)),
        "utilization": rates[BUSY] * 100,
    }
