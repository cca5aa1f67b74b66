"""Other implementations of KServe v2 than Triton, real ones from PyPI, each in an environment of its own.

An environment is made once, beside the embedded Triton (half a minute or a minute, and a network), and kept.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from tritonkit import atomic, store
from tritonkit_client import Client, TritonkitClientError

Tensors = Iterable[tuple[str, str, list[int]]]  # name, datatype, shape


@dataclass(frozen=True)
class OtherServer:
    """The addresses of a server."""

    grpc_url: str
    http_url: str


def environment(name: str) -> Path:
    """The ``bin`` folder of the environment of ``requirements-NAME.txt``, which is made anew when that file changed.

    Skips the test where it cannot be made; where CI is "true", fails it.
    """
    folder = store.home() / "peers" / f"{name}-py{sys.version_info.major}.{sys.version_info.minor}"
    requirements = Path(__file__).with_name(f"requirements-{name}.txt")
    with atomic.alone(folder):  # the suite runs in several processes
        if not _has(folder, requirements):
            _make(folder, requirements)
    return folder / "bin"


def _has(folder: Path, requirements: Path) -> bool:
    kept = folder / "requirements.txt"
    return kept.is_file() and kept.read_bytes() == requirements.read_bytes()


def _make(folder: Path, requirements: Path) -> None:
    shutil.rmtree(folder, ignore_errors=True)
    try:
        subprocess.run([sys.executable, "-m", "venv", folder], check=True)
        # The list is complete: nothing to resolve. Most of it is never imported: nothing to compile.
        options = ["--quiet", "--disable-pip-version-check", "--no-deps", "--no-compile", "-r", str(requirements)]
        command = [str(folder / "bin/python"), "-m", "pip", "install", *options]
        subprocess.run(command, capture_output=True, text=True, timeout=280, check=True)
    except (subprocess.SubprocessError, OSError) as error:
        shutil.rmtree(folder, ignore_errors=True)
        stderr = getattr(error, "stderr", None) if isinstance(error, subprocess.CalledProcessError) else None
        reason = (stderr or str(error)).strip().splitlines()[-1]
        refuse = pytest.fail if os.environ.get("CI") == "true" else pytest.skip
        refuse(f"the environment of {requirements.name} cannot be made: {reason}")
    shutil.copyfile(requirements, folder / "requirements.txt")


@contextmanager
def served(command: Sequence[str], folder: Path, grpc: int, http: int, model: str) -> Iterator[OtherServer]:
    """Run a server in a folder until the block ends, which begins once a model is ready over both protocols."""
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(command, cwd=folder, stdout=log, stderr=subprocess.STDOUT)
        try:
            server = OtherServer(f"grpc://127.0.0.1:{grpc}", f"http://127.0.0.1:{http}")
            for url in (server.http_url, server.grpc_url):
                _wait_for(url, model, process, folder / "log")
            yield server
        finally:
            process.terminate()
            try:
                process.wait(10)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def _wait_for(url: str, model: str, process: subprocess.Popen[bytes], log: Path) -> None:
    end = time.monotonic() + 60
    with Client(url, timeout=2) as client:
        while time.monotonic() < end and process.poll() is None:
            try:
                if client.ready() and client.model_ready(model):
                    return
            except TritonkitClientError:
                time.sleep(0.1)
    raise TimeoutError(f"the server did not start:\n{log.read_text(encoding='utf-8')[-2000:]}")
