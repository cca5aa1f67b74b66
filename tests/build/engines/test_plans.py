"""The road of a GPU machine up to its missing GPU, walked with TensorRT-RTX in TensorRT's place."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from support import Project

from tritonkit.dependencies import sha256
from tritonkit.engines import build_progress, builder, jobs, node, passport, plans
from tritonkit.errors import InputError, MissingError, OutputError
from tritonkit.gpus import get_all

Preflight = Callable[..., tuple[int, dict[str, Any]]]


def test_without_tensorrt_the_package_is_named(graphs: Any, project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("tensorrt", "tensorrt_bindings"):
        monkeypatch.setitem(sys.modules, name, None)
    code, _, error = project.run("engine", graphs.mlp("fp16"), "--gpu", "a10g", "--max-batch-size", "8")
    assert code == 3
    assert "TensorRT is not installed (the Python package tensorrt)" in error
    assert "--preflight" in error


def test_without_tensorrt_rtx_the_package_is_named(
    graphs: Any, project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("tensorrt_rtx", "tensorrt_rtx_bindings"):
        monkeypatch.setitem(sys.modules, name, None)
    code, _, error = project.run("engine", graphs.mlp("fp16"), "--preflight", "--gpu", "l4", "--max-batch-size", "8")
    assert code == 3
    assert "the Python package tensorrt-rtx" in error
    assert 'pip install "tritonkit[tensorrt-rtx]"' in error


@pytest.mark.usefixtures("project")
def test_bindings_without_their_libraries_are_said_not_to_load(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    code = "raise ImportError('libnvinfer.so.11: cannot open shared object file')"
    (tmp_path / "tensorrt_bindings.py").write_text(code, encoding="utf-8")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(MissingError, match=r"tensorrt_bindings is installed and does not load: libnvinfer\.so\.11"):
        builder.load("tensorrt")


def test_a_graph_in_a_repository_has_its_models_name(graphs: Any, tmp_path: Path) -> None:
    place = tmp_path / "repository/net/1/model.onnx"
    place.parent.mkdir(parents=True)
    graphs.mlp("fp16").rename(place)
    assert jobs.from_onnx(place, None, {}, 2).model == "net"
    assert jobs.from_onnx(graphs.mlp("fp16"), None, {}, 2).model == "fp16"


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--gpu", "t4,l4", "--precision", "fp8"], "--gpu t4 (compute capability 7.5): fp8 needs"),
        (["--gpu", "a10x"], "did you mean a10"),
        (["--gpu", "l4", "--precision", "fp12"], "there is no precision 'fp12'"),
        (["--gpu", "l4", "--precision", "fp16,int8"], "has one graph, which has one precision"),
        (["--gpu", "l4", "--workspace", "0"], "--workspace 0.0 is not above 0"),
        ([], "no GPU is named"),
    ],
)
def test_bad_requests_are_refused_before_anything_is_looked_for(
    graphs: Any, project: Project, arguments: list[str], words: str
) -> None:
    code, _, error = project.run("engine", graphs.fp8(), "--max-batch-size", "8", *arguments)
    assert code == 2
    assert words in error


@pytest.fixture
def full(toolkit: builder.Toolkit, monkeypatch: pytest.MonkeyPatch) -> builder.Toolkit:
    """TensorRT-RTX in TensorRT's place: the road is the same but for the module that is imported."""
    stand_in = builder.Toolkit("tensorrt", toolkit.module)
    monkeypatch.setattr(builder, "load", lambda name: {"tensorrt": stand_in}[name])
    return stand_in


