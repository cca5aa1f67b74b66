"""Small graphs of every precision, made by code; TensorRT-RTX builds one in a tenth of a second."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Literal

import ml_dtypes
import numpy as np
import onnx
import pytest
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper
from support import Project

from tritonkit.engines import builder

WIDTH = 32
Run = Callable[..., tuple[int, str, str]]


class Graphs:
    """Writes ONNX files into a folder."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory

    def save(
        self,
        name: str,
        nodes: Sequence[onnx.NodeProto],
        inputs: Sequence[onnx.ValueInfoProto],
        outputs: Sequence[onnx.ValueInfoProto],
        weights: dict[str, NDArray[Any]] | None = None,
        domains: Sequence[str] = (),
    ) -> Path:
        path = self.directory / f"{name}.onnx"
        held = [numpy_helper.from_array(array, key) for key, array in (weights or {}).items()]
        opsets = [helper.make_opsetid("", 20), *(helper.make_opsetid(domain, 3) for domain in domains)]
        graph = helper.make_graph(list(nodes), "g", list(inputs), list(outputs), held)
        onnx.save(helper.make_model(graph, opset_imports=opsets, ir_version=10), path)
        return path

    def mlp(self, precision: Literal["fp32", "fp16"], batch: int | str = "batch") -> Path:
        """Two matrix products with a Relu between; fp32 at both ends."""
        half = precision == "fp16"
        kind = np.float16 if half else np.float32
        nodes = [
            helper.make_node("MatMul", ["h" if half else "x", "w"], ["a"], name="first"),
            helper.make_node("Relu", ["a"], ["b"], name="relu"),
            helper.make_node("MatMul", ["b", "w"], ["c" if half else "y"], name="second"),
        ]
        if half:
            nodes.insert(0, helper.make_node("Cast", ["x"], ["h"], name="in", to=TensorProto.FLOAT16))
            nodes.append(helper.make_node("Cast", ["c"], ["y"], name="out", to=TensorProto.FLOAT))
        return self.save(precision, nodes, [value("x", batch)], [value("y", batch)], {"w": weight(kind)})

    def quantized(
        self, name: str = "int8", *, kind: Any = np.int8, zero: int = 0, data: bool = True, around: Any = np.float16
    ) -> Path:
        """One matrix product between Q/DQ; ``around`` is the type outside them, ``data=False`` leaves data alone."""
        fp = TensorProto.FLOAT16 if around is np.float16 else TensorProto.FLOAT
        wide = np.int8 if kind is np.uint8 else kind
        quantized = (weight(np.float32) * 20).astype(wide)
        weights = {
            "s": np.asarray(0.1, around),
            "z": np.asarray(zero, kind),
            "wq": quantized,
            "ws": np.asarray(0.05, around),
            "wz": np.asarray(0, wide),
        }
        nodes = [
            helper.make_node("Cast", ["x"], ["h"], name="in", to=fp),
            helper.make_node("QuantizeLinear", ["h", "s", "z"], ["q"], name="quantize"),
            helper.make_node("DequantizeLinear", ["q", "s", "z"], ["d"], name="dequantize"),
            helper.make_node("DequantizeLinear", ["wq", "ws", "wz"], ["w"], name="weights"),
            helper.make_node("MatMul", ["d" if data else "h", "w"], ["c"], name="product"),
            helper.make_node("Cast", ["c"], ["y"], name="out", to=TensorProto.FLOAT),
        ]
        if not data:
            del nodes[1:3]
        return self.save(name, nodes, [value("x")], [value("y")], weights)

    def fp8(self) -> Path:
        return self.quantized("fp8", kind=ml_dtypes.float8_e4m3fn)

    def unknown_operators(self) -> Path:
        """One that no ONNX has, and one that TensorRT's parser does not import."""
        nodes = [
            helper.make_node("Swirl", ["x"], ["a"], name="my_swirl", domain="com.acme"),
            helper.make_node("Det", ["m"], ["b"], name="my_determinant"),
        ]
        inputs = [value("x"), helper.make_tensor_value_info("m", TensorProto.FLOAT, ["batch", 4, 4])]
        outputs = [value("a"), helper.make_tensor_value_info("b", TensorProto.FLOAT, ["batch"])]
        return self.save("unknown", nodes, inputs, outputs, domains=["com.acme"])


def weight(kind: Any) -> NDArray[Any]:
    return np.random.default_rng(0).standard_normal((WIDTH, WIDTH)).astype(kind)


def value(name: str, batch: int | str = "batch") -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info(name, TensorProto.FLOAT, [batch, WIDTH])


@pytest.fixture
def graphs(tmp_path: Path) -> Graphs:
    return Graphs(tmp_path)


@pytest.fixture(scope="session")
def minilm(root: Path) -> Path:
    """The shipped sentence encoder as its exporter leaves it, in fp32; from the user's store."""
    from tritonkit import cached_export, recipe

    return cached_export.exported(recipe.load(root / "build/recipes/all_minilm_l6_v2.yaml"))[0].graph


@pytest.fixture
def preflight(project: Project) -> Callable[..., tuple[int, dict[str, Any]]]:
    """``tritonkit engine … --preflight --json``: exit code and what it printed."""

    def run(path: Path, gpus: str, *arguments: str) -> tuple[int, dict[str, Any]]:
        batched = () if "--shapes" in arguments else ("--max-batch-size", "8")
        code, stdout, _ = project.run("engine", path, "--preflight", "--gpu", gpus, "--json", *batched, *arguments)
        report: dict[str, Any] = json.loads(stdout)
        return code, report

    return run


@pytest.fixture
def plan(tmp_path: Path) -> Callable[..., Path]:
    """Writes a model's directory with a plan of four bytes and its passport; words change the passport."""

    def make(sm: str = "86", version: str = "1", **changes: Any) -> Path:
        path = tmp_path / "repository/net" / version / f"model_sm{sm}.plan"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"plan")
        passport = {
            "format": 1, "kind": "engine", "model": "net", "plan_sha256": hashlib.sha256(b"plan").hexdigest(),
            "plan_bytes": 4, "graph_sha256": "ab" * 32, "precision": "fp16",
            "layers": {"fp32": 0, "fp16": 2, "int8": 0, "fp8": 0, "other": 5}, "builder": "tensorrt",
            "tensorrt_version": "11.4.0.106", "compute_capability": f"{sm[:-1]}.{sm[-1]}", "gpu": "a10g",
            "hardware_compatibility": "none", "version_compatible": False, "weight_stripped": False, "plugins": [],
            "profiles": [{"x": {"min": [1, 32], "opt": [8, 32], "max": [8, 32]}}], "memory_bytes": 6 * 2**30,
            "created": "2026-11-24T12:00:00+00:00", "tritonkit": "0.1.0",
        } | changes  # fmt: skip
        Path(f"{path}.json").write_text(json.dumps(passport), encoding="utf-8")
        return path

    return make


@pytest.fixture(scope="session")
def toolkit() -> builder.Toolkit:
    """TensorRT-RTX, as the builder loads it."""
    return builder.load("tensorrt_rtx")
