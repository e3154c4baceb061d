#!/usr/bin/env python3
"""The official clients against a model x/2 + 2, for Berth's tests; run with `setup.sh --python`.

    clients.py grpc TARGET MODEL    tensorflow-serving-api over grpcio, TARGET as in unix:/path/of/a/socket
    clients.py rest URL MODEL       requests, URL as in http://127.0.0.1:7480

Prints `ok` when every answer was right; ends with what was not.
"""

import os
import sys

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))

from tfserving import light  # noqa: F401,E402  (before anything of TensorFlow)

import grpc  # noqa: E402
import requests  # noqa: E402
from tensorflow.core.framework import tensor_pb2, types_pb2  # noqa: E402
from tensorflow_serving.apis import (  # noqa: E402
    get_model_metadata_pb2, get_model_status_pb2, model_service_pb2_grpc, predict_pb2, prediction_service_pb2_grpc)


def expect(what, seen, wanted):
    if seen != wanted:
        raise SystemExit(f"{what}: {seen!r}, not {wanted!r}")


def by_grpc(target, model):
    with grpc.insecure_channel(target) as channel:
        status = get_model_status_pb2.GetModelStatusRequest(model_spec={"name": model})
        found = model_service_pb2_grpc.ModelServiceStub(channel).GetModelStatus(status, timeout=30).model_version_status
        expect("states", [v.state for v in found], [get_model_status_pb2.ModelVersionStatus.AVAILABLE])
        stub = prediction_service_pb2_grpc.PredictionServiceStub(channel)
        request = predict_pb2.PredictRequest(model_spec={"name": model})
        tensor = tensor_pb2.TensorProto(dtype=types_pb2.DT_FLOAT, float_val=[1.0, 2.0], tensor_shape={"dim": [{"size": 2}]})
        request.inputs["x"].CopyFrom(tensor)
        answer = stub.Predict(request, timeout=30)
        expect("predictions", list(answer.outputs["y"].float_val), [2.5, 3.0])
        expect("version", answer.model_spec.version.value, found[0].version)
        metadata = get_model_metadata_pb2.GetModelMetadataRequest(model_spec={"name": model}, metadata_field=["signature_def"])
        expect("name", stub.GetModelMetadata(metadata, timeout=30).model_spec.name, model)
        try:
            stub.Predict(predict_pb2.PredictRequest(model_spec={"name": "nope"}), timeout=30)
            raise SystemExit("a model that is not there was answered for")
        except grpc.RpcError as error:
            expect("code", error.code(), grpc.StatusCode.NOT_FOUND)


def by_rest(url, model):
    base = f"{url}/v1/models/{model}"

    def post(path, body, code=200):
        answer = requests.post(base + path, json=body, timeout=30)
        expect(f"status of {path}: {answer.text}", answer.status_code, code)
        return answer.json()

    expect("rows", post(":predict", {"instances": [1.0, 2.0, 5.0]}), {"predictions": [2.5, 3.0, 4.5]})
    expect("columns", post(":predict", {"inputs": {"x": [4.0]}}), {"outputs": [4.0]})
    expect("version", post("/versions/1:predict", {"instances": [0.0]}), {"predictions": [2.0]})
    examples = {"signature_name": "classify_x_to_y", "examples": [{"x": 2.0}]}
    expect("classes", post(":classify", examples), {"results": [[["small", 97.0], ["large", 3.0]]]})
    regress = {"signature_name": "regress_x_to_y", "examples": [{"x": 2.0}]}
    expect("regression", post(":regress", regress), {"results": [3.0]})
    status = requests.get(base, timeout=30).json()["model_version_status"]
    expect("status", [(v["version"], v["state"]) for v in status], [("1", "AVAILABLE")])
    signatures = requests.get(base + "/metadata", timeout=30).json()["metadata"]["signature_def"]["signature_def"]
    expect("signatures", "serving_default" in signatures, True)
    wrong = post(":predict", {"instances": ["text"]}, 400)["error"]
    expect("type error", "is not of expected type: float" in wrong, True)


if __name__ == "__main__":
    if len(sys.argv) != 4 or sys.argv[1] not in ("grpc", "rest"):
        raise SystemExit(__doc__)
    {"grpc": by_grpc, "rest": by_rest}[sys.argv[1]](sys.argv[2], sys.argv[3])
    print("ok")
