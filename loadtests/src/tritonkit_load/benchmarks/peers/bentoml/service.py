"""One ONNX model behind BentoML: raw tensors in the body."""

import os
from typing import Annotated

import bentoml
import numpy as np
import onnxruntime
from bentoml.validators import ContentType

DTYPES = {"tensor(uint8)": np.uint8, "tensor(int64)": np.int64}
Raw = Annotated[bytes, ContentType("application/octet-stream")]


@bentoml.service(workers=1, threads=1, metrics={"enabled": False}, logging={"access": {"enabled": False}})
class Model:
    """Runs the graph in one thread."""

    def __init__(self):
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        self.session = onnxruntime.InferenceSession(os.environ["MODEL"], options, providers=["CPUExecutionProvider"])
        self.inputs = self.session.get_inputs()
        self.shape = [-1 if isinstance(dim, str) else dim for dim in self.inputs[0].shape[1:]]

    @bentoml.api
    def predict(self, body: Raw, /) -> Raw:
        """The first output's numbers; the inputs lie one behind the other and are of equal size."""
        parts = np.frombuffer(body, DTYPES[self.inputs[0].type]).reshape(len(self.inputs), 1, *self.shape)
        feed = {tensor.name: part for tensor, part in zip(self.inputs, parts)}
        return self.session.run(None, feed)[0].tobytes()
