"""TensorProto to array and back. Answers use the typed fields (`float_val`, …), as the real server's do."""

from tfserving import light  # noqa: F401  (before anything of TensorFlow)

import numpy as np
from tensorflow.core.framework import tensor_pb2, tensor_shape_pb2, types_pb2
from tensorflow.python.framework import tensor_util

from tfserving.status import invalid

# Data type: numpy's name, the TensorProto's field.
_TYPES = {
    types_pb2.DT_FLOAT: ("float32", "float_val"), types_pb2.DT_DOUBLE: ("float64", "double_val"),
    types_pb2.DT_INT32: ("int32", "int_val"), types_pb2.DT_INT16: ("int16", "int_val"),
    types_pb2.DT_INT8: ("int8", "int_val"), types_pb2.DT_UINT8: ("uint8", "int_val"),
    types_pb2.DT_INT64: ("int64", "int64_val"), types_pb2.DT_BOOL: ("bool", "bool_val"),
    types_pb2.DT_UINT32: ("uint32", "uint32_val"), types_pb2.DT_UINT64: ("uint64", "uint64_val"),
    types_pb2.DT_STRING: ("object", "string_val"),
}
_OF_NUMPY = {np.dtype(name): dtype for dtype, (name, _) in _TYPES.items()}


def name(dtype):
    """The data type as error messages have it: `float`, `string`, `int64`."""
    return types_pb2.DataType.Name(dtype).removeprefix("DT_").lower()


def field(dtype):
    """The field of a TensorProto that holds values of this type, or None where JSON cannot carry them."""
    known = _TYPES.get(dtype)
    return known and known[1]


def numpy_type(dtype):
    return np.dtype(_TYPES[dtype][0])


def to_array(proto, alias):
    """The array of a TensorProto that a client sent."""
    try:
        shape = tuple(dim.size for dim in proto.tensor_shape.dim)
        if proto.dtype == types_pb2.DT_STRING and len(proto.string_val) == int(np.prod(shape)):
            # MakeNdarray makes fixed-width strings, which drop trailing zero bytes.
            values = np.empty(len(proto.string_val), dtype=object)
            values[:] = list(proto.string_val)
            return values.reshape(shape)
        return tensor_util.MakeNdarray(proto)
    except (TypeError, ValueError) as error:
        raise invalid(f"tensor parsing error: {alias}") from error


def dtype_of(array):
    return _OF_NUMPY.get(array.dtype)


def to_proto(array, as_content=False):
    """A TensorProto of a result."""
    array = np.asarray(array)
    dtype = dtype_of(array)
    if dtype is None or (as_content and dtype != types_pb2.DT_STRING):
        return tensor_util.make_tensor_proto(array)
    shape = tensor_shape_pb2.TensorShapeProto(dim=[tensor_shape_pb2.TensorShapeProto.Dim(size=n) for n in array.shape])
    proto = tensor_pb2.TensorProto(dtype=dtype, tensor_shape=shape)
    getattr(proto, field(dtype)).extend(array.ravel().tolist())
    return proto
