"""Both kinds of client when the server is absent, stopped, silent or no server of KServe v2."""

from __future__ import annotations

import json
import os
import signal
import socket
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from unittest.mock import Mock

import blocking
import numpy as np
import pytest

from tritonkit.server import TritonServer
from tritonkit_client import Client, ConnectionFailed, DeadlineExceeded, ServerError

Connect = Callable[..., Client]

TIMEOUT_S = 0.3
# A call may end this much after its timeout, on a busy machine; `make bench-client` holds it to 50 ms on a quiet one.
SLACK_S = 0.5


@contextmanager
def deadline_kept() -> Iterator[None]:
    started = time.monotonic()
    with pytest.raises(DeadlineExceeded):
        yield
    assert TIMEOUT_S <= time.monotonic() - started < TIMEOUT_S + SLACK_S


@pytest.fixture
def listener() -> Iterator[socket.socket]:
    """A socket that listens and never accepts by itself."""
    with socket.create_server(("127.0.0.1", 0)) as sock:
        yield sock


def test_a_server_that_stops_and_comes_back_is_lost_and_found(small_repository: Path) -> None:
    ones = np.ones((1, 3), np.float32)
    server = TritonServer(small_repository, exit_timeout_s=1)
    with ExitStack() as stack:
        with server:
            ports = server.ports
            urls = (server.grpc_url, server.http_url)
            kinds = (Client, blocking.client)
            clients = [stack.enter_context(kind(url, timeout=5)) for url in urls for kind in kinds]
            for client in clients:
                client.infer("arithmetic", left=ones, right=ones)
            os.kill(server.pid, signal.SIGSTOP)
            try:
                for client in clients:
                    with deadline_kept():
                        client.infer("arithmetic", left=ones, right=ones, timeout=TIMEOUT_S)
            finally:
                os.kill(server.pid, signal.SIGCONT)
        for client in clients:
            with pytest.raises(ConnectionFailed):
                client.infer("arithmetic", left=ones, right=ones)
        pool = stack.enter_context(ThreadPoolExecutor(4))
        answered = [pool.submit(keep_asking, client) for client in clients]
        with TritonServer(small_repository, exit_timeout_s=1, http_port=ports["http"], grpc_port=ports["grpc"]):
            for client, asking in zip(clients, answered, strict=True):
                # Soon, although calls were made all through the outage.
                asking.result(timeout=1)
                client.infer("arithmetic", left=ones, right=ones)


def keep_asking(client: Client) -> None:
    """Call until there is a response, 10 s at most."""
    end = time.monotonic() + 10
    while time.monotonic() < end:
        try:
            if client.ready():
                return
        except ConnectionFailed:
            time.sleep(0.05)
    raise TimeoutError("the client did not connect again")


@pytest.mark.parametrize("scheme", ["grpc", "http"])
def test_a_port_where_nobody_listens_is_a_failed_connection(
    scheme: str, listener: socket.socket, connect: Connect
) -> None:
    port = listener.getsockname()[1]
    listener.close()
    with pytest.raises(ConnectionFailed, match="refused") as caught:
        connect(f"{scheme}://127.0.0.1:{port}", timeout=5).ready()
    assert caught.value.attempts == 3


@pytest.mark.parametrize("url", ["grpc://name.invalid", "http://name.invalid", "http://a..b"])
def test_an_unknown_host_is_a_failed_connection(url: str, connect: Connect) -> None:
    with pytest.raises(ConnectionFailed):
        connect(url, timeout=5).ready()


@pytest.mark.parametrize("scheme", ["grpc", "http"])
def test_a_server_that_never_accepts_costs_no_more_than_the_timeout(
    scheme: str, listener: socket.socket, connect: Connect
) -> None:
    client = connect(f"{scheme}://127.0.0.1:{listener.getsockname()[1]}", timeout=TIMEOUT_S)
    with deadline_kept():
        client.infer("any", x=[1.0])


def test_addresses_that_swallow_connections_cost_one_timeout_together(monkeypatch: pytest.MonkeyPatch) -> None:
    with ExitStack() as stack:
        addresses = [full_listener(stack) for _ in range(3)]
        entries = [(socket.AF_INET, socket.SOCK_STREAM, 6, "", address) for address in addresses]
        monkeypatch.setattr(socket, "getaddrinfo", Mock(return_value=entries))
        with Client("http://many.test", timeout=TIMEOUT_S) as client, deadline_kept():
            client.ready()


def test_a_handshake_has_what_connecting_left_of_the_timeout(monkeypatch: pytest.MonkeyPatch) -> None:
    """The first packet of a connection that a full queue dropped is sent again after a second."""
    with ExitStack() as stack:
        listener = stack.enter_context(socket.create_server(("127.0.0.1", 0), backlog=0))
        for _ in range(3):
            waiting = stack.enter_context(socket.socket())
            waiting.setblocking(False)
            waiting.connect_ex(listener.getsockname())

        def accept() -> None:
            time.sleep(0.5)
            for _ in range(3):
                stack.enter_context(listener.accept()[0])

        thread = threading.Thread(target=accept)
        thread.start()
        started = time.monotonic()
        with Client(f"https://127.0.0.1:{listener.getsockname()[1]}", timeout=1.5, retry=None) as client:
            with pytest.raises(DeadlineExceeded):
                client.live()
            assert 1.5 <= time.monotonic() - started < 2.9  # 3.0 if each handshake had a timeout of its own
        thread.join(5)


