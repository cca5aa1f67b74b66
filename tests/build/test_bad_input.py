"""Bad input: an exit code, one message that says what, where and the fix, and nothing written."""

from __future__ import annotations

import shutil
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper
from support import NET, Project


def graph(path: Path, batch: int | str = "batch", width: int = 4) -> Path:
    """A graph that adds a number to each of ``width`` values."""
    node = helper.make_node("Add", ["x", "w"], ["y"])
    weight = helper.make_tensor("w", TensorProto.FLOAT, [width], [1.0] * width)
    proto = helper.make_graph(
        [node], "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [batch, width])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [batch, width])], [weight],
    )  # fmt: skip
    onnx.save(helper.make_model(proto, opset_imports=[helper.make_opsetid("", 20)], ir_version=10), path)
    return path


ONNX = {"source": {"onnx": "net.onnx"}, "outputs": {"y": {"dtype": "fp32", "dims": [4]}}}


def onnx_with(**how: Any) -> Callable[[Project], None]:
    return lambda project: void(graph(project.directory / "net.onnx", **how))


def corrupt(project: Project) -> None:
    path = graph(project.directory / "net.onnx")
    path.write_bytes(path.read_bytes()[:-20])


def external_weights_gone(project: Project) -> None:
    path = graph(project.directory / "net.onnx")
    model = onnx.load(path)
    array = onnx.numpy_helper.from_array(np.ones(4, np.float32), "w")
    model.graph.initializer[0].CopyFrom(array)
    onnx.save(model, path, save_as_external_data=True, location="net.data", size_threshold=0)
    (project.directory / "net.data").unlink()


def hf_without_weights(project: Project) -> None:
    directory = project.directory / "bert"
    directory.mkdir()
    (directory / "config.json").write_text('{"architectures": ["BertModel"], "model_type": "bert"}')


def void(_: object) -> None:
    return None


REJECTS_ZERO = """import torch
class Net(torch.nn.Module):
    def forward(self, x, lengths):
        if int(lengths.min()) < 2:
            raise RuntimeError("no empty rows")
        return x[:, :3]
def load():
    return Net()
"""
PACKED = """import torch
class Net(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.lstm = torch.nn.LSTM(2, 3, batch_first=True)
    def forward(self, x, lengths):
        packed = torch.nn.utils.rnn.pack_padded_sequence(x, lengths.clamp(1), batch_first=True, enforce_sorted=False)
        return self.lstm(packed)[1][0][0]
def load():
    return Net()
"""

