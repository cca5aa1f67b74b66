"""One ONNX model on a GPU behind MLServer: raw tensors as one BYTES element, over gRPC."""

import json
import os

import numpy as np
import onnxruntime
from mlserver import MLModel
from mlserver.types import InferenceResponse, ResponseOutput

MAX_BATCH_SIZE = int(os.environ["MLSERVER_MODEL_MAX_BATCH_SIZE"])
FIXED = os.environ["FIXED"] == "1"  # every batch has the same size: onnxruntime prepares convolutions for each new one
DTYPES = {"tensor(uint8)": np.uint8, "tensor(int64)": np.int64}


class Onnx(MLModel):
    """Runs the graph that ``parameters.uri`` names."""

    async def load(self):
        """Open the session."""
        onnxruntime.preload_dlls()
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        provider = ("CUDAExecutionProvider", json.loads(os.environ["CUDA_OPTIONS"]))
        uri = self.settings.parameters.uri
        self.session = onnxruntime.InferenceSession(uri, options, providers=[provider])
        assert self.session.get_providers()[0] == provider[0], "onnxruntime did not start on the GPU"
        self.tensors = self.session.get_inputs()
        self.shape = [-1 if isinstance(dim, str) else dim for dim in self.tensors[0].shape[1:]]
        return True

    async def predict(self, payload):
        """One element an element: the first output's numbers."""
        bodies = payload.inputs[0].data.root
        rows = zip(*(self.decode(body) for body in bodies))
        feed = {tensor.name: self.stack(column) for tensor, column in zip(self.tensors, rows)}
        answers = [row.tobytes() for row in self.session.run(None, feed)[0][: len(bodies)]]
        output = ResponseOutput(name="answer", shape=[len(answers), 1], datatype="BYTES", data=answers)
        return InferenceResponse(model_name=self.name, outputs=[output])

    def decode(self, body):
        """One array an input; the inputs lie one behind the other and are of equal size."""
        parts = np.frombuffer(body, DTYPES[self.tensors[0].type]).reshape(len(self.tensors), -1)
        return [part.reshape(self.shape) for part in parts]

    def stack(self, rows):
        """One batch, with zeros where rows are shorter than the longest, and for the rows that a fixed size lacks."""
        shape = np.max([row.shape for row in rows], axis=0)
        batch = np.zeros((MAX_BATCH_SIZE if FIXED else len(rows), *shape), rows[0].dtype)
        for place, row in zip(batch, rows):
            place[tuple(map(slice, row.shape))] = row
        return batch
