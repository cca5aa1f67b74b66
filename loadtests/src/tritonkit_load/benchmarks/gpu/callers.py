"""Callers of one model over gRPC: processes that keep a number of requests in flight, each request made beforehand.

They share their machine with the server that they load, so they are as lean as can be: bytes out, bytes in, no tensors
in between. Such a request costs less than half of the CPU that one of the load tests' generator does; what it cannot do
(schedules, mixes, HTTP, checks of answers) this benchmark does not need.

As ``python -m gpu.callers`` it is one of those processes: orders as lines of JSON on standard input, each with one line
of JSON as its answer.
"""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np

from tritonkit.errors import CheckFailed

METHOD = "/inference.GRPCInferenceService/ModelInfer"
AHEAD_S = 0.1  # between the order to start and the start, so that it reaches every process before
PATIENCE_S = 30.0  # for one answer
LENGTH_BYTES = 8


@dataclass(frozen=True)
class Order:
    """What one process is to do.

    Attributes:
        requests: A file that :func:`write_requests` wrote.
        in_flight: Requests that it keeps in flight.
        start_s: When it begins, on the clock of :func:`time.perf_counter`, which a machine's processes share.
        warm_up_s: Seconds before what is counted.
        seconds: Seconds that are counted.
    """

    requests: str
    in_flight: int
    start_s: float
    warm_up_s: float
    seconds: float


@dataclass(frozen=True)
class Load:
    """The figures of an order, over all processes.

    Attributes:
        rate: Answers a second.
        weight_rate: Their weights a second, for example tokens.
        p50_ms: Median latency.
        p99_ms: 99th percentile.
        failed: Requests that failed.
        caller_cores: CPU that the callers used, in cores.
    """

    rate: float
    weight_rate: float
    p50_ms: float
    p99_ms: float
    failed: int
    caller_cores: float


