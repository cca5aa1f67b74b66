"""What the rule about quantization says of TensorRT, tried with the parser of TensorRT-RTX, which needs no GPU."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import tensorrt_rtx as trt

from tritonkit.repository import lint

from .lab import onnx_model, quantized, write


def parse(model: bytes) -> tuple[str, set[trt.DataType]]:
    """Why the parser refuses a graph, empty if it does not, and the types of the network's layers."""
    builder = trt.Builder(trt.Logger(trt.Logger.INTERNAL_ERROR))
    network = builder.create_network(1 << int(trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED))
    parser = trt.OnnxParser(network, trt.Logger(trt.Logger.INTERNAL_ERROR))
    parser.parse(model)
    why = "".join(parser.get_error(index).desc() for index in range(parser.num_errors))
    return why, {network.get_layer(index).get_output(0).dtype for index in range(network.num_layers)}


@pytest.mark.parametrize(
    ("zero", "dtype", "refused", "reported"),
    [
        (0, np.int8, False, False),
        (3, np.int8, True, True),
        (3, np.uint8, True, True),
        (0, np.uint8, False, True),  # taken for int8: half of the range is lost without a word
    ],
)
def test_tensorrt_refuses_a_zero_point_and_takes_unsigned_for_signed(
    zero: int, dtype: type[np.generic], refused: bool, reported: bool, tmp_path: Path
) -> None:
    model = quantized(zero, dtype)
    why, types = parse(model)
    assert ("Non-zero zero point is not supported" in why) == refused
    if not refused:
        assert trt.DataType.INT8 in types
        assert trt.DataType.UINT8 not in types
    write(tmp_path / "m", onnx_model(graph=model) | {"passport.json": '{"target": "tensorrt"}'})
    assert ("TK105" in {finding.rule for finding in lint.check(tmp_path).findings}) == reported
