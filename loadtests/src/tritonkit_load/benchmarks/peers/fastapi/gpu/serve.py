"""One ONNX model on a GPU behind FastAPI and uvicorn: raw tensors in the body; threads run what has queued up."""

import asyncio
import json
import os
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager

import numpy as np
import onnxruntime
import uvicorn
from fastapi import FastAPI, Request, Response

MAX_BATCH_SIZE = int(os.environ["MAX_BATCH_SIZE"])
FIXED = os.environ["FIXED"] == "1"  # every batch has the same size: onnxruntime prepares convolutions for each new one
DTYPES = {"tensor(uint8)": np.uint8, "tensor(int64)": np.int64}
onnxruntime.preload_dlls()
options = onnxruntime.SessionOptions()
options.intra_op_num_threads = 1
provider = ("CUDAExecutionProvider", json.loads(os.environ["CUDA_OPTIONS"]))
session = onnxruntime.InferenceSession(os.environ["MODEL"], options, providers=[provider])
assert session.get_providers()[0] == provider[0], "onnxruntime did not start on the GPU"
inputs = session.get_inputs()
queue: asyncio.Queue = asyncio.Queue()


def decode(body):
    """One array an input; the inputs lie one behind the other and are of equal size."""
    parts = np.frombuffer(body, DTYPES[inputs[0].type]).reshape(len(inputs), -1)
    shape = [-1 if isinstance(dim, str) else dim for dim in inputs[0].shape[1:]]
    return [part.reshape(shape) for part in parts]


def stack(rows):
    """One batch, with zeros where rows are shorter than the longest, and for the rows that a fixed size lacks."""
    shape = np.max([row.shape for row in rows], axis=0)
    batch = np.zeros((MAX_BATCH_SIZE if FIXED else len(rows), *shape), rows[0].dtype)
    for place, row in zip(batch, rows):
        place[tuple(map(slice, row.shape))] = row
    return batch


def run(bodies):
    """One answer a body."""
    feed = {tensor.name: stack(rows) for tensor, rows in zip(inputs, zip(*map(decode, bodies)))}
    return [row.tobytes() for row in session.run(None, feed)[0][: len(bodies)]]


async def work(thread):
    """Run whatever waits, up to a batch at a time, in a thread of its own."""
    loop = asyncio.get_running_loop()
    while True:
        batch = [await queue.get()]
        while len(batch) < MAX_BATCH_SIZE and not queue.empty():
            batch.append(queue.get_nowait())
        try:
            answers = await loop.run_in_executor(thread, run, [body for body, _ in batch])
            for (_, future), answer in zip(batch, answers):
                future.set_result(answer)
        except Exception as error:
            for _, future in batch:
                future.set_exception(error)


@asynccontextmanager
async def lifespan(_):
    """The worker lives as long as the application."""
    task = asyncio.create_task(work(ThreadPoolExecutor(1)))
    yield
    task.cancel()


app = FastAPI(lifespan=lifespan)


@app.post("/predict")
async def predict(request: Request):
    """The first output's numbers."""
    future = asyncio.get_running_loop().create_future()
    queue.put_nowait((await request.body(), future))
    return Response(await future, media_type="application/octet-stream")


if __name__ == "__main__":
    uvicorn.run(
        "serve:app", host="127.0.0.1", port=int(os.environ["PORT"]), workers=int(os.environ["WORKERS"]),
        log_level="warning", access_log=False,
    )  # fmt: skip
