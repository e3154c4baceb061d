"""REST bodies to requests, and answers to REST bodies: rows (`instances`), columns (`inputs`), examples."""

import base64
import binascii

from tfserving import light  # noqa: F401  (before anything of TensorFlow)

import numpy as np
from tensorflow.core.framework import tensor_pb2, types_pb2

from tfserving import tensors
from tfserving.jsontext import Writer, decimal, kind, parse, shown
from tfserving.status import Status, invalid

_INTS = {types_pb2.DT_INT32: 32, types_pb2.DT_INT16: 32, types_pb2.DT_INT8: 32, types_pb2.DT_UINT8: 32, types_pb2.DT_INT64: 64}
_UINTS = {types_pb2.DT_UINT32: 32, types_pb2.DT_UINT64: 64}
_FLOATS = (types_pb2.DT_FLOAT, types_pb2.DT_DOUBLE)


def _is_base64(value):
    return isinstance(value, dict) and len(value) == 1 and isinstance(value.get("b64"), str)


def _bytes(value):
    if not _is_base64(value):
        raise invalid(f"JSON Value: {shown(value)} not formatted correctly for base64 data")
    try:
        text = value["b64"].translate(str.maketrans("-_", "+/")).rstrip("=")
        return base64.b64decode(text + "=" * (-len(text) % 4), validate=True)
    except (binascii.Error, ValueError) as error:
        raise invalid("Unable to base64 decode") from error


def _scalar(value, dtype):
    """One value of the tensor's type, or the error that says it is another."""
    number = isinstance(value, (int, float)) and not isinstance(value, bool)
    whole = number and isinstance(value, int)
    if dtype in _FLOATS and number:
        return value
    if dtype in _INTS and whole and -(2 ** (_INTS[dtype] - 1)) <= value < 2 ** (_INTS[dtype] - 1):
        return value
    if dtype in _UINTS and whole and 0 <= value < 2 ** _UINTS[dtype]:
        return value
    if dtype == types_pb2.DT_STRING and isinstance(value, str):
        return value.encode()
    if dtype == types_pb2.DT_BOOL and isinstance(value, bool):
        return value
    if dtype == types_pb2.DT_STRING and isinstance(value, dict):
        return _bytes(value)
    if tensors.field(dtype) is None:
        raise Status("UNIMPLEMENTED", f"Conversion of JSON Value: {shown(value)} to type: {tensors.name(dtype)}")
    raise invalid(f"JSON Value: {shown(value)} Type: {kind(value)} is not of expected type: {tensors.name(dtype)}")


def _shape(value):
    shape = []
    while isinstance(value, list):
        shape.append(len(value))
        if not value:
            break
        value = value[0]
    return tuple(shape)


def _fill(value, level, shape, dtype, out):
    if not isinstance(value, list):
        if level != len(shape):
            raise invalid(
                f"JSON Value: {shown(value)} found at incorrect level: {level + 1} in the JSON DOM. Expected at level: {len(shape)}")
        out.append(_scalar(value, dtype))
        return
    if level >= len(shape):
        raise invalid(f"Encountered list at unexpected level: {level} expected < {len(shape)}")
    if len(value) != shape[level]:
        raise invalid(
            f"Encountered list at unexpected size: {len(value)} at level: {level} expected size: {shape[level]}")
    for element in value:
        _fill(element, level + 1, shape, dtype, out)


def _tensor(values, shape, dtype):
    proto = tensor_pb2.TensorProto(dtype=dtype)
    for size in shape:
        proto.tensor_shape.dim.add(size=size)
    getattr(proto, tensors.field(dtype)).extend(values)
    return proto


class _Rows:
    """Collects one tensor for each input from the elements of `instances`."""

    def __init__(self, inputs):
        self.inputs, self.values, self.shapes = inputs, {}, {}

    def add(self, name, value):
        if name not in self.inputs:
            raise invalid(f"JSON object: does not have named input: {name}")
        shape, found = _shape(value), []
        _fill(value, 0, shape, self.inputs[name].dtype, found)
        known = self.shapes.setdefault(name, shape)
        if int(np.prod(known)) != len(found):
            raise invalid(f"Expecting tensor size: {int(np.prod(known))} but got: {len(found)}")
        if known != shape:
            raise invalid(f"Expecting shape {_listed(known)} but got: {_listed(shape)}")
        self.values.setdefault(name, []).extend(found)

    def tensors(self, count):
        return {name: _tensor(values, (count, *self.shapes[name]), self.inputs[name].dtype) for name, values in self.values.items()}


