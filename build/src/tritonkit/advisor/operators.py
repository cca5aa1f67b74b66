"""How many operations one ONNX node is, from the shapes of its inputs and outputs, and what kind of work that is."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Literal

import onnx

Shape = Sequence[int]
Kind = Literal["convolution", "depthwise", "matrix", "attention", "recurrent", "elementwise", "movement", "free"]

CONVOLUTIONS = {"Conv", "ConvInteger", "FusedConv", "QLinearConv", "NhwcConv"}
PRODUCTS = {
    "MatMul", "Gemm", "MatMulInteger", "QLinearMatMul", "QGemm", "FusedMatMul", "FusedGemm", "MatMulNBits",
    "MatMulIntegerToFloat", "GemmFloat8",
}  # fmt: skip
ATTENTIONS = {"Attention", "MultiHeadAttention", "GroupQueryAttention"}
RECURRENT = {"LSTM", "GRU", "RNN"}
CONTROL = {"Loop", "Scan", "If"}
# Change of shape alone, or known before the first request: no engine launches a kernel for them.
FREE = {
    "Reshape", "Flatten", "Squeeze", "Unsqueeze", "Identity", "Shape", "Size", "Constant", "ConstantOfShape", "Dropout",
    "Range",
}  # fmt: skip
# Moves numbers and computes none.
MOVEMENT = {
    "Transpose", "Concat", "Split", "Slice", "Gather", "GatherND", "GatherElements", "Pad", "Expand", "Tile",
    "DepthToSpace", "SpaceToDepth", "ScatterND", "ScatterElements", "Resize", "Upsample", "OneHot", "EyeLike",
    "EmbedLayerNormalization", "NonZero", "Compress", "TopK", "ReverseSequence",
}  # fmt: skip
_RHS = {"QLinearConv": 3, "QLinearMatMul": 3, "QGemm": 3}  # the operand of the weights, where it is not the second
_MICROSOFT = "com.microsoft"


def kind(node: onnx.NodeProto, shapes: Mapping[str, Shape], weights: frozenset[str]) -> Kind:
    """What a node's time depends on.

    Args:
        node: Any node.
        shapes: Of the tensors that are known.
        weights: Names of constants; a product of two activations is attention's.
    """
    operator = node.op_type
    if operator in CONVOLUTIONS or operator == "ConvTranspose":
        return "depthwise" if _is_depthwise(node, shapes) else "convolution"
    if operator in ATTENTIONS:
        return "attention"
    if operator in PRODUCTS or operator == "Einsum":
        return "matrix" if any(name in weights for name in node.input) else "attention"
    if operator in RECURRENT:
        return "recurrent"
    return "free" if operator in FREE else "movement" if operator in MOVEMENT else "elementwise"


def is_known(node: onnx.NodeProto) -> bool:
    """Whether an operator is ONNX's own, or one of onnxruntime's that is counted here."""
    if node.domain in {"", "ai.onnx"}:
        return onnx.defs.has(node.op_type, "")
    counted = CONVOLUTIONS | PRODUCTS | ATTENTIONS
    return node.domain == _MICROSOFT and (node.op_type in counted or node.op_type in _MICROSOFT_ELEMENTWISE)


_MICROSOFT_ELEMENTWISE = {
    "Gelu", "FastGelu", "BiasGelu", "QuickGelu", "SkipLayerNormalization", "EmbedLayerNormalization", "BiasDropout",
    "QLinearAdd", "QLinearMul", "QLinearSigmoid", "QLinearLeakyRelu", "QLinearGlobalAveragePool", "QLinearConcat",
    "QLinearAveragePool", "QLinearSoftmax", "QuantizeLinear", "DequantizeLinear", "DynamicQuantizeMatMul",
    "SimplifiedLayerNormalization", "SkipSimplifiedLayerNormalization", "RotaryEmbedding", "QAttention",
}  # fmt: skip


def operations(node: onnx.NodeProto, shapes: Mapping[str, Shape]) -> float:
    """Multiplications and additions of a node that does matrix work, 2 for each multiply-add; 0 for others.

    A product of (…, m, k) and (k, n) is 2 k for each number that comes out; a convolution 2 for each weight of its
    channel; a recurrent layer 2 for each of its weights, at each step. Biases and activations are not counted, as
    PyTorch's ``torch.utils.flop_counter`` counts none.

    Args:
        node: Any node.
        shapes: Of its inputs and outputs.

    Raises:
        KeyError: A shape that is needed is missing.
    """
    operator = node.op_type
    if operator in RECURRENT:  # input is (steps, batch, in), or (batch, steps, in) with layout 1
        weights = math.prod(shapes[node.input[1]]) + math.prod(shapes[node.input[2]])
        return 2.0 * math.prod(shapes[node.input[0]][:2]) * weights
    if operator == "Einsum":
        return _einsum(node, shapes)
    if operator == "ConvTranspose":
        return 2.0 * math.prod(shapes[node.input[0]]) * math.prod(shapes[node.input[1]][1:])
    if operator in CONVOLUTIONS:
        weight = shapes[node.input[_RHS.get(operator, 1)]]
        each = weight[-1] * math.prod(weight[1:-1]) if operator == "NhwcConv" else math.prod(weight[1:])
        return 2.0 * math.prod(shapes[node.output[0]]) * each
    if operator in PRODUCTS:
        first = shapes[node.input[0]]
        transposed = any(a.name == "transA" and a.i for a in node.attribute)
        return 2.0 * math.prod(shapes[node.output[0]]) * (first[-2] if transposed else first[-1])
    if operator in ATTENTIONS:
        return _attention(node, shapes)
    return 0.0


def _is_depthwise(node: onnx.NodeProto, shapes: Mapping[str, Shape]) -> bool:
    group = next((a.i for a in node.attribute if a.name == "group"), 1)
    weight = shapes.get(node.input[_RHS.get(node.op_type, 1)], (0, 0))
    return group > 1 and len(weight) > 1 and weight[1] == 1


def _einsum(node: onnx.NodeProto, shapes: Mapping[str, Shape]) -> float:
    (equation,) = (item.s.decode() for item in node.attribute if item.name == "equation")
    terms = equation.replace(" ", "").partition("->")[0].split(",")
    sizes: dict[str, int] = {}
    for term, name in zip(terms, node.input, strict=True):
        sizes |= dict(zip(reversed(term), reversed(shapes[name]), strict=False))
    return 2.0 * math.prod(sizes.values())


def _attention(node: onnx.NodeProto, shapes: Mapping[str, Shape]) -> float:
    """Scores and their product with the values: 2 × queries × keys × (width of keys + width of values), all heads."""
    query, output = shapes[node.input[0]], shapes[node.output[0]]
    if node.domain == _MICROSOFT and node.op_type == "Attention":  # the projections are inside
        hidden = math.prod(shapes[node.input[1]])
        tokens, length = math.prod(query[:2]), query[1]
        return 2.0 * tokens * hidden + 4.0 * tokens * length * output[-1]
    key = shapes.get(node.input[1], query) if len(node.input) > 1 and node.input[1] else query
    if len(query) == 4:  # (batch, heads, length, width)
        return 2.0 * math.prod(query[:3]) * key[2] * (query[3] + output[3])
    return 2.0 * math.prod(query[:2]) * key[1] * (query[2] + output[2])
