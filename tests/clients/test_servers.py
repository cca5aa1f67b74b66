"""Several servers of a client: which gets a call, which are out, when they return. Without and with real servers."""

from __future__ import annotations

import os
import signal
import socket
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import blocking
import numpy as np
import pytest
from models import write_models

from tritonkit.server import TritonServer
from tritonkit_client import (
    Client,
    ConnectionFailed,
    DeadlineExceeded,
    Hedge,
    InvalidInput,
    RequestEvent,
    ResponseEvent,
    ServerBusy,
    ServerError,
)
from tritonkit_client._engine.servers import Servers
from tritonkit_client._transport.endpoint import parse_endpoint

Connect = Callable[..., Client]
ONE = np.ones((1, 3), np.float32)


@pytest.fixture
def three() -> Servers:
    return Servers(parse_endpoint("grpc://a,b,c").all, lambda endpoint: endpoint.host)


def test_the_server_with_the_fewest_calls_is_next_and_equals_take_turns(three: Servers) -> None:
    held = [three.acquire("m", ()) for _ in range(6)]
    assert Counter(server.transport for server in held if server) == {"a": 2, "b": 2, "c": 2}
    freed = held[3]
    assert freed is not None
    three.release(freed)
    assert three.acquire("m", ()) is freed
    assert all(server.in_flight == 2 for server in three.all)
    busy, *_ = three.all
    busy.in_flight = 5
    assert busy not in [three.acquire("m", ()) for _ in range(6)]


def test_a_server_that_cannot_be_reached_is_out_until_it_is_found_ready(three: Servers) -> None:
    listener = Mock()
    three.on_change = listener
    a, b, c = three.all
    three.note_failure(a, "m", ConnectionFailed("refused"))
    listener.assert_called_once()
    assert {three.acquire("m", ()) for _ in range(8)} == {b, c}
    three.note_check(a, ready=False)
    assert a.out
    three.note_check(a, ready=True)
    assert {three.acquire("m", ()) for _ in range(12)} == {a, b, c}


def test_looks_at_a_server_that_stays_out_become_rarer(three: Servers) -> None:
    a, *_ = three.all
    waits = []
    for _ in range(10):
        three.note_check(a, ready=False)
        waits.append(a.check_at - time.monotonic())
    assert waits[0] < 0.11
    assert 2.4 < waits[-1] <= 5.0
    assert three.pause_s() <= 5.0


@pytest.mark.parametrize(
    ("error", "times", "out"),
    [
        (
            ServerBusy("the server did not take the request: Server is stopping, scheduler for model has stopped"),
            1,
            True,
        ),
        (ServerBusy("the server did not take the request: slow down"), 9, False),
        (ServerError("boom"), 9, False),
        (DeadlineExceeded("late"), 2, False),
        (DeadlineExceeded("late"), 3, True),
    ],
)
def test_what_puts_a_server_out(three: Servers, error: Any, times: int, out: bool) -> None:
    a, *_ = three.all
    for _ in range(times):
        three.note_failure(a, "m", error)
    assert a.out is out


def test_an_answer_between_two_timeouts_keeps_a_server_in(three: Servers) -> None:
    a, *_ = three.all
    for _ in range(5):
        three.note_failure(a, "m", DeadlineExceeded("late"))
        three.note_success(a)
    assert not a.out


def test_without_anybody_else_those_that_are_out_are_tried(three: Servers) -> None:
    for server in three.all:
        three.note_failure(server, "m", ConnectionFailed("refused"))
    assert three.acquire("m", ()) is not None


def test_servers_that_all_say_they_are_not_ready_share_the_work(three: Servers) -> None:
    for server in three.all:
        three.note_check(server, ready=False, silent=False)
    assert all(server.out for server in three.all)
    assert {three.acquire("m", ()) for _ in range(3)} == set(three.all)
    a, b, c = three.all
    three.note_failure(a, "m", ConnectionFailed("refused"))
    assert {three.acquire("m", ()) for _ in range(4)} == {b, c}


def test_a_single_server_is_never_out() -> None:
    alone = Servers(parse_endpoint("grpc://a").all, lambda _: None)
    (a,) = alone.all
    alone.note_failure(a, "m", ConnectionFailed("refused"))
    assert not a.out


