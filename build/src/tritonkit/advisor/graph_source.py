"""What a recipe says of a graph that the advisor is asked about."""

from __future__ import annotations

from pathlib import Path
from typing import Any


def from_recipe(path: Path) -> tuple[str, Path, dict[str, Any], dict[str, int]]:
    """A recipe's name, its exported graph, what it says of the advisor's options, and its usual sizes.

    Raises:
        RecipeError: The recipe cannot be used, or has no graph.
    """
    from tritonkit import cached_export, gpus, recipe

    loaded = recipe.load_graph(path)
    artifact, _ = cached_export.exported(loaded)
    defaults: dict[str, Any] = {"precisions": tuple(loaded.precisions), "max_batch": max(1, loaded.max_batch_size)}
    if loaded.slo and loaded.slo.p99_ms:
        defaults["p99_ms"] = loaded.slo.p99_ms
    if loaded.gpus:
        defaults["gpus"] = tuple(dict.fromkeys(gpu for name in loaded.gpus for gpu in gpus.members(name)))
    return loaded.name, artifact.graph, defaults, {name: bounds.opt for name, bounds in loaded.shapes.items()}
