"""A program of a user who checks types strictly: mypy reads it with the other sources, pytest runs it."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import aclosing, closing
from typing import Any

import numpy as np
import numpy.typing as npt

from tritonkit.server import TritonServer
from tritonkit_client import AsyncClient, Client, RequestEvent, ResponseEvent, opentelemetry, prometheus

ONE = np.ones((1, 3), np.float32)
Outputs = dict[str, npt.NDArray[Any]]


def samples() -> Iterator[dict[str, npt.NDArray[np.float32]]]:
    yield {"left": ONE, "right": ONE}
    yield {"left": ONE, "right": ONE}


def test_what_a_caller_gets_has_the_type_that_it_has(server: TritonServer) -> None:
    asked: list[str] = []
    took: list[float] = []

    def request(event: RequestEvent) -> None:
        asked.append(event.operation)

    def response(event: ResponseEvent) -> None:
        took.append(event.seconds)

    with Client(server.grpc_url, event_hooks={"request": [request], "response": [response]}) as client:
        one: Outputs = client.infer_many("arithmetic", {"left": ONE, "right": ONE})
        many: list[Outputs] = client.infer_many("arithmetic", samples())
        model = client.model("arithmetic")
        one = model.many({"left": ONE, "right": ONE})
        many = model.many(samples())
        with closing(client.stream("writer", prompt="one two")) as responses:
            words: list[Outputs] = list(responses)  # to its end: Triton 24.10 may not survive a late cancellation
        assert (one["sum"].shape, len(many), words[0]["word"][0]) == ((1, 3), 2, b"one")
    assert len(asked) == len(took) > 0
    both = [opentelemetry.hooks(), prometheus.hooks()]
    with Client(server.grpc_url, event_hooks=both) as client:
        assert client.live()


def test_an_asynchronous_caller_too(server: TritonServer) -> None:
    async def main() -> None:
        async with AsyncClient(server.grpc_url) as client:
            one: Outputs = await client.infer_many("arithmetic", {"left": ONE, "right": ONE})
            many: list[Outputs] = await client.infer_many("arithmetic", samples())
            model = await client.model("arithmetic")
            one = await model.many({"left": ONE, "right": ONE})
            many = await model.many(samples())
            async with aclosing(client.stream("writer", prompt="one two")) as responses:
                words: list[Outputs] = [response async for response in responses]
            assert (one["sum"].shape, len(many), words[0]["word"][0]) == ((1, 3), 2, b"one")

    asyncio.run(main())
