"""Proves a precision: counts compute layers by the type of the numbers that they really read.

A quantized convolution keeps type FLOAT in the parsed network, between a DEQUANTIZE and a QUANTIZE layer, and is
fused with both when the engine is built. So the layer's own type says nothing; what feeds it does.
"""

from __future__ import annotations

from typing import Any

from tritonkit.errors import CheckFailed

Counts = dict[str, int]
# Where the time of a network goes. FULLY_CONNECTED is gone since TensorRT 9; its name costs nothing here.
_COMPUTE = {"CONVOLUTION", "DECONVOLUTION", "EINSUM", "FULLY_CONNECTED", "MATRIX_MULTIPLY"}
_MOVES = {"IDENTITY", "SHUFFLE", "SQUEEZE", "UNSQUEEZE"}  # they change a tensor's shape and no number in it
_NAMES = {"FLOAT": "fp32", "HALF": "fp16", "BF16": "bf16", "INT8": "int8", "FP8": "fp8"}
_QUANTIZED = {"int8", "fp8"}
OTHER = "other"


def count(network: Any) -> Counts:
    """How many compute layers there are of each precision; ``other`` counts all layers that move or shape data.

    Args:
        network: A parsed ``INetworkDefinition``.
    """
    layers = [network.get_layer(index) for index in range(network.num_layers)]
    makers = {layer.get_output(index).name: layer for layer in layers for index in range(layer.num_outputs)}
    counts: Counts = {"fp32": 0, "fp16": 0, "int8": 0, "fp8": 0, OTHER: 0}
    for layer in layers:
        kind = _fed_by(layer, makers) if layer.type.name in _COMPUTE else OTHER
        counts[kind] = counts.get(kind, 0) + 1
    return counts


def _fed_by(layer: Any, makers: dict[str, Any]) -> str:
    """Quantized only if the data *and* the weights are: otherwise the multiplication is done in floating point."""
    operands = [layer.get_input(index) for index in range(min(layer.num_inputs, 2))]
    kinds = {_quantized_type(operand, makers) for operand in operands}
    only = kinds.pop() if len(kinds) == 1 else ""
    if only in _QUANTIZED and len(operands) == 2:
        return only
    return _name(operands[0].dtype)


def _quantized_type(tensor: Any, makers: dict[str, Any]) -> str:
    """The type before the DEQUANTIZE layer that makes ``tensor``; empty if none does."""
    maker = makers.get(tensor.name)
    while maker is not None and maker.type.name in _MOVES:
        maker = makers.get(maker.get_input(0).name)
    if maker is None or maker.type.name != "DEQUANTIZE":
        return ""
    return _name(maker.get_input(0).dtype)


def _name(dtype: Any) -> str:
    name = str(dtype.name)
    return _NAMES.get(name, name.lower())


def prove(counts: Counts, precision: str, where: str) -> None:
    """Hold the counts against the precision that was asked for.

    Raises:
        CheckFailed: The precision is fp16, int8 or fp8, and no layer computes in it.
    """
    if precision == "fp32" or counts.get(precision):
        return
    raise CheckFailed(
        f"{where}: {precision} was asked for, and no layer computes in {precision}: {describe(counts)}",
        "give the graph of that precision: casts in it make fp16, Q/DQ on data and weights make int8 and fp8",
    )


def describe(counts: Counts) -> str:
    """``49 int8, 1 fp32``: what computes, most first."""
    computing = {kind: number for kind, number in counts.items() if kind != OTHER and number}
    ordered = sorted(computing.items(), key=lambda item: -item[1])
    return ", ".join(f"{number} {kind}" for kind, number in ordered) or "no layer that computes"
