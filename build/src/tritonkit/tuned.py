"""What tuning measured of a configuration, kept beside the artifacts so that every build can say it in the passport.

Figures belong to one graph, one way of batching and one machine: where any of these differs, there are none.
`make tune` measures; here they are only kept and found.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from tritonkit import atomic, store
from tritonkit import recipe as recipes
from tritonkit.precision import gate
from tritonkit.recipe import Recipe, Target


def keep(recipe: Recipe, graph_sha256: str, target: Target, figures: dict[str, Any]) -> None:
    """Keep the figures of what ``recipe`` says, instead of older ones.

    Args:
        recipe: Whose ``batching`` was measured.
        graph_sha256: The graph that was served.
        target: Where it ran.
        figures: Plain data.
    """
    path = _place(recipe, graph_sha256, target)
    atomic.write(path, (json.dumps(figures, indent=2) + "\n").encode())


def find(recipe: Recipe, graph_sha256: str, target: Target) -> dict[str, Any] | None:
    """The figures of what ``recipe`` says, if it was tuned on this machine."""
    try:
        figures: dict[str, Any] = json.loads(_place(recipe, graph_sha256, target).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return figures if isinstance(figures, dict) else None


def _place(recipe: Recipe, graph_sha256: str, target: Target) -> Path:
    facts = {
        "model": recipe.name, "graph": graph_sha256, "target": target,
        "largest_batch": recipe.serving(target).max_batch_size,
        "batching": recipes.as_json(recipe)["batching"], "machine": gate.machine(),
    }  # fmt: skip
    return store.home() / "tuned" / f"{store.hash_of(facts)}.json"
