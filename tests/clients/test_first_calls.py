"""Many first calls at once: the model's metadata is fetched once."""

from __future__ import annotations

import asyncio
import socket
import threading
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest

from tritonkit_client import AsyncClient, Client, DeadlineExceeded, ModelNotFound, RequestEvent

X = np.ones((1, 3), np.float32)


class OperationCounter:
    """Counts the operations that clients send."""

    def __init__(self) -> None:
        self.sent: list[str] = []
        self.hooks = {"request": [self._note]}

    def _note(self, event: RequestEvent) -> None:
        self.sent.append(event.operation)

    def counts(self) -> dict[str, int]:
        return dict(Counter(self.sent))


@pytest.fixture
def operations() -> OperationCounter:
    return OperationCounter()


@pytest.fixture
def silent() -> Iterator[str]:
    """An address that takes connections and never answers."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        yield f"127.0.0.1:{listening.getsockname()[1]}"


def test_first_calls_of_threads_ask_once(url: str, operations: OperationCounter) -> None:
    start = threading.Barrier(50)
    with Client(url, timeout=20, event_hooks=operations.hooks) as client, ThreadPoolExecutor(50) as pool:

        def infer() -> Any:
            start.wait()
            return client.infer("labelled", x=X)["y"]

        for future in [pool.submit(infer) for _ in range(50)]:
            np.testing.assert_array_equal(future.result(), X)
    assert operations.counts() == {"metadata": 1, "config": 1, "infer": 50}


def test_first_calls_of_tasks_ask_once_and_each_gets_its_own_error(url: str, operations: OperationCounter) -> None:
    async def main() -> None:
        async with AsyncClient(url, timeout=20, event_hooks=operations.hooks) as client:
            await asyncio.gather(*(client.infer("labelled", x=X) for _ in range(200)))
            assert operations.counts() == {"metadata": 1, "config": 1, "infer": 200}
            operations.sent.clear()
            absent = (client.infer("absent", x=X, request_id=str(number)) for number in range(200))
            errors = await asyncio.gather(*absent, return_exceptions=True)
            assert operations.counts() == {"metadata": 1, "repository": 1}  # the index tells which model was meant
            assert {type(error) for error in errors} == {ModelNotFound}
            assert [error.request_id for error in errors if isinstance(error, ModelNotFound)] == [
                str(number) for number in range(200)
            ]

    asyncio.run(main())


def test_who_gives_up_hands_on_and_other_headers_are_not_waited_for(url: str, operations: OperationCounter) -> None:
    async def main() -> None:
        async with AsyncClient(url, timeout=20, event_hooks=operations.hooks) as client:
            first, second = (asyncio.create_task(client.infer("labelled", x=X)) for _ in range(2))
            while not operations.sent:
                await asyncio.sleep(0)
            first.cancel()
            np.testing.assert_array_equal((await second)["y"], X)
            assert operations.counts() == {"metadata": 2, "config": 1, "infer": 1}
            operations.sent.clear()
            calls = (client.infer("photo", x=np.zeros((1, 4, 6, 3), np.uint8), headers={"tenant": t}) for t in "ab")
            await asyncio.gather(*calls)
            assert operations.counts()["metadata"] == 2

    asyncio.run(main())


@pytest.mark.parametrize("scheme", ["grpc", "http"])
def test_everybody_waits_for_as_long_as_they_said(silent: str, scheme: str) -> None:
    def spent(client: Client, timeout: float) -> float:
        started = time.monotonic()
        with pytest.raises(DeadlineExceeded):
            client.infer("m", x=X, timeout=timeout)
        return time.monotonic() - started

    with Client(f"{scheme}://{silent}") as client, ThreadPoolExecutor(3) as pool:
        futures = [pool.submit(spent, client, timeout) for timeout in (0.6, 0.3, 1.2)]
        assert [round(future.result(), 1) for future in futures] == [
            pytest.approx(timeout, abs=0.25) for timeout in (0.6, 0.3, 1.2)
        ]
