"""The task that checks several servers beside the calls: it survives failures, and ends with the client."""

from __future__ import annotations

import gc
import time
import weakref
from collections.abc import Callable
from typing import Any

import pytest

from tritonkit.server import TritonServer
from tritonkit_client import Client, ConnectionFailed, Retry
from tritonkit_client._engine.engine import Engine
from tritonkit_client._engine.events import Hooks
from tritonkit_client._engine.servers import Servers
from tritonkit_client._protocol.calls import Response
from tritonkit_client._protocol.errors import NO_CONNECTION, Origin
from tritonkit_client._protocol.http_wire import HttpWire
from tritonkit_client._transport.endpoint import parse_endpoint

Connect = Callable[..., Client]


def wait_until(holds: Callable[[], bool], seconds: float = 8) -> None:
    end = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < end, "it did not come to that"
        time.sleep(0.02)


class Token:
    def __init__(self) -> None:
        self.away = False

    def __call__(self) -> str:
        if self.away:
            raise RuntimeError("the server of tokens is away")
        return "abc"


@pytest.mark.parametrize("protocol", ["grpc", "http"])
def test_servers_are_checked_again_after_a_failure_of_credentials(
    protocol: str, server: TritonServer, connect: Connect, monkeypatch: pytest.MonkeyPatch, caplog: Any
) -> None:
    monkeypatch.setattr("tritonkit_client._engine.servers._CHECK_S", 0.05)
    port, token = server.ports[protocol], Token()
    client = connect(f"{protocol}://127.0.0.1:{port},127.0.0.1:1", timeout=5, token=token)
    assert client.live()
    assert client.live()
    there, _ = client._servers.all
    token.away = True
    wait_until(lambda: "RuntimeError" in caplog.text)
    assert not there.out  # the check told nothing about it
    assert "tokens" not in caplog.text
    with pytest.raises(RuntimeError):
        client.live()
    client._servers.note_failure(there, "", ConnectionFailed("refused"))
    assert there.out
    token.away = False
    wait_until(lambda: not there.out)


def test_the_servers_of_a_collected_client_are_not_checked_any_more(server: TritonServer) -> None:
    client = Client(f"{server.http_url},127.0.0.1:1", timeout=5)
    assert client.ready()
    watching = client._watch
    forgotten = weakref.ref(client)
    del client
    gc.collect()
    assert forgotten() is None
    assert watching is not None
    assert watching._stopped


def test_a_server_whose_health_is_not_everybodys_is_not_out() -> None:
    endpoints = parse_endpoint("http://a,b")
    servers = Servers(endpoints.all, lambda _: None)
    engine = Engine(HttpWire(), endpoints, servers, Retry(), Hooks(), None, False)
    a, _ = servers.all
    call = HttpWire().ready(Origin())
    for response, out, silent in (
        (Response(401), False, False), (Response(404), False, False), (Response(400), True, False), (Response(500), True, False),
        (Response(NO_CONNECTION), True, True), (None, True, True), (Response(200), False, False), (None, False, False),
    ):  # fmt: skip
        engine._note_check(a, call, response)
        assert (a.out, a.silent) == (out, silent), response
