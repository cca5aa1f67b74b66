"""`make loadtest`'s script: exit codes, the report's three files, and bad input."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from xml.etree import ElementTree

import pytest

from tritonkit.server import TritonServer
from tritonkit_load import run
from tritonkit_load.load.result import Result

Recipes = Callable[..., Path]
Script = Callable[..., tuple[int, str, str]]


@pytest.fixture
def script(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> Script:
    """Runs it; exit code, standard output, standard error."""

    def call(*arguments: object) -> tuple[int, str, str]:
        words = ["run.py", "--reports", str(tmp_path / "reports"), *map(str, arguments)]
        monkeypatch.setattr("sys.argv", words)
        capsys.readouterr()
        try:
            code = run.main()
        except SystemExit as end:  # argparse
            code = int(end.code or 0)
        captured = capsys.readouterr()
        return code, captured.out, captured.err

    return call


def test_an_slo_that_is_not_met_is_exit_code_1_in_all_three_files(
    server: TritonServer, write_recipe: Recipes, script: Script, tmp_path: Path
) -> None:
    recipe = write_recipe("sleep", slo={"p99_ms": 20_000})  # what is said on the command line counts
    code, out, _ = script("--model", recipe, "--host", server.grpc_url, "--duration", "1s", "--warm-up", "1s",
                          "--arrivals", "poisson:30", "--slo", "p99_ms=0.01")  # fmt: skip
    assert code == 1
    assert "SLO NOT MET" in out
    assert "No rate can meet this SLO" in out
    folder = tmp_path / "reports/sleep"
    assert sorted(path.name for path in folder.iterdir()) == ["index.html", "junit.xml", "result.json"]
    result = Result.from_json(json.loads((folder / "result.json").read_text(encoding="utf-8")))
    assert result.command.startswith("tritonkit-load run --reports")
    assert result.verdict.met is False
    suites = ElementTree.parse(folder / "junit.xml").getroot()  # an error where this machine made the run invalid
    assert suites.get("failures") != "0" or suites.get("errors") != "0"
    assert "poisson:30" in (folder / "index.html").read_text(encoding="utf-8")


def test_a_version_of_a_model_is_tested_by_itself(
    server: TritonServer, write_recipe: Recipes, script: Script, tmp_path: Path
) -> None:
    recipe = write_recipe("arithmetic")
    load = ("--host", server.grpc_url, "--duration", "1s", "--warm-up", "0s", "--users", "1")
    code, out, error = script("--model", f"{recipe}/1", *load)
    assert code in {0, 1}, out + error  # 1 where this machine made the run invalid
    folder = tmp_path / "reports/arithmetic-1"
    result = Result.from_json(json.loads((folder / "result.json").read_text(encoding="utf-8")))
    assert list(result.models) == ["arithmetic/1"]
    assert not result.models["arithmetic/1"].failed
    code, _, error = script("--model", f"{recipe}/7", *load)
    assert code == 2
    assert "fix:" in error
    assert "ModelNotFound" in error


def test_a_full_disk_is_said_and_leaves_the_report_of_before(
    server: TritonServer, write_recipe: Recipes, script: Script, mounted: Callable[[str], Path]
) -> None:
    place = mounted("size=64k")
    load = ("--model", write_recipe("sleep", slo={"p99_ms": 20_000}), "--host", server.grpc_url, "--users", 1, "--duration", "1s",
            "--warm-up", "0s", "--reports", place / "reports")  # fmt: skip
    code, out, err = script(*load)
    assert code == 0, out + err
    before = {path.name: path.read_bytes() for path in (place / "reports/sleep").iterdir()}
    free = place.stat().st_blksize
    (place / "filler").write_bytes(b"x" * (64 * 1024 - sum(map(len, before.values())) - 4 * free))
    code, out, err = script(*load)
    assert code == 3
    assert "requests/s" in out  # what was measured is not lost
    assert "no space left" in err
    assert "fix:" in err
    assert {path.name: path.read_bytes() for path in (place / "reports/sleep").iterdir()} == before
    assert sorted(path.name for path in (place / "reports").iterdir()) == ["sleep"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--users", "0"], "at least one user"),
        (["--arrivals", "poisson:0"], "have a rate that cannot be sent"),
        (["--arrivals", "replay:/no/such/file.csv"], "cannot read the recording"),
        (["--arrivals", "poisson:5", "--users", "5"], "not allowed with"),
        (["--duration", "soon"], "for example 10s or 10m"),
        (["--duration", "1.5s"], "whole seconds"),
        (["--warm-up", "-1"], "WARM_UP"),
        (["--processes", "0"], "at least one"),
        (["--seed", "-1"], "the seed is -1"),
        (["--model", "a:inf"], "no list of models and weights"),
        (["--batch-sizes", "1-9999999999"], "no distribution"),
        (["--slo", "p99=5"], "p99: unknown"),
        (["--batch-sizes", "none"], "no distribution"),
        (["--model", "no_such_model"], "no_such_model.yaml"),
        (["--model", "eficientnet_lite0"], "did you mean efficientnet_lite0?"),
        (["--model", "a:b"], "no list of models and weights"),
        (["--repository", "nowhere"], "nowhere is not a directory"),
    ],
)
def test_bad_input_exits_2_before_a_server_is_started(
    write_recipe: Recipes, script: Script, arguments: list[str], message: str
) -> None:
    given = arguments if "--model" in arguments else ["--model", str(write_recipe("arithmetic")), *arguments]
    code, out, err = script(*given)
    assert code == 2
    assert message in err
    assert out == ""


def test_a_server_that_is_not_there_and_a_model_that_is_not_loaded_exit_2(
    server: TritonServer, write_recipe: Recipes, script: Script, tmp_path: Path
) -> None:
    code, _, err = script("--model", write_recipe("arithmetic"), "--host", "grpc://127.0.0.1:1", "--duration", "1s")
    assert (code, "ConnectionFailed" in err, "fix:" in err) == (2, True, True)
    code, _, err = script("--model", write_recipe("unloaded"), "--host", server.grpc_url, "--duration", "1s")
    assert (code, "ModelNot" in err, "fix:" in err) == (2, True, True)
    assert not (tmp_path / "reports").exists()


def test_versions_need_a_repository_that_has_them(write_recipe: Recipes, script: Script) -> None:
    path = write_recipe("arithmetic")
    code, out, err = script("--model", f"{path}/1:9,{path}/2:1")
    assert (code, out) == (2, "")
    assert "one version of each model" in err
    assert "--repository" in err
