#!/usr/bin/env python3
"""Serves model/weights.json with TensorFlow Serving's REST shape. Standard library only."""

import json
import os
import signal
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

NAME = os.environ.get("BERTH_MODEL_NAME", "@NAME@")
MODEL_DIR = os.environ.get("BERTH_MODEL_DIR", "model")

with open(os.path.join(MODEL_DIR, "weights.json"), encoding="utf-8") as file:
    MODEL = json.load(file)


def predict(row):
    weights = MODEL["weights"]
    if len(row) != len(weights):
        raise ValueError(f"each instance needs {len(weights)} numbers, this one has {len(row)}")
    return sum(weight * float(value) for weight, value in zip(weights, row)) + MODEL["bias"]


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    # Without this, the kernel holds back small answers for a while.
    disable_nagle_algorithm = True
    wbufsize = 64 * 1024

    def answer(self, status, body):
        data = json.dumps(body).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def do_GET(self):
        if self.path == "/healthz":
            self.answer(200, {"status": "ok"})
        elif self.path == f"/v1/models/{NAME}":
            status = {"error_code": "OK", "error_message": ""}
            version = os.environ.get("BERTH_MODEL_SERIAL", "1")
            state = {"version": version, "state": "AVAILABLE", "status": status}
            self.answer(200, {"model_version_status": [state]})
        else:
            self.answer(404, {"error": f"no such path: {self.path}"})

    def do_POST(self):
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        if self.path != f"/v1/models/{NAME}:predict":
            self.answer(404, {"error": f"no such path: {self.path}"})
            return
        try:
            rows = json.loads(body)["instances"]
            self.answer(200, {"predictions": [predict(row) for row in rows]})
        except (KeyError, TypeError, ValueError) as error:
            self.answer(400, {"error": f"bad request: {error}"})

    def log_message(self, format, *args):
        print(f"{self.command} {self.path} {args[1] if len(args) > 1 else ''}", flush=True)


def main():
    address = (os.environ.get("HOST", "127.0.0.1"), int(os.environ.get("PORT", "8501")))
    server = ThreadingHTTPServer(address, Handler)
    # shutdown() waits for the loop below, so it cannot be called from it.
    signal.signal(
        signal.SIGTERM, lambda *_: threading.Thread(target=server.shutdown, daemon=True).start()
    )
    print(f"serving {NAME} on {address[0]}:{server.server_address[1]}", flush=True)
    server.serve_forever()
    server.server_close()


if __name__ == "__main__":
    sys.exit(main())
