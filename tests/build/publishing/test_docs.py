"""docs/guides/publishing.md: its commands run, and it names every option."""

from __future__ import annotations

import argparse
import re
import shlex
from collections.abc import Callable
from pathlib import Path

import pytest
from s3store import Bucket
from support import Project

from tritonkit.cli import publish
from tritonkit.cli.arguments import Parser

PAGE = (Path(__file__).parents[3] / "docs/guides/publishing.md").read_text(encoding="utf-8")


def test_every_command_runs(
    project: Project, repository: Path, bucket: Bucket, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", bucket.endpoint)
    monkeypatch.chdir(tmp_path)
    assert project.run("publish", "s3://models/prod")[0] == 0  # ./model_repository; something to roll back to
    (repository / "double/labels.txt").write_text("new")
    (block,) = re.findall(r"^```bash\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)
    for command in block.splitlines():
        program, *arguments = shlex.split(command, comments=True)
        assert program == "tritonkit"
        code, _, error = project.run(
            *(word.replace("/models", str(tmp_path / "got")) if word == "/models" else word for word in arguments)
        )
        assert code == 0, error
    assert (tmp_path / "version.yaml").is_file()
    assert (tmp_path / "got/double/1/model.py").is_file()


def test_every_option_and_exit_code_is_explained() -> None:
    parser: argparse.ArgumentParser = Parser()
    report = argparse.ArgumentParser(add_help=False)
    report.add_argument("--json")
    publish.add(parser.add_subparsers(), argparse.ArgumentParser(), report)
    verbs: dict[str, Callable[[], str]] = parser._subparsers._group_actions[0].choices  # type: ignore[union-attr, assignment]
    assert set(verbs) == {"publish", "versions", "rollback", "fetch"}
    for name, verb in verbs.items():
        assert f"tritonkit {name}" in PAGE
        options = set(re.findall(r"(--[a-z-]+)", verb.format_help())) - {"--help", "--version"}  # type: ignore[attr-defined]
        assert all(option in PAGE for option in options), options
