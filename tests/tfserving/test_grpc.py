"""The gRPC interface, by the official client, on a unix socket and on TCP; configuration reloads."""

import subprocess
import threading
import unittest

import grpc
from google.protobuf import text_format
from harness import Folder, Server, free_port, model_config, wait
from tensorflow.core.framework import tensor_pb2, types_pb2
from tensorflow_serving.apis import (
    classification_pb2, get_model_metadata_pb2, get_model_status_pb2, inference_pb2, model_management_pb2, predict_pb2,
    regression_pb2)


def predict(name, values, version=None, label=None, signature=""):
    request = predict_pb2.PredictRequest()
    request.model_spec.name, request.model_spec.signature_name = name, signature
    if version is not None:
        request.model_spec.version.value = version
    if label is not None:
        request.model_spec.version_label = label
    tensor = tensor_pb2.TensorProto(dtype=types_pb2.DT_FLOAT, float_val=values)
    tensor.tensor_shape.dim.add(size=len(values))
    request.inputs["x"].CopyFrom(tensor)
    return request


def reload_request(*entries):
    request = model_management_pb2.ReloadConfigRequest()
    text_format.Parse(model_config(*entries), request.config)
    return request


def latest(count):
    return f"model_version_policy {{ latest {{ num_versions: {count} }} }}"


def label(name, version):
    return f'version_labels {{ key: "{name}" value: {version} }}'


