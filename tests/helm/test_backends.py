"""Models and the pods that are to serve them, GPU and image: `make deploy` says before anything is sent."""

from __future__ import annotations

import functools
import json
import os
import tempfile
from pathlib import Path
from typing import Any

import pytest
import yaml
from manifests.rendering import CHART

from tritonkit import cli
from tritonkit.deploying import backends, chart, environment, models, nodes, preflight
from tritonkit.deploying.chart import Rendered
from tritonkit.deploying.environment import Environment
from tritonkit.kubetools import binaries
from tritonkit.repository.lint import images as lint_images

CONFIG = """
backend: "%s" max_batch_size: 8 instance_group { kind: KIND_%s }
input { name: "x" data_type: TYPE_FP32 dims: 4 } output { name: "y" data_type: TYPE_FP32 dims: 4 }
"""
TOKENIZER = """
from tokenizers import Tokenizer

class TritonPythonModel:
    def execute(self, requests):
        return []
"""
TOOLS = {"image": {"repository": "registry.example.com/tritonkit"}}
OURS = "registry.example.com/tritonkit:26.09"
NEEDS = {"net": ["tritonkit_onnxruntime"]}


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A repository with a model of each backend on GPUs, and no cluster."""
    tools = f"{binaries.helm().parent}:{binaries.kubectl().parent}"  # found before HOME is another one
    monkeypatch.setenv("KUBECONFIG", str(tmp_path / "kubeconfig"))
    monkeypatch.setenv("PATH", f"{tools}:{os.environ['PATH']}")
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("COLUMNS", "300")
    monkeypatch.delenv("MAKELEVEL", raising=False)
    (tmp_path / "helm").mkdir()
    (tmp_path / "helm/tritonkit").symlink_to(CHART)
    add_model(tmp_path, "net", "tritonkit_onnxruntime")
    add_model(tmp_path, "other", "onnxruntime")
    return tmp_path


def add_model(
    project: Path, name: str, backend: str, kind: str = "GPU", file: str = "model.onnx", code: str = ""
) -> None:
    """One model of the repository that GPU pods serve."""
    place = project / "model_repository.cuda" / name
    (place / "1").mkdir(parents=True, exist_ok=True)
    (place / "1" / file).write_text(code, encoding="utf-8")
    (place / "config.pbtxt").write_text(CONFIG % (backend, kind), encoding="utf-8")


def write(project: Path, values: dict[str, Any], **deployed: str) -> str:
    """An environment's file."""
    settings = {"context": "here", "namespace": "inference", "release": "triton", "publish": f"file://{project}/store"}
    models = {"pvc": {"claimName": "models"}} | values.pop("models", {})
    text = yaml.safe_dump({"deploy": settings | deployed, "values": {"tools": TOOLS, "models": models} | values})
    (project / "prod.yaml").write_text(text, encoding="utf-8")
    return str(project / "prod.yaml")


def render(project: Path, values: dict[str, Any], **deployed: str) -> tuple[Environment, Rendered | None, str]:
    """The environment, its manifest with what publishing says of the models, and why there is none."""
    loaded = environment.load(write(project, dict(values), **deployed), project)
    return loaded, *prove(yaml.safe_dump(loaded.values), yaml.safe_dump(models.find(loaded, project).values))


@functools.cache
def prove(*values: str) -> tuple[Rendered | None, str]:
    """The manifest, and why there is none; asked once for the same values, as helm's lint and render take a second."""
    with tempfile.TemporaryDirectory() as folder:
        files = [Path(folder, f"{place}.yaml") for place in range(len(values))]
        for file, text in zip(files, values, strict=True):
            file.write_text(text, encoding="utf-8")
        proved, rendered = chart.prove(binaries.helm(), CHART, "triton", "inference", files, "1.34")
    return rendered, "" if rendered else f"{proved[0].text}\nfix: {proved[0].fix}"


def triton_images(rendered: Rendered) -> list[str]:
    return [
        container["image"]
        for _, spec in chart.pods(rendered.objects)
        for container in spec["containers"]
        if container["name"] == "triton"
    ]


@pytest.mark.parametrize(
    ("values", "image", "state"),
    [
        ({}, OURS, "ok"),
        ({"image": TOOLS["image"] | {"tag": "1.2"}}, "registry.example.com/tritonkit:1.2", "unchecked"),
        ({"models": {"names": ["other"]}}, "nvcr.io/nvidia/tritonserver:26.09-py3", ""),
    ],
    ids=["stock", "own", "not loaded"],
)
def test_a_model_beyond_nvidias_image_gets_the_tools_image_or_the_users(
    project: Path, values: dict[str, Any], image: str, state: str
) -> None:
    deployed, rendered, reason = render(project, values)
    assert rendered is not None, reason
    assert triton_images(rendered) == [image]
    checks = list(backends.images(deployed, project, rendered))
    assert [check.state for check in checks] == ([state] if state else [])
    assert all(check.text.startswith("net needs tritonkit_onnxruntime: ") for check in checks)


