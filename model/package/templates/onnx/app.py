"""Serves the ONNX model in $BERTH_MODEL_DIR: POST /predict with {"instances": [[1, 2], ...]}."""

import os

import numpy
import onnxruntime
from flask import Flask, jsonify, request

SESSION = onnxruntime.InferenceSession(
    os.environ.get("BERTH_MODEL_DIR", "model/linear.onnx"), providers=["CPUExecutionProvider"]
)
INPUT = SESSION.get_inputs()[0].name

app = Flask(__name__)


@app.get("/healthz")
def healthz():
    return jsonify(status="ok")


@app.post("/predict")
def predictions():
    try:
        rows = numpy.asarray(request.get_json(force=True)["instances"], dtype=numpy.float32)
        (result,) = SESSION.run(None, {INPUT: rows})
    except Exception as error:  # whatever the model says of its input is for who sent it
        return jsonify(error=f"bad request: {error}"), 400
    return jsonify(predictions=result.reshape(len(rows)).tolist())
