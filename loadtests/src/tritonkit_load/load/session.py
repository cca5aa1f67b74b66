"""One process's part in one load test: sends when the schedule or the loop says so, and notes what came of it.

An open loop has one dispatcher a process. It takes every n-th arrival of the schedule that all processes make alike,
and gives each request a greenlet of its own, so that no answer holds up the next request. Latency counts from the
scheduled arrival: a server that stalls is charged for everybody who had to wait, and so is a late generator, which
says how late it was.
"""

from __future__ import annotations

import gc
import itertools
import os
import socket
import time
from typing import Any

import gevent
from gevent.event import Event

from tritonkit_load.load.payloads import Request
from tritonkit_load.load.prepare import Prepared
from tritonkit_load.load.recording import Cpu, Recording
from tritonkit_load.load.result import ServerSide
from tritonkit_load.load.serverside import Watch
from tritonkit_load.load.users import TIMEOUT_S, ModelUser

MOST_IN_FLIGHT = 2000  # of one process, without an answer; more would be a test of the generator's memory
# libev sleeps to whole milliseconds: the dispatcher wakes that much early and yields until the time has come, for a
# quarter of the time between two arrivals at most, so that yielding never is what keeps the processor busy.
SPIN_S = 0.001
SPIN_SHARE = 0.25
DRAINS_S = TIMEOUT_S + 2  # after the last arrival, for its answer
HURRIED_S = 2.0  # the same in a test that was stopped
# A test that is asked to stop in its last seconds ends by itself: Locust's own timer runs ahead of the schedule.
NEAR_END_S = 3.0
LONGEST_SLEEP_S = 3600.0  # a test without an end has none that a timer could be set to


class Unanswered(Exception):
    """A request had no answer when the test was over."""


