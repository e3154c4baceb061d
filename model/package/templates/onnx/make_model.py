#!/usr/bin/env python3
"""Makes model/linear.onnx: y = x·w + b, as Berth's template has it. Needs the onnx package.

A model of your own comes out of its framework: torch.onnx.export, skl2onnx, tf2onnx.
"""

import os
import sys

import onnx
from onnx import TensorProto, helper


def main(path):
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, ["rows", 2])
    y = helper.make_tensor_value_info("y", TensorProto.FLOAT, ["rows", 1])
    w = helper.make_tensor("w", TensorProto.FLOAT, [2, 1], [2.0, 3.0])
    b = helper.make_tensor("b", TensorProto.FLOAT, [1], [0.5])
    nodes = [helper.make_node("MatMul", ["x", "w"], ["xw"]), helper.make_node("Add", ["xw", "b"], ["y"])]
    graph = helper.make_graph(nodes, "linear", [x], [y], [w, b])
    model = helper.make_model(graph, producer_name="berth", opset_imports=[helper.make_opsetid("", 17)])
    # Old enough for every ONNX Runtime that is in use.
    model.ir_version = 8
    onnx.checker.check_model(model)
    os.makedirs(os.path.dirname(path), exist_ok=True)
    onnx.save(model, path)


if __name__ == "__main__":
    main(sys.argv[1] if len(sys.argv) > 1 else os.path.join(os.path.dirname(os.path.abspath(__file__)), "model/linear.onnx"))
