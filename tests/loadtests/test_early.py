"""What cannot be measured is said at once, and not after minutes of building."""

from __future__ import annotations

from pathlib import Path

import pytest

from tritonkit import pipeline, recipe
from tritonkit.errors import InputError, MissingError
from tritonkit_load import capacity, demo, run, tune
from tritonkit_load.load import models
from tritonkit_load.load import slo as slos

NET = Path(__file__).parents[2] / "build/recipes/efficientnet_lite0.yaml"  # of a fixed size, in batches of up to 64


@pytest.fixture
def no_build(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A machine without the server, on which a build is a failure of the test."""
    monkeypatch.setenv("TRITONKIT_HOME", str(tmp_path / "home"))
    monkeypatch.setattr(pipeline, "build", lambda *_, **__: pytest.fail("it was built first"))


def verb(command: str, *arguments: str, monkeypatch: pytest.MonkeyPatch) -> int:
    monkeypatch.setattr("sys.argv", [command, *arguments])
    return int({"run": run, "capacity": capacity, "tune": tune, "demo": demo}[command].main())


@pytest.mark.usefixtures("no_build")
@pytest.mark.parametrize("command", ["run", "capacity", "tune", "demo"])
def test_a_server_that_is_not_installed_is_said_before_anything_is_built(
    command: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model = [] if command == "demo" else ["--model", str(NET)]
    monkeypatch.chdir(NET.parents[2])
    code = verb(command, *model, "--target", "cpu", "--reports", str(tmp_path), monkeypatch=monkeypatch)
    assert code == MissingError.exit_code
    assert "tritonkit install-server" in capsys.readouterr().err


@pytest.mark.usefixtures("no_build")
@pytest.mark.parametrize("command", ["run", "capacity", "tune"])
@pytest.mark.parametrize(
    ("arguments", "words"),
    [(["--lengths", "3"], "has 0 dynamic dimensions"), (["--batch-sizes", "100"], "at most 64 samples a request")],
)
def test_requests_a_model_does_not_take_are_refused_before_a_build(
    command: str,
    arguments: list[str],
    words: str,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    options = ["--model", str(NET), "--target", "cpu", "--reports", str(tmp_path), *arguments]
    assert verb(command, *options, monkeypatch=monkeypatch) == InputError.exit_code
    assert words in capsys.readouterr().err


@pytest.mark.usefixtures("no_build")
def test_a_demo_of_no_seconds_is_refused(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    assert verb("demo", "--step-s", "0", "--target", "cpu", monkeypatch=monkeypatch) == InputError.exit_code
    assert "between 0.5 and 600 seconds" in capsys.readouterr().err


@pytest.mark.usefixtures("no_build")
def test_a_repository_for_the_occasion_needs_a_server() -> None:
    with pytest.raises(MissingError), models.repository_of([recipe.load(NET)], None, "cpu"):
        pass


def test_a_bound_of_an_slo_is_answered_in_a_persons_words() -> None:
    for text, words in (("p99_ms=50ms", "p99_ms: a number belongs here, got 50ms"), ("p99_ms=-3", "must be above 0")):
        with pytest.raises(InputError, match=words):
            slos.parse(text)
