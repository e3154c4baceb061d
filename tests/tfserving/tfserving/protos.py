"""Configuration messages that the published Python package lacks: their fields and numbers, declared here.

The others (ModelServerConfig, PlatformConfigMap) come from `tensorflow_serving.config`.
"""

import os

from tfserving import light  # noqa: F401  (before anything of TensorFlow)

from google.protobuf import descriptor_pb2, descriptor_pool, message_factory, text_format, wrappers_pb2
from tensorflow.core.protobuf import config_pb2
from tensorflow_serving.config import model_server_config_pb2

from tfserving import log
from tfserving.status import invalid, not_found

_F = descriptor_pb2.FieldDescriptorProto
_WRAPPED = {"int64": ".google.protobuf.Int64Value", "string": ".google.protobuf.StringValue", "bool": ".google.protobuf.BoolValue"}
_PLAIN = {"bool": _F.TYPE_BOOL, "string": _F.TYPE_STRING, "int64": _F.TYPE_INT64}

# Message: field, number, type. `?T` is a wrapped (optional) T, `*T` a repeated one, `.M` a message.
_MESSAGES = {
    "BatchingParameters": [
        ("max_batch_size", 1, "?int64"), ("batch_timeout_micros", 2, "?int64"),
        ("max_enqueued_batches", 3, "?int64"), ("num_batch_threads", 4, "?int64"),
        ("thread_pool_name", 5, "?string"), ("allowed_batch_sizes", 6, "*int64"),
        ("pad_variable_length_inputs", 7, "bool"), ("enable_large_batch_splitting", 8, "?bool"),
        ("max_execution_batch_size", 9, "?int64"),
    ],
    "PrometheusConfig": [("enable", 1, "bool"), ("path", 2, "string")],
    "MonitoringConfig": [("prometheus_config", 1, ".tensorflow.serving.PrometheusConfig")],
    "SSLConfig": [
        ("server_key", 1, "string"), ("server_cert", 2, "string"), ("custom_ca", 3, "string"),
        ("client_verify", 4, "bool"),
    ],
}


def _declare():
    file = descriptor_pb2.FileDescriptorProto(
        name="berth_test/tfserving_config.proto", package="tensorflow.serving", syntax="proto3",
        dependency=[wrappers_pb2.DESCRIPTOR.name],
    )
    for name, fields in _MESSAGES.items():
        message = file.message_type.add(name=name)
        for field, number, kind in fields:
            new = message.field.add(name=field, number=number, label=_F.LABEL_OPTIONAL)
            if kind[0] == "?":
                new.type, new.type_name = _F.TYPE_MESSAGE, _WRAPPED[kind[1:]]
            elif kind[0] == ".":
                new.type, new.type_name = _F.TYPE_MESSAGE, kind
            elif kind[0] == "*":
                new.type, new.label = _PLAIN[kind[1:]], _F.LABEL_REPEATED
            else:
                new.type = _PLAIN[kind]
    pool = descriptor_pool.Default()
    pool.Add(file)
    return {n: message_factory.GetMessageClass(pool.FindMessageTypeByName(f"tensorflow.serving.{n}")) for n in _MESSAGES}


_CLASSES = _declare()
BatchingParameters = _CLASSES["BatchingParameters"]
MonitoringConfig = _CLASSES["MonitoringConfig"]
SSLConfig = _CLASSES["SSLConfig"]
ModelServerConfig = model_server_config_pb2.ModelServerConfig
ConfigProto = config_pb2.ConfigProto


def read_text(path, message):
    """Reads a text protobuf into `message`; the errors are those of the real server."""
    try:
        with open(path, encoding="utf-8") as file:
            text = file.read()
    except OSError as error:
        raise not_found(f"{path}; {os.strerror(error.errno)}") from error
    try:
        return text_format.Parse(text, message)
    except (text_format.ParseError, UnicodeDecodeError) as error:
        name = message.DESCRIPTOR.full_name
        log.error("google/protobuf/text_format.cc:337", f"Error parsing text-format {name}: {error}")
        raise invalid(f"Invalid protobuf file: '{path}'") from error
