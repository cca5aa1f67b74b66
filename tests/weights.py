"""A small ONNX model with its weights in a file beside it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

WIDTH = 32


def write_model(path: Path, factor: float = 1.0, opset: int = 20) -> None:
    """y = x w, with w in a file of its own."""
    tensors = [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["batch", WIDTH]) for name in ("x", "y")]
    weight = numpy_helper.from_array(np.full((WIDTH, WIDTH), factor, np.float32), "w")
    graph = helper.make_graph([helper.make_node("MatMul", ["x", "w"], ["y"])], "g", tensors[:1], tensors[1:], [weight])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=9)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.with_name("model.onnx_data").unlink(missing_ok=True)
    onnx.save(model, path, save_as_external_data=True, location="model.onnx_data", size_threshold=0)


_TENSOR = {"dtype": "fp32", "dims": [WIDTH]}
SIGNATURE: dict[str, Any] = {"inputs": {"x": _TENSOR}, "outputs": {"y": _TENSOR}, "precisions": ["fp32"]}
