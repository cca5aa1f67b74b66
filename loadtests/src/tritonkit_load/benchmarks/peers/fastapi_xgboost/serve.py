"""One XGBoost forest behind FastAPI and uvicorn: fp32 rows in the body, one request at a time, in the event loop.

FastAPI's documentation sends what waits for others into threads. This waits for nobody, and there is one core.
"""

import os

import numpy as np
import uvicorn
import xgboost
from fastapi import FastAPI, Request, Response

booster = xgboost.Booster(model_file=os.environ["MODEL"])
booster.set_param({"nthread": 1})
features = booster.num_features()
app = FastAPI()


@app.post("/predict")
async def predict(request: Request):
    """What XGBoost predicts of the rows: values, or probabilities."""
    rows = np.frombuffer(await request.body(), np.float32).reshape(-1, features)
    answer = booster.inplace_predict(rows)  # XGBoost's advice: no DMatrix, and safe in several threads
    return Response(answer.tobytes(), media_type="application/octet-stream")


if __name__ == "__main__":
    uvicorn.run(app, host="127.0.0.1", port=int(os.environ["PORT"]), log_level="warning", access_log=False)