def full_listener(stack: ExitStack) -> tuple[str, int]:
    """An address whose queue of connections is full, so that a further one gets no answer."""
    listener = stack.enter_context(socket.create_server(("127.0.0.1", 0), backlog=0))
    address: tuple[str, int] = listener.getsockname()
    for _ in range(4):
        waiting = stack.enter_context(socket.socket())
        waiting.setblocking(False)
        waiting.connect_ex(address)
    return address


def test_an_answer_that_drips_costs_no_more_than_the_timeout(listener: socket.socket, connect: Connect) -> None:
    def drip() -> None:
        connection, _ = listener.accept()
        with connection:
            for byte in b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n" + bytes(100):
                try:
                    connection.send(bytes([byte]))
                except OSError:
                    return
                time.sleep(0.02)

    thread = threading.Thread(target=drip)
    thread.start()
    client = connect(f"http://127.0.0.1:{listener.getsockname()[1]}", timeout=TIMEOUT_S)
    with deadline_kept():
        client.ready()
    thread.join()


MODEL = {
    "name": "m",
    "versions": ["1"],
    "platform": "p",
    "inputs": [{"name": name, "datatype": "UINT8", "shape": [-1]} for name in "xyz"],
    "outputs": [],
}
LIMITS = {"max_batch_size": 0, "input": []}


def answer(connection: socket.socket, value: object) -> None:
    """Take one small request and answer it."""
    connection.recv(65536)
    body = json.dumps(value).encode()
    connection.send(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body))


def test_one_timeout_covers_all_calls_of_an_operation(listener: socket.socket, connect: Connect) -> None:
    """Each of the two responses takes less than the timeout, both together take more."""

    def serve() -> None:
        connection, _ = listener.accept()
        with connection:
            for value in (MODEL, LIMITS):
                time.sleep(2 / 3 * TIMEOUT_S)
                answer(connection, value)

    thread = threading.Thread(target=serve)
    thread.start()
    client = connect(f"http://127.0.0.1:{listener.getsockname()[1]}", timeout=TIMEOUT_S)
    with deadline_kept():
        client.metadata("m")
    thread.join()


def test_a_server_that_reads_slowly_costs_no_more_than_the_timeout(listener: socket.socket, connect: Connect) -> None:
    """Sending each of the three tensors takes less than the timeout, sending all of them takes more."""
    size = 10_000_000

    def serve() -> None:
        connection, _ = listener.accept()
        with connection:
            answer(connection, MODEL)
            answer(connection, LIMITS)
            for _ in range(3):
                time.sleep(2 / 3 * TIMEOUT_S)
                left = size
                while left and (taken := connection.recv(left)):
                    left -= len(taken)

    thread = threading.Thread(target=serve)
    thread.start()
    array = np.zeros(size, np.uint8)
    client = connect(f"http://127.0.0.1:{listener.getsockname()[1]}")
    client.metadata("m")
    with deadline_kept():
        client.infer("m", x=array, y=array, z=array, timeout=TIMEOUT_S)
    thread.join()


def test_the_other_protocols_port_is_a_failed_connection(server: TritonServer, connect: Connect) -> None:
    for url in (server.grpc_url.replace("grpc", "http"), server.http_url.replace("http", "grpc")):
        with pytest.raises(ConnectionFailed, match="8000 for http"):
            connect(url, timeout=5).metadata("arithmetic")


def test_a_path_where_triton_is_not_is_named(server: TritonServer) -> None:
    with Client(f"{server.http_url}/elsewhere") as client:
        for call in (client.ready, lambda: client.metadata("arithmetic")):
            with pytest.raises(ServerError, match="the path in front of /v2"):
                call()


@pytest.fixture
def hanging_up() -> Iterator[tuple[str, list[int]]]:
    """A server that answers once on each connection and hangs up on the second request, as a server does whose idle
    connections time out just then; and how many requests each connection got."""
    counts: list[int] = []
    ready = b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"
    with socket.create_server(("127.0.0.1", 0)) as listener, ThreadPoolExecutor(8) as pool:

        def serve(accepted: socket.socket) -> None:
            mine = len(counts)
            counts.append(0)
            with accepted:
                for answer in (ready, b""):
                    if not accepted.recv(65536):
                        return
                    counts[mine] += 1
                    accepted.sendall(answer)

        def accept() -> None:
            with suppress(OSError):
                while True:
                    pool.submit(serve, listener.accept()[0])

        pool.submit(accept)
        yield f"http://127.0.0.1:{listener.getsockname()[1]}", counts
        listener.shutdown(socket.SHUT_RDWR)


def test_a_connection_closed_under_a_request_is_replaced(hanging_up: tuple[str, list[int]], connect: Connect) -> None:
    url, counts = hanging_up
    client = connect(url, timeout=5, retry=None)
    assert all(client.live() for _ in range(10))
    assert counts.count(2) == 9, "each connection but the last was reused once"


def test_a_request_that_may_not_be_repeated_is_sent_once(hanging_up: tuple[str, list[int]]) -> None:
    url, counts = hanging_up
    with Client(url, timeout=5) as client:
        assert client.live()
        with pytest.raises(ConnectionFailed):
            client.unload("any")
    assert sum(counts) == 2
