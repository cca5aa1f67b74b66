"""A user on raw `tritonclient`, as its documentation has it: what `make bench-generator` holds ours against."""

from __future__ import annotations

import tritonclient.grpc
from tritonclient.utils import np_to_triton_dtype

from tritonkit_load.load.payloads import Request
from tritonkit_load.load.users import Answer, ModelUser, make_grpc_cooperate


class RawGrpcUser(ModelUser):
    """One inference a request, unchecked."""

    protocol = "grpc"

    def connect(self) -> None:
        """Make a client."""
        make_grpc_cooperate()
        self.client = tritonclient.grpc.InferenceServerClient((self.host or "").removeprefix("grpc://"))

    def call(self, request: Request) -> Answer:
        """One inference."""
        tensors = []
        for name, array in request.inputs.items():
            tensor = tritonclient.grpc.InferInput(name, array.shape, np_to_triton_dtype(array.dtype))
            tensor.set_data_from_numpy(array)
            tensors.append(tensor)
        answer = self.client.infer(request.model, tensors)
        return Answer(sum(answer.as_numpy(output.name).nbytes for output in answer.get_response().outputs))

    def close(self) -> None:
        """Disconnect."""
        self.client.close()
