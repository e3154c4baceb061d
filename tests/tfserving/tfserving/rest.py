"""The HTTP/REST interface: paths, methods, answers and errors of the real server."""

import gzip
import re
import socket
import threading
import time
import urllib.parse
import zlib
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from google.protobuf import json_format
from tensorflow_serving.apis import classification_pb2, get_model_metadata_pb2, get_model_status_pb2, predict_pb2, regression_pb2

from tfserving import jsontext, json_tensor, metrics
from tfserving.status import HTTP, Status, failed_precondition, invalid, of_exception

_ANY = re.compile(r"/v1/.*", re.IGNORECASE)
_WHICH = r"(?:(?:/versions/(\d+))|(?:/labels/([^/:]+)))?"
_PREDICTION = re.compile(rf"/v1/models/([^/:]+){_WHICH}:(classify|regress|predict)", re.IGNORECASE)
_STATUS = re.compile(rf"/v1/models(?:/([^/:]+))?{_WHICH}(?:/(metadata))?", re.IGNORECASE)
_DEFAULT_METRICS_PATH = "/monitoring/prometheus/metrics"
_PAGE = "<HTML><HEAD>\n<TITLE>{0} {1}</TITLE>\n</HEAD><BODY>\n<H1>{1}</H1>\n</BODY></HTML>\n"


def _fill_spec(spec, name, version, label):
    spec.name = urllib.parse.unquote(name)
    if version:
        if int(version) >= 2**63:
            raise invalid(f"Failed to convert version: {version} to numeric.")
        spec.version.value = int(version)
    if label:
        spec.version_label = urllib.parse.unquote(label)


def _printed(message, indent=1):
    return json_format.MessageToJson(
        message, preserving_proto_field_name=True, always_print_fields_with_no_presence=True, indent=indent)


