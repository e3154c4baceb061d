"""The REST interface, as clients see it."""

import base64
import subprocess
import unittest

from harness import Folder, Server


class Rest(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.folder = Folder()
        entries = [("half", cls.folder.add("half", 1, "half-plus-two"), 'version_labels { key: "stable" value: 1 }'),
                   ("strings", cls.folder.add("strings", 1, "strings")),
                   ("vector", cls.folder.add("vector", 3, "vector"))]
        monitoring = cls.folder.write("monitoring", 'prometheus_config { enable: true path: "/met" }')
        cls.server = Server(
            cls.folder, f"--model_config_file={cls.folder.config(*entries)}", f"--monitoring_config_file={monitoring}",
            "--allow_version_labels_for_unavailable_models").ready()

    @classmethod
    def tearDownClass(cls):
        cls.server.stop()
        cls.folder.remove()

    def error(self, code, path, body=None, says=""):
        answer = self.server.get(path) if body is None else self.server.post(path, body)
        self.assertEqual(answer.status_code, code, answer.text)
        self.assertIn(says, answer.json()["error"])

    def test_status_lists_versions(self):
        answer = self.server.get("/v1/models/half")
        self.assertEqual(answer.status_code, 200)
        self.assertEqual(answer.headers["content-type"], "application/json")
        self.assertEqual(answer.json(), {"model_version_status": [
            {"version": "1", "state": "AVAILABLE", "status": {"error_code": "OK", "error_message": ""}}]})
        self.assertEqual(self.server.get("/v1/models/half/versions/1").json(), answer.json())
        # Labels are not looked at.
        self.assertEqual(self.server.get("/v1/models/half/labels/anything").json(), answer.json())

    def test_metadata_has_the_signatures(self):
        answer = self.server.get("/v1/models/half/metadata").json()
        self.assertEqual(answer["model_spec"]["version"], "1")
        signatures = answer["metadata"]["signature_def"]["signature_def"]
        self.assertEqual(signatures["serving_default"]["inputs"]["x"]["dtype"], "DT_FLOAT")
        self.assertEqual(signatures["regress_x_to_y"]["method_name"], "tensorflow/serving/regress")

    def test_predict_rows_and_columns(self):
        rows = self.server.post("/v1/models/half:predict", {"instances": [1.0, 2.0, 5.0]})
        self.assertEqual(rows.json(), {"predictions": [2.5, 3.0, 4.5]})
        self.assertEqual(rows.text, '{\n    "predictions": [2.5, 3.0, 4.5\n    ]\n}')
        self.assertEqual(self.server.post("/v1/models/half:predict", {"instances": [{"x": 4}]}).json(), {"predictions": [4.0]})
        self.assertEqual(self.server.post("/v1/models/half:predict", {"inputs": [1, 3]}).json(), {"outputs": [2.5, 3.5]})
        self.assertEqual(self.server.post("/v1/models/half:predict", {"inputs": {"x": [0]}}).json(), {"outputs": [2.0]})

    def test_predict_by_version_label_and_signature(self):
        body = {"instances": [2.0], "signature_name": "serving_default"}
        for which in ("", "/versions/1", "/labels/stable"):
            self.assertEqual(self.server.post(f"/v1/models/half{which}:predict", body).json(), {"predictions": [3.0]}, which)

    def test_strings_come_as_text_or_base64(self):
        b64 = base64.b64encode(b"a\x00b").decode()
        answer = self.server.post("/v1/models/strings:predict", {"instances": ["abc", {"b64": b64}]}).json()
        self.assertEqual(answer, {"predictions": [
            {"length": 3, "upper_bytes": {"b64": base64.b64encode(b"ABC").decode()}},
            {"length": 3, "upper_bytes": {"b64": base64.b64encode(b"A\x00B").decode()}}]})
        columns = self.server.post("/v1/models/strings:predict", {"inputs": {"text": ["ab"]}}).json()
        self.assertEqual(columns["outputs"]["length"], [2])

    def test_classify_and_regress(self):
        examples = [{"x": 1.0}, {"x": [2.0]}]
        answer = self.server.post("/v1/models/half:classify", {"signature_name": "classify_x_to_y", "examples": examples})
        self.assertEqual(answer.json(), {"results": [[["small", 97.5], ["large", 2.5]], [["small", 97.0], ["large", 3.0]]]})
        answer = self.server.post("/v1/models/half:regress", {"signature_name": "regress_x_to_y", "examples": examples})
        self.assertEqual(answer.json(), {"results": [2.5, 3.0]})
        with_context = {"signature_name": "regress_x_to_y", "context": {"x": 8.0}, "examples": [{"other": "z"}]}
        self.assertEqual(self.server.post("/v1/models/half:regress", with_context).json(), {"results": [6.0]})
        self.error(400, "/v1/models/half:classify", {"examples": examples}, "No classification inputs found in SignatureDef")

    def test_unknown_models_versions_and_labels(self):
        good = {"instances": [1.0]}
        self.error(404, "/v1/models/nope:predict", good, "Servable not found for request: Latest(nope)")
        self.error(404, "/v1/models/half/versions/9:predict", good, "Servable not found for request: Specific(half, 9)")
        self.error(404, "/v1/models/nope", says="Could not find any versions of model nope")
        self.error(404, "/v1/models/half/versions/9", says="Could not find version 9 of model half")
        self.error(400, "/v1/models/half/labels/canary:predict", good, "Unrecognized servable version label: canary")

    def test_malformed_requests(self):
        self.error(400, "/v1/models/half:predict", says="Malformed request: GET /v1/models/half:predict")
        self.error(400, "/v1/models", says="Missing model name in request.")
        self.error(400, "/v1/nothing", says="Malformed request: GET /v1/nothing")
        path = "/v1/models/half:predict"
        self.error(400, path, '{"instances": [1, }', "JSON Parse error: Invalid value. at offset: 18")
        self.error(400, path, '{"instances" [1]}', "JSON Parse error: Missing a colon after a name of object member. at offset: 13")
        self.error(400, path, '{"instances": [1 2]}', "JSON Parse error: Missing a comma or ] after an array element. at offset: 17")
        self.error(400, path, "", "JSON Parse error: The document is empty")
        self.error(400, path, "[1]", "Is not object")
        self.error(400, path, {"rows": [1]}, "Missing 'inputs' or 'instances' key")
        self.error(400, path, {"instances": [1], "inputs": [1]}, "Not formatted correctly expecting only one of")
        self.error(400, path, {"instances": []}, "No values in 'instances' array")
        self.error(400, path, {"instances": 5}, "Expecting 'instances' to be an list/array")
        self.error(400, path, {"instances": [1], "signature_name": "nosig"}, 'Serving signature name: "nosig" not found in signature def')

    def test_wrong_types_and_shapes(self):
        path = "/v1/models/half:predict"
        self.error(400, path, {"instances": ["a"]},
                   "Failed to process element: 0 of 'instances' list. Error: INVALID_ARGUMENT: JSON Value: \"a\" Type: String is not of expected type: float")
        self.error(400, path, {"instances": [{"y": 1.0}]}, "JSON object: does not have named input: y")
        self.error(400, path, {"inputs": {"y": [1.0]}}, "Missing named input: x in 'inputs' object.")
        self.error(400, path, {"instances": [[1.0, 2.0], [3.0]]}, "Expecting tensor size: 2 but got: 1")
        # The model itself refuses a shape, in TensorFlow's words.
        self.error(400, "/v1/models/vector:predict", {"instances": [[1.0, 2.0]]}, "Matrix size-incompatible: In[0]: [1,2], In[1]: [4,1]")
        good = self.server.post("/v1/models/vector:predict", {"instances": [[1, 1, 1, 1], [0, 0, 0, 2]]})
        self.assertEqual(good.json(), {"predictions": [10.0, 8.0]})

    def test_other_methods_and_paths(self):
        self.assertEqual(self.server.get("/elsewhere").status_code, 404)
        self.assertIn("<H1>Not Found</H1>", self.server.get("/elsewhere").text)
        head = subprocess.run(["curl", "-sS", "-I", self.server.url("/v1/models/half")], capture_output=True, text=True, check=True)
        self.assertIn("400", head.stdout.splitlines()[0])

    def test_curl_speaks_to_it(self):
        done = subprocess.run(
            ["curl", "-sS", "--fail", "-d", '{"instances": [10]}', self.server.url("/v1/models/half:predict")],
            capture_output=True, text=True, check=True)
        self.assertIn("7.0", done.stdout)

    def test_prometheus_counts_requests(self):
        self.server.post("/v1/models/half:predict", {"instances": [1.0]})
        page = self.server.get("/met")
        self.assertEqual(page.headers["content-type"], "text/plain")
        self.assertIn("# TYPE :tensorflow:serving:request_count counter", page.text)
        self.assertRegex(page.text, r':tensorflow:serving:request_count\{model_name="half",status="OK"\} [1-9]')
        self.assertRegex(page.text, r':tensorflow:serving:request_latency_bucket\{model_name="half",API="predict",entrypoint="REST",le="\+Inf"\} [1-9]')


if __name__ == "__main__":
    unittest.main()
