"""The graphs themselves: what is quantized, how, and that they compute what fp32 computes."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from onnx.reference import ReferenceEvaluator

from tritonkit import samples, store
from tritonkit.graph import Session, read_signature
from tritonkit.precision import cpu, metrics, onnxgraph, qdq, refine, search, sensitivity, tensorrt, variants
from tritonkit.recipe import Precision, Target

from .conftest import Exported, graph_of, value


def build_variant(exported: Exported, target: Target, precision: Precision) -> store.Artifact:
    return variants.make(exported.recipe, exported.base, target, precision)[0]


def quality(exported: Exported, path: Path, *, optimize: bool) -> float:
    judged = variants.judged(exported.recipe)
    truth = search.evaluate(Session(exported.base.graph), exported.recipe, judged)
    return metrics.sqnr(truth, search.evaluate(Session(path, optimize=optimize), exported.recipe, judged))


@pytest.mark.parametrize(
    ("target", "precision", "least_db"),
    [
        ("cpu", "int8", 20),
        ("tensorrt", "int8", 20),
        ("tensorrt", "fp8", 15),
        ("tensorrt", "fp16", 45),
        ("cpu", "fp32", 90),
    ],
)
@pytest.mark.parametrize("name", ["pictures", "tokens"])
def test_a_variant_has_the_recipes_types_and_computes_nearly_the_same(
    name: str, target: Target, precision: Precision, least_db: float, request: pytest.FixtureRequest
) -> None:
    exported: Exported = request.getfixturevalue(name)
    artifact = build_variant(exported, target, precision)
    before, after = read_signature(exported.base.graph), read_signature(artifact.graph)
    assert {**before.inputs, **before.outputs} == {**after.inputs, **after.outputs}
    assert quality(exported, artifact.graph, optimize=target != "tensorrt") > least_db
    if precision in {"int8", "fp8"}:
        assert artifact.graph.stat().st_size < exported.base.graph.stat().st_size


def nodes_by_type(path: Path) -> Counter[str]:
    return Counter(node.op_type for node in onnx.load(path).graph.node)


def test_int8_for_tensorrt_is_symmetric_per_channel_with_a_quantized_skip(pictures: Exported) -> None:
    graph = onnxgraph.load(build_variant(pictures, "tensorrt", "int8").graph)
    zeros = [graph.constants[node.input[2]] for node in graph.nodes if node.op_type.endswith("eLinear")]
    assert all(zero.dtype == np.int8 and not zero.any() for zero in zeros)
    assert all(
        graph.constants[node.input[1]].dtype == np.float16 for node in graph.nodes if node.op_type.endswith("eLinear")
    )
    convs = [node for node in graph.nodes if node.op_type == "Conv"]
    quantized = [node for node in convs if graph.producer[node.input[0]].op_type == "DequantizeLinear"]
    assert len(convs) == 4
    assert len(quantized) == 3, "the stem has three channels, too few for tensor cores"
    for conv in quantized:
        weight = graph.producer[conv.input[1]]
        assert weight.op_type == "DequantizeLinear"
        assert graph.constants[weight.input[1]].shape == (graph.constants[weight.input[0]].shape[0],)
        assert conv.input[2] in graph.constants, "biases stay float"
    (residual,) = [node for node in graph.nodes if node.op_type == "Add" and not set(node.input) & set(graph.constants)]
    makers = sorted(graph.producer[name].op_type for name in residual.input)
    assert makers == ["Conv", "DequantizeLinear"], "the skip is quantized, the convolution's side is not: both fuse"


def test_int8_for_the_cpu_becomes_onnxruntimes_8_bit_kernels_throughout(pictures: Exported, tmp_path: Path) -> None:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    options.optimized_model_filepath = str(tmp_path / "optimized.onnx")
    path = build_variant(pictures, "cpu", "int8").graph
    onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    types = nodes_by_type(tmp_path / "optimized.onnx")
    assert types["QLinearConv"] == 4
    assert types["QGemm"] == 1
    assert not types["Conv"] + types["FusedConv"] + types["Gemm"] + types["Clip"]


def test_a_row_in_8_bits_does_not_depend_on_its_batch_mates(tokens: Exported) -> None:
    """Dynamic quantization, with one scale for all that happens to be in a batch, would fail this."""
    session = Session(build_variant(tokens, "cpu", "int8").graph, threads=1)
    ids = np.random.default_rng(1).integers(0, 100, (6, 8))
    together = session.run({"ids": ids})["vector"]
    alone = np.concatenate([session.run({"ids": row[None]})["vector"] for row in ids])
    np.testing.assert_allclose(together, alone, atol=1e-5)


def test_fp8_stores_e4m3_weights_and_equals_the_reference_evaluator(tokens: Exported) -> None:
    artifact = build_variant(tokens, "tensorrt", "fp8")
    model = onnx.load(artifact.graph)
    stored = [tensor for tensor in model.graph.initializer if tensor.data_type == TensorProto.FLOAT8E4M3FN]
    assert len([tensor for tensor in stored if len(tensor.dims) == 2]) == 2
    inputs = samples.batch(samples.load(tokens.recipe, 1), 1)
    evaluated: Any = ReferenceEvaluator(model).run(None, inputs)
    expected = evaluated[0]
    got = Session(artifact.graph, optimize=False).run(inputs)["vector"]
    np.testing.assert_allclose(got, expected, atol=2e-2)


def test_smoothing_changes_nothing_in_fp32_and_tames_an_outlier_in_8_bits(tokens: Exported) -> None:
    parts = variants.split(tokens.recipe)
    graph = onnxgraph.load(tokens.base.graph)
    searching = search.Search(
        tokens.recipe, graph, qdq.TENSORRT_INT8, {"test": "smoothing"}, parts.calibration, parts.selection
    )
    smoothed = graph.copy()
    refine.smooth(smoothed, searching.all, searching.all, searching.observe(None), 0.8)
    got = search.evaluate(Session(smoothed.model), tokens.recipe, parts.selection)
    assert metrics.sqnr(searching.reference, got) > 90
    plain = searching.score(searching.all, search.Choice("minmax"))
    assert searching.score(searching.all, search.Choice("minmax", alpha=0.8)) > plain + 3


def test_bias_correction_removes_the_mean_error_of_rounded_weights(pictures: Exported) -> None:
    parts = variants.split(pictures.recipe)
    graph = onnxgraph.load(pictures.base.graph)
    searching = search.Search(
        pictures.recipe, graph, qdq.CPU_INT8, {"test": "bias"}, parts.calibration, parts.selection
    )

    def bias_error(corrected: bool) -> float:
        outputs = searching.outputs(searching.make(searching.all, search.Choice("minmax", corrected=corrected)))
        differences = [got["logits"] - true["logits"] for got, true in zip(outputs, searching.reference, strict=True)]
        return float(np.abs(np.mean(differences, axis=0)).mean())

    assert bias_error(True) < bias_error(False)


def test_the_search_keeps_what_measured_best_and_says_what_it_tried(tokens: Exported) -> None:
    about = build_variant(tokens, "tensorrt", "int8").about
    best = max(about["tried"], key=lambda attempt: attempt["sqnr_db"])
    assert {key: best[key] for key in ("method", "alpha", "corrected")} == about["choice"]
    assert {attempt["method"] for attempt in about["tried"]} == {"minmax", "percentile", "entropy"}
    assert any(attempt["alpha"] for attempt in about["tried"])
    assert about["work_share"] == 1


def test_a_method_that_the_recipe_names_is_the_only_one_tried(tokens: Exported) -> None:
    named = tokens.recipe.calibration.model_copy(update={"method": "entropy"})
    exported = Exported(tokens.recipe.model_copy(update={"calibration": named}), tokens.base)
    assert {attempt["method"] for attempt in build_variant(exported, "tensorrt", "int8").about["tried"]} == {"entropy"}


def test_nodes_that_lose_most_stay_out_of_8_bits_until_the_bounds_hold(pictures: Exported) -> None:
    parts = variants.split(pictures.recipe)

    def search_within(bound: float) -> search.SearchResult:
        strict = pictures.recipe.model_copy(update={"accuracy": {"sqnr_db": bound}})
        graph = onnxgraph.load(pictures.base.graph)
        searching = search.Search(strict, graph, qdq.CPU_INT8, {"test": "bounds"}, parts.calibration, parts.selection)
        return sensitivity.within_bounds(searching)

    every = search_within(0.0)
    assert not every.kept
    limit = max(attempt["sqnr_db"] for attempt in every.tried)
    some = search_within(limit + 1)
    assert some.kept
    assert some.quantized


def test_the_curve_falls_as_more_of_the_work_is_in_8_bits(pictures: Exported) -> None:
    searching = variants.searching(pictures.recipe, pictures.base, "cpu", "int8", lambda _: None)
    choice = searching.best().choice
    ranked = sensitivity.rank(searching, choice)
    points = sensitivity.curve(searching, choice, ranked)
    assert {node.name for node in ranked} == searching.all
    assert sum(node.share for node in ranked) == pytest.approx(1)
    assert points[-1].share == pytest.approx(1)
    assert points[0].accuracy["sqnr_db"] > points[-1].accuracy["sqnr_db"]


def test_the_cpu_gets_additions_that_are_not_fused_into_a_slower_kernel(tokens: Exported) -> None:
    path = build_variant(tokens, "cpu", "fp32").graph
    assert nodes_by_type(path)["Sum"] == 1
    assert nodes_by_type(tokens.base.graph)["Sum"] == 0
    assert quality(tokens, path, optimize=True) > 100


def test_a_graph_that_its_target_wants_unchanged_is_the_export_itself(pictures: Exported) -> None:
    assert build_variant(pictures, "cpu", "fp32").graph.samefile(pictures.base.graph)
    assert build_variant(pictures, "cuda", "fp32") is pictures.base


def test_bytes_are_cast_before_they_are_moved_for_tensorrt(pictures: Exported) -> None:
    graph = onnxgraph.load(pictures.base.graph)
    assert [reader.op_type for reader in graph.consumers["image"]] != ["Cast"]
    assert tensorrt.prepare(graph)
    assert [reader.op_type for reader in graph.consumers["image"]] == ["Cast"]
    inputs = samples.batch(samples.load(pictures.recipe, 2), 2)
    np.testing.assert_array_equal(
        Session(graph.model).run(inputs)["logits"], Session(pictures.base.graph).run(inputs)["logits"]
    )
    assert not cpu.prepare(graph)


def test_a_graph_without_products_or_convolutions_has_nothing_for_8_bits() -> None:
    graph = graph_of([helper.make_node("Relu", ["x"], ["y"])])
    with pytest.raises(Exception, match="no convolution or matrix product"):
        search.eligible(graph, qdq.CPU_INT8)


def test_a_dead_channel_keeps_its_bias() -> None:
    """Its weight's scale would be next to nothing, and the bias beyond 32 bits at that scale."""
    weight = np.zeros((2, 1, 1, 1), np.float32)
    weight[1] = 1
    graph = onnxgraph.OnnxGraph(
        helper.make_model(
            helper.make_graph(
                [helper.make_node("Conv", ["x", "w", "b"], ["y"], "conv")], "g",
                [value("x", "batch", 1, 4, 4)], [value("y", "batch", 2, 4, 4)],
                [numpy_helper.from_array(weight, "w"), numpy_helper.from_array(np.array([5, 1], np.float32), "b")],
            ), opset_imports=[helper.make_opsetid("", 20)], ir_version=10,
        )
    )  # fmt: skip
    qdq.insert(graph, {"conv"}, {"x": (0.0, 1.0), "y": (0.0, 6.0)}, qdq.CPU_INT8)
    outputs = Session(graph.model).run({"x": np.zeros((1, 1, 4, 4), np.float32)})
    np.testing.assert_allclose(outputs["y"][0, :, 0, 0], [5, 1], atol=0.03)