@pytest.mark.usefixtures("full")
def test_without_a_gpu_the_message_says_where_to_go(graphs: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(node, "gpus", lambda: ())
    job = jobs.from_onnx(graphs.mlp("fp16"), None, {}, 8)
    with pytest.raises(MissingError, match="no GPU here that nvidia-smi shows"):
        plans.build([job], get_all(["l4"]), Path("nowhere"), builder.Options())


@pytest.mark.usefixtures("full")
def test_a_plan_for_another_gpu_cannot_be_built_here(graphs: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(node, "gpus", lambda: (node.NodeGpu("Tesla T4", (7, 5), 16 * 2**30),))
    job = jobs.from_onnx(graphs.mlp("fp16"), None, {}, 8)
    with pytest.raises(MissingError) as caught:
        plans.build([job], get_all(["a10g"]), Path("nowhere"), builder.Options())
    assert "the GPU here is Tesla T4 (compute capability 7.5); a plan for a10g (8.6) cannot be built" in str(
        caught.value
    )


@pytest.mark.usefixtures("full")
def test_a_gpu_machine_writes_its_plan_and_says_which_others_are_left(
    graphs: Any, project: Project, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(node, "gpus", lambda: (node.NodeGpu("NVIDIA A10G", (8, 6), 24 * 2**30),))
    output = tmp_path / "engines"
    command = ("engine", graphs.mlp("fp16"), "--gpu", "t4,a10g,h100", "--max-batch-size", "8", "--output", output)
    code, stdout, error = project.run(*command, "--json")
    assert code == 0, error
    printed = json.loads(stdout)
    assert printed["elsewhere"] == ["t4", "h100"]
    assert sorted(path.name for path in output.iterdir()) == ["model_sm86.plan", "model_sm86.plan.json"]
    written = passport.read(output / "model_sm86.plan")
    assert (written.builder, written.gpu, written.precision) == ("tensorrt", "a10g", "fp16")
    assert written.layers["fp16"] == 2
    assert written.graph_sha256 == sha256(graphs.directory / "fp16.onnx")
    code, stdout, _ = project.run(*command)
    assert "to be built on their own nodes: t4, h100" in stdout


@pytest.fixture
def model(graphs: Any, tmp_path: Path) -> Path:
    """What `tritonkit build --target tensorrt` leaves in a repository for this command."""
    directory = tmp_path / "repository/net"
    (directory / "1").mkdir(parents=True)
    graphs.mlp("fp16").rename(directory / "1/engine.onnx")
    tensor = {"dtype": "fp32", "dims": [32]}
    recipe = {"name": "net", "source": "net.py:load", "inputs": {"x": tensor}, "outputs": {"y": tensor},
              "max_batch_size": 8, "gpus": ["a10g", "l4"]}  # fmt: skip
    model_passport = {"model": "net", "target": "tensorrt", "precision": "fp16", "recipe": recipe}
    (directory / "passport.json").write_text(json.dumps(model_passport), encoding="utf-8")
    return directory


@pytest.mark.usefixtures("full")
def test_a_model_in_a_repository_gets_its_plan_where_triton_looks(
    model: Path, project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No recipe file and no exporter is needed on the GPU node: the passport has shapes, precision and GPUs."""
    monkeypatch.setattr(node, "gpus", lambda: (node.NodeGpu("NVIDIA A10G", (8, 6), 24 * 2**30),))
    code, stdout, error = project.run("engine", model)
    assert code == 0, error
    assert "to be built on their own nodes: l4" in stdout
    written = passport.read(model / "1/model_sm86.plan")
    assert (written.model, written.precision, len(written.profiles)) == ("net", "fp16", 2)
    assert written.profiles[0]["x"].max == (8, 32)


def test_a_model_in_a_repository_is_preflighted_for_its_gpus(model: Path, project: Project) -> None:
    code, stdout, _ = project.run("engine", model, "--preflight", "--json")
    verdicts = [(verdict["gpu"], verdict["status"]) for verdict in json.loads(stdout)["verdicts"]]
    assert (code, verdicts) == (0, [("a10g", "ok"), ("l4", "ok")])
    assert not list(model.rglob("*.plan"))


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda model: (model / "1/engine.onnx").unlink(), "has no engine.onnx with a passport"),
        (lambda model: (model / "passport.json").unlink(), "has no engine.onnx with a passport"),
        (lambda model: (model / "passport.json").write_text('{"recipe": {"name": "net"}}'), "passport.json"),
    ],
)
def test_a_directory_without_graph_or_recipe_is_bad_input(
    model: Path, project: Project, change: Callable[[Path], None], words: str
) -> None:
    change(model)
    code, _, error = project.run("engine", model, "--preflight", "--gpu", "l4")
    assert (code, words in error) == (2, True)


@pytest.mark.usefixtures("full")
def test_of_several_kinds_of_gpu_cuda_is_shown_the_one_that_is_built_for(
    graphs: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    both = (node.NodeGpu("Tesla T4", (7, 5), 2**34, "GPU-t"), node.NodeGpu("NVIDIA A10G", (8, 6), 2**34, "GPU-a"))
    monkeypatch.setattr(node, "gpus", lambda: both)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0")
    job = jobs.from_onnx(graphs.mlp("fp16"), None, {}, 2)
    (built,), _ = plans.build([job], get_all(["a10g"]), tmp_path, builder.Options())
    assert built.passport.gpu == "a10g"
    assert os.environ["CUDA_VISIBLE_DEVICES"] == "GPU-a"


@pytest.mark.usefixtures("full")
def test_a_graph_that_is_not_what_was_asked_for_leaves_no_file(
    graphs: Any, project: Project, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(node, "gpus", lambda: (node.NodeGpu("NVIDIA A10G", (8, 6), 24 * 2**30),))
    output = tmp_path / "engines"
    code, _, error = project.run(
        "engine", graphs.mlp("fp32"), "--gpu", "a10g", "--precision", "int8", "--max-batch-size", "8", "-o", output
    )
    assert (code, output.exists()) == (1, False)
    assert "no layer computes in int8: 2 fp32" in error


def test_broken_graphs_are_bad_input(graphs: Any, project: Project) -> None:
    path = graphs.mlp("fp16")
    path.write_bytes(path.read_bytes()[:-40])
    code, _, error = project.run("engine", path, "--preflight", "--gpu", "l4", "--max-batch-size", "8")
    assert (code, "is not a valid ONNX model" in error) == (2, True)
    missing = path.with_name("missing.onnx")
    assert project.run("engine", missing, "--preflight", "--gpu", "l4")[0] == 2


def test_a_killed_build_leaves_no_plan_under_another_plans_passport(
    graphs: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    toolkit = builder.load("tensorrt_rtx")
    job = jobs.from_onnx(graphs.mlp("fp16"), None, {}, 2)
    network = builder.Network(toolkit, job.graph)
    plan = network.build(job.profiles, builder.Options(), (8, 9), build_progress.Watch())
    engine_passport = plans.describe(job, network, plan, builder.Options(), (8, 9), None)
    path = plans.write(tmp_path, plan, engine_passport)

    def killed(*_: Any) -> None:
        raise RuntimeError("killed")

    monkeypatch.setattr(passport, "write", killed)
    with pytest.raises(RuntimeError):
        plans.write(tmp_path, builder.Plan(b"other", 0.0, 5), engine_passport)
    with pytest.raises(InputError, match="has no passport"):
        passport.read(path)


@pytest.mark.parametrize("theirs", ["plan", "swapped", "passport"])
def test_a_plan_that_tritonkit_did_not_write_is_not_overwritten(graphs: Any, tmp_path: Path, theirs: str) -> None:
    toolkit = builder.load("tensorrt_rtx")
    job = jobs.from_onnx(graphs.mlp("fp16"), None, {}, 2)
    network = builder.Network(toolkit, job.graph)
    engine_passport = plans.describe(job, network, builder.Plan(b"ours", 0.0, 4), builder.Options(), (8, 9), None)
    path = tmp_path / "model_sm89.plan"
    if theirs == "swapped":
        plans.write(tmp_path, builder.Plan(b"ours", 0.0, 4), engine_passport)
        plans.write(tmp_path, builder.Plan(b"ours", 0.0, 4), engine_passport)  # our own is replaced
    their_file = passport.path_of(path) if theirs == "passport" else path
    their_file.write_bytes(b"theirs")
    before = {file.name: file.read_bytes() for file in tmp_path.iterdir()}
    with pytest.raises(OutputError, match="is not as tritonkit wrote it") as refused:
        plans.write(tmp_path, builder.Plan(b"ours", 0.0, 4), engine_passport)
    assert str(their_file if theirs == "passport" else path) in refused.value.message
    assert "--output" in refused.value.fix
    assert {file.name: file.read_bytes() for file in tmp_path.iterdir()} == before


def test_weights_beside_the_graph_are_found(graphs: Any, tmp_path: Path, preflight: Preflight) -> None:
    import onnx

    model = onnx.load(graphs.mlp("fp16"))
    other = tmp_path / "apart/net.onnx"
    other.parent.mkdir()
    onnx.save(model, other, save_as_external_data=True, location="net.data", size_threshold=0)
    code, report = preflight(other, "l4")
    assert (code, report["verdicts"][0]["status"]) == (0, "ok")
    assert np.asarray(report["verdicts"][0]["plan_bytes"]) > 1000
