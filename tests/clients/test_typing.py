"""A program of a user who checks types strictly: mypy reads it with the other sources, pytest runs it."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import aclosing, closing
from typing import Any

import numpy as np
import numpy.typing as npt

from tritonkit.server import TritonServer
from tritonkit_client import (
    AsyncClient,
    AsyncTextStream,
    Client,
    Delta,
    Generation,
    RequestEvent,
    ResponseEvent,
    TextStream,
    opentelemetry,
    prometheus,
)

ONE = np.ones((1, 3), np.float32)
Outputs = dict[str, npt.NDArray[Any]]


def samples() -> Iterator[dict[str, npt.NDArray[np.float32]]]:
    yield {"left": ONE, "right": ONE}
    yield {"left": ONE, "right": ONE}


def test_what_a_caller_gets_has_the_type_that_it_has(server: TritonServer) -> None:
    operations: list[str] = []
    took: list[float] = []

    def request(event: RequestEvent) -> None:
        operations.append(event.operation)

    def response(event: ResponseEvent) -> None:
        took.append(event.seconds)

    with Client(server.grpc_url, event_hooks={"request": [request], "response": [response]}) as client:
        batch: Outputs = client.infer_many("arithmetic", {"left": ONE, "right": ONE})
        many: list[Outputs] = client.infer_many("arithmetic", samples())
        model = client.model("arithmetic")
        batch = model.many({"left": ONE, "right": ONE})
        many = model.many(samples())
        with closing(client.stream("writer", prompt="one two")) as responses:
            words: list[Outputs] = list(responses)  # to its end: Triton 24.10 may crash on a late cancellation
        assert (batch["sum"].shape, len(many), words[0]["word"][0]) == ((1, 3), 2, b"one")
    assert len(operations) == len(took) > 0
    both = [opentelemetry.hooks(), prometheus.hooks()]
    with Client(server.grpc_url, event_hooks=both) as client:
        assert client.live()


def test_a_language_models_answers_have_types_of_their_own(server: TritonServer) -> None:
    messages = [{"role": "user", "content": "hello"}]
    with Client(server.grpc_url) as client:
        answer: Generation = client.generate("llama", "one two", max_tokens=1, top_p=0.5)
        tokens: int | None = answer.usage.completion_tokens
        with client.stream("llama", "one two") as parts:
            deltas: list[Delta] = list(parts)
        stream: TextStream = client.stream("llama", messages=messages, max_tokens=1)
        text = "".join(delta.text for delta in stream)
        model = client.model("llama")
        answer = model.generate(messages=messages)
        stream = model.stream("one")
        texts: list[str] = [delta.text for delta in stream]
    assert (tokens, [delta.text for delta in deltas], texts) == (1, ["one", " two"], ["one"])
    assert (text, answer.text) == ("<|user|>", "<|user|> hello <|assistant|>")

    async def main() -> None:
        async with AsyncClient(server.grpc_url) as client:
            answer: Generation = await client.generate("llama", messages=messages)
            stream: AsyncTextStream = client.stream("llama", messages=messages)
            deltas: list[Delta] = [delta async for delta in stream]
            async with client.stream("llama", "one two") as parts:
                async for delta in parts:
                    last: Delta = delta
            assert stream.generation == answer
            assert ("".join(delta.text for delta in deltas), last.finish_reason) == (answer.text, "stop")

    asyncio.run(main())


def test_an_asynchronous_caller_too(server: TritonServer) -> None:
    async def main() -> None:
        async with AsyncClient(server.grpc_url) as client:
            batch: Outputs = await client.infer_many("arithmetic", {"left": ONE, "right": ONE})
            many: list[Outputs] = await client.infer_many("arithmetic", samples())
            model = await client.model("arithmetic")
            batch = await model.many({"left": ONE, "right": ONE})
            many = await model.many(samples())
            async with aclosing(client.stream("writer", prompt="one two")) as responses:
                words: list[Outputs] = [response async for response in responses]
            assert (batch["sum"].shape, len(many), words[0]["word"][0]) == ((1, 3), 2, b"one")

    asyncio.run(main())