class Grpc(unittest.TestCase):
    def setUp(self):
        self.folder, self.servers = Folder(), []
        self.addCleanup(self.folder.remove)

    def start(self, *flags, **options):
        server = Server(self.folder, *flags, **options)
        self.addCleanup(server.stop)
        return server

    def fails(self, code, says, call, *arguments, **options):
        with self.assertRaises(grpc.RpcError) as caught:
            call(*arguments, **options)
        self.assertEqual(caught.exception.code(), code, caught.exception.details())
        self.assertIn(says, caught.exception.details())

    def test_socket_and_tcp_answer_alike(self):
        port, base = free_port(), self.folder.add("m", 7, "half-plus-two")
        server = self.start(f"--port={port}", "--model_name=m", f"--model_base_path={base}").ready()
        for target in (None, f"127.0.0.1:{port}"):
            stub = server.prediction(target)
            answer = stub.Predict(predict("m", [1.0, 2.0]), timeout=30)
            self.assertEqual(list(answer.outputs["y"].float_val), [2.5, 3.0])
            self.assertEqual((answer.model_spec.version.value, answer.model_spec.signature_name), (7, "serving_default"))
            status = get_model_status_pb2.GetModelStatusRequest()
            status.model_spec.name = "m"
            found = server.models(target).GetModelStatus(status, timeout=30).model_version_status
            self.assertEqual([(v.version, v.state) for v in found], [(7, get_model_status_pb2.ModelVersionStatus.AVAILABLE)])

    def test_every_call_and_its_errors(self):
        base = self.folder.add("m", 1, "half-plus-two")
        server = self.start("--model_name=m", f"--model_base_path={base}").ready()
        stub = server.prediction()
        classify = classification_pb2.ClassificationRequest()
        classify.model_spec.name, classify.model_spec.signature_name = "m", "classify_x_to_y"
        classify.input.example_list.examples.add().features.feature["x"].float_list.value.append(2.0)
        classes = stub.Classify(classify, timeout=30).result.classifications[0].classes
        self.assertEqual([(c.label, c.score) for c in classes], [("small", 97.0), ("large", 3.0)])
        regress = regression_pb2.RegressionRequest(input=classify.input)
        regress.model_spec.name, regress.model_spec.signature_name = "m", "regress_x_to_y"
        self.assertEqual([r.value for r in stub.Regress(regress, timeout=30).result.regressions], [3.0])
        multi = inference_pb2.MultiInferenceRequest(input=classify.input)
        for spec, kind in ((classify.model_spec, "classify"), (regress.model_spec, "regress")):
            multi.tasks.add(model_spec=spec, method_name=f"tensorflow/serving/{kind}")
        results = stub.MultiInference(multi, timeout=30).results
        self.assertEqual(results[1].regression_result.regressions[0].value, 3.0)
        metadata = get_model_metadata_pb2.GetModelMetadataRequest(metadata_field=["signature_def"])
        metadata.model_spec.name = "m"
        signatures = get_model_metadata_pb2.SignatureDefMap()
        stub.GetModelMetadata(metadata, timeout=30).metadata["signature_def"].Unpack(signatures)
        self.assertIn("serving_default", signatures.signature_def)
        code = grpc.StatusCode
        self.fails(code.NOT_FOUND, "Servable not found for request: Latest(nope)", stub.Predict, predict("nope", [1.0]), timeout=30)
        self.fails(code.NOT_FOUND, "Specific(m, 5)", stub.Predict, predict("m", [1.0], version=5), timeout=30)
        self.fails(code.INVALID_ARGUMENT, "Unrecognized servable version label: x", stub.Predict, predict("m", [1.0], label="x"), timeout=30)
        self.fails(code.FAILED_PRECONDITION, 'Serving signature key "nosig" not found.', stub.Predict, predict("m", [1.0], signature="nosig"), timeout=30)
        self.fails(code.INVALID_ARGUMENT, "Sent extra: {}. Missing but required: {x}.", stub.Predict,
                   predict_pb2.PredictRequest(model_spec={"name": "m"}), timeout=30)
        wrong = predict("m", [])
        wrong.inputs["x"].CopyFrom(tensor_pb2.TensorProto(dtype=types_pb2.DT_STRING, string_val=[b"a"], tensor_shape={"dim": [{"size": 1}]}))
        # TensorFlow itself says so; its words differ between versions.
        self.fails(code.INVALID_ARGUMENT, "float", stub.Predict, wrong, timeout=30)

    def test_reload_adds_moves_labels_and_removes(self):
        one = self.folder.add("m", 1, "half-plus-two")
        config = self.folder.config(("m", one))
        server = self.start(f"--model_config_file={config}", "--allow_version_labels_for_unavailable_models",
                            "--file_system_poll_wait_seconds=1", "--max_num_load_retries=0").ready()
        manager, stub = server.models(), server.prediction()
        manager.HandleReloadConfigRequest(reload_request(("m", one, latest(2), label("stable", 1))), timeout=30)
        self.folder.add("m", 2, "half-plus-three")
        server.wait_states("m", {"2": "AVAILABLE", "1": "AVAILABLE"})
        self.assertEqual(list(stub.Predict(predict("m", [0.0]), timeout=30).outputs["y"].float_val), [3.0])
        self.assertEqual(list(stub.Predict(predict("m", [0.0], label="stable"), timeout=30).outputs["y"].float_val), [2.0])
        # A label that is in use may not move to a version that is not loaded; then nothing of that config is applied.
        self.fails(grpc.StatusCode.FAILED_PRECONDITION, "Request to assign label to version 3 of model m, which is not currently available",
                   manager.HandleReloadConfigRequest, reload_request(("m", one, latest(2), label("stable", 3))), timeout=30)
        self.assertEqual(list(stub.Predict(predict("m", [0.0], label="stable"), timeout=30).outputs["y"].float_val), [2.0])
        manager.HandleReloadConfigRequest(reload_request(("m", one, latest(2), label("stable", 2))), timeout=30)
        self.assertEqual(list(stub.Predict(predict("m", [0.0], label="stable"), timeout=30).outputs["y"].float_val), [3.0])
        # Another model, loaded when the call returns; and the first one dropped, which then is listed as ended.
        two = self.folder.add("n", 1, "vector")
        manager.HandleReloadConfigRequest(reload_request(("n", two)), timeout=30)
        self.assertEqual(server.states("n"), {"1": "AVAILABLE"})
        server.wait_states("m", {"2": "END", "1": "END"})
        self.fails(grpc.StatusCode.NOT_FOUND, "Servable not found", stub.Predict, predict("m", [0.0]), timeout=30)

    def test_reload_of_a_corrupt_model_leaves_the_others(self):
        one, bad = self.folder.add("m", 1, "half-plus-two"), self.folder.add("bad", 1, "corrupt")
        server = self.start(f"--model_config_file={self.folder.config(('m', one))}", "--max_num_load_retries=0").ready()
        self.fails(grpc.StatusCode.UNKNOWN, "1 model(s) did not become available: {{{name: bad version: 1} due to error: OUT_OF_RANGE",
                   server.models().HandleReloadConfigRequest, reload_request(("m", one), ("bad", bad)), timeout=30)
        self.assertEqual(server.states("m"), {"1": "AVAILABLE"})
        self.assertEqual(server.get("/v1/models/bad").json()["model_version_status"][0]["status"]["error_code"], "OUT_OF_RANGE")

    def test_reload_with_a_missing_path_blocks_all_later_ones(self):
        one = self.folder.add("m", 1, "half-plus-two")
        server = self.start(f"--model_config_file={self.folder.config(('m', one))}").ready()
        missing = self.folder.path + "/not-there"
        self.fails(grpc.StatusCode.DEADLINE_EXCEEDED, "", server.models().HandleReloadConfigRequest,
                   reload_request(("m", one), ("gone", missing)), timeout=2)
        server.wait_logged(f"FileSystemStoragePathSource encountered a filesystem access error: Could not find base path {missing}")
        self.fails(grpc.StatusCode.DEADLINE_EXCEEDED, "", server.models().HandleReloadConfigRequest, reload_request(("m", one)), timeout=2)
        self.assertEqual(server.post("/v1/models/m:predict", {"instances": [0]}).json(), {"predictions": [2.0]})

    def test_full_queue_and_merged_batches(self):
        base = self.folder.add("slow", 1, "slow")
        batching = self.folder.write("batching", "max_batch_size { value: 2 } batch_timeout_micros { value: 0 } "
                                     "max_enqueued_batches { value: 1 } num_batch_threads { value: 1 }")
        monitoring = self.folder.write("monitoring", "prometheus_config { enable: true }")
        server = self.start("--model_name=slow", f"--model_base_path={base}", "--enable_batching",
                            f"--batching_parameters_file={batching}", f"--monitoring_config_file={monitoring}").ready()
        answers = []

        def ask():
            answers.append(server.post("/v1/models/slow:predict", {"instances": [1.0, 2.0]}))

        threads = [threading.Thread(target=ask) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        codes = [answer.status_code for answer in answers]
        self.assertEqual(set(codes), {200, 503}, [answer.text for answer in answers])
        refused = next(answer for answer in answers if answer.status_code == 503)
        self.assertIn("The batch scheduling queue to which this task was submitted is full", refused.json()["error"])
        self.fails(grpc.StatusCode.INVALID_ARGUMENT, "Task size 3 is larger than maximum input batch size 2",
                   server.prediction().Predict, predict("slow", [1.0, 2.0, 3.0]), timeout=30)
        self.assertIn("batching_session:processed_batch_size", server.get("/monitoring/prometheus/metrics").text)

    def test_concurrent_requests_are_merged(self):
        base = self.folder.add("m", 1, "half-plus-two")
        batching = self.folder.write("batching", "max_batch_size { value: 16 } batch_timeout_micros { value: 500000 } "
                                     "max_enqueued_batches { value: 10 } num_batch_threads { value: 1 }")
        monitoring = self.folder.write("monitoring", "prometheus_config { enable: true }")
        server = self.start("--model_name=m", f"--model_base_path={base}", "--enable_batching",
                            f"--batching_parameters_file={batching}", f"--monitoring_config_file={monitoring}").ready()
        answers = {}

        def ask(i):
            answers[i] = server.post("/v1/models/m:predict", {"instances": [float(i), float(i)]}).json()

        threads = [threading.Thread(target=ask, args=(i,)) for i in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        self.assertEqual(answers, {i: {"predictions": [i / 2 + 2, i / 2 + 2]} for i in range(8)})
        page = server.get("/monitoring/prometheus/metrics").text
        count = next(line for line in page.splitlines() if "processed_batch_size_count" in line)
        self.assertLess(int(count.split()[-1]), 8, "no two of eight requests were merged")

    def test_config_file_is_polled(self):
        one = self.folder.add("m", 1, "half-plus-two")
        config = self.folder.config(("m", one))
        server = self.start(f"--model_config_file={config}", "--model_config_file_poll_wait_seconds=1").ready()
        self.folder.write("models.config", "model_config_list { nonsense")
        server.wait_logged("Failed to read ModelServerConfig file: Invalid protobuf file")
        self.assertEqual(server.states("m"), {"1": "AVAILABLE"})
        self.folder.config(("m", one), ("v", self.folder.add("v", 4, "vector")))
        wait("the new model", lambda: server.states("v") == {"4": "AVAILABLE"})

    def test_two_servers_share_a_grpc_port(self):
        port, base = free_port(), self.folder.add("m", 1, "half-plus-two")
        flags = (f"--port={port}", "--model_name=m", f"--model_base_path={base}")
        self.start(*flags).ready()
        self.start(*flags).ready()

    def test_tls_with_a_configuration_file(self):
        base, path = self.folder.add("m", 1, "half-plus-two"), self.folder.path
        subprocess.run(["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "1",
                        "-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost", "-keyout", f"{path}/key", "-out", f"{path}/cert"],
                       check=True, capture_output=True)
        with open(f"{path}/key", encoding="utf-8") as key, open(f"{path}/cert", encoding="utf-8") as cert:
            certificate = cert.read()
            ssl = self.folder.write("ssl", f"server_key: {key.read()!r}\nserver_cert: {certificate!r}\n")
        port = free_port()
        server = self.start(f"--port={port}", "--model_name=m", f"--model_base_path={base}", f"--ssl_config_file={ssl}").ready()
        credentials = grpc.ssl_channel_credentials(root_certificates=certificate.encode())
        from tensorflow_serving.apis import prediction_service_pb2_grpc
        with grpc.secure_channel(f"localhost:{port}", credentials) as channel:
            stub = prediction_service_pb2_grpc.PredictionServiceStub(channel)
            self.assertEqual(list(stub.Predict(predict("m", [0.0]), timeout=30).outputs["y"].float_val), [2.0])
        self.fails(grpc.StatusCode.UNAVAILABLE, "", server.prediction(f"127.0.0.1:{port}").Predict, predict("m", [0.0]), timeout=10)


if __name__ == "__main__":
    unittest.main()
