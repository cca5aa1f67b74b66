"""One ONNX model behind FastAPI and uvicorn: raw tensors in the body, one request at a time, in the event loop.

FastAPI's documentation sends what waits for others into threads. This waits for nobody, and there is one core.
"""

import os

import numpy as np
import onnxruntime
import uvicorn
from fastapi import FastAPI, Request, Response

DTYPES = {"tensor(uint8)": np.uint8, "tensor(int64)": np.int64}
options = onnxruntime.SessionOptions()
options.intra_op_num_threads = 1
session = onnxruntime.InferenceSession(os.environ["MODEL"], options, providers=["CPUExecutionProvider"])
inputs = session.get_inputs()
shape = [-1 if isinstance(dim, str) else dim for dim in inputs[0].shape[1:]]
app = FastAPI()


@app.post("/predict")
async def predict(request: Request):
    """The first output's numbers; the inputs lie one behind the other and are of equal size."""
    parts = np.frombuffer(await request.body(), DTYPES[inputs[0].type]).reshape(len(inputs), 1, *shape)
    answer = session.run(None, {tensor.name: part for tensor, part in zip(inputs, parts)})[0]
    return Response(answer.tobytes(), media_type="application/octet-stream")


if __name__ == "__main__":
    uvicorn.run(app, host="127.0.0.1", port=int(os.environ["PORT"]), log_level="warning", access_log=False)
