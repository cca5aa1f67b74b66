"""Finds and installs the embedded Triton: the real ``tritonserver`` binary and an environment of its own.

The binary and its Python backend come out of the ``nvidia-pytriton`` wheel, used as files. Its stub was
compiled against numpy 1, so what runs inside it (onnxruntime) is installed apart from tritonkit's own packages.
"""

from __future__ import annotations

import hashlib
import importlib.util
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from tritonkit import atomic, machine, progress, store
from tritonkit.errors import MissingError
from tritonkit.repository import model_directory, ownership

Device = Literal["cpu", "cuda"]
WHEEL = "nvidia-pytriton==0.7.0"  # tritonserver 2.51.0
RELEASE = "24.10"  # whose server that is
PYTHONS = (
    "3.11",
    "3.12",
)  # numpy 1.26 has no wheels for a newer one, the wheel no stub for an older one we run on
BACKENDS = Path(__file__).parent / "backends"
# The names under which a configuration finds our backends, and the folder of each.
BACKEND_FOLDERS = {
    "onnxruntime": BACKENDS / "onnxruntime",
    "tritonkit_onnxruntime": BACKENDS / "onnxruntime",
    "fil": BACKENDS / "fil",
    "vllm": BACKENDS / "vllm",
}


@dataclass(frozen=True)
class Interpreter:
    """A Python whose shared library the backend's stub can load.

    Attributes:
        version: ``3.11``, for example.
        library_directory: Where its ``libpython`` lies.
        executable: The interpreter itself, outside any virtual environment.
    """

    version: str
    library_directory: str
    executable: str


@dataclass(frozen=True)
class Runtime:
    """An installed embedded server, for one device and one interpreter.

    Attributes:
        path: Its folder.
        interpreter: What its Python models run in.
        device: What onnxruntime is installed for.
        packages: What its Python models may import beyond that, each ``name==version``.
    """

    path: Path
    interpreter: Interpreter
    device: Device
    packages: tuple[str, ...] = ()

    @property
    def python_environment(self) -> Path:
        """The environment of its Python models: the server's own, or one over it with ``packages``."""
        if not self.packages:
            return self.path / "env"
        key = hashlib.sha256("\n".join(self.packages).encode()).hexdigest()[:12]
        return self.path.with_name(f"{self.path.name}-packages-{key}")

    def with_packages(self, packages: Iterable[str], repository: Path) -> Runtime:
        """The same server, whose Python models find these packages.

        Args:
            packages: Each ``name==version``.
            repository: Whose models import them.

        Raises:
            MissingError: The packages are not installed for this server.
        """
        equipped = replace(self, packages=tuple(sorted(set(packages))))
        if not equipped.python_environment.is_dir():
            raise MissingError(
                f"Python models here need {', '.join(equipped.packages)}, which the Triton server does not have",
                f"run `tritonkit install-server {repository}`",
            )
        return equipped

    @property
    def binary(self) -> Path:
        """The ``tritonserver`` executable."""
        return self.path / "triton/pytriton/tritonserver/bin/tritonserver"

    @property
    def python_backend(self) -> Path:
        """The Python backend's folder, with the interpreter's stub in it."""
        return self.path / "triton/pytriton/tritonserver/backends/python"

    @property
    def cache_directory(self) -> Path:
        """The folder of response caches."""
        return self.path / "triton/pytriton/tritonserver/caches"

    def environment(self) -> dict[str, str]:
        """The variables that the server and its stubs need, over this process's own."""
        variables = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
        libraries = [self.interpreter.library_directory, str(self.path / "triton/nvidia_pytriton.libs")]
        return variables | {
            "LD_LIBRARY_PATH": os.pathsep.join([*libraries, *filter(None, [variables.get("LD_LIBRARY_PATH")])]),
            # The stub's interpreter ignores PYTHONPATH and PYTHONHOME (it starts isolated), but finds its packages
            # as any Python does: from the pyvenv.cfg beside the first python3 on the PATH.
            "PATH": os.pathsep.join([str(self.python_environment / "bin"), variables.get("PATH", os.defpath)]),
            "ORT_DISABLE_TELEMETRY": "1",
            "TRITONKIT_LIBRARY_PATH": variables.get("LD_LIBRARY_PATH", ""),  # as it was, for what is not the server
        }


