"""A small graph of texts with a mask, for tests of padding."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper

FLOAT, INT64 = TensorProto.FLOAT, TensorProto.INT64
TABLE = np.random.default_rng(0).normal(size=(50, 8)).astype(np.float32)
PADDING = {
    "sequence": {
        "sizes": [8, 16, 32],
        "inputs": {"ids": {"axis": 0, "value": 0}, "mask": {"axis": 0, "value": 0}},
        "outputs": {"tokens": {"axis": 0}},
    }
}


def text_model(path: Path) -> Path:
    """Write a graph that gives each text's rows of a table, and their mean under its mask."""
    ones = helper.make_tensor("one", INT64, [1], [1])
    last = helper.make_tensor("last", INT64, [1], [-1])
    table = helper.make_tensor("table", FLOAT, TABLE.shape, TABLE.ravel())
    nodes = [
        helper.make_node("Gather", ["table", "ids"], ["rows"]),
        helper.make_node("Cast", ["mask"], ["mask_f"], to=FLOAT),
        helper.make_node("Unsqueeze", ["mask_f", "last"], ["weights"]),
        helper.make_node("Mul", ["rows", "weights"], ["tokens"]),
        helper.make_node("ReduceSum", ["tokens", "one"], ["sum"], keepdims=0),
        helper.make_node("ReduceSum", ["weights", "one"], ["count"], keepdims=0),
        helper.make_node("Div", ["sum", "count"], ["mean"]),
    ]
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info(name, INT64, ["batch", "sequence"]) for name in ("ids", "mask")],
        [
            helper.make_tensor_value_info("mean", FLOAT, ["batch", 8]),
            helper.make_tensor_value_info("tokens", FLOAT, ["batch", "sequence", 8]),
        ],
        [table, ones, last],
    )
    return save(graph, path)


def save(graph: onnx.GraphProto, path: Path) -> Path:
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10), path)
    return path
