"""What ``helm test`` runs in its pod: a real inference to every model of a real server, through our client."""

from __future__ import annotations

import importlib.util
import shutil
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType

import models
import pytest

from tritonkit.server.process import TritonServer
from tritonkit.server.runtime import Runtime

SCRIPT = Path(__file__).parents[2] / "build" / "smoke.py"
RESTRICTED = "model-repository,shared-memory,trace,logging:tritonkit-admin=nobody-knows"  # as the chart's pods have it
Run = Callable[..., int]


@pytest.fixture(scope="module")
def smoke() -> ModuleType:
    specification = importlib.util.spec_from_file_location("smoke", SCRIPT)
    assert specification is not None
    assert specification.loader is not None
    module = importlib.util.module_from_spec(specification)
    sys.modules["smoke"] = module
    specification.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory, installed_server: Runtime) -> Iterator[TritonServer]:
    repository = tmp_path_factory.mktemp("repository")
    models.write_models(repository, "arithmetic", "writer", "sum", "identity", "photo")
    shutil.copytree(repository / "photo/1", repository / "photo/2")
    with (repository / "photo/config.pbtxt").open("a") as configuration:
        configuration.write("\nversion_policy { all {} }\n")
    flags = [f"--http-restricted-api={RESTRICTED}", f"--grpc-restricted-protocol={RESTRICTED}"]
    with TritonServer(repository, runtime=installed_server, arguments=flags) as running:
        yield running


@pytest.fixture
def run(smoke: ModuleType, server: TritonServer) -> Run:
    return lambda *arguments: smoke.main([*arguments, server.http_url, server.grpc_url])


def test_models_of_every_kind_answer_over_both_protocols(run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("--model=arithmetic", "--model=writer", "--model=sum") == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 6
    assert sum("sum float32 [1, 3]" in line for line in lines) == 2
    assert sum("1 responses" in line for line in lines) == 1  # a stream, which only gRPC has
    assert sum("state float64 [1, 5]" in line for line in lines) == 2  # a sequence


def test_without_names_every_loaded_model_is_asked(run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    run()
    output = capsys.readouterr().out
    assert all(output.count(f" {name}: ") >= 2 for name in ("arithmetic", "writer", "sum", "identity"))


def test_every_version_that_is_served_is_asked(run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("--model=photo") == 0
    output = capsys.readouterr().out
    assert all(output.count(f" photo/{version}: ") == 2 for version in (1, 2))


def test_given_inputs_are_sent(run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("--model=writer", '--inputs={"writer": {"prompt": ["one two three"]}}') == 0
    assert "3 responses" in capsys.readouterr().out


def test_a_model_that_does_not_answer_fails_the_test_and_is_named(run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("--model=arithmetic", "--model=missing") == 1
    output = capsys.readouterr().out
    assert output.count("FAILED") == 2
    assert "tests.inputs.missing" in output
    assert "ok " in output


def test_a_shape_that_the_model_does_not_state_fails(
    run: Run, smoke: ModuleType, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    answer = smoke._call
    monkeypatch.setattr(smoke, "_call", lambda *arguments: {n: v[:, :2] for n, v in answer(*arguments).items()})
    assert run("--model=arithmetic") == 1
    assert "the model states" in capsys.readouterr().out


def test_nobody_there_fails_with_what_to_look_at(smoke: ModuleType, capsys: pytest.CaptureFixture[str]) -> None:
    assert smoke.main(["--timeout", "2", "http://127.0.0.1:9"]) == 1
    assert "does the Service select them" in capsys.readouterr().out


def test_inputs_that_are_no_json_are_bad_input(smoke: ModuleType) -> None:
    with pytest.raises(SystemExit) as ended:
        smoke.main(["--inputs", "{", "http://127.0.0.1:9"])
    assert ended.value.code == 2
