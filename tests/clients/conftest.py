"""Real servers with a small model for each behaviour, and a client for each protocol."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import blocking
import kserveserver
import mlserver as mlserver_
import pytest
from models import add_model, arithmetic_config, write_models
from otherserver import OtherServer
from textmodels import text_models
from tritonclient.grpc import InferenceServerClient

from tritonkit.server import TritonServer
from tritonkit_client import Client

Connect = Callable[..., Client]


@pytest.fixture(scope="session")
def repository(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("repository")
    write_models(folder)
    for name, (code, config) in text_models().items():
        add_model(folder, name, code, config)
    return folder


@pytest.fixture(scope="session")
def server(repository: Path) -> Iterator[TritonServer]:
    arguments = ("--model-control-mode=explicit", "--load-model=*", "--http-header-forward-pattern=.*",
                 "--grpc-header-forward-pattern=.*")  # fmt: skip
    with TritonServer(repository, arguments=arguments, exit_timeout_s=1) as running:
        yield running


@pytest.fixture(scope="session")
def mlserver(tmp_path_factory: pytest.TempPathFactory) -> Iterator[OtherServer]:
    with mlserver_.running(tmp_path_factory.mktemp("mlserver")) as server:
        yield server


@pytest.fixture(scope="session")
def kserve(tmp_path_factory: pytest.TempPathFactory) -> Iterator[OtherServer]:
    with kserveserver.running(tmp_path_factory.mktemp("kserve")) as server:
        yield server


@pytest.fixture(scope="session")
def admin(server: TritonServer) -> Iterator[InferenceServerClient]:
    """Triton's own client, to load and unload models."""
    with InferenceServerClient(server.grpc_url.removeprefix("grpc://")) as client:
        yield client


@pytest.fixture(params=["grpc", "http"])
def url(request: pytest.FixtureRequest, server: TritonServer) -> str:
    address: str = server.grpc_url if request.param == "grpc" else server.http_url
    return address


@pytest.fixture(params=["sync", "async"])
def connect(request: pytest.FixtureRequest) -> Iterator[Connect]:
    """Makes blocking clients, or asynchronous ones that block, and closes them."""
    with ExitStack() as stack:
        kind: Connect = Client if request.param == "sync" else blocking.client

        def make(endpoint: str, **options: Any) -> Client:
            return stack.enter_context(kind(endpoint, **options))

        yield make


@pytest.fixture
def client(url: str, connect: Connect) -> Client:
    return connect(url, timeout=10)


@pytest.fixture
def operations() -> list[str]:
    """The operations of `noting`'s clients."""
    return []


@pytest.fixture
def noting(url: str, connect: Connect, operations: list[str]) -> Connect:
    """Makes clients that note their operations."""
    hooks = {"request": [lambda event: operations.append(event.operation)]}

    def make(endpoint: str = url, **options: Any) -> Client:
        return connect(endpoint, timeout=10, event_hooks=hooks, **options)

    return make


@pytest.fixture
def resize(repository: Path, admin: InferenceServerClient) -> Callable[[int], None]:
    """Rewrite and reload the model `reloaded` with samples of another size."""

    def rewrite(size: int) -> None:
        (repository / "reloaded/config.pbtxt").write_text(arithmetic_config(size))
        admin.load_model("reloaded")

    return rewrite


@pytest.fixture
def small_repository(tmp_path: Path) -> Path:
    """A repository on which a test may start a server of its own."""
    write_models(tmp_path, "arithmetic")
    return tmp_path
