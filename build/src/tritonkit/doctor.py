"""What this machine can do, and what is missing for the rest, each with the command that adds it.

GPUs are tried, not only listed: :mod:`tritonkit.engines.cuda_here`.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from importlib import metadata

from tritonkit import machine
from tritonkit.engines import cuda, cuda_here, node
from tritonkit.engines.cuda_here import Verdict
from tritonkit.engines.node import NodeGpu
from tritonkit.errors import MissingError
from tritonkit.server import runtime


@dataclass(frozen=True)
class Finding:
    """One thing a machine has or lacks.

    Attributes:
        name: What it is.
        present: Whether it is here.
        detail: Its version or place; what it is for, where it is missing.
        needed: Whether the first steps (build, serve, load test) need it.
        fix: The command that adds it; empty where it is present.
    """

    name: str
    present: bool
    detail: str
    needed: bool
    fix: str = ""


def examine() -> list[Finding]:
    """Look at everything once and change nothing: under two seconds, and up to half a minute where GPUs are tried."""
    return [
        Finding("Python", True, sys.version.split()[0], needed=True),
        _package("onnxruntime", "runs and checks graphs", 'pip install "tritonkit[cpu]"', ("onnxruntime-gpu",)),
        _package("torch", "exports PyTorch models", 'pip install "tritonkit[torch]"'),
        _package("transformers", "reads Hugging Face directories", 'pip install "tritonkit[hf]"', needed=False),
        _package("tritonkit-client", "calls the server", machine.CLIENT),
        _package("tritonkit-load", "load tests, capacity and tuning", machine.LOAD, needed=False),
        _server(),
        *gpus(),
        _package("tensorrt", "builds engines on a GPU machine", "pip install tensorrt", needed=False),
        _package("tensorrt-rtx", "checks engines without a GPU", "pip install tensorrt-rtx", needed=False),
        _program("helm", ["version", "--short"], "deploys to Kubernetes", "https://helm.sh/docs/intro/install"),
        _program("kubectl", ["version", "--client", "-o", "json"], "talks to the cluster",
                 "https://kubernetes.io/docs/tasks/tools", _kubectl_version),
        _container(),
    ]  # fmt: skip


def _package(name: str, purpose: str, fix: str, others: Sequence[str] = (), *, needed: bool = True) -> Finding:
    for candidate in (name, *others):
        try:
            return Finding(name, True, f"{candidate} {metadata.version(candidate)}", needed)
        except metadata.PackageNotFoundError:
            continue
    return Finding(name, False, purpose, needed, fix)


def _server() -> Finding:
    try:
        server = runtime.find()
    except MissingError as error:
        return Finding("Triton server", False, "serves models on this machine", True, error.fix)
    version = runtime.WHEEL.replace("==", " ")
    return Finding("Triton server", True, f"{version} for {server.device}, Python {server.interpreter.version}", True)


def gpus() -> list[Finding]:
    """Every GPU of this machine, each with a line that says whether ``--target cuda`` works on it."""
    here = node.gpus()
    if not here:
        return [_no_gpu()]
    with ThreadPoolExecutor(len(here)) as pool:
        verdicts = list(pool.map(cuda_here.examine, here))
    names = [f" {index}" if len(here) > 1 else "" for index in range(len(here))]
    return [
        finding
        for number, gpu, verdict in zip(names, here, verdicts, strict=True)
        for finding in describe(gpu, verdict, number)
    ]


def describe(gpu: NodeGpu, verdict: Verdict, number: str = "") -> list[Finding]:
    """What a GPU is, and whether ``--target cuda`` works on it; ``number`` tells several apart."""
    newest = cuda.newest_cuda(gpu.driver)
    driver = f"driver {gpu.driver}{f' (CUDA {newest})' if newest else ''}"
    description = f"{gpu.name}, compute capability {gpu.compute}, {gpu.memory_bytes / 2**30:.1f} GiB, {driver}"
    return [
        Finding(f"NVIDIA GPU{number}", True, description, needed=False),
        Finding(f"target cuda{number}", verdict.works is True, verdict.text, needed=False, fix=verdict.fix),
    ]


def _no_gpu() -> Finding:
    # Drivers before 510 do not know the query of `node.gpus`, but have a version.
    answer = _program("nvidia-smi", ["--query-gpu=driver_version", "--format=csv,noheader"], "", "")
    driver = (answer.detail.splitlines() or [""])[0].strip() if answer.present else ""
    if problem := cuda.obstacle(driver, cuda.CAPABILITY_SINCE):
        return Finding("NVIDIA GPU", False, problem[0], False, problem[1])
    purpose = f"cuda and tensorrt targets{f' ({answer.detail})' if answer.detail and not answer.present else ''}"
    return Finding("NVIDIA GPU", False, purpose, False, "run on a machine with a GPU and its driver")


def _container() -> Finding:
    for name in ("docker", "podman", "nerdctl"):
        finding = _program(name, ["version", "--format", "{{.Server.Version}}"], "", "", str.strip)
        if finding.present:
            return Finding("container runtime", True, f"{name} {finding.detail}", needed=False)
    return Finding(
        "container runtime", False, "runs the NVIDIA image", False, "start Docker or Podman; build, serve work without"
    )


def _program(
    name: str, arguments: Sequence[str], purpose: str, fix: str, read: Callable[[str], str] = str.strip
) -> Finding:
    path = shutil.which(name)
    if path:
        try:
            completed = subprocess.run([path, *arguments], capture_output=True, text=True, timeout=10, check=True)
            return Finding(name, True, read(completed.stdout), needed=False)
        except (OSError, subprocess.SubprocessError, ValueError, KeyError):
            purpose = f"{path} is there but does not work; {purpose}"
    return Finding(name, False, purpose, False, fix)


def _kubectl_version(text: str) -> str:
    return str(json.loads(text)["clientVersion"]["gitVersion"])
