"""One ONNX model behind PyTriton: tensors over gRPC, batches made by Triton."""

import os

import numpy as np
import onnxruntime
from pytriton.decorators import batch
from pytriton.model_config import DynamicBatcher, ModelConfig, Tensor
from pytriton.triton import Triton, TritonConfig

DTYPES = {"tensor(uint8)": np.uint8, "tensor(int64)": np.int64, "tensor(float)": np.float32}
options = onnxruntime.SessionOptions()
options.intra_op_num_threads = 1
session = onnxruntime.InferenceSession(os.environ["MODEL"], options, providers=["CPUExecutionProvider"])


@batch
def infer(**feed):
    """The graph's outputs for one batch."""
    return session.run(None, feed)


def tensors(arguments):
    """PyTriton's description of a graph's tensors, without the batch dimension."""
    return [
        Tensor(name=t.name, dtype=DTYPES[t.type], shape=[-1 if isinstance(dim, str) else dim for dim in t.shape[1:]])
        for t in arguments
    ]


config = TritonConfig(
    http_address="127.0.0.1", http_port=int(os.environ["HTTP_PORT"]),
    grpc_address="127.0.0.1", grpc_port=int(os.environ["PORT"]),
    metrics_address="127.0.0.1", metrics_port=int(os.environ["METRICS_PORT"]),
)  # fmt: skip
with Triton(config=config) as triton:
    triton.bind(
        os.environ["MODEL_NAME"], infer, tensors(session.get_inputs()), tensors(session.get_outputs()),
        config=ModelConfig(
            max_batch_size=int(os.environ["MAX_BATCH_SIZE"]), batcher=DynamicBatcher(max_queue_delay_microseconds=0)
        ),
    )  # fmt: skip
    triton.serve()
