"""Decoupled models and sequences, with both kinds of client, against a real Triton."""

from __future__ import annotations

import asyncio
import json
import math
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest

from tritonkit.server import TritonServer
from tritonkit_client import (
    AsyncClient,
    Client,
    ConnectionFailed,
    DeadlineExceeded,
    InvalidInput,
    ModelNotFound,
    NotSupported,
    ServerError,
)

Connect = Callable[..., Client]


@pytest.fixture
def streams(server: TritonServer, connect: Connect) -> Client:
    return connect(server.grpc_url, timeout=10)


def count(upto: int, *, size: int = 1, pause: float = 0.0, mark: Path | str = "") -> dict[str, Any]:
    return {"upto": [upto], "size": [size], "pause": [pause], "mark": [str(mark)]}


def wait_for(path: Path) -> str:
    end = time.monotonic() + 5
    while not path.exists():
        assert time.monotonic() < end, "the server was not told"
        time.sleep(0.02)
    return path.read_text()


def test_every_response_comes_in_order_until_the_last(streams: Client) -> None:
    assert [int(out["number"][0]) for out in streams.stream("count", count(50))] == list(range(50))
    assert list(streams.stream("count", count(0))) == []
    assert streams.metadata("count").decoupled
    (server,) = streams._servers.all
    assert server.in_flight == 0


def test_responses_arrive_as_they_are_made(streams: Client) -> None:
    started = time.monotonic()
    responses = streams.stream("count", count(4, pause=0.2))
    next(responses)
    assert time.monotonic() - started < 0.5, "the last of four comes after 0.6 s"
    next(responses)
    assert time.monotonic() - started > 0.2
    responses.close()


def test_closing_the_iterator_cancels_on_the_server(streams: Client, tmp_path: Path) -> None:
    mark = tmp_path / "cancelled"
    responses = streams.stream("count", count(1000, pause=0.01, mark=mark))
    assert [int(next(responses)["number"][0]) for _ in range(3)] == [0, 1, 2]
    responses.close()
    assert int(wait_for(mark)) < 100
    assert streams._servers.all[0].in_flight == 0


def test_leaving_a_loop_cancels_too(server: TritonServer, tmp_path: Path) -> None:
    with Client(server.grpc_url) as client:
        for _ in client.stream("count", count(1000, pause=0.01, mark=tmp_path / "sync")):
            break
        wait_for(tmp_path / "sync")

    async def main() -> None:
        async with AsyncClient(server.grpc_url) as client:

            async def read() -> None:
                async for _ in client.stream("count", count(1000, pause=0.01, mark=tmp_path / "async")):
                    pass

            task = asyncio.create_task(read())
            await asyncio.sleep(0.2)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            await asyncio.to_thread(wait_for, tmp_path / "async")

    asyncio.run(main())


def test_a_slow_reader_is_not_flooded(streams: Client) -> None:
    """300 responses of 1 MB while nobody reads: gRPC's window holds them back, not this process's memory."""
    responses = streams.stream("count", count(300, size=250_000), timeout=60)
    next(responses)
    before = psutil.Process(os.getpid()).memory_info().rss
    time.sleep(1.0)
    assert psutil.Process(os.getpid()).memory_info().rss - before < 60e6
    assert sum(1 for _ in responses) == 299


def test_a_stream_ends_with_its_timeout(streams: Client) -> None:
    started = time.monotonic()
    numbers = []

    def read() -> None:
        for out in streams.stream("count", count(1000, pause=0.1), timeout=0.5):
            numbers.append(int(out["number"][0]))

    with pytest.raises(DeadlineExceeded, match=r"timeout=0\.5 s"):
        read()
    assert 0.5 <= time.monotonic() - started < 1.5
    assert numbers[:3] == [0, 1, 2]


def test_a_failure_inside_a_stream_is_an_error(streams: Client) -> None:
    with pytest.raises(ServerError, match="it went wrong"):
        list(streams.stream("count", count(-1)))


def test_mistakes_are_found_before_the_stream_is_opened(streams: Client, url: str, connect: Connect) -> None:
    with pytest.raises(InvalidInput, match="needs input 'mark'"):
        list(streams.stream("count", upto=[1], size=[1], pause=[0.0]))
    with pytest.raises(ModelNotFound):
        list(streams.stream("absent", count(1)))
    if url.startswith("http"):
        with pytest.raises(NotSupported, match="use a grpc:// endpoint"):
            list(connect(url).stream("count", count(1)))


def test_the_beginning_of_a_stream_is_tried_again_and_told(server: TritonServer, connect: Connect) -> None:
    events: list[Any] = []
    hooks = {"response": [events.append]}
    dead = "127.0.0.1:1"
    client = connect(f"grpc://{dead},{server.grpc_url.removeprefix('grpc://')}", event_hooks=hooks, timeout=10)
    client._servers.all[1].in_flight = 1  # so that the dead one is tried first
    client.metadata("count")
    client._servers.all[0].out = False
    events.clear()
    assert [int(out["number"][0]) for out in client.stream("count", count(3))] == [0, 1, 2]
    attempts = [event for event in events if event.request.operation == "stream"]
    assert [type(event.error) for event in attempts] == [ConnectionFailed, type(None)]
    assert not any(event.cancelled for event in attempts)


