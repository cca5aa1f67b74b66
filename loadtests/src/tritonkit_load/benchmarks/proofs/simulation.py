"""Replays a trace of traffic against fleets of Triton pods, each scaled by settings of its own, second by second.

All fleets get the same requests and run beside each other as rows of arrays. How a pod serves is
:mod:`.kernel`, what Prometheus makes of it :mod:`.signals`, what the autoscaler decides
:mod:`.hpa`; which settings are good is :mod:`.choice`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

from tritonkit_load.benchmarks.proofs import hpa, signals
from tritonkit_load.benchmarks.proofs.kernel import Kernel
from tritonkit_load.benchmarks.proofs.trace import Trace

Floats: TypeAlias = NDArray[np.float64]
Ints: TypeAlias = NDArray[np.int64]
Signal = Literal["inFlightRequests", "pendingRequests", "queueTime", "utilization"]
Metric = Literal["pods", "external"]

MINUTE_S = 60
LATE = 0.01  # of a minute's requests; with more, its p99 is over the SLO
BLOCK_S = 600  # chance is drawn for so many seconds at once
# After the scrape: the recording rules' turn, and the adapter's.
LAG_S = 7
EMPTY, STARTING, READY, DRAINING = range(4)


@dataclass(frozen=True)
class Start:
    """From the decision for a pod to its readiness, in seconds. Only ``load_s`` is measured; the others are assumed.

    Attributes:
        load_s: Triton's start until its models are loaded.
        schedule_s: Decision, scheduling, volumes, sandbox.
        image_s: The image's pull, or the models', where the node has neither.
        node_s: A new GPU node, where no free one is left.
        spare: Pods beyond ``minReplicas`` that find a warm node: neither ``node_s`` nor ``image_s``.
        ready_s: The readiness probe's part, and the endpoints'.
    """

    load_s: float
    schedule_s: float = 5.0
    image_s: float = 45.0
    node_s: float = 0.0
    spare: int = 0
    ready_s: float = 5.0

    def seconds(self, running: int, least: int) -> int:
        """Of the next pod when so many run."""
        cold = running >= least + self.spare
        return round(self.load_s + self.schedule_s + self.ready_s + (self.image_s + self.node_s if cold else 0))


@dataclass(frozen=True)
class Setting:
    """One fleet's autoscaler.

    Attributes:
        name: Of the row.
        signal: What is held near the target.
        target: A pod.
        metric: As the chart's ``autoscaling.hpa.metric``; KEDA's is external.
        least: ``minReplicas``; 0 needs ``zero``.
        most: ``maxReplicas``.
        up: ``behavior.scaleUp``.
        down: ``behavior.scaleDown``.
        zero: KEDA down to no pod.
        fixed: Pods without an autoscaler, which is what a team does that does not trust one.
    """

    name: str
    signal: Signal = "inFlightRequests"
    target: float = 1.0
    metric: Metric = "pods"
    least: int = 2
    most: int = 20
    up: hpa.Rules = hpa.DEFAULT_UP
    down: hpa.Rules = hpa.DEFAULT_DOWN
    zero: hpa.Zero | None = None
    fixed: int | None = None


@dataclass
class Outcome:
    """What became of one fleet.

    Attributes:
        setting: Its autoscaler.
        requests: That came.
        completed: Answers.
        lost: Refused by a full queue.
        refused: That met no ready pod.
        left: Without an answer at the end.
        late: Answered later than the SLO.
        pod_hours: From a pod's start to its end, whether it is ready or not.
        changes: Decisions for another number of pods.
        bad: Which minutes' p99 was over the SLO, or lost more than one in a hundred.
        replicas, ready: Pods wanted and pods serving, the mean of each minute.
        in_flight, waiting: Requests in all pods, the mean of each minute.
        first_s: Seconds from the first request that met no pod to the next ready pod, for each time.
    """

    setting: Setting
    requests: int
    completed: int
    lost: int
    refused: int
    left: int
    late: float
    pod_hours: float
    changes: int
    bad: NDArray[np.bool_]
    replicas: Floats
    ready: Floats
    in_flight: Floats
    waiting: Floats
    first_s: list[float] = field(default_factory=list)

    @property
    def bad_minutes(self) -> int:
        """How many."""
        return int(self.bad.sum())


def replay(
    trace: Trace, settings: Sequence[Setting], kernel: Kernel, start: Start, *, scrape_s: int = 15, window_s: int = 60,
    seed: int = 1, watch: Callable[[float, Floats, NDArray[np.bool_]], None] | None = None,
) -> list[Outcome]:  # fmt: skip
    """Replay a trace; the outcomes are in the settings' order.

    Args:
        trace: Requests of each second, shared evenly among the ready pods, as round-robin does.
        settings: One fleet each.
        kernel: What a pod does in a second.
        start: What a pod's start takes.
        scrape_s: Prometheus' scrape interval.
        window_s: The signal's range.
        seed: Of what chance is in the pods.
        watch: Is given each scrape: time, samples (5, fleets, pods), which pods answer.
    """
    fleets = _Fleets(trace, settings, kernel, start, signals.Scrapes(_shape(settings), scrape_s, window_s), seed)
    for second in range(trace.seconds):
        fleets.serve(second)
        if second % scrape_s == scrape_s - 1:
            fleets.scrape(second + 1, watch)
        if second % hpa.SYNC_S == LAG_S - 1 and second > LAG_S:
            fleets.sync(second + 1)
    return fleets.outcomes()


def _shape(settings: Sequence[Setting]) -> tuple[int, int]:
    # Pods that drain are there beside those that take their place.
    return len(settings), max(setting.most for setting in settings) + 6


class _Fleets:
    """The state of all fleets; a pod is a place in an array."""

    def __init__(
        self, trace: Trace, settings: Sequence[Setting], kernel: Kernel, start: Start, scrapes: signals.Scrapes,
        seed: int,
    ) -> None:  # fmt: skip
        shape = _shape(settings)
        self._trace, self._settings, self._kernel, self._start, self._scrapes = trace, settings, kernel, start, scrapes
        self._random = np.random.default_rng(seed)
        self._state = np.zeros(shape, dtype=np.int8)
        self._ready_at = np.full(shape, np.inf)
        self._left = np.zeros(shape, dtype=np.int32)
        self._answers = np.zeros(shape, dtype=np.int64)
        self._integrals = np.zeros((*shape, 3))
        self._autoscalers = [
            hpa.Autoscaler(max(setting.least, 1), setting.most, setting.up, setting.down) for setting in settings
        ]
        self._replicas = np.array([setting.fixed or max(setting.least, 0) for setting in settings])
        for row, count in enumerate(self._replicas):
            self._state[row, :count] = READY
        minutes = -(-trace.seconds // MINUTE_S)
        # came, late, lost, refused, pods, ready, request-seconds in flight, request-seconds waiting
        self._sums = np.zeros((minutes, 8, len(settings)))
        self._completed = np.zeros(len(settings), dtype=np.int64)
        self._changes = np.zeros(len(settings), dtype=np.int64)
        self._seen_until = np.zeros(len(settings), dtype=np.int64)  # how far KEDA has looked at what a gateway counts
        self._refused_at = np.full(len(settings), np.nan)
        self._first_s: list[list[float]] = [[] for _ in settings]
        self._recount()

    def _recount(self) -> None:
        """What only changes with the pods."""
        serving = self._state == READY
        self._serving = serving
        self._ready = serving.sum(axis=1)
        self._outage = bool((self._ready == 0).any())
        self._share = np.maximum(self._ready, 1)[:, None].astype(np.int32)
        self._pods = (self._state != EMPTY).sum(axis=1)
        self._next_ready = float(np.where(self._state == STARTING, self._ready_at, np.inf).min())
        self._draining = bool((self._state == DRAINING).any())
        self._width = int(np.flatnonzero((self._state != EMPTY).any(axis=0)).max(initial=0)) + 1
        self._serving_now = serving[:, : self._width]
        self._rank = (np.cumsum(self._serving_now, axis=1) - 1).astype(np.int32)

    def serve(self, second: int) -> None:
        """One second of all pods."""
        if self._next_ready <= second:
            self._becomes_ready(second)
        if second % BLOCK_S == 0:
            self._chance = self._kernel.draws(self._random, (BLOCK_S, *self._state.shape))
        width, place = self._width, second % BLOCK_S
        total = int(self._trace.arrivals[second])
        each, more = divmod(total, self._share)
        arrivals = (each + ((self._rank + second) % self._share < more)) * self._serving_now
        first, second_draw, draw = self._chance
        left = self._left[:, :width]
        outcome = self._kernel(
            arrivals, left, (first[place, :, :width], second_draw[place, :, :width], draw[place, :, :width])
        )
        left[...] = outcome.left
        self._last = outcome
        self._answers[:, :width] += outcome.completed
        self._integrals[:, :width] += outcome.integrals
        sums = self._sums[second // MINUTE_S]
        sums[0] += total
        sums[1] += outcome.late.sum(axis=1)
        sums[2] += outcome.lost.sum(axis=1)
        sums[4] += self._pods
        sums[5] += self._ready
        sums[6:8] += outcome.integrals[..., :2].sum(axis=1).T
        self._completed += outcome.completed.sum(axis=1)
        if self._outage:
            refused = np.where(self._ready == 0, total, 0)
            sums[3] += refused
            self._refused_at[(refused > 0) & np.isnan(self._refused_at)] = second
        if self._draining and (gone := (self._state == DRAINING) & (self._left == 0)).any():
            self._empty(gone)

    def _becomes_ready(self, second: int) -> None:
        self._state[(self._state == STARTING) & (self._ready_at <= second)] = READY
        self._recount()
        for row in np.flatnonzero((self._ready > 0) & ~np.isnan(self._refused_at)):
            self._first_s[row].append(second - float(self._refused_at[row]))
            self._refused_at[row] = np.nan

    def _empty(self, which: NDArray[np.bool_]) -> None:
        self._state[which] = EMPTY
        self._answers[which] = 0
        self._integrals[which] = 0
        self._recount()

    def scrape(self, now: float, watch: Callable[[float, Floats, NDArray[np.bool_]], None] | None) -> None:
        """Prometheus asks every pod whose server answers; one that drains is no target any more."""
        samples = np.zeros((signals.COUNTERS + 1, *self._state.shape))
        samples[signals.REQUESTS] = self._answers
        samples[signals.DURATION_US] = self._integrals[..., 0] * 1e6
        samples[signals.QUEUE_US] = self._integrals[..., 1] * 1e6
        samples[signals.BUSY] = self._integrals[..., 2]
        waiting = self._kernel.waiting(self._last)
        samples[signals.PENDING, :, : waiting.shape[1]] = waiting
        self._scrapes.add(now, samples, self._serving)
        if watch:
            watch(now, samples, self._serving)

    def sync(self, now: float) -> None:
        """The autoscalers' turn."""
        values = signals.per_pod(self._scrapes, now)
        changed = False
        for row, setting in enumerate(self._settings):
            if setting.fixed is None:
                changed |= self._decide(row, setting, values[setting.signal][row], now)
        if changed:
            self._recount()

    def _decide(self, row: int, setting: Setting, values: Floats, now: float) -> bool:
        current = int(self._replicas[row])
        if setting.zero is not None and now % setting.zero.polling_s <= hpa.SYNC_S:
            requests = self._trace.arrivals[self._seen_until[row] : int(now)].sum()
            self._seen_until[row] = int(now)
            decided = setting.zero.decide(now, current, float(requests), setting.least)
            if decided is not None:
                return self._resize(row, decided, now)
        if current == 0:
            return False
        known = values[(self._state[row] == READY) & np.isfinite(values)]
        return self._resize(row, self._autoscalers[row].decide(now, current, self._wish(setting, known, current)), now)

    @staticmethod
    def _wish(setting: Setting, known: Floats, current: int) -> int:
        if not len(known):
            return current
        if setting.metric == "pods" or setting.signal == "utilization":
            # A pod that loads models runs, and has no metric yet.
            return hpa.for_pods(list(known), setting.target, current, missing=max(current - len(known), 0))
        if setting.signal == "queueTime":
            return hpa.for_value(float(known.max()), setting.target, current, len(known))
        return hpa.for_total(float(known.sum()), setting.target, current)

    def _resize(self, row: int, replicas: int, now: float) -> bool:
        current = int(self._replicas[row])
        if replicas == current:
            return False
        self._replicas[row] = replicas
        self._changes[row] += 1
        state = self._state[row]
        setting = self._settings[row]
        for _ in range(replicas - current):
            place = int(np.flatnonzero(state == EMPTY)[0])
            running = int(((state == STARTING) | (state == READY)).sum())
            state[place] = STARTING
            self._ready_at[row, place] = now + self._start.seconds(running, setting.least)
        for _ in range(current - replicas):  # a ReplicaSet ends those first that are not ready, then the youngest
            starting = np.flatnonzero(state == STARTING)
            if len(starting):
                state[starting[np.argmax(self._ready_at[row, starting])]] = EMPTY
            else:
                ready = np.flatnonzero(state == READY)
                born = np.where(np.isfinite(self._ready_at[row, ready]), self._ready_at[row, ready], -1)
                state[ready[np.argmax(born)]] = DRAINING
        return True

    def outcomes(self) -> list[Outcome]:
        """What became of each fleet."""
        came, late, lost, refused, pods, ready, flying, waiting = self._sums.transpose(1, 2, 0)
        bad = late + lost + refused > LATE * came
        length = np.full(came.shape[1], MINUTE_S)
        length[-1] = self._trace.seconds - MINUTE_S * (came.shape[1] - 1)
        return [
            Outcome(
                setting, round(came[row].sum()), int(self._completed[row]), round(lost[row].sum()),
                round(refused[row].sum()), int(self._left[row].sum()), float(late[row].sum()),
                pods[row].sum() / 3600, int(self._changes[row]), bad[row], pods[row] / length, ready[row] / length,
                flying[row] / length, waiting[row] / length, self._first_s[row],
            )
            for row, setting in enumerate(self._settings)
        ]  # fmt: skip
