"""What is wrong in a recipe, in a person's words: each problem with its line, its value, and what belongs there.

It knows how pydantic reports; which keys and bounds there are is for the recipes themselves.
"""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence
from itertools import takewhile
from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel, ValidationError

from tritonkit.errors import RecipeError
from tritonkit.recipe.forest import Fil, ForestRecipe, ForestSource
from tritonkit.recipe.language import ENGINES, GenerationDefaults, LanguageRecipe, TokenSlo
from tritonkit.recipe.model import Recipe
from tritonkit.recipe.sections import (
    NAME_PATTERN,
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
_ENGINES = (*ENGINES, "fil")
# What stands behind a key, by the parts of its place that are the recipe's own words; a name of the user's is "*".
_EXAMPLES: dict[tuple[str, ...], str] = {
    ("source",): "module:function, file.py:function, {onnx: FILE} or {hf: DIRECTORY}",
    ("inputs",): "{NAME: {dtype: fp32, dims: [3, 224, 224]}}",
    ("inputs", "*"): "{dtype: fp32, dims: [3, 224, 224]}",
    ("outputs",): "{NAME: {dtype: fp32, dims: [1000]}}",
    ("outputs", "*"): "{dtype: fp32, dims: [1000]}",
    ("shapes",): "{DIMENSION: {min: 1, opt: 16, max: 128}}",
    ("shapes", "*"): "{min: 1, opt: 16, max: 128}",
    ("shapes", "*", "pad", "*"): "a number, or true or false",
    ("accuracy",): "{cosine: 0.99}",
    ("slo",): "{p99_ms: 50}",
    ("traffic",): "{1: 90, 2: 10}",
    ("batching",): "{max_queue_delay_us: 1000, instances: 2}",
    ("calibration",): "{samples: 128}",
    ("python", "packages", "*"): "name==version, for example pillow==13.0.0",
}
_OTHER_EXAMPLES: dict[type[BaseModel], dict[tuple[str, ...], str]] = {
    ForestRecipe: {("source",): "module:function, file.py:function or {trees: FILE}"},
    LanguageRecipe: {("source",): "{hf: DIRECTORY}", ("slo",): "{ttft: {p99_ms: 500}}"},
}
_DIM = "a size from 1 on, or the name of a dimension that `shapes` bounds (letters, digits and _)"
_NAME = "letters, digits, _, . and -, and no . or - in front"
_BOUNDS = {
    "greater_than_equal": "at least",
    "less_than_equal": "at most",
    "greater_than": "above",
    "less_than": "below",
}
_KINDS = {"string": "text", "int": "a whole number", "float": "a number", "bool": "true or false"}


def explain(path: Path, node: yaml.Node | None, error: ValidationError, kind: type[BaseModel]) -> RecipeError:
    """All problems of a recipe as one error, each with its line.

    Args:
        path: The recipe's file.
        node: The document in it.
        error: What pydantic says.
        kind: The recipe's class.
    """
    items = error.errors()
    places = [_place(item["loc"]) for item in items]
    problems: list[str] = []
    fixes: list[str] = []
    unions: set[tuple[int | str, ...]] = set()
    for item, keys in zip(items, places, strict=True):
        if any(len(other) > len(keys) > 0 and other[: len(keys)] == keys for other in places):
            continue  # "needs an item" of a list whose items are what is wrong
        if keys != item["loc"]:  # of a union, every branch has its say: the first has the whole value
            if keys in unions:
                continue
            unions.add(keys)
        message = item["msg"].removeprefix("Value error, ")
        if item["type"] == "extra_forbidden" and keys == item["loc"]:
            known = _known_keys(kind, keys[:-1])
            near = difflib.get_close_matches(str(keys[-1]), known, n=1)
            message = "unknown key" + (f", did you mean {near[0]!r}?" if near else "")
            fixes.append(f"keys known here: {', '.join(known)}")
        elif item["type"] != "value_error":
            message = in_words(item, keys, _EXAMPLES | _OTHER_EXAMPLES.get(kind, {}))
        where = f"{path}:{line(node, keys)}: {'.'.join(map(str, keys))}" if keys else str(path)
        problems.append(f"{where}: {message}")
    return RecipeError("\n".join(dict.fromkeys(problems)), fixes[0] if fixes else _fix(places))


def check_engine(path: Path, node: yaml.Node | None, data: Mapping[str, object]) -> None:
    """Refuse an ``engine`` that nobody has, before the rest is held against a recipe that it is not.

    Raises:
        RecipeError: There is no such engine; the message has the line.
    """
    engine = data.get("engine", _ENGINES[0])
    if engine not in _ENGINES:
        near = difflib.get_close_matches(str(engine), _ENGINES, n=1)
        raise RecipeError(
            f"{path}:{line(node, ['engine'])}: engine: there is no engine {engine!r}"
            + (f", did you mean {near[0]!r}?" if near else ""),
            "vllm and tensorrt_llm are for language models, fil is for forests; a model of PyTorch or an ONNX graph "
            "has no engine: --target says what runs it",
        )


def line(node: yaml.Node | None, keys: Sequence[int | str]) -> int:
    """The 1-based line of the deepest key of ``keys`` that the document has."""
    number = 1
    for key in keys:
        child: tuple[yaml.Node, yaml.Node] | None = None
        if isinstance(node, yaml.MappingNode):
            child = next((pair for pair in node.value if pair[0].value == str(key)), None)
        elif isinstance(node, yaml.SequenceNode) and isinstance(key, int) and key < len(node.value):
            child = (node.value[key], node.value[key])
        if child is None:
            break
        number, node = child[0].start_mark.line + 1, child[1]
    return int(number)


def _fix(places: Sequence[tuple[int | str, ...]]) -> str:
    return "correct the recipe at that line" if any(places) else "correct the recipe"


def _place(location: Sequence[int | str]) -> tuple[int | str, ...]:
    """Where a problem is, as the recipe has it: without the branch of a union that pydantic tried."""
    return tuple(takewhile(lambda part: not _is_union_branch(part), location))


def _is_union_branch(part: int | str) -> bool:
    return isinstance(part, str) and (
        part in {"str", "constrained-str", "constrained-int", "int", "float", "bool", "OnnxSource", "HfSource",
                 "ForestSource"}
        or "[" in part
    )  # fmt: skip


def in_words(
    item: Mapping[str, Any], keys: tuple[int | str, ...], examples: Mapping[tuple[str, ...], str] | None = None
) -> str:
    """One problem that pydantic has a programmer's words for.

    Args:
        item: One of a ``ValidationError``'s errors.
        keys: Its place, without the branches of unions.
        examples: What stands behind a key, by its place; ``*`` is any name.
    """
    example = _example(keys, examples or {})
    if item["type"] == "missing" and keys == item["loc"]:
        return f"required, and not there{f'; for example  {keys[-1]}: {example}' if example else ''}"
    shown = _shown(item["input"])
    if item["type"] in _BOUNDS and keys == item["loc"]:
        return f"must be {_BOUNDS[item['type']]} {next(iter(item['ctx'].values())):g}, got {shown}"
    if "dims" in keys and keys[-1] != "dims":
        return f"{shown} is no dimension: {_DIM}"
    if item["type"] in {"tuple_type", "list_type"}:
        return f"a list belongs here, got {shown}; write  {keys[-1]}: [{shown}]"
    if item["type"] == "too_short" and (keys[-1] not in {"inputs", "outputs"}):
        return f"at least {item['ctx']['min_length']} must be named, got {shown}"
    if item["type"] == "literal_error":
        known = str(item["ctx"]["expected"])
        words = known.replace("'", "").replace(" or ", ", ").split(", ")
        near = difflib.get_close_matches(str(item["input"]), words, n=1)
        return f"{shown} is none of {known}" + (f"; did you mean {near[0]!r}?" if near else "")
    if item["type"] == "string_pattern_mismatch" and example:
        return f"{shown} is not {example}"
    if item["type"] == "string_pattern_mismatch":
        pattern = str(item["ctx"]["pattern"])
        return f"{shown} is no name: {_NAME if pattern == NAME_PATTERN else f'it is to match {pattern}'}"
    if example:
        wrong = "there is nothing here" if item["input"] is None else f"{shown} does not belong here"
        return f"{wrong}; write  {keys[-1]}: {example}"
    expected = _KINDS.get(str(item["type"]).partition("_")[0])
    return f"{expected} belongs here, got {shown}" if expected else str(item["msg"])


def _example(keys: Sequence[int | str], examples: Mapping[tuple[str, ...], str]) -> str:
    patterns = (pattern for pattern in examples if len(pattern) == len(keys))
    matches = (p for p in patterns if all(part in {"*", key} for part, key in zip(p, keys, strict=True)))
    match = next(matches, None)
    return examples[match] if match else ""


def _shown(value: object) -> str:
    """A value as the recipe has it, cut where it is long."""
    text = "nothing" if value is None else yaml.safe_dump(value, default_flow_style=True, width=1000).strip()
    text = text.removesuffix("\n...").strip()
    return text if len(text) <= 60 else f"{text[:57]}..."


def _known_keys(kind: type[BaseModel], parents: Sequence[int | str]) -> list[str]:
    model = _SECTIONS[kind].get(str(parents[0]), kind) if parents else kind
    if model is TokenSlo and len(parents) > 1:
        model = Percentiles
    return sorted(name for name in model.model_fields if name != "path")
