"""The first minutes: doctor says what is missing, init writes a recipe that builds as it is."""

from __future__ import annotations

import json
from importlib import metadata
from importlib.resources import files
from pathlib import Path

import numpy as np
import pytest
import yaml
from support import Project

from tritonkit import doctor, graph
from tritonkit.server import Runtime, TritonServer
from tritonkit_client import Client

MODULE = """
import torch
class Net(torch.nn.Module):
    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.conv = torch.nn.Conv1d(2, 6, 3, padding=1)
    def forward(self, signal, gain):
        wave = self.conv(signal) * gain[:, None, None]
        return {"wave": wave, "peak": wave.amax((1, 2)), "loud": wave.mean((1, 2)) > 0}
def load():
    return Net()
"""


def test_doctor_names_every_part_and_gives_a_command_for_each_missing_one(project: Project) -> None:
    status, out, _ = project.run("doctor", "--json")
    findings = {finding["name"]: finding for finding in json.loads(out)}
    assert set(findings) >= {
        "Python", "onnxruntime", "torch", "tritonkit-client", "tritonkit-load", "Triton server", "NVIDIA GPU", "tensorrt",
        "tensorrt-rtx", "helm", "kubectl", "container runtime",
    }  # fmt: skip
    assert all(finding["present"] or finding["fix"] for finding in findings.values())
    assert findings["onnxruntime"]["present"]
    server = findings["Triton server"]  # this test's home is empty
    assert (server["present"], server["fix"]) == (False, "run `tritonkit install-server`")
    assert status == 3
    _, table, _ = project.run("doctor")
    assert "Triton server" in table
    assert "missing for the first steps: Triton server" in table


def test_doctor_names_the_load_tests_and_does_not_need_them(monkeypatch: pytest.MonkeyPatch) -> None:
    (here,) = (finding for finding in doctor.examine() if finding.name == "tritonkit-load")
    assert (here.present, here.needed) == (True, False)
    installed = metadata.version

    def version(name: str) -> str:
        if name == "tritonkit-load":
            raise metadata.PackageNotFoundError(name)
        return installed(name)

    monkeypatch.setattr(metadata, "version", version)
    (gone,) = (finding for finding in doctor.examine() if finding.name == "tritonkit-load")
    assert (gone.present, gone.needed) == (False, False)
    assert "pip install ./loadtests" in gone.fix


def test_doctor_is_content_where_everything_needed_is_there(
    capsys: pytest.CaptureFixture[str], zoo_repository: Path
) -> None:
    from tritonkit import cli

    assert cli.main(["doctor", "--json"]) == 0
    findings = {finding["name"]: finding for finding in json.loads(capsys.readouterr().out)}
    assert "nvidia-pytriton 0.7.0" in findings["Triton server"]["detail"]


def test_init_of_a_module_finds_outputs_and_moving_dimensions_and_builds(
    project: Project, monkeypatch: pytest.MonkeyPatch, installed_server: Runtime
) -> None:
    (project.directory / "net.py").write_text(MODULE)
    monkeypatch.chdir(project.directory)
    status, _, err = project.run("init", "net.py:load", "--input", "signal:fp32:2,time", "--input", "gain:fp32:")
    assert status == 0, err
    recipe = yaml.safe_load((project.directory / "net.yaml").read_text())
    assert recipe["inputs"] == {"signal": {"dtype": "fp32", "dims": [2, "time"]}, "gain": {"dtype": "fp32", "dims": []}}
    assert recipe["outputs"] == {
        "wave": {"dtype": "fp32", "dims": [6, "time"]},
        "peak": {"dtype": "fp32", "dims": []},
        "loud": {"dtype": "bool", "dims": []},
    }
    status, _, err = project.build()
    assert status == 0, err
    with TritonServer(project.repository, runtime=installed_server) as server, Client(server.grpc_url) as client:
        signal = np.random.default_rng(0).standard_normal((2, 2, 9)).astype(np.float32)
        given = {"signal": signal, "gain": np.array([[1.0], [2.0]], np.float32)}
        served = client.infer("net", given)
    expected = graph.Session(project.repository / "net/1/model.onnx", threads=1).run(
        given | {"gain": given["gain"][:, 0]}
    )
    np.testing.assert_array_equal(served["wave"], expected["wave"])
    np.testing.assert_array_equal(served["peak"][:, 0], expected["peak"])
    np.testing.assert_array_equal(served["loud"][:, 0], expected["loud"])


def test_init_of_two_modules_of_one_file_gives_two_names(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    (project.directory / "net.py").write_text(MODULE + "\n\nwide = load\nNarrow = load\n")
    monkeypatch.chdir(project.directory)
    for function, name in (("wide", "wide"), ("Narrow", "narrow"), ("load", "net")):
        inputs = ["--input", "signal:fp32:2,time", "--input", "gain:fp32:"]
        status, _, err = project.run("init", f"net.py:{function}", *inputs)
        assert status == 0, err
        assert yaml.safe_load((project.directory / f"{name}.yaml").read_text())["name"] == name


def test_init_of_a_module_without_inputs_says_how_to_give_them(
    project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    (project.directory / "net.py").write_text(MODULE)
    monkeypatch.chdir(project.directory)
    status, _, err = project.run("init", "net.py:load")
    assert status == 2
    assert "signal, gain" in err
    assert "--input signal:fp32:" in err


def test_a_published_onnx_model_goes_from_init_to_answers(project: Project, installed_server: Runtime) -> None:
    """magika's graph, which is not in the zoo: bytes of a file in, its type out."""
    (origin,) = (path for path in Path(str(files("magika") / "models")).rglob("*.onnx") if "standard" in str(path))
    recipe = project.directory / "net.yaml"
    status, _, err = project.run("init", origin, "--output", recipe)
    assert status == 0, err
    status, _, err = project.build()
    assert status == 0, err
    name = yaml.safe_load(recipe.read_text())["name"]
    tokens = np.random.default_rng(0).integers(0, 256, (5, 2048)).astype(np.int32)
    expected = graph.Session(project.repository / name / "1/model.onnx", threads=1).run({"bytes": tokens})
    with TritonServer(project.repository, runtime=installed_server) as server:
        for url in (server.grpc_url, server.http_url):
            with Client(url) as client:
                np.testing.assert_array_equal(
                    client.infer(name, bytes=tokens)["target_label"], expected["target_label"]
                )


def test_init_never_overwrites_a_file(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    path = project.write()
    before = path.read_text()
    monkeypatch.chdir(project.directory)
    status, _, err = project.run("init", "net.py:load", "--input", "x:fp32:4")
    assert status == 2
    assert "exists" in err
    assert path.read_text() == before
    status, _, err = project.run("init", "net.py:no_such_function", "--output", str(path))
    assert status == 2
    assert "exists" in err  # before the model is loaded
