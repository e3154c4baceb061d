"""Starts the model server under test and talks to it: by REST with requests, by gRPC with the official client."""

import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))

from tfserving import light  # noqa: F401,E402  (a third of the start-up time)

import grpc  # noqa: E402
import requests  # noqa: E402
from tensorflow_serving.apis import model_service_pb2_grpc, prediction_service_pb2_grpc  # noqa: E402

import models  # noqa: E402

SERVER = os.environ["TENSORFLOW_MODEL_SERVER"]
_PATIENCE = 60


def model(name):
    """The folder of a SavedModel, made in a process of its own where it is not cached (it needs all of TensorFlow)."""
    done = subprocess.run(
        [sys.executable, models.__file__, "--cached", name], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, check=False)
    if done.returncode:
        raise AssertionError(f"models.py --cached {name}: {done.stderr}")
    return done.stdout.strip()


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def wait(what, condition, seconds=_PATIENCE):
    """Waits until the condition holds; what it returned then."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        found = condition()
        if found:
            return found
        time.sleep(0.02)
    raise AssertionError(f"{what}: not within {seconds} s")


class Folder:
    """A folder of the test's own: models by name and version, files."""

    def __init__(self):
        self.path = tempfile.mkdtemp(prefix="tfs")

    def add(self, name, version, kind):
        base = os.path.join(self.path, name)
        os.makedirs(base, exist_ok=True)
        os.symlink(model(kind), os.path.join(base, str(version)))
        return base

    def write(self, name, text):
        path = os.path.join(self.path, name)
        with open(path + ".new", "w", encoding="utf-8") as file:
            file.write(text)
        os.rename(path + ".new", path)
        return path

    def config(self, *entries):
        return self.write("models.config", model_config(*entries))

    def remove(self):
        shutil.rmtree(self.path, ignore_errors=True)


def model_config(*entries):
    """The text of a model configuration file: (name, base path, more text) each."""
    lines = []
    for name, base, *more in entries:
        lines.append(f'config {{ name: "{name}" base_path: "{base}" model_platform: "tensorflow" {" ".join(more)} }}')
    return "model_config_list {\n" + "\n".join(lines) + "\n}\n"


class Server:
    """A running model server; its flags, its output, its end."""

    def __init__(self, folder, *flags, rest=True, wrapper=()):
        self.folder = folder
        self.rest_port = free_port() if rest else 0
        self.socket = os.path.join(folder.path, f"grpc{self.rest_port}.sock")
        given = [f"--grpc_socket_path={self.socket}"] + ([f"--rest_api_port={self.rest_port}"] if rest else [])
        given += [] if any(flag.startswith("--port=") for flag in flags) else ["--port=0"]
        self._out = open(os.path.join(folder.path, f"out{self.rest_port}"), "w+", encoding="utf-8")
        self.process = subprocess.Popen([*wrapper, SERVER, *given, *flags], stdout=self._out, stderr=self._out)
        self._channels = []

    def output(self):
        with open(self._out.name, encoding="utf-8", errors="replace") as file:
            return file.read()

    def _alive(self):
        if self.process.poll() is not None:
            raise AssertionError(f"the server ended with {self.process.returncode}:\n{self.output()}")

    def wait_logged(self, text):
        return wait(f"{text!r} in the output", lambda: text in self.output() or self._alive())

    def ready(self):
        self.wait_logged("Running gRPC ModelServer")
        if self.rest_port:
            self.wait_logged("Exporting HTTP/REST API")
        return self

    def exit_code(self):
        return self.process.wait(_PATIENCE)

    def url(self, path):
        return f"http://127.0.0.1:{self.rest_port}{path}"

    def get(self, path):
        return requests.get(self.url(path), timeout=_PATIENCE)

    def post(self, path, body):
        if isinstance(body, (str, bytes)):
            return requests.post(self.url(path), data=body, timeout=_PATIENCE)
        return requests.post(self.url(path), json=body, timeout=_PATIENCE)

    def states(self, name):
        """Version → state, as REST tells."""
        answer = self.get(f"/v1/models/{name}")
        return {entry["version"]: entry["state"] for entry in answer.json().get("model_version_status", [])}

    def wait_states(self, name, wanted):
        wait(f"{name} to be {wanted}", lambda: self.states(name) == wanted)

    def _channel(self, target):
        channel = grpc.insecure_channel(target)
        self._channels.append(channel)
        return channel

    def prediction(self, target=None):
        return prediction_service_pb2_grpc.PredictionServiceStub(self._channel(target or f"unix:{self.socket}"))

    def models(self, target=None):
        return model_service_pb2_grpc.ModelServiceStub(self._channel(target or f"unix:{self.socket}"))

    def stop(self):
        for channel in self._channels:
            channel.close()
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGKILL)
        self.process.wait()
        self._out.close()
