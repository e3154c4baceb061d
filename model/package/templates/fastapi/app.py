"""Serves model/weights.json: POST /predict with {"instances": [[1, 2], ...]}."""

import json
import os

from fastapi import FastAPI, HTTPException
from pydantic import BaseModel

with open(os.path.join(os.environ.get("BERTH_MODEL_DIR", "model"), "weights.json"), encoding="utf-8") as file:
    MODEL = json.load(file)

app = FastAPI()


class Request(BaseModel):
    instances: list[list[float]]


@app.get("/healthz")
def healthz():
    return {"status": "ok"}


@app.post("/predict")
def predictions(request: Request):
    weights = MODEL["weights"]
    for row in request.instances:
        if len(row) != len(weights):
            raise HTTPException(400, f"each instance needs {len(weights)} numbers, this one has {len(row)}")
    score = lambda row: sum(weight * value for weight, value in zip(weights, row)) + MODEL["bias"]  # noqa: E731
    return {"predictions": [score(row) for row in request.instances]}
