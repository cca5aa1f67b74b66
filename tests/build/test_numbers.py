"""Tensors without dimensions, and dimensions of size 0 and 1: from init to answers."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import yaml
from graphfile import save, value
from onnx import TensorProto, helper
from support import Project

from tritonkit import recipe, samples
from tritonkit.repository import config
from tritonkit.server import Runtime, TritonServer
from tritonkit_client import Client


def save_gain(path: Path) -> None:
    """Multiplies by a whole number and by a float, and sums everything up: numbers in, and one out."""
    save(
        path,
        [helper.make_node("Cast", ["times"], ["factor"], to=TensorProto.FLOAT),
         helper.make_node("Mul", ["factor", "gain"], ["both"]),
         helper.make_node("Mul", ["x", "both"], ["scaled"]),
         helper.make_node("ReduceSum", ["scaled"], ["total"], keepdims=0)],
        [value("times", TensorProto.INT64, []), value("x", TensorProto.FLOAT, ["n", 1]),
         value("gain", TensorProto.FLOAT, [])],
        value("scaled", TensorProto.FLOAT, ["n", 1]), value("total", TensorProto.FLOAT, []),
    )  # fmt: skip


def test_numbers_without_a_batch_go_from_init_to_answers(
    project: Project, monkeypatch: pytest.MonkeyPatch, installed_server: Runtime
) -> None:
    monkeypatch.chdir(project.directory)
    save_gain(Path("gain.onnx"))
    status, _, err = project.run("init", "gain.onnx", "--output", "net.yaml")
    assert status == 0, err
    text = Path("net.yaml").read_text()
    assert "'times' is a number by itself" in text
    assert yaml.safe_load(text)["inputs"]["times"] == {"dtype": "int64", "dims": []}
    assert yaml.safe_load(text)["max_batch_size"] == 0
    status, _, err = project.build()
    assert status == 0, err
    assert project.run("lint", project.repository)[0] == 0
    x = np.arange(3, dtype=np.float32)[:, None]
    with TritonServer(project.repository, runtime=installed_server) as server:
        for url in (server.grpc_url, server.http_url):
            with Client(url) as client:
                served = client.infer("gain", x=x, times=3, gain=np.array([0.5], np.float32))
            np.testing.assert_array_equal(served["scaled"], x * 1.5)
            np.testing.assert_array_equal(served["total"], [4.5])


def test_a_request_has_one_dimension_where_a_sample_is_a_number(project: Project) -> None:
    inputs = {"x": {"dtype": "fp32", "dims": [4]}, "length": {"dtype": "int64", "dims": []}}
    batched = recipe.load(project.write(inputs=inputs))
    rows = samples.load(batched, 2)
    assert rows[0]["length"].shape == ()
    batch = samples.as_requested(batched, samples.batch(rows, 3))
    assert {name: array.shape for name, array in batch.items()} == {"x": (3, 4), "length": (3, 1)}
    alone = recipe.load(project.write(inputs=inputs, max_batch_size=0))
    assert samples.as_requested(alone, rows[0])["length"].shape == (1,)
    # A prepared size has the configuration's shapes, which have no empty one.
    assert config.build(alone, "cuda").parameters["batch_sizes"].string_value == "off"
    assert "batch_sizes" not in config.build(recipe.load(project.write(max_batch_size=0)), "cuda").parameters


def test_tensorrt_is_refused_a_number_without_a_batch_before_any_work(project: Project) -> None:
    inputs = {"x": {"dtype": "fp32", "dims": [4]}, "length": {"dtype": "int64", "dims": []}}
    project.write(inputs=inputs, max_batch_size=0)
    status, _, err = project.build("--target", "tensorrt")
    assert status == 2
    assert "'length' is a number by itself" in err
    assert "dims: [1]" in err
    assert not project.artifacts()


@pytest.mark.parametrize(("size", "dims"), [(-1, ["x_0"]), (1, [1])])
def test_init_reads_sizes_as_onnxruntime_does(
    project: Project, monkeypatch: pytest.MonkeyPatch, size: int, dims: list[object]
) -> None:
    monkeypatch.chdir(project.directory)
    tensors = [value(name, TensorProto.FLOAT, [size]) for name in "xy"]
    save(Path("net.onnx"), [helper.make_node("Relu", ["x"], ["y"])], tensors[:1], tensors[1])
    status, _, err = project.run("init", "net.onnx", "--max-batch-size", "0")
    assert status == 0, err
    assert yaml.safe_load(Path("net.yaml").read_text())["inputs"]["x"]["dims"] == dims


def test_init_refuses_a_size_of_0(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(project.directory)
    tensors = [value(name, TensorProto.FLOAT, [0, 3]) for name in "xy"]
    save(Path("net.onnx"), [helper.make_node("Relu", ["x"], ["y"])], tensors[:1], tensors[1])
    status, _, err = project.run("init", "net.onnx")
    assert status == 2
    assert "no dimension of size 0" in err
    project.write()
    for argument in ("x:fp32:0,4", "x:fp32:-1", "x:fp32:a-b", "x:float:4", ":fp32:4"):
        status, _, err = project.run("init", "net.py:load", f"--input={argument}", "--output", "other.yaml")
        assert status == 2
        assert argument in err
    assert not Path("other.yaml").exists()
