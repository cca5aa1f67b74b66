"""What every command prints, for values that its formats have no word for, and output that cannot be written."""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tritonkit import cli
from tritonkit.cli.output import make_table, out, print_json, run_command
from tritonkit.errors import CheckFailed


def strict(text: str) -> Any:
    """JSON as RFC 8259 has it: Python's own parser takes NaN, Infinity and half of a surrogate pair too."""

    def refuse(word: str) -> None:
        raise AssertionError(f"{word} is not JSON")

    data = json.loads(text, parse_constant=refuse)
    json.dumps(data, ensure_ascii=False).encode()
    return data


@pytest.fixture
def odd_repository(tmp_path: Path) -> Path:
    """A model whose folder's name is no text."""
    folder = Path(os.fsdecode(os.fsencode(tmp_path) + b"/models/odd\xff"))
    (folder / "1").mkdir(parents=True)
    (folder / "config.pbtxt").write_text('backend: "python"\n')
    return tmp_path / "models"


def test_numbers_that_json_does_not_have_are_spelled(capsys: pytest.CaptureFixture[str]) -> None:
    print_json({"scores": [math.nan, math.inf, (-math.inf, 1.5)]})
    assert strict(capsys.readouterr().out) == {"scores": ["NaN", "Infinity", ["-Infinity", 1.5]]}


def test_a_table_cuts_nothing_off(capsys: pytest.CaptureFixture[str]) -> None:
    name = "/encoder/layer.0/attention" * 10
    table = make_table("node", "share")
    table.add_row(name, "1.0%")
    out.print(table)
    assert name in "".join(capsys.readouterr().out.replace("1.0%", "").split())


def test_file_names_that_are_no_text_are_printed_in_every_format(
    odd_repository: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for arguments in (
        ["lint"],
        ["lint", "--json"],
        ["lint", "--format", "sarif"],
        ["passport", "--json", "--repository"],
    ):
        assert cli.main([*arguments, str(odd_repository)]) in (0, 1)
        printed = capsys.readouterr().out
        assert "odd" in printed.replace("\n", "")  # a long path is wrapped
        if arguments != ["lint"]:
            assert "xff" in printed or "%FF" in printed or "udcff" in printed
            strict(printed)


@pytest.mark.parametrize(
    ("where", "words"), [(">/dev/full", "No space left"), (">&-", "the standard output is closed")]
)
def test_output_that_cannot_be_written_is_an_error(odd_repository: Path, where: str, words: str) -> None:
    command = f"{sys.executable} -c 'from tritonkit.cli import main; exit(main())' lint --json {odd_repository} {where}"
    done = subprocess.run(["bash", "-c", command], capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert done.stderr.startswith("error: ")
    assert words in done.stderr


@pytest.mark.parametrize(
    ("error", "code", "words"),
    [
        (
            TypeError("Inferred elem type differs\nfrom it"),
            70,
            ["TypeError: Inferred elem type differs (in test_output.py"],
        ),
        (OSError("no space"), 2, ["no space"]),
        (CheckFailed("it is slower", "leave it"), 1, ["it is slower", "fix: leave it"]),
    ],
)
def test_an_error_is_a_line_and_a_traceback_only_for_who_wants_it(
    error: Exception, code: int, words: list[str], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("TRITONKIT_DEBUG", raising=False)

    def command() -> int:
        raise error

    for debug, switch in ((None, "TRITONKIT_DEBUG=1"), (False, "--debug")):
        assert run_command(command, debug=debug) == code
        printed = capsys.readouterr().err
        assert "Traceback" not in printed
        assert all(word in printed for word in words)
        assert code != 70 or switch in printed, "the fix leads on to the traceback"
    with pytest.raises(type(error)):
        run_command(command, debug=True)
    monkeypatch.setenv("TRITONKIT_DEBUG", "1")
    with pytest.raises(type(error)):
        run_command(command)


# A child that Locust's users are kept by, and the way to verbs that turn errors into exit codes themselves.
_ALONE = {"supervisor.py", "__main__.py"}


def test_no_script_shows_a_traceback_unasked(root: Path) -> None:
    places = [path for folder in ("loadtests", "helm") for path in (root / folder).rglob("*.py")]
    scripts = [
        path for path in places if "sys.exit(main" in (text := path.read_text()) or "sys.exit(run_command" in text
    ]
    assert len(scripts) > 10
    bare = [path.name for path in scripts if "run_command(" not in path.read_text()]
    assert set(bare) == _ALONE