def _listed(shape):
    return "[" + ",".join(map(str, shape)) + "]"


def _from_instances(instances, inputs):
    first = instances[0]
    if not isinstance(first, dict) and len(inputs) > 1:
        raise invalid("instances is a plain list, but expecting list of objects as multiple input tensors required as per tensorinfo_map")
    objects = isinstance(first, dict) and not _is_base64(first)
    rows = _Rows(inputs)
    for i, element in enumerate(instances):
        is_object = isinstance(element, dict) and not _is_base64(element)
        if objects and not is_object:
            raise invalid(f"Expecting object but got list at item {i} of input list")
        if not objects and is_object:
            raise invalid(f"Expecting value/list but got object at item {i} of input list")
        members = element.items() if objects else [(min(inputs), element)]
        for name, value in members:
            try:
                rows.add(name, value)
            except Status as error:
                key = f" key: {name}" if objects else ""
                raise invalid(f"Failed to process element: {i}{key} of 'instances' list. Error: {error}") from error
        if objects and set(element) != set(inputs):
            raise invalid(f"Failed to process element: {i} of 'instances' list. JSON object: {shown(element)} "
                          f"keys must be equal to: {','.join(sorted(inputs))}")
    return rows.tensors(len(instances))


def _column(value, dtype):
    shape, found = _shape(value), []
    _fill(value, 0, shape, dtype, found)
    return _tensor(found, shape, dtype)


def _from_inputs(value, inputs):
    if not isinstance(value, dict) or _is_base64(value):
        if len(inputs) > 1:
            raise invalid("inputs is a plain value/list, but expecting an object as multiple input tensors required as per tensorinfo_map")
        name = min(inputs)
        return {name: _column(value, inputs[name].dtype)}
    found = {}
    for name, info in inputs.items():
        if name not in value:
            raise invalid(f"Missing named input: {name} in 'inputs' object.")
        found[name] = _column(value[name], info.dtype)
    return found


def _signature(document):
    name = document.get("signature_name", "")
    if not isinstance(name, str):
        raise invalid(f"JSON Value: {shown(document)} not formatted correctly. 'signature_name' key must be a string value.")
    return name


def fill_predict(body, request, inputs_of):
    """Fills a PredictRequest from a body; returns whether it was in row format."""
    document = parse(body)
    request.model_spec.signature_name = _signature(document)
    inputs = inputs_of(request.model_spec, request.model_spec.signature_name)
    if not inputs:
        raise invalid(f"Failed to get input map for signature: {request.model_spec.signature_name or 'DEFAULT'}")
    if "instances" in document and "inputs" in document:
        raise invalid(f"JSON Value: {shown(document)} Not formatted correctly expecting only one of 'inputs' or 'instances' keys to exist ")
    if "instances" in document:
        instances = document["instances"]
        if not isinstance(instances, list):
            raise invalid(f"JSON Value: {shown(document)} Expecting 'instances' to be an list/array")
        if not instances:
            raise invalid(f"JSON Value: {shown(document)} No values in 'instances' array")
        found = _from_instances(instances, inputs)
    elif "inputs" in document:
        found = _from_inputs(document["inputs"], inputs)
    else:
        raise invalid("Missing 'inputs' or 'instances' key")
    for name, proto in found.items():
        request.inputs[name].CopyFrom(proto)
    return "instances" in document


def _cell(writer, value, as_bytes):
    if isinstance(value, (np.bool_, bool)):
        writer.raw("true" if value else "false")
    elif isinstance(value, (np.floating, float)):
        writer.raw(decimal(value))
    elif isinstance(value, (np.integer, int)):
        writer.raw(str(int(value)))
    elif as_bytes:
        writer.start(False)
        writer.string("b64")
        writer.string(base64.b64encode(value).decode())
        writer.end()
    else:
        writer.string(value.decode("utf-8", errors="replace"))


def _values(writer, array, as_bytes):
    if np.ndim(array) == 0:
        _cell(writer, array if not isinstance(array, np.ndarray) else array[()], as_bytes)
        return
    writer.start(True)
    for element in array:
        _values(writer, element, as_bytes)
    writer.end()


