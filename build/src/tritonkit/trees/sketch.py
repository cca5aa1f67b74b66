"""Writes a first recipe for a forest, with what its file says of it."""

from __future__ import annotations

import tempfile
from pathlib import Path

from tritonkit import initialise
from tritonkit.recipe import FOREST_INPUT, FOREST_OUTPUT
from tritonkit.trees import files, forest, libraries
from tritonkit.trees.files import ForestFile


def of_file(path: Path, directory: Path) -> tuple[str, str]:
    """A name for the model, and the recipe's text.

    Args:
        path: The forest's file.
        directory: The folder that the recipe will lie in.

    Raises:
        SourceError: The file is not a forest that the backend serves.
        MissingError: treelite is not installed.
    """
    file = files.read(path)
    stem = path.stem if path.stem not in {"model", "xgboost", "checkpoint"} else path.resolve().parent.name
    return _text(file, initialise.model_name(stem), f"{{trees: {initialise.relative(path, directory)}}}")


def of_model(model: object, reference: str, name: str) -> tuple[str, str]:
    """As :func:`of_file`, for a fitted model that a function returned.

    Args:
        model: What it returned.
        reference: The function, as a recipe names it.
        name: The model's name to be.
    """
    with tempfile.TemporaryDirectory() as folder:
        file = files.read(libraries.save(model, Path(folder), reference))
        return _text(file, name, reference)


def _text(file: ForestFile, name: str, source: str) -> tuple[str, str]:
    shape = forest.shape_of(forest.load(file))
    kind = f"{shape.task}, {shape.trees} trees of depth {shape.depth}, {shape.nodes:,} nodes"
    written = f"{file.library} {file.version}".strip()
    predictions = ["probabilities", "classes"] if shape.classifies else []
    lines = [
        "# Build it with: tritonkit build THIS_FILE; docs/guides/trees.md has every key.",
        f"# {kind}; written by {written}.",
        "engine: fil",
        f"name: {name}",
        f"source: {source}",
        "inputs:   # a row in the order of the columns that it was trained on; NaN is a missing value",
        f"  {FOREST_INPUT}: {{dtype: fp32, dims: [{shape.features}]}}",
        "outputs:"
        + ("   # the probability of class 1; dims: [2] gives both" if shape.classes == 1 and predictions else ""),
        f"  {FOREST_OUTPUT}: {{dtype: fp32, dims: [{shape.classes}]}}",
    ]
    if shape.categorical:
        lines.insert(2, f"# Categories, as the codes of training: columns {', '.join(map(str, shape.categorical))}.")
    if predictions:
        lines.append("prediction: probabilities   # or classes: their numbers, with outputs of dims: [1]")
    if shape.task == "binary" and shape.classes == 1:
        lines.append("# threshold: 0.5   # with prediction: classes, the probability above which the class is 1")
    lines += [
        "# samples: my_module:function   # yields real rows, {input__0: row}, to compare on",
        "# slo: {p99_ms: 10}",
    ]
    return name, "\n".join(lines) + "\n"
