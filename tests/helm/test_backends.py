"""Models of `--target cuda` and the image that is to serve them: `make deploy` says before anything is sent."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import deploy
import pytest
import yaml

from deploying import backends, chart, environment
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
    found = list(backends.check(said, project, made))
    assert [check.state for check in found] == [state for state, _ in expected]
    for check, (state, words) in zip(found, expected, strict=True):
        assert check.text.startswith("net needs the backend tritonkit_onnxruntime")
        assert words in check.text
        assert ("build build/Dockerfile" in check.fix) == (state == "missing")


def test_nothing_is_deployed_with_an_image_that_has_not_the_backend(
    project: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    code = deploy.main(["deploy", write(project, {}), "--project", str(project), "--apply"])
    said = capfd.readouterr()
    assert code == 1
    assert "net needs the backend tritonkit_onnxruntime" in said.out
    assert "nothing was changed: missing are context, models, backend" in said.err
