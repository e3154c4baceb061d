#!/usr/bin/env python3
"""Makes the SavedModels that tests serve. Run it with the interpreter that `setup.sh --python` prints:

    models.py NAME FOLDER      writes one model into FOLDER (which must not exist)
    models.py --cached NAME    prints the folder of a cached copy, made first where it is missing

NAME is one of:
    half-plus-two    x/2 + 2; signatures serving_default (predict), classify_x_to_y, regress_x_to_y, tensor `x` → `y`
    half-plus-three  the same with 3, to tell versions apart
    strings          `text` (string, one per row) → `length`, `upper_bytes`
    slow             sleeps 0.2 s for each run, then x/2 + 2: for queues and stops
    vector           `x` of shape [batch, 4] → `y` = x · weights: refuses other shapes
    corrupt          a saved_model.pb that is cut in half
    no-model         a folder without saved_model.pb
    keras-weights    what people push by mistake: weights and a config, no SavedModel
"""

import fcntl
import hashlib
import os
import shutil
import sys
import tempfile

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "0")


def _linear(path, addend, delay=0.0):
    import tensorflow as tf

    class Linear(tf.Module):
        def __init__(self):
            self.a = tf.Variable(0.5, name="a")
            self.b = tf.Variable(addend, name="b")

        @tf.function(input_signature=[tf.TensorSpec([None], tf.float32, name="x")])
        def predict(self, x):
            if delay:
                x = _spin(x, delay)
            return {"y": self.a * x + self.b}

        def _of_examples(self, examples):
            parsed = tf.io.parse_example(examples, {"x": tf.io.FixedLenFeature([], tf.float32)})
            return self.a * parsed["x"] + self.b

        @tf.function(input_signature=[tf.TensorSpec([None], tf.string, name="examples")])
        def classify(self, inputs):
            y = self._of_examples(inputs)
            labels = tf.tile(tf.constant([["small", "large"]]), [tf.shape(y)[0], 1])
            return {"classes": labels, "scores": tf.stack([100.0 - y, y], axis=1)}

        @tf.function(input_signature=[tf.TensorSpec([None], tf.string, name="examples")])
        def regress(self, inputs):
            return {"outputs": tf.expand_dims(self._of_examples(inputs), 1)}

    module = Linear()
    tf.saved_model.save(module, path, signatures={
        "serving_default": module.predict,
        "classify_x_to_y": module.classify,
        "regress_x_to_y": module.regress,
    })
    _methods(path, {"classify_x_to_y": "classify", "regress_x_to_y": "regress"})


def _spin(x, delay):
    """Work that takes about `delay` seconds on any machine: it looks at the clock."""
    import tensorflow as tf

    end = tf.timestamp() + delay
    done = tf.while_loop(lambda now: now < end, lambda now: (tf.timestamp(),), [tf.timestamp()])[0]
    with tf.control_dependencies([done]):
        return tf.identity(x)


def _methods(path, kinds):
    """Sets the method names of signatures, which tf.saved_model.save always calls `predict`."""
    from tensorflow.core.protobuf import saved_model_pb2

    file = os.path.join(path, "saved_model.pb")
    with open(file, "rb") as read:
        model = saved_model_pb2.SavedModel.FromString(read.read())
    for name, kind in kinds.items():
        signature = model.meta_graphs[0].signature_def[name]
        signature.method_name = f"tensorflow/serving/{kind}"
        # Classification and regression have one input, called `inputs`; its name here is that of the argument.
        if "inputs" not in signature.inputs:
            only = next(iter(signature.inputs))
            signature.inputs["inputs"].CopyFrom(signature.inputs[only])
            del signature.inputs[only]
    with open(file, "wb") as write:
        write.write(model.SerializeToString(deterministic=True))


def _strings(path):
    import tensorflow as tf

    class Strings(tf.Module):
        @tf.function(input_signature=[tf.TensorSpec([None], tf.string, name="text")])
        def predict(self, text):
            return {"length": tf.strings.length(text), "upper_bytes": tf.strings.upper(text)}

    module = Strings()
    tf.saved_model.save(module, path, signatures={"serving_default": module.predict})


def _vector(path):
    import tensorflow as tf

    class Vector(tf.Module):
        def __init__(self):
            self.weights = tf.Variable([[1.0], [2.0], [3.0], [4.0]], name="weights")

        @tf.function(input_signature=[tf.TensorSpec([None, 4], tf.float32, name="x")])
        def predict(self, x):
            return {"y": tf.linalg.matmul(x, self.weights)[:, 0]}

    module = Vector()
    tf.saved_model.save(module, path, signatures={"serving_default": module.predict})


def _corrupt(path):
    _linear(path, 2.0)
    file = os.path.join(path, "saved_model.pb")
    os.truncate(file, os.path.getsize(file) // 2)


def _keras_weights(path):
    os.makedirs(path)
    for name, text in (("config.json", '{"class_name": "Sequential"}\n'), ("model.weights.h5", "weights\n")):
        with open(os.path.join(path, name), "w", encoding="utf-8") as file:
            file.write(text)


MODELS = {
    "half-plus-two": lambda path: _linear(path, 2.0),
    "half-plus-three": lambda path: _linear(path, 3.0),
    "strings": _strings,
    "slow": lambda path: _linear(path, 2.0, 0.2),
    "vector": _vector,
    "corrupt": _corrupt,
    "no-model": os.makedirs,
    "keras-weights": _keras_weights,
}


def cached(name):
    """The folder of a model in the cache; the key is this file, so a change here makes it anew."""
    root = os.environ.get("BERTH_CACHE") or os.path.join(os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache"), "berth")
    with open(__file__, "rb") as source:
        key = hashlib.sha256(source.read()).hexdigest()[:12]
    folder = os.path.join(root, f"models-{key}")
    os.makedirs(folder, exist_ok=True)
    path = os.path.join(folder, name)
    with open(os.path.join(folder, f".{name}.lock"), "w", encoding="utf-8") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not os.path.isdir(path):
            new = tempfile.mkdtemp(dir=folder)
            try:
                MODELS[name](os.path.join(new, "model"))
                os.rename(os.path.join(new, "model"), path)
            finally:
                shutil.rmtree(new, ignore_errors=True)
    return path


def main(arguments):
    if len(arguments) == 2 and arguments[0] == "--cached" and arguments[1] in MODELS:
        print(cached(arguments[1]))
        return 0
    if len(arguments) == 2 and arguments[0] in MODELS:
        if os.path.exists(arguments[1]):
            print(f"models.py: {arguments[1]} is there already", file=sys.stderr)
            return 1
        MODELS[arguments[0]](arguments[1])
        return 0
    print(__doc__, file=sys.stderr)
    return 2


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
