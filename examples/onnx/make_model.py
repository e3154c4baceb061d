#!/usr/bin/env python3
"""Makes model/login.onnx: two layers with fixed weights. Needs the package `onnx` (pip install onnx).

A real one comes out of skl2onnx, torch.onnx or tf2onnx; the server takes any with one input and one output.
"""

import os

import numpy as np
from onnx import TensorProto, checker, helper, numpy_helper, save

HERE = os.path.dirname(os.path.abspath(__file__))

# Four features, three hidden units (odd hours with failures; far away; new device), one score.
SCALE = np.array([1 / 24, 1 / 10, 1 / 2000, 1], dtype=np.float32)
HIDDEN = np.array([[-1, 0, 0], [4, 0, 0], [0, 3, 0], [0, 0.5, 2]], dtype=np.float32)
HIDDEN_BIAS = np.array([0.2, -0.2, 0], dtype=np.float32)
OUT = np.array([[1.5], [1.2], [1]], dtype=np.float32)
OUT_BIAS = np.array([-3], dtype=np.float32)


def main():
    constants = {"scale": SCALE, "hidden": HIDDEN, "hidden_bias": HIDDEN_BIAS, "out": OUT, "out_bias": OUT_BIAS}
    nodes = [
        helper.make_node("Mul", ["login", "scale"], ["scaled"]),
        helper.make_node("Gemm", ["scaled", "hidden", "hidden_bias"], ["pre"]),
        helper.make_node("Relu", ["pre"], ["active"]),
        helper.make_node("Gemm", ["active", "out", "out_bias"], ["logit"]),
        helper.make_node("Sigmoid", ["logit"], ["score"]),
    ]
    graph = helper.make_graph(
        nodes, "login",
        [helper.make_tensor_value_info("login", TensorProto.FLOAT, ["batch", 4])],
        [helper.make_tensor_value_info("score", TensorProto.FLOAT, ["batch", 1])],
        [numpy_helper.from_array(value, name) for name, value in constants.items()],
    )
    model = helper.make_model(graph, producer_name="berth-example", opset_imports=[helper.make_opsetid("", 17)])
    model.ir_version = 9
    checker.check_model(model, full_check=True)
    save(model, os.path.join(HERE, "model", "login.onnx"))


if __name__ == "__main__":
    main()
