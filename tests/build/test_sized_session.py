"""A graph at prepared sizes in this process, as the gate runs it. On a CPU."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from onnx import TensorProto, helper
from textmodel import save

from tritonkit import recipe
from tritonkit.errors import GraphError
from tritonkit.sized_session import SizedSession

FLOAT = TensorProto.FLOAT


def session(folder: Path, dims: str, shape: list[int | str], more: str) -> SizedSession:
    """Of a model that doubles what it gets."""
    graph = helper.make_graph(
        [helper.make_node("Add", ["x", "x"], ["y"])], "g",
        [helper.make_tensor_value_info("x", FLOAT, shape)], [helper.make_tensor_value_info("y", FLOAT, shape)],
    )  # fmt: skip
    save(graph, folder / "model.onnx")
    path = folder / "net.yaml"
    tensor = f"{{dtype: fp32, dims: {dims}}}"
    path.write_text(
        f"name: net\nsource: {{onnx: model.onnx}}\ninputs: {{x: {tensor}}}\noutputs: {{y: {tensor}}}\n{more}",
        encoding="utf-8",
    )
    return SizedSession(folder / "model.onnx", recipe.load(path), device=None)


def test_one_number_a_row_runs_at_prepared_sizes_in_memory_of_its_own(tmp_path: Path) -> None:
    doubled = session(tmp_path, "[]", ["batch"], "max_batch_size: 4\n")
    assert doubled.why_not_sized == ""
    x = np.arange(7, dtype=np.float32)
    first, second = doubled.run({"x": x})["y"], doubled.run({"x": x + 1})["y"]
    assert (first.tolist(), second.tolist()) == ((2 * x).tolist(), (2 * x + 2).tolist())


def test_a_model_without_batches_runs_at_its_one_size(tmp_path: Path) -> None:
    doubled = session(tmp_path, "[2]", [2], "max_batch_size: 0\n")
    assert doubled.why_not_sized == ""
    assert doubled.run({"x": np.ones(2, np.float32)})["y"].tolist() == [2, 2]


def test_more_sizes_than_are_prepared_are_an_error_of_the_recipe(tmp_path: Path) -> None:
    shapes = "max_batch_size: 4096\nshapes: {length: {min: 1, opt: 8, max: 65536, pad: {x: 0}}}\n"
    with pytest.raises(GraphError, match=r"net.yaml: batch_sizes and padding ask for \d+ sizes, at most 256"):
        session(tmp_path, "[length]", ["batch", "length"], shapes)