class Session:
    """Runs a prepared plan once.

    Args:
        prepared: What to send.
        events: Locust's, of which ``request`` is fired for every request.
        index, count: Which of how many processes this is.
        start_s: When the warm-up begins, by ``time.perf_counter()``.
        watch: Sees the server's side; in one of the processes.
        keep_rows: Keep every request.

    Attributes:
        over: Set when everything is noted.
        server: What ``watch`` saw, by model.
    """

    def __init__(
        self,
        prepared: Prepared,
        events: Any,
        *,
        index: int = 0,
        count: int = 1,
        start_s: float,
        watch: Watch | None = None,
        keep_rows: bool = False,
    ) -> None:
        self.prepared = prepared
        self.server: dict[str, ServerSide] = {}
        self._plan = prepared.plan
        self._events = events
        self._index, self._count = index, count
        self._start_s = start_s
        self._zero_s = start_s + self._plan.warm_up_s
        self._end_s = self._zero_s + self._plan.duration_s
        self._watch = watch
        self._keep_rows = keep_rows
        self._numbers = itertools.count(index, count)
        self._recording = Recording(self._plan.duration_s)
        self._flying: set[gevent.Greenlet] = set()
        self._in_flight = 0
        self._stopping = Event()
        self.over = Event()
        self._began: tuple[float, float] | None = None

    def run(self) -> None:
        """Send the whole plan and wait for the answers; `drain` has what was noted."""
        if self._watch is not None and not self._plan.warm_up_s:
            self._watch.begin()  # now, or the first requests would wait for it
        gevent.spawn(self._measure)
        if self._plan.open:
            self._dispatch()
        self._sleep_until(self._end_s)
        ended_s = min(time.perf_counter(), self._end_s)
        self._note_cpu()
        self._wait_for_answers()
        self._recording.measured_s = max(ended_s - self._zero_s, 0.0)
        self._recording.stopped = self._stopping.is_set() and self._plan.ends
        if self._watch is not None:
            self.server = self._watch.end()
        self.over.set()
        gc.unfreeze()

    def stop(self) -> None:
        """End before the time, unless that is near."""
        if self._end_s - time.perf_counter() > NEAR_END_S:
            self._stopping.set()

    def drain(self) -> Recording:
        """What was noted since the last time."""
        recording, self._recording = self._recording, Recording(self._plan.duration_s)
        return recording

    def take_part(self, user: ModelUser) -> None:
        """One request of a closed loop; in an open loop, and when the test is over, a little rest."""
        if time.perf_counter() < self._start_s:
            self._sleep_until(self._start_s)
        if self._plan.open or self._stopping.is_set() or time.perf_counter() >= self._end_s:
            self.over.wait()
            gevent.sleep(0.1)
            return
        request = self.prepared.requests[next(self._numbers) % len(self.prepared.requests)]
        due_s = time.perf_counter()
        self._recording.offer(due_s - self._zero_s)
        self._send(user, request, due_s)

    def _dispatch(self) -> None:
        requests, times = self.prepared.requests, self.prepared.times
        for number in range(self._index, len(times), self._count):
            due_s = self._zero_s + times[number]
            if not self._sleep_until(due_s):
                return
            request = requests[number % len(requests)]
            self._recording.offer(due_s - self._zero_s)
            if len(self._flying) >= MOST_IN_FLIGHT:
                self._recording.cap(request.model, due_s - self._zero_s, MOST_IN_FLIGHT)
                continue
            sender = gevent.spawn(self._send_scheduled, request, due_s)
            self._flying.add(sender)
            sender.rawlink(self._flying.discard)

    def _send_scheduled(self, request: Request, due_s: float) -> None:
        caller = self.prepared.caller
        sent_s = time.perf_counter()
        try:
            self._send(caller, request, due_s)
        except gevent.GreenletExit:
            if not self._stopping.is_set():
                error = Unanswered(f"no answer {DRAINS_S:g} s after the last request was due")
                self._note(caller, request, (due_s, sent_s, time.perf_counter(), None), error, 0)

    def _send(self, caller: ModelUser, request: Request, due_s: float) -> None:
        """One request, from now to its answer."""
        error: Exception | None = None
        size, first_s = 0, None
        self._in_flight += 1
        sent_s = time.perf_counter()
        try:
            size, first_s = caller.call(request)
        except Exception as caught:
            error = caught
        finally:
            self._in_flight -= 1
        self._note(caller, request, (due_s, sent_s, time.perf_counter(), first_s), error, size)

    def _note(
        self, caller: ModelUser, request: Request, times: tuple[float, float, float, float | None],
        error: Exception | None, size: int,
    ) -> None:  # fmt: skip
        due_s, sent_s, ended_s, first_s = times
        zero_s = self._zero_s
        self._recording.answer(
            request.model, due_s - zero_s, sent_s - zero_s, ended_s - zero_s, error,
            None if first_s is None else first_s - zero_s,
        )  # fmt: skip
        latency_ms = (ended_s - due_s) * 1000
        if self._keep_rows and due_s >= zero_s:
            kind = type(error).__name__ if error else ""
            self._recording.rows.append((due_s - zero_s, latency_ms, (ended_s - sent_s) * 1000, request.model, kind))
        self._events.request.fire(
            request_type=caller.protocol, name=request.model, response_time=latency_ms, response_length=size,
            exception=error, context={}, start_time=time.time() - (time.perf_counter() - due_s),
        )  # fmt: skip

    def _sleep_until(self, due_s: float) -> bool:
        """Whether the time has come; False: the test is being stopped."""
        left_s = due_s - time.perf_counter()
        if left_s <= 0:
            gevent.sleep(0)  # who is late must not keep the answers waiting, too
            return not self._stopping.is_set()
        spin_s = min(SPIN_S, left_s * SPIN_SHARE)
        while left_s > 0:
            if left_s > spin_s:
                self._stopping.wait(min(left_s - spin_s, LONGEST_SLEEP_S))
            else:
                gevent.sleep(0)
            if self._stopping.is_set():
                return False
            left_s = due_s - time.perf_counter()
        return True

    def _wait_for_answers(self) -> None:
        patience_s = HURRIED_S if self._stopping.is_set() else DRAINS_S
        end_s = time.perf_counter() + patience_s
        while (self._in_flight or self._flying) and time.perf_counter() < end_s:
            gevent.sleep(0.005)
        gevent.killall(list(self._flying))

    def _measure(self) -> None:
        """Begin to measure when the warm-up is over."""
        if self._sleep_until(self._zero_s):
            self._began = time.process_time(), time.perf_counter()
            if self._watch is not None and self._plan.warm_up_s:
                self._watch.begin()

    def _note_cpu(self) -> None:
        if self._began is not None:
            cpu_s, wall_s = self._began
            process = f"{socket.gethostname()}:{os.getpid()}"
            cores = tuple(sorted(os.sched_getaffinity(0)))
            self._recording.cpu[process] = Cpu(time.process_time() - cpu_s, time.perf_counter() - wall_s, cores)
