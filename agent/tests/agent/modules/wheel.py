"""Makes a wheel as small as they come: python3 wheel.py FOLDER. Its program tiny-serve is the module of the tests."""

import os
import sys
import zipfile

CODE = '''
import os
import sys
from http.server import BaseHTTPRequestHandler, HTTPServer


class Handler(BaseHTTPRequestHandler):
    def do_GET(self):
        body = f"{os.getpid()} {sys.prefix} {os.environ['VIRTUAL_ENV']}".encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


def main():
    HTTPServer((os.environ["HOST"], int(os.environ["PORT"])), Handler).serve_forever()
'''
INFO = "tiny_serve-1.0.dist-info/"
FILES = {
    "tiny_serve.py": CODE,
    INFO + "METADATA": "Metadata-Version: 2.1\nName: tiny-serve\nVersion: 1.0\n",
    INFO + "WHEEL": "Wheel-Version: 1.0\nGenerator: berth\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
    INFO + "entry_points.txt": "[console_scripts]\ntiny-serve = tiny_serve:main\n",
}
with zipfile.ZipFile(os.path.join(sys.argv[1], "tiny_serve-1.0-py3-none-any.whl"), "w") as wheel:
    for path, text in FILES.items():
        wheel.writestr(path, text)
    names = list(FILES) + [INFO + "RECORD"]
    wheel.writestr(INFO + "RECORD", "".join(f"{name},,\n" for name in names))
