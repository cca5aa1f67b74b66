"""Gives each peer an environment of its own, from its file of exact versions: made once, kept in tritonkit's home.

For a GPU, onnxruntime and the CUDA libraries are those of the embedded server, linked: the same files for everybody.
"""

from __future__ import annotations

import hashlib
import importlib.util
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from tritonkit import atomic, store
from tritonkit.errors import MissingError
from tritonkit.server import runtime
from tritonkit.server.runtime import Interpreter
from tritonkit_load.benchmarks.peers.catalog import Peer
from tritonkit_load.load.target import Target

INSTALLS_S = 900  # the largest downloads some 250 MB
RUNTIME = "onnxruntime"
LINKED = ("onnxruntime*", "nvidia")  # in the embedded server's packages


def interpreter() -> Interpreter:
    """The Python that all servers run on: the one inside our Triton."""
    return runtime.find().interpreter


def installed(peer: Peer, target: Target = "cpu") -> bool:
    """Whether :func:`install` has nothing to do."""
    return (_home(peer, target) / "complete").is_file()


def programs(peer: Peer, target: Target = "cpu") -> Path:
    """The folder of programs of a peer's environment."""
    return _home(peer, target) / "bin"


def install(peer: Peer, target: Target = "cpu") -> None:
    """Make the environment if it is not there.

    Packages come from where pip, or uv where there is no pip, is configured to look: ``PIP_NO_INDEX=1`` and
    ``PIP_FIND_LINKS=FOLDER`` (``UV_…``) name a folder of wheels for a machine that reaches no package index.

    Raises:
        MissingError: A package cannot be had.
    """
    home = _home(peer, target)
    with atomic.alone(home):  # an environment cannot be moved once it is made
        if not installed(peer, target):
            _install(peer, target, home)


def _install(peer: Peer, target: Target, home: Path) -> None:
    shutil.rmtree(home, ignore_errors=True)
    _run(peer, interpreter().executable, "-m", "venv", "--without-pip", str(home))
    with tempfile.TemporaryDirectory(prefix="tritonkit-peer-") as directory:
        listing = Path(directory, "requirements.txt")
        listing.write_text("\n".join(requirements(peer, target)) + "\n", encoding="utf-8")
        _run(peer, *_installer(home / "bin/python"), "--no-deps", "--only-binary=:all:", "-r", str(listing))
    if target == "cuda":
        link(_packages(runtime.find("cuda").path / "env"), _packages(home))
    (home / "complete").touch()


def requirements(peer: Peer, target: Target) -> list[str]:
    """Every distribution that is installed for a peer; onnxruntime for a GPU is linked, not installed."""
    pins = (f"{name}=={version}" for name, version in peer.pins.items() if target == "cpu" or name != RUNTIME)
    return sorted(pins)


def link(source: Path, target: Path) -> None:
    """Put onnxruntime and the CUDA libraries of one environment into another.

    Raises:
        MissingError: ``source`` lacks one of them.
    """
    for pattern in LINKED:
        places = sorted(source.glob(pattern))
        if not places:
            raise MissingError(f"{source} has no {pattern}", "`tritonkit install-server`, with the GPU's driver loaded")
        for place in places:
            (target / place.name).symlink_to(place.resolve())


def _packages(environment: Path) -> Path:
    return next((environment / "lib").glob("python*/site-packages"))


def _home(peer: Peer, target: Target) -> Path:
    text = f"{interpreter()}\n{peer.requirements.read_text(encoding='utf-8')}"
    if target == "cuda":
        text += f"\n{runtime.find('cuda').path}"
    kind = "-cuda" if target == "cuda" else ""
    return store.home() / "peers" / f"{peer.key}{kind}-{hashlib.sha256(text.encode()).hexdigest()[:12]}"


def _installer(python: Path) -> list[str]:
    """The command that installs into another environment; that one needs no pip of its own."""
    if importlib.util.find_spec("pip"):
        pip = [sys.executable, "-m", "pip", "--python", str(python), "install"]
        return [*pip, "--quiet", "--disable-pip-version-check"]
    if uv := shutil.which("uv"):
        return [uv, "pip", "install", "--quiet", "--python", str(python)]
    raise MissingError("neither pip nor uv can be found", "python -m ensurepip")


def _run(peer: Peer, *command: str) -> None:
    clean = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=INSTALLS_S, env=clean, check=False)
    except subprocess.TimeoutExpired as error:
        raise MissingError(f"installing {peer.name} took over {INSTALLS_S} s", "check the network") from error
    if done.returncode:
        reason = [line for line in done.stderr.splitlines() if line.startswith("ERROR")] or done.stderr.splitlines()
        raise MissingError(
            f"{peer.name} cannot be installed: {reason[-1] if reason else 'no reason given'}",
            f"its environment comes from the package index, by {peer.requirements}; check the network, or name a "
            "folder of wheels: PIP_NO_INDEX=1 PIP_FIND_LINKS=FOLDER",
        )
