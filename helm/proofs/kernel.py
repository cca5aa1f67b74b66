"""A table of whole seconds of one pod, made by the event simulation, from which a fleet's day is put together.

For each number of arrivals in a second and each number of requests left over from the second before, the table holds
what became of some dozens of simulated seconds. A day draws one of them a pod and second. It knows no fleet.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray
from proofs.service import Service, serve

Singles: TypeAlias = NDArray[np.float32]
Whole: TypeAlias = NDArray[np.int32]

REPLICATES = 24
REACH = 2.0  # times the capacity: more arrivals a second are taken as so many, and what is above them waits
TAIL_S = 1.0  # load goes on after the second, so that its last batches are as large as they would be
LEFT, WAITING, IN_FLIGHT, WAITED, BUSY, LATE, CARRIES = range(7)


@dataclass(frozen=True)
class Second:
    """What became of each pod in one second; every field has the shape of the arrivals.

    Attributes:
        left: Requests in the pod at its end.
        waiting: Those of them that are in no batch: what Triton's pending gauge would show.
        completed: Answers.
        lost: Refused, as the queue was full.
        late: Arrivals answered later than the SLO; those that are lost are none of them.
        in_flight_s: Request-seconds in the pod.
        waited_s: Request-seconds in its queue.
        busy_s: Seconds in which it worked.
    """

    left: Whole
    waiting: Whole
    completed: Whole
    lost: Whole
    late: Singles
    in_flight_s: Singles
    waited_s: Singles
    busy_s: Singles


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
        full = service.queue + service.max_batch
        self._arrivals = _rates(service.capacity, most)
        self._backlogs = _lengths(full)
        self._came = _between(self._arrivals, most)
        self._had = _between(self._backlogs, full)
        self._full = full
        random = np.random.default_rng(seed)
        self._table = np.stack([self._row(int(count), random) for count in self._arrivals]).reshape(-1, 7)

    def _row(self, count: int, random: np.random.Generator) -> Singles:
        lanes = len(self._backlogs) * self.replicates
        backlog = np.repeat(self._backlogs, self.replicates)
        inside = np.sort(random.random((lanes, count)), axis=1)
        after = 1 + np.sort(random.random((lanes, max(count, 1))) * TAIL_S, axis=1)
        counted = np.full(lanes, count)
        found = serve(self.service, np.concatenate([inside, after], axis=1), counted, backlog, self.slo_s, random)
        share = found.late / max(count, 1)
        columns = [found.left, found.waiting, found.in_flight_s, found.waiting_s, found.busy_s, share,
                   ~found.regenerated]  # fmt: skip
        return np.stack(columns, axis=1).astype(np.float32)

    def __call__(self, arrivals: Whole, left: Whole, chance: Singles) -> Second:
        """One second of many pods.

        Args:
            arrivals: In this second.
            left: Requests in each pod at its beginning.
            chance: (3, …) uniform numbers from 0 to 1.
        """
        low_a, part_a = (row[np.minimum(arrivals, len(self._came[0]) - 1)] for row in self._came)
        low_b, part_b = (row[np.minimum(left, self._full)] for row in self._had)
        index_a, index_b = low_a + (chance[0] < part_a), low_b + (chance[1] < part_b)
        draw = (chance[2] * self.replicates).astype(np.int32)
        found = self._table.take((index_a * len(self._backlogs) + index_b) * self.replicates + draw, axis=0)
        # A server that never paused carries every further request to the next second; a pause forgets them.
        more = (arrivals - self._arrivals[index_a] + left - self._backlogs[index_b]) * (found[..., CARRIES] > 0)
        there = np.clip(found[..., LEFT].astype(np.int32) + more, 0, arrivals + left)
        lost = np.maximum(there - self._full, 0)
        there = there - lost
        waiting = np.clip(found[..., WAITING].astype(np.int32) + more, 0, there)
        late = np.maximum(found[..., LATE] * arrivals - lost, 0)
        # All of the second has half of what came more in it, and all of what was there before.
        change = (more * 0.5).astype(np.float32)
        return Second(
            there, waiting, arrivals + left - there - lost, lost, late,
            np.maximum(found[..., IN_FLIGHT] + change, 0), np.maximum(found[..., WAITED] + change, 0),
            found[..., BUSY],
        )  # fmt: skip


def _rates(capacity: float, most: int) -> NDArray[np.int64]:
    """Arrivals a second: close together where a queue begins to grow, and few where all is idle or all is busy."""
    parts = [np.linspace(0, 0.6, 13), np.linspace(0.6, 1.2, 25), np.linspace(1.2, most / capacity, 5)]
    return np.unique(np.rint(np.concatenate(parts) * capacity).clip(0, most).astype(np.int64))


def _lengths(full: int) -> NDArray[np.int64]:
    """Requests left over: every small number, then a fifth more each."""
    return np.unique(np.concatenate([np.arange(4), np.rint(np.geomspace(4, full, 24))]).astype(np.int64))


def _between(grid: NDArray[np.int64], most: int) -> tuple[NDArray[np.int32], Singles]:
    """For every whole number its place below on the grid, and how far it is from there to the next (0 to 1)."""
    numbers = np.arange(most + 1)
    low = np.clip(np.searchsorted(grid, numbers, side="right") - 1, 0, len(grid) - 2)
    part = (numbers - grid[low]) / (grid[low + 1] - grid[low])
    return low.astype(np.int32), part.astype(np.float32)
