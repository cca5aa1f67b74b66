"""Sends a load of streams from one process or several, as Python's lock lets one process use no more than one core."""

from __future__ import annotations

import multiprocessing
import signal
import time
from collections.abc import Iterator
from dataclasses import dataclass
from types import TracebackType

from tokens import streams
from tokens.endpoints import Endpoint, Request
from tokens.streams import Answer

BEGIN_S = 0.5  # for all processes to have heard of a load before it begins


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
    """What came of a load: its answers, and the CPU time of the busiest process over the load's time, in cores."""

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
        self._pool = spawned.Pool(self._processes, signal.signal, (signal.SIGINT, signal.SIG_IGN))
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._pool.terminate()
        self._pool.join()

    def run(self, load: Load) -> Sent:
        """Send a load; as :func:`tokens.streams.run`, of all processes together."""
        start = time.monotonic() + BEGIN_S + load.warm_up_s
        shares = [(load, number, self._processes, start) for number in range(self._processes)]
        shared = self._pool.starmap(_send, shares, chunksize=1)
        answers = [answer for sent in shared for answer in sent.answers]
        return Sent(sorted(answers, key=lambda answer: answer.due_s), max(sent.busiest for sent in shared))


def _send(load: Load, number: int, processes: int, start: float) -> Sent:
    """One process's share: every so-manieth stream."""

    def work(stream: int) -> Iterator[Request]:
        return streams.requests(f"{load.seed} {stream}", load.words, load.tokens, load.mark)

    time.sleep(max(start - load.warm_up_s - time.monotonic(), 0))
    begun, cpu = time.monotonic(), time.process_time()
    answers = streams.run(load.endpoint, range(number, load.streams, processes), start, load.duration_s, work)
    return Sent(answers, (time.process_time() - cpu) / (time.monotonic() - begun))
