"""What a client promises of Triton beyond KServe v2, {blocking, asynchronous} × {gRPC, HTTP} alike."""

from __future__ import annotations

import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from refusals import Refusal, assert_refused

from tritonkit_client import (
    Client,
    InvalidInput,
    ModelMetadata,
    ModelNotFound,
    ModelNotReady,
    QueueFull,
    ServerBusy,
    TensorSpec,
    TritonkitClientError,
)

Connect = Callable[..., Client]
ONE = np.ones((1, 3), np.float32)


def test_metadata_says_what_the_model_is_and_is_fetched_once(client: Client) -> None:
    metadata = client.metadata("arithmetic")
    assert metadata == ModelMetadata(
        name="arithmetic",
        versions=("1",),
        platform="python",
        inputs=(TensorSpec("left", "FP32", (-1, 3)), TensorSpec("right", "FP32", (-1, 3))),
        outputs=(TensorSpec("sum", "FP32", (-1, 3)), TensorSpec("difference", "FP32", (-1, 3))),
        max_batch_size=4,
    )
    assert client.metadata("arithmetic") is metadata
    assert client.metadata("arithmetic", model_version="1") == metadata


@pytest.mark.parametrize(
    ("model", "version", "fix"),
    [
        ("arithmetc", "", "did you mean arithmetic?"),
        ("ARITH", "", "did you mean arithmetic?"),
        ("arithmetic", "9", "the server has version 1 of arithmetic; leave model_version= out for the newest"),
        ("qqqqqq", "", "check the name and the version against the server's model repository"),
    ],
)
def test_a_model_that_is_not_there_is_answered_with_the_one_that_was_meant(
    noting: Connect, operations: list[str], model: str, version: str, fix: str
) -> None:
    declared = [ModelMetadata(model)]
    for client, first in ((noting(), "metadata"), (noting(models=declared), "infer")):
        operations.clear()
        with pytest.raises(ModelNotFound) as caught:
            client.infer(model, {"left": ONE, "right": ONE}, model_version=version)
        assert caught.value.fix == fix
        assert [name for name in operations if name != "extensions"] == [first, "repository"]
    with pytest.raises(ModelNotFound) as caught:
        client.config(model, model_version=version)
    assert caught.value.fix == fix
    assert client.model_ready(model, model_version=version) is False


def test_metadata_says_which_inputs_are_optional(client: Client) -> None:
    assert all(spec.optional for spec in client.metadata("identity").inputs)


def test_statistics_count_samples_and_runs(client: Client) -> None:
    (before,) = client.statistics("arithmetic")
    two = np.ones((2, 3), np.float32)
    client.infer("arithmetic", left=two, right=two)
    # The server counts a request a moment after it answered it.
    wait_until(lambda: client.statistics("arithmetic")[0].success.count > before.success.count)
    (after,) = client.statistics("arithmetic", model_version="1")
    assert (after.name, after.version) == ("arithmetic", "1")
    assert after.inference_count - before.inference_count == 2
    assert after.execution_count - before.execution_count == 1
    assert after.success.count - before.success.count == 1
    assert after.compute_infer.total_ns > before.compute_infer.total_ns
    assert after.executions_by_batch_size[2] - before.executions_by_batch_size.get(2, 0) == 1
    assert after.average_batch_size == after.inference_count / after.execution_count


REFUSED: dict[str, Refusal] = {
    "a version that is no number": (
        InvalidInput, "'x' is not a version", lambda c: c.metadata("arithmetic", model_version="x"),
    ),
    "statistics of an unknown model": (ModelNotFound, "absent", lambda c: c.statistics("absent")),
    "unequal batches": (
        InvalidInput, "left: 1, right: 2",
        lambda c: c.infer("arithmetic", left=ONE, right=np.ones((2, 3), np.float32)),
    ),
    "batch over the limit": (
        InvalidInput, "is a batch of 5: expected 1 to 4",
        lambda c: c.infer("arithmetic", left=np.ones((5, 3), np.float32), right=np.ones((5, 3), np.float32)),
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", REFUSED)
def test_the_same_fault_is_the_same_error(client: Client, case: str) -> None:
    assert_refused(client, REFUSED[case])


def test_an_unloaded_model_is_not_ready_until_it_is_loaded_again(client: Client, url: str, connect: Connect) -> None:
    client.infer("reloaded", left=ONE, right=ONE)
    client.unload("reloaded")
    wait_until(lambda: not client.model_ready("reloaded"))
    try:
        with pytest.raises(ModelNotReady):
            client.infer("reloaded", left=ONE, right=ONE)
        with pytest.raises(ModelNotReady):
            client.statistics("reloaded")
        with pytest.raises(ModelNotReady):
            connect(url).metadata("reloaded")
    finally:
        client.load("reloaded")
    np.testing.assert_array_equal(client.infer("reloaded", left=ONE, right=ONE)["sum"], ONE + ONE)


def test_a_reloaded_model_is_looked_at_again(
    client: Client, resize: Callable[[int], None], url: str, connect: Connect
) -> None:
    five = np.ones((1, 5), np.float32)
    client.infer("reloaded", left=ONE, right=ONE)
    other = connect(url)
    other.metadata("reloaded")
    resize(5)
    try:
        # The cached metadata forbids this input; the server would take it.
        assert client.infer("reloaded", left=five, right=five)["sum"].shape == (1, 5)
        # The cached metadata allows this input; the server refuses it.
        with pytest.raises(InvalidInput, match=r"expected FP32 \[-1, 5\], given FP32 \[1, 3\]"):
            other.infer("reloaded", left=ONE, right=ONE)
        assert other.metadata("reloaded").inputs[0].shape == (-1, 5)
    finally:
        resize(3)


def test_a_full_queue_says_so(url: str, connect: Connect) -> None:
    client = connect(url, retry=None)

    def send(_: int) -> str:
        try:
            client.infer("queue", {"timeout": 0.1})
        except TritonkitClientError as error:
            return type(error).__name__
        return "served"

    client.metadata("queue")
    with ThreadPoolExecutor(6) as pool:
        results = list(pool.map(send, range(6)))
    assert "served" in results
    assert QueueFull.__name__ in results
    assert set(results) <= {"served", QueueFull.__name__}


def test_a_request_that_waits_too_long_in_the_queue_finds_the_server_busy(url: str, connect: Connect) -> None:
    client = connect(url, retry=None)
    client.metadata("impatient")
    with ThreadPoolExecutor(1) as pool:
        running = pool.submit(client.infer, "impatient", {"timeout": 0.8})
        time.sleep(0.1)
        with pytest.raises(ServerBusy) as caught:
            client.infer("impatient", {"timeout": 0.01})
        running.result()
    assert type(caught.value) is ServerBusy


def wait_until(holds: Callable[[], bool]) -> None:
    end = time.monotonic() + 5
    while not holds():
        assert time.monotonic() < end, "the server did not follow"
        time.sleep(0.02)
