"""The part of ``tritonkit build`` and ``init`` that is about language models: recipes with an ``engine``."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tritonkit.cli.output import make_table, out, print_json, write_recipe
from tritonkit.errors import InputError
from tritonkit.recipe import LanguageRecipe, Recipe, image_of

if TYPE_CHECKING:
    from tritonkit.llm import Built
    from tritonkit.llm.checks import Checked


def check(options: argparse.Namespace, recipes: Sequence[LanguageRecipe], others: Sequence[Recipe]) -> list[Checked]:
    """Refuse what cannot be built, before other models of the same command are exported.

    Raises:
        TritonkitError: An option, a name or a recipe does not fit.
    """
    from tritonkit import llm, pipeline

    for option in ("precision", "force", "all_variants", "fallback"):
        if getattr(options, option) and not others:
            raise InputError(
                f"--{option.replace('_', '-')} is not for language models",
                "a recipe with an engine says dtype, quantization and kv_cache_dtype",
            )
    if not options.mounted_at.startswith("/"):
        raise InputError(
            f"--mounted-at {options.mounted_at} is no absolute path", "engines take no other: --mounted-at /models"
        )
    return llm.check(recipes, {name: other.path for other in others for name in pipeline.names(other)})


def build(options: argparse.Namespace, checked: Sequence[Checked]) -> int:
    """Lay the models out and say what they are."""
    if options.json:
        print_json({"repository": str(options.repository), "language_models": as_json(options, checked)})
        return 0
    built = _build(options, checked)
    table = make_table("model", "engine", "context", "weights", "KV cache, a token", "")
    for name, model in built.models.items():
        table.add_row(
            name, model.engine, f"{model.max_model_len:,}", f"{model.weights_bytes / 1e6:,.1f} MB",
            f"{model.kv_cache.bytes_per_token:,} B", "written" if name in built.written else "unchanged",
        )  # fmt: skip
    out.print(table)
    for name, model in built.models.items():
        for note in model.notes:
            out.print(f"{name}: {note}", soft_wrap=True, markup=False)
    if built.kept:
        out.print(
            f"left as it is, as tritonkit did not write it: {', '.join(built.kept)}", soft_wrap=True, markup=False
        )
    images = ", ".join(sorted({image_of(entry.recipe.engine) for entry in checked}))
    state = "written" if built.written else "up to date"
    out.print(
        f"\n{options.repository} is {state}; next: run it in {images}, with the repository at {options.mounted_at} "
        "(docs/guides/llm.md)", soft_wrap=True, markup=False,
    )  # fmt: skip
    return 0


def as_json(options: argparse.Namespace, checked: Sequence[Checked]) -> dict[str, Any]:
    """Build, and what came of it as plain data."""
    return _build(options, checked).as_json()


def _build(options: argparse.Namespace, checked: Sequence[Checked]) -> Built:
    from tritonkit import llm

    return llm.build(checked, options.repository, mounted=options.mounted_at, overwrite=options.overwrite)


def init(options: argparse.Namespace) -> int:
    """Write a first recipe for a directory with a model that generates text."""
    from tritonkit.llm import sketch

    name, text = sketch.recipe(Path(options.model), (options.output or Path("recipe.yaml")).absolute().parent)
    write_recipe(options.output or Path(f"{name}.yaml"), text)
    return 0
