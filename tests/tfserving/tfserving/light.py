"""Lets parts of TensorFlow be imported without the whole of it, which takes three times as long.

`import tensorflow` runs an __init__ that imports every module there is (2.5 s). A model server needs the
session and the graph importer only (0.7 s), so empty packages with the right paths stand in for the two
packages whose __init__ is the expensive one. Must be imported before anything of TensorFlow is.
"""

import importlib.util
import os
import sys
import types

# Read when the native library is loaded: no notes about instruction sets among the model server's log lines.
os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "0")
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
os.environ.setdefault("GRPC_VERBOSITY", "ERROR")


def _package(name, path):
    module = types.ModuleType(name)
    module.__path__ = [path]
    sys.modules[name] = module


def folder():
    """Where TensorFlow is installed."""
    spec = importlib.util.find_spec("tensorflow_serving")
    root = os.path.dirname(os.path.dirname(spec.origin))
    return os.path.join(root, "tensorflow")


if "tensorflow" not in sys.modules:
    _package("tensorflow", folder())
    _package("tensorflow.python", os.path.join(folder(), "python"))
