"""KServe's own server, from PyPI, in an environment of its own: another implementation of KServe v2 that we talk to."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from otherserver import OtherServer, environment, served

from tritonkit.server.ports import free_ports

# Its codec knows no BF16.
DATATYPES = (
    "BOOL", "INT8", "INT16", "INT32", "INT64", "UINT8", "UINT16", "UINT32", "UINT64", "FP16", "FP32", "FP64", "BYTES",
)  # fmt: skip

# It binds every interface and has no option for it: the loopback is put in where it asks for the others.
CODE = """
import asyncio
import sys

import grpc
import kserve
import numpy as np
import uvicorn

DATATYPES, http, grpc_port = sys.argv.pop(1).split(","), int(sys.argv.pop(1)), int(sys.argv.pop(1))

class Config(uvicorn.Config):
    def __init__(self, *args, **options):
        super().__init__(*args, **{**options, "host": "127.0.0.1"})

uvicorn.Config = Config
bind = grpc.aio.Server.add_insecure_port
grpc.aio.Server.add_insecure_port = lambda server, address: bind(server, address.replace("[::]", "127.0.0.1"))


class Model(kserve.Model):
    def __init__(self, name, inputs=(), outputs=()):
        super().__init__(name)
        self.ready = True
        self.inputs, self.outputs = inputs, outputs

    def get_input_types(self):
        return [{"name": name, "datatype": kind, "shape": shape} for name, kind, shape in self.inputs]

    def get_output_types(self):
        return [{"name": name, "datatype": kind, "shape": shape} for name, kind, shape in self.outputs]

    def answer(self, request, outputs):
        requested = [output.name for output in request.request_outputs or []]
        return kserve.InferResponse(
            request.id, self.name, [output for output in outputs if not requested or output.name in requested],
            use_binary_outputs=request.use_binary_outputs, requested_outputs=request.request_outputs,
        )


def output(name, datatype, array, binary=True):
    tensor = kserve.InferOutput(name, list(array.shape), datatype)
    if binary:
        tensor.set_data_from_numpy(array)
    else:
        tensor.data = array.reshape(-1).tolist()
    return tensor


class Identity(Model):
    async def predict(self, request, headers=None, response_headers=None):
        return self.answer(request, [
            output(i.name.replace("in_", "out_"), i.datatype, i.as_numpy()) for i in request.inputs
        ])


class NotReady(Identity):
    # Only what is ready when the server starts is served at all.
    async def healthy(self):
        return False


class Typed(Model):
    # Every second output in the typed form, over gRPC without raw bytes; over HTTP as JSON.
    async def predict(self, request, headers=None, response_headers=None):
        return kserve.InferResponse(request.id, self.name, [
            output(i.name.replace("in_", "out_"), i.datatype, i.as_numpy(), binary=bool(number % 2))
            for number, i in enumerate(request.inputs)
        ])


class Arithmetic(Model):
    async def predict(self, request, headers=None, response_headers=None):
        left, right = (request.get_input_by_name(name).as_numpy() for name in ("left", "right"))
        return self.answer(request, [output("sum", "FP32", left + right), output("difference", "FP32", left - right)])


class Sleep(Model):
    async def predict(self, request, headers=None, response_headers=None):
        seconds = request.inputs[0].as_numpy()
        if float(seconds.flat[0]) < 0:
            raise RuntimeError("sleep length must be non-negative")
        await asyncio.sleep(float(seconds.flat[0]))
        return self.answer(request, [output("slept", "FP32", seconds)])


def identity(name, datatypes):
    return Identity(name, *([(f"{side}_{kind}", kind, [-1, -1]) for kind in datatypes] for side in ("in", "out")))


row, single = [-1, 3], [-1, 1]
kserve.ModelServer(http_port=http, grpc_port=grpc_port, workers=1, enable_docs_url=False, grace_period=1).start([
    identity("identity", DATATYPES), *[identity(f"identity_{kind}", [kind]) for kind in DATATYPES],
    Identity("undeclared"), Typed("typed"), NotReady("not_ready"),
    Arithmetic(
        "arithmetic", [("left", "FP32", row), ("right", "FP32", row)], [("sum", "FP32", row), ("difference", "FP32", row)]
    ),
    Sleep("sleep", [("timeout", "FP32", single)], [("slept", "FP32", single)]),
])
"""


@contextmanager
def running(folder: Path) -> Iterator[OtherServer]:
    """Serve one identity model for every datatype, ``identity`` for all of them, ``arithmetic`` and ``sleep``; besides
    them ``undeclared``, an identity that declares nothing, ``typed``, whose outputs are not all in raw form, and
    ``not_ready``.
    """
    python = environment("kserve") / "python"
    http, grpc = free_ports(2)
    (folder / "server.py").write_text(CODE, encoding="utf-8")
    command = [str(python), "server.py", ",".join(DATATYPES), str(http), str(grpc)]
    with served(command, folder, grpc, http, "sleep") as server:
        yield server