def find(device: Device | None = None) -> Runtime:
    """The installed server.

    Raises:
        MissingError: The server is not installed, or this machine cannot run it.
    """
    _check_machine()
    device = device or detect_device()
    interpreter = find_interpreter()
    runtime = Runtime(_home(device, interpreter), interpreter, device)
    if not (runtime.path / "complete").is_file():
        raise MissingError(
            f"the Triton server is not installed (PyPI package {WHEEL})", "run `tritonkit install-server`"
        )
    return runtime


def install(device: Device | None = None) -> Runtime:
    """Install the server if it is not installed yet, into tritonkit's home; nothing else is touched.

    Raises:
        MissingError: A package cannot be had, or this machine cannot run the server.
    """
    device = device or detect_device()
    _check_machine()
    interpreter = find_interpreter()
    target = _home(device, interpreter)
    runtime = Runtime(target, interpreter, device)
    if (target / "complete").is_file():
        return runtime
    with progress.steps("Triton server", 3) as steps, atomic.staging(target) as stage:
        steps.next(f"download {WHEEL}")
        pip(interpreter, "--no-deps", "--target", str(stage / "triton"), WHEEL)
        steps.next(f"install onnxruntime for {device}")
        requirements = Path(__file__).with_name(f"requirements-{device}.txt")
        pip(
            interpreter,
            "--no-deps",
            "--target",
            str(make_environment(stage / "env", interpreter)),
            "-r",
            str(requirements),
        )
        steps.next("put it together")
        server = stage / "triton/pytriton/tritonserver"
        stub = server / "python_backend_stubs" / interpreter.version / "triton_python_backend_stub"
        shutil.copy2(stub, server / "backends/python")
        shutil.rmtree(server / "python_backend_stubs")
        for executable in (
            server / "backends/python/triton_python_backend_stub",
            server / "bin/tritonserver",
        ):
            executable.chmod(0o755)
        (stage / "complete").write_text(WHEEL + "\n", encoding="utf-8")
        stage.chmod(0o755)
        atomic.put(stage, target)
    return runtime


def install_packages(runtime: Runtime, packages: Iterable[str]) -> Runtime:
    """Install what Python models import, in an environment over the server's own; what is there already stays.

    Raises:
        MissingError: A package cannot be had.
    """
    equipped = replace(runtime, packages=tuple(sorted(set(packages))))
    if equipped.python_environment.is_dir():
        return equipped
    requirements = Path(__file__).with_name(f"requirements-{runtime.device}.txt")
    own = runtime.path / f"env/lib/python{runtime.interpreter.version}/site-packages"
    with progress.steps("packages", 1) as steps, atomic.staging(equipped.python_environment) as stage:
        steps.next(f"install {', '.join(equipped.packages)}")
        place = make_environment(stage, runtime.interpreter)
        pip(runtime.interpreter, "--target", str(place), "-c", str(requirements), *equipped.packages)
        (place / "tritonkit-server.pth").write_text(f"{own}\n", encoding="utf-8")
        stage.chmod(0o755)
        atomic.put(stage, equipped.python_environment)
    return equipped


def packages_of(repository: Path) -> set[str]:
    """What the Python models of a repository import, as their passports say: each ``name==version``."""
    return ownership.packages_of(path.parent for path in repository.glob(f"*/{model_directory.PASSPORT}"))


def _check_machine() -> None:
    here = machine.support()
    if not here.server:
        raise MissingError(here.problem, here.fix)


def detect_device() -> Device:
    """``cuda`` where an NVIDIA driver is loaded, else ``cpu``."""
    return "cuda" if Path("/dev/nvidiactl").exists() else "cpu"


