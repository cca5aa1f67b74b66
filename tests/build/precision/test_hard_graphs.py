"""Graphs and recipes as users bring them: each once broke a variant, the gate or the store."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import yaml
from onnx import TensorProto, helper, numpy_helper

from tritonkit import store
from tritonkit.engines import node as node_facts
from tritonkit.precision import variants

from .conftest import graph_of, value
from .test_gate import build, recipe_with, run

EYE = np.eye(8, dtype=np.float32)
W = np.random.default_rng(0).standard_normal((8, 8)).astype(np.float32)
node = helper.make_node


def matmul() -> onnx.ModelProto:
    return graph_of([node("MatMul", ["x", "w"], ["y"])], w=W).model


def initializer_as_input() -> onnx.ModelProto:
    model = matmul()
    model.graph.input.append(helper.make_tensor_value_info("w", TensorProto.FLOAT, [8, 8]))
    return model


def opset(version: int) -> Callable[[], onnx.ModelProto]:
    def build_model() -> onnx.ModelProto:
        model = graph_of([node("MatMul", ["x", "w"], ["a"]), node("Relu", ["a"], ["y"])], w=W).model
        model.opset_import[0].version, model.ir_version = version, 6
        return model

    return build_model


def constant_nodes() -> onnx.ModelProto:
    nodes = [
        node("Constant", [], ["half"], value_float=0.5), node("Constant", [], ["many"], value_floats=[1.0] * 8),
        node("MatMul", ["x", "w"], ["a"]), node("Mul", ["a", "half"], ["b"]), node("Add", ["b", "many"], ["y"]),
    ]  # fmt: skip
    return graph_of(nodes, w=W).model


def constant_times_constant() -> onnx.ModelProto:
    nodes = [node("MatMul", ["table", "w"], ["p"]), node("MatMul", ["x", "w"], ["a"]), node("Add", ["a", "p"], ["y"])]
    return graph_of(nodes, w=W, table=np.ones((1, 8), np.float32)).model


def bias_row() -> onnx.ModelProto:
    return graph_of([node("Gemm", ["x", "w", "b"], ["y"])], w=W, b=np.ones((1, 8), np.float32)).model


def stacked_weights() -> onnx.ModelProto:
    nodes = [node("MatMul", ["x", "w"], ["z"]), node("Unsqueeze", ["z", "axis"], ["u"]), node("MatMul", ["u", "s"], ["v"]),
             node("ReduceSum", ["v", "axis"], ["y"], keepdims=0)]  # fmt: skip
    return graph_of(nodes, w=W, s=np.stack([W]), axis=np.array([1])).model


def slashes() -> onnx.ModelProto:
    return graph_of([node("MatMul", ["x", "w"], ["inner/y"]), node("Relu", ["inner/y"], ["y"])], w=W).model


def note_of_a_constant() -> onnx.ModelProto:
    """What PyTorch's exporter makes of `torch.clamp(x, min=1)`: the constant's type is noted beside it."""
    model = graph_of(
        [node("MatMul", ["x", "w"], ["a"]), node("Max", ["a", "low"], ["y"])], w=W, low=np.float32(-100)
    ).model
    model.graph.value_info.append(helper.make_tensor_value_info("low", TensorProto.FLOAT, []))
    return model


def branch() -> onnx.ModelProto:
    """Bodies that read an activation, a weight that others read too, and one of their own, from around them."""
    bodies = [
        helper.make_graph([node("MatMul", ["a", weight], [out])], out, [], [value(out, "batch", 8)])
        for weight, out in (("w", "yes"), ("v", "no"))
    ]
    nodes = [
        node("MatMul", ["x", "w"], ["a"], "first"), node("Shape", ["x"], ["shape"]),
        node("Gather", ["shape", "last"], ["width"]), node("Less", ["width", "many"], ["narrow"]),
        node("If", ["narrow"], ["b"], "either", then_branch=bodies[0], else_branch=bodies[1]),
        node("Add", ["b", "a"], ["y"]),
    ]  # fmt: skip
    return graph_of(nodes, w=W, v=-W, last=np.array(1), many=np.array(9)).model


def kernel_without_fp16() -> onnx.ModelProto:
    nodes = [node("MatMul", ["x", "w"], ["a"]), node("Shape", ["a"], ["s"]), node("Expand", ["zero", "s"], ["at"]),
             node("ScatterElements", ["a", "at", "a"], ["y"], axis=1, reduction="add")]  # fmt: skip
    return graph_of(nodes, w=W, zero=np.array([0])).model


GRAPHS = {
    "a constant's note": note_of_a_constant, "branch": branch,
    "a kernel without fp16": kernel_without_fp16,
    "opset 11": opset(11), "opset 13": opset(13), "opset 17": opset(17), "constant nodes": constant_nodes,
    "initializer as input": initializer_as_input, "constant times constant": constant_times_constant,
    "bias of one row": bias_row, "stacked weights": stacked_weights, "names with slashes": slashes,
}  # fmt: skip


def recipe_of(folder: Path, model: onnx.ModelProto, **changes: Any) -> Path:
    onnx.save(model, folder / "hard.onnx")
    (folder / "hard.py").write_text(
        "import numpy as np\ndef samples():\n    random = np.random.default_rng(0)\n"
        "    for _ in range(60):\n        yield {'x': random.standard_normal(8).astype(np.float32)}\n",
        encoding="utf-8",
    )
    data = {
        "name": "hard", "source": {"onnx": "hard.onnx"}, "inputs": {"x": {"dtype": "fp32", "dims": [8]}},
        "outputs": {"y": {"dtype": "fp32", "dims": [8]}}, "samples": "hard.py:samples", "gpus": ["l4"], **changes,
    }  # fmt: skip
    path = folder / "hard.yaml"
    path.write_text(yaml.safe_dump(data), encoding="utf-8")
    return path


@pytest.mark.parametrize("target", ["cpu", "tensorrt"])
@pytest.mark.parametrize("name", GRAPHS)
def test_every_variant_of_it_is_built_and_accurate(
    name: str, target: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = recipe_of(tmp_path, GRAPHS[name]())
    built, _ = build(capsys, path, tmp_path / "repository", "--target", target, "--all-variants")
    rows = {row["precision"]: row for row in built["models"]["hard"]["gate"]}
    absent = {precision for precision, row in rows.items() if row["verdict"] == "not built"}
    assert absent == ({"bf16", "fp8"} if target == "cpu" else {"bf16"}), rows
    for precision, row in rows.items():
        if row["accuracy"]:
            # Without these instructions onnxruntime adds uint8 times int8 up in 16 bits, which saturate (precision.md).
            exact = target != "cpu" or node_facts.cpu_features() & set(variants.CPU_FEATURES)
            coarse = precision == "fp8" or (precision == "int8" and not exact)
            assert row["accuracy"]["cosine"] > (0.97 if coarse else 0.98), precision


def test_a_variant_that_cannot_be_made_is_not_built_and_the_others_are(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = recipe_of(tmp_path, graph_of([node("Sigmoid", ["x"], ["y"])]).model, samples=None)
    path.write_text(path.read_text(encoding="utf-8").replace("samples: null\n", ""), encoding="utf-8")
    built, _ = build(capsys, path, tmp_path / "repository", "--all-variants")
    whys = {row["precision"]: row["why"] for row in built["models"]["hard"]["gate"] if row["verdict"] == "not built"}
    assert "names no `samples`" in whys["int8"]
    code, _, err = run(capsys, "build", path, "--repository", tmp_path / "repository", "--precision", "int8")
    assert code == 2
    assert "names no `samples`" in err


def test_fp8_is_refused_where_no_gpu_of_the_recipe_has_it(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = recipe_of(tmp_path, matmul(), gpus=["t4", "a10g"])
    code, _, err = run(
        capsys, "build", path, "--repository", tmp_path / "r", "--target", "tensorrt", "--precision", "fp8"
    )
    assert code == 2
    assert "fp8 needs compute capability 8.9 or newer; t4 has 7.5, a10g has 8.6" in err


def test_a_damaged_store_is_made_again_and_never_served(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path, repository = recipe_of(tmp_path, matmul(), precisions=["fp32", "int8"]), tmp_path / "repository"
    build(capsys, path, repository)
    good = (repository / "hard/1/model.onnx").read_bytes()
    for graph in (store.home() / "derived").glob("*/model.onnx"):
        graph.unlink()
    for graph in (store.home() / "artifacts").glob("*/*/model.onnx"):
        graph.unlink()
    for observed in (store.home() / "derived").glob("*/observed.npz"):
        observed.write_bytes(b"cut short")
    build(capsys, path, tmp_path / "other")
    assert (tmp_path / "other/hard/1/model.onnx").read_bytes() == good


def metric(folder: Path, body: str) -> None:
    (folder / "metric.py").write_text(
        f"import numpy as np\ndef metric(reference, got):\n    {body}\n", encoding="utf-8"
    )


def test_an_edited_metric_runs_again_and_one_in_place_changes_nothing_else(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = recipe_of(tmp_path, matmul(), precisions=["fp32", "fp16"], accuracy={"metric.py:metric": 0.5, "cosine": 0.9})
    metric(tmp_path, "[outputs['y'].fill(0) for outputs in reference]; return 1.0")
    first, _ = build(capsys, path, tmp_path / "repository")
    row = first["models"]["hard"]["gate"][1]
    assert row["accuracy"]["cosine"] > 0.99
    metric(tmp_path, "return float('nan')")
    second, _ = build(capsys, path, tmp_path / "repository")
    row = second["models"]["hard"]["gate"][1]
    assert row["verdict"] == "refused"
    assert row["accuracy"]["metric.py:metric"] is None
    text = (tmp_path / "repository/hard/passport.json").read_text(encoding="utf-8")
    json.loads(text, parse_constant=pytest.fail)


@pytest.mark.parametrize("name", ["top1_agreement", "confident_top1_agreement", "top5_containment"])
def test_a_metric_of_classes_needs_classes(name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    model = graph_of([node("MatMul", ["x", "w"], ["y"])], w=W[:, :1]).model
    outputs = {"y": {"dtype": "fp32", "dims": [1]}}
    path = recipe_of(tmp_path, model, precisions=["fp32", "fp16"], accuracy={name: 0.5}, outputs=outputs)
    code, _, err = run(capsys, "build", path, "--repository", tmp_path / "repository")
    assert code == 2
    assert f"{name} is for classes" in err


def test_a_samples_function_that_exits_is_an_error_of_the_recipe(
    models_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (models_folder / "leaving.py").write_text("import sys\ndef samples():\n    sys.exit(7)\n", encoding="utf-8")
    path = recipe_with(models_folder, "leaving", samples="leaving.py:samples")
    code, _, err = run(capsys, "build", path, "--repository", tmp_path / "repository")
    assert code == 2
    assert "SystemExit" in err


def test_numpy_helper_is_what_constants_are_stored_with() -> None:
    """A number must stay one: a scalar that becomes a row of one changes the rank of what it is added to."""
    graph = graph_of([node("Add", ["x", "s"], ["y"])], s=np.float32(1))
    graph.set_constant("s", np.float32(2))  # type: ignore[arg-type]
    (stored,) = graph.model.graph.initializer
    assert numpy_helper.to_array(stored).shape == ()


def test_all_prints_tables_of_what_is_new_or_changed_and_names_the_rest(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    recipes = tmp_path / "build/recipes"
    recipes.mkdir(parents=True)
    path = recipe_of(recipes, matmul(), precisions=["fp32", "fp16"])
    monkeypatch.chdir(tmp_path)
    for arguments, shown in ((["--all"], True), (["--all"], False), ([path], True)):
        code, out, err = run(capsys, "build", *arguments)
        assert code == 0, err
        assert ("largest error of the export" in out, "hard: accuracy on" in out) == (shown, shown)
        assert ("unchanged: hard" in out) is not shown
    _, out, _ = run(capsys, "build", "--all", "--json")
    assert json.loads(out)["written"] == []