def test_what_an_ensemble_loads_needs_its_image_too(project: Path) -> None:
    add_model(project, "tok", "python", "CPU", "model.py", TOKENIZER)
    ensemble = project / "model_repository.cuda/whole"
    (ensemble / "1").mkdir(parents=True)
    (ensemble / "1/keep").touch()
    maps = "input_map { key: 'x' value: 'x' } output_map { key: 'y' value: 'y' }"
    step = f"ensemble_scheduling {{ step {{ model_name: 'tok' model_version: -1 {maps} }} }}"
    text = 'platform: "ensemble" max_batch_size: 8' + CONFIG[CONFIG.index("\ninput") :] + step
    (ensemble / "config.pbtxt").write_text(text, encoding="utf-8")
    deployed, rendered, reason = render(project, {"models": {"names": ["whole"]}})
    assert rendered is not None, reason
    assert triton_images(rendered) == [OURS]
    (check,) = backends.images(deployed, project, rendered)
    assert check.text.startswith("tok needs tokenizers: ")


@pytest.mark.parametrize(
    ("values", "state", "words"),
    [
        ({}, "missing", "chat needs the variant vllm-python-py3 of NVIDIA's image; "),
        (
            {"engine": "vllm", "image": {"tag": "26.07-vllm-python-py3"}},
            "ok",
            "chat needs an engine, which nvcr.io/nvidia/tritonserver:26.07",
        ),
        ({"image": {"repository": "own.example.com/vllm", "tag": "1.2"}}, "unchecked", "own.example.com/vllm:1.2 of "),
    ],
    ids=["stock", "variant", "own"],
)
def test_a_language_model_is_held_against_the_images_variant(
    project: Path, values: dict[str, Any], state: str, words: str
) -> None:
    add_model(project, "chat", "vllm", "MODEL", "model.json", "{}")
    deployed, rendered, reason = render(project, values | {"models": {"names": ["chat"]}})
    assert rendered is not None, reason
    (check,) = backends.images(deployed, project, rendered)
    assert (check.state, words in check.text) == (state, True), check.text


@pytest.mark.parametrize(
    ("module", "values", "words"),
    [
        ("", {"image": {"digest": f"sha256:{'1' * 64}"}}, "net needs tritonkit_onnxruntime (models.needs), which nvcr.io/nvidia/tritonserver@"),
        ("", {"image": {"repository": "mirror.example.com/nvidia/tritonserver"}}, "so that tools.image serves, or name an image"),
        ("transformers", {}, "pre needs transformers, which neither NVIDIA's image nor that of build/Dockerfile has"),
        ("pillow==13.0.0", {}, "pre needs pillow==13.0.0, which neither NVIDIA's image nor that of build/Dockerfile has"),
    ],
    ids=["digest", "mirror", "module", "package of the passport"],
)  # fmt: skip
def test_an_image_known_to_lack_a_module_is_refused_by_name(
    project: Path, module: str, values: dict[str, Any], words: str
) -> None:
    if module:
        code = TOKENIZER.replace("tokenizers", "json" if "==" in module else module)
        add_model(project, "pre", "python", "CPU", "model.py", code)
    if "==" in module:  # as those of a recipe's `python` section
        passport = project / "model_repository.cuda/pre/passport.json"
        passport.write_text(json.dumps({"model": "pre", "packages": [module, "tokenizers==0.22.0"]}), encoding="utf-8")
    _, rendered, reason = render(project, values)
    assert rendered is None
    assert words in reason
    assert chart._FIX not in reason, "the chart's own fix is shown"
    _, rendered, reason = render(project, {"image": {"repository": "registry.example.com/mine"}})
    assert rendered is not None, f"an image of the user's own is the way out: {reason}"
    if "==" in module:
        deployed = environment.load(str(project / "prod.yaml"), project)
        assert "pre needs pillow==13.0.0, tokenizers" in next(backends.images(deployed, project, rendered)).text


