"""What a client promises, {blocking, asynchronous} × {gRPC, HTTP} alike, against a real Triton."""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import ml_dtypes
import numpy as np
import numpy.typing as npt
import pytest

from tritonkit_client import (
    Client,
    ClientClosed,
    DeadlineExceeded,
    InvalidInput,
    ModelMetadata,
    ModelNotFound,
    ModelNotReady,
    QueueFull,
    ServerBusy,
    ServerError,
    TensorSpec,
    TritonkitClientError,
)

Array = npt.NDArray[Any]
Connect = Callable[..., Client]


def extremes(dtype: npt.DTypeLike) -> Array:
    limits = np.iinfo(dtype)
    return np.array([[limits.min, 0, limits.max]], dtype=dtype)


FLOATS = [[-1.5, 0.0, 65504.0], [math.inf, -math.inf, math.nan]]
SAMPLES: dict[str, Array] = {
    "BOOL": np.array([[True, False, True]]),
    **{f"INT{8 * size}": extremes(f"i{size}") for size in (1, 2, 4, 8)},
    **{f"UINT{8 * size}": extremes(f"u{size}") for size in (1, 2, 4, 8)},
    **{f"FP{8 * size}": np.array(FLOATS, dtype=f"f{size}") for size in (2, 4, 8)},
    "BF16": np.array(FLOATS, dtype=ml_dtypes.bfloat16),
    "BYTES": np.array([[b"", b"plain", "größe 😀".encode(), b"\0nul\0", b"x" * 70_000]], dtype=object),
}
ONE = np.ones((1, 3), np.float32)


def assert_identical(got: Array, want: Array) -> None:
    assert got.dtype == want.dtype
    assert got.shape == want.shape
    if want.dtype == object:
        assert got.tolist() == want.tolist()
    else:
        assert got.tobytes() == want.tobytes()


@pytest.mark.parametrize("datatype", SAMPLES)
def test_every_datatype_comes_back_bit_for_bit(client: Client, datatype: str) -> None:
    out = client.infer("identity", {f"in_{datatype}": SAMPLES[datatype]})
    assert list(out) == [f"out_{datatype}"]
    assert_identical(out[f"out_{datatype}"], SAMPLES[datatype])


def test_all_datatypes_fit_in_one_request_whatever_their_alignment(client: Client) -> None:
    out = client.infer("identity", {f"in_{name}": sample for name, sample in SAMPLES.items()})
    assert len(out) == len(SAMPLES)
    for name, sample in SAMPLES.items():
        assert_identical(out[f"out_{name}"], sample)
        assert out[f"out_{name}"].flags.aligned


@pytest.mark.parametrize("datatype", ["FP32", "INT64", "BYTES"])
def test_empty_tensors_keep_their_shape(client: Client, datatype: str) -> None:
    empty = np.empty((0, 3), SAMPLES[datatype].dtype)
    assert_identical(client.infer("identity", {f"in_{datatype}": empty})[f"out_{datatype}"], empty)


def test_strided_transposed_and_big_endian_arrays_are_sent_by_value(client: Client) -> None:
    base = np.arange(24, dtype=np.float32).reshape(4, 6)
    for array in (base[::2, 1::2], base.T, base[::-1], base.astype(">f4")):
        out = client.infer("identity", in_FP32=array)["out_FP32"]
        np.testing.assert_array_equal(out, array)
        assert out.dtype == np.float32


def test_tensors_far_over_grpcs_default_limit_pass(client: Client) -> None:
    array = np.random.default_rng(0).integers(0, 255, (3, 8_000_000), dtype=np.uint8)
    assert_identical(client.infer("identity", in_UINT8=array)["out_UINT8"], array)


def test_results_are_read_only_views(client: Client) -> None:
    for out in client.infer("identity", in_FP32=ONE, in_BYTES=[[b"a"]]).values():
        with pytest.raises(ValueError, match="read-only"):
            out[0] = out[0]


