#!/usr/bin/env python3
"""Makes model/1/: a SavedModel of y = w·x + b, as Berth's template has it. Needs tensorflow (or tensorflow-cpu).

Replace Linear by a model of your own; the signature's inputs are what requests name.
"""

import os
import shutil
import sys

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import tensorflow as tf  # noqa: E402


class Linear(tf.Module):
    def __init__(self):
        super().__init__()
        self.weights = tf.Variable([2.0, 3.0], name="weights")
        self.bias = tf.Variable(0.5, name="bias")

    @tf.function(input_signature=[tf.TensorSpec([None, 2], tf.float32, name="x")])
    def predict(self, x):
        return {"y": tf.linalg.matvec(x, self.weights) + self.bias}


def main(folder):
    shutil.rmtree(folder, ignore_errors=True)
    model = Linear()
    tf.saved_model.save(model, folder, signatures={"serving_default": model.predict})
    # For people who debug the graph; serving does not need them.
    for extra in ["fingerprint.pb", "assets"]:
        path = os.path.join(folder, extra)
        if os.path.isdir(path):
            shutil.rmtree(path)
        elif os.path.exists(path):
            os.remove(path)


if __name__ == "__main__":
    main(sys.argv[1] if len(sys.argv) > 1 else os.path.join(os.path.dirname(os.path.abspath(__file__)), "model/1"))
