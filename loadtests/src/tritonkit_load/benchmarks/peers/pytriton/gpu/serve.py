"""One ONNX model on a GPU behind PyTriton: tensors over gRPC, batches made by Triton, several instances."""

import json
import os

import numpy as np
import onnxruntime
from pytriton.decorators import batch
from pytriton.model_config import DynamicBatcher, ModelConfig, Tensor
from pytriton.triton import Triton, TritonConfig

MAX_BATCH_SIZE, WORKERS = int(os.environ["MAX_BATCH_SIZE"]), int(os.environ["WORKERS"])
FIXED = os.environ["FIXED"] == "1"  # every batch has the same size: onnxruntime prepares convolutions for each new one
DTYPES = {"tensor(uint8)": np.uint8, "tensor(int64)": np.int64, "tensor(float)": np.float32}
onnxruntime.preload_dlls()
options = onnxruntime.SessionOptions()
options.intra_op_num_threads = 1
provider = ("CUDAExecutionProvider", json.loads(os.environ["CUDA_OPTIONS"]))
sessions = [onnxruntime.InferenceSession(os.environ["MODEL"], options, providers=[provider]) for _ in range(WORKERS)]
assert sessions[0].get_providers()[0] == provider[0], "onnxruntime did not start on the GPU"


def filled(rows):
    """The batch with zeros for the rows that a fixed size lacks."""
    return np.concatenate([rows, np.zeros((MAX_BATCH_SIZE - len(rows), *rows.shape[1:]), rows.dtype)])


def instance(session):
    """What runs batches on one session."""

    @batch
    def infer(**feed):
        """The graph's outputs for one batch."""
        count = len(next(iter(feed.values())))
        if FIXED:
            feed = {name: filled(rows) for name, rows in feed.items()}
        return [rows[:count] for rows in session.run(None, feed)]

    return infer


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
        os.environ["MODEL_NAME"], [instance(session) for session in sessions],
        tensors(sessions[0].get_inputs()), tensors(sessions[0].get_outputs()),
        config=ModelConfig(max_batch_size=MAX_BATCH_SIZE, batcher=DynamicBatcher(max_queue_delay_microseconds=0)),
    )  # fmt: skip
    triton.serve()
