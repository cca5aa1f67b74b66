"""One ONNX model on a GPU behind LitServe: raw tensors in the body, LitServe's own batching and worker processes."""

import json
import os
from typing import Annotated

import litserve
import numpy as np
import onnxruntime
from fastapi import Body, Response

MAX_BATCH_SIZE, WORKERS = int(os.environ["MAX_BATCH_SIZE"]), int(os.environ["WORKERS"])
FIXED = os.environ["FIXED"] == "1"  # every batch has the same size: onnxruntime prepares convolutions for each new one
DTYPES = {"tensor(uint8)": np.uint8, "tensor(int64)": np.int64}


class Model(litserve.LitAPI):
    """Decodes a body, runs the graph, encodes the first output."""

    def setup(self, device):
        """Load the graph onto the worker's GPU."""
        onnxruntime.preload_dlls()
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        place = {"device_id": device.partition(":")[2] or "0"}
        provider = ("CUDAExecutionProvider", json.loads(os.environ["CUDA_OPTIONS"]) | place)
        self.session = onnxruntime.InferenceSession(os.environ["MODEL"], options, providers=[provider])
        assert self.session.get_providers()[0] == provider[0], "onnxruntime did not start on the GPU"
        self.inputs = self.session.get_inputs()
        self.shape = [-1 if isinstance(dim, str) else dim for dim in self.inputs[0].shape[1:]]

    def decode_request(self, request: Annotated[bytes, Body(media_type="application/octet-stream")]):
        """One array an input; the inputs lie one behind the other and are of equal size."""
        parts = np.frombuffer(request, DTYPES[self.inputs[0].type]).reshape(len(self.inputs), -1)
        return [part.reshape(self.shape) for part in parts]

    def batch(self, inputs):
        """One array an input, of all samples, and how many these are."""
        return [self.stack(rows) for rows in zip(*inputs)], len(inputs)

    def stack(self, rows):
        """One batch, with zeros where rows are shorter than the longest, and for the rows that a fixed size lacks."""
        shape = np.max([row.shape for row in rows], axis=0)
        batch = np.zeros((MAX_BATCH_SIZE if FIXED else len(rows), *shape), rows[0].dtype)
        for place, row in zip(batch, rows):
            place[tuple(map(slice, row.shape))] = row
        return batch

    def predict(self, x):
        """One row a sample; the row itself where there are no batches."""
        arrays, count = self.batch([x]) if MAX_BATCH_SIZE == 1 else x
        feed = {tensor.name: array for tensor, array in zip(self.inputs, arrays)}
        rows = self.session.run(None, feed)[0][:count]
        return rows[0] if MAX_BATCH_SIZE == 1 else rows

    def unbatch(self, output):
        """A row each."""
        return list(output)

    def encode_response(self, output) -> Response:
        """The output's numbers."""
        return Response(output.tobytes(), media_type="application/octet-stream")


if __name__ == "__main__":
    server = litserve.LitServer(
        Model(max_batch_size=MAX_BATCH_SIZE, batch_timeout=0.002),
        accelerator="cuda",
        devices=1,
        workers_per_device=WORKERS,
        fast_queue=True,
    )
    server.run(host="127.0.0.1", port=int(os.environ["PORT"]), log_level="warning", generate_client_file=False)
