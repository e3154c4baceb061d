"""Predict, classify, regress and their like: requests as protobufs in, answers as protobufs out."""

import time

from tfserving import light  # noqa: F401  (before anything of TensorFlow)

import numpy as np
from tensorflow.core.framework import types_pb2
from tensorflow_serving.apis import get_model_metadata_pb2

from tfserving import metrics, tensors
from tfserving.status import Status, failed_precondition, invalid

_DEFAULT = "serving_default"
_METHODS = {kind: f"tensorflow/serving/{kind}" for kind in ("predict", "classify", "regress")}


def _braces(names):
    return "{" + ",".join(sorted(names)) + "}"


class Inference:
    """Runs requests on the models of a core, through the batching scheduler where there is one."""

    def __init__(self, core, scheduler, options):
        self._core, self._scheduler, self._options = core, scheduler, options

    def _run(self, model, feeds, fetches, api):
        start = time.monotonic()
        runner = self._scheduler.run if self._scheduler else type(model).run
        outputs = runner(model, feeds, fetches)
        metrics.RUNTIME_LATENCY.observe((time.monotonic() - start) * 1e6, model.name, api, "TF1")
        return outputs

    @staticmethod
    def _fill_spec(spec, model, signature):
        spec.name, spec.signature_name = model.name, signature
        spec.version.value = model.version

    def inputs_of(self, spec, signature):
        """The inputs of a signature, for reading JSON."""
        signature = signature or _DEFAULT
        with self._core.use(spec) as model:
            if signature not in model.signatures:
                raise invalid(f'Serving signature name: "{signature}" not found in signature def')
            return dict(model.signatures[signature].inputs)

    def predict(self, request, response):
        with self._core.use(request.model_spec) as model:
            return self.predict_on(model, request, response)

    def predict_on(self, model, request, response):
        name = request.model_spec.signature_name or _DEFAULT
        if name not in model.signatures:
            raise failed_precondition(f'Serving signature key "{name}" not found.')
        signature = model.signatures[name]
        if self._options.enable_signature_method_name_check and signature.method_name not in _METHODS.values():
            raise Status("INTERNAL", "Expected prediction signature method_name to be one of {"
                         + ", ".join(_METHODS.values()) + f"}}. Was: {signature.method_name}")
        feeds = self._feeds(signature, request.inputs)
        aliases = self._wanted(signature, list(request.output_filter))
        outputs = self._run(model, feeds, [signature.outputs[alias].name for alias in aliases], "Predict")
        self._fill_spec(response.model_spec, model, name)
        for alias, output in zip(aliases, outputs):
            proto = tensors.to_proto(output, self._options.enable_serialization_as_tensor_content)
            response.outputs[alias].CopyFrom(proto)
        return response

    @staticmethod
    def _feeds(signature, inputs):
        sent, known = set(inputs), set(signature.inputs)
        if len(sent) != len(known):
            raise invalid(
                f"input size does not match signature: {len(sent)}!={len(known)} len({_braces(sent)}) != len({_braces(known)}). "
                f"Sent extra: {_braces(sent - known)}. Missing but required: {_braces(known - sent)}.")
        for alias in sorted(sent - known):
            raise invalid(
                f"input tensor alias not found in signature: {alias}. Inputs expected to be in the set {_braces(known)}.")
        return {signature.inputs[alias].name: tensors.to_array(inputs[alias], alias) for alias in sorted(sent)}

    @staticmethod
    def _wanted(signature, filtered):
        known = set(signature.outputs)
        for i, alias in enumerate(filtered):
            if alias not in known:
                raise invalid(f"output tensor alias not found in signature: {alias} Outputs expected to be in the set {_braces(known)}.")
            if alias in filtered[:i]:
                raise invalid(f"duplicate output tensor alias: {alias}")
        return filtered or sorted(known)

    @staticmethod
    def _examples(request_input):
        kind = request_input.WhichOneof("kind")
        if kind == "example_list_with_context":
            listed = request_input.example_list_with_context
            context = listed.context.SerializeToString()
            found = [context + example.SerializeToString() for example in listed.examples]
        else:
            found = [example.SerializeToString() for example in request_input.example_list.examples]
        if not found:
            raise invalid("Input is empty.")
        array = np.empty(len(found), dtype=object)
        array[:] = found
        return array

    def _signature(self, model, spec, method):
        name = spec.signature_name or _DEFAULT
        if name not in model.signatures:
            raise invalid(f"No signature was found with the name: {name}")
        signature, kind = model.signatures[name], "classification" if method == "classify" else "regression"
        if self._options.enable_signature_method_name_check and signature.method_name != _METHODS[method]:
            raise invalid(f"Expected {kind} signature method_name to be {_METHODS[method]}. Was: {signature.method_name}")
        if len(signature.inputs) != 1:
            raise invalid("Expected one input Tensor.")
        if method == "classify" and len(signature.outputs) not in (1, 2):
            raise invalid(f"Expected one or two output Tensors, found {len(signature.outputs)}")
        if method == "regress" and len(signature.outputs) != 1:
            raise invalid("Expected one output Tensor.")
        if "inputs" not in signature.inputs:
            raise invalid(f"No {kind} inputs found in SignatureDef: {signature}")
        known = ("classes", "scores") if method == "classify" else ("outputs",)
        aliases = [alias for alias in known if alias in signature.outputs]
        if not aliases and method == "classify":
            raise invalid('Expected classification signature outputs to contain at least one of "classes" or "scores". '
                          f"Signature was: {signature}")
        if not aliases:
            raise invalid(f"No regression outputs found in SignatureDef: {signature}")
        return name, signature, aliases

    def _run_examples(self, model, spec, examples, method):
        name, signature, aliases = self._signature(model, spec, method)
        feeds = {signature.inputs["inputs"].name: examples}
        outputs = self._run(model, feeds, [signature.outputs[alias].name for alias in aliases], method.capitalize())
        metrics.EXAMPLE_COUNTS.observe(len(examples), model.name)
        metrics.EXAMPLE_TOTAL.add(model.name, by=len(examples))
        return name, dict(zip(aliases, outputs))

    def classify(self, request, response):
        with self._core.use(request.model_spec) as model:
            return self.classify_on(model, request, response)

    def classify_on(self, model, request, response):
        examples = self._examples(request.input)
        name, outputs = self._run_examples(model, request.model_spec, examples, "classify")
        self._fill_spec(response.model_spec, model, name)
        self._classes(outputs, len(examples), response.result)
        return response

    @staticmethod
    def _classes(outputs, count, result):
        for alias, dtype in (("classes", types_pb2.DT_STRING), ("scores", types_pb2.DT_FLOAT)):
            if alias not in outputs:
                continue
            array = outputs[alias]
            if array.ndim != 2:
                raise invalid(f"Expected Tensor shape: [batch_size num_classes] but got {list(array.shape)}")
            if tensors.dtype_of(array) != dtype:
                raise invalid(f"Expected {alias} Tensor of {types_pb2.DataType.Name(dtype)}. Got: {array.dtype}")
            if array.shape[0] != count:
                raise invalid(f"Expected {alias} output batch size of {count}. Got: {array.shape[0]}")
        widths = {array.shape[1] for array in outputs.values()}
        if len(widths) != 1:
            raise invalid("Tensors class and score should match in dim_size(1). Got " + " vs. ".join(map(str, widths)))
        for row in range(count):
            answer = result.classifications.add()
            for column in range(widths.copy().pop()):
                cell = answer.classes.add()
                if "classes" in outputs:
                    cell.label = outputs["classes"][row, column].decode()
                if "scores" in outputs:
                    cell.score = float(outputs["scores"][row, column])

    def regress(self, request, response):
        with self._core.use(request.model_spec) as model:
            return self.regress_on(model, request, response)

    def regress_on(self, model, request, response):
        examples = self._examples(request.input)
        name, outputs = self._run_examples(model, request.model_spec, examples, "regress")
        self._fill_spec(response.model_spec, model, name)
        self._values(outputs["outputs"], len(examples), response.result)
        return response

    @staticmethod
    def _values(array, count, result):
        if not (array.ndim == 1 or (array.ndim == 2 and array.shape[1] == 1)):
            raise invalid(f"Expected output Tensor shape to be either [batch_size] or [batch_size, 1] but got {list(array.shape)}")
        if array.shape[0] != count:
            raise invalid(f"Input batch size did not match output batch size: {count} vs. {array.shape[0]}")
        if tensors.dtype_of(array) != types_pb2.DT_FLOAT:
            raise invalid(f"Expected output Tensor of DT_FLOAT.  Got: {array.dtype}")
        for value in array.ravel():
            result.regressions.add(value=float(value))

    def multi(self, request, response):
        if not request.tasks:
            raise invalid("Input is empty.")
        names = {task.model_spec.name for task in request.tasks}
        if "" in names:
            raise invalid("Found ModelSpec with an empty model name.")
        if len(names) > 1:
            raise invalid("All ModelSpecs in a MultiInferenceRequest must access the same model name.")
        with self._core.use(request.tasks[0].model_spec) as model:
            examples = self._examples(request.input)
            for task in request.tasks:
                method = task.method_name.rpartition("/")[2]
                if task.method_name not in (_METHODS["classify"], _METHODS["regress"]):
                    raise Status("UNIMPLEMENTED", f"Unsupported signature method_name: {task.method_name}")
                name, outputs = self._run_examples(model, task.model_spec, examples, method)
                result = response.results.add()
                self._fill_spec(result.model_spec, model, name)
                if method == "classify":
                    self._classes(outputs, len(examples), result.classification_result)
                else:
                    self._values(outputs["outputs"], len(examples), result.regression_result)
        return response

    def metadata(self, request, response):
        if not request.metadata_field:
            raise invalid("GetModelMetadataRequest must specify at least one metadata_field")
        for field in request.metadata_field:
            if field != "signature_def":
                raise invalid(f"Metadata field {field} is not supported")
        if not request.HasField("model_spec"):
            raise invalid("Missing ModelSpec")
        with self._core.use(request.model_spec) as model:
            signatures = get_model_metadata_pb2.SignatureDefMap()
            for name, signature in model.signatures.items():
                signatures.signature_def[name].CopyFrom(signature)
            response.model_spec.name = model.name
            response.model_spec.version.value = model.version
            response.metadata["signature_def"].Pack(signatures)
        return response
