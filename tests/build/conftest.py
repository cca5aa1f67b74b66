"""A project of a user's own, with a store of its own."""

from __future__ import annotations

from pathlib import Path

import pytest
from support import Project


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Project:
    home = tmp_path / "home"
    monkeypatch.setenv("TRITONKIT_HOME", str(home))
    monkeypatch.setenv("COLUMNS", "300")
    directory = tmp_path / "a project"
    directory.mkdir()
    return Project(directory, capsys, home)
