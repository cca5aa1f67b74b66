"""What an engine is built of: a graph, the precision that it claims, and its profiles; from a recipe or a bare file."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import onnx

from tritonkit import graph, graph_inspection
from tritonkit.engines import check, profiles
from tritonkit.errors import InputError
from tritonkit.recipe import PRECISIONS, Precision, Recipe
from tritonkit.repository import model_directory
from tritonkit.repository.model_directory import ENGINE_GRAPH, PASSPORT

_NARROWEST_FIRST: tuple[Precision, ...] = ("fp8", "int8", "fp16")


@dataclass(frozen=True)
class Job:
    """An engine that is to be built.

    Attributes:
        model: The model's name, for the passport.
        graph: An ONNX file.
        precision: What the graph claims to be; it is proved before anything is built.
        profiles: Its optimization profiles, in order.
    """

    model: str
    graph: Path
    precision: Precision
    profiles: tuple[profiles.Profile, ...]


def from_recipe(recipe: Recipe, precisions: Sequence[Precision]) -> list[Job]:
    """A recipe's graphs for TensorRT, one for each precision; they are made if the store does not have them."""
    from tritonkit.precision import variants

    shapes = tuple(profiles.from_recipe(recipe))
    graphs: Mapping[str, Path] = variants.graphs(recipe, target="tensorrt", precisions=list(precisions))
    return [Job(recipe.name, graphs[precision], precision, shapes) for precision in precisions]


def from_onnx(
    path: Path, precision: Precision | None, ranges: Mapping[str, profiles.Bounds], max_batch_size: int
) -> Job:
    """A bare graph; without ``precision``, what the graph itself looks like.

    Raises:
        GraphError: The file is no valid ONNX model.
        InputError: A range is missing, or names a dimension that the graph does not have.
    """
    signature = graph.read_signature(path)
    shapes = tuple(profiles.from_graph(signature, ranges, max_batch_size))
    return Job(_model_name(path), path, precision or claimed(path), shapes)


def from_directory(directory: Path, precision: Precision | None) -> tuple[Job, Recipe, Path]:
    """The engine of a model in a repository that `tritonkit build --target tensorrt` laid out.

    Args:
        directory: The model's directory; its ``passport.json`` has the recipe, its newest version the graph.
        precision: What the graph claims to be; what the passport says if not given.

    Returns:
        What to build, the recipe, and the folder where Triton looks for the plan.

    Raises:
        InputError: The directory is not laid out so.
    """
    passport = check.read_model(directory)
    recipe_data = passport.recipe if passport else None
    folders = [directory / str(version) for version in model_directory.versions(directory)]
    versions = [folder for folder in folders if (folder / ENGINE_GRAPH).is_file()]
    if not versions or passport is None or recipe_data is None:
        raise InputError(
            f"{directory} has no {ENGINE_GRAPH} with a passport to build an engine from",
            "lay it out with `tritonkit build RECIPE --target tensorrt`, or name an ONNX file",
        )
    version = versions[-1]
    try:
        recipe = Recipe.model_validate(recipe_data)
    except ValueError as error:
        raise InputError(f"{directory / PASSPORT}: {error}", "build the model again") from error
    if not (precision or passport.precision):
        raise InputError(f"{directory / PASSPORT}: precision: it names none", "build the model again")
    claim = precision or parse_precisions(passport.precision)[0]
    shapes = tuple(profiles.from_recipe(recipe))
    return Job(directory.name, version / ENGINE_GRAPH, claim, shapes), recipe, version


def _model_name(path: Path) -> str:
    """The file's name; in a model repository (``NAME/1/model.onnx``) the model's."""
    parts = path.absolute().parts
    return parts[-3] if len(parts) > 3 and model_directory.is_version(parts[-2]) else path.stem


def claimed(path: Path) -> Precision:
    """The precision that a graph looks like: the narrowest of fp8, int8 and fp16 that occurs in it, else fp32."""
    there = graph_inspection.precisions(onnx.load(path, load_external_data=False).graph)
    return next((precision for precision in _NARROWEST_FIRST if precision in there), "fp32")


def parse_precisions(text: str) -> list[Precision]:
    """``fp16,int8`` as words of a recipe.

    Raises:
        InputError: A word is not a precision.
    """
    known = {str(name): name for name in PRECISIONS}
    words = [word.strip().lower() for word in text.split(",")]
    if unknown := [word for word in words if word not in known]:
        raise InputError(f"there is no precision {unknown[0]!r}", f"known are {', '.join(known)}")
    return list(dict.fromkeys(known[word] for word in words))
