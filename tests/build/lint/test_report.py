"""The command: what it prints in each format, and how it ends."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tritonkit import cli
from tritonkit.repository.lint import RULES

from .lab import BATCHED, XY, onnx_model, python, write

Run = Callable[..., tuple[int, str, str]]
UNBOUNDED = BATCHED + XY + "dynamic_batching {}\ninstance_group { count: 1 kind: KIND_CPU }\n"


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Run:
    """Exit code, standard output and standard error of one command, run beside the repository."""
    monkeypatch.chdir(tmp_path)

    def call(*arguments: str, columns: int = 80) -> tuple[int, str, str]:
        monkeypatch.setenv("COLUMNS", str(columns))
        code = cli.main(["lint", *arguments])
        captured = capsys.readouterr()
        return code, captured.out, captured.err

    return call


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    """One model with an error, one with a warning, one clean, in the default place."""
    place = tmp_path / "model_repository"
    write(place / "wrong", onnx_model(BATCHED + XY.replace("FP32", "INT64", 1)))
    write(place / "slow", python(UNBOUNDED))
    write(place / "fine", python())
    return place


@pytest.mark.parametrize("columns", [80, 120])
def test_text_is_grouped_by_model_fits_the_terminal_and_ends_in_counts(
    run: Run, repository: Path, columns: int
) -> None:
    code, out, err = run(columns=columns)
    assert (code, err) == (1, "")
    lines = [line.rstrip() for line in out.splitlines()]
    assert max(map(len, lines)) <= columns
    assert [line for line in lines if line.startswith("model_repository/")] == [
        "model_repository/slow",
        "model_repository/wrong",
    ]
    assert "  warning  TK052  config.pbtxt:6: the queue has no bound" in out
    assert "  error    TK042  config.pbtxt:4: input 'x' is TYPE_INT64" in out
    assert "→ say data_type: TYPE_FP32" in out
    assert " ".join(lines[-2:]).endswith("1 error, 1 warning in 3 models; `tritonkit lint --explain ID` says more")


def test_a_clean_repository_says_so_and_ends_with_0(run: Run, repository: Path) -> None:
    for name in ("wrong", "slow"):
        (repository / name).rename(repository.parent / name)
    assert run() == (0, "clean: nothing to say about 1 model\n", "")


def test_warnings_fail_only_if_asked_and_bad_input_is_2(run: Run, repository: Path) -> None:
    (repository / "wrong").rename(repository.parent / "wrong")
    assert run()[0] == 0
    assert run("--strict")[0] == 1
    assert "nowhere is not a directory" in run("nowhere")[2]
    for arguments, near in ((["--gpu", "h10"], "h100"), (["--explain", "TK05"], "TK05"), (["--image", "new"], "26.08"),
                            (["--server-arg", "cache"], "--server-arg=--name=value"), (["nowhere"], "tritonkit build")):  # fmt: skip
        code, out, err = run(*arguments)
        assert (code, out) == (2, "")
        assert near in err


def test_flags_of_the_server_decide_about_the_cache(run: Run, repository: Path) -> None:
    write(repository / "cached", python(BATCHED + XY + "response_cache { enable: true }\n"))
    severities = []
    for flags in ([], ["--server-arg=--log-verbose=1"], ["--server-arg=--cache-config=local,size=9"],
                  ["--server-arg=--cache-config", "--server-arg=local,size=9"]):  # fmt: skip
        findings = json.loads(run(*flags, "--json")[1])["findings"]
        severities.append([finding["severity"] for finding in findings if finding["rule"] == "TK058"])
    assert severities == [["info"], ["warning"], [], []]


def test_the_image_decides_whether_our_backend_is_missed(run: Run, repository: Path) -> None:
    config = 'backend: "tritonkit_onnxruntime"\ninstance_group { count: 4 kind: KIND_GPU }\n' + BATCHED + XY
    write(repository / "sized", onnx_model(None) | {"config.pbtxt": config})
    severities = []
    for image in ("26.09-py3", "nvcr.io/nvidia/tritonserver:26.09-py3", "registry.example.org/tritonkit:26.09"):
        findings = json.loads(run("--image", image, "--json")[1])["findings"]
        severities.append([finding["severity"] for finding in findings if finding["rule"] == "TK137"])
    assert severities == [["info"], ["warning"], []]


def test_a_custom_configuration_is_read_if_the_server_will(run: Run, repository: Path) -> None:
    write(repository / "tuned", python() | {"configs/h100.pbtxt": 'backend: "python"\nmax_batch_size: -1\n'})
    assert "max_batch_size is -1" not in run()[1]
    assert "configs/h100.pbtxt:2: max_batch_size is -1" in run("--server-arg=--model-config-name=h100")[1]


def test_json_is_the_same_in_both_spellings(run: Run, repository: Path) -> None:
    code, out, _ = run("--json")
    assert run("--format", "json") == (code, out, "")
    report = json.loads(out)
    assert (code, report["models"], report["counts"]) == (1, 3, {"error": 1, "warning": 1, "info": 0})
    finding = report["findings"][-1]
    assert (finding["rule"], finding["path"], finding["line"]) == ("TK042", "wrong/config.pbtxt", 4)


def test_explain_and_rules_come_from_the_registry(run: Run) -> None:
    _, out, _ = run("--explain", "tk042", columns=300)
    assert RULES["TK042"].explanation in out
    assert "# tritonkit: ignore TK042" in out
    _, out, _ = run("--rules", columns=300)
    assert [line.split()[0] for line in out.splitlines()[1:]] == sorted(RULES)


def check_result(result: dict[str, Any], rules: list[dict[str, Any]], root: Path) -> None:
    """What SARIF 2.1.0 asks of a result (3.27) and GitHub's code scanning on top."""
    assert rules[result["ruleIndex"]]["id"] == result["ruleId"]
    assert result["level"] in {"error", "warning", "note"}
    assert result["message"]["text"].endswith(".")
    (location,) = result["locations"]
    place = location["physicalLocation"]
    assert place["artifactLocation"]["uriBaseId"] == "%SRCROOT%"
    assert (root / place["artifactLocation"]["uri"]).exists()
    assert place["region"]["startLine"] >= 1


