"""What an ONNX graph says of itself: its opset, and which precisions occur in it. It changes nothing."""

from __future__ import annotations

from collections.abc import Iterator

import onnx

_P = onnx.TensorProto
FP8 = frozenset({_P.FLOAT8E4M3FN, _P.FLOAT8E4M3FNUZ, _P.FLOAT8E5M2, _P.FLOAT8E5M2FNUZ})
_QDQ = {"QuantizeLinear", "DequantizeLinear"}
# Beginnings of operators that compute in int8, ONNX's own and those of onnxruntime (com.microsoft).
_INTEGER = ("QLinear", "MatMulInteger", "ConvInteger", "DynamicQuantize", "QGemm", "QAttention")


def opset(model: onnx.ModelProto) -> int:
    """The version of ONNX's own operators; 0 for a model that has none of them."""
    return max((entry.version for entry in model.opset_import if entry.domain in {"", "ai.onnx"}), default=0)


def zero_points(graph: onnx.GraphProto) -> Iterator[tuple[onnx.NodeProto, onnx.TensorProto | None]]:
    """Each quantization node with its zero point; None where it has none, or one that is computed."""
    constants = {tensor.name: tensor for tensor in graph.initializer}
    for node in graph.node:
        if node.op_type == "Constant" and node.attribute and node.attribute[0].name == "value":
            constants[node.output[0]] = node.attribute[0].t
    for node in graph.node:
        if node.op_type in _QDQ:
            yield node, constants.get(node.input[2]) if len(node.input) > 2 else None


def precisions(graph: onnx.GraphProto) -> frozenset[str]:
    """Which of fp16, bf16, int8, fp8 occur in a graph, by its tensors, casts and quantization; empty for plain fp32."""
    return frozenset(_precisions(graph))


def _precisions(graph: onnx.GraphProto) -> Iterator[str]:
    types = {tensor.data_type for tensor in graph.initializer}
    for node in graph.node:
        types |= {attribute.i for attribute in node.attribute if node.op_type == "Cast" and attribute.name == "to"}
        types |= {attribute.t.data_type for attribute in node.attribute if attribute.name == "value"}
    for values in (graph.input, graph.output, graph.value_info):
        types |= {value.type.tensor_type.elem_type for value in values}
    if _P.FLOAT16 in types:
        yield "fp16"
    if _P.BFLOAT16 in types:
        yield "bf16"
    if types & FP8:
        yield "fp8"
    quantized = any(zero is None or zero.data_type not in FP8 for _, zero in zero_points(graph))
    # A name that is no UTF-8 comes out of protobuf as bytes.
    if quantized or any(str(node.op_type).startswith(_INTEGER) for node in graph.node):
        yield "int8"
