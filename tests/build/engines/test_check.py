"""May it run here: every mismatch, which plan Triton would load, and what a node does when none fits."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper
from support import Project
from tritonclient.grpc import InferenceServerClient, InferInput

from tritonkit.engines import check, node, passport
from tritonkit.engines.node import Node, NodeGpu
from tritonkit.server import Runtime, TritonServer

A10G = NodeGpu("NVIDIA A10G", (8, 6), 24 * 2**30)
T4 = NodeGpu("Tesla T4", (7, 5), 16 * 2**30)
H100 = NodeGpu("NVIDIA H100 80GB HBM3", (9, 0), 80 * 2**30)
FITS = Node((A10G,), "11.4.0.106", "26.09-py3")


no_gpu_here = pytest.mark.skipif(shutil.which("nvidia-smi") is not None, reason="this machine has a GPU")


def kinds(problems: list[check.Problem]) -> list[str]:
    assert all(problem.text and problem.fix and problem.text.count(". ") == 0 for problem in problems)
    return [problem.kind for problem in problems]


# --- one plan against a node: pure ---


@pytest.mark.parametrize(
    ("changes", "here", "expected"),
    [
        ({}, FITS, []),
        ({}, replace(FITS, gpus=()), ["gpu"]),
        ({}, replace(FITS, gpus=(T4,)), ["compute_capability"]),
        ({}, replace(FITS, gpus=(A10G, T4)), ["compute_capability"]),
        ({}, replace(FITS, gpus=(H100,)), ["compute_capability"]),
        ({"hardware_compatibility": "ampere_plus"}, replace(FITS, gpus=(H100,)), []),
        ({"hardware_compatibility": "ampere_plus"}, replace(FITS, gpus=(T4,)), ["compute_capability"]),
        ({"hardware_compatibility": "same_compute_capability"}, replace(FITS, gpus=(H100,)), ["compute_capability"]),
        ({"memory_bytes": 25 * 2**30}, FITS, ["memory"]),
        ({}, replace(FITS, tensorrt_version="11.4.0.107"), ["tensorrt"]),
        ({}, replace(FITS, tensorrt_version="11.4.0"), []),  # a library's name has three numbers
        ({}, replace(FITS, tensorrt_version="11.4.1"), ["tensorrt"]),
        ({}, replace(FITS, tensorrt_version="10.14.1.48", image="26.04-py3"), ["tensorrt", "image"]),
        ({"version_compatible": True}, replace(FITS, tensorrt_version="11.5.0"), []),
        ({"version_compatible": True}, replace(FITS, tensorrt_version="11.3.9"), ["tensorrt"]),
        ({"tensorrt_version": "10.14.1.48", "version_compatible": True}, FITS, []),
        ({}, replace(FITS, image="26.09-trtllm-python-py3"), ["image"]),
        ({}, replace(FITS, tensorrt_version=None), []),  # the image says it
        ({}, replace(FITS, tensorrt_version=None, image=None), ["tensorrt"]),
        ({}, replace(FITS, tensorrt_version=None, image="99.01-py3"), ["tensorrt"]),
        ({"builder": "tensorrt_rtx"}, FITS, ["builder"]),
    ],
)
def test_each_mismatch_is_one_sentence_with_its_fix(plan: Any, changes: Any, here: Node, expected: list[str]) -> None:
    assert kinds(check.check(passport.read(plan(**changes)), here)) == expected


@pytest.mark.parametrize(
    ("image", "version"),
    [
        ("26.09-py3", "11"),
        ("nvcr.io/nvidia/tritonserver:26.04-py3", "10"),
        ("26.08", "11"),
        ("26.08-trtllm-python-py3", "10.14"),
        ("25.01-trtllm-python-py3", None),
        ("24.10-py3", None),
        ("registry:5000/our/triton:v3", None),
        (None, None),
    ],
)
def test_known_images(image: str | None, version: str | None) -> None:
    assert check.known_tensorrt(image) == version


# --- what a node says about itself ---


def test_lines_of_nvidia_smi_are_read() -> None:
    line = "NVIDIA A10G, 8.6, 23028, GPU-0a1b"
    assert node.parse_gpu(line) == NodeGpu("NVIDIA A10G", (8, 6), 23028 * 2**20, "GPU-0a1b")
    assert node.parse_gpu("NVIDIA RTX PRO 6000 Blackwell Server Edition, 12.0, 97887, GPU-2c ").compute == "12.0"  # type: ignore[union-attr]
    for line in ("", "[N/A], [N/A], [N/A], [N/A]", "No devices were found"):
        assert node.parse_gpu(line) is None


def test_an_nvidia_smi_that_fails_shows_no_gpu(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    program = tmp_path / "nvidia-smi"
    monkeypatch.setenv("PATH", str(tmp_path))
    assert node.gpus() == ()
    for body, expected in (
        ("echo 'Tesla T4, 7.5, 15360, GPU-1'", 1),
        ("echo broken driver; exit 9", 0),
        ("echo odd", 0),
    ):
        program.write_text(f"#!/bin/sh\n{body}\n", encoding="utf-8")
        program.chmod(0o755)
        assert len(node.gpus()) == expected


def test_tensorrt_is_found_by_its_librarys_name(tmp_path: Path) -> None:
    assert node.tensorrt_version([tmp_path, tmp_path / "none"]) is None  # tensorrt-rtx is not TensorRT
    for name in ("libnvinfer.so", "libnvinfer.so.11", "libnvinfer_lean.so.11.3.0", "libnvinfer.so.11.4.0"):
        (tmp_path / name).touch()
    assert node.tensorrt_version([tmp_path]) == "11.4.0"


def test_this_machines_cpu_is_read() -> None:
    assert "sse2" in node.cpu_features()
    assert node.cpu_features(Path("/nowhere")) == frozenset()


# --- which plan Triton would load ---

CONFIG = """
name: "net" backend: "tensorrt" default_model_filename: "model_sm86.plan"
cc_model_filenames { key: "7.5" value: "model_sm75.plan" }
cc_model_filenames { key: "8.6" value: "model_sm86.plan" }
"""


@pytest.fixture
def model(plan: Any) -> Path:
    """A model with plans for 7.5 and 8.6."""
    plan("75")
    directory: Path = plan("86").parents[1]
    (directory / "config.pbtxt").write_text(CONFIG, encoding="utf-8")
    return directory


def mismatches(directory: Path, *gpus: NodeGpu, **changes: Any) -> list[tuple[str, str]]:
    result = check.check_model(directory, replace(FITS, gpus=gpus, **changes))
    return [(problem.plan, problem.kind) for problem in result.problems]


def test_only_the_plan_that_triton_loads_here_counts(model: Path) -> None:
    assert mismatches(model, A10G) == []
    assert mismatches(model, T4) == []
    assert mismatches(model, T4, A10G) == []
    assert mismatches(model, H100) == [("model_sm86.plan", "compute_capability")]  # default_model_filename
    assert mismatches(model) == [("model_sm75.plan", "gpu"), ("model_sm86.plan", "gpu")]


def test_a_gpu_without_a_plan_is_told_which_there_are(model: Path) -> None:
    (model / "config.pbtxt").write_text(CONFIG.replace("default_model_filename", "# "), encoding="utf-8")
    assert mismatches(model, H100) == [("", "compute_capability")]
    (problem,) = check.check_model(model, replace(FITS, gpus=(H100,))).problems
    assert "there are model_sm75.plan, model_sm86.plan" in problem.text
    assert "cc_model_filenames under 9.0" in problem.fix


def test_a_tensorrt_model_without_any_plan_may_run_nowhere(model: Path) -> None:
    for path in model.glob("1/*"):
        path.unlink()
    assert mismatches(model, A10G) == [("", "compute_capability")]
    assert mismatches(model) == [("", "plan")]


def test_only_the_newest_version_counts_unless_the_policy_says_otherwise(model: Path, plan: Any) -> None:
    plan("86", version="0", tensorrt_version="10.14.1.48")
    assert mismatches(model, A10G) == []
    (model / "config.pbtxt").write_text(CONFIG + "version_policy { all {} }", encoding="utf-8")
    assert mismatches(model, A10G) == [("model_sm86.plan", "tensorrt"), ("model_sm86.plan", "image")]
    (model / "config.pbtxt").write_text(CONFIG + "version_policy { specific { versions: 1 } }", encoding="utf-8")
    assert mismatches(model, A10G) == []


@pytest.mark.parametrize(
    ("content", "words"), [(b"pla", "has 3 bytes, its passport says 4"), (b"plaN", "SHA-256 differs")]
)
def test_a_plan_that_was_cut_or_swapped_is_found(model: Path, content: bytes, words: str) -> None:
    (model / "1/model_sm86.plan").write_bytes(content)
    assert mismatches(model, A10G) == [("model_sm86.plan", "plan")]
    (problem,) = check.check_model(model, FITS).problems
    assert words in problem.text


def test_a_plan_whose_passport_is_gone_or_cut_is_a_problem_of_its_own(model: Path) -> None:
    place = model / "1/model_sm86.plan.json"
    place.write_bytes(place.read_bytes()[:-30])
    assert mismatches(model, A10G) == [("model_sm86.plan", "passport")]
    place.unlink()
    assert mismatches(model, A10G) == [("model_sm86.plan", "passport")]


@pytest.mark.parametrize(
    ("gpu", "memory", "expected"),
    [
        (replace(T4, driver="580.65.06"), None, []),
        (replace(T4, driver="570.86"), None, ["driver"]),
        (NodeGpu("Tesla V100", (7, 0), 16 * 2**30, driver="580.65.06"), None, ["compute_capability"]),
        (replace(T4, driver="580.65.06"), 2 * 2**30, []),
        (replace(T4, driver="580.65.06"), 5 * 2**30, ["memory"]),
        (None, 2 * 2**30, ["gpu"]),
    ],
)
def test_a_cuda_model_needs_a_driver_a_capability_and_enough_memory(
    gpu: NodeGpu | None, memory: int | None, expected: list[str], tmp_path: Path
) -> None:
    measured = {"session_bytes": memory - 3, "sizes_bytes": 2, "context_bytes": 1} if memory else None
    (tmp_path / "passport.json").write_text(json.dumps({"target": "cuda", "memory": measured}), encoding="utf-8")
    text = 'backend: "tritonkit_onnxruntime"\ninstance_group { count: 4 kind: KIND_GPU }\n'
    (tmp_path / "config.pbtxt").write_text(text, encoding="utf-8")
    result = check.check_model(tmp_path, Node((gpu,) if gpu else ()))
    assert kinds(list(result.problems)) == expected


def test_an_unknown_image_is_said_to_be_unknown(model: Path) -> None:
    result = check.check_model(model, replace(FITS, image="our-triton:v3"))
    assert (result.problems, result.notes) == ((), ("which TensorRT the image our-triton:v3 has is not known here",))


def test_int8_for_cpus_with_vnni_is_not_for_others(tmp_path: Path) -> None:
    features = ["avx512_vnni", "avx_vnni"]
    (tmp_path / "passport.json").write_text(json.dumps({"target": "cpu", "cpu_features": features}), encoding="utf-8")
    assert check.check_model(tmp_path, Node(cpu_features=frozenset({"sse2", "avx_vnni"}))).problems == ()
    (problem,) = check.check_model(tmp_path, Node(cpu_features=frozenset({"sse2", "avx2"}))).problems
    assert problem.kind == "cpu"
    assert "avx512_vnni or avx_vnni" in problem.text


# --- the command of an init container ---


@pytest.fixture
def here(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Lets the command see another node than this machine."""

    def be(seen: Node) -> None:
        monkeypatch.setattr(node, "read", lambda image=None: replace(seen, image=image or seen.image))

    return be