def test_plain_python_values_are_accepted(client: Client) -> None:
    texts: list[list[str | bytes]] = [["größe", b"\xff"]]
    out = client.infer("identity", in_BYTES=texts, in_INT8=[[1, -2]], in_FP16=[[1, 0.5]], in_BOOL=True)
    assert out["out_BYTES"].tolist() == [["größe".encode(), b"\xff"]]
    assert_identical(out["out_INT8"], np.array([[1, -2]], np.int8))
    assert_identical(out["out_FP16"], np.array([[1, 0.5]], np.float16))
    assert_identical(out["out_BOOL"], np.array([[True]]))


def test_a_batch_of_two_inputs_gives_both_outputs(client: Client) -> None:
    left = np.array([[1, 2, 3], [4, 5, 6]], np.float32)
    right = np.array([[1, 1, 1], [2, 2, 2]], np.float32)
    out = client.infer("arithmetic", right=right, left=left)
    assert list(out) == ["sum", "difference"]
    np.testing.assert_array_equal(out["sum"], left + right)
    np.testing.assert_array_equal(out["difference"], left - right)


def test_only_the_outputs_asked_for_come_back(client: Client) -> None:
    out = client.infer("arithmetic", left=ONE, right=ONE, outputs=["difference"])
    assert list(out) == ["difference"]


def test_an_input_called_like_an_argument_goes_into_the_mapping(client: Client) -> None:
    out = client.infer("sleep", {"timeout": 0.01}, timeout=5)
    np.testing.assert_array_equal(out["slept"], np.array([[0.01]], np.float32))


def test_mapping_and_keywords_may_be_mixed_but_not_repeated(client: Client) -> None:
    np.testing.assert_array_equal(client.infer("arithmetic", {"left": ONE}, right=ONE)["sum"], ONE + ONE)
    with pytest.raises(InvalidInput, match="'left' is given twice"):
        client.infer("arithmetic", {"left": ONE}, left=ONE, right=ONE)


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


def test_metadata_says_which_inputs_are_optional(client: Client) -> None:
    assert all(spec.optional for spec in client.metadata("identity").inputs)


def test_a_running_server_is_live_and_ready(client: Client) -> None:
    assert client.live()
    assert client.ready()
    assert client.model_ready("arithmetic")
    assert client.model_ready("arithmetic", model_version="1")
    assert not client.model_ready("arithmetic", model_version="9")
    assert not client.model_ready("absent")


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