CASES: dict[str, tuple[dict[str, Any], str, Callable[[Project], None], list[str]]] = {
    "unknown key": ({"input": {}}, NET, void, ["net.yaml:", "input: unknown key, did you mean 'inputs'?"]),
    "unknown key inside a section": (
        {"batching": {"max_queue_delay": 3}}, NET, void, ["batching.max_queue_delay", "'max_queue_delay_us'"],
    ),
    "unknown dtype": ({"inputs": {"x": {"dtype": "float32", "dims": [4]}}}, NET, void, ["unknown dtype 'float32'", "fp32"]),
    "missing key": ({"outputs": None}, NET, void, ["outputs", "required"]),
    "dimension without a range": (
        {"inputs": {"x": {"dtype": "fp32", "dims": ["n"]}}}, NET, void, ["dimension 'n' has no range", "min: 1"],
    ),
    "range out of order": (
        {"inputs": {"x": {"dtype": "fp32", "dims": ["n"]}}, "shapes": {"n": {"min": 8, "opt": 4, "max": 16}}},
        NET, void, ["min <= opt <= max", "8, 4, 16"],
    ),
    "source that does not import": ({"source": "no_such_package.module:load"}, NET, void, ["no_such_package", "does not import"]),
    "source file that is not there": ({"source": "other.py:load"}, NET, void, ["there is no file", "other.py"]),
    "source function that is not there": ({"source": "net.py:lod"}, NET, void, ["has no 'lod'", "load"]),
    "source that raises": ({}, "def load():\n    open('weights.pt')\n", void, ["FileNotFoundError", "weights.pt"]),
    "source that raises says its line": ({}, "def load():\n    open('weights.pt')\n", void, ["(net.py, line 2)"]),
    "source whose import raises": ({}, "import numpy\n1 / 0\n", void, ["does not import", "(net.py, line 2)"]),
    "samples that raise": (
        {"samples": "net.py:samples"}, "def samples():\n    yield {'x': 1 / 0}\n" + NET, void,
        ["ZeroDivisionError", "(net.py, line 2)"],
    ),
    "forward that rejects the values": (
        {
            "inputs": {"x": {"dtype": "fp32", "dims": ["n"]}, "lengths": {"dtype": "int64", "dims": []}},
            "shapes": {"n": {"min": 1, "opt": 8, "max": 16}},
        },
        REJECTS_ZERO, void, ["no empty rows", "(net.py, line 5)", "name real inputs: `samples: file.py:function`", "a mask"],
    ),
    "packed sequences": (
        {
            "inputs": {"x": {"dtype": "fp32", "dims": ["n", 2]}, "lengths": {"dtype": "int64", "dims": []}},
            "shapes": {"n": {"min": 2, "opt": 8, "max": 16}},
        },
        PACKED, void, ["cannot export", "pool its states with a mask"],
    ),
    "source that returns no module": ({}, "def load():\n    return 3\n", void, ["returned a int", "torch.nn.Module"]),
    "forward that rejects the inputs": (
        {"inputs": {"x": {"dtype": "fp32", "dims": [5]}}}, NET, void, ["forward rejects", "x float32[2, 5]"],
    ),
    "more outputs than the module has": (
        {"outputs": {"y": {"dtype": "fp32", "dims": [3]}, "z": {"dtype": "fp32", "dims": [3]}}}, NET, void, ["returns 1 outputs", "y, z"],
    ),
    "output key that does not exist": (
        {}, NET.replace("return self.linear(x)", "return {'scores': self.linear(x)}"), void,
        ["returns no output 'y'", "scores"],
    ),
    "output of another dtype": ({"outputs": {"y": {"dtype": "fp16", "dims": [3]}}}, NET, void, ["is float32[3]", "fp16[3]"]),
    "output of other dims": ({"outputs": {"y": {"dtype": "fp32", "dims": [7]}}}, NET, void, ["float32[3]", "fp32[7]"]),
    "samples of another shape": (
        {"samples": "net.py:samples"}, NET + "\nimport numpy as np\ndef samples():\n    yield {'x': np.ones(5, 'f4')}\n", void,
        ["sample 0, input 'x'", "[5]", "[4]"],
    ),
    "no samples": (
        {"samples": "net.py:samples"}, NET + "\ndef samples():\n    yield from ()\n", void, ["yielded no sample"],
    ),
    "labels of another count": (
        {"outputs": {"y": {"dtype": "fp32", "dims": [3], "labels": "labels.txt"}}}, NET,
        lambda project: void((project.directory / "labels.txt").write_text("one\ntwo\n")), ["3 classes and 2 labels"],
    ),
    "graph file that is not there": (ONNX, NET, void, ["there is no file", "net.onnx"]),
    "corrupt graph": (ONNX, NET, corrupt, ["net.onnx is not a valid ONNX model"]),
    "graph whose weights file is gone": (ONNX, NET, external_weights_gone, ["net.data is missing"]),
    "output name that the graph does not have": (
        ONNX | {"outputs": {"z": {"dtype": "fp32", "dims": [4]}}}, NET, onnx_with(), ["no output 'z'", "it has: y"],
    ),
    "dims that contradict the graph": (
        ONNX | {"inputs": {"x": {"dtype": "fp32", "dims": [5]}}}, NET, onnx_with(), ["input 'x'", "says 5", "fixed at 4"],
    ),
    "max_batch_size on a fixed batch": (
        ONNX | {"max_batch_size": 8}, NET, onnx_with(batch=1), ["max_batch_size is 8", "fixed at 1", "max_batch_size: 0"],
    ),
    "Hugging Face directory without weights": ({"source": {"hf": "bert"}}, NET, hf_without_weights, ["has no weights", "safetensors"]),
}  # fmt: skip


@pytest.mark.parametrize("case", CASES)
def test_bad_recipe_or_model_exits_2_says_where_and_writes_nothing(case: str, project: Project) -> None:
    changes, code, prepare, messages = CASES[case]
    project.write(code, **changes)
    prepare(project)
    status, out, err = project.build()
    assert status == 2, err
    for message in messages:
        assert message in err
    assert "fix:" in err
    assert "Traceback" not in err
    assert out == ""
    assert not project.repository.exists()
    assert project.artifacts() == []


