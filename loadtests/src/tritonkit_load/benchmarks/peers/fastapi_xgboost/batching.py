"""One XGBoost forest behind FastAPI and uvicorn: fp32 rows in the body; a thread runs what has queued, as a batch."""

import asyncio
import os
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager

import numpy as np
import uvicorn
import xgboost
from fastapi import FastAPI, Request, Response

MAX_BATCH_SIZE = 8
booster = xgboost.Booster(model_file=os.environ["MODEL"])
booster.set_param({"nthread": 1})
features = booster.num_features()
queue: asyncio.Queue = asyncio.Queue()


def run(bodies):
    """One answer a body; each body has one row."""
    rows = np.frombuffer(b"".join(bodies), np.float32).reshape(-1, features)
    return [row.tobytes() for row in booster.inplace_predict(rows)]


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
    """What XGBoost predicts of the row: values, or probabilities."""
    future = asyncio.get_running_loop().create_future()
    queue.put_nowait((await request.body(), future))
    return Response(await future, media_type="application/octet-stream")


if __name__ == "__main__":
    uvicorn.run(app, host="127.0.0.1", port=int(os.environ["PORT"]), log_level="warning", access_log=False)