class Callers:
    """Some processes; use it as a context manager.

    Args:
        url: ``grpc://HOST:PORT``.
        processes: How many; no more than there are requests in flight take part.
    """

    def __init__(self, url: str, processes: int) -> None:
        self._address = url.removeprefix("grpc://")
        self._count = processes
        self._processes: list[subprocess.Popen[str]] = []
        self._errors = tempfile.TemporaryFile()  # noqa: SIM115 -- it lives as long as the processes

    def __enter__(self) -> Callers:
        extra = {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
        command = [sys.executable, "-m", "tritonkit_load.benchmarks.gpu.callers", self._address]
        for _ in range(self._count):
            process = subprocess.Popen(
                command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self._errors, text=True,
                env=os.environ | extra,
            )  # fmt: skip
            self._processes.append(process)
        for process in self._processes:
            self._answer(process)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for process in self._processes:
            with contextlib.suppress(OSError):
                assert process.stdin is not None
                process.stdin.close()
            try:
                process.wait(2)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
            assert process.stdout is not None
            process.stdout.close()
        self._errors.close()

    def run(self, requests: Path, in_flight: int, seconds: float, warm_up_s: float) -> Load:
        """Keep so many requests in flight for a while.

        Raises:
            CheckFailed: A process died, or nothing was answered.
        """
        shares = [len(range(index, in_flight, self._count)) for index in range(min(self._count, in_flight))]
        start_s = time.perf_counter() + AHEAD_S
        for process, share in zip(self._processes, shares, strict=False):
            assert process.stdin is not None
            process.stdin.write(json.dumps(asdict(Order(str(requests), share, start_s, warm_up_s, seconds))) + "\n")
            process.stdin.flush()
        answers = [self._answer(process) for process, _ in zip(self._processes, shares, strict=False)]
        latencies = np.concatenate([answer["latencies_ms"] for answer in answers])
        failed = sum(answer["failed"] for answer in answers)
        if not len(latencies):
            why = next((answer["error"] for answer in answers if answer["error"]), "no answer came in time")
            raise CheckFailed(f"no request of {requests.stem} was answered: {why}", "read the server's log")
        p50, p99 = np.percentile(latencies, [50, 99])
        return Load(
            rate=len(latencies) / seconds,
            weight_rate=sum(answer["weight"] for answer in answers) / seconds,
            p50_ms=float(p50),
            p99_ms=float(p99),
            failed=failed,
            caller_cores=sum(answer["cpu_s"] for answer in answers) / seconds,
        )

    def _answer(self, process: subprocess.Popen[str]) -> dict[str, Any]:
        assert process.stdout is not None
        line = process.stdout.readline()
        if not line:
            self._errors.seek(0)
            text = self._errors.read().decode(errors="replace").strip()
            raise CheckFailed(f"a caller's process died\n{text[-2000:]}", "read its error above")
        answer: dict[str, Any] = json.loads(line)
        return answer


def write_requests(path: Path, requests: Sequence[tuple[bytes, int]]) -> None:
    """Requests, as gRPC messages with a weight each, into one file."""
    parts = [part for body, weight in requests for part in (_number(len(body)), _number(weight), body)]
    path.write_bytes(b"".join(parts))


def read_requests(path: Path) -> list[tuple[bytes, int]]:
    """What :func:`write_requests` wrote."""
    data, place, requests = path.read_bytes(), 0, []
    while place < len(data):
        length, weight = (
            int.from_bytes(data[start : start + LENGTH_BYTES], "little") for start in (place, place + LENGTH_BYTES)
        )
        place += 2 * LENGTH_BYTES
        requests.append((data[place : place + length], weight))
        place += length
    return requests


def _number(value: int) -> bytes:
    return value.to_bytes(LENGTH_BYTES, "little")


class _Caller:
    """Keeps requests in flight: each answer sends the next request."""

    def __init__(self, address: str) -> None:
        import grpc

        unlimited = [("grpc.max_receive_message_length", -1), ("grpc.max_send_message_length", -1)]
        options = [*unlimited, ("grpc.enable_http_proxy", 0), ("grpc.use_local_subchannel_pool", 1)]
        self._call = grpc.insecure_channel(address, options=options).unary_unary(METHOD)
        self._sets: dict[str, list[tuple[bytes, int]]] = {}

    def run(self, order: Order) -> dict[str, Any]:
        """Carry out an order; latencies of what was answered within the seconds that count."""
        requests = self._sets.get(order.requests)
        if requests is None:
            requests = self._sets[order.requests] = read_requests(Path(order.requests))
        begin = order.start_s + order.warm_up_s
        end = begin + order.seconds
        latencies: list[float] = []
        errors: list[str] = []
        weights = [0]
        left = threading.Semaphore(0)

        def send(number: int) -> None:
            body, weight = requests[number % len(requests)]
            sent = time.perf_counter()

            def done(call: Any) -> None:
                now = time.perf_counter()
                error = call.exception()
                if error is not None:
                    errors.append(f"{error.code().name}: {error.details()}")
                elif begin <= now < end:
                    latencies.append((now - sent) * 1000)
                    weights[0] += weight
                if now < end and len(errors) < 100:
                    send(number + order.in_flight)
                else:
                    left.release()

            self._call.future(body, timeout=PATIENCE_S).add_done_callback(done)

        time.sleep(max(order.start_s - time.perf_counter(), 0))
        for number in range(order.in_flight):
            send(number + os.getpid())
        time.sleep(max(begin - time.perf_counter(), 0))
        before = time.process_time()
        time.sleep(max(end - time.perf_counter(), 0))
        cpu_s = time.process_time() - before
        for _ in range(order.in_flight):
            left.acquire()
        return {
            "latencies_ms": latencies, "weight": weights[0], "failed": len(errors), "error": next(iter(errors), ""),
            "cpu_s": cpu_s,
        }  # fmt: skip


def main() -> None:
    """Carry out orders until the input ends."""
    caller = _Caller(sys.argv[1])
    print(json.dumps({"ready": True}), flush=True)
    for line in sys.stdin:
        print(json.dumps(caller.run(Order(**json.loads(line)))), flush=True)


if __name__ == "__main__":
    main()
