"""A project to deploy, an API server in memory, and the command: fixtures of the tests of `make deploy`."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import onnx
import pytest
import yaml
from fakecluster.server import running
from fakecluster.state import ApiServer
from onnx import TensorProto, helper

from tritonkit import cli
from tritonkit.deploying import environment, models
from tritonkit.kubetools import binaries

Run = Callable[..., tuple[int, str]]
CHART = Path(__file__).parents[1] / "helm/tritonkit"
HERE = ("--kube-context=here", "--namespace=inference")
VALUES = {
    "accelerator": {"kind": "cpu"},
    "models": {"pvc": {"claimName": "models"}},
    "tools": {"image": {"repository": "registry.example.com/tritonkit"}},
}


@pytest.fixture
def api() -> Iterator[ApiServer]:
    with running() as state:
        state.add(
            {"apiVersion": "v1", "kind": "Namespace",
             "metadata": {"name": "inference", "labels": {"pod-security.kubernetes.io/enforce": "restricted"}}},
            {"apiVersion": "v1", "kind": "PersistentVolumeClaim", "metadata": {"name": "models", "namespace": "inference"}},
        )  # fmt: skip
        yield state


def kubeconfig(path: Path, url: str) -> Path:
    config = {
        "apiVersion": "v1", "kind": "Config", "current-context": "another",
        "contexts": [{"name": name, "context": {"cluster": name, "user": "me"}} for name in ("here", "another")],
        "clusters": [{"name": "here", "cluster": {"server": url}},
                     {"name": "another", "cluster": {"server": "http://127.0.0.1:1"}}],
        "users": [{"name": "me", "user": {}}],
    }  # fmt: skip
    path.write_text(yaml.safe_dump(config), encoding="utf-8")
    return path


@pytest.fixture(scope="session")
def tools() -> str:
    """Folders of helm and kubectl, found before HOME is another one."""
    return f"{binaries.helm().parent}:{binaries.kubectl().parent}"


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, tools: str) -> Path:
    """A project with one model, an environment, and no cluster."""
    monkeypatch.setenv("KUBECONFIG", str(tmp_path / "kubeconfig"))
    monkeypatch.setenv("COLUMNS", "300")
    monkeypatch.setenv("PATH", f"{tools}:{os.environ['PATH']}")
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("MAKELEVEL", "1")  # as under make
    model(tmp_path, "1.0")
    (tmp_path / "helm").mkdir()
    (tmp_path / "helm/tritonkit").symlink_to(CHART)
    write(tmp_path)
    return tmp_path


def model(project: Path, weight: str) -> None:
    place = project / "model_repository/net/1"
    place.mkdir(parents=True, exist_ok=True)
    values = [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["batch", 4]) for name in "xy"]
    held = helper.make_tensor("w", TensorProto.FLOAT, [1], [float(weight)])
    graph = helper.make_graph([helper.make_node("Mul", ["x", "w"], ["y"])], "g", values[:1], values[1:], [held])
    onnx.save(
        helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10), place / "model.onnx"
    )
    text = 'name: "net" backend: "onnxruntime" max_batch_size: 8 input { name: "x" data_type: TYPE_FP32 dims: 4 } '
    text += 'output { name: "y" data_type: TYPE_FP32 dims: 4 } instance_group { kind: KIND_CPU }'
    (place.parent / "config.pbtxt").write_text(text, encoding="utf-8")


def write(project: Path, values: dict[str, Any] | None = None, **changes: Any) -> None:
    settings = {"context": "here", "namespace": "inference", "release": "triton", "publish": f"file://{project}/store"}
    text = yaml.safe_dump({"deploy": settings | changes, "values": VALUES | (values or {})})
    (project / "prod.yaml").write_text(text, encoding="utf-8")


@pytest.fixture
def run(project: Path, capfd: pytest.CaptureFixture[str]) -> Run:
    def command(verb: str, *arguments: str) -> tuple[int, str]:
        capfd.readouterr()
        back = ["--rollback"] if verb == "rollback" else []
        code = cli.main(["deploy", str(project / "prod.yaml"), "--project", str(project), *back, *arguments])
        output = capfd.readouterr()
        return code, output.out + output.err

    return command


@pytest.fixture
def cluster(project: Path, api: ApiServer) -> ApiServer:
    kubeconfig(project / "kubeconfig", api.url)
    return api


def version(project: Path) -> str:
    return models.find(environment.load(str(project / "prod.yaml"), project), project).version