def test_the_chart_and_the_dockerfile_have_what_lint_says_they_have() -> None:
    text = (CHART / "templates/_helpers.tpl").read_text(encoding="utf-8")
    listed = text.partition('define "tritonkit.toolsHas"')[2].partition("\n")[2].partition("\n")[0]
    assert set(yaml.safe_load(listed)) == {*lint_images.TOOLS_MODULES, "tritonkit_onnxruntime"}
    dockerfile = (CHART.parents[1] / "build/Dockerfile").read_text(encoding="utf-8")
    installed = dockerfile.partition("PIP_CONSTRAINT=/opt/tritonkit/constraints.txt \\\n && python3 -m pip install ")[2]
    assert set(installed.split("\n")[0].split()) >= lint_images.TOOLS_MODULES


def test_following_the_fix_for_an_image_without_a_registry_leads_on(project: Path) -> None:
    for policy, states in (("IfNotPresent", ["missing"]), ("Never", ["note"])):
        _, rendered, reason = render(project, {"tools": {"image": {"pullPolicy": policy}}})
        assert rendered is not None, reason
        assert triton_images(rendered) == ["tritonkit:26.09"]
        checks = [check for check in preflight._images(rendered) if check.state != "unchecked"]
        assert [check.state for check in checks] == states
        assert policy == "Never" or "values.tools.image.pullPolicy: Never" in checks[0].fix


@pytest.mark.parametrize(
    ("kinds", "values", "state", "words"),
    [
        ({"other": "GPU"}, {}, "", ""),
        ({"net": "CPU", "other": "CPU"}, {}, "missing", "CPU models on GPU nodes: net, other; pods of Deployment triton-tritonkit"),
        ({"other": "CPU"}, {}, "note", "CPU models on GPU nodes: other; only net would use the GPU"),
        ({"other": "CPU"}, {"models": {"names": ["other"]}}, "missing", "CPU models on GPU nodes: other; pods of"),
        ({}, {"accelerator": {"kind": "cpu"}}, "missing", "GPU models on CPU pods: net, other; Deployment triton-tritonkit asks"),
        ({"net": "CPU", "other": "CPU"}, {"accelerator": {"kind": "cpu"}}, "", ""),
        ({"other": "CPU"}, {"accelerator": {"kind": "dra"}, "models": {"names": ["other"]}}, "missing", "CPU models on GPU nodes"),
    ],
    ids=["gpu", "cpu on gpu", "one of two", "the one loaded", "gpu on cpu", "cpu", "dra"],
)  # fmt: skip
def test_models_for_another_device_than_their_pods_are_reported(
    project: Path, kinds: dict[str, str], values: dict[str, Any], state: str, words: str
) -> None:
    for name, kind in kinds.items():
        add_model(project, name, "onnxruntime" if name == "other" else "tritonkit_onnxruntime", kind)
    deployed, rendered, reason = render(project, values, repository="model_repository.cuda")
    assert rendered is not None, reason
    checks = list(backends.devices(deployed, project, rendered))
    assert [check.state for check in checks] == ([state] if state else [])
    for check in checks:
        assert check.text.startswith(words)
        assert "`tritonkit build --all --target " in check.fix


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
    deployed, rendered, reason = render(project, {"accelerator": {"products": ["NVIDIA-L4"]}})
    assert rendered is not None, reason
    checks = list(backends.drivers(Cluster(*labels), deployed, project, rendered))  # type: ignore[arg-type]
    assert [check.state for check in checks] == [state for state, _ in expected]
    for check, (_, words) in zip(checks, expected, strict=True):
        assert words in check.text
        assert check.fix


def test_nothing_is_deployed_whose_models_are_for_another_device(
    project: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """As it was until the accelerator decided: the CPU's repository, published to GPU pods."""
    (project / "model_repository.cuda").rename(project / "model_repository")
    monkeypatch.setenv("MAKELEVEL", "1")  # as under make
    code = cli.main(["deploy", write(project, {}), "--project", str(project), "--apply"])
    output = capfd.readouterr()
    assert code == 2
    assert "model_repository.cuda, and prod's pods run models of the target cuda" in output.err
    assert "`make build TARGET=cuda`" in output.err.replace("\n", " ")
    monkeypatch.delenv("MAKELEVEL")
    place = project / "model_repository"
    for name in ("net", "other"):
        (place / name / "config.pbtxt").write_text(CONFIG % ("onnxruntime", "CPU"), encoding="utf-8")
    path = write(project, {}, repository="model_repository")
    code = cli.main(["deploy", path, "--project", str(project), "--apply"])
    output = capfd.readouterr()
    assert code == 1
    assert "CPU models on GPU nodes: net, other" in output.out
    assert "nothing was changed: missing are context, models, accelerator" in output.err
    assert not (project / "store").exists()
