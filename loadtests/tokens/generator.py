"""Sends a load of streams from one process or several, as Python's lock lets one process use no more than one core."""

from __future__ import annotations

import multiprocessing
import signal
import time
from collections.abc import Iterator
from dataclasses import dataclass
from multiprocessing.synchronize import Barrier
from types import TracebackType

from tokens import streams
from tokens.endpoints import Endpoint, Request
from tokens.streams import Answer

BEGIN_S = 120.0  # at most, until all processes have imported what they need


@dataclass(frozen=True)
class Load:
    """What is sent; plain data, as it goes to other processes.

    Attributes:
        endpoint: Where to.
        streams: At a time.
        duration_s: Of the measurement.
        warm_up_s: Before it.
        seed: Of the requests: see :func:`tokens.streams.requests`, as for the next three.
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


@dataclass(frozen=True)
class Sent:
    """The outcome of a load: its answers, and the CPU time of the busiest process over the load's time, in cores."""

    answers: list[Answer]
    busiest: float


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

    def run(self, load: Load) -> Sent:
        """Send a load; as :func:`tokens.streams.run`, of all processes together."""
        shares = [(load, number, self._processes) for number in range(self._processes)]
        shared = self._pool.starmap(_send, shares, chunksize=1)
        answers = [answer for sent in shared for answer in sent.answers]
        return Sent(sorted(answers, key=lambda answer: answer.due_s), max(sent.busiest for sent in shared))


_everybody: Barrier | None = None  # in each of the processes


def _prepare(everybody: Barrier) -> None:
    """In each process, once: a Ctrl-C is for the one that started it, which ends it."""
    global _everybody
    _everybody = everybody
    signal.signal(signal.SIGINT, signal.SIG_IGN)


def _send(load: Load, number: int, processes: int) -> Sent:
    """Send one process's share, every ``processes``-th stream, once all processes are ready."""

    def work(stream: int) -> Iterator[Request]:
        return streams.requests(f"{load.seed} {stream}", load.words, load.tokens, load.mark)

    assert _everybody is not None
    _everybody.wait(BEGIN_S)
    begun, cpu = time.monotonic(), time.process_time()
    numbers = range(number, load.streams, processes)
    answers = streams.run(load.endpoint, numbers, begun + load.warm_up_s, load.duration_s, work)
    return Sent(answers, (time.process_time() - cpu) / (time.monotonic() - begun))
