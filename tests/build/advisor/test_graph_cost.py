"""What a graph costs, held against PyTorch's own counter on the modules that the graphs were exported from."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import onnx
import pytest
import torch
from onnx import TensorProto, helper
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from tritonkit import cached_export, recipe
from tritonkit.advisor import graph_cost
from tritonkit.advisor.references import reference
from tritonkit.errors import GraphError

ROOT = Path(__file__).parents[3]
LENGTH = 128


def counted(module: torch.nn.Module, *inputs: torch.Tensor) -> float:
    # The counter knows no fused attention of the CPU, and would leave it out.
    with FlopCounterMode(display=False) as counter, torch.no_grad(), sdpa_kernel(SDPBackend.MATH):
        module.eval()(*inputs)
    return float(counter.get_total_flops())


def image() -> tuple[torch.Tensor, ...]:
    return (torch.zeros(1, 224, 224, 3, dtype=torch.uint8),)


def text() -> tuple[torch.Tensor, ...]:
    return torch.ones(1, LENGTH, dtype=torch.int64), torch.ones(1, LENGTH, dtype=torch.int64)


def shipped(name: str, sizes: Mapping[str, int]) -> graph_cost.Cost:
    artifact, _ = cached_export.exported(recipe.load_graph(ROOT / f"build/recipes/{name}.yaml"))
    return graph_cost.measure(graph_cost.load(artifact.graph), sizes)


@pytest.mark.parametrize(
    ("name", "inputs", "sizes"),
    [
        ("efficientnet_lite0", image, {"batch": 1}),
        ("all_minilm_l6_v2", text, {"batch": 1, "sequence": LENGTH}),
        ("resnet50", image, {}),
        ("bert_base", text, {"sequence": LENGTH}),
    ],
)
def test_operations_are_within_2_percent_of_pytorchs_counter(
    name: str, inputs: Callable[[], tuple[torch.Tensor, ...]], sizes: dict[str, int]
) -> None:
    import importlib

    module = importlib.import_module(f"tritonkit.zoo.{name}").load()
    cost = shipped(name, sizes) if "batch" in sizes else reference(name, sizes, 1)
    assert cost.operations == pytest.approx(counted(module, *inputs()), rel=0.02)


def test_a_reference_is_what_its_graph_costs_and_grows_with_the_batch() -> None:
    for batch in (1, 8):
        kept, measured = reference("efficientnet_lite0", {}, batch), shipped("efficientnet_lite0", {"batch": batch})
        assert kept.operations == pytest.approx(measured.operations)
        assert kept.floats == pytest.approx(measured.floats, rel=0.01)
        assert len(kept.layers) == len(measured.layers)
        assert (kept.input_bytes, kept.output_bytes) == (measured.input_bytes, measured.output_bytes)
    assert shipped("efficientnet_lite0", {"batch": 1}).weight_bytes == pytest.approx(4 * 4.65e6, rel=0.02)


def graph(*nodes: onnx.NodeProto, weights: dict[str, tuple[int, ...]], **dims: Any) -> onnx.ModelProto:
    values = [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name, shape in dims.items()]
    constants = [
        helper.make_tensor(name, TensorProto.FLOAT, shape, bytes(4 * torch.Size(shape).numel()), raw=True)
        for name, shape in weights.items()
    ]
    output = helper.make_tensor_value_info(nodes[-1].output[0], TensorProto.FLOAT, None)
    onnx_graph = helper.make_graph(list(nodes), "g", values, [output], constants)
    return helper.make_model(onnx_graph, opset_imports=[helper.make_opsetid("", 18), helper.make_opsetid("other", 1)])


def test_pointwise_work_joins_the_layer_before_it() -> None:
    model = graph(
        helper.make_node("MatMul", ["x", "w"], ["y"]), helper.make_node("Relu", ["y"], ["z"]),
        helper.make_node("Mul", ["z", "z"], ["out"]), weights={"w": (16, 32)}, x=("n", 16),
    )  # fmt: skip
    cost = graph_cost.measure(model, {"n": 4})
    (layer,) = cost.layers
    assert (layer.kind, layer.operations, layer.weights, layer.nodes) == ("matrix", 2 * 4 * 16 * 32, 16 * 32, 3)
    assert layer.floats == 4 * 16 + 4 * 32  # x in, out out; y and z never leave
    assert layer.pointwise == 2 * 4 * 32


def test_what_is_read_by_others_too_is_written_once_and_read_by_each() -> None:
    model = graph(
        helper.make_node("MatMul", ["x", "w"], ["a"]), helper.make_node("MatMul", ["a", "v"], ["b"]),
        helper.make_node("Add", ["a", "b"], ["out"]), weights={"w": (16, 16), "v": (16, 16)}, x=(4, 16),
    )  # fmt: skip
    first, second = graph_cost.measure(model, {}).layers
    assert first.floats == 2 * 64
    assert second.floats == 2 * 64  # a is read once by this kernel, and out written


def test_unknown_operators_are_listed_and_counted_as_elementwise() -> None:
    model = graph(
        helper.make_node("Mystery", ["x"], ["y"], domain="other"), helper.make_node("Relu", ["y"], ["out"]),
        weights={}, x=("n", 8),
    )  # fmt: skip
    cost = graph_cost.measure(model, {"n": 2})
    assert cost.unknown == {"other.Mystery": 1}
    assert cost.layers[0].kind == "elementwise"


@pytest.mark.parametrize(
    ("sizes", "message", "fix"),
    [
        ({}, "dimensions without a size: n (of x)", "--shape n=128"),
        ({"n": 0}, "the size of n is 0", "1 or more"),
        ({"n": 1, "m": 2}, "the graph has no dimension 'm'", "its own are n"),
    ],
)
def test_sizes_that_do_not_fit_the_graph_are_refused(sizes: dict[str, int], message: str, fix: str) -> None:
    model = graph(helper.make_node("Relu", ["x"], ["out"]), weights={}, x=("n", 8))
    with pytest.raises(GraphError) as refused:
        graph_cost.measure(model, sizes)
    assert message in refused.value.message
    assert fix in refused.value.fix
