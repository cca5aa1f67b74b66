"""Small ONNX files, for tests of what becomes of a graph: no PyTorch, no export."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper


def write_linear(path: Path, factor: float, classes: int = 3) -> None:
    """``scores = factor * (sums of x's four values)``, as many times as there are classes; [batch, 4] in."""
    weight = numpy_helper.from_array(np.full((4, classes), factor, np.float32), "weight")
    graph = helper.make_graph(
        [helper.make_node("MatMul", ["x", "weight"], ["scores"])], "linear",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", 4])],
        [helper.make_tensor_value_info("scores", TensorProto.FLOAT, ["batch", classes])], [weight],
    )  # fmt: skip
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=9), path)


def write_recipe(path: Path, graph: Path, *more: str, classes: int = 3, name: str = "classifier") -> Path:
    """A recipe for a graph of `write_linear`, with further lines."""
    lines = [
        f"name: {name}", f"source: {{onnx: {graph.name}}}", "inputs: {x: {dtype: fp32, dims: [4]}}",
        f"outputs: {{scores: {{dtype: fp32, dims: [{classes}]}}}}", *more,
    ]  # fmt: skip
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path
