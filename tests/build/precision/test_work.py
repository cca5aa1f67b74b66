"""What of a model's work is in 8 bits and what is not, in numbers and in words."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import helper

from tritonkit.precision import onnxgraph, work

from .conftest import graph_of
from .test_gate import build, run
from .test_hard_graphs import W, node, recipe_of

RANDOM = np.random.default_rng(0)
STATE = 16
LSTM_WORK = 2 * 4 * STATE * (8 + STATE)  # one step; four gates that read the input and the state
LAST_WORK = 2 * STATE * 8


def recurrent() -> onnx.ModelProto:
    """One step of an LSTM, and a layer behind it."""
    nodes = [
        node("Unsqueeze", ["x", "first"], ["steps"]), node("LSTM", ["steps", "wi", "wh"], ["all"], hidden_size=STATE),
        node("Squeeze", ["all", "both"], ["state"]), node("MatMul", ["state", "last"], ["y"], "out"),
    ]  # fmt: skip
    return graph_of(
        nodes, first=np.array([0]), both=np.array([0, 1]), last=np.vstack([W, W]),
        wi=RANDOM.standard_normal((1, 4 * STATE, 8)).astype(np.float32),
        wh=RANDOM.standard_normal((1, 4 * STATE, STATE)).astype(np.float32),
    ).model  # fmt: skip


def test_work_is_counted_from_the_shapes_that_a_run_has() -> None:
    nodes = [
        node("Reshape", ["x", "image"], ["i"]), node("Conv", ["i", "k"], ["c"], "conv"),
        node("ConvTranspose", ["c", "t"], ["d"], "up", strides=[2, 2]),
        node("Reshape", ["d", "row"], ["r"]), node("MatMul", ["r", "m"], ["y"], "product"),
        node("Einsum", ["x", "x"], ["e"], "outer", equation="bi,bj->bij"),
    ]  # fmt: skip
    graph = graph_of(
        nodes, image=np.array([-1, 2, 2, 2]), k=np.ones((4, 2, 1, 1), np.float32), t=np.ones((4, 3, 2, 2), np.float32),
        row=np.array([-1, 48]), m=np.ones((48, 5), np.float32),
    )  # fmt: skip
    counted = work.measure(graph, {"x": np.zeros(8, np.float32)}, batched=True)
    assert counted.operations == {
        "conv": 2 * 2 * (4 * 2 * 2), "up": 2 * (4 * 2 * 2) * (3 * 2 * 2), "product": 2 * 48 * 5, "outer": 2 * 8 * 8,
    }  # fmt: skip
    assert list(counted.missing({"conv", "product"})) == ["transposed convolutions", "products of activations"]
    assert counted.uncounted == ()


def test_a_recurrent_layers_work_is_its_weights_at_each_step() -> None:
    counted = work.measure(onnxgraph.OnnxGraph(recurrent()), {"x": np.zeros(8, np.float32)}, batched=True)
    assert sorted(counted.operations.values()) == [LAST_WORK, LSTM_WORK]
    share = LSTM_WORK / (LSTM_WORK + LAST_WORK)
    assert counted.missing({"out"}) == {"LSTM": round(share, 4)}
    assert work.describe(counted.missing({"out"})) == f"LSTM {100 * share:.0f} %"


@pytest.mark.parametrize(("target", "why"), [("cpu", "one scale for a whole batch"), ("tensorrt", "runs in fp16")])
def test_gate_and_sensitivity_say_what_is_not_in_8_bits(
    target: str, why: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = recipe_of(tmp_path, recurrent(), calibration={"method": "minmax"})
    words = f"LSTM {100 * LSTM_WORK / (LSTM_WORK + LAST_WORK):.0f} %"
    code, out, err = run(capsys, "sensitivity", path, "--target", target)
    assert code == 0, err
    assert f"Never in 8 bits, of all the work: {words}." in out
    assert why in out
    code, out, err = run(capsys, "sensitivity", path, "--target", target, "--json")
    assert json.loads(out)["not_quantized"].keys() == {"LSTM"}, err
    arguments = ("--target", target, "--precision", "int8", "--repository", tmp_path / target)
    code, out, err = run(capsys, "build", path, *arguments)
    assert code == 0, err
    (line,) = [line for line in out.splitlines() if line.startswith("not in 8 bits, of the work")]
    assert words in line
    built, _ = build(capsys, path, tmp_path / target, "--target", target, "--precision", "int8")
    notes = {row["precision"]: row["notes"] for row in built["models"]["hard"]["gate"]}
    assert notes["int8"]["not_quantized"].keys() == {"LSTM"}


def test_a_model_of_recurrent_layers_alone_is_told_why_it_has_no_int8(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model = recurrent()
    model.graph.node[-1].CopyFrom(helper.make_node("Slice", ["state", "from", "to", "axis"], ["y"]))
    for name, number in (("from", 0), ("to", 8), ("axis", 1)):
        model.graph.initializer.append(onnx.numpy_helper.from_array(np.array([number]), name))
    code, _, err = run(capsys, "sensitivity", recipe_of(tmp_path, model), "--target", "cpu")
    assert code == 1
    assert "LSTM alone in 8 bits, with one scale for a whole batch" in err
