"""Serves an ONNX model in the shape of TensorFlow Serving's REST API: one instance is one row of the input tensor."""

import json
import os
import signal
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import numpy as np
import onnxruntime

MOST_BYTES = 1 << 20


def load(path):
    options = onnxruntime.SessionOptions()
    # Concurrency comes from requests.
    options.intra_op_num_threads = 1
    return onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])


SESSION = load(os.environ.get("BERTH_MODEL_DIR", "model/login.onnx"))
INPUT = SESSION.get_inputs()[0]


def predict(body):
    """The answer to a request's body; a ValueError says what is wrong with it."""
    try:
        rows = json.loads(body)["instances"]
        array = np.asarray(rows, dtype=np.float32)
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(f'the body must be {{"instances": [ROW, …]}}, every row as many numbers as the others: {error}') from error
    width = INPUT.shape[1]
    if array.ndim != 2 or array.shape[1] != width:
        raise ValueError(f"expected rows of {width} numbers for the input {INPUT.name!r}, got the shape {list(array.shape)}")
    scores = SESSION.run(None, {INPUT.name: array})[0][:, 0]
    scores = [round(float(score), 6) for score in scores]
    return {"predictions": [{"score": score, "verdict": "unusual" if score >= 0.5 else "usual"} for score in scores]}


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    wbufsize = -1

    def reply(self, code, answer):
        data = json.dumps(answer).encode()
        self.send_response(code)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def do_GET(self):
        self.reply(200 if self.path == "/healthz" else 404, {"status": "ok"} if self.path == "/healthz" else {"error": "no such path"})

    def do_POST(self):
        size = int(self.headers.get("content-length") or 0)
        if size > MOST_BYTES:
            self.close_connection = True
            self.reply(413, {"error": f"the body has more than {MOST_BYTES} bytes"})
            return
        body = self.rfile.read(size)
        if not self.path.endswith(":predict"):
            self.reply(404, {"error": "no such path"})
            return
        try:
            self.reply(200, predict(body))
        except ValueError as error:
            self.reply(400, {"error": str(error)})

    def log_message(self, format, *args):
        print(f"{self.command} {self.path} {args[1] if len(args) > 1 else ''}", flush=True)


class Server(ThreadingHTTPServer):
    # Requests in flight are finished before the process ends.
    daemon_threads = False
    request_queue_size = 128


def main():
    server = Server((os.environ.get("HOST", "127.0.0.1"), int(os.environ.get("PORT", "8501"))), Handler)
    # shutdown() waits for serve_forever, so it cannot be called by the signal handler itself.
    signal.signal(signal.SIGTERM, lambda *_: threading.Thread(target=server.shutdown).start())
    print(f"serving {SESSION.get_modelmeta().producer_name} on port {server.server_port}", flush=True)
    server.serve_forever()
    os._exit(0)


if __name__ == "__main__":
    main()