def test_the_check_exits_0_or_1(model: Path, project: Project, here: Any) -> None:
    here(FITS)
    code, stdout, _ = project.run("passport", model, "--check")
    assert (code, "net may run here" in stdout) == (0, True)
    code, stdout, _ = project.run("passport", model, "--check", "--image", "26.04-py3")
    assert code == 1
    assert "the image 26.04-py3 has 10" in stdout
    assert stdout.count("fix:") == 1
    code, stdout, _ = project.run("passport", "--check", "--json", "--repository", model.parent)
    (result,) = json.loads(stdout)
    assert (code, result["model"], result["problems"], result["checked"]) == (0, "net", [], 1)


@no_gpu_here
def test_here_without_a_gpu_the_check_says_what_is_missing(model: Path, project: Project) -> None:
    code, stdout, _ = project.run("passport", model, "--check")
    assert code == 1
    assert "no GPU is visible here (nvidia-smi is missing or shows none)" in stdout


def test_a_model_without_plans_and_passport_is_not_judged(project: Project, tmp_path: Path) -> None:
    (tmp_path / "repository/theirs/1").mkdir(parents=True)
    code, stdout, _ = project.run("passport", "--check", "--repository", tmp_path / "repository")
    assert (code, stdout.strip()) == (0, "theirs has no passport: nothing to compare")