class Api:
    """Answers requests under /v1/."""

    def __init__(self, core, inference):
        self._core, self._inference = core, inference

    def answer(self, method, path, body):
        """Returns the body, the model and the call, for the metrics; an error is a Status."""
        found = _PREDICTION.fullmatch(path) if method == "POST" else None
        if found:
            name, version, label, call = found.groups()
            return self._infer(name, version, label, call.lower(), body), urllib.parse.unquote(name), call.lower()
        found = _STATUS.fullmatch(path) if method == "GET" else None
        if not found:
            raise invalid(f"Malformed request: {method} {path}")
        name, version, label, metadata = found.groups()
        if not name:
            raise invalid("Missing model name in request.")
        if metadata:
            return self._metadata(name, version, label), name, "metadata"
        response = get_model_status_pb2.GetModelStatusResponse()
        request = get_model_status_pb2.GetModelStatusRequest()
        _fill_spec(request.model_spec, name, version, label)
        return _printed(self._core.fill_status(request.model_spec, response)) + "\n", name, ""

    def _infer(self, name, version, label, call, body):
        if call == "predict":
            request = predict_pb2.PredictRequest()
            _fill_spec(request.model_spec, name, version, label)
            rows = json_tensor.fill_predict(body, request, self._inference.inputs_of)
            return json_tensor.predict_answer(self._inference.predict(request, predict_pb2.PredictResponse()), rows)
        if call == "classify":
            request = classification_pb2.ClassificationRequest()
            _fill_spec(request.model_spec, name, version, label)
            json_tensor.fill_examples(body, request)
            return json_tensor.classify_answer(
                self._inference.classify(request, classification_pb2.ClassificationResponse()).result)
        request = regression_pb2.RegressionRequest()
        _fill_spec(request.model_spec, name, version, label)
        json_tensor.fill_examples(body, request)
        return json_tensor.regress_answer(self._inference.regress(request, regression_pb2.RegressionResponse()).result)

    def _metadata(self, name, version, label):
        request = get_model_metadata_pb2.GetModelMetadataRequest(metadata_field=["signature_def"])
        _fill_spec(request.model_spec, name, version, label)
        response = self._inference.metadata(request, get_model_metadata_pb2.GetModelMetadataResponse())
        signatures = get_model_metadata_pb2.SignatureDefMap()
        response.metadata["signature_def"].Unpack(signatures)
        return (f'{{\n"model_spec":{_printed(response.model_spec)}\n,\n"metadata": {{"signature_def": '
                f"{_printed(signatures)}\n}}\n}}\n")


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    wbufsize = -1
    disable_nagle_algorithm = True

    def log_message(self, format, *args):  # pylint: disable=redefined-builtin
        """The real server has no access log."""

    def _body(self):
        if self.headers.get("transfer-encoding", "").lower() == "chunked":
            chunks = []
            while size := int(self.rfile.readline().split(b";")[0], 16):
                chunks.append(self.rfile.read(size))
                self.rfile.readline()
            while self.rfile.readline().strip():
                pass
            body = b"".join(chunks)
        else:
            body = self.rfile.read(int(self.headers.get("content-length") or 0))
        if self.headers.get("content-encoding", "").lower() == "gzip":
            body = gzip.decompress(body)
        return body

    def _reply(self, code, kind, text, reason=None):
        data = text.encode()
        self.send_response(code, reason)
        self.send_header("Content-Type", kind)
        if self.server.cors:
            self.send_header("Access-Control-Allow-Origin", "*")
            self.send_header("Access-Control-Allow-Methods", "POST, GET")
            self.send_header("Access-Control-Allow-Headers", "Content-Type")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(data)
        self.wfile.flush()

    def _handle(self):
        try:
            body = self._body()
        except (ValueError, OSError, EOFError, zlib.error):
            self.close_connection = True
            self._reply(400, "text/html", _PAGE.format(400, "Bad Request"))
            return
        path = self.path.partition("?")[0]
        if path == self.server.metrics_path:
            self._reply(200, "text/plain", metrics.page())
        elif _ANY.fullmatch(path):
            with self.server.workers:
                self._api(path, body)
        else:
            self._reply(404, "text/html", _PAGE.format(404, "Not Found"))

    def _api(self, path, body):
        start, model, call = time.monotonic(), "", ""
        try:
            if self.command == "OPTIONS":
                if not re.search("https?://", self.headers.get("origin", "")):
                    raise failed_precondition("Origin header is missing in CORS preflight")
                text = ""
            else:
                text, model, call = self.server.api.answer(self.command, path, body)
            code = "OK"
            metrics.REQUEST_LATENCY.observe((time.monotonic() - start) * 1e6, model, call, "REST")
        except Exception as error:  # every failure is an answer, as the real server's are
            status = of_exception(error)
            named = _PREDICTION.fullmatch(path)
            model, code, text = named.group(1) if named else model, status.code, jsontext.error(status.message)
        metrics.REQUEST_COUNT.add(model, code)
        self._reply(HTTP[code], "application/json", text)

    do_GET = do_POST = do_PUT = do_DELETE = do_HEAD = do_OPTIONS = _handle


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 128
    # Like the real one, it does not share its port; an address still in TIME_WAIT may be taken.
    allow_reuse_port = False

    def handle_error(self, request, client_address):
        """A client that went away is no news."""


class _Server6(_Server):
    address_family = socket.AF_INET6

    def server_bind(self):
        self.socket.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
        super().server_bind()


def serve(options, api, prometheus):
    """Starts serving; returns False where the port is taken."""
    server = None
    for kind, address in ((_Server6, "::"), (_Server, "0.0.0.0")):
        try:
            server = kind((address, options.rest_api_port), _Handler)
            break
        except OSError:
            continue
    if server is None:
        return False
    server.api, server.cors = api, options.rest_api_enable_cors_support
    server.metrics_path = (prometheus.path or _DEFAULT_METRICS_PATH) if prometheus.enable else None
    server.workers = threading.Semaphore(max(1, options.rest_api_num_threads))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    return True
