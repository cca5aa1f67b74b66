"""init looks at graphs and modules that say little of themselves; what it answers leads on."""

from __future__ import annotations

import shlex
from pathlib import Path

import numpy as np
import onnx
import pytest
import yaml
from graphfile import save, value
from onnx import TensorProto, helper
from support import Project

from tritonkit import graph

MODULES = """
import collections
import torch

Pair = collections.namedtuple("Pair", "mean spread")

class Lstm(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.rnn = torch.nn.LSTM(8, 16, num_layers=2, batch_first=True)
    def forward(self, x):
        return self.rnn(x)

class WithNone(torch.nn.Module):
    def forward(self, x):
        return x + 1, None

class Named(torch.nn.Module):
    def forward(self, x):
        return Pair(x.mean(1), x.std(1))

class Half(torch.nn.Module):
    def forward(self, x):
        return x.to(torch.bfloat16)

class Loss(torch.nn.Module):
    def forward(self, x):
        return {"scores": x + 1, "loss": x.mean(), "pairs": x[:, 0] @ x[:, 0].T, "cache": object()}

class Two(torch.nn.Module):
    def forward(self, a, b):
        return a.sum(1, keepdim=True) + b

def lstm(): return Lstm()
def none(): return WithNone()
def named(): return Named()
def half(): return Half()
def loss(): return Loss()
def two(): return Two()
"""


@pytest.fixture
def modules(project: Project, monkeypatch: pytest.MonkeyPatch) -> Project:
    monkeypatch.chdir(project.directory)
    Path("m.py").write_text(MODULES)
    return project


@pytest.mark.parametrize(
    ("function", "named", "outputs"),
    [
        ("lstm", "output 'output_1' is a tuple (tensor, tensor)",
         {"output_0": [10, 16], "output_1_0": [2, 16], "output_1_1": [2, 16]}),
        ("none", "output 'output_1' is None", {"output_0": [10, 8]}),
        ("half", "output 'output' is bfloat16", {"output": [10, 8]}),
    ],
)  # fmt: skip
def test_outputs_that_are_no_tensors_are_named_and_the_wrapper_works(
    modules: Project, function: str, named: str, outputs: dict[str, list[int]]
) -> None:
    status, _, err = modules.run("init", f"m.py:{function}", "--input", "x:fp32:10,8")
    assert status == 2
    assert named in err
    advice, code = err.split("\n\n", 1)
    command = advice.partition("tritonkit ")[2]
    with Path("m.py").open("a") as file:
        file.write(code)
    status, _, err = modules.run(*shlex.split(command))
    assert status == 0, err
    recipe = yaml.safe_load(Path("flat.yaml").read_text())
    assert {name: spec["dims"] for name, spec in recipe["outputs"].items()} == outputs
    assert all(spec["dtype"] == "fp32" for spec in recipe["outputs"].values())


def test_build_names_such_an_output_too(modules: Project) -> None:
    modules.write(MODULES, source="net.py:lstm", inputs={"x": {"dtype": "fp32", "dims": [10, 8]}},
                  outputs={"y": {"dtype": "fp32", "dims": [10, 16]}, "h": {"dtype": "fp32", "dims": [2, 16]}})  # fmt: skip
    status, _, err = modules.build()
    assert status == 2
    assert "output 'output_1' is a tuple (tensor, tensor)" in err
    assert '"output_1_0": result[1][0]' in err


def test_a_named_tuple_gives_its_fields_names(modules: Project) -> None:
    status, _, err = modules.run("init", "m.py:named", "--input", "x:fp32:10,8")
    assert status == 0, err
    assert list(yaml.safe_load(Path("named.yaml").read_text())["outputs"]) == ["mean", "spread"]


def test_what_cannot_be_an_output_of_a_mapping_is_left_out_with_a_note(modules: Project) -> None:
    status, _, err = modules.run("init", "m.py:loss", "--input", "x:fp32:10,8")
    assert status == 0, err
    text = Path("loss.yaml").read_text()
    assert list(yaml.safe_load(text)["outputs"]) == ["scores"]
    for name in ("'loss' is a number for the whole batch", "'pairs' has shape [2, 2]", "'cache' is a object"):
        assert name in text


def test_each_moving_dimension_is_found_by_itself(modules: Project) -> None:
    status, _, err = modules.run("init", "m.py:two", "--input", "a:fp32:long", "--input", "b:fp32:no")
    assert status == 0, err
    recipe = yaml.safe_load(Path("two.yaml").read_text())
    assert recipe["outputs"]["output"]["dims"] == ["no"]
    assert list(recipe["shapes"]) == ["long", "no"]


def test_rejected_inputs_are_blamed_on_input_where_it_was_given(modules: Project) -> None:
    status, _, err = modules.run("init", "m.py:lstm", "--input", "x:fp32:10,9")
    assert status == 2
    assert "correct --input" in err
    assert not list(Path().glob("*.yaml"))


