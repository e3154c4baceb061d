#!/usr/bin/env python3
"""A transform: answers with what its predictor said, and says who it is."""

import os
import urllib.request
from http.server import BaseHTTPRequestHandler, HTTPServer

URL = os.environ["BERTH_PREDICTOR_URL"]


class Handler(BaseHTTPRequestHandler):
    def do_GET(self):
        if self.path == "/exit":
            os._exit(7)
        with urllib.request.urlopen(URL, timeout=10) as answer:
            said = answer.read().decode()
        body = f"{said} via {os.getpid()} {URL}".encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


HTTPServer((os.environ["HOST"], int(os.environ["PORT"])), Handler).serve_forever()
