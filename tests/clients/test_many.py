"""Large batches and many requests, {blocking, asynchronous} × {gRPC, HTTP}."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
from models import write_models

from tritonkit.server import TritonServer
from tritonkit_client import Client, InvalidInput, ServerError

Connect = Callable[..., Client]


def pair(rows: int, first: int = 0) -> dict[str, Any]:
    left = np.arange(first, first + 3 * rows, dtype=np.float32).reshape(rows, 3)
    return {"left": left, "right": np.ones((rows, 3), np.float32)}


def test_a_batch_over_the_limit_is_cut_and_put_together_in_order(client: Client) -> None:
    before = client.statistics("arithmetic")[0].success.count
    batch = pair(11)
    out = client.infer_many("arithmetic", batch, outputs=["sum"])
    assert list(out) == ["sum"]
    np.testing.assert_array_equal(out["sum"], batch["left"] + 1)
    with pytest.raises(ValueError, match="read-only"):
        out["sum"][0] = 0
    wait_for(lambda: client.statistics("arithmetic")[0].success.count - before == 3)


def test_many_samples_come_back_in_their_order_whatever_their_size(client: Client) -> None:
    sizes = [1, 4, 9, 2, 4, 1, 17]
    samples = [pair(size, 100 * index) for index, size in enumerate(sizes)]
    outs = client.infer_many("arithmetic", samples, max_in_flight=3)
    assert [len(out["sum"]) for out in outs] == sizes
    for sample, out in zip(samples, outs, strict=True):
        np.testing.assert_array_equal(out["sum"], sample["left"] + 1)


def test_lists_and_single_arrays_are_samples_too(client: Client) -> None:
    rows = [[1.0, 2.0, 3.0]] * 6
    out = client.infer_many("arithmetic", {"left": rows, "right": rows})
    np.testing.assert_array_equal(out["difference"], np.zeros((6, 3), np.float32))
    image = np.zeros((70, 224, 224, 3), np.uint8)
    assert client.infer_many("efficientnet_lite0", image[:1])["logits"].shape == (1, 1000)
    with pytest.raises(InvalidInput, match="2 inputs, given a ndarray"):
        client.infer_many("arithmetic", np.zeros((6, 3), np.float32))


@pytest.fixture(scope="module")
def sleeping(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TritonServer]:
    """A server of one model: the test of its own process needs none of the others."""
    repository = tmp_path_factory.mktemp("sleeping")
    write_models(repository, "sleep3")
    with TritonServer(repository, exit_timeout_s=1) as running:
        yield running


@pytest.mark.alone
@pytest.mark.parametrize("protocol", ["grpc", "http"])
def test_requests_run_beside_each_other_but_never_more_than_allowed(
    sleeping: TritonServer, connect: Connect, protocol: str
) -> None:
    """Three requests of 0.3 s on a model with three instances."""
    client = connect(getattr(sleeping, f"{protocol}_url"), timeout=10)
    client.infer_many("sleep3", [{"timeout": [[0.0]]}])
    for in_flight, least, most in ((1, 0.9, 5.0), (3, 0.3, 0.85)):
        started = time.monotonic()
        client.infer_many("sleep3", [{"timeout": [[0.3]]}] * 3, max_in_flight=in_flight)
        assert least <= time.monotonic() - started < most


def test_samples_are_taken_only_as_they_are_needed(client: Client) -> None:
    taken = []

    def samples() -> Iterator[dict[str, Any]]:
        for number in range(10):
            taken.append(number)
            yield {"timeout": [[0.0 if number else -1.0]]}  # the first one fails

    with pytest.raises(ServerError):
        client.infer_many("sleep", samples(), max_in_flight=2)
    assert len(taken) <= 3


def test_a_model_that_gives_no_row_a_sample_is_not_put_together(client: Client) -> None:
    with pytest.raises(ServerError, match="for a batch of 64"):
        client.infer_many("efficientnet_lite0", np.zeros((65, 224, 224, 3), np.uint8))


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"left": np.ones((6, 3), np.float32), "right": np.ones((5, 3), np.float32)}, "left: 6, right: 5"),
        ({"left": 1.0, "right": 1.0}, "'left' has no rows"),
    ],
)
def test_a_batch_that_cannot_be_cut_is_refused(client: Client, values: dict[str, Any], words: str) -> None:
    with pytest.raises(InvalidInput, match=words):
        client.infer_many("arithmetic", values)


def test_max_in_flight_is_a_positive_number(client: Client) -> None:
    with pytest.raises(InvalidInput, match="max_in_flight=0"):
        client.infer_many("arithmetic", pair(2), max_in_flight=0)


def test_a_bound_model_is_called_like_a_function(client: Client) -> None:
    model = client.model("arithmetic")
    np.testing.assert_array_equal(model(**pair(2))["sum"], pair(2)["left"] + 1)
    assert [len(out["sum"]) for out in model.many([pair(5), pair(1)])] == [5, 1]
    assert len(model.many(pair(5))["sum"]) == 5
    assert len(client.model("classifier").many(np.zeros((3, 224, 224, 3), np.uint8))["scores"]) == 3
    assert "model('arithmetic')" in repr(model)


def test_an_error_does_not_wait_for_what_is_still_in_flight(server: TritonServer) -> None:
    with Client(server.http_url) as client:
        client.metadata("sleep3")
        started = time.monotonic()
        with pytest.raises(ServerError, match="non-negative"):
            client.infer_many("sleep3", ({"timeout": [[seconds]]} for seconds in (-1.0, 1.5, 1.5)))
        assert time.monotonic() - started < 1.4
        (target,) = client._servers.all
        wait_for(lambda: not target.in_flight)  # the next test needs the model alone


def wait_for(holds: Callable[[], bool]) -> None:
    end = time.monotonic() + 5
    while not holds():
        assert time.monotonic() < end
        time.sleep(0.02)
