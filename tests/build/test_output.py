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
from tritonkit.cli.output import make_table, out, print_json


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
        assert "odd" in printed
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
