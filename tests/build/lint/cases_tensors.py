"""Inputs, outputs, reshapes, ragged batches, sequences."""

from __future__ import annotations

from .lab import BATCHED, XY, Case, python


def tensors(x: str = "dims: 4", y: str = "dims: 4", batched: bool = True) -> str:
    """A configuration with more to say about its tensors."""
    head = BATCHED if batched else ""
    return f'{head}input {{ name: "x" data_type: TYPE_FP32 {x} }}\noutput {{ name: "y" data_type: TYPE_FP32 {y} }}\n'


def reshaped(dims: str, shape: str, batched: bool = True) -> str:
    return tensors(x=f"dims: {dims} reshape {{ shape: {shape} }}", batched=batched)


def batch_input(settings: str) -> str:
    return f'{BATCHED}{XY}batch_input {{ kind: BATCH_ELEMENT_COUNT target_name: "n" {settings} }}\n'


def control(settings: str) -> str:
    return f"{BATCHED}{XY}sequence_batching {{ control_input {{ {settings} }} }}\n"


START = 'name: "s" control { kind: CONTROL_SEQUENCE_START int32_false_true: [0, 1] }'
STATE = (
    f'{BATCHED}{XY}sequence_batching {{ state {{ input_name: "a" output_name: "b" data_type: TYPE_FP32 dims: 1 '
    'initial_state { name: "i" data_type: TYPE_FP32 dims: 1 data_file: "zero" } } }\n'
)

CASES = [
    Case("TK030", python(tensors(x="")), python(), "must specify 'dims'", "dims"),
    Case("TK030", python(BATCHED + XY.replace(' data_type: TYPE_FP32 dims: 4 }\nout', " dims: 4 }\nout")), python(),
         "must specify 'data_type'", "type"),
    Case("TK030", python(BATCHED + XY.replace('name: "x" ', "")), python(), "must specify 'name'", "name"),
    Case("TK031", python(tensors(x="dims: 0")), python(tensors(x="dims: -1")), "dimension must be integer >= 1", "zero"),
    Case("TK031", python(tensors(y="dims: -2")), python(tensors(y="dims: -1")), "dimension must be integer", "negative"),
    Case("TK032", python(reshaped("[2, 2]", "[5]")), python(reshaped("[2, 2]", "[4]")), "has different size", "count"),
    Case("TK032", python(reshaped("[1]", "[]", batched=False)), python(reshaped("[1]", "[]")), "scalar", "scalar"),
    Case("TK032", python(reshaped("[2, 4, -1, 6]", "[8, -1, 5]")), python(reshaped("[2, 4, -1, 6]", "[8, -1, 1, 6]")),
         "has different size", "around_variable"),
    Case("TK032", python(reshaped("[-1, -1]", "[-1]")), python(reshaped("[-1, 1]", "[-1]")), "variable-size", "variables"),
    Case("TK033", python(tensors() + XY.splitlines()[0]), python(), label="input", requests=True),
    Case("TK033", python(tensors() + XY.splitlines()[1]), python(), label="output", requests=True, severity="warning"),
    Case("TK034", python(tensors(x="dims: 4 format: FORMAT_NHWC")), python(tensors(x="dims: [2, 2, 3] format: FORMAT_NHWC")),
         "require 3 dims"),
    Case("TK035", python(tensors(x="dims: 4 is_shape_tensor: true")), python(), "only supported for TensorRT", "shape"),
    Case("TK035", python(tensors(x="dims: [4, 4, 4] is_non_linear_format_io: true")), python(),
         "only supported for the TensorRT", "format"),
    Case("TK035", python(BATCHED + XY + 'instance_group { count: 1 kind: KIND_CPU profile: "0" }\n'), python(),
         "profile field which is only supported", "profile"),
    Case("TK037", python(batch_input('data_type: TYPE_INT32 source_input: "q"')),
         python(batch_input('data_type: TYPE_INT32 source_input: "x"')), "unknown source input", "source"),
    Case("TK037", python(batch_input('data_type: TYPE_INT64 source_input: "x"')),
         python(batch_input('data_type: TYPE_FP32 source_input: "x"')), "must be TYPE_INT32 or TYPE_FP32", "type"),
    Case("TK037", python(batch_input("data_type: TYPE_INT32")),
         python(batch_input('data_type: TYPE_INT32 source_input: "x"')), "expects 1 source input", "none"),
    Case("TK037", python(f'{BATCHED}{XY}batch_output {{ kind: BATCH_SCATTER_WITH_INPUT_SHAPE target_name: "q" '
                         'source_input: "x" }\n'), python(), "unknown target output", "target"),
    Case("TK038", python(tensors(x="dims: -1 allow_ragged_batch: true", batched=False)),
         python(tensors(x="dims: -1 allow_ragged_batch: true"))),
    Case("TK060", python(control('name: "s" control { kind: CONTROL_SEQUENCE_START }')), python(control(START)),
         "must specify either", "no_values"),
    Case("TK060", python(control('name: "s" control { kind: CONTROL_SEQUENCE_START int32_false_true: [0, 1, 2] }')),
         python(control(START)), "must have exactly 2 entries", "three_values"),
    Case("TK060", python(control(f"{START} }} control_input {{ {START.replace('START', 'END')}")), python(control(START)),
         "specified for multiple control kinds", "one_tensor"),
    Case("TK060", python(control(f'{START} }} control_input {{ {START}'.replace('"s"', '"t"', 1))),
         python(control(START)), "specifies multiple", "two_tensors"),
    Case("TK060", python(control('name: "s" control { kind: CONTROL_SEQUENCE_CORRID data_type: TYPE_FP32 }')),
         python(control('name: "s" control { kind: CONTROL_SEQUENCE_CORRID data_type: TYPE_UINT64 }')),
         "unexpected data type", "correlation"),
    Case("TK061", python(f"{BATCHED}{XY}sequence_batching {{ direct {{ minimum_slot_utilization: 1.5 }} }}\n"),
         python(f"{BATCHED}{XY}sequence_batching {{ direct {{ minimum_slot_utilization: 0.5 }} }}\n"),
         "minimum slot utilization"),
    Case("TK062", python(STATE), python(STATE, initial_state__zero=bytes(4)), "failed to open text file", ends=True),
]  # fmt: skip
