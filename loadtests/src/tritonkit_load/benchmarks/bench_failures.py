"""The part of `make bench-client` in which servers are killed, restarted, stopped and silent."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from tritonkit.server import TritonServer
from tritonkit_client import AsyncClient, Client, DeadlineExceeded, TritonkitClientError

REQUESTS, CALLERS = 10_000, 16
TIMEOUT_S, OVER_MS, TURNS = 0.2, 50.0, 15
ARRAY = np.zeros(1_000, np.uint8)


@dataclass(frozen=True)
class Bar:
    """A promise, and whether it was kept."""

    promise: str
    kept: bool


Row = tuple[str, str, Bar | None]


def failures(repository: Path) -> Iterator[Row]:
    """Everything that goes wrong on purpose."""
    servers = [TritonServer(repository, exit_timeout_s=2) for _ in range(2)]
    try:
        for server in servers:
            server.start()
        yield _killed(repository, servers)
        yield _rolling(repository, servers)
        yield from _late(servers[0])
    finally:
        for server in servers:
            server.stop()


@dataclass
class Load:
    """Requests from many threads: how long each took and when it ended, and which were lost."""

    client: Client
    ended: list[tuple[float, float]]
    lost: list[TritonkitClientError]
    over: threading.Event

    def run(self, share: int | None) -> None:
        """Ask ``share`` times, or until told that it is over."""
        sent = 0
        while not self.over.is_set() and (share is None or sent < share):
            sent += 1
            start = time.perf_counter()
            try:
                self.client.infer("identity", x=ARRAY)
            except TritonkitClientError as error:
                self.lost.append(error)
            end = time.perf_counter()
            self.ended.append((end, end - start))


@contextmanager
def _load(servers: list[TritonServer], share: int | None) -> Iterator[Load]:
    hosts = ",".join(f"127.0.0.1:{server.ports['grpc']}" for server in servers)
    with Client(f"grpc://{hosts}", timeout=10) as client, ThreadPoolExecutor(CALLERS) as pool:
        load = Load(client, [], [], threading.Event())
        futures = [pool.submit(load.run, share) for _ in range(CALLERS)]
        try:
            yield load
        finally:
            if share is None:
                load.over.set()
            for future in futures:
                future.result()


def _killed(repository: Path, servers: list[TritonServer]) -> Row:
    with _load(servers, REQUESTS // CALLERS) as load:
        while len(load.ended) < REQUESTS // 5:
            time.sleep(0.01)
        os.kill(servers[0].pid, signal.SIGKILL)
        killed = time.perf_counter()
        servers[0].wait()
        servers[0].stop()
        servers[0] = _again(repository, servers[0])
        back = time.perf_counter()
    during = [seconds for end, seconds in load.ended if killed <= end <= back]
    otherwise = [seconds for end, seconds in load.ended if not killed <= end <= back]
    figure = (
        f"{len(load.ended)} requests, {len(load.lost)} lost; p99 during the failover {_p99_ms(during):.1f} ms"
        f" (slowest {max(during) * 1e3:.0f}), otherwise {_p99_ms(otherwise):.1f} ms"
    )
    kept = not load.lost and len(load.ended) == REQUESTS
    return f"two servers, one killed and restarted, {CALLERS} callers", figure, Bar("0 lost", kept)


def _p99_ms(times: list[float]) -> float:
    return float(np.percentile(times or [0.0], 99)) * 1e3


def _rolling(repository: Path, servers: list[TritonServer]) -> Row:
    with _load(servers, None) as load:
        time.sleep(0.5)
        for number, server in enumerate(servers):
            server.stop()
            servers[number] = _again(repository, server)
            end = time.monotonic() + 10
            while load.client._servers.all[number].out and time.monotonic() < end:
                time.sleep(0.02)
        time.sleep(0.5)
    p99 = _p99_ms([seconds for _, seconds in load.ended])
    figure = f"{len(load.ended)} requests, {len(load.lost)} lost; p99 {p99:.1f} ms"
    return "two servers, rolling restart", figure, Bar("0 lost", not load.lost)


def _again(repository: Path, before: TritonServer) -> TritonServer:
    ports = before.ports
    return TritonServer(
        repository, exit_timeout_s=2, http_port=ports["http"], grpc_port=ports["grpc"], metrics_port=ports["metrics"]
    ).start()


def _late(server: TritonServer) -> Iterator[Row]:
    """By how much calls end after their timeouts."""
    os.kill(server.pid, signal.SIGSTOP)
    try:
        with socket.create_server(("127.0.0.1", 0)) as silent:
            hole = silent.getsockname()[1]
            for what, ports in (("stopped server", server.ports), ("black hole", {"grpc": hole, "http": hole})):
                worst = max(
                    measure(f"{protocol}://127.0.0.1:{ports[protocol]}")
                    for protocol in ("grpc", "http")
                    for measure in (_overrun, _async_overrun)
                )
                promise = Bar(f"<= {OVER_MS:.0f} ms", worst <= OVER_MS)
                yield f"{what}, timeout {TIMEOUT_S:g} s, worst of {4 * TURNS} calls", f"{worst:.1f} ms over", promise
    finally:
        os.kill(server.pid, signal.SIGCONT)


def _overrun(url: str) -> float:
    """The worst of some calls, in milliseconds."""
    with Client(url, timeout=TIMEOUT_S) as client:
        return max(_over(lambda: client.metadata("identity")) for _ in range(TURNS))


def _over(call: Callable[[], object]) -> float:
    start = time.perf_counter()
    with suppress(DeadlineExceeded):
        call()
        raise AssertionError("it was answered")
    return (time.perf_counter() - start - TIMEOUT_S) * 1e3


def _async_overrun(url: str) -> float:
    async def measure() -> float:
        worst = 0.0
        async with AsyncClient(url, timeout=TIMEOUT_S) as client:
            for _ in range(TURNS):
                start = time.perf_counter()
                with suppress(DeadlineExceeded):
                    await client.metadata("identity")
                    raise AssertionError("it was answered")
                worst = max(worst, (time.perf_counter() - start - TIMEOUT_S) * 1e3)
        return worst

    return asyncio.run(measure())
