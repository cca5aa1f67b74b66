"""What this machine can do, and what is missing for the rest, each with the command that adds it."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib import metadata

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
    """Look at everything once; takes under two seconds and changes nothing."""
    return [
        Finding("Python", True, sys.version.split()[0], needed=True),
        _package("onnxruntime", "runs and checks graphs", 'pip install "tritonkit[cpu]"', ("onnxruntime-gpu",)),
        _package("torch", "exports PyTorch models", 'pip install "tritonkit[torch]"'),
        _package("transformers", "reads Hugging Face directories", 'pip install "tritonkit[hf]"', needed=False),
        _package("tritonkit-client", "calls the server", "pip install tritonkit-client"),
        _package("locust", "load tests", "pip install locust"),
        _server(),
        _gpu(),
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
        found = runtime.find()
    except MissingError as error:
        return Finding("Triton server", False, "serves models on this machine", True, error.fix)
    version = runtime.WHEEL.replace("==", " ")
    return Finding("Triton server", True, f"{version} for {found.device}, Python {found.interpreter.version}", True)


def _gpu() -> Finding:
    query = ["--query-gpu=name,driver_version,memory.total", "--format=csv,noheader"]
    found = _program("nvidia-smi", query, "", "", str.strip)
    if found.present:
        return Finding("NVIDIA GPU", True, "; ".join(found.detail.splitlines()), needed=False)
    return Finding(
        "NVIDIA GPU", False, "cuda and tensorrt targets", False, "run on a machine with a GPU and its driver"
    )


def _container() -> Finding:
    for name in ("docker", "podman", "nerdctl"):
        found = _program(name, ["version", "--format", "{{.Server.Version}}"], "", "", str.strip)
        if found.present:
            return Finding("container runtime", True, f"{name} {found.detail}", needed=False)
    return Finding(
        "container runtime", False, "runs the NVIDIA image", False, "start Docker or Podman; build, serve work without"
    )


def _program(
    name: str, arguments: Sequence[str], purpose: str, fix: str, read: Callable[[str], str] = str.strip
) -> Finding:
    path = shutil.which(name)
    if path:
        try:
            done = subprocess.run([path, *arguments], capture_output=True, text=True, timeout=10, check=True)
            return Finding(name, True, read(done.stdout), needed=False)
        except (OSError, subprocess.SubprocessError, ValueError, KeyError):
            purpose = f"{path} is there but does not work; {purpose}"
    return Finding(name, False, purpose, False, fix)


def _kubectl_version(text: str) -> str:
    return str(json.loads(text)["clientVersion"]["gitVersion"])
