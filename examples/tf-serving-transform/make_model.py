#!/usr/bin/env python3
"""Makes model/, a SavedModel that scores rows of character codes. Needs TensorFlow (pip install tensorflow-cpu).

The score is a logistic regression over how likely each pair of characters is in ordinary names and how long the name is.
The pairs are counted in the names of ../batch/domains.txt, so the same names give the same scores.
"""

import os
import shutil

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import numpy as np
import tensorflow as tf

HERE = os.path.dirname(os.path.abspath(__file__))
CODES = 38


def code(c):
    if "a" <= c <= "z":
        return ord(c) - ord("a") + 1
    return ord(c) - ord("0") + 27 if "0" <= c <= "9" else 37


def costs():
    """The cost of each pair of codes: rare ones cost more."""
    counts = np.zeros((CODES, CODES))
    with open(os.path.join(HERE, "..", "batch", "domains.txt"), encoding="utf-8") as file:
        for line in file:
            row = [code(c) for c in line.strip().split(".")[0]]
            for pair in zip(row, row[1:]):
                counts[pair] += 1
    with np.errstate(divide="ignore"):
        cost = -np.log(counts / counts.sum())
    cost[counts == 0] = 9.0
    # Zeros are what follows the name.
    cost[0, :] = cost[:, 0] = 0.0
    return cost.astype(np.float32)


class Scores(tf.Module):
    def __init__(self):
        self.cost = tf.Variable(costs().ravel(), trainable=False, name="cost")

    @tf.function(input_signature=[tf.TensorSpec([None, 64], tf.int32, name="codes")])
    def score(self, codes):
        pairs = codes[:, :-1] * CODES + codes[:, 1:]
        cost = tf.reduce_sum(tf.gather(self.cost, tf.clip_by_value(pairs, 0, CODES * CODES - 1)), axis=1)
        length = tf.reduce_sum(tf.cast(codes > 0, tf.float32), axis=1)
        strange = cost / tf.maximum(length - 1.0, 1.0)
        return {"score": tf.sigmoid(2.0 * (strange - 7.1) + 0.15 * (length - 10.0))}


def main():
    target = os.path.join(HERE, "model")
    shutil.rmtree(target, ignore_errors=True)
    scores = Scores()
    tf.saved_model.save(scores, target, signatures={"serving_default": scores.score})
    # Not read by TensorFlow Serving, and different on every run.
    for name in ("fingerprint.pb", "assets"):
        path = os.path.join(target, name)
        shutil.rmtree(path) if os.path.isdir(path) else os.remove(path)


if __name__ == "__main__":
    main()