def test_error_names_the_line_of_the_key(project: Project) -> None:
    path = project.directory / "net.yaml"
    project.write()
    path.write_text(path.read_text() + "batching:\n  instances: 2\n  instanses: 3\n")
    line = len(path.read_text().splitlines())
    _, _, err = project.build()
    assert f"net.yaml:{line}: batching.instanses" in err


def test_invalid_yaml_and_a_missing_recipe_exit_2(project: Project) -> None:
    (project.directory / "net.yaml").write_text("name: [")
    assert project.build()[0] == 2
    status, _, err = project.run("build", project.directory / "nowhere.yaml")
    assert status == 2
    assert "nowhere.yaml" in err


def test_two_recipes_of_one_name_are_refused(project: Project) -> None:
    path = project.write()
    second = path.with_name("second.yaml")
    shutil.copy(path, second)
    status, _, err = project.run("build", path, second, "--repository", project.repository)
    assert status == 2
    assert "two recipes have the name 'net'" in err


def test_repository_that_is_a_file_exits_2_before_any_export(project: Project) -> None:
    project.write()
    project.repository.write_text("mine")
    status, _, err = project.build()
    assert status == 2
    assert "is not a directory" in err
    assert project.repository.read_text() == "mine"
    assert project.artifacts() == []
    assert project.run("serve", project.repository)[0] == 2


def test_read_only_place_exits_2_before_any_export(project: Project, mounted: Callable[[str], Path]) -> None:
    project.write()
    place = mounted("ro,size=1m")
    status, _, err = project.run("build", project.directory / "net.yaml", "--repository", place / "model_repository")
    assert status == 2
    assert "read-only" in err
    assert project.artifacts() == []


def test_full_disk_exits_3_and_leaves_the_old_repository(project: Project, mounted: Callable[[str], Path]) -> None:
    place = mounted("size=256k")
    repository = place / "model_repository"
    project.write()
    assert project.run("build", project.directory / "net.yaml", "--repository", repository)[0] == 0
    before = {path: path.read_bytes() for path in repository.rglob("*") if path.is_file()}
    project.write(
        NET.replace("Linear(4, 3)", "Linear(4, 300_000)"), outputs={"y": {"dtype": "fp32", "dims": [300_000]}}
    )
    status, _, err = project.run("build", project.directory / "net.yaml", "--repository", repository)
    assert status == 3, err
    assert "no space left" in err
    assert {path: path.read_bytes() for path in repository.rglob("*") if path.is_file()} == before
    assert [path.name for path in place.iterdir()] == ["model_repository"]


def test_full_disk_under_the_store_exits_3(
    project: Project, mounted: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    place = mounted("size=256k")
    monkeypatch.setenv("TRITONKIT_HOME", str(place))
    project.write(
        NET.replace("Linear(4, 3)", "Linear(4, 300_000)"), outputs={"y": {"dtype": "fp32", "dims": [300_000]}}
    )
    status, _, err = project.build()
    assert status == 3, err
    assert "no space left" in err
    assert not project.repository.exists()


def test_serving_without_the_server_exits_3_and_names_the_fix(project: Project) -> None:
    project.repository.mkdir()
    status, _, err = project.run("serve", project.repository)
    assert status == 3
    assert "nvidia-pytriton" in err
    assert "tritonkit install-server" in err


def test_serving_on_a_port_in_use_exits_2_and_names_it(
    zoo_repository: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from tritonkit import cli

    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        status = cli.main(
            ["serve", str(zoo_repository), "--http-port", str(port), "--grpc-port", "0", "--metrics-port", "0"]
        )
    err = capsys.readouterr().err
    assert status == 2
    assert f"port {port} (http)" in err
    assert "--http-port" in err


@pytest.mark.parametrize(
    "arguments",
    [["build"], ["build", "--all", "x.yaml"], ["init", "no/such/thing"], ["init", "net.py:load", "--input", "x"]],
)
def test_commands_without_what_they_need_exit_2(
    project: Project, monkeypatch: pytest.MonkeyPatch, arguments: list[str]
) -> None:
    project.write()
    monkeypatch.chdir(project.directory)
    status, _, err = project.run(*arguments)
    assert status == 2
    assert "fix:" in err
    assert sorted(path.name for path in project.directory.iterdir()) == ["net.py", "net.yaml"]
