"""A client that is closed during its calls: each of them raises ClientClosed."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from tritonkit.server import TritonServer
from tritonkit_client import AsyncClient, Client, ClientClosed

Connect = Callable[..., Client]
ONE = np.ones((1, 3), np.float32)
SLOW: dict[str, Any] = {"timeout": [[1.0]]}
COUNT: dict[str, Any] = {"upto": [50], "size": [1], "pause": [0.05], "mark": [""]}


def wait_until(holds: Callable[[], bool]) -> None:
    end = time.monotonic() + 5
    while not holds():
        assert time.monotonic() < end
        time.sleep(0.01)


def test_a_call_whose_client_is_closed_by_another_thread_says_so(server: TritonServer) -> None:
    client = Client(server.grpc_url, timeout=10)
    client.metadata("sleep3")
    raised: list[BaseException] = []

    def call() -> None:
        try:
            client.infer("sleep3", SLOW)
        except BaseException as error:
            raised.append(error)

    thread = threading.Thread(target=call)
    thread.start()
    (target,) = client._servers.all
    wait_until(lambda: target.in_flight == 1)
    time.sleep(0.1)
    client.close()
    thread.join()
    assert [type(error) for error in raised] == [ClientClosed]
    assert target.in_flight == 0


def test_a_task_whose_client_is_closed_is_not_cancelled_but_told(server: TritonServer) -> None:
    """grpc.aio ends the calls of a closed channel as if their tasks were cancelled: a `TaskGroup` would swallow it."""

    async def main() -> None:
        client = AsyncClient(server.grpc_url, timeout=10)
        await client.metadata("sleep3")
        calls = [asyncio.create_task(client.infer("sleep3", SLOW)) for _ in range(2)]
        responses = client.stream("count", COUNT)
        await anext(responses)
        await asyncio.sleep(0.1)
        calls[1].cancel()
        await client.close()
        assert isinstance((await asyncio.gather(calls[0], return_exceptions=True))[0], ClientClosed)
        with pytest.raises(asyncio.CancelledError):
            await calls[1]
        with pytest.raises(ClientClosed):
            async for _ in responses:
                pass
        assert [target.in_flight for target in client._servers.all] == [0]

    asyncio.run(main())


def test_http_calls_that_had_no_thread_yet_are_told_too(server: TritonServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tritonkit_client._transport.http._POOL_SIZE", 1)

    async def main() -> None:
        client = AsyncClient(server.http_url, timeout=10)
        await client.metadata("sleep3")
        calls = [asyncio.create_task(client.infer("sleep3", {"timeout": [[0.3]]})) for _ in range(3)]
        await asyncio.sleep(0.1)
        await client.close()
        first, *others = await asyncio.gather(*calls, return_exceptions=True)
        assert isinstance(first, dict)
        assert [type(error) for error in others] == [ClientClosed, ClientClosed]

    asyncio.run(main())


@pytest.mark.parametrize("begun", [False, True])
def test_a_stream_whose_client_is_closed_says_so(begun: bool, server: TritonServer) -> None:
    client = Client(server.grpc_url, timeout=10)
    responses = client.stream("count", COUNT)
    if begun:
        next(responses)
    client.close()
    with pytest.raises(ClientClosed):
        list(responses)
    assert [target.in_flight for target in client._servers.all] == [0]


def test_a_client_is_closed_after_its_loop_has_ended(server: TritonServer) -> None:
    client = AsyncClient(f"{server.grpc_url},127.0.0.1:1", timeout=5)

    async def use() -> bool:
        return await client.live()

    assert asyncio.run(use())
    asyncio.run(client.close())


def test_a_stream_without_credentials_leaves_nothing_behind(server: TritonServer, connect: Connect) -> None:
    calls: list[bool] = []

    def token() -> str:
        calls.append(True)
        if len(calls) > 2:  # those of the metadata
            raise RuntimeError("the server of tokens is away")
        return "abc"

    ended: list[Any] = []
    client = connect(server.grpc_url, timeout=5, token=token, event_hooks={"response": [ended.append]})
    client.metadata("writer")
    with pytest.raises(RuntimeError, match="tokens"):
        list(client.stream("writer", prompt="one two"))
    assert [target.in_flight for target in client._servers.all] == [0]
    assert len(ended) == 3
