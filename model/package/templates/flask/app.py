"""Serves model/weights.json: POST /predict with {"instances": [[1, 2], ...]}."""

import json
import os

from flask import Flask, jsonify, request

with open(os.path.join(os.environ.get("BERTH_MODEL_DIR", "model"), "weights.json"), encoding="utf-8") as file:
    MODEL = json.load(file)

app = Flask(__name__)


def predict(row):
    weights = MODEL["weights"]
    if len(row) != len(weights):
        raise ValueError(f"each instance needs {len(weights)} numbers, this one has {len(row)}")
    return sum(weight * float(value) for weight, value in zip(weights, row)) + MODEL["bias"]


@app.get("/healthz")
def healthz():
    return jsonify(status="ok")


@app.post("/predict")
def predictions():
    try:
        rows = request.get_json(force=True)["instances"]
        return jsonify(predictions=[predict(row) for row in rows])
    except (KeyError, TypeError, ValueError) as error:
        return jsonify(error=f"bad request: {error}"), 400
