"""docs/guides/precision.md: its commands run, its metrics are all there are, its numbers are the code's."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tritonkit import cli
from tritonkit.precision import metrics, variants

from .test_gate import recipe_with


def test_every_command_of_the_document_runs(
    root: Path, models_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    page = (root / "docs/guides/precision.md").read_text(encoding="utf-8")
    commands = re.findall(r"^\| `tritonkit ([^`]*)`", page, re.MULTILINE)
    assert len(commands) >= 6
    recipe = recipe_with(models_folder, "documented", precisions=["fp32", "int8"])
    monkeypatch.chdir(tmp_path)
    for command in commands:
        words = [str(recipe) if word == "RECIPE" else word for word in command.split()]
        assert cli.main(words) == 0, f"{command}: {capsys.readouterr().err}"


def test_the_document_names_every_metric_and_the_numbers_that_the_code_has(root: Path) -> None:
    page = (root / "docs/guides/precision.md").read_text(encoding="utf-8")
    assert all(f"`{name}`" in page for name in metrics.BUILT_IN)
    assert f"the next {variants.SELECTED} choose" in page
    assert f"at most {variants.EVALUATED} later ones" in page
    assert f"above {metrics.CONFIDENT}" in page
    assert "`cosine: 0.99` is the bound" in page
    assert metrics.DEFAULTS == {"cosine": 0.99}
