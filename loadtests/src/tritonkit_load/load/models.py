"""Finds the recipes that a verb is given, and lays out a repository with their models and nothing else.

Every verb names a model in the same way: by a recipe's file, wherever it lies, or by its name in ``build/recipes``.
"""

from __future__ import annotations

import contextlib
import os
import tempfile
from collections.abc import Collection, Iterable, Iterator, Sequence
from pathlib import Path

from tritonkit import pipeline
from tritonkit.cli.arguments import closest, did_you_mean
from tritonkit.errors import InputError
from tritonkit.recipe import ForestRecipe, LanguageRecipe, Recipe, load, load_any
from tritonkit.repository import layout, selection
from tritonkit.server import runtime
from tritonkit_load.load.target import Target

RECIPES = Path("build/recipes")
HELP = f"a recipe's file, or its name in {RECIPES}"


def recipe_path(model: str) -> Path:
    """The file of a recipe that is named by it, or by its name in ``build/recipes``.

    Raises:
        InputError: The file does not exist.
    """
    by_file = model.endswith((".yaml", ".yml")) or os.sep in model
    path = Path(model) if by_file else RECIPES / f"{model}.yaml"
    if not path.is_file():
        names = [path.stem for path in shipped()]
        candidates = (
            {str(other) for suffix in ("*.yaml", "*.yml") for other in path.parent.glob(suffix)} if by_file else names
        )
        suggestion = closest(model, candidates)
        known = ", ".join(names) or "none here"
        raise InputError(
            f"there is no recipe {path}{did_you_mean([suggestion] if suggestion else [])}",
            f"name a recipe's file (MODEL=path/to.yaml), or a recipe in {RECIPES}: {known}",
        )
    return path


def recipe_paths(names: Iterable[str]) -> list[Path]:
    """The files of these recipes, each once; of all with a graph in ``build/recipes`` if none is named.

    Raises:
        InputError: As :func:`recipe_path`.
    """
    return [recipe_path(name) for name in dict.fromkeys(names)] or [path for path in shipped() if _has_graph(path)]


def language_recipe(paths: Collection[Path]) -> LanguageRecipe | None:
    """The recipe, if it is a language model's; None where all are of tensors.

    Raises:
        InputError: A language model is among several: its load is counted in tokens, and theirs is not.
        RecipeError: A file cannot be read.
    """
    language = [recipe for path in paths if isinstance(recipe := load_any(path), LanguageRecipe)]
    if language and len(paths) > 1:
        raise InputError(
            f"{language[0].name} is a language model, and no part of a mix", "name it alone: its load is in tokens"
        )
    return language[0] if language else None


def _has_graph(path: Path) -> bool:
    return not isinstance(load(path), ForestRecipe)


def shipped() -> list[Path]:
    """The files of all recipes in ``build/recipes``."""
    return sorted(RECIPES.glob("*.yaml"))


@contextlib.contextmanager
def repository_of(recipes: Sequence[Recipe], repository: Path | None, target: Target) -> Iterator[Path]:
    """A repository with the models of these recipes alone, for as long as the block.

    What their Python imports is installed for the embedded server.

    Args:
        recipes: Whose models are to be served.
        repository: Where they lie, built already. If None they are built, in a temporary place: what was exported and
            measured before comes from the store.
        target: What they run on.

    Raises:
        InputError: A model is not in the repository, or that is no directory.
        TritonkitError: A recipe cannot be built, or a package cannot be had.
        MissingError: The server is not installed; this is checked before anything is built.
    """
    installed = runtime.find()
    with tempfile.TemporaryDirectory(prefix="tritonkit-models-") as directory:
        place = Path(directory, "model_repository")
        if repository is None:
            pipeline.build(recipes, place, target)
        else:
            _link_models(recipes, repository, place, target)
        if packages := runtime.packages_of(place):
            runtime.install_packages(installed, packages)
        yield place


def _link_models(recipes: Sequence[Recipe], repository: Path, place: Path, target: Target) -> None:
    names = set()
    for recipe in recipes:
        if repository.is_dir() and not (repository / recipe.name / layout.CONFIG).is_file():
            raise InputError(
                f"{repository} has no model {recipe.name}",
                f"`tritonkit build {recipe.path} --target {target} --repository {repository}`, "
                "or leave --repository (REPOSITORY) out: the model is then built for the occasion",
            )
        names |= {name for name in pipeline.names(recipe) if (repository / name).exists()}
    selection.link(names, repository.resolve(), place)
