"""Rewrites a graph for TensorRT's parser: the same numbers."""

from __future__ import annotations

from onnx import TensorProto

from tritonkit.precision.onnxgraph import OnnxGraph

_MOVES = {"Transpose", "Reshape", "Squeeze", "Unsqueeze", "Flatten"}


def prepare(graph: OnnxGraph) -> bool:
    """Cast uint8 inputs before they are moved: TensorRT reads uint8 into a Cast and into nothing else.

    Returns:
        Whether anything was rewritten.
    """
    bytes_in = {
        value.name for value in graph.model.graph.input if value.type.tensor_type.elem_type == TensorProto.UINT8
    }
    nodes = list(graph.nodes)
    changed = False
    for move in list(nodes):
        readers = graph.consumers[move.output[0]]
        if move.op_type not in _MOVES or move.input[0] not in bytes_in or [r.op_type for r in readers] != ["Cast"]:
            continue
        (cast,) = readers
        moved, result = move.output[0], cast.output[0]
        cast.input[0], cast.output[0] = move.input[0], f"{moved}_cast"
        move.input[0], move.output[0] = f"{moved}_cast", result
        nodes.remove(cast)
        nodes.insert(nodes.index(move), cast)
        changed = True
    if changed:
        del graph.model.graph.value_info[:]
        graph.replace_nodes(nodes)
    return changed
