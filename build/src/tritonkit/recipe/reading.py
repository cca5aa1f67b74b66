"""Reads a recipe's YAML file; what is wrong in it is said with its line."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from pathlib import Path

import yaml
from pydantic import ValidationError

from tritonkit.errors import RecipeError
from tritonkit.recipe import problems
from tritonkit.recipe.forest import ForestRecipe
from tritonkit.recipe.language import LanguageRecipe
from tritonkit.recipe.model import Recipe
from tritonkit.unique_keys import UniqueKeyLoader

# Tags of the newest images of each engine whose versions server/docs/introduction/compatibility.md names.
IMAGES = {"vllm": "26.07-vllm-python-py3", "tensorrt_llm": "26.07-trtllm-python-py3"}


def load(path: Path) -> Recipe:
    """Read the recipe of a model that ONNX Runtime, TensorRT or FIL runs.

    Raises:
        RecipeError: The file is missing or is not a YAML mapping, a value is not allowed, or it is a language
            model's recipe. The message has the line and, for an unknown key, the nearest known one.
    """
    recipe = load_any(path)
    if isinstance(recipe, LanguageRecipe):
        raise RecipeError(
            f"{path}: {recipe.name} is a language model (engine: {recipe.engine}), which only `tritonkit build`, "
            "`lint` and `publish` take so far",
            f"build it and run it in {image_of(recipe.engine)}: docs/guides/llm.md",
        )
    return recipe


def load_graph(path: Path) -> Recipe:
    """Read the recipe of a model that has an ONNX graph.

    Raises:
        RecipeError: As :func:`load`, or it is a forest's recipe.
    """
    recipe = load(path)
    if isinstance(recipe, ForestRecipe):
        raise RecipeError(
            f"{path}: {recipe.name} is a forest of trees, which has no graph",
            "name another recipe; `tritonkit build`, `serve` and load tests take this one",
        )
    return recipe


def load_any(path: Path) -> Recipe | LanguageRecipe:
    """Read a recipe of any kind; its ``engine`` says which: a forest's is ``fil``, a graph's recipe has none.

    Raises:
        RecipeError: As :func:`load`.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise _unreadable(path, error) from error
    try:
        node = yaml.compose(text, Loader=UniqueKeyLoader)
        data = yaml.load(text, Loader=UniqueKeyLoader)
    except yaml.YAMLError as error:
        raise RecipeError(f"{path} is not valid YAML: {error}", "correct the syntax at that line") from error
    if not isinstance(data, dict):
        raise RecipeError(
            f"{path}: a recipe is a mapping with name, source, inputs and outputs",
            "`tritonkit init MODEL` writes one",
        )
    problems.check_engine(path, node, data)
    kind = _kind(data)
    try:
        return kind.model_validate({**data, "path": path})
    except ValidationError as error:
        raise problems.explain(path, node, error, kind) from error


def _unreadable(path: Path, error: OSError | UnicodeDecodeError) -> RecipeError:
    """The error of a file that cannot be read, with the nearest beside it or in a project's ``build/recipes``."""
    if path.is_dir():
        fix = f"name a recipe, or write one: tritonkit init {path}"
        return RecipeError(f"{path} is a directory, not a recipe", fix)
    if not isinstance(error, FileNotFoundError):
        return RecipeError(f"cannot read recipe {path}: {error}", "check the path")
    by_stem = {file.stem: file for folder in (Path("build/recipes"), path.parent) for file in folder.glob("*.y*ml")}
    near = difflib.get_close_matches(path.stem, by_stem, n=1, cutoff=0.7)
    meant = f"; did you mean {by_stem[near[0]]}?" if near else ""
    return RecipeError(f"there is no recipe {path}{meant}", "check the path, or write one: tritonkit init MODEL")


def _kind(data: Mapping[str, object]) -> type[Recipe | LanguageRecipe]:
    """Which recipe a file is, by its ``engine``; one that only lacks it is told so by the forest's own source."""
    if data.get("engine") == "fil" or ("engine" not in data and "trees" in str(data.get("source"))):
        return ForestRecipe
    return LanguageRecipe if "engine" in data else Recipe


def image_of(engine: str) -> str:
    """NVIDIA's image that has an engine, with the newest release whose contents are known (docs/guides/llm.md)."""
    return f"nvcr.io/nvidia/tritonserver:{IMAGES[engine]}"


def line_in(path: Path, *keys: int | str) -> int:
    """The 1-based line of a key in a recipe's file: of the deepest of ``keys`` that it has."""
    try:
        return problems.line(yaml.compose(path.read_text(encoding="utf-8"), Loader=yaml.SafeLoader), keys)
    except (OSError, yaml.YAMLError):
        return 1
