"""The asynchronous client alone: cancellation, event loops, and that nothing is left behind."""

from __future__ import annotations

import asyncio
import socket
import threading
import time
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

from tritonkit.server import TritonServer
from tritonkit_client import AsyncClient, Client, ClientClosed, InvalidInput

ONE = np.ones((1, 3), np.float32)


def test_a_cancelled_call_ends_at_once_and_frees_its_place(url: str) -> None:
    async def main() -> None:
        async with AsyncClient(url) as client:
            await client.infer("sleep", {"timeout": [[0.0]]})
            task = asyncio.create_task(client.infer("sleep", {"timeout": [[2.0]]}))
            await asyncio.sleep(0.1)
            (server,) = client._servers.all
            assert server.in_flight == 1
            started = time.monotonic()
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            assert time.monotonic() - started < 1
            assert server.in_flight == 0
            assert (await client.infer("arithmetic", left=ONE, right=ONE))["sum"].shape == (1, 3)

    asyncio.run(main())


@pytest.fixture
def silent() -> Iterator[tuple[str, list[bool]]]:
    """A server that reads and never answers; it notes when the other side hangs up."""
    hung_up: list[bool] = []
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def serve() -> None:
            connection, _ = listener.accept()
            with connection:
                while connection.recv(65536):
                    pass
                hung_up.append(True)

        thread = threading.Thread(target=serve)
        thread.start()
        yield f"http://127.0.0.1:{listener.getsockname()[1]}", hung_up
        thread.join(5)


def test_a_cancelled_http_call_closes_its_connection(silent: tuple[str, list[bool]]) -> None:
    url, hung_up = silent

    async def main() -> None:
        async with AsyncClient(url) as client:
            with pytest.raises(asyncio.TimeoutError):
                await asyncio.wait_for(client.ready(), 0.1)
            end = time.monotonic() + 1
            while not hung_up and time.monotonic() < end:
                await asyncio.sleep(0.01)
            assert hung_up

    asyncio.run(main())


def test_more_calls_than_threads_keep_their_deadlines(silent: tuple[str, list[bool]]) -> None:
    async def main() -> None:
        async with AsyncClient(silent[0], timeout=0.3, retry=None) as client:
            started = time.monotonic()
            results = await asyncio.gather(*(client.ready() for _ in range(200)), return_exceptions=True)
            assert {type(error).__name__ for error in results} == {"DeadlineExceeded"}
            assert time.monotonic() - started < 2

    asyncio.run(main())


def test_a_client_belongs_to_one_loop_and_says_so(url: str) -> None:
    client = AsyncClient(url)

    async def use() -> bool:
        return await client.live()

    assert asyncio.run(use())
    with pytest.raises(ClientClosed, match="another event loop"):
        asyncio.run(use())


def test_a_thousand_calls_at_once_are_all_answered(server: TritonServer) -> None:
    async def main() -> None:
        async with AsyncClient(server.grpc_url) as client:
            arrays = [np.full((1, 3), number, np.float32) for number in range(1000)]
            outs = await asyncio.gather(*(client.infer("arithmetic", left=a, right=a) for a in arrays))
            assert all(np.array_equal(out["sum"], 2 * a) for out, a in zip(outs, arrays, strict=True))

    asyncio.run(main())


def test_credentials_may_be_made_by_a_coroutine(url: str) -> None:
    calls: list[str] = []

    async def token() -> str:
        await asyncio.sleep(0)
        calls.append("t")
        return f"number-{len(calls)}"

    async def main() -> Any:
        async with AsyncClient(url, token=token) as client:
            return (await client.infer("inspect"))["seen"][0].decode()

    assert "Bearer number-" in asyncio.run(main())
    with Client(url, token=token) as blocking, pytest.raises(InvalidInput, match="use AsyncClient"):
        blocking.live()
