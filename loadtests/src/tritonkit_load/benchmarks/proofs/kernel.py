"""A table of whole seconds of one pod, made by the event simulation, from which a fleet's day is put together.

For each number of arrivals in a second and each number of requests left over from the second before, the table holds
what became of some dozens of simulated seconds. A day draws one of them a pod and second. It knows no fleet.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from tritonkit_load.benchmarks.proofs.service import Service, serve

Singles: TypeAlias = NDArray[np.float32]
Whole: TypeAlias = NDArray[np.int32]

REPLICATES = 24
REACH = 2.0  # times the capacity: more arrivals a second are taken as so many, and what is above them waits
TAIL_S = 1.0  # load goes on after the second, so that its last batches are as large as they would be


@dataclass(frozen=True)
class Second:
    """What became of each pod in one second.

    Attributes:
        left: Requests in the pod at its end.
        completed: Answers.
        lost: Refused, as the queue was full.
        late: Arrivals answered later than the SLO; those that are lost are none of them.
        integrals: (…, 3): request-seconds in the pod, request-seconds in its queue, seconds in which it worked.
        cells: Where in the table each came from, for :meth:`Kernel.waiting`.
    """

    left: Whole
    completed: Whole
    lost: Whole
    late: Singles
    integrals: Singles
    cells: Whole


class Kernel:
    """The table.

    Args:
        service: What each pod is.
        slo_s: What is later is late.
        seed: Of the simulated seconds.
        replicates: Simulated seconds a cell.
    """

    def __init__(self, service: Service, slo_s: float, *, seed: int = 0, replicates: int = REPLICATES) -> None:
        self.service, self.slo_s, self.replicates = service, slo_s, replicates
        most = int(service.capacity * REACH)
        self._full = service.queue + service.max_batch
        arrivals, self._backlogs = _rates(service.capacity, most), _lengths(self._full)
        self._place_came, self._place_had = _places(arrivals, most), _places(self._backlogs, self._full)
        random = np.random.default_rng(seed)
        rows = [self._row(int(count), random) for count in arrivals]
        self._counts = np.concatenate([counts for counts, _, _ in rows])
        self._integrals = np.concatenate([integrals for _, integrals, _ in rows])
        self._late = np.concatenate([late for _, _, late in rows])

    def _row(self, count: int, random: np.random.Generator) -> tuple[Whole, Singles, Singles]:
        lanes = len(self._backlogs) * self.replicates
        backlog = np.repeat(self._backlogs, self.replicates)
        inside = np.sort(random.random((lanes, count)), axis=1)
        after = 1 + np.sort(random.random((lanes, max(count, 1))) * TAIL_S, axis=1)
        counted = np.full(lanes, count)
        outcome = serve(self.service, np.concatenate([inside, after], axis=1), counted, backlog, self.slo_s, random)
        counts = np.stack([outcome.left, backlog + count, ~outcome.regenerated, outcome.waiting], axis=1)
        integrals = np.stack([outcome.in_flight_s, outcome.waiting_s, outcome.busy_s], axis=1)
        return counts.astype(np.int32), integrals.astype(np.float32), (outcome.late / max(count, 1)).astype(np.float32)

    def draws(self, random: np.random.Generator, shape: tuple[int, ...]) -> tuple[Singles, Singles, Whole]:
        """Chance for calls: two uniform numbers and which of a cell's seconds, each of ``shape``."""
        return (
            random.random(shape, dtype=np.float32), random.random(shape, dtype=np.float32),
            random.integers(self.replicates, size=shape, dtype=np.int32),
        )  # fmt: skip

    def __call__(self, arrivals: Whole, left: Whole, chance: tuple[Singles, Singles, Whole]) -> Second:
        """One second of many pods.

        Args:
            arrivals: In this second.
            left: Requests in each pod at its beginning.
            chance: From :meth:`draws`.
        """
        # Between two numbers of the table, one or the other by chance, so that the mean is right.
        came = (self._place_came.take(arrivals, mode="clip") + chance[0]).astype(np.int32)
        had = (self._place_had.take(left, mode="clip") + chance[1]).astype(np.int32)
        cells = (came * len(self._backlogs) + had) * self.replicates + chance[2]
        counts, integrals = self._counts.take(cells, axis=0), self._integrals.take(cells, axis=0)
        all_in = arrivals + left
        # A server that never paused carries every further request to the next second; a pause forgets them.
        more = (all_in - counts[..., 1]) * counts[..., 2]
        there = np.minimum(np.maximum(counts[..., 0] + more, 0), all_in)
        late = (self._late.take(cells) * arrivals).astype(np.float32)
        lost = np.maximum(there - self._full, 0)
        if lost.any():
            there = there - lost
            late = np.maximum(late - lost, 0).astype(np.float32)
        if more.any():  # what came more was there for half of the second
            integrals[..., :2] = np.maximum(integrals[..., :2] + 0.5 * more[..., None], 0)
        return Second(there, all_in - there - lost, lost, late, integrals, cells)

    def waiting(self, second: Second) -> Whole:
        """Requests at its end that are in no batch: what Triton's pending gauge shows."""
        counts = self._counts.take(second.cells, axis=0)
        return np.asarray(np.clip(counts[..., 3] + second.left - counts[..., 0], 0, second.left))


def _rates(capacity: float, most: int) -> NDArray[np.int64]:
    """Arrivals a second: close together where a queue begins to grow, and few where all is idle or all is busy."""
    parts = [np.linspace(0, 0.6, 13), np.linspace(0.6, 1.2, 25), np.linspace(1.2, most / capacity, 5)]
    return np.unique(np.rint(np.concatenate(parts) * capacity).clip(0, most).astype(np.int64))


def _lengths(full: int) -> NDArray[np.int64]:
    """Requests left over: every small number, then a fifth more each."""
    return np.unique(np.concatenate([np.arange(4), np.rint(np.geomspace(4, full, 24))]).astype(np.int64))


def _places(grid: NDArray[np.int64], most: int) -> Singles:
    """For every whole number its place on the grid, with a fraction where it lies between two."""
    return np.interp(np.arange(most + 1), grid, np.arange(len(grid))).clip(0, len(grid) - 1.001).astype(np.float32)
