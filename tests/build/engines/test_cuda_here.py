"""Whether `--target cuda` works here: what a driver runs, what a trial says, and what doctor makes of both."""

from __future__ import annotations

import shutil
from dataclasses import replace

import pytest

from tritonkit import doctor
from tritonkit.engines import cuda, cuda_here, node
from tritonkit.engines.cuda_here import Verdict
from tritonkit.engines.node import NodeGpu
from tritonkit.errors import MissingError
from tritonkit.server import Runtime, runtime

H200 = NodeGpu("NVIDIA H200", (9, 0), 143771 * 2**20, "GPU-5f", "580.159.04")
needs_gpu = pytest.mark.skipif(shutil.which("nvidia-smi") is None, reason="needs an NVIDIA GPU")


def test_nvidia_smi_is_read_with_and_without_a_driver_version() -> None:
    assert node.parse_gpu("NVIDIA H200, 9.0, 143771, GPU-5f, 580.159.04") == H200
    assert node.parse_gpu("NVIDIA A10G, 8.6, 23028, GPU-5f") == NodeGpu("NVIDIA A10G", (8, 6), 23028 * 2**20, "GPU-5f")
    assert node.parse_gpu("No devices were found") is None


@pytest.mark.parametrize(
    ("driver", "newest"),
    [
        ("580.159.04", "13.0"),
        ("610.1", "13.0"),
        ("579.9", "12.9"),
        ("550.54.15", "12.4"),
        ("535.183.01", "12.2"),
        ("440.33", ""),
        ("", ""),
    ],
)
def test_a_driver_runs_cuda_up_to_a_version(driver: str, newest: str) -> None:
    assert cuda.newest_cuda(driver) == newest


def test_an_old_driver_and_an_old_gpu_are_refused_with_what_is_needed() -> None:
    assert cuda.obstacle("580.65", (7, 5)) is None
    assert cuda.obstacle("", (9, 0)) is None  # unknown: the trial will say
    text, fix = cuda.obstacle("550.54.15", (9, 0)) or ("", "")
    assert text == "the driver is 550.54.15, which runs CUDA up to 12.4; CUDA 13 needs 580 or newer"
    assert "driver 580 or newer" in fix
    text, _ = cuda.obstacle("580.65", (7, 0)) or ("", "")
    assert text.startswith("compute capability 7.0 is below 7.5")


def test_the_driver_rule_is_that_of_the_cuda_libraries_that_are_installed() -> None:
    requirements = (runtime.BACKENDS.parent / "requirements-cuda.txt").read_text(encoding="utf-8")
    assert f"nvidia-cuda-runtime=={cuda.CUDA}." in requirements


def test_nothing_is_tried_on_a_gpu_that_cannot_run_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cuda_here, "probe", lambda *_: pytest.fail("tried"))
    assert cuda_here.examine(replace(H200, driver="535.183.01")).works is False

    def missing(_device: str) -> Runtime:
        raise MissingError("no", "no")

    monkeypatch.setattr(runtime, "find", missing)
    verdict = cuda_here.examine(H200)
    assert (verdict.works, verdict.fix) == (None, "tritonkit install-server --device cuda")


@pytest.mark.parametrize(
    ("code", "out", "err", "line"),
    [
        (0, "ok\n", "a warning that does not matter: error\n", ""),
        (0, "CUDAExecutionProvider did not start\n",
         "\x1b[1;31m2026-11-29 20:00:00.1 [E:onnxruntime:Default, provider_bridge_ort.cc:2 TryGet] Failed to load library "
         "libonnxruntime_providers_cuda.so: libcublasLt.so.13: cannot open shared object file\x1b[m\n",
         "CUDAExecutionProvider did not start: Failed to load library libonnxruntime_providers_cuda.so: libcublasLt.so.13: "
         "cannot open shared object file"),
        (-11, "", "", "the trial ended with signal 11"),
        (1, "", "Traceback …\nModuleNotFoundError: No module named 'onnxruntime'\n",
         "the trial ended with exit code 1: ModuleNotFoundError: No module named 'onnxruntime'"),
        (0, "", "", "the trial said nothing"),
    ],
)  # fmt: skip
def test_a_failed_trial_is_one_line_with_its_cause(code: int, out: str, err: str, line: str) -> None:
    assert cuda_here.reason(code, out, err) == line


def test_the_trial_runs_in_the_servers_own_environment_and_is_bounded(installed_server: Runtime) -> None:
    """On a CPU: the same graph, binding and replays; only the capture is left out."""
    assert cuda_here.probe(installed_server, "cpu") == ""
    assert cuda_here.probe(installed_server, "cpu", timeout_s=0.05) == "the trial did not end within 0.05 s"
    if installed_server.device == "cpu":
        assert "is the CPU build" in cuda_here.probe(installed_server, "cuda")


def test_a_wrong_answer_is_reported(installed_server: Runtime, monkeypatch: pytest.MonkeyPatch) -> None:
    tripling = cuda_here.tiny_graph(3)
    monkeypatch.setattr(cuda_here, "tiny_graph", lambda: tripling)
    assert cuda_here.probe(installed_server, "cpu") == "run 1 of 3 gave a wrong answer"


def test_doctor_says_of_each_gpu_what_it_is_and_whether_the_path_works(monkeypatch: pytest.MonkeyPatch) -> None:
    old = replace(H200, driver="550.54.15", uuid="GPU-60")
    monkeypatch.setattr(node, "gpus", lambda: (H200, old))
    monkeypatch.setattr(cuda_here, "probe", lambda *_: "")
    monkeypatch.setattr(runtime, "find", lambda _device: None)
    findings = {finding.name: finding for finding in doctor.gpus()}
    assert findings["NVIDIA GPU 0"].detail == (
        "NVIDIA H200, compute capability 9.0, 140.4 GiB, driver 580.159.04 (CUDA 13.0)"
    )
    assert findings["target cuda 0"].present
    assert not findings["target cuda 1"].present
    assert "CUDA 13 needs 580" in findings["target cuda 1"].detail
    assert findings["target cuda 1"].fix
    assert not any(finding.needed for finding in findings.values())


def test_a_driver_that_is_too_old_for_the_question_is_still_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(node, "gpus", lambda: ())
    monkeypatch.setattr(
        doctor, "_program", lambda *_: doctor.Finding("nvidia-smi", True, "470.82.01\n470.82.01", False)
    )
    (finding,) = doctor.gpus()
    assert (finding.present, finding.detail) == (
        False, "the driver is 470.82.01, which runs CUDA up to 11.4; CUDA 13 needs 580 or newer",
    )  # fmt: skip


@needs_gpu
def test_the_path_works_on_every_gpu_of_this_machine() -> None:
    gpus = node.gpus()
    assert gpus
    assert [cuda_here.examine(gpu) for gpu in gpus] == [
        Verdict(True, "a CUDA graph was captured and replayed, with right answers")
    ] * len(gpus)