def test_a_changed_set_keeps_the_connections_of_those_that_stay(three: Servers) -> None:
    a, b, c = three.all
    gone = three.replace(parse_endpoint("grpc://b,d").all)
    assert gone == [a, c]
    assert three.all[0] is b
    assert [server.transport for server in three.all] == ["b", "d"]


class Pair:
    """Two real servers of the same models; each can be killed, and started again on its ports."""

    def __init__(self, repository: Path) -> None:
        self.repository = repository
        self.servers = [self._new({}) for _ in range(2)]
        for server in self.servers:
            server.start()
        self.ports = [dict(server.ports) for server in self.servers]

    def url(self, protocol: str) -> str:
        hosts = ",".join(f"127.0.0.1:{ports[protocol]}" for ports in self.ports)
        return f"{protocol}://{hosts}"

    def kill(self, number: int) -> None:
        os.kill(self.servers[number].pid, signal.SIGKILL)
        self.servers[number].wait()
        self.servers[number].stop()

    def stop(self, number: int) -> None:
        self.servers[number].stop()

    def start(self, number: int) -> None:
        self.servers[number] = self._new({f"{name}_port": port for name, port in self.ports[number].items()})
        self.servers[number].start()

    def _new(self, ports: dict[str, int]) -> TritonServer:
        return TritonServer(self.repository, exit_timeout_s=1, **ports)  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pair]:
    repository = tmp_path_factory.mktemp("pair")
    write_models(repository, "arithmetic", "sleep")
    two = Pair(repository)
    yield two
    for server in two.servers:
        server.stop()


@contextmanager
def load(client: Client, callers: int = 2) -> Iterator[list[BaseException]]:
    """Always have a call in flight, of a model that sleeps: the cores are for the servers that restart.

    Yields the errors, which should be none.
    """
    over = threading.Event()
    errors: list[BaseException] = []

    def ask() -> None:
        while not over.is_set():
            try:
                out = client.infer("sleep", {"timeout": [[0.01]]})
                assert out["slept"].shape == (1, 1)
            except BaseException as error:
                errors.append(error)

    with ThreadPoolExecutor(callers) as pool:
        asking = [pool.submit(ask) for _ in range(callers)]
        try:
            yield errors
        finally:
            over.set()
        for future in asking:
            future.result()


def wait_until(holds: Callable[[], bool], seconds: float = 8) -> None:
    end = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < end, "it did not come to that"
        time.sleep(0.02)


def test_requests_go_to_all_servers_and_never_to_one_connection_only(pair: Pair, connect: Connect) -> None:
    for protocol in ("grpc", "http"):
        endpoints: list[str] = []
        client = connect(pair.url(protocol), event_hooks={"request": [partial(note, endpoints)]})
        for _ in range(20):
            client.infer("arithmetic", left=ONE, right=ONE)
        seen = Counter(endpoints)
        assert len(seen) == 2
        assert min(seen.values()) >= 8


def idle(client: Client) -> bool:
    return all(server.in_flight == 0 for server in client._servers.all)


def note(endpoints: list[str], event: Any) -> None:
    endpoints.append(event.endpoint)


def both(endpoints: list[str]) -> bool:
    return len(set(endpoints)) == 2


@contextmanager
def all_kinds(pair: Pair) -> Iterator[tuple[list[Client], list[list[BaseException]]]]:
    """A client of each kind over each protocol, and the errors of each under load."""
    with ExitStack() as stack:
        clients = [
            stack.enter_context(kind(pair.url(protocol), timeout=5))
            for kind in (Client, blocking.client)
            for protocol in ("grpc", "http")
        ]
        yield clients, [stack.enter_context(load(client)) for client in clients]


def wait_for_all(clients: list[Client], number: int, out: bool) -> None:
    wait_until(lambda: all(client._servers.all[number].out is out for client in clients))


def test_a_killed_server_costs_no_request_and_returns_once_restarted(pair: Pair) -> None:
    with all_kinds(pair) as (clients, errors):
        time.sleep(0.3)
        pair.kill(0)
        wait_for_all(clients, 0, out=True)
        pair.start(0)
        wait_for_all(clients, 0, out=False)
        for client in clients:
            endpoints: list[str] = []
            client._hooks.request = (partial(note, endpoints),)
            wait_until(partial(both, endpoints))
    assert errors == [[], [], [], []]


