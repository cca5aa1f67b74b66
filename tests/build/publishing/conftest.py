"""A real S3 server on loopback, a bucket for each test, and a small repository that Triton serves."""

from __future__ import annotations

import contextlib
import io
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import boto3  # type: ignore[import-untyped]
import pytest
from moto.server import ThreadedMotoServer
from s3store import KEYS, Bucket
from support import Project

TENSORS = 'input { name: "x" data_type: TYPE_FP32 dims: 1 }\noutput { name: "y" data_type: TYPE_FP32 dims: 1 }\n'
MODEL = """
import triton_python_backend_utils as u

class TritonPythonModel:
    def execute(self, requests):
        inputs = [u.get_input_tensor_by_name(request, "x").as_numpy() for request in requests]
        return [u.InferenceResponse([u.Tensor("y", x * {factor})]) for x in inputs]
"""


@pytest.fixture(scope="session")
def endpoint() -> Iterator[str]:
    """The server's URL."""
    with contextlib.redirect_stdout(io.StringIO()):
        server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
        server.start()
        host, port = server.get_host_and_port()
    yield f"http://{host}:{port}"
    server.stop()


@pytest.fixture
def bucket(endpoint: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[Bucket]:
    """An empty bucket, and the right keys in the environment."""
    for name, value in KEYS.items():
        monkeypatch.setenv(name, value)
    client = boto3.client("s3", endpoint_url=endpoint)
    client.create_bucket(Bucket="models")
    yield Bucket(client, endpoint, "models")
    urllib.request.urlopen(urllib.request.Request(f"{endpoint}/moto-api/reset", method="POST")).close()
    client.close()


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    """A model that doubles, and an ensemble of it, whose version folder is empty."""
    place = tmp_path / "model_repository"
    (place / "double/1").mkdir(parents=True)
    (place / "double/1/model.py").write_text(MODEL.format(factor=2))
    (place / "double/config.pbtxt").write_text('backend: "python"\n' + TENSORS)
    (place / "whole/1").mkdir(parents=True)
    (place / "whole/config.pbtxt").write_text(
        'platform: "ensemble"\n' + TENSORS + "ensemble_scheduling { step { model_name: 'double' model_version: -1\n"
        "  input_map { key: 'x' value: 'x' } output_map { key: 'y' value: 'y' } } }\n"
    )
    return place


@pytest.fixture
def run(project: Project, bucket: Bucket) -> Callable[..., tuple[int, str, str]]:
    """One command against the S3 server: exit code, output, errors."""

    def command(*arguments: Any) -> tuple[int, str, str]:
        return project.run(*arguments, "--endpoint-url", bucket.endpoint)

    return command
