"""Replays the requests that a SavedModel brings along, so that the first real one is not the slow one."""

import os
import time

from google.protobuf.message import DecodeError
from tensorflow_serving.apis import classification_pb2, inference_pb2, predict_pb2, prediction_log_pb2, regression_pb2

from tfserving import log
from tfserving.saved_model import records
from tfserving.status import Status, invalid

_SOURCE = "tensorflow_serving/servables/tensorflow/saved_model_warmup_util.cc"
_MOST = 1000


def _replay(inference, model, entry):
    kind = entry.WhichOneof("log_type")
    if kind == "predict_log":
        inference.predict_on(model, entry.predict_log.request, predict_pb2.PredictResponse())
    elif kind == "classify_log":
        inference.classify_on(model, entry.classify_log.request, classification_pb2.ClassificationResponse())
    elif kind == "regress_log":
        inference.regress_on(model, entry.regress_log.request, regression_pb2.RegressionResponse())
    elif kind == "multi_inference_log":
        for task in entry.multi_inference_log.request.tasks:
            single = inference_pb2.MultiInferenceRequest(tasks=[task], input=entry.multi_inference_log.request.input)
            method = inference.classify_on if task.method_name.endswith("classify") else inference.regress_on
            request = classification_pb2.ClassificationRequest(model_spec=task.model_spec, input=single.input)
            response = classification_pb2.ClassificationResponse if method == inference.classify_on else regression_pb2.RegressionResponse
            method(model, request, response())
    else:
        raise Status("UNIMPLEMENTED", f"Unsupported log_type for warmup: {kind}")


def run(inference, model, options):
    """Replays `assets.extra/tf_serving_warmup_requests`; an error in it fails the load."""
    path = os.path.join(model.path, "assets.extra", "tf_serving_warmup_requests")
    if not os.path.exists(path):
        log.info(f"{_SOURCE}:86", f"No warmup data file found at {path}")
        return
    log.info(f"{_SOURCE}:97", f"Starting to read warmup data for model at {path} with model-warmup-options ")
    start, count = time.monotonic(), 0
    for record in records(path):
        try:
            entry = prediction_log_pb2.PredictionLog.FromString(record)
        except DecodeError as error:
            raise invalid(f"Failed to parse warmup record: {record!r} from {path}") from error
        count += 1
        if count > _MOST:
            raise invalid(f"Number of warmup records exceeds the maximum ({_MOST}) at {path}")
        for _ in range(max(1, options.num_request_iterations_for_warmup)):
            _replay(inference, model, entry)
    took = int((time.monotonic() - start) * 1e6)
    log.info(f"{_SOURCE}:240", f"Finished reading warmup data for model at {path}. Number of warmup records read: {count}. "
             f"Elapsed time (microseconds): {took}.")
