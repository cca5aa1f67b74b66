"""Small ONNX files: a few nodes between named inputs and outputs."""

from __future__ import annotations

from pathlib import Path

import onnx
from onnx import helper

value = helper.make_tensor_value_info


def save(
    path: Path, nodes: list[onnx.NodeProto], inputs: list[onnx.ValueInfoProto], *outputs: onnx.ValueInfoProto
) -> None:
    """Write a graph, for an opset and a format that every onnxruntime here reads."""
    graph = helper.make_graph(nodes, "graph", inputs, list(outputs))
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9), path)
