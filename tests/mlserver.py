"""A real MLServer, from PyPI, in an environment of its own: another implementation of KServe v2 that we talk to."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from otherserver import OtherServer, Tensors, environment, served

from tritonkit.server.ports import free_ports

DATATYPES = ("BOOL", "INT8", "INT16", "INT32", "INT64", "UINT8", "UINT16", "UINT32", "UINT64", "FP32", "FP64", "BYTES")

CODE = """
import asyncio
import numpy as np
from mlserver import MLModel
from mlserver.codecs import NumpyCodec
from mlserver.types import InferenceResponse, ResponseOutput

class Model(MLModel):
    def answer(self, request, outputs):
        requested = {output.name for output in request.outputs or []}
        kept = [output for output in outputs if not requested or output.name in requested]
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
        results = {"sum": given["left"] + given["right"], "difference": given["left"] - given["right"]}
        return self.answer(request, [NumpyCodec.encode_output(name, value) for name, value in results.items()])

class Sleep(Model):
    async def predict(self, request):
        seconds = NumpyCodec.decode_input(request.inputs[0]).astype(np.float32)
        if float(seconds.flat[0]) < 0:
            raise RuntimeError("sleep length must be non-negative")
        await asyncio.sleep(float(seconds.flat[0]))
        return self.answer(request, [NumpyCodec.encode_output("slept", seconds)])
"""


@contextmanager
def running(folder: Path) -> Iterator[OtherServer]:
    """Serve one identity model for every datatype, ``identity`` for all of them, ``arithmetic`` and ``sleep``; besides
    them ``undeclared``, an identity that declares nothing, and ``versioned``, one whose version is ``v0.1.0``.
    """
    command = str(environment("mlserver") / "mlserver")
    http, grpc, metrics = free_ports(3)
    _write(folder, {"http_port": http, "grpc_port": grpc, "metrics_port": metrics})
    with served([command, "start", str(folder)], folder, grpc, http, "sleep") as server:
        yield server


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
    _model(folder, "undeclared", "Identity")
    _model(folder, "versioned", "Identity", parameters={"version": "v0.1.0"})
    _model(folder, "sleep", "Sleep", [("timeout", "FP32", [-1, 1])], [("slept", "FP32", [-1, 1])])


def _model(
    folder: Path,
    name: str,
    implementation: str,
    inputs: Tensors = (),
    outputs: Tensors = (),
    parameters: Mapping[str, str] | None = None,
) -> None:
    described = {
        side: [{"name": tensor, "datatype": datatype, "shape": shape} for tensor, datatype, shape in tensors]
        for side, tensors in (("inputs", inputs), ("outputs", outputs))
        if tensors
    }
    (folder / name).mkdir()
    (folder / name / "model.py").write_text(CODE)
    settings: dict[str, Any] = {"name": name, "implementation": f"model.{implementation}", **described}
    if parameters:
        settings["parameters"] = dict(parameters)
    (folder / name / "model-settings.json").write_text(json.dumps(settings))
