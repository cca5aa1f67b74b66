"""Weights beside an ONNX graph: behind links, outside its folder, over the size of one file, and through every command."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
import yaml
from onnx import TensorProto, helper, numpy_helper
from support import Project
from weights import SIGNATURE, WIDTH, write_model

from tritonkit import external_data, graph
from tritonkit.errors import GraphError


def from_cache(directory: Path) -> Path:
    """As a Hugging Face cache has it: files by their hash, and links to them with names."""
    write_model(directory / "blobs/model.onnx")
    snapshot = directory / "snapshots/0123/onnx"
    snapshot.mkdir(parents=True)
    for name, stored in (("model.onnx", "ab12"), ("model.onnx_data", "cd34")):
        (directory / "blobs" / name).rename(directory / "blobs" / stored)
        (snapshot / name).symlink_to(Path("../../../blobs") / stored)
    return snapshot / "model.onnx"


def hard_linked(directory: Path) -> Path:
    write_model(directory / "store/model.onnx")
    (directory / "net").mkdir()
    for name in ("model.onnx", "model.onnx_data"):
        os.link(directory / "store" / name, directory / "net" / name)
    return directory / "net/model.onnx"


def only_weights_linked(directory: Path) -> Path:
    path = hard_linked(directory)
    path.with_name("model.onnx_data").unlink()
    path.with_name("model.onnx_data").symlink_to(directory / "store/model.onnx_data")
    return path


@pytest.mark.parametrize("link_weights", [from_cache, hard_linked, only_weights_linked])
def test_init_and_build_read_weights_through_links(link_weights: Callable[[Path], Path], project: Project) -> None:
    path = link_weights(project.directory)
    recipe = project.directory / "net.yaml"
    code, _, error = project.run("init", path, "-o", recipe)
    assert code == 0, error
    name = yaml.safe_load(recipe.read_text())["name"]
    code, _, error = project.build()
    assert code == 0, error
    served = project.repository / name / "1/model.onnx"
    assert not served.is_symlink()
    ones = np.ones((1, WIDTH), np.float32)
    assert graph.Session(served).run({"x": ones})["y"].tolist() == (ones * WIDTH).tolist()


def test_a_link_that_is_turned_to_another_model_is_exported_anew(project: Project) -> None:
    for factor in (1, 2):
        write_model(project.directory / f"v{factor}/model.onnx", factor)
    current = project.directory / "current"
    current.symlink_to("v1")
    project.write(source={"onnx": "current/model.onnx"}, **SIGNATURE)
    assert json.loads(project.build("--json")[1])["exported"] == ["net"]
    current.unlink()
    current.symlink_to("v2")
    assert json.loads(project.build("--json")[1])["exported"] == ["net"]
    assert json.loads(project.build("--json")[1])["exported"] == []


def outside(path: Path) -> str:
    """The graph names its weights by a way out of its folder; returns that."""
    write_model(path)
    (path.parent.parent / "weights").mkdir()
    path.with_name("model.onnx_data").rename(path.parent.parent / "weights/w.bin")
    return rename(path, "../weights/w.bin")


def rename(path: Path, location: str) -> str:
    model = onnx.load(path, load_external_data=False)
    for entry in model.graph.initializer[0].external_data:
        entry.value = location if entry.key == "location" else entry.value
    onnx.save(model, path)
    return location


def test_weights_outside_the_graphs_folder_are_refused_and_the_fix_works(tmp_path: Path) -> None:
    path = tmp_path / "net/model.onnx"
    outside(path)
    with pytest.raises(GraphError, match=r"'\.\./weights/w\.bin' lies outside") as caught:
        graph.read_signature(path)
    shutil.copy(tmp_path / "weights/w.bin", path.parent)
    code = (caught.value.fix or "").partition("in Python: ")[2]
    subprocess.run([sys.executable, "-c", f"import onnx; {code}"], check=True, timeout=60)
    assert set(graph.read_signature(path).inputs) == {"x"}
    rename(path, str(tmp_path / "weights/w.bin"))
    with pytest.raises(GraphError, match="lies outside"):
        graph.read_signature(path)


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda data: (data.unlink(), data.symlink_to("gone")), r"model.onnx_data is a link to nothing \(gone\)"),
        (lambda data: data.unlink(), "model.onnx_data is missing"),
        (lambda data: data.write_bytes(data.read_bytes()[:-1]), "has 4,095 bytes, 'w' ends at 4,096"),
    ],
)
def test_weights_that_are_not_whole_are_named(damage: Callable[[Path], object], message: str, tmp_path: Path) -> None:
    write_model(tmp_path / "model.onnx")
    damage(tmp_path / "model.onnx_data")
    with pytest.raises(GraphError, match=message):
        graph.read_signature(tmp_path / "model.onnx")


def test_tensors_in_branches_and_attributes_are_loaded_too(tmp_path: Path) -> None:
    weight = numpy_helper.from_array(np.arange(4, dtype=np.float32), "held")
    branch = helper.make_graph(
        [helper.make_node("Identity", ["held"], ["out"])], "b", [],
        [helper.make_tensor_value_info("out", TensorProto.FLOAT, [4])], [weight],
    )  # fmt: skip
    constant = helper.make_node("Constant", [], ["c"], value=numpy_helper.from_array(np.array(True), "t"))
    choice = helper.make_node("If", ["c"], ["y"], then_branch=branch, else_branch=branch)
    y = helper.make_tensor_value_info("y", TensorProto.FLOAT, [4])
    model = helper.make_model(helper.make_graph([constant, choice], "g", [], [y]), ir_version=9)
    (tmp_path / "w").write_bytes(np.arange(4, dtype=np.float32).tobytes() * 2)
    for index, tensor in enumerate(held for held in external_data.tensors(model) if held.name == "held"):
        tensor.ClearField("raw_data")
        tensor.data_location = TensorProto.EXTERNAL
        for key, value in (("location", "w"), ("offset", str(16 * index)), ("length", "16")):
            tensor.external_data.add(key=key, value=value)
    onnx.save(model, tmp_path / "model.onnx")
    loaded = external_data.load(tmp_path / "model.onnx")
    assert not external_data.external(loaded)
    assert graph.Session(loaded).run({})["y"].tolist() == [0, 1, 2, 3]


@pytest.fixture
def large(project: Project, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A recipe whose weights, for this test, are too large for one file."""
    monkeypatch.setattr(external_data, "LARGEST_BYTES", 1024)
    write_model(project.directory / "net/model.onnx")
    return project.write(source={"onnx": "net/model.onnx"}, gpus=["l4"], **SIGNATURE)


