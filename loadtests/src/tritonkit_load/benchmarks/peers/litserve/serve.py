"""One ONNX model behind LitServe: raw tensors in the body, LitServe's own batching and worker process."""

import os
from collections import defaultdict
from typing import Annotated

import litserve
import numpy as np
import onnxruntime
from fastapi import Body, Response

MAX_BATCH_SIZE = int(os.environ["MAX_BATCH_SIZE"])
DTYPES = {"tensor(uint8)": np.uint8, "tensor(int64)": np.int64}


class Model(litserve.LitAPI):
    """Decodes a body, runs the graph, encodes the first output."""

    def setup(self, device):
        """Load the graph, in the worker."""
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        self.session = onnxruntime.InferenceSession(os.environ["MODEL"], options, providers=["CPUExecutionProvider"])
        self.inputs = self.session.get_inputs()
        self.shape = [-1 if isinstance(dim, str) else dim for dim in self.inputs[0].shape[1:]]

    def decode_request(self, request: Annotated[bytes, Body(media_type="application/octet-stream")]):
        """One array an input; the inputs lie one behind the other and are of equal size."""
        parts = np.frombuffer(request, DTYPES[self.inputs[0].type]).reshape(len(self.inputs), -1)
        return [part.reshape(1, *self.shape) for part in parts]

    def batch(self, inputs):
        """Leave samples apart: they may differ in size."""
        return inputs

    def predict(self, x):
        """One row a sample; samples of one size make one batch."""
        if MAX_BATCH_SIZE == 1:
            return self.run([x])[0]
        groups, rows = defaultdict(list), [None] * len(x)
        for index, arrays in enumerate(x):
            groups[arrays[0].shape].append(index)
        for indices in groups.values():
            for index, row in zip(indices, self.run([x[index] for index in indices])):
                rows[index] = row
        return rows

    def run(self, samples):
        """The first output of one batch."""
        feed = {tensor.name: np.concatenate(column) for tensor, column in zip(self.inputs, zip(*samples))}
        return self.session.run(None, feed)[0]

    def encode_response(self, output) -> Response:
        """The output's numbers."""
        return Response(output.tobytes(), media_type="application/octet-stream")


if __name__ == "__main__":
    server = litserve.LitServer(
        Model(max_batch_size=MAX_BATCH_SIZE, batch_timeout=0.005),
        accelerator="cpu",
        workers_per_device=1,
        fast_queue=True,
    )
    server.run(host="127.0.0.1", port=int(os.environ["PORT"]), log_level="warning", generate_client_file=False)