@pytest.fixture
def fallback(model: Path) -> Path:
    """The model with the ONNX graph beside its plans, and a configuration that serves it."""
    (model / "passport.json").write_text(json.dumps({"fallback": "onnxruntime"}), encoding="utf-8")
    (model / "configs").mkdir()
    config = 'backend: "onnxruntime" default_model_filename: "model.onnx" instance_group { kind: KIND_CPU }'
    (model / "configs/onnxruntime.pbtxt").write_text(f'name: "net" {config}', encoding="utf-8")
    values = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [4]) for name in "xy"]
    graph = helper.make_graph([helper.make_node("Neg", ["x"], ["y"])], "g", values[:1], values[1:])
    onnx_model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    onnx.save(onnx_model, model / "1/model.onnx")
    return model


def test_server_arguments_are_empty_where_the_plan_fits(fallback: Path, project: Project, here: Any) -> None:
    here(FITS)
    assert project.run("passport", fallback, "--print-server-args") == (0, "\n", "")


def test_a_mismatch_with_a_fallback_says_what_the_node_does(fallback: Path, project: Project, here: Any) -> None:
    here(replace(FITS, gpus=(H100,)))
    code, stdout, _ = project.run("passport", fallback, "--check")
    assert code == 1
    assert "start Triton with --model-config-name=onnxruntime" in stdout
    code, stdout, error = project.run("passport", fallback, "--print-server-args")
    assert (code, stdout) == (0, "--model-config-name=onnxruntime\n")
    assert "compute capability 8.6" in error


