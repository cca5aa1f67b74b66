"""What fp16 cannot do is found by running, kept in fp32, and seen when it is not."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper
from onnx.reference import ReferenceEvaluator

from tritonkit import samples
from tritonkit.graph import Session
from tritonkit.precision import fp16, onnxgraph

from .conftest import graph_of


def test_only_nodes_that_fp16_would_overflow_or_round_away_stay_in_fp32() -> None:
    graph = graph_of(
        [
            helper.make_node("Mul", ["x", "big"], ["a"], "large"),
            helper.make_node("Mul", ["a", "small"], ["b"], "back"),
            helper.make_node("ReduceL2", ["b", "last"], ["c"], "length"),
            helper.make_node("Add", ["b", "offset"], ["d"], "offset_by_100"),
            helper.make_node("Sub", ["d", "offset"], ["e"], "cancel"),
            helper.make_node("Div", ["e", "c"], ["y"], "ratio"),
        ],
        big=np.float32(1e6), small=np.float32(1e-3), last=np.array([-1]), offset=np.float32(3e4),
    )  # fmt: skip
    dataset = [{"x": np.linspace(0.1, 1, 8, dtype=np.float32) * scale} for scale in (1.0, 0.5)]
    reasons = {danger.node: danger.reason for danger in fp16.dangers(graph, dataset, batched=True)}
    assert set(reasons) == {"large", "back", "length", "cancel"}
    assert "reads the constant big" in reasons["large"]
    assert "reads a, which fp16 cannot hold" in reasons["back"]
    assert "inside" in reasons["length"]
    assert "relative error" in reasons["cancel"]
    converted = fp16.convert(graph.copy().model, list(reasons))
    onnx.checker.check_model(converted, full_check=True)
    types = {tensor.name: tensor.data_type for tensor in converted.graph.initializer}
    assert types["big"] == TensorProto.FLOAT
    inferred = {
        value.name: value.type.tensor_type.elem_type
        for value in onnx.shape_inference.infer_shapes(converted).graph.value_info
    }
    assert inferred["d"] == TensorProto.FLOAT16, "the addition is not in danger"
    inputs = samples.batch(dataset, 2)
    true = Session(graph.model).run(inputs)["y"]
    np.testing.assert_allclose(Session(converted, optimize=False).run(inputs)["y"], true, rtol=0.05)


def test_masks_that_fp16_cannot_hold_become_ones_that_it_can() -> None:
    graph = graph_of(
        [helper.make_node("Add", ["x", "mask"], ["a"]), helper.make_node("Softmax", ["a"], ["y"])],
        mask=np.array([0, 0, np.finfo(np.float32).min, -np.inf, 0, 0, 0, 0], np.float32),
    )
    assert fp16.clip_masks(graph) == ["mask"]
    mask = graph.constants["mask"]
    assert mask[2] == -32752
    assert mask[3] == -np.inf
    assert not fp16.dangers(graph, [{"x": np.ones(8, np.float32)}], batched=True)


def overflowing() -> tuple[onnxgraph.OnnxGraph, dict[str, Any], float]:
    """Neighbours whose values between them fp16 cannot hold, and what they give for one sample."""
    graph = graph_of(
        [
            helper.make_node("Mul", ["x", "thousand"], ["a"], "up"),
            helper.make_node("Relu", ["a"], ["b"], "bound"),
            helper.make_node("Mul", ["b", "thousandth"], ["y"], "down"),
        ],
        thousand=np.float32(1000), thousandth=np.float32(1e-3),
    )  # fmt: skip
    return graph, {"x": np.full(8, 100, np.float32)}, 100.0


def test_emulation_shows_an_overflow_that_onnxruntime_hides() -> None:
    graph, sample, expected = overflowing()
    converted = fp16.convert(graph.copy().model, [])
    inputs = samples.batch([sample], 1)
    with np.errstate(over="ignore"):
        evaluated: Any = ReferenceEvaluator(converted).run(None, inputs)
    assert np.isinf(evaluated[0]).all()
    emulated = fp16.emulated(onnx.ModelProto.FromString(converted.SerializeToString()))
    for optimize in (True, False):
        assert np.isinf(Session(emulated, optimize=optimize).run(inputs)["y"]).all()
    assert np.isfinite(Session(converted, optimize=False).run(inputs)["y"]).all(), (
        "else emulation is not needed any more"
    )
    assert expected == 100


def test_kept_neighbours_hand_over_what_fp16_cannot_hold() -> None:
    graph, sample, expected = overflowing()
    kept = [danger.node for danger in fp16.dangers(graph, [sample], batched=True)]
    assert set(kept) == {"up", "bound", "down"}
    converted = fp16.convert(graph.copy().model, kept)
    inputs = samples.batch([sample], 1)
    evaluated: Any = ReferenceEvaluator(converted).run(None, inputs)
    np.testing.assert_allclose(evaluated[0], expected, rtol=1e-3)


def test_masks_are_clipped_and_other_far_constants_keep_their_node_in_fp32() -> None:
    graph = graph_of([helper.make_node("Div", ["x", "far"], ["y"], "divide")], far=np.float32(1e6))
    assert fp16.clip_masks(graph) == []
    (danger,) = fp16.dangers(graph, [{"x": np.ones(8, np.float32)}], batched=True)
    assert danger.node == "divide"
    assert "reads the constant far" in danger.reason


@pytest.mark.parametrize("last", ["Sigmoid", "Softmax"])
def test_a_graph_that_fp16_can_hold_is_all_fp16_and_emulated_exactly(last: str) -> None:
    graph = graph_of(
        [helper.make_node("MatMul", ["x", "w"], ["a"]), helper.make_node(last, ["a"], ["y"])],
        w=np.random.default_rng(0).standard_normal((8, 8)).astype(np.float32),
    )
    dataset = [{"x": np.linspace(-1, 1, 8, dtype=np.float32)}]
    assert fp16.dangers(graph, dataset, batched=True) == []
    converted = fp16.convert(graph.copy().model, [])
    inputs = samples.batch(dataset, 1)
    evaluated: Any = ReferenceEvaluator(onnx.ModelProto.FromString(converted.SerializeToString())).run(None, inputs)
    got = Session(fp16.emulated(converted), optimize=False).run(inputs)["y"]
    np.testing.assert_allclose(got, evaluated[0], rtol=2e-3)
    assert not np.array_equal(got, Session(graph.model).run(inputs)["y"])
