"""One real server with a small model for each behaviour, and a client for each protocol."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from tritonclient.grpc import InferenceServerClient

from tritonkit.server import TritonServer
from tritonkit_client import Client

DATATYPES = (
    "BOOL", "INT8", "INT16", "INT32", "INT64", "UINT8", "UINT16", "UINT32", "UINT64", "FP16", "FP32", "FP64",
    "BF16", "BYTES",
)  # fmt: skip

# Returns every input that it gets: `in_FP32` as `out_FP32`. BF16 has no numpy type inside the server.
IDENTITY = """
import triton_python_backend_utils as pb_utils

def same(tensor):
    name = tensor.name().replace("in_", "out_")
    if tensor.name() == "in_BF16":
        return pb_utils.Tensor.from_dlpack(name, tensor.to_dlpack())
    return pb_utils.Tensor(name, tensor.as_numpy())

class TritonPythonModel:
    def execute(self, requests):
        return [pb_utils.InferenceResponse([same(t) for t in request.inputs()]) for request in requests]
"""

ARITHMETIC = """
import triton_python_backend_utils as pb_utils

class TritonPythonModel:
    def execute(self, requests):
        responses = []
        for request in requests:
            left, right = (
                pb_utils.get_input_tensor_by_name(request, name).as_numpy() for name in ("left", "right")
            )
            outputs = [pb_utils.Tensor("sum", left + right), pb_utils.Tensor("difference", left - right)]
            responses.append(pb_utils.InferenceResponse(outputs))
        return responses
"""

ZEROS = """
import numpy as np
import triton_python_backend_utils as pb_utils

class TritonPythonModel:
    def execute(self, requests):
        zeros = pb_utils.Tensor("logits", np.zeros((1, 1000), np.float32))
        return [pb_utils.InferenceResponse([zeros]) for _ in requests]
"""

# Sleeps for as long as its input `timeout` says; a negative time is an error inside the model.
SLEEP = """
import time
import triton_python_backend_utils as pb_utils

class TritonPythonModel:
    def execute(self, requests):
        responses = []
        for request in requests:
            seconds = pb_utils.get_input_tensor_by_name(request, "timeout").as_numpy()
            time.sleep(float(seconds.flat[0]))
            responses.append(pb_utils.InferenceResponse([pb_utils.Tensor("slept", seconds)]))
        return responses
"""


def tensor(kind: str, name: str, datatype: str, dims: str, more: str = "") -> str:
    """One input or output of a config.pbtxt."""
    triton = "STRING" if datatype == "BYTES" else datatype
    return f'{kind} {{ name: "{name}" data_type: TYPE_{triton} dims: [{dims}] {more} }}\n'


def arithmetic_config(size: int) -> str:
    """A batching model with two inputs and two outputs of ``size`` elements a sample."""
    sides = "".join(tensor("input", name, "FP32", str(size)) for name in ("left", "right"))
    results = "".join(tensor("output", name, "FP32", str(size)) for name in ("sum", "difference"))
    return f'backend: "python"\nmax_batch_size: 4\n{sides}{results}'


def identity_config() -> str:
    inputs = "".join(tensor("input", f"in_{name}", name, "-1, -1", "optional: true") for name in DATATYPES)
    outputs = "".join(tensor("output", f"out_{name}", name, "-1, -1") for name in DATATYPES)
    return f'backend: "python"\n{inputs}{outputs}'


def sleep_config(more: str = "") -> str:
    sides = tensor("input", "timeout", "FP32", "1") + tensor("output", "slept", "FP32", "1")
    return f'backend: "python"\nmax_batch_size: 1\n{sides}{more}'


def add_model(repository: Path, name: str, code: str, config: str) -> None:
    """Write a model of the Python backend."""
    version = repository / name / "1"
    version.mkdir(parents=True)
    (version / "model.py").write_text(code)
    (repository / name / "config.pbtxt").write_text(config)


def write_repository(repository: Path) -> None:
    """Write every model."""
    add_model(repository, "identity", IDENTITY, identity_config())
    add_model(repository, "arithmetic", ARITHMETIC, arithmetic_config(3))
    add_model(repository, "reloaded", ARITHMETIC, arithmetic_config(3))
    add_model(repository, "sleep", SLEEP, sleep_config())
    # The two that docs/clients.md calls.
    image = tensor("input", "image", "UINT8", "224, 224, 3")
    speech = tensor("input", "timeout", "FP32", "1") + tensor("input", "audio", "FP32", "-1")
    for name, inputs in (("efficientnet_lite0", image), ("speech", speech)):
        logits = tensor("output", "logits", "FP32", "1000")
        add_model(repository, name, ZEROS, f'backend: "python"\nmax_batch_size: 64\n{inputs}{logits}')
    impatient = "timeout_action: REJECT default_timeout_microseconds: 300000"
    for name, policy in (("queue", "max_queue_size: 1"), ("impatient", impatient)):
        batching = f"dynamic_batching {{ default_queue_policy {{ {policy} }} }}"
        add_model(repository, name, SLEEP, sleep_config(batching))


@pytest.fixture(scope="session")
def repository(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("repository")
    write_repository(folder)
    return folder


@pytest.fixture(scope="session")
def server(repository: Path) -> Iterator[TritonServer]:
    arguments = ("--model-control-mode=explicit", "--load-model=*")
    with TritonServer(repository, arguments=arguments, exit_timeout_s=1) as running:
        yield running


@pytest.fixture(scope="session")
def admin(server: TritonServer) -> Iterator[InferenceServerClient]:
    """Triton's own client, to load and unload models."""
    with InferenceServerClient(server.grpc_url.removeprefix("grpc://")) as client:
        yield client


@pytest.fixture(params=["grpc", "http"])
def url(request: pytest.FixtureRequest, server: TritonServer) -> str:
    found: str = server.grpc_url if request.param == "grpc" else server.http_url
    return found


@pytest.fixture
def client(url: str) -> Iterator[Client]:
    with Client(url, timeout=10) as connected:
        yield connected


@pytest.fixture
def resize(repository: Path, admin: InferenceServerClient) -> Callable[[int], None]:
    """Rewrite and reload the model `reloaded` with samples of another size."""

    def rewrite(size: int) -> None:
        (repository / "reloaded/config.pbtxt").write_text(arithmetic_config(size))
        admin.load_model("reloaded")

    return rewrite


@pytest.fixture
def small_repository(tmp_path: Path) -> Path:
    """A repository that a test may start a server of its own on."""
    add_model(tmp_path, "arithmetic", ARITHMETIC, arithmetic_config(3))
    return tmp_path
