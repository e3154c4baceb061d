"""A loaded SavedModel: its signatures and a session that runs its tensors by name, as the real server does."""

import ctypes
import os
import struct
import threading

from tfserving import light  # noqa: F401  (before anything of TensorFlow)

from tensorflow.core.protobuf import config_pb2, meta_graph_pb2, saved_model_pb2
from tensorflow.python.client import session as tf_session
from tensorflow.python.framework import importer, ops

from tfserving import metrics
from tfserving.status import NAMES, Status, not_found, of_exception

_INIT_OP = "__saved_model_init_op"


def _native_error(path, tags):
    """What TensorFlow's own loader says about a model that could not be loaded, or None when it can load it.

    Asked only after a failure, so that the error is in TensorFlow's own words.
    """
    native = ctypes.CDLL(os.path.join(light.folder(), "libtensorflow_cc.so.2"))
    for name in ("TF_NewStatus", "TF_NewSessionOptions", "TF_NewGraph", "TF_LoadSessionFromSavedModel"):
        getattr(native, name).restype = ctypes.c_void_p
    native.TF_Message.restype = ctypes.c_char_p
    status = ctypes.c_void_p(native.TF_NewStatus())
    wanted = (ctypes.c_char_p * len(tags))(*[tag.encode() for tag in tags])
    native.TF_LoadSessionFromSavedModel(
        ctypes.c_void_p(native.TF_NewSessionOptions()), None, path.encode(), wanted, len(tags),
        ctypes.c_void_p(native.TF_NewGraph()), None, status,
    )
    code = native.TF_GetCode(status)
    return Status(NAMES.get(code, "UNKNOWN"), native.TF_Message(status).decode(errors="replace")) if code else None


def _meta_graph(path, tags):
    with open(os.path.join(path, "saved_model.pb"), "rb") as file:
        model = saved_model_pb2.SavedModel.FromString(file.read())
    for graph in model.meta_graphs:
        if set(graph.meta_info_def.tags) == set(tags):
            return graph
    raise not_found("Could not find meta graph def matching supplied tags")


class SavedModel:
    """One version of a model, ready to run."""

    def __init__(self, name, version, path, tags, config, timeout_ms):
        self.name, self.version, self.path = name, version, path
        self._timeout_ms, self._callables, self._lock = timeout_ms, {}, threading.Lock()
        try:
            self._load(tags, config)
        except Exception as error:
            metrics.LOADS.add(path, "fail")
            raise (_native_error(path, tags) or of_exception(error)) from error
        metrics.LOADS.add(path, "success")

    def _load(self, tags, config):
        meta = _meta_graph(self.path, tags)
        graph = ops.Graph()
        with graph.as_default():
            importer.import_graph_def(meta.graph_def, name="")
        self._session = tf_session.Session(graph=graph, config=config)
        assets = self._assets(meta)
        if meta.HasField("saver_def") and os.path.isdir(os.path.join(self.path, "variables")):
            saver = meta.saver_def
            files = {saver.filename_tensor_name: os.path.join(self.path, "variables", "variables").encode()}
            self._session.run(saver.restore_op_name, feed_dict=files | assets)
        init = meta.signature_def[_INIT_OP].outputs[_INIT_OP].name if _INIT_OP in meta.signature_def else ""
        if init:
            self._session.run(init.partition(":")[0], feed_dict=assets)
        self.signatures = meta.signature_def

    def _assets(self, meta):
        feeds = {}
        for packed in meta.asset_file_def:
            feeds[packed.tensor_info.name] = os.path.join(self.path, "assets", packed.filename).encode()
        for packed in meta.collection_def["saved_model_assets"].any_list.value if not feeds and "saved_model_assets" in meta.collection_def else ():
            asset = meta_graph_pb2.AssetFileDef()
            packed.Unpack(asset)
            feeds[asset.tensor_info.name] = os.path.join(self.path, "assets", asset.filename).encode()
        return feeds

    def run(self, feeds, fetches):
        """Runs the tensors named `fetches` with `feeds` (name → array); errors are a Status."""
        key = (tuple(feeds), tuple(fetches))
        with self._lock:
            runner = self._callables.get(key)
        try:
            if runner is None:
                options = config_pb2.CallableOptions(feed=key[0], fetch=key[1])
                options.run_options.timeout_in_ms = self._timeout_ms
                # pylint: disable=protected-access
                runner = self._session._make_callable_from_options(options)
                with self._lock:
                    self._callables[key] = runner
            return runner(*feeds.values())
        except Exception as error:
            raise of_exception(error) from error

    def close(self):
        with self._lock:
            self._callables.clear()
        self._session.close()


def records(path):
    """The records of a TFRecord file (length, checksum, data, checksum); a cut one is an error."""
    with open(path, "rb") as file:
        while header := file.read(12):
            size = struct.unpack("<Q", header[:8])[0] if len(header) == 12 else -1
            left = os.fstat(file.fileno()).st_size - file.tell()
            if not 0 <= size <= left - 4:
                raise Status("DATA_LOSS", f"truncated record at {file.tell() - len(header)}. Please verify your warmup data is in TFRecord format.")
            yield file.read(size)
            file.read(4)