def test_a_graph_with_weights_beside_it_is_laid_out_whole_for_engines(large: Path, project: Project) -> None:
    code, _, error = project.build("--target", "tensorrt", "--fallback")
    assert code == 0, error
    version = project.repository / "net/1"
    assert {path.name for path in version.iterdir()} == {"engine.onnx", "model.onnx", "model.onnx.data"}
    for model in (project.repository / "net", large):  # both have hard links to the store's files
        code, out, error = project.run("engine", model, "--preflight", "--precision", "fp32", "--json")
        assert code == 0, error
        assert [verdict["status"] for verdict in json.loads(out)["verdicts"]] == ["ok"]
    code, out, _ = project.build("--target", "tensorrt", "--fallback", "--json")
    assert (code, json.loads(out)["changed"]) == (0, False)


SAMPLES = f"""
import numpy as np

def inputs():
    random = np.random.default_rng(0)
    for _ in range(40):
        yield {{"x": random.standard_normal({WIDTH}).astype(np.float32)}}
"""


@pytest.mark.parametrize(("precision", "opset"), [("fp16", 17), ("int8", 20)])
def test_variants_of_a_large_graph_are_judged_and_laid_out(
    precision: str, opset: int, project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(external_data, "LARGEST_BYTES", 512)
    write_model(project.directory / "net/model.onnx", 0.01, opset)
    (project.directory / "samples.py").write_text(SAMPLES)
    project.write(
        source={"onnx": "net/model.onnx"}, gpus=["l4"], samples="samples.py:inputs",
        calibration={"samples": 8}, **SIGNATURE,
    )  # fmt: skip
    options = ("--target", "tensorrt", "--precision", precision, "--fallback")
    code, out, error = project.build(*options, "--json")
    assert code == 0, error
    rows = {row["precision"]: row for row in json.loads(out)["models"]["net"]["gate"]}
    assert rows[precision]["verdict"] == "unproven", rows[precision]["why"]  # accurate; its speed shows on a GPU
    version = project.repository / "net/1"
    weights = {"model.onnx.data", f"model.onnx.{precision}.data"}
    assert {path.name for path in version.iterdir()} == {"engine.onnx", "model.onnx", *weights}
    code, out, error = project.run("engine", project.repository / "net", "--preflight", "--json")
    assert code == 0, error
    (verdict,) = json.loads(out)["verdicts"]
    assert (verdict["status"], verdict["layers"][precision]) == ("ok", 1)
    x = {"x": np.ones((1, WIDTH), np.float32)}
    answers = [graph.Session(version / name).run(x)["y"] for name in ("model.onnx", "engine.onnx")]
    assert np.abs(answers[0] - answers[1]).max() < 0.01


def test_other_weights_in_an_equal_graph_are_another_graph(large: Path, project: Project) -> None:
    hashes = []
    for factor in (1, 2):
        write_model(project.directory / "net/model.onnx", factor)
        code, out, error = project.build("--target", "tensorrt", "--json")
        assert code == 0, error
        assert json.loads(out)["changed"]
        version = project.repository / "net/1"
        assert np.fromfile(version / "model.onnx.data", np.float32)[0] == factor
        assert not (version / "model_sm89.plan").exists(), "an engine of other weights must go"
        hashes.append(json.loads((version.parent / "passport.json").read_text())["graph_sha256"])
        (version / "model_sm89.plan").write_bytes(b"plan")
        (version / "model_sm89.plan.json").write_text(json.dumps({"kind": "engine", "graph_sha256": hashes[-1]}))
    assert hashes[0] != hashes[1]
    assert hashes[1] == external_data.graph_sha256(version / "engine.onnx")


def test_a_large_model_in_memory_is_written_with_its_weights_beside_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_model(tmp_path / "model.onnx", 3)
    model = external_data.load(tmp_path / "model.onnx")
    (tmp_path / "out").mkdir()
    external_data.save(model, tmp_path / "out/small.onnx")
    monkeypatch.setattr(external_data, "LARGEST_BYTES", 1024)
    external_data.save(model, tmp_path / "out/large.onnx")
    assert {path.name for path in (tmp_path / "out").iterdir()} == {"small.onnx", "large.onnx", "large.onnx.data"}
    ones = np.ones((1, WIDTH), np.float32)
    for name in ("small", "large"):
        assert graph.Session(tmp_path / f"out/{name}.onnx").run({"x": ones})["y"][0, 0] == 3 * WIDTH
