"""What the sequence batcher sends and takes, and the graph's own tensors."""

from __future__ import annotations

from onnx import TensorProto, helper

from .lab import BATCHED, XY, Case, graph, onnx_model, tensor


def accumulator(*start: int | str, dtype: int = TensorProto.INT32) -> bytes:
    """y = x + state; the control START is read and matters to nothing."""
    nodes = [
        helper.make_node("Add", ["x", "total"], ["y"]),
        helper.make_node("Identity", ["y"], ["new_total"]),
        helper.make_node("Identity", ["START"], ["started"]),
    ]
    inputs = [tensor("x", "N", 4), tensor("total", "N", 4), tensor("START", "N", *start, dtype=dtype)]
    outputs = [tensor("y", "N", 4), tensor("new_total", "N", 4), tensor("started", "N", *start, dtype=dtype)]
    return graph(nodes, inputs, outputs)


def batching(
    control: str = "START", given: str = "int32_false_true: [0, 1]", new: str = "new_total", dims: int = 4
) -> str:
    return (
        f'{BATCHED}{XY}sequence_batching {{ control_input {{ name: "START" control {{ kind: CONTROL_SEQUENCE_START {given} }} }} '
        f'state {{ input_name: "total" output_name: "{new}" data_type: TYPE_FP32 dims: {dims} }} }}\n'
    )


GOOD = onnx_model(batching(), accumulator(1))
STATELESS = graph([helper.make_node("Relu", ["x"], ["y"])], [tensor("x", "N", 4)], [tensor("y", "N", 4)])
CONTROL = 'sequence_batching { control_input { name: "BEGIN" control { kind: CONTROL_SEQUENCE_START int32_false_true: [0, 1] } } }\n'
CASES = [
    Case("TK140", onnx_model(BATCHED + XY + CONTROL, STATELESS), onnx_model(BATCHED + XY, STATELESS),
         "the graph has no input 'BEGIN'", "control"),
    Case("TK140", onnx_model(batching(given="fp32_false_true: [0, 1]"), accumulator(1)), GOOD,
         "'START' is TYPE_FP32 in the configuration", "type"),
    Case("TK140", onnx_model(batching(), accumulator("M")), GOOD, "its last dimension must be 1", "shape"),
    Case("TK140", onnx_model(batching(new="elsewhere"), accumulator(1)), GOOD, "the graph has no output 'elsewhere'", "state"),
    Case("TK140", onnx_model(batching(dims=5), accumulator(1)), GOOD, "has dims [5] in the configuration", "dims"),
]  # fmt: skip
