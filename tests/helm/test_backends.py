"""Models of `--target cuda` and the image that is to serve them: `make deploy` says before anything is sent."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import deploy
import pytest
import yaml

from deploying import backends, chart, environment, nodes
from kubetools import binaries

CONFIG = """
backend: "%s" max_batch_size: 8 instance_group { kind: KIND_GPU }
input { name: "x" data_type: TYPE_FP32 dims: 4 } output { name: "y" data_type: TYPE_FP32 dims: 4 }
"""
TOOLS = {"image": {"repository": "registry.example.com/tritonkit"}}


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A repository with a model of each backend, and no cluster."""
    tools = f"{binaries.helm().parent}:{binaries.kubectl().parent}"  # found before HOME is another one
    monkeypatch.setenv("KUBECONFIG", str(tmp_path / "kubeconfig"))
    monkeypatch.setenv("PATH", f"{tools}:{os.environ['PATH']}")
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("COLUMNS", "300")
    for name, backend in (("net", "tritonkit_onnxruntime"), ("other", "onnxruntime")):
        place = tmp_path / "model_repository" / name
        (place / "1").mkdir(parents=True)
        (place / "1/model.onnx").write_bytes(b"")
        (place / "config.pbtxt").write_text(CONFIG % backend, encoding="utf-8")
    return tmp_path


def write(project: Path, values: dict[str, Any]) -> str:
    """An environment's file."""
    said = {"context": "here", "namespace": "inference", "release": "triton", "publish": f"file://{project}/store"}
    models = {"pvc": {"claimName": "models"}} | values.pop("models", {})
    text = yaml.safe_dump({"deploy": said, "values": {"tools": TOOLS, "models": models} | values})
    (project / "prod.yaml").write_text(text, encoding="utf-8")
    return str(project / "prod.yaml")


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ({}, [("missing", "nvcr.io/nvidia/tritonserver:26.09-py3 of Deployment triton-tritonkit is NVIDIA's image")]),
        ({"image": {"digest": f"sha256:{'1' * 64}"}}, [("missing", "is NVIDIA's image, which has no such backend")]),
        ({"image": TOOLS["image"] | {"tag": "26.09"}},
         [("unchecked", "registry.example.com/tritonkit:26.09 of Deployment triton-tritonkit has to be an image of build/D")]),
        ({"models": {"names": ["other"]}}, []),
        ({"variants": {"a": {"accelerator": {"products": ["NVIDIA-L4"]}}, "b": {"models": {"names": ["other"]}}}},
         [("missing", "of Deployment triton-tritonkit-a is NVIDIA's image")]),
    ],
    ids=["stock", "digest", "own", "not loaded", "variants"],
)  # fmt: skip
def test_a_model_of_our_backend_needs_an_image_that_has_it(
    project: Path, values: dict[str, Any], expected: list[tuple[str, str]]
) -> None:
    said = environment.load(write(project, dict(values)))
    values_file = project / "values.yaml"
    values_file.write_text(yaml.safe_dump(said.values), encoding="utf-8")
    proved, made = chart.prove(binaries.helm(), "triton", "inference", [values_file], "1.34")
    assert made is not None, [check.text for check in proved]
    found = list(backends.images(said, project, made))
    assert [check.state for check in found] == [state for state, _ in expected]
    for check, (state, words) in zip(found, expected, strict=True):
        assert check.text.startswith("net needs the backend tritonkit_onnxruntime")
        assert words in check.text
        assert ("build build/Dockerfile" in check.fix) == (state == "missing")


class Cluster:
    """Nodes of one product, each with the labels of GPU feature discovery."""

    def __init__(self, *labels: dict[str, str]) -> None:
        self.labels = labels

    def get(self, _kind: str) -> dict[str, Any]:
        ready = {"conditions": [{"type": "Ready", "status": "True"}]}
        product = {nodes.PRODUCT: "NVIDIA-L4"}
        metadata = [{"name": f"gpu-{at}", "labels": product | labels} for at, labels in enumerate(self.labels)]
        return {"items": [{"metadata": entry, "spec": {}, "status": ready} for entry in metadata]}


OLD = {
    "nvidia.com/cuda.driver-version.full": "570.86.10",
    "nvidia.com/gpu.compute.major": "8",
    "nvidia.com/gpu.compute.minor": "9",
}
NEW = OLD | {"nvidia.com/cuda.driver-version.full": "580.95.05"}
VOLTA = NEW | {"nvidia.com/gpu.compute.major": "7", "nvidia.com/gpu.compute.minor": "0"}


@pytest.mark.parametrize(
    ("labels", "expected"),
    [
        ([NEW], []),
        ([{}], []),  # nothing is known of it
        ([OLD], [("missing", "net cannot run on 1 of 1 nodes of Deployment triton-tritonkit: on gpu-0 the driver is 570.86.10")]),
        ([NEW, OLD], [("note", "on 1 of 2 nodes of Deployment triton-tritonkit: on gpu-1 the driver is 570.86.10")]),
        ([{"nvidia.com/cuda.driver.major": "550", "nvidia.com/cuda.driver.minor": "54"}], [("missing", "the driver is 550.54")]),
        ([VOLTA], [("missing", "compute capability 7.0 is below 7.5")]),
    ],
    ids=["new", "unlabelled", "old", "one old", "older labels", "old gpu"],
)  # fmt: skip
def test_nodes_need_a_driver_for_cuda_13(
    project: Path, labels: list[dict[str, str]], expected: list[tuple[str, str]]
) -> None:
    said = environment.load(write(project, {"accelerator": {"products": ["NVIDIA-L4"]}}))
    values_file = project / "values.yaml"
    values_file.write_text(yaml.safe_dump(said.values), encoding="utf-8")
    _, made = chart.prove(binaries.helm(), "triton", "inference", [values_file], "1.34")
    assert made is not None
    found = list(backends.drivers(Cluster(*labels), said, project, made))  # type: ignore[arg-type]
    assert [check.state for check in found] == [state for state, _ in expected]
    for check, (_, words) in zip(found, expected, strict=True):
        assert words in check.text
        assert check.fix


def test_nothing_is_deployed_with_an_image_that_has_not_the_backend(
    project: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    code = deploy.main(["deploy", write(project, {}), "--project", str(project), "--apply"])
    said = capfd.readouterr()
    assert code == 1
    assert "net needs the backend tritonkit_onnxruntime" in said.out
    assert "nothing was changed: missing are context, models, backend" in said.err
