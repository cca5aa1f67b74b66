"""Forests of every kind, trained once."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import forests
import pytest
import yaml

from tritonkit.recipe import ForestRecipe, load


@pytest.fixture(scope="session")
def trained() -> dict[str, Any]:
    """Each kind's fitted model."""
    for package in ("treelite", "xgboost", "lightgbm", "sklearn"):
        pytest.importorskip(package)
    return {name: kind.train() for name, kind in forests.KINDS.items()}


def write_recipe(place: Path, name: str, features: int, columns: int, **changes: Any) -> ForestRecipe:
    """A forest's recipe in a folder, with some keys changed."""
    fields = {
        "engine": "fil",
        "name": name,
        "inputs": {"input__0": {"dtype": "fp32", "dims": [features]}},
        "outputs": {"output__0": {"dtype": "fp32", "dims": [columns]}},
    } | changes
    path = place / f"{name}.yaml"
    path.write_text(yaml.safe_dump(fields, sort_keys=False), encoding="utf-8")
    recipe = load(path)
    assert isinstance(recipe, ForestRecipe)
    return recipe
