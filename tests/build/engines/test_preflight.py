"""Preflight with the real TensorRT-RTX: what is green, what is refused and why, and what is only half known."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from onnx import TensorProto, helper
from support import Project

from tritonkit.engines import builder, profiles
from tritonkit.engines.build_progress import Watch
from tritonkit.engines.messages import Refused

Preflight = Callable[..., tuple[int, dict[str, Any]]]
FOUR = "t4,a10g,l4,a100"


def statuses(report: dict[str, Any]) -> dict[str, str]:
    return {verdict["gpu"]: verdict["status"] for verdict in report["verdicts"]}


def reasons(report: dict[str, Any], gpu: str) -> str:
    return " ".join(
        f"{reason['node']} {reason['op']} {reason['text']} {reason['hint']}"
        for verdict in report["verdicts"]
        for reason in verdict["reasons"]
        if verdict["gpu"] == gpu
    )


def test_fp16_is_green_on_all_four_and_h100_says_what_was_proved(graphs: Any, preflight: Preflight) -> None:
    code, report = preflight(graphs.mlp("fp16"), f"{FOUR},h100")
    assert code == 0
    assert statuses(report) == dict.fromkeys(FOUR.split(","), "ok") | {"h100": "unchecked"}
    for verdict in report["verdicts"]:
        assert verdict["precision"] == "fp16"  # read off the graph
        assert (verdict["layers"]["fp16"], verdict["layers"]["fp32"]) == (2, 0)
        if verdict["status"] == "ok":
            assert verdict["plan_bytes"] > 1000
            assert verdict["seconds"] > 0
    text = reasons(report, "h100")
    assert "does not build for compute capability 9.0" in text
    assert all(part in text for part in ("parses", "2 fp16 layers compute as claimed", "profiles hold"))


def test_int8_with_fp16_around_it_is_green_on_all_four(graphs: Any, preflight: Preflight) -> None:
    code, report = preflight(graphs.quantized(), FOUR, "--precision", "int8")
    assert (code, set(statuses(report).values())) == (0, {"ok"})
    assert report["verdicts"][0]["layers"] == {"fp32": 0, "fp16": 0, "int8": 1, "fp8": 0, "other": 11}


def test_fp32_on_a_t4_is_the_preflights_limit_and_fails_nothing(graphs: Any, preflight: Preflight) -> None:
    code, report = preflight(graphs.mlp("fp32"), FOUR, "--precision", "fp32")
    assert code == 0
    assert statuses(report) == {"t4": "limit", "a10g": "ok", "l4": "ok", "a100": "ok"}
    assert "full TensorRT has" in reasons(report, "t4")


@pytest.mark.parametrize(("arguments", "code"), [(["--precision", "fp8"], 1), ([], 0)])
def test_fp8_is_refused_before_building_and_fails_only_if_named(
    graphs: Any, project: Project, arguments: list[str], code: int
) -> None:
    command = ("engine", graphs.fp8(), "--preflight", "--gpu", FOUR, "--max-batch-size", "8", *arguments)
    exit_code, stdout, progress = project.run(*command)
    assert exit_code == code
    assert "fp8 on t4, a10g, a100: fp8 needs compute capability 8.9 or newer" in stdout
    assert "[1/1] preflight: fp8 fp8 for sm89" in progress


def test_the_builder_agrees_about_fp8(graphs: Any) -> None:
    toolkit = builder.load("tensorrt_rtx")
    network = builder.Network(toolkit, graphs.fp8())
    shapes = [{"x": profiles.Shapes((1, 32), (8, 32), (8, 32))}]
    for capability in ((7, 5), (8, 0), (8, 6)):
        with pytest.raises(Refused, match="fp8"):
            network.build(shapes, builder.Options(), capability, Watch())
    assert network.build(shapes, builder.Options(), (8, 9), Watch()).data


@pytest.mark.parametrize(("kind", "zero"), [(np.int8, 3), (np.uint8, 128), (np.uint8, 0)])
def test_asymmetric_or_unsigned_quantization_is_refused_with_its_node(
    graphs: Any, preflight: Preflight, kind: Any, zero: int
) -> None:
    """uint8 with zero point 0 is the trap: TensorRT takes it, reads it as int8, and saturates above 127."""
    code, report = preflight(graphs.quantized(kind=kind, zero=zero), "l4,h100")
    assert (code, statuses(report)) == (1, {"l4": "refused", "h100": "refused"})
    assert "quantize QuantizeLinear its quantization is asymmetric or unsigned" in reasons(report, "l4")


def test_every_operator_unknown_to_tensorrt_is_named_with_its_opset(graphs: Any, project: Project) -> None:
    code, stdout, _ = project.run(
        "engine", graphs.unknown_operators(), "--preflight", "--gpu", "l4", "--max-batch-size", "8"
    )
    assert code == 1
    assert "my_swirl (Swirl, opset 3): TensorRT has no such operator, and no plugin is loaded for it" in stdout
    assert "my_determinant (Det, opset 20): TensorRT's ONNX parser does not know this operator" in stdout
    assert "--plugin LIBRARY.so" in stdout


def test_a_graph_that_moves_uint8_before_casting_is_told_to_cast_first(graphs: Any, preflight: Preflight) -> None:
    nodes = [
        helper.make_node("Transpose", ["x"], ["t"], name="permute", perm=[0, 2, 1]),
        helper.make_node("Cast", ["t"], ["y"], name="cast", to=TensorProto.FLOAT),
    ]
    inputs = [helper.make_tensor_value_info("x", TensorProto.UINT8, ["batch", 4, 8])]
    outputs = [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["batch", 8, 4])]
    _, report = preflight(graphs.save("bytes", nodes, inputs, outputs), "l4")
    assert "permute Transpose TensorRT takes uint8 numbers from an input into a Cast" in reasons(report, "l4")


def test_mixed_types_are_refused_with_both_of_them(graphs: Any, preflight: Preflight) -> None:
    nodes = [
        helper.make_node("Cast", ["x"], ["h"], to=TensorProto.FLOAT16),
        helper.make_node("Identity", ["h"], ["i"]),
        helper.make_node("Add", ["x", "i"], ["y"], name="mixed"),
    ]
    values = [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["batch", 4]) for name in "xy"]
    _, report = preflight(graphs.save("mixed", nodes, values[:1], values[1:]), "l4")
    assert "mixed Add its inputs are Float and Half" in reasons(report, "l4")


def test_gpus_of_one_compute_capability_share_a_build(graphs: Any, project: Project) -> None:
    code, stdout, progress = project.run(
        "engine", graphs.mlp("fp16"), "--preflight", "--gpu", "a10,a10g,a40", "--max-batch-size", "2"
    )
    assert code == 0
    assert stdout.count(" ok ") == 3
    assert "[1/1] preflight" in progress


def test_table_fits_100_columns(graphs: Any, project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "100")
    code, stdout, _ = project.run(
        "engine", graphs.mlp("fp32"), "--preflight", "--gpu", f"{FOUR},h100,rtx-pro-6000", "--max-batch-size", "64"
    )
    assert code == 0
    rows = stdout.splitlines()[:7]
    assert rows[0].split()[:4] == ["precision", "gpu", "sm", "verdict"]
    assert [row.split()[1] for row in rows[1:]] == [*FOUR.split(","), "h100", "rtx-pro-6000"]
    assert max(len(row) for row in rows) <= 100


def test_json_stands_alone_although_the_compiler_prints_past_its_logger(graphs: Any, tmp_path: Path) -> None:
    """A Clip to a number that fp16 does not have makes TensorRT-RTX warn on standard output."""
    nodes = [
        helper.make_node("Cast", ["x"], ["h"], to=TensorProto.FLOAT16),
        helper.make_node("MatMul", ["h", "w"], ["a"]),
        helper.make_node("Clip", ["a", "low"], ["b"], name="clamp"),
        helper.make_node("Cast", ["b"], ["y"], to=TensorProto.FLOAT),
    ]
    values = [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["batch", 4]) for name in "xy"]
    weights = {"w": np.eye(4, dtype=np.float16), "low": np.asarray(1e-7, np.float16)}
    path = graphs.save("clamp", nodes, values[:1], values[1:], weights)
    done = subprocess.run(
        [Path(sys.executable).with_name("tritonkit"), "engine", path, "--preflight", "--gpu", "l4", "--json",
         "--max-batch-size", "2"],
        capture_output=True, text=True, timeout=60, env={**os.environ, "TRITONKIT_HOME": str(tmp_path / "home")},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["verdicts"][0]["status"] == "ok"


def test_plans_are_written_with_passports_that_say_what_built_them(
    graphs: Any, project: Project, tmp_path: Path
) -> None:
    output = tmp_path / "plans"
    code, _, _ = project.run(
        "engine", graphs.mlp("fp16"), "--preflight", "--gpu", "l4,a100", "--max-batch-size", "8", "--output", output
    )
    assert code == 0
    assert sorted(path.name for path in output.iterdir()) == [
        "model_sm80.plan", "model_sm80.plan.json", "model_sm89.plan", "model_sm89.plan.json",
    ]  # fmt: skip
    passport = json.loads((output / "model_sm89.plan.json").read_text(encoding="utf-8"))
    assert (passport["builder"], passport["compute_capability"], passport["gpu"]) == ("tensorrt_rtx", "8.9", None)
    assert passport["profiles"] == [
        {"x": {"min": [1, 32], "opt": [8, 32], "max": [8, 32]}},
        {"x": {"min": [1, 32], "opt": [1, 32], "max": [1, 32]}},
    ]
