"""One ONNX model behind MLServer: raw tensors as one BYTES element, over gRPC."""

from collections import defaultdict

import numpy as np
import onnxruntime
from mlserver import MLModel
from mlserver.types import InferenceResponse, ResponseOutput

DTYPES = {"tensor(uint8)": np.uint8, "tensor(int64)": np.int64}


class Onnx(MLModel):
    """Runs the graph that ``parameters.uri`` names."""

    async def load(self):
        """Open the session."""
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        uri = self.settings.parameters.uri
        self.session = onnxruntime.InferenceSession(uri, options, providers=["CPUExecutionProvider"])
        self.tensors = self.session.get_inputs()
        self.shape = [-1 if isinstance(dim, str) else dim for dim in self.tensors[0].shape[1:]]
        return True

    async def predict(self, payload):
        """One element an element: the first output's numbers; elements of one size make one batch."""
        bodies = payload.inputs[0].data.root
        groups, answers = defaultdict(list), [b""] * len(bodies)
        for index, body in enumerate(bodies):
            groups[len(body)].append(index)
        for indices in groups.values():
            samples = [self.decode(bodies[index]) for index in indices]
            feed = {tensor.name: np.concatenate(column) for tensor, column in zip(self.tensors, zip(*samples))}
            for index, row in zip(indices, self.session.run(None, feed)[0]):
                answers[index] = row.tobytes()
        output = ResponseOutput(name="answer", shape=[len(answers), 1], datatype="BYTES", data=answers)
        return InferenceResponse(model_name=self.name, outputs=[output])

    def decode(self, body):
        """One array an input; the inputs lie one behind the other and are of equal size."""
        parts = np.frombuffer(body, DTYPES[self.tensors[0].type]).reshape(len(self.tensors), -1)
        return [part.reshape(1, *self.shape) for part in parts]
