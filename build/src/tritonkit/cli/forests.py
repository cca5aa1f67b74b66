"""The part of ``tritonkit build`` and ``init`` that is about forests of trees: recipes with ``engine: fil``."""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from tritonkit.cli.output import out, write_recipe
from tritonkit.errors import InputError
from tritonkit.recipe import ForestRecipe, Recipe

if TYPE_CHECKING:
    from tritonkit.built_model import BuiltModel


def check(options: argparse.Namespace, recipes: Sequence[Recipe]) -> None:
    """Refuse options that are for graphs, where only forests are built.

    Raises:
        InputError: Such an option is given.
    """
    if not recipes or not all(isinstance(recipe, ForestRecipe) for recipe in recipes):
        return
    for option in ("precision", "force", "all_variants", "fallback"):
        if getattr(options, option):
            raise InputError(
                f"--{option.replace('_', '-')} is not for forests, which FIL computes in fp32 alone", "leave it out"
            )


def print_facts(models: Mapping[str, BuiltModel]) -> None:
    """What each forest is, whose answers it was compared with, and what its user should know."""
    for name, model in models.items():
        if model.forest is None or model.parity is None:
            continue
        forest, parity = model.forest, model.parity
        text = f"{name}: {forest.task}, {forest.trees} trees of depth {forest.depth}, {forest.prediction}"
        if parity.library:
            text += (
                f"; equal to {parity.library} {parity.version} on {parity.real_rows} samples and "
                f"{parity.probe_rows} rows of its own thresholds"
            )
        out.print(text, soft_wrap=True, markup=False)
        for note in forest.notes:
            out.print(f"{name}: {note}", soft_wrap=True, markup=False)


def init(options: argparse.Namespace, model: object | None = None) -> int:
    """Write a first recipe for a forest's file, or for what a function returned.

    Args:
        options: The command's arguments.
        model: A fitted model that the function returned.

    Raises:
        TritonkitError: It is no forest that the backend serves, or the place is taken.
    """
    from tritonkit import initialise
    from tritonkit.trees import sketch

    if options.input:
        raise InputError("--input is not for forests, which say what they take", "leave it out")
    directory = (options.output or Path("recipe.yaml")).absolute().parent
    if model is None:
        name, text = sketch.of_file(Path(options.model), directory)
    else:
        reference = initialise.reference(options.model, directory)
        name, text = sketch.of_model(model, reference, initialise.name_of_reference(reference))
    write_recipe(options.output or Path(f"{name}.yaml"), text)
    return 0