def test_sarif_has_what_the_standard_asks_for(run: Run, repository: Path) -> None:
    code, out, _ = run("--format", "sarif")
    log = json.loads(out)
    assert (code, log["version"]) == (1, "2.1.0")
    assert log["$schema"].endswith("sarif-schema-2.1.0.json")
    (sarif,) = log["runs"]
    driver = sarif["tool"]["driver"]
    assert driver["name"]
    assert [rule["id"] for rule in driver["rules"]] == sorted(RULES)
    for rule in driver["rules"]:
        assert rule["help"]["text"]
        assert rule["shortDescription"]["text"].endswith(".")
        assert rule["defaultConfiguration"]["level"] in {"error", "warning", "note"}
    for base in sarif["originalUriBaseIds"].values():
        assert base["uri"].startswith("file:///")
        assert base["uri"].endswith("/")
    assert len(sarif["results"]) == 2
    for result in sarif["results"]:
        check_result(result, driver["rules"], repository.parent)
    assert sarif["results"][-1]["locations"][0]["physicalLocation"]["region"] == {"startLine": 4}


def test_sarif_of_a_repository_elsewhere_is_relative_to_it(
    run: Run, repository: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (repository.parent / "here").mkdir()
    monkeypatch.chdir(repository.parent / "here")
    (sarif,) = json.loads(run("--format", "sarif", str(repository))[1])["runs"]
    place = sarif["results"][-1]["locations"][0]["physicalLocation"]["artifactLocation"]
    assert place == {"uri": "wrong/config.pbtxt", "uriBaseId": "REPOSITORY"}


def test_our_own_repository_is_clean_and_quick(run: Run, zoo_repository: Path) -> None:
    start = time.monotonic()
    assert run(str(zoo_repository), "--strict", columns=300)[:2] == (
        0,
        f"clean: nothing to say about {len(list(zoo_repository.iterdir()))} models\n",
    )
    assert time.monotonic() - start < 5


def test_a_fresh_clone_of_it_says_what_is_missing(run: Run, zoo_repository: Path, tmp_path: Path) -> None:
    """Only config.pbtxt is committed."""
    for path in zoo_repository.glob("*/config.pbtxt"):
        write(tmp_path / "clone" / path.parent.name, {"config.pbtxt": path.read_bytes()})
    code, out, err = run(str(tmp_path / "clone"), columns=300)
    assert (code, err) == (1, "")
    for path in zoo_repository.glob("*/config.pbtxt"):
        assert f"{path.parent.name} has no version folder" in out
    assert "warmup/image is not there" in out
    assert "labels.txt, which is not there" in out


def test_lint_imports_no_framework(root: Path) -> None:
    code = (
        "import sys; from tritonkit.repository import lint; from tritonkit.repository.lint import report, sarif; "
        "print([name for name in ('torch', 'onnxruntime', 'transformers', 'tensorrt_rtx') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=root)
    assert done.stdout.strip() == "[]"
