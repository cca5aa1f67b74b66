"""Reads a recipe's YAML file; what is wrong in it is said with its line."""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence
from pathlib import Path

import yaml
from pydantic import BaseModel, ValidationError

from tritonkit.errors import RecipeError
from tritonkit.recipe.forest import Fil, ForestRecipe, ForestSource
from tritonkit.recipe.language import GenerationDefaults, LanguageRecipe, TokenSlo
from tritonkit.recipe.model import Recipe
from tritonkit.recipe.sections import (
    Batching,
    Calibration,
    HfSource,
    OnnxSource,
    OutputSpec,
    Percentiles,
    Python,
    Range,
    Slo,
    TensorSpec,
    Text,
)
from tritonkit.unique_keys import UniqueKeyLoader

_GRAPH_SECTIONS: dict[str, type[BaseModel]] = {
    "inputs": TensorSpec,
    "outputs": OutputSpec,
    "shapes": Range,
    "batching": Batching,
    "calibration": Calibration,
    "slo": Slo,
    "text": Text,
    "python": Python,
    "source": OnnxSource,
}
_SECTIONS: dict[type[BaseModel], dict[str, type[BaseModel]]] = {
    Recipe: _GRAPH_SECTIONS,
    ForestRecipe: _GRAPH_SECTIONS | {"fil": Fil, "source": ForestSource},
    LanguageRecipe: {"source": HfSource, "generation": GenerationDefaults, "slo": TokenSlo},
}
# Tags of the newest images of each engine whose versions server/docs/introduction/compatibility.md names.
IMAGES = {"vllm": "26.07-vllm-python-py3", "tensorrt_llm": "26.07-trtllm-python-py3"}


def load(path: Path) -> Recipe:
    """Read the recipe of a model that ONNX Runtime, TensorRT or FIL runs.

    Raises:
        RecipeError: The file is missing or is no YAML mapping, or a value is not allowed; the message
            has the line and, for an unknown key, the nearest known one. Or it is a language model's.
    """
    recipe = load_any(path)
    if isinstance(recipe, LanguageRecipe):
        raise RecipeError(
            f"{path}: {recipe.name} is a language model (engine: {recipe.engine}), which only `tritonkit build`, "
            "`lint` and `publish` take so far",
            f"build it and run it in {image_of(recipe.engine)}: docs/llm.md",
        )
    return recipe


def load_graph(path: Path) -> Recipe:
    """Read the recipe of a model that has an ONNX graph.

    Raises:
        RecipeError: As :func:`load`, or it is a forest's.
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
        fix = f"name a recipe, or write one: tritonkit init {path}" if path.is_dir() else "check the path"
        raise RecipeError(f"cannot read recipe {path}: {error}", fix) from error
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
    kind = _kind(data)
    try:
        return kind.model_validate({**data, "path": path})
    except ValidationError as error:
        raise _explain(path, node, error, kind) from error


def _kind(data: Mapping[str, object]) -> type[Recipe | LanguageRecipe]:
    """Which recipe a file is, by its ``engine``; one that only lacks it is told so by the forest's own source."""
    if data.get("engine") == "fil" or ("engine" not in data and "trees" in str(data.get("source"))):
        return ForestRecipe
    return LanguageRecipe if "engine" in data else Recipe


def image_of(engine: str) -> str:
    """NVIDIA's image that has an engine, with the newest release whose contents are known (docs/llm.md)."""
    return f"nvcr.io/nvidia/tritonserver:{IMAGES[engine]}"


def _explain(path: Path, node: yaml.Node | None, error: ValidationError, kind: type[BaseModel]) -> RecipeError:
    """All problems of a recipe as one error, each with its line."""
    problems = []
    fixes = []
    for item in error.errors():
        keys = [part for part in item["loc"] if not _is_union_branch(part)]
        where = ".".join(str(part) for part in keys) or "recipe"
        message = item["msg"].removeprefix("Value error, ")
        if item["type"] == "extra_forbidden":
            known = _known_keys(kind, keys[:-1])
            near = difflib.get_close_matches(str(keys[-1]), known, n=1)
            message = "unknown key" + (f", did you mean {near[0]!r}?" if near else "")
            fixes.append(f"keys known here: {', '.join(known)}")
        line = _line(node, keys)
        text = f"{path}:{line}: {where}: {message}"
        if text not in problems:
            problems.append(text)
    return RecipeError("\n".join(problems), fixes[0] if fixes else "correct the recipe at that line")


def _is_union_branch(part: int | str) -> bool:
    """Pydantic puts the branch of a union it tried into an error's location; a reader has no use for it."""
    return isinstance(part, str) and (
        part in {"str", "constrained-str", "int", "OnnxSource", "HfSource", "ForestSource"} or "[" in part
    )


def _known_keys(kind: type[BaseModel], parents: Sequence[int | str]) -> list[str]:
    model = _SECTIONS[kind].get(str(parents[0]), kind) if parents else kind
    if model is TokenSlo and len(parents) > 1:
        model = Percentiles
    return sorted(name for name in model.model_fields if name != "path")


def _line(node: yaml.Node | None, keys: Sequence[int | str]) -> int:
    """The 1-based line of the deepest key of ``keys`` that the document has."""
    line = 1
    for key in keys:
        child: tuple[yaml.Node, yaml.Node] | None = None
        if isinstance(node, yaml.MappingNode):
            child = next((pair for pair in node.value if pair[0].value == str(key)), None)
        elif isinstance(node, yaml.SequenceNode) and isinstance(key, int) and key < len(node.value):
            child = (node.value[key], node.value[key])
        if child is None:
            break
        line, node = child[0].start_mark.line + 1, child[1]
    return int(line)


def line_in(path: Path, *keys: int | str) -> int:
    """The 1-based line of a key in a recipe's file: of the deepest of ``keys`` that it has."""
    try:
        return _line(yaml.compose(path.read_text(encoding="utf-8"), Loader=yaml.SafeLoader), keys)
    except (OSError, yaml.YAMLError):
        return 1