def predict_answer(response, rows):
    """The body that answers a prediction, in the format of its request."""
    arrays = {name: tensors.to_array(proto, name) for name, proto in sorted(response.outputs.items())}
    if not arrays:
        raise invalid("Cannot convert empty tensor map to JSON")
    named, writer = len(arrays) > 1, Writer()
    writer.start(False)
    if rows:
        _rows_answer(writer, arrays, named)
    else:
        writer.string("outputs")
        if named:
            writer.start(False)
        for name, array in arrays.items():
            if named:
                writer.string(name)
            _values(writer, array, array.dtype == object and name.endswith("_bytes"))
        if named:
            writer.end()
    writer.end()
    return writer.text()


def _rows_answer(writer, arrays, named):
    count = None
    for name, array in arrays.items():
        if array.ndim == 0:
            raise invalid(f"Tensor name: {name} has no shape information ")
        if count is not None and array.shape[0] != count:
            raise invalid(f"Tensor name: {name} has inconsistent batch size: {array.shape[0]} expecting: {count}")
        count = array.shape[0]
    writer.string("predictions")
    writer.start(True)
    for row in range(count):
        if named:
            writer.start(False)
        writer.single_line = True
        for name, array in arrays.items():
            if named:
                writer.string(name)
            _values(writer, array[row], array.dtype == object and name.endswith("_bytes"))
        writer.single_line = False
        if named:
            writer.end()
    writer.end()


def _feature(name, content, feature):
    """One feature of an Example: bytes, floats or integers, all of one kind."""
    lists = {"bytes": feature.bytes_list, "float": feature.float_list, "int64": feature.int64_list}
    chosen = None
    for value in content if isinstance(content, list) else [content]:
        if value is None or isinstance(value, list) or (isinstance(value, dict) and not _is_base64(value)):
            raise invalid(f"Feature: {name} has element with unexpected JSON type: {kind(value)}")
        if isinstance(value, (str, dict)):
            wanted, value = "bytes", value.encode() if isinstance(value, str) else _bytes(value)
        elif isinstance(value, float):
            wanted = "float"
        else:
            wanted, value = "int64", int(value)
            if value >= 2**63:
                raise invalid(f"Feature: {name} has uint64_t element. Only int64_t is supported.")
        if chosen not in (None, wanted):
            raise invalid(f"Unexpected element type in feature: {name} expecting type: {chosen}")
        chosen = wanted
        lists[wanted].value.append(value)


def _example(value, example):
    if not isinstance(value, dict):
        raise invalid(f"Example must be JSON object but got JSON {kind(value)}")
    for name, content in value.items():
        _feature(name, content, example.features.feature[name])


def fill_examples(body, request):
    """Fills a ClassificationRequest or RegressionRequest from a body."""
    document = parse(body)
    request.model_spec.signature_name = _signature(document)
    context = document.get("context")
    if context is not None:
        _example(context, request.input.example_list_with_context.context)
    if "examples" not in document:
        raise invalid(f"JSON Value: {shown(document)} When method is classify, key 'examples' is expected and was not found")
    examples = document["examples"]
    if not isinstance(examples, list):
        raise invalid(f"JSON Value: {shown(document)} Expecting 'examples' value to be an list/array")
    if not examples:
        raise invalid(f"JSON Value: {shown(document)} 'examples' value is an empty array")
    target = request.input.example_list if context is None else request.input.example_list_with_context
    for value in examples:
        _example(value, target.examples.add())


def classify_answer(result):
    writer = Writer()
    writer.start(False)
    writer.string("results")
    writer.start(True)
    for answer in result.classifications:
        writer.single_line = True
        writer.start(True)
        for cell in answer.classes:
            writer.start(True)
            writer.string(cell.label)
            writer.raw(decimal(np.float32(cell.score)))
            writer.end()
        writer.end()
        writer.single_line = False
    writer.end()
    writer.end()
    return writer.text()


def regress_answer(result):
    writer = Writer()
    writer.start(False)
    writer.string("results")
    writer.single_line = True
    writer.start(True)
    for regression in result.regressions:
        writer.raw(decimal(np.float32(regression.value)))
    writer.end()
    writer.single_line = False
    writer.end()
    return writer.text()