def test_a_rolling_restart_loses_no_request(pair: Pair) -> None:
    with all_kinds(pair) as (clients, errors):
        for number in range(2):
            pair.stop(number)
            pair.start(number)
            wait_for_all(clients, number, out=False)
    assert errors == [[], [], [], []]


def test_a_stopped_server_is_put_out_by_its_silence(pair: Pair, connect: Connect) -> None:
    client = connect(pair.url("grpc"), timeout=0.3)
    client.infer("arithmetic", left=ONE, right=ONE, timeout=5)
    os.kill(pair.servers[0].pid, signal.SIGSTOP)
    try:
        late = 0
        for _ in range(12):
            try:
                client.infer("arithmetic", left=ONE, right=ONE)
            except DeadlineExceeded:
                late += 1
        assert late <= 3
        assert client._servers.all[0].out
        started = time.monotonic()
        for _ in range(10):
            client.infer("arithmetic", left=ONE, right=ONE)
        assert time.monotonic() - started < 2
    finally:
        os.kill(pair.servers[0].pid, signal.SIGCONT)
    wait_until(lambda: not client._servers.all[0].out)


def test_a_slow_server_is_hedged_by_the_other(pair: Pair, connect: Connect) -> None:
    for protocol in ("grpc", "http"):
        requests: list[RequestEvent] = []
        responses: list[ResponseEvent] = []
        hooks = {"request": [requests.append], "response": [responses.append]}
        client = connect(pair.url(protocol), timeout=5, hedge=Hedge(percentile=90, at_least_s=0.1), event_hooks=hooks)
        for _ in range(4):
            client.infer("arithmetic", left=ONE, right=ONE)
        wait_until(partial(idle, client))
        before, calls = len(requests), 0
        lost: list[ResponseEvent] = []
        os.kill(pair.servers[1].pid, signal.SIGSTOP)
        try:
            while not lost:
                started = time.monotonic()
                assert client.infer("arithmetic", left=ONE, right=ONE)["sum"][0, 0] == 2
                assert time.monotonic() - started < 2.0
                calls += 1
                lost = [event for event in responses[before:] if event.cancelled]
                assert calls < 20, "no call was asked of both"
            assert len(requests) - before == len(responses) - before == calls + len(lost)
        finally:
            os.kill(pair.servers[1].pid, signal.SIGCONT)
        wait_until(partial(idle, client))


def test_an_operation_that_would_reach_one_server_only_is_refused(pair: Pair, connect: Connect) -> None:
    client = connect(pair.url("grpc"))
    for call in (client.load, client.unload):
        with pytest.raises(InvalidInput, match="would reach only one"):
            call("arithmetic")


@pytest.mark.parametrize("protocol", ["grpc", "http"])
def test_a_name_stands_for_all_of_its_addresses_and_is_looked_up_again(
    protocol: str, server: TritonServer, connect: Connect, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The second address is 127.0.0.2, where nobody listens: the name's servers are tried, and it is left out."""
    port = server.ports[protocol]
    real = socket.getaddrinfo
    addresses = ["127.0.0.1"]

    def lookup(host: Any, *args: Any, **kwargs: Any) -> Any:
        if host == "models.test":
            return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, port)) for address in addresses]
        return real(host, *args, **kwargs)

    monkeypatch.setattr(socket, "getaddrinfo", lookup)
    monkeypatch.setattr("tritonkit_client._engine.engine._RESOLVE_S", 0.2)
    monkeypatch.setattr("tritonkit_client._engine.servers._CHECK_S", 0.2)
    client = connect(f"dns+{protocol}://models.test:{port}", timeout=5)
    assert client.ready()
    assert [known.endpoint.host for known in client._servers.all] == ["127.0.0.1"]
    addresses.append("127.0.0.2")
    wait_until(lambda: len(client._servers.all) == 2)
    for _ in range(4):
        client.infer("arithmetic", left=ONE, right=ONE)
    wait_until(lambda: client._servers.all[1].out)
    addresses.pop()
    wait_until(lambda: len(client._servers.all) == 1)
    assert client.ready()


def test_a_name_without_an_address_is_a_failed_connection(connect: Connect) -> None:
    with pytest.raises(ConnectionFailed, match="no address"):
        connect("dns:///name.invalid", timeout=5).ready()
