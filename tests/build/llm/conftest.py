"""Tiny language models, made once."""

from __future__ import annotations

from pathlib import Path

import pytest
from languagemodels import save


@pytest.fixture(scope="session")
def llama(tmp_path_factory: pytest.TempPathFactory) -> Path:
    pytest.importorskip("transformers")
    return save(tmp_path_factory.mktemp("llm") / "llama")
