"""Configurations held against ONNX graphs."""

from __future__ import annotations

import numpy as np
from onnx import TensorProto, helper

from tritonkit.repository.lint import Options

from .lab import BATCHED, XY, Case, graph, onnx_model, quantized, relu, tensor

TWO = graph(
    [helper.make_node("Add", ["x", "z"], ["y"])], [tensor("x", "N", 4), tensor("z", "N", 4)], [tensor("y", "N", 4)]
)
SCALAR = graph([helper.make_node("ReduceSum", ["x"], ["y"], keepdims=0)], [tensor("x", 4)], [tensor("y")])
SUMS = graph([helper.make_node("NonZero", ["x"], ["y"])], [tensor("x", "N", 4)], [tensor("y", 2, "K", dtype=7)])
INFERRED = graph([helper.make_node("Relu", ["x"], ["y"])], [tensor("x", "N", 4)], [tensor("y", "N", "M")])
INDICES = (
    'input { name: "x" data_type: TYPE_FP32 dims: [-1, 4] }\noutput { name: "y" data_type: TYPE_INT64 dims: [2, %d] }\n'
)
CAST = graph([helper.make_node("Cast", ["x"], ["h"], to=TensorProto.BFLOAT16), helper.make_node("Cast", ["h"], ["y"], to=1)],
             [tensor("x", "N", 4)], [tensor("y", "N", 4)])  # fmt: skip
RAGGED = BATCHED + XY.replace(
    '"x" data_type: TYPE_FP32 dims: 4', '"x" data_type: TYPE_FP32 dims: -1 allow_ragged_batch: true'
)
TENSORRT = (
    'optimization { execution_accelerators { gpu_execution_accelerator { name: "tensorrt" '
    'parameters { key: "precision_mode" value: "FP16" } } } }\n'
)
CPU_IMAGE = Options(image=(24, 10))


def sized(x: str, y: str, batched: bool = True) -> str:
    head = BATCHED if batched else ""
    return f'{head}input {{ name: "x" data_type: TYPE_FP32 dims: {x} }}\noutput {{ name: "y" data_type: TYPE_FP32 dims: {y} }}\n'


CASES = [
    Case("TK036", onnx_model(BATCHED + XY.replace("dims: 4 }\no", "dims: 4 optional: true }\no")), onnx_model()),
    Case("TK040", onnx_model(BATCHED + XY + 'input { name: "q" data_type: TYPE_FP32 dims: 4 }\n'), onnx_model(),
         "the graph has no input 'q'", "input"),
    Case("TK040", onnx_model(BATCHED + XY.replace('"y"', '"q"')), onnx_model(), "the graph has no output 'q'", "output"),
    Case("TK041", onnx_model(graph=TWO),
         onnx_model(BATCHED + XY + 'input { name: "z" data_type: TYPE_FP32 dims: 4 }\n', TWO),
         "the graph's input 'z' is not in the configuration"),
    Case("TK042", onnx_model(BATCHED + XY.replace("FP32", "INT64")), onnx_model(BATCHED + XY.replace("FP32", "INT64"),
         relu("N", 4, dtype=TensorProto.INT64)), "is TYPE_INT64 in the conf"),
    Case("TK043", onnx_model(sized("5", "4")), onnx_model(), "has dims [5] in the configuration", "size"),
    Case("TK043", onnx_model(sized("[4, 1]", "4")), onnx_model(), "has dims [4, 1] in the configuration", "rank"),
    Case("TK043", onnx_model(sized("-1", "4")), onnx_model(), "has dims [-1] in the configuration", "variable"),
    Case("TK043", onnx_model(sized("4", "4", batched=False)), onnx_model(sized("[-1, 4]", "[-1, 4]", batched=False)),
         "has dims [4] in the configuration", "unbatched"),
    Case("TK043", onnx_model(sized("4", "2", batched=False), SCALAR), onnx_model(sized("4", "1", batched=False), SCALAR),
         "has dims [2] in the configuration", "scalar", runs=False),
    Case("TK044", onnx_model(graph=relu(1, 4)), onnx_model(sized("[1, 4]", "[1, 4]", batched=False), relu(1, 4)),
         "needs a dynamic first dimension"),
    Case("TK044", onnx_model(BATCHED, relu(1, 4)), onnx_model("", relu(1, 4)), "needs a dynamic first dimension", "auto"),
    Case("TK045", onnx_model(INDICES % 4, SUMS), onnx_model(INDICES % -1, SUMS), label="open"),
    Case("TK045", onnx_model(INDICES % 4, SUMS), onnx_model(sized("4", "4"), INFERRED), label="inferred"),
    Case("TK046", onnx_model(None, relu("N", 4, dtype=TensorProto.BFLOAT16)), onnx_model(None),
         "which Triton does not have"),
    Case("TK047", onnx_model(graph=relu(opset=22)), onnx_model(graph=relu(opset=21)), label="opset", options=CPU_IMAGE),
    Case("TK047", onnx_model(graph=relu(ir=11)), onnx_model(graph=relu(ir=10)), label="format", options=CPU_IMAGE),
    Case("TK048", onnx_model(RAGGED, relu("N", 4)), onnx_model(sized("-1", "-1"), relu("N", "M")),
         runs=False),
    Case("TK049", onnx_model(""), onnx_model(BATCHED)),
    Case("TK105", onnx_model(graph=quantized(3, np.int8)) | {"passport.json": '{"target": "tensorrt"}'},
         onnx_model(graph=quantized(0, np.int8)) | {"passport.json": '{"target": "tensorrt"}'}, label="zero_point"),
    Case("TK105", onnx_model(graph=quantized(0, np.uint8)) | {"passport.json": '{"target": "tensorrt"}'},
         onnx_model(graph=quantized(0, np.uint8)) | {"passport.json": '{"target": "cpu"}'}, label="unsigned"),
    Case("TK106", onnx_model() | {"passport.json": '{"precision": "fp16"}'},
         onnx_model(BATCHED + XY.replace("FP32", "FP16"), relu("N", 4, dtype=TensorProto.FLOAT16)) | {"passport.json": '{"precision": "fp16"}'}, label="fp16"),
    Case("TK106", onnx_model() | {"passport.json": '{"precision": "bf16"}'},
         onnx_model(graph=CAST) | {"passport.json": '{"precision": "bf16"}'}, label="bf16"),
    Case("TK106", onnx_model() | {"passport.json": '{"precision": "int8"}'},
         onnx_model(graph=quantized(0, np.int8)) | {"passport.json": '{"precision": "int8"}'}, label="int8"),
    Case("TK107", onnx_model(BATCHED + XY + TENSORRT), onnx_model(BATCHED + XY + TENSORRT.replace("FP16", "FP32")),
         options=Options(image=(26, 6))),
]  # fmt: skip
