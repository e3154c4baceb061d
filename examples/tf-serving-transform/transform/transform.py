"""Between clients and the SavedModel: names in, tensors to TensorFlow Serving, verdicts out.

Berth tells where to listen (HOST, PORT) and where the model is asked (BERTH_PREDICTOR_URL). Python's standard library only.
"""

import http.client
import json
import os
import signal
import threading
import urllib.parse
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

PREDICTOR = urllib.parse.urlsplit(os.environ["BERTH_PREDICTOR_URL"])
WIDTH = 64
MOST_NAMES = 10_000
MOST_BYTES = 4 << 20
_connections = threading.local()


class Refused(Exception):
    """An answer that is no prediction: its status and text."""

    def __init__(self, status, text):
        super().__init__(text)
        self.status = status


def codes(name):
    """The tensor row of a name: one number a character of the longest label, 1 to 36, 37 for others; zeros to the end."""
    labels = name.lower().rstrip(".").split(".")
    label = max(labels[:-1] or labels, key=len)[:WIDTH]
    row = []
    for c in label:
        if "a" <= c <= "z":
            row.append(ord(c) - ord("a") + 1)
        elif "0" <= c <= "9":
            row.append(ord(c) - ord("0") + 27)
        else:
            row.append(37)
    return row + [0] * (WIDTH - len(row))


def ask(rows):
    """The model's scores; an answer of TensorFlow Serving that is an error is passed on as it is."""
    body = json.dumps({"instances": rows}, separators=(",", ":"))
    # A kept connection may have been closed meanwhile; a second try has a new one.
    for attempt in (1, 2):
        connection = getattr(_connections, "open", None) or http.client.HTTPConnection(PREDICTOR.hostname, PREDICTOR.port, timeout=30)
        _connections.open = connection
        try:
            connection.request("POST", PREDICTOR.path, body, {"Content-Type": "application/json"})
            answer = connection.getresponse()
            data = answer.read()
            break
        except (OSError, http.client.HTTPException) as error:
            connection.close()
            _connections.open = None
            if attempt == 2:
                raise Refused(502, f"the model does not answer: {error}") from error
    if answer.status != 200:
        raise Refused(answer.status, json.loads(data).get("error", "the model refused"))
    return json.loads(data)["predictions"]


def predict(body):
    try:
        names = json.loads(body)["instances"]
    except (KeyError, TypeError, ValueError) as error:
        raise Refused(400, f'the body must be {{"instances": [NAME, …]}}: {error}') from error
    if not isinstance(names, list) or not names or len(names) > MOST_NAMES or not all(isinstance(n, str) and n for n in names):
        raise Refused(400, f"instances must be a list of 1 to {MOST_NAMES} domain names")
    answers = []
    for name, score in zip(names, ask([codes(name) for name in names])):
        score = round(score, 4)
        answers.append({"domain": name, "score": score, "verdict": "dga" if score >= 0.5 else "benign"})
    return {"predictions": answers}


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    wbufsize = -1

    def reply(self, status, answer):
        data = json.dumps(answer, separators=(",", ":")).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def do_POST(self):
        size = int(self.headers.get("content-length") or 0)
        if size > MOST_BYTES:
            self.close_connection = True
            self.reply(413, {"error": f"the body has more than {MOST_BYTES} bytes"})
            return
        body = self.rfile.read(size)
        try:
            self.reply(200, predict(body))
        except Refused as refused:
            self.reply(refused.status, {"error": str(refused)})

    def log_message(self, format, *args):
        print(f"{self.command} {self.path} {args[1] if len(args) > 1 else ''}", flush=True)


class Server(ThreadingHTTPServer):
    daemon_threads = False
    request_queue_size = 128


def main():
    server = Server((os.environ["HOST"], int(os.environ["PORT"])), Handler)
    # shutdown() waits for serve_forever, so it cannot be called by the signal handler itself.
    signal.signal(signal.SIGTERM, lambda *_: threading.Thread(target=server.shutdown).start())
    print(f"transforming for {PREDICTOR.geturl()}", flush=True)
    server.serve_forever()
    os._exit(0)


if __name__ == "__main__":
    main()