REFUSED: dict[str, tuple[type[TritonkitClientError], str, Callable[[Client], object]]] = {
    "unknown model": (ModelNotFound, "'absent' is not found", lambda c: c.infer("absent", x=ONE)),
    "unknown version": (
        ModelNotFound, "version 9", lambda c: c.infer("arithmetic", left=ONE, right=ONE, model_version="9"),
    ),
    "metadata of an unknown model": (ModelNotFound, "absent", lambda c: c.metadata("absent")),
    "statistics of an unknown model": (ModelNotFound, "absent", lambda c: c.statistics("absent")),
    "a version that is no number": (InvalidInput, "'x' is not a version", lambda c: c.metadata("identity",
    model_version="x")), "no model name": (InvalidInput, "no name", lambda c: c.model_ready("")),
    "wrong input name": (
        InvalidInput, "has no input 'rigth'.*\n.*did you mean 'right'",
        lambda c: c.infer("arithmetic", left=ONE, rigth=ONE),
    ),
    "missing input": (
        InvalidInput, r"'right': expected FP32 \[-1, 3\], given nothing", lambda c: c.infer("arithmetic", left=ONE),
    ),
    "wrong dtype": (
        InvalidInput, r"expected FP32 \[-1, 3\], given FP64 \[1, 3\].*\n.*left\.astype\(np\.float32\)",
        lambda c: c.infer("arithmetic", left=ONE.astype(np.float64), right=ONE),
    ),
    "wrong shape": (
        InvalidInput, r"dimension 1 is 4, not 3; expected FP32 \[-1, 3\], given FP32 \[1, 4\]",
        lambda c: c.infer("arithmetic", left=np.ones((1, 4), np.float32), right=ONE),
    ),
    "wrong output name": (
        InvalidInput, "has no output 'summ'.*\n.*did you mean 'sum'",
        lambda c: c.infer("arithmetic", left=ONE, right=ONE, outputs=["summ"]),
    ),
    "unequal batches": (
        InvalidInput, "left: 1, right: 2",
        lambda c: c.infer("arithmetic", left=ONE, right=np.ones((2, 3), np.float32)),
    ),
    "batch over the limit": (
        InvalidInput, "is a batch of 5: expected 1 to 4",
        lambda c: c.infer("arithmetic", left=np.ones((5, 3), np.float32), right=np.ones((5, 3), np.float32)),
    ),
    "error inside the model": (
        ServerError, "sleep length must be non-negative", lambda c: c.infer("sleep", {"timeout": -1.0}),
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", REFUSED)
def test_the_same_fault_is_the_same_error(client: Client, case: str) -> None:
    kind, words, call = REFUSED[case]
    with pytest.raises(TritonkitClientError, match=words) as caught:
        call(client)
    assert type(caught.value) is kind


def test_an_error_carries_its_endpoint_model_and_request(client: Client, url: str) -> None:
    with pytest.raises(ServerError) as caught:
        client.infer("sleep", {"timeout": -1.0}, request_id="mine")
    assert (caught.value.endpoint, caught.value.model, caught.value.request_id) == (url, "sleep", "mine")
    assert f"model sleep, request mine, at {url}" in str(caught.value)


def test_requests_are_numbered_when_the_caller_does_not(client: Client) -> None:
    ids = set()
    for _ in range(2):
        with pytest.raises(ServerError) as caught:
            client.infer("sleep", {"timeout": -1.0})
        ids.add(caught.value.request_id)
    assert len(ids - {""}) == 2


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
        # What it remembers forbids this input; the server would take it.
        assert client.infer("reloaded", left=five, right=five)["sum"].shape == (1, 5)
        # What it remembers allows this input; the server refuses it.
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


def test_a_call_never_waits_longer_than_its_timeout(client: Client) -> None:
    client.metadata("sleep")
    started = time.monotonic()
    with pytest.raises(DeadlineExceeded, match=r"timeout=0\.2 s"):
        client.infer("sleep", {"timeout": 0.5}, timeout=0.2)
    assert 0.2 <= time.monotonic() - started < 0.35


def test_a_call_without_a_limit_waits_for_its_answer(client: Client) -> None:
    assert client.infer("sleep", {"timeout": 0.3}, timeout=math.inf)["slept"].shape == (1, 1)


@pytest.mark.parametrize("timeout", [0, -1, math.nan, "1"])
def test_a_timeout_that_is_no_time_is_refused(client: Client, timeout: Any) -> None:
    with pytest.raises(InvalidInput, match="not a positive number"):
        client.live(timeout=timeout)


def test_a_client_is_shared_between_threads(client: Client) -> None:
    barrier = threading.Barrier(16)

    def work(number: int) -> bool:
        barrier.wait()
        array = np.full((1, 3), number, np.float32)
        return all(
            np.array_equal(client.infer("arithmetic", left=array, right=array)["sum"], 2 * array) for _ in range(8)
        )

    with ThreadPoolExecutor(16) as pool:
        assert all(pool.map(work, range(16)))


def test_a_closed_client_says_so(url: str, connect: Connect) -> None:
    client = connect(url)
    assert client.live()
    client.close()
    client.close()
    for call in (client.live, lambda: client.infer("arithmetic", left=ONE, right=ONE)):
        with pytest.raises(ClientClosed):
            call()


def test_proxies_in_the_environment_are_not_used(url: str, connect: Connect, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("http_proxy", "grpc_proxy", "https_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:1")
    for name in ("no_proxy", "NO_PROXY", "no_grpc_proxy"):
        monkeypatch.delenv(name, raising=False)
    assert connect(url).live()


def wait_until(holds: Callable[[], bool]) -> None:
    end = time.monotonic() + 5
    while not holds():
        assert time.monotonic() < end, "the server did not follow"
        time.sleep(0.02)
