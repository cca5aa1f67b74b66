"""One ONNX model behind FastAPI and uvicorn: raw tensors in the body; a thread runs what has queued up, as a batch."""

import asyncio
import os
from collections import defaultdict
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager

import numpy as np
import onnxruntime
import uvicorn
from fastapi import FastAPI, Request, Response

MAX_BATCH_SIZE = 8
DTYPES = {"tensor(uint8)": np.uint8, "tensor(int64)": np.int64}
options = onnxruntime.SessionOptions()
options.intra_op_num_threads = 1
session = onnxruntime.InferenceSession(os.environ["MODEL"], options, providers=["CPUExecutionProvider"])
inputs = session.get_inputs()
queue: asyncio.Queue = asyncio.Queue()


def decode(body):
    """One array an input; the inputs lie one behind the other and are of equal size."""
    parts = np.frombuffer(body, DTYPES[inputs[0].type]).reshape(len(inputs), -1)
    shape = [-1 if isinstance(dim, str) else dim for dim in inputs[0].shape[1:]]
    return [part.reshape(1, *shape) for part in parts]


def run(bodies):
    """One answer a body; bodies of one size make one batch."""
    groups = defaultdict(list)
    for index, body in enumerate(bodies):
        groups[len(body)].append(index)
    answers = [b""] * len(bodies)
    for indices in groups.values():
        columns = zip(*(decode(bodies[index]) for index in indices))
        feed = {tensor.name: np.concatenate(column) for tensor, column in zip(inputs, columns)}
        for index, row in zip(indices, session.run(None, feed)[0]):
            answers[index] = row.tobytes()
    return answers


async def work():
    """Run whatever waits, up to a batch at a time, in a thread of its own."""
    loop, thread = asyncio.get_running_loop(), ThreadPoolExecutor(1)
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
    task = asyncio.create_task(work())
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
    uvicorn.run(app, host="127.0.0.1", port=int(os.environ["PORT"]), log_level="warning", access_log=False)
