"""Gives each peer an environment of its own, from its file of exact versions: made once, kept in tritonkit's home."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
from pathlib import Path

from peers.catalog import Peer
from tritonkit import store
from tritonkit.errors import MissingError
from tritonkit.server import runtime
from tritonkit.server.runtime import Interpreter

INSTALLS_S = 900  # the largest downloads some 250 MB


def interpreter() -> Interpreter:
    """The Python that all servers run on: the one inside our Triton."""
    return runtime.find().interpreter


def installed(peer: Peer) -> bool:
    """Whether :func:`install` has nothing to do."""
    return (_home(peer) / "complete").is_file()


def programs(peer: Peer) -> Path:
    """The folder of programs of a peer's environment."""
    return _home(peer) / "bin"


def install(peer: Peer) -> None:
    """Make the environment if it is not there.

    Raises:
        MissingError: A package cannot be had.
    """
    home = _home(peer)
    if installed(peer):
        return
    shutil.rmtree(home, ignore_errors=True)
    _run(peer, interpreter().executable, "-m", "venv", str(home))
    _run(
        peer, str(programs(peer) / "python"), "-m", "pip", "install", "--quiet", "--disable-pip-version-check",
        "--no-deps", "--only-binary=:all:", "-r", str(peer.requirements),
    )  # fmt: skip
    (home / "complete").touch()


def _home(peer: Peer) -> Path:
    said = f"{interpreter()}\n{peer.requirements.read_text(encoding='utf-8')}"
    return store.home() / "peers" / f"{peer.key}-{hashlib.sha256(said.encode()).hexdigest()[:12]}"


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
            f"its environment comes from the package index, by {peer.requirements}; check the network",
        )