def _home(device: Device, interpreter: Interpreter) -> Path:
    requirements = Path(__file__).with_name(f"requirements-{device}.txt").read_text(encoding="utf-8")
    key = hashlib.sha256(f"{WHEEL}\n{requirements}\n{interpreter}".encode()).hexdigest()[:12]
    return store.home() / "server" / f"{device}-py{interpreter.version}-{key}"


def find_interpreter() -> Interpreter:
    """This process's Python if the stub can use it, else another on the PATH.

    Raises:
        MissingError: No Python on this machine can run inside the server.
    """
    candidates = [sys.executable, *filter(None, (shutil.which(f"python{version}") for version in PYTHONS))]
    reasons = []
    for candidate in candidates:
        result = _inspect(candidate)
        if isinstance(result, Interpreter):
            return result
        reasons.append(result)
    raise MissingError(
        "no Python on this machine can run inside the server:\n" + "\n".join(f"  - {reason}" for reason in reasons),
        f"install Python {' or '.join(PYTHONS)} with its shared library: the package libpython3.11 on Debian and "
        "Ubuntu, `uv python install 3.12`, or pyenv with PYTHON_CONFIGURE_OPTS=--enable-shared",
    )


def _inspect(executable: str) -> Interpreter | str:
    code = (
        "import json,sys,sysconfig as s;print(json.dumps(['%d.%d'%sys.version_info[:2],"
        "s.get_config_var('LIBDIR'),s.get_config_var('INSTSONAME'),sys.base_prefix,s.get_config_var('MULTIARCH')]))"
    )
    try:
        completed = subprocess.run([executable, "-c", code], capture_output=True, text=True, timeout=20, check=True)
        version, directory, name, prefix, multiarch = json.loads(completed.stdout)
    except (OSError, subprocess.SubprocessError, ValueError) as error:
        return f"{executable} does not run: {error}"
    if version not in PYTHONS:
        return f"{executable} is Python {version}"
    places = [Path(directory or ""), Path(prefix) / "lib", Path(directory or "") / (multiarch or "")]
    for place in places:
        if name and name.endswith(("so", "1.0")) and (place / name).is_file():
            return Interpreter(version, str(place), f"{prefix}/bin/python{version}")
    return f"{executable} has no shared library (libpython{version}.so.1.0)"


def make_environment(path: Path, interpreter: Interpreter) -> Path:
    """Lay out the least that Python takes for a virtual environment; returns its site-packages, still absent."""
    (path / "bin").mkdir(parents=True)
    (path / "bin/python3").symlink_to(interpreter.executable)
    home = Path(interpreter.executable).parent
    (path / "pyvenv.cfg").write_text(f"home = {home}\ninclude-system-site-packages = false\n", encoding="utf-8")
    return path / f"lib/python{interpreter.version}/site-packages"


def pip(interpreter: Interpreter, *arguments: str) -> None:
    """Install wheels for an interpreter, with pip or uv.

    Args:
        interpreter: What they are for.
        arguments: More of ``pip install``'s own; the last one is what is installed.

    Raises:
        MissingError: There is no installer, or a package cannot be had.
    """
    if importlib.util.find_spec("pip"):
        command = [
            sys.executable,
            "-m",
            "pip",
            "install",
            "--quiet",
            "--disable-pip-version-check",
            "--no-compile",
        ]
        command += ["--only-binary=:all:", "--python-version", interpreter.version, "--implementation", "cp"]
    elif uv := shutil.which("uv"):
        command = [
            uv,
            "pip",
            "install",
            "--quiet",
            "--only-binary=:all:",
            "--python-version",
            interpreter.version,
        ]
    else:
        raise MissingError("neither pip nor uv can be found", "python -m ensurepip")
    done = subprocess.run([*command, *arguments], capture_output=True, text=True, check=False)
    if done.returncode:
        problem, fix = machine.explain_installer(done.stderr)
        raise MissingError(f"installing {arguments[-1]} failed: {problem}", fix)
