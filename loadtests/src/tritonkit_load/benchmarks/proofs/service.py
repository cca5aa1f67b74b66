"""One pod as a batching server: a measured service time for each batch size, and an exact simulation of its events.

The event simulation runs many independent servers beside each other and knows no fleet, no metrics and no clock of a
day; :mod:`.kernel` makes a table of whole seconds from it.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from tritonkit.errors import InputError

Floats: TypeAlias = NDArray[np.float64]
Ints: TypeAlias = NDArray[np.int64]

_LANE_S = 1000.0  # one lane's times lie in a stretch of this length of the one sorted array that all share
_NEVER_S = _LANE_S - 1


@dataclass(frozen=True)
class Service:
    """What one pod does with its requests: one instance, first come first served, all that wait in one batch.

    Attributes:
        sizes: Batch sizes that were measured, ascending.
        seconds: From the start of such a batch to the start of the next one, when requests wait.
        max_batch: Largest batch.
        delay_s: Triton's ``max_queue_delay_microseconds``: how long an idle instance waits for more requests.
        queue: Triton's ``max_queue_size``; what comes when so many wait is refused.
        cv: Coefficient of variation of a batch's time; 0 is always the same, 1 with batches of one is M/M/1.
        name: Of the model.
        load_s: From the server's start to its readiness.
    """

    sizes: tuple[float, ...]
    seconds: tuple[float, ...]
    max_batch: int = 64
    delay_s: float = 0.001
    queue: int = 256
    cv: float = 0.0
    name: str = "model"
    load_s: float = 2.0

    def time(self, batch: Floats | Ints) -> Floats:
        """Mean seconds of a batch; a straight line between what was measured, and beyond it at the last slope."""
        x, y = np.asarray(self.sizes, float), np.asarray(self.seconds, float)
        if len(x) == 1:
            return np.asarray(y[0] * np.asarray(batch) / x[0])
        beyond = np.maximum(np.asarray(batch) - x[-1], 0) * (y[-1] - y[-2]) / (x[-1] - x[-2])
        return np.asarray(np.interp(batch, x, y) + beyond)

    @property
    def capacity(self) -> float:
        """Most requests a second: the best batch, one after another."""
        batches = np.arange(1, self.max_batch + 1)
        return float(np.max(batches / self.time(batches)))

    def drawn(self, batch: Ints, random: np.random.Generator) -> Floats:
        """Seconds of each batch, by chance (gamma distribution) as far as ``cv`` says."""
        mean = self.time(batch)
        if self.cv == 0:
            return mean
        shape = 1 / self.cv**2
        return mean * random.standard_gamma(shape, size=np.shape(mean)) / shape


def load(path: Path) -> Service:
    """Read what :mod:`.measure` wrote.

    Raises:
        InputError: It is no such file.
    """
    try:
        return parse(json.loads(path.read_text(encoding="utf-8")))
    except (OSError, ValueError, KeyError, TypeError) as error:
        what = f"{path} holds no measured service times: {error}"
        raise InputError(what, "make bench-autoscaler MEASURE=1") from error


def parse(content: dict[str, Any]) -> Service:
    """The same from the file's content; ``KeyError`` where something is missing.

    The seconds are those of batches that always wait, times ``slowdown`` (:func:`.steady.slowdown`).
    """
    return Service(
        tuple(row["batch"] for row in content["service"]),
        tuple(row["seconds"] * content["slowdown"] for row in content["service"]),
        max_batch=content["max_batch_size"], delay_s=content["queue_delay_s"], queue=content["max_queue_size"],
        cv=content["cv"], name=content["model"], load_s=content["load_s"],
    )  # fmt: skip


@dataclass(frozen=True)
class Seconds:
    """What became of each server (lane) between 0 and ``span_s``.

    Attributes:
        left: Requests in the server at the end.
        waiting: Those of them that are in no batch yet.
        in_flight_s: Request-seconds in the server: the time integral of how many are in it.
        waiting_s: Request-seconds before a batch begins.
        taken: Requests whose batch began; with a backlog, those that waited among them.
        batches: In which they were.
        busy_s: Seconds in which a batch ran.
        late: Arrivals whose answer took longer than the SLO.
        regenerated: The server was idle at some time, so that what was there before has no more effect.
        latencies: Seconds of each arrival, lane by lane; NaN beyond the lane's last. Only if asked for.
    """

    left: Ints
    waiting: Ints
    in_flight_s: Floats
    waiting_s: Floats
    taken: Ints
    batches: Ints
    busy_s: Floats
    late: Ints
    regenerated: NDArray[np.bool_]
    latencies: Floats | None = None


def serve(
    service: Service, arrivals: Floats, counted: Ints, backlog: Ints, slo_s: float, random: np.random.Generator, *,
    span_s: float = 1.0, keep: bool = False,
) -> Seconds:  # fmt: skip
    """Simulate servers, batch by batch, until every counted arrival has its answer.

    Half of a backlog is in a batch that began some time ago, as in a server that takes all that waits; the rest waits.

    Args:
        service: What each of them is; the bound of its queue is left to the caller.
        arrivals: (lanes, most): seconds, ascending, from 0 on; infinite beyond a lane's last.
        counted: How many of each lane's arrivals the figures are about: those before ``span_s``.
        backlog: Requests in each server at 0.
        slo_s: What is later than that is late.
        random: For service times and for what is left of the batch at 0.
        span_s: The end of the integrals.
        keep: Also return each arrival's latency.
    """
    lanes, most = arrivals.shape
    offsets = np.arange(lanes) * _LANE_S
    flat = (np.minimum(arrivals, _NEVER_S) + offsets[:, None]).ravel()
    firsts = np.arange(lanes) * most
    running = np.minimum((backlog + 1) // 2, service.max_batch)
    waited = backlog - running
    free = np.where(running > 0, service.drawn(np.maximum(running, 1), random) * random.random(lanes), 0.0)
    head = np.zeros(lanes, dtype=np.int64)  # how many have been taken, those that waited at 0 first
    first_done = np.where(free <= span_s, running, 0)
    done, done_s = first_done.copy(), first_done * np.maximum(span_s - free, 0)
    taken, taken_s = np.zeros(lanes, dtype=np.int64), np.zeros(lanes)
    batches = np.zeros(lanes, dtype=np.int64)
    busy, late, idle = np.minimum(free, span_s), np.zeros(lanes, dtype=np.int64), running == 0
    latencies = np.full((lanes, most), np.nan) if keep else None

    def before(times: Floats) -> Ints:
        positions = np.searchsorted(flat, np.minimum(times, _NEVER_S - 1) + offsets, side="right")
        return np.asarray(np.clip(positions - firsts, 0, most))

    while True:
        live = head < waited + counted
        if not live.any():
            break
        index = head - waited
        oldest = flat[firsts + np.clip(index, 0, most - 1)] - offsets
        start = np.where(index < 0, free, np.maximum(free, oldest + service.delay_s))
        batch = np.minimum(waited + before(start) - head, service.max_batch)
        batch = np.where(live, np.maximum(batch, 1), 0)
        end = start + service.drawn(np.maximum(batch, 1), random)
        idle |= live & (start > free) & (start < span_s)
        taken += np.where(start <= span_s, batch, 0)
        batches += live & (start <= span_s)
        taken_s += batch * np.maximum(span_s - start, 0)
        done += np.where(end <= span_s, batch, 0)
        done_s += batch * np.maximum(span_s - end, 0)
        busy += np.where(live, np.clip(end, 0, span_s) - np.clip(start, 0, span_s), 0)
        low, high = np.clip(index, 0, counted), np.clip(index + batch, 0, counted)
        late += np.clip(before(end - slo_s), low, high) - low
        if latencies is not None:
            answered = high - low
            ends = np.cumsum(answered)
            places = np.repeat(firsts + low - ends + answered, answered) + np.arange(ends[-1])
            latencies.ravel()[places] = np.repeat(end, answered) - arrivals.ravel()[places]
        free, head = np.where(live, end, free), head + batch
    came_s = np.where(np.arange(most) < counted[:, None], np.maximum(span_s - arrivals, 0), 0).sum(axis=1)
    return Seconds(
        left=backlog + counted - np.minimum(done, backlog + counted),
        waiting=waited + counted - np.minimum(taken, waited + counted),
        in_flight_s=backlog * span_s + came_s - done_s,
        waiting_s=waited * span_s + came_s - taken_s,
        taken=taken, batches=batches, busy_s=busy, late=late, regenerated=idle | (free < span_s), latencies=latencies,
    )  # fmt: skip