def test_a_mismatch_without_a_fallback_prints_no_arguments(fallback: Path, project: Project, here: Any) -> None:
    here(replace(FITS, gpus=(H100,)))
    (fallback / "passport.json").unlink()
    code, stdout, error = project.run("passport", fallback, "--print-server-args")
    assert (code, stdout) == (1, "")
    assert "no fallback covers net" in error


def test_a_fallback_that_is_only_stated_covers_nothing(fallback: Path, project: Project, here: Any) -> None:
    here(replace(FITS, gpus=(H100,)))
    (fallback / "configs/onnxruntime.pbtxt").unlink()
    code, stdout, error = project.run("passport", fallback, "--print-server-args")
    assert (code, stdout) == (1, "")
    assert "has no configs/onnxruntime.pbtxt" in error


def test_a_fallback_that_needs_a_gpu_does_not_cover_a_node_without_one(
    fallback: Path, project: Project, here: Any
) -> None:
    path = fallback / "configs/onnxruntime.pbtxt"
    path.write_text(path.read_text(encoding="utf-8").replace("KIND_CPU", "KIND_GPU"), encoding="utf-8")
    here(replace(FITS, gpus=(H100,)))
    assert project.run("passport", fallback, "--print-server-args")[0] == 0
    here(replace(FITS, gpus=()))
    code, _, error = project.run("passport", fallback, "--print-server-args")
    assert (code, "fallback 'onnxruntime' needs a GPU, too" in error) == (1, True)


@no_gpu_here
def test_the_printed_arguments_make_a_real_triton_serve_the_fallback(
    installed_server: Runtime, fallback: Path, project: Project
) -> None:
    """No plan fits a machine without a GPU; without the argument Triton looks for the tensorrt backend."""
    code, stdout, _ = project.run("passport", "--repository", fallback.parent, "--print-server-args")
    assert code == 0
    with TritonServer(fallback.parent, runtime=installed_server, arguments=stdout.split()) as server:
        client = InferenceServerClient(server.grpc_url.removeprefix("grpc://"))
        assert client.get_model_config("net").config.backend == "onnxruntime"
        tensor = InferInput("x", [4], "FP32")
        tensor.set_data_from_numpy(np.arange(4, dtype=np.float32))
        np.testing.assert_array_equal(client.infer("net", [tensor]).as_numpy("y"), [0, -1, -2, -3])
        client.close()