def save_detector(path: Path, rows: str) -> None:
    """Answers with all the image's values over the largest of the whole batch: rows are not independent."""
    save(
        path,
        [helper.make_node("ReduceMax", ["image"], ["largest"], keepdims=0),
         helper.make_node("Div", ["image", "largest"], ["boxes"])],
        [value("image", TensorProto.FLOAT, ["batch", 4])],
        value("boxes", TensorProto.FLOAT, [rows, 4]),
    )  # fmt: skip


def test_rows_that_depend_on_each_other_are_no_batch_whatever_their_name(
    project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(project.directory)
    save_detector(Path("detector.onnx"), "num_detections")
    status, _, err = project.run("init", "detector.onnx", "--output", "net.yaml")
    assert status == 0, err
    recipe = yaml.safe_load(Path("net.yaml").read_text())
    assert recipe["max_batch_size"] == 0
    assert recipe["inputs"]["image"]["dims"] == ["batch", 4]
    assert recipe["outputs"]["boxes"]["dims"] == ["num_detections", 4]
    assert list(recipe["shapes"]) == ["batch"]
    status, _, err = project.build()
    assert status == 0, err
    text = Path("net.yaml").read_text()
    Path("net.yaml").write_text(text.replace("max_batch_size: 0", "max_batch_size: 16"))
    status, _, err = project.build()
    assert status == 2
    assert "puts a batch dimension in front of ['batch', 4], and the graph has ['batch', 4] in all" in err


def test_the_advice_on_dependent_rows_leads_to_a_model_that_builds(
    project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(project.directory)
    save_detector(Path("detector.onnx"), "batch")
    assert project.run("init", "detector.onnx", "--output", "net.yaml")[0] == 0
    status, _, err = project.build()
    assert status == 1
    command = err.strip().rpartition("tritonkit ")[2]
    status, out, err = project.run(*shlex.split(command))
    assert status == 0, err
    built = project.run(*shlex.split(out.rpartition("tritonkit ")[2]), "--repository", project.repository)
    assert built[0] == 0, built[2]
    assert "mixes" not in Path("net.yaml").read_text()


def test_the_advice_on_a_contradicting_recipe_leads_to_one_that_agrees(
    project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(project.directory)
    tensors = [value(name, TensorProto.FLOAT, [1, 4]) for name in "xy"]
    save(Path("net.onnx"), [helper.make_node("Relu", ["x"], ["y"])], tensors[:1], tensors[1])
    project.write(source={"onnx": "net.onnx"}, outputs={"y": {"dtype": "fp32", "dims": [4]}})
    status, _, err = project.build()
    assert status == 2
    assert "net.onnx contradicts" in err
    assert project.run(*shlex.split(err.strip().rpartition("tritonkit ")[2]))[0] == 0
    (recipe,) = project.directory.glob("*_2.yaml")
    status, _, err = project.run("build", recipe, "--repository", project.repository)
    assert status == 0, err


def test_an_output_without_a_shape_gets_one_by_inference_or_a_run(
    project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(project.directory)
    # Where a shape is an input, no inference knows how many dimensions come out.
    save(
        Path("net.onnx"),
        [helper.make_node("Relu", ["x"], ["y"]), helper.make_node("Shape", ["x"], ["s"]),
         helper.make_node("Identity", ["s"], ["t"]), helper.make_node("Reshape", ["x", "t"], ["z"])],
        [value("x", TensorProto.FLOAT, ["b", 3])],
        value("y", TensorProto.FLOAT, None), value("z", TensorProto.FLOAT, None),
    )  # fmt: skip
    status, _, err = project.run("init", "net.onnx")
    assert status == 0, err
    recipe = yaml.safe_load(Path("net.yaml").read_text())
    assert {name: spec["dims"] for name, spec in recipe["outputs"].items()} == {"y": [3], "z": [3]}
    assert recipe["max_batch_size"] == 16
    status, _, err = project.build()
    assert status == 0, err
    served = project.repository / "net/1/model.onnx"
    onnx.checker.check_model(str(served))
    assert graph.read_signature(served).outputs["z"].dims == ("batch", 3)
    x = np.ones((2, 3), np.float32)
    np.testing.assert_array_equal(graph.Session(served).run({"x": x})["z"], x)


def test_a_graph_whose_input_has_no_shape_gets_it_by_input(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(project.directory)
    tensors = [value(name, TensorProto.FLOAT, None) for name in "xy"]
    save(Path("net.onnx"), [helper.make_node("Relu", ["x"], ["y"])], tensors[:1], tensors[1])
    status, _, err = project.run("init", "net.onnx")
    assert status == 2
    assert "--input x:fp32:" in err
    for wrong in ("z:fp32:3", "x:int64:3"):
        status, _, err = project.run("init", "net.onnx", "--input", wrong)
        assert status == 2
        assert "--input" in err
    status, _, err = project.run("init", "net.onnx", "--input", "x:fp32:3,n")
    assert status == 0, err
    recipe = yaml.safe_load(Path("net.yaml").read_text())
    assert recipe["outputs"]["y"]["dims"] == [3, "n"]
    status, _, err = project.build()
    assert status == 0, err
