"""What a client promises, {blocking, asynchronous} × {gRPC, HTTP} alike, with real servers of three kinds.

What only Triton has is in test_triton.py. Where another server's protocol is poorer, `Peer` below says how.
"""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import kserveserver
import mlserver
import numpy as np
import numpy.typing as npt
import pytest
from refusals import Refusal, assert_refused
from tensorsamples import SAMPLES, assert_identical

from tritonkit_client import (
    Client,
    ClientClosed,
    DeadlineExceeded,
    InvalidInput,
    ModelNotFound,
    ServerError,
)

Array = npt.NDArray[Any]
Connect = Callable[..., Client]


ONE = np.ones((1, 3), np.float32)


@dataclass(frozen=True)
class Peer:
    """A server, over one protocol.

    Attributes:
        which: Triton, MLServer or KServe's.
        protocol: ``grpc`` or ``http``.
    """

    url: str
    which: str
    protocol: str

    @property
    def triton(self) -> bool:
        """Whether it has all of the protocol's extensions."""
        return self.which == "triton"

    @property
    def datatypes(self) -> tuple[str, ...]:
        """The datatypes that its codecs know."""
        return {"mlserver": mlserver.DATATYPES, "kserve": kserveserver.DATATYPES}.get(self.which, tuple(SAMPLES))

    @property
    def text_only(self) -> bool:
        """Whether strings travel as JSON: only bytes that are text can."""
        return not self.triton and self.protocol == "http"

    def identity(self, datatype: str = "") -> str:
        """The model that returns its inputs; only Triton has optional inputs, so others have a model for each type."""
        if datatype and datatype not in self.datatypes:
            pytest.skip(f"{self.which} has no {datatype}")
        return f"identity_{datatype}" if datatype and not self.triton else "identity"

    def sample(self, datatype: str) -> Array:
        """Values of a type, extreme ones where the protocol has them."""
        if self.which == "mlserver" and self.protocol == "http" and datatype.startswith("FP"):  # as JSON
            return SAMPLES[datatype][:1]
        if self.text_only and datatype == "BYTES":
            return np.array([[b"", b"plain", "größe 😀".encode(), b"x" * 70_000]], dtype=object)
        return SAMPLES[datatype]


@pytest.fixture(params=["triton-grpc", "triton-http", "mlserver-grpc", "mlserver-http", "kserve-grpc", "kserve-http"])
def peer(request: pytest.FixtureRequest) -> Peer:
    which, protocol = request.param.split("-")
    server = request.getfixturevalue("server" if which == "triton" else which)
    return Peer(getattr(server, f"{protocol}_url"), which, protocol)


@pytest.fixture
def url(peer: Peer) -> str:
    return peer.url


@pytest.mark.parametrize("datatype", SAMPLES)
def test_every_datatype_comes_back_bit_for_bit(client: Client, peer: Peer, datatype: str) -> None:
    sample = peer.sample(datatype)
    out = client.infer(peer.identity(datatype), {f"in_{datatype}": sample})
    assert list(out) == [f"out_{datatype}"]
    assert_identical(out[f"out_{datatype}"], sample)


def test_all_datatypes_fit_in_one_request_whatever_their_alignment(client: Client, peer: Peer) -> None:
    samples = {name: peer.sample(name) for name in peer.datatypes}
    out = client.infer(peer.identity(), {f"in_{name}": sample for name, sample in samples.items()})
    assert len(out) == len(samples)
    for name, sample in samples.items():
        assert_identical(out[f"out_{name}"], sample)
        assert out[f"out_{name}"].flags.aligned


@pytest.mark.parametrize("datatype", ["FP32", "INT64", "BYTES"])
def test_empty_tensors_keep_their_shape(client: Client, peer: Peer, datatype: str) -> None:
    empty = np.empty((0, 3), SAMPLES[datatype].dtype)
    assert_identical(client.infer(peer.identity(datatype), {f"in_{datatype}": empty})[f"out_{datatype}"], empty)


def test_strided_transposed_and_big_endian_arrays_are_sent_by_value(client: Client, peer: Peer) -> None:
    base = np.arange(24, dtype=np.float32).reshape(4, 6)
    for array in (base[::2, 1::2], base.T, base[::-1], base.astype(">f4")):
        out = client.infer(peer.identity("FP32"), in_FP32=array)["out_FP32"]
        np.testing.assert_array_equal(out, array)
        assert out.dtype == np.float32


