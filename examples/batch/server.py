"""Scores domain names by how often their letter pairs occur in ordinary ones. Python's standard library only."""

import json
import math
import os
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

with open(os.path.join(os.environ.get("BERTH_MODEL_DIR", "model"), "pairs.json"), encoding="utf-8") as file:
    MODEL = json.load(file)


def score(name):
    """0 for names like those of the model, towards 1 the stranger their letter pairs are."""
    labels = name.lower().rstrip(".").split(".")
    label = max(labels[:-1] or labels, key=len)
    pairs = [label[i : i + 2] for i in range(len(label) - 1)]
    strange = sum(MODEL["cost"].get(pair, MODEL["unseen"]) for pair in pairs) / max(1, len(pairs))
    logit = MODEL["slope"] * (strange - MODEL["middle"]) + MODEL["length"] * (len(label) - 10)
    value = round(1 / (1 + math.exp(-logit)), 6)
    return {"domain": name, "score": value, "verdict": "dga" if value >= 0.5 else "benign"}


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    wbufsize = -1

    def reply(self, code, answer):
        data = json.dumps(answer, separators=(",", ":")).encode()
        self.send_response(code)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def do_GET(self):
        self.reply(200, {"status": "ok"})

    def do_POST(self):
        body = self.rfile.read(int(self.headers.get("content-length") or 0))
        try:
            names = json.loads(body)["instances"]
            answers = [score(name) for name in names]
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            self.reply(400, {"error": f'the body must be {{"instances": [NAME, …]}}: {error}'})
            return
        self.reply(200, {"predictions": answers})

    def log_message(self, format, *args):
        """One line for every request would be a log as long as the input."""


class Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 128


Server((os.environ["HOST"], int(os.environ["PORT"])), Handler).serve_forever()
