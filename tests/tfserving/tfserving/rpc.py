"""The gRPC interface: PredictionService and ModelService on a TCP port, a unix socket, or both."""

import time
from concurrent import futures

import grpc
from tensorflow_serving.apis import (
    classification_pb2, get_model_metadata_pb2, get_model_status_pb2, inference_pb2, model_management_pb2,
    model_service_pb2_grpc, predict_pb2, prediction_service_pb2_grpc, regression_pb2)

from tfserving import log, metrics
from tfserving.protos import SSLConfig, read_text
from tfserving.status import CODES, Status, invalid, of_exception

_GRPC_CODES = {code.value[0]: code for code in grpc.StatusCode}


def _answer(context, work):
    try:
        return work()
    except Exception as error:  # every failure is a status, as the real server's are
        status = of_exception(error)
        context.abort(_GRPC_CODES[CODES[status.code]], status.message)


class _Prediction(prediction_service_pb2_grpc.PredictionServiceServicer):
    def __init__(self, inference):
        self._inference = inference

    def _measured(self, context, name, api, work):
        start, code = time.monotonic(), "OK"

        def measured():
            nonlocal code
            try:
                return work()
            except Exception as error:
                code = of_exception(error).code
                raise

        try:
            return _answer(context, measured)
        finally:
            metrics.REQUEST_COUNT.add(name, code)
            if code == "OK":
                metrics.REQUEST_LATENCY.observe((time.monotonic() - start) * 1e6, name, api, "GRPC")

    def Predict(self, request, context):
        return self._measured(context, request.model_spec.name, "Predict",
                              lambda: self._inference.predict(request, predict_pb2.PredictResponse()))

    def Classify(self, request, context):
        return self._measured(context, request.model_spec.name, "Classify",
                              lambda: self._inference.classify(request, classification_pb2.ClassificationResponse()))

    def Regress(self, request, context):
        return self._measured(context, request.model_spec.name, "Regress",
                              lambda: self._inference.regress(request, regression_pb2.RegressionResponse()))

    def MultiInference(self, request, context):
        return _answer(context, lambda: self._inference.multi(request, inference_pb2.MultiInferenceResponse()))

    def GetModelMetadata(self, request, context):
        return _answer(context, lambda: self._inference.metadata(request, get_model_metadata_pb2.GetModelMetadataResponse()))


class _Model(model_service_pb2_grpc.ModelServiceServicer):
    def __init__(self, core):
        self._core = core

    def GetModelStatus(self, request, context):
        def work():
            if not request.HasField("model_spec"):
                raise invalid("Missing ModelSpec")
            return self._core.fill_status(request.model_spec, get_model_status_pb2.GetModelStatusResponse())

        return _answer(context, work)

    def HandleReloadConfigRequest(self, request, context):
        def work():
            if request.config.WhichOneof("config") != "model_config_list":
                raise invalid("ServerModelConfig type not supported by HandleReloadConfigRequest."
                              " Only ModelConfigList is currently supported")
            for i, model in enumerate(request.config.model_config_list.config):
                log.info("tensorflow_serving/model_servers/model_service_impl.cc:54",
                         f"\nConfig entry\n\tindex : {i}\n\tpath : {model.base_path}\n\tname : {model.name}"
                         f"\n\tplatform : {model.model_platform}")
            try:
                self._core.reload(request.config)
            except Status as error:
                log.error("tensorflow_serving/model_servers/model_service_impl.cc:73", f"ReloadConfig failed: {error.message}")
                raise
            response = model_management_pb2.ReloadConfigResponse()
            response.status.SetInParent()
            return response

        return _answer(context, work)


def _channel_arguments(text):
    for pair in filter(None, text.split(",")):
        key, _, value = pair.partition("=")
        yield key, int(value) if value.lstrip("-").isdecimal() else value


def _credentials(path):
    config = read_text(path, SSLConfig())
    return grpc.ssl_server_credentials(
        [(config.server_key.encode(), config.server_cert.encode())],
        root_certificates=config.custom_ca.encode() or None, require_client_auth=config.client_verify)


def serve(options, core, inference):
    """Starts serving; the server must be kept by the caller."""
    server = grpc.server(
        # A reload may block a worker for ever, so there are some more than the flag asks for.
        futures.ThreadPoolExecutor(max_workers=max(1, options.grpc_max_threads) + 8),
        options=[("grpc.max_receive_message_length", -1), ("grpc.max_send_message_length", -1),
                 *_channel_arguments(options.grpc_channel_arguments)])
    prediction_service_pb2_grpc.add_PredictionServiceServicer_to_server(_Prediction(inference), server)
    model_service_pb2_grpc.add_ModelServiceServicer_to_server(_Model(core), server)
    secure = _credentials(options.ssl_config_file) if options.ssl_config_file else None
    addresses = [f"0.0.0.0:{options.port}"] if options.port else []
    if options.grpc_socket_path:
        addresses.append(f"unix:{options.grpc_socket_path}")
    try:
        for address in addresses:
            if secure:
                server.add_secure_port(address, secure)
            else:
                server.add_insecure_port(address)
    except RuntimeError as error:
        raise invalid("Failed to BuildAndStart gRPC server") from error
    server.start()
    if options.port:
        log.info("tensorflow_serving/model_servers/server.cc:418", f"Running gRPC ModelServer at 0.0.0.0:{options.port} ...")
    if options.grpc_socket_path:
        log.info("tensorflow_serving/model_servers/server.cc:422",
                 f"Running gRPC ModelServer at UNIX socket {options.grpc_socket_path} ...")
    return server