def test_a_bound_model_streams(server: TritonServer) -> None:
    with Client(server.grpc_url) as client:
        assert len(list(client.model("count").stream(count(3), timeout=math.inf))) == 3


def test_a_sequence_keeps_its_state_and_ends_with_its_block(client: Client) -> None:
    with client.sequence("sum") as first, client.sequence("sum") as second:
        states = [seq(x=[[value]])["state"][0] for seq, value in ((first, 1.0), (second, 10.0), (first, 2.0))]
        assert [state[0] for state in states] == [1.0, 10.0, 3.0]
        assert [state[1] for state in states] == [float(first.id), float(second.id), float(first.id)]
        assert [bool(state[2]) for state in states] == [True, True, False]
        last = second(x=[[5.0]], end=True)["state"][0]
        assert (last[0], bool(last[3])) == (15.0, True)
        with pytest.raises(InvalidInput, match="has ended"):
            second(x=[[1.0]])
    with client.sequence("sum") as third:
        # The first sequence ended too, with its last inputs once more: no other is open.
        assert third(x=[[1.0]])["state"][0][4] == 1


def test_a_mistake_leaves_a_sequence_where_it_was(client: Client) -> None:
    with client.sequence("sum") as seq:
        with pytest.raises(InvalidInput):
            seq(x=[[1.0, 2.0]])
        assert bool(seq(x=[[1.0]])["state"][0][2])  # still the first


def test_an_error_in_the_block_is_not_hidden(client: Client) -> None:
    def fail() -> None:
        with client.sequence("sum") as seq:
            seq(x=[[1.0]])
            raise KeyError("mine")

    with pytest.raises(KeyError):
        fail()
    with pytest.raises(ModelNotFound), client.sequence("absent"):
        pass


def test_a_sequence_stays_on_one_server_and_is_never_repeated(server: TritonServer, connect: Connect) -> None:
    endpoints: list[str] = []
    hooks = {"request": [lambda event: endpoints.append(event.endpoint)]}
    hosts = f"127.0.0.1:{server.ports['grpc']},localhost:{server.ports['grpc']}"
    client = connect(f"grpc://{hosts}", event_hooks=hooks)
    for _ in range(3):
        with client.sequence("sum") as seq:
            endpoints.clear()
            for _ in range(4):
                seq(x=[[1.0]])
        assert len(set(endpoints)) == 1
    # Its server is gone: the request is not sent anywhere else.
    dead = connect(f"grpc://127.0.0.1:1,{server.grpc_url.removeprefix('grpc://')}", event_hooks=hooks)
    dead.metadata("sum")
    sequence = dead.sequence("sum")
    dead._servers.all[1].in_flight = 5
    dead._servers.all[0].out = False
    seq = sequence.__enter__()
    endpoints.clear()
    with pytest.raises(ConnectionFailed) as caught:
        seq(x=[[1.0]])
    assert caught.value.attempts == 1
    assert endpoints == ["grpc://127.0.0.1:1"]


def test_the_parameters_of_a_request_arrive_and_some_are_not_the_callers(client: Client) -> None:
    given: dict[str, str | int | float | bool] = {"text": "a", "number": 7, "share": 0.5, "on": True}
    seen = json.loads(client.infer("inspect", parameters=given)["seen"][0])["parameters"]
    assert {name: seen[name] for name in given if name != "share"} == {"text": "a", "number": 7, "on": True}
    with pytest.raises(InvalidInput, match=r"client\.sequence"):
        client.infer("inspect", parameters={"sequence_id": 3})
    with pytest.raises(InvalidInput, match="is a list"):
        client.infer("inspect", parameters={"x": [1]})  # type: ignore[dict-item]
    assert np.array_equal(client.infer("inspect")["seen"].shape, (1,))


def test_a_stream_that_falls_silent_is_given_up(streams: Client, tmp_path: Path) -> None:
    mark = tmp_path / "cancelled"
    responses = streams.stream("count", count(3, pause=1.5, mark=mark), idle_timeout=0.4)
    assert next(responses)["number"][0] == 0
    started = time.monotonic()
    with pytest.raises(DeadlineExceeded, match=r"idle_timeout=0\.4 s") as caught:
        next(responses)
    assert 0.3 < time.monotonic() - started < 1.4  # the next response would be there after 1.5 s
    assert "idle_timeout=" in caught.value.fix
    assert int(wait_for(mark)) < 3


def test_a_reader_that_takes_its_time_is_not_idle(streams: Client) -> None:
    seen = []
    for out in streams.stream("count", count(4, pause=0.05), idle_timeout=0.3):
        seen.append(int(out["number"][0]))
        time.sleep(0.4)
    assert seen == [0, 1, 2, 3]
    assert len(list(streams.stream("count", count(3), idle_timeout=math.inf))) == 3
    for wrong in (0, -1, True, "1"):
        with pytest.raises(InvalidInput, match="idle_timeout="):
            list(streams.stream("count", count(1), idle_timeout=wrong))  # type: ignore[arg-type]
