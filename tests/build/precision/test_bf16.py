"""bf16 is made from fp32's weights; what a graph has in fp16 itself is no obstacle."""

from __future__ import annotations

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from tritonkit.precision import bf16


def test_weights_of_a_mixed_graph_become_bf16_whatever_they_were() -> None:
    nodes = [
        helper.make_node("Cast", ["half"], ["whole"], to=TensorProto.FLOAT),
        helper.make_node("Mul", ["x", "weight"], ["product"]),
        helper.make_node("Add", ["product", "whole"], ["y"]),
    ]
    tensors = [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["batch", 3]) for name in ("x", "y")]
    weights = [
        numpy_helper.from_array(np.array([1, 2, 3], np.float16), "half"),
        numpy_helper.from_array(np.array([1e30, 2, 3], np.float32), "weight"),  # fp16 cannot hold the first
    ]
    graph = helper.make_graph(nodes, "g", tensors[:1], tensors[1:], weights)
    converted = bf16.convert(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10))
    onnx.checker.check_model(converted)
    arrays = {tensor.name: numpy_helper.to_array(tensor).astype(np.float32) for tensor in converted.graph.initializer}
    np.testing.assert_allclose(arrays["half"], [1, 2, 3])
    np.testing.assert_allclose(arrays["weight"], [1e30, 2, 3], rtol=1e-2)
