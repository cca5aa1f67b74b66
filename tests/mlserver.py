"""A real MLServer, from PyPI, in an environment of its own: the second implementation of KServe v2 that we talk to.

The environment is made once, beside the embedded Triton (about a minute, and a network), and kept.
"""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from tritonkit import store
from tritonkit_client import Client, TritonkitClientError

REQUIREMENTS = Path(__file__).with_name("requirements-mlserver.txt")
Tensors = Iterable[tuple[str, str, list[int]]]  # name, datatype, shape
DATATYPES = ("BOOL", "INT8", "INT16", "INT32", "INT64", "UINT8", "UINT16", "UINT32", "UINT64", "FP32", "FP64", "BYTES")

CODE = """
import asyncio
import numpy as np
from mlserver import MLModel
from mlserver.codecs import NumpyCodec
from mlserver.types import InferenceResponse, ResponseOutput

class Model(MLModel):
    def answer(self, request, outputs):
        wanted = {output.name for output in request.outputs or []}
        kept = [output for output in outputs if not wanted or output.name in wanted]
        return InferenceResponse(model_name=self.name, model_version=self.version, outputs=kept)

class Identity(Model):
    async def predict(self, request):
        return self.answer(request, [
            ResponseOutput(name=i.name.replace("in_", "out_"), shape=i.shape, datatype=i.datatype, data=i.data)
            for i in request.inputs
        ])

class Arithmetic(Model):
    async def predict(self, request):
        given = {i.name: NumpyCodec.decode_input(i).astype(np.float32) for i in request.inputs}
        found = {"sum": given["left"] + given["right"], "difference": given["left"] - given["right"]}
        return self.answer(request, [NumpyCodec.encode_output(name, value) for name, value in found.items()])

class Sleep(Model):
    async def predict(self, request):
        seconds = NumpyCodec.decode_input(request.inputs[0]).astype(np.float32)
        if float(seconds.flat[0]) < 0:
            raise RuntimeError("sleep length must be non-negative")
        await asyncio.sleep(float(seconds.flat[0]))
        return self.answer(request, [NumpyCodec.encode_output("slept", seconds)])
"""


@dataclass(frozen=True)
class MLServer:
    """Where it listens."""

    grpc_url: str
    http_url: str


@contextmanager
def running(folder: Path) -> Iterator[MLServer]:
    """Serve one identity model for every datatype, ``identity`` for all of them, ``arithmetic`` and ``sleep``."""
    command = _environment()
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(3)]
    http, grpc, metrics = (sock.getsockname()[1] for sock in sockets)
    for sock in sockets:
        sock.close()
    _write(folder, {"http_port": http, "grpc_port": grpc, "metrics_port": metrics})
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen([command, "start", folder], cwd=folder, stdout=log, stderr=subprocess.STDOUT)
        try:
            found = MLServer(f"grpc://127.0.0.1:{grpc}", f"http://127.0.0.1:{http}")
            for url in (found.http_url, found.grpc_url):
                _wait_for(url, process, folder / "log")
            yield found
        finally:
            process.terminate()
            try:
                process.wait(10)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def _environment() -> Path:
    """The command of MLServer's environment, made anew when its requirements changed."""
    folder = store.home() / "peers" / f"mlserver-py{sys.version_info.major}.{sys.version_info.minor}"
    wanted = REQUIREMENTS.read_text(encoding="utf-8")
    done = folder / "requirements.txt"
    if not done.is_file() or done.read_text(encoding="utf-8") != wanted:
        shutil.rmtree(folder, ignore_errors=True)
        subprocess.run([sys.executable, "-m", "venv", folder], check=True)
        install = [str(folder / "bin/python"), "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
        made = subprocess.run([*install, "-r", REQUIREMENTS], capture_output=True, text=True, timeout=280, check=False)
        if made.returncode:
            reason = f"MLServer cannot be installed: {made.stderr.strip().splitlines()[-1:]}"
            if os.environ.get("CI") == "true":
                pytest.fail(reason)
            pytest.skip(reason)
        done.write_text(wanted, encoding="utf-8")
    return folder / "bin/mlserver"


def _write(folder: Path, ports: Mapping[str, int]) -> None:
    settings = {"debug": False, "host": "127.0.0.1", "parallel_workers": 0, "metrics_dir": str(folder), **ports}
    (folder / "settings.json").write_text(json.dumps(settings))
    for datatypes in (DATATYPES, *[(name,) for name in DATATYPES]):
        inputs, outputs = ([(f"{kind}_{name}", name, [-1, -1]) for name in datatypes] for kind in ("in", "out"))
        name = "identity" if datatypes is DATATYPES else f"identity_{datatypes[0]}"
        _model(folder, name, "Identity", inputs, outputs)
    row = [-1, 3]
    results = [("sum", "FP32", row), ("difference", "FP32", row)]
    _model(folder, "arithmetic", "Arithmetic", [("left", "FP32", row), ("right", "FP32", row)], results)
    _model(folder, "sleep", "Sleep", [("timeout", "FP32", [-1, 1])], [("slept", "FP32", [-1, 1])])


def _model(folder: Path, name: str, implementation: str, inputs: Tensors, outputs: Tensors) -> None:
    described = {
        side: [{"name": tensor, "datatype": datatype, "shape": shape} for tensor, datatype, shape in tensors]
        for side, tensors in (("inputs", inputs), ("outputs", outputs))
    }
    (folder / name).mkdir()
    (folder / name / "model.py").write_text(CODE)
    settings = {"name": name, "implementation": f"model.{implementation}", **described}
    (folder / name / "model-settings.json").write_text(json.dumps(settings))


def _wait_for(url: str, process: subprocess.Popen[bytes], log: Path) -> None:
    end = time.monotonic() + 60
    with Client(url, timeout=2) as client:
        while time.monotonic() < end and process.poll() is None:
            try:
                if client.ready() and client.model_ready("sleep"):
                    return
            except TritonkitClientError:
                time.sleep(0.1)
    raise TimeoutError(f"MLServer did not start:\n{log.read_text(encoding='utf-8')[-2000:]}")
