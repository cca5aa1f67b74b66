"""Sends a load of streams from one process or several, as Python's lock lets one process use no more than one core."""

from __future__ import annotations

import multiprocessing
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing.synchronize import Barrier
from types import TracebackType
from typing import Protocol

from tritonkit_load.tokens import streams
from tritonkit_load.tokens.endpoints import Endpoint, Request
from tritonkit_load.tokens.streams import Answer

BEGIN_S = 120.0  # at most, until all processes have imported what they need


@dataclass(frozen=True)
class Load:
    """What is sent; plain data, as it goes to other processes.

    Attributes:
        endpoint: Where to.
        streams: At a time.
        duration_s: Of the measurement.
        warm_up_s: Before it.
        seed: Of the requests: see :func:`.tokens.streams.requests`, as for the next three.
        words: Of a prompt.
        tokens: Of the longest answer.
        mark: What the prompts begin with.
    """

    endpoint: Endpoint
    streams: int
    duration_s: float
    warm_up_s: float
    seed: str
    words: int
    tokens: int
    mark: str

    def send(self, number: int, processes: int, begun: float) -> list[Answer]:
        """See :meth:`Sendable.send`: every ``processes``-th stream."""

        def work(stream: int) -> Iterator[Request]:
            return streams.requests(f"{self.seed} {stream}", self.words, self.tokens, self.mark)

        numbers = range(number, self.streams, processes)
        return streams.run(self.endpoint, numbers, begun + self.warm_up_s, self.duration_s, work)


class Sendable(Protocol):
    """A load that can be shared; it goes to other processes as plain data."""

    def send(self, number: int, processes: int, begun: float) -> list[Answer]:
        """Send one process's share, from now on.

        Args:
            number: Of the process, from 0.
            processes: How many there are.
            begun: Now, by ``time.monotonic()``: where the warm-up begins.
        """


@dataclass(frozen=True)
class Sent:
    """The outcome of a load.

    Attributes:
        answers: By when they were due.
        busiest: The CPU time of the busiest process over the load's time, in cores.
        begun: When the warm-up began, by ``time.monotonic()``.
    """

    answers: list[Answer]
    busiest: float
    begun: float = 0.0


class Sender(Protocol):
    """A way to send loads: :class:`Generator`, or what behaves like it."""

    def run(self, load: Sendable) -> Sent:
        """Send a load, and wait for its last answer."""


class Here:
    """Sends from this process: no other one has to be started, which takes seconds."""

    def run(self, load: Sendable) -> Sent:
        """See :meth:`Sender.run`."""
        return _measured(load, 0, 1)


@contextmanager
def sender(processes: int) -> Iterator[Sender]:
    """What sends from so many processes; from this one, if that is enough."""
    if processes == 1:
        yield Here()
        return
    with Generator(processes) as generator:
        yield generator


class Generator:
    """Processes that send; use it as a context manager, which ends them, whatever they are doing.

    Args:
        processes: How many.
    """

    def __init__(self, processes: int) -> None:
        self._processes = processes

    def __enter__(self) -> Generator:
        spawned = multiprocessing.get_context("spawn")  # a fork would share gRPC's threads, and hang
        self._pool = spawned.Pool(self._processes, _prepare, (spawned.Barrier(self._processes),))
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._pool.terminate()
        self._pool.join()

    def run(self, load: Sendable) -> Sent:
        """Send a load; as :func:`.tokens.streams.run`, of all processes together."""
        shares = [(load, number, self._processes) for number in range(self._processes)]
        shared = self._pool.starmap(_send, shares, chunksize=1)
        answers = [answer for sent in shared for answer in sent.answers]
        return Sent(
            sorted(answers, key=lambda answer: answer.due_s), max(sent.busiest for sent in shared),
            min(sent.begun for sent in shared),
        )  # fmt: skip


_everybody: Barrier | None = None  # in each of the processes


def _prepare(everybody: Barrier) -> None:
    """In each process, once: a Ctrl-C is for the one that started it, which ends it."""
    global _everybody
    _everybody = everybody
    signal.signal(signal.SIGINT, signal.SIG_IGN)


def _send(load: Sendable, number: int, processes: int) -> Sent:
    """Send one process's share once all processes are ready."""
    assert _everybody is not None
    _everybody.wait(BEGIN_S)
    return _measured(load, number, processes)


def _measured(load: Sendable, number: int, processes: int) -> Sent:
    """Send one process's share, with its CPU time."""
    begun, cpu = time.monotonic(), time.process_time()
    answers = load.send(number, processes, begun)
    return Sent(answers, (time.process_time() - cpu) / (time.monotonic() - begun), begun)
