"""How the server starts, fails to start, and ends."""

import os
import shutil
import signal
import socket
import struct
import threading
import unittest

import requests
from harness import Folder, Server, free_port, model_config, wait
from tensorflow_serving.apis import prediction_log_pb2


class Life(unittest.TestCase):
    def setUp(self):
        self.folder = Folder()
        self.addCleanup(self.folder.remove)

    def start(self, *flags, **options):
        server = Server(self.folder, *flags, **options)
        self.addCleanup(server.stop)
        return server

    def refuses(self, says, *flags):
        server = self.start(*flags)
        self.assertEqual(server.exit_code(), 255, server.output())
        self.assertIn(says, server.output())

    def config(self, text):
        return "--model_config_file=" + self.folder.write("models.config", text)

    def test_refuses_bad_configurations(self):
        base = self.folder.add("m", 1, "half-plus-two")
        start = "Failed to start server. Error: "
        self.refuses(f"{start}NOT_FOUND: /not/there; No such file or directory", "--model_config_file=/not/there")
        self.refuses(f"{start}INVALID_ARGUMENT: Invalid protobuf file: ", self.config("model_config_list { nonsense: 1 }"))
        self.refuses("Illegal to list model m multiple times in config list", self.config(model_config(("m", base), ("m", base))))
        self.refuses("Expected model m to have an absolute path or URI; got base_path()=m", self.config(model_config(("m", "m"))))
        self.refuses("Illegal setting neither ModelServerConfig::model_type (deprecated) nor ModelServerConfig::model_platform",
                     self.config(f'model_config_list {{ config {{ name: "m" base_path: "{base}" }} }}'))
        self.refuses("Both server_options.model_base_path and server_options.model_config_file are empty!")
        batching = self.folder.write("batching", "max_batch_size { value: 2 }")
        self.refuses("batching_parameters_file is set without setting server_options.enable_batching to true",
                     "--model_name=m", f"--model_base_path={base}", f"--batching_parameters_file={batching}")
        self.refuses("Request to assign label to version 1 of model m, which is not currently available for inference",
                     self.config(model_config(("m", base, 'version_labels { key: "l" value: 1 }'))))
        self.refuses("rest_api_port", f"--model_base_path={base}", "--rest_api_port=many")

    def test_unknown_flag_prints_usage_and_goes_on(self):
        base = self.folder.add("m", 1, "half-plus-two")
        server = self.start("--no_such_flag=1", "--model_name=m", f"--model_base_path={base}").ready()
        self.assertIn("unknown argument: --no_such_flag=1", server.output())
        self.assertIn("--batching_parameters_file", server.output())
        self.assertEqual(server.states("m"), {"1": "AVAILABLE"})

    def test_empty_list_serves(self):
        server = self.start(self.config("model_config_list {}")).ready()
        self.assertEqual(server.get("/v1/models/m").status_code, 404)

    def test_corrupt_model_ends_it_in_tensorflows_words(self):
        base = self.folder.add("bad", 1, "corrupt")
        self.refuses("Failed to start server. Error: UNKNOWN: 1 servable(s) did not become available: "
                     "{{{name: bad version: 1} due to error: OUT_OF_RANGE: Read less bytes than requested}, }",
                     "--model_name=bad", f"--model_base_path={base}", "--max_num_load_retries=0")

    def test_folder_without_a_model_says_so(self):
        base = self.folder.add("bad", 1, "keras-weights")
        self.refuses("Could not find SavedModel .pb or .pbtxt at supplied export directory path",
                     "--model_name=bad", f"--model_base_path={base}", "--max_num_load_retries=0")

    def test_corrupt_model_is_retried_with_no_port_open(self):
        base = self.folder.add("bad", 1, "corrupt")
        server = self.start("--model_name=bad", f"--model_base_path={base}", "--max_num_load_retries=2", "--load_retry_interval_micros=200000")
        server.wait_logged("retry: 1")
        with self.assertRaises(requests.ConnectionError):
            server.get("/v1/models/bad")
        self.assertEqual(server.exit_code(), 255)

    def test_missing_base_path_waits_for_ever(self):
        base = os.path.join(self.folder.path, "later")
        server = self.start("--model_name=m", f"--model_base_path={base}")
        text = f"FileSystemStoragePathSource encountered a filesystem access error: Could not find base path {base}"
        wait("the second complaint", lambda: server.output().count(text) >= 2)
        with self.assertRaises(requests.ConnectionError):
            server.get("/v1/models/m")
        self.folder.add("later", 1, "half-plus-two")
        server.ready()

    def test_version_folder_that_is_no_number(self):
        base = self.folder.add("m", "v1", "half-plus-two")
        server = self.start("--model_name=m", f"--model_base_path={base}")
        server.wait_logged("Did you forget to name your leaf directory as a number (eg. '/1/')?")

    def test_new_version_replaces_the_old_one(self):
        base = self.folder.add("m", 1, "half-plus-two")
        server = self.start("--model_name=m", f"--model_base_path={base}").ready()
        self.folder.add("m", 2, "half-plus-three")
        server.wait_states("m", {"2": "AVAILABLE", "1": "END"})
        self.assertEqual(server.post("/v1/models/m:predict", {"instances": [0]}).json(), {"predictions": [3.0]})

    def test_taken_rest_port_leaves_it_without_rest(self):
        base = self.folder.add("m", 1, "half-plus-two")
        with socket.socket(socket.AF_INET6) as taken:
            taken.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
            taken.bind(("::", 0))
            taken.listen()
            port = taken.getsockname()[1]
            server = self.start("--model_name=m", f"--model_base_path={base}", f"--rest_api_port={port}", rest=False)
            server.wait_logged(f"Failed to start HTTP Server at localhost:{port}")
            self.assertIsNone(server.process.poll())

    def test_rest_port_equal_to_the_grpc_port(self):
        base, port = self.folder.add("m", 1, "half-plus-two"), free_port()
        server = self.start("--model_name=m", f"--model_base_path={base}", f"--port={port}", f"--rest_api_port={port}", rest=False)
        server.wait_logged("Skipped exporting HTTP/REST API.")

    def test_sigterm_ends_it_with_requests_in_flight(self):
        base = self.folder.add("slow", 1, "slow")
        server = self.start("--model_name=slow", f"--model_base_path={base}").ready()
        failed = threading.Event()

        def ask():
            try:
                while True:
                    server.post("/v1/models/slow:predict", {"instances": [1.0]})
            except requests.RequestException:
                failed.set()

        asking = threading.Thread(target=ask)
        asking.start()
        wait("a first answer", lambda: server.get("/v1/models/slow").ok)
        server.process.send_signal(signal.SIGTERM)
        self.assertEqual(server.exit_code(), -signal.SIGTERM)
        asking.join()
        self.assertTrue(failed.is_set())

    @unittest.skipUnless(os.geteuid() == 0 and shutil.which("unshare"), "needs root for a pid namespace of its own")
    def test_as_init_it_ignores_sigterm(self):
        base = self.folder.add("m", 1, "half-plus-two")
        server = self.start("--model_name=m", f"--model_base_path={base}",
                            wrapper=("unshare", "--pid", "--fork", "--kill-child=SIGKILL")).ready()
        with open(f"/proc/{server.process.pid}/task/{server.process.pid}/children", encoding="utf-8") as file:
            init = int(file.read().split()[0])
        os.kill(init, signal.SIGTERM)
        self.assertEqual(server.states("m"), {"1": "AVAILABLE"})
        self.assertIsNone(server.process.poll())

    def test_warmup_records_are_replayed(self):
        target = os.path.join(self.folder.path, "warm", "1")
        source = os.path.realpath(os.path.join(self.folder.add("m", 1, "half-plus-two"), "1"))
        shutil.copytree(source, target)
        os.makedirs(os.path.join(target, "assets.extra"))
        entry = prediction_log_pb2.PredictionLog()
        request = entry.predict_log.request
        request.model_spec.name = "m"
        request.inputs["x"].dtype = 1
        request.inputs["x"].tensor_shape.dim.add(size=1)
        request.inputs["x"].float_val.append(1.0)
        data = entry.SerializeToString()
        header = struct.pack("<Q", len(data))
        with open(os.path.join(target, "assets.extra", "tf_serving_warmup_requests"), "wb") as file:
            file.write(header + struct.pack("<I", _masked(header)) + data + struct.pack("<I", _masked(data)))
        server = self.start("--model_name=m", f"--model_base_path={os.path.dirname(target)}").ready()
        self.assertIn("Number of warmup records read: 1.", server.output())


def _masked(data):
    """The masked CRC-32C of a TFRecord."""
    crc = 0xFFFFFFFF
    for byte in data:
        crc ^= byte
        for _ in range(8):
            crc = (crc >> 1) ^ (0x82F63B78 if crc & 1 else 0)
    crc ^= 0xFFFFFFFF
    return (((crc >> 15) | (crc << 17)) + 0xA282EAD8) & 0xFFFFFFFF


if __name__ == "__main__":
    unittest.main()
