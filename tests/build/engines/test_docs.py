"""docs/guides/engines.md: its commands run, and its tables know every verdict, option and comparison."""

from __future__ import annotations

import argparse
import re
import shlex
from pathlib import Path
from typing import get_args

import pytest
from support import Project

from tritonkit.cli import engine
from tritonkit.cli.arguments import Parser
from tritonkit.engines import preflight

PAGE = (Path(__file__).parents[3] / "docs/guides/engines.md").read_text(encoding="utf-8")


def test_every_command_runs_and_the_first_prints_the_table(
    project: Project, zoo_repository: Path, minilm: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (project.directory / "all_minilm_l6_v2.onnx").symlink_to(minilm)
    (project.directory / "model_repository").symlink_to(zoo_repository)
    monkeypatch.chdir(project.directory)
    (block,) = re.findall(r"^```bash\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)
    (table,) = re.findall(r"^```text\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)
    outputs = []
    for command in block.splitlines():
        program, *arguments = shlex.split(command)
        assert program == "tritonkit"
        code, printed, error = project.run(*arguments)
        assert code == 0, error
        outputs.append(printed)
    rows = [line.split()[:6] for line in outputs[0].splitlines()]  # the columns that no clock decides
    assert rows[: len(table.splitlines())] == [line.split()[:6] for line in table.splitlines()]
    assert "fp32 on h100: tensorrt_rtx" in outputs[0]
    assert "target: cpu" in outputs[1]
    assert "may run here" in outputs[2]


def test_every_verdict_and_option_is_explained() -> None:
    for status in get_args(preflight.Status):
        assert f"| `{engine._WORDS.get(status, status)}` |" in PAGE
    parser: argparse.ArgumentParser = Parser()
    engine.add(parser.add_subparsers(), argparse.ArgumentParser(), argparse.ArgumentParser(add_help=False))
    helped = parser._subparsers._group_actions[0].choices["engine"].format_help()  # type: ignore[union-attr, index]
    options = set(re.findall(r"^  (?:-\w, )?(--[a-z-]+)", helped, re.MULTILINE)) - {"--help", "--version"}
    assert len(options) > 8
    assert all(f"{option}" in PAGE for option in options)
