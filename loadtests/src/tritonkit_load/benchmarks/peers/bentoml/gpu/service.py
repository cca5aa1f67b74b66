"""One ONNX model on a GPU behind BentoML: raw tensors in the body; a second service gathers and runs batches."""

import json
import os
from typing import Annotated

import bentoml
import numpy as np
import onnxruntime
from bentoml.validators import ContentType

MAX_BATCH_SIZE, WORKERS = int(os.environ["MAX_BATCH_SIZE"]), int(os.environ["WORKERS"])
FIXED = os.environ["FIXED"] == "1"  # every batch has the same size: onnxruntime prepares convolutions for each new one
DTYPES = {"tensor(uint8)": np.uint8, "tensor(int64)": np.int64}
QUIET = {"metrics": {"enabled": False}, "logging": {"access": {"enabled": False}}}
Raw = Annotated[bytes, ContentType("application/octet-stream")]


@bentoml.service(workers=1, threads=1, resources={"gpu": 1}, **QUIET)
class Batches:
    """Runs the graph on what BentoML's adaptive batching gathers."""

    def __init__(self):
        onnxruntime.preload_dlls()
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        provider = ("CUDAExecutionProvider", json.loads(os.environ["CUDA_OPTIONS"]))
        self.session = onnxruntime.InferenceSession(os.environ["MODEL"], options, providers=[provider])
        assert self.session.get_providers()[0] == provider[0], "onnxruntime did not start on the GPU"
        self.inputs = self.session.get_inputs()
        self.shape = [-1 if isinstance(dim, str) else dim for dim in self.inputs[0].shape[1:]]

    @bentoml.api(batchable=True, max_batch_size=MAX_BATCH_SIZE)
    def predict(self, bodies: list[bytes]) -> list[bytes]:
        """One answer a body."""
        rows = zip(*(self.decode(body) for body in bodies))
        feed = {tensor.name: self.stack(column) for tensor, column in zip(self.inputs, rows)}
        return [row.tobytes() for row in self.session.run(None, feed)[0][: len(bodies)]]

    def decode(self, body):
        """One array an input; the inputs lie one behind the other and are of equal size."""
        parts = np.frombuffer(body, DTYPES[self.inputs[0].type]).reshape(len(self.inputs), -1)
        return [part.reshape(self.shape) for part in parts]

    def stack(self, rows):
        """One batch, with zeros where rows are shorter than the longest, and for the rows that a fixed size lacks."""
        shape = np.max([row.shape for row in rows], axis=0)
        batch = np.zeros((MAX_BATCH_SIZE if FIXED else len(rows), *shape), rows[0].dtype)
        for place, row in zip(batch, rows):
            place[tuple(map(slice, row.shape))] = row
        return batch


@bentoml.service(workers=WORKERS, **QUIET)
class Model:
    """Takes requests, and hands each to the service that runs the graph."""

    batches = bentoml.depends(Batches)

    @bentoml.api
    async def predict(self, body: Raw, /) -> Raw:
        """The first output's numbers."""
        return (await self.batches.to_async.predict([body]))[0]
