"""The precision proof on networks that the real parser made."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from onnx import TensorProto, helper

from tritonkit.engines import builder, jobs, layer_precision
from tritonkit.errors import CheckFailed

Preflight = Callable[..., tuple[int, dict[str, Any]]]


@pytest.fixture(scope="module")
def toolkit() -> builder.Toolkit:
    return builder.load("tensorrt_rtx")


def computing(toolkit: builder.Toolkit, path: Any) -> dict[str, int]:
    counts = builder.Network(toolkit, path).counts
    return {kind: number for kind, number in counts.items() if number and kind != layer_precision.OTHER}


def test_each_precision_is_told_by_what_feeds_the_layer(graphs: Any, toolkit: builder.Toolkit) -> None:
    paths = {"fp32": graphs.mlp("fp32"), "fp16": graphs.mlp("fp16"), "int8": graphs.quantized(), "fp8": graphs.fp8()}
    for precision, path in paths.items():
        assert list(computing(toolkit, path)) == [precision]
        assert jobs.claimed(path) == precision
        layer_precision.prove(builder.Network(toolkit, path).counts, precision, "graph")


def test_quantized_weights_alone_are_not_int8(graphs: Any, toolkit: builder.Toolkit) -> None:
    """The multiplication is done in fp16 then: the plan is smaller and no faster."""
    assert computing(toolkit, graphs.quantized(data=False)) == {"fp16": 1}


def test_int8_is_seen_through_a_reshape(graphs: Any, toolkit: builder.Toolkit) -> None:
    nodes = [
        helper.make_node("QuantizeLinear", ["x", "s", "z"], ["q"]),
        helper.make_node("DequantizeLinear", ["q", "s", "z"], ["d"]),
        helper.make_node("Transpose", ["d"], ["t"], perm=[0, 2, 1]),
        helper.make_node("DequantizeLinear", ["wq", "s", "z"], ["w"]),
        helper.make_node("MatMul", ["t", "w"], ["y"]),
    ]
    weights = {"s": np.asarray(0.1, np.float32), "z": np.asarray(0, np.int8), "wq": np.ones((4, 4), np.int8)}
    values = [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["batch", 4, 4]) for name in "xy"]
    assert computing(toolkit, graphs.save("moved", nodes, values[:1], values[1:], weights)) == {"int8": 1}


def test_convolutions_and_einsum_count(graphs: Any, toolkit: builder.Toolkit) -> None:
    nodes = [
        helper.make_node("Conv", ["x", "k"], ["a"], kernel_shape=[1, 1]),
        helper.make_node("ConvTranspose", ["a", "k"], ["b"], kernel_shape=[1, 1]),
        helper.make_node("Einsum", ["b", "b"], ["y"], equation="nchw,nchv->ncwv"),
    ]
    values = [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["batch", 2, 4, 4]) for name in "xy"]
    path = graphs.save("kinds", nodes, values[:1], values[1:], {"k": np.ones((2, 2, 1, 1), np.float32)})
    assert computing(toolkit, path) == {"fp32": 3}


@pytest.mark.parametrize("precision", ["fp16", "int8", "fp8"])
def test_a_precision_that_no_layer_has_is_refused_with_the_counts(
    graphs: Any, preflight: Preflight, precision: str
) -> None:
    code, report = preflight(graphs.mlp("fp32"), "l4,h100", "--precision", precision)
    assert code == 1
    for verdict in report["verdicts"]:  # for the GPU that is not built for, too
        assert verdict["status"] == "refused"
        assert f"no layer computes in {precision}: 2 fp32" in verdict["reasons"][0]["text"]
        assert verdict["plan_bytes"] is None


def test_a_graph_without_compute_layers_proves_nothing() -> None:
    with pytest.raises(CheckFailed, match="no layer that computes"):
        layer_precision.prove({"fp32": 0, "fp16": 0, "other": 7}, "fp16", "graph")