def test_tensors_far_over_grpcs_default_limit_pass(client: Client, peer: Peer) -> None:
    if not peer.triton:
        pytest.skip("24 MB as JSON, or over the server's own limit of a gRPC message")
    array = np.random.default_rng(0).integers(0, 255, (3, 8_000_000), dtype=np.uint8)
    assert_identical(client.infer("identity", in_UINT8=array)["out_UINT8"], array)


def test_results_are_read_only_views(client: Client, peer: Peer) -> None:
    for datatype, value in (("FP32", ONE), ("BYTES", [[b"a"]])):
        out = client.infer(peer.identity(datatype), {f"in_{datatype}": value})[f"out_{datatype}"]
        with pytest.raises(ValueError, match="read-only"):
            out[0] = out[0]


def test_plain_python_values_are_accepted(client: Client, peer: Peer) -> None:
    last = b"plain" if peer.text_only else b"\xff"
    values: dict[str, tuple[Any, Array]] = {
        "BYTES": ([["größe", last]], np.array([["größe".encode(), last]], dtype=object)),
        "INT8": ([[1, -2]], np.array([[1, -2]], np.int8)),
        "FP32": ([[1, 0.5]], np.array([[1, 0.5]], np.float32)),
        "BOOL": (True, np.array([[True]])),
    }
    for datatype, (value, want) in values.items():
        out = client.infer(peer.identity(datatype), {f"in_{datatype}": value})
        assert_identical(out[f"out_{datatype}"], want)


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


def test_a_running_server_is_live_and_ready(client: Client, peer: Peer) -> None:
    assert client.live()
    assert client.ready()
    assert client.model_ready("arithmetic")
    if peer.triton:  # the others' models have no version here
        assert client.model_ready("arithmetic", model_version="1")
    if peer.which != "kserve":  # KServe's server has no versions at all
        assert not client.model_ready("arithmetic", model_version="9")
    assert not client.model_ready("absent")


REFUSED: dict[str, Refusal] = {
    "unknown model": (ModelNotFound, "absent.*(not found|does not exist)", lambda c: c.infer("absent", x=ONE)),
    "unknown version": (
        ModelNotFound, "version 9", lambda c: c.infer("arithmetic", left=ONE, right=ONE, model_version="9"),
    ),
    "metadata of an unknown model": (ModelNotFound, "absent", lambda c: c.metadata("absent")),
    "no model name": (InvalidInput, "no name", lambda c: c.model_ready("")),
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
    "error inside the model": (
        ServerError, "sleep length must be non-negative|the server failed", lambda c: c.infer("sleep", {"timeout": -1.0}),
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", REFUSED)
def test_the_same_fault_is_the_same_error(client: Client, peer: Peer, case: str) -> None:
    if case == "unknown version" and peer.which == "kserve":
        pytest.skip("it has no versions")
    assert_refused(client, REFUSED[case])


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


def test_a_call_never_waits_longer_than_its_timeout(client: Client) -> None:
    client.metadata("sleep")
    started = time.monotonic()
    with pytest.raises(DeadlineExceeded, match=r"timeout=0\.2 s"):
        client.infer("sleep", {"timeout": 1.0}, timeout=0.2)
    assert 0.2 <= time.monotonic() - started < 0.9


def test_a_call_without_a_limit_waits_for_its_answer(client: Client) -> None:
    assert client.infer("sleep", {"timeout": 0.3}, timeout=math.inf)["slept"].shape == (1, 1)


@pytest.mark.parametrize("timeout", [0, -1, math.nan, "1"])
def test_a_timeout_that_is_no_time_is_refused(client: Client, timeout: Any) -> None:
    with pytest.raises(InvalidInput, match="not a positive number"):
        client.live(timeout=timeout)


def test_many_samples_are_answered_in_order(client: Client) -> None:
    samples = [{"left": np.full((1, 3), number, np.float32), "right": ONE} for number in range(24)]
    outs = client.infer_many("arithmetic", samples, max_in_flight=8)
    assert [int(out["difference"][0, 0]) for out in outs] == list(range(-1, 23))


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