def test_a_tensor_that_only_a_branch_reads_survives_rewriting() -> None:
    """onnxruntime runs what is left: the weight inside the branch, and the bounded tensor that the quantizer has."""

    def branch(name: str, weight: str) -> onnx.GraphProto:
        node = helper.make_node("Mul", ["bounded", weight], [f"{name}_out"])
        return helper.make_graph([node], name, [], [value(f"{name}_out", "batch", 8)])

    weights = {"w": np.eye(8, dtype=np.float32), "two": np.float32(2), "three": np.float32(3), "yes": np.array(True)}
    graph = graph_of(
        [
            helper.make_node("Relu", ["x"], ["bounded"], "bound"),
            helper.make_node("MatMul", ["bounded", "w"], ["product"], "product"),
            helper.make_node(
                "If", ["yes"], ["z"], "if", then_branch=branch("a", "two"), else_branch=branch("b", "three")
            ),
            helper.make_node("Add", ["product", "z"], ["y"], "sum"),
        ],
        **weights,
    )
    assert "two" in onnxgraph.reads(graph.nodes[2])
    qdq.insert(graph, {"product"}, {"bounded": (0.0, 1.0)}, qdq.CPU_INT8)
    got = Session(graph.model).run({"x": np.full((1, 8), 0.5, np.float32)})["y"]
    np.testing.assert_allclose(got, 1.5, atol=0.02)
