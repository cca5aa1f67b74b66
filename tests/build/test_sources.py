"""What loading a recipe's source file does to the program that loads it."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path

import pytest

from tritonkit import sources


def test_modules_that_the_program_itself_imported_stay(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "mine.py").write_text("def function(): ...\n")
    (tmp_path / "beside.py").write_text("")
    (tmp_path / "net.py").write_text("import beside\nimport mine\n\ndef load(): ...\n")
    monkeypatch.syspath_prepend(tmp_path)
    mine = importlib.import_module("mine")
    sources.resolve("net.py:load", tmp_path, "source")
    assert "beside" in sys.modules
    sources.forget()
    assert sys.modules.pop("mine") is mine
    assert "beside" not in sys.modules
