"""Files of forests that a FIL backend's configuration names: their format, and where treelite is here, their size."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from tritonkit.errors import TritonkitError
from tritonkit.repository.lint.contents import Model, is_file
from tritonkit.server.backends.fil.forest_inference import DEFAULT_TYPE, FILES
from tritonkit.trees import files, forest
from tritonkit.trees.files import ForestFile
from tritonkit.trees.forest import Shape

BACKEND = "fil"


@dataclass(frozen=True)
class Read:
    """A forest's file as far as it could be read.

    Attributes:
        path: Where it is, or should be.
        file: Its format; None where it has none that is known.
        shape: Its size; None where treelite is not installed or does not read it.
        postprocessor: treelite's name of what is done with its sums.
        problem: Why there is no format or size; empty where nobody looked.
        fix: What to do about it.
    """

    path: Path
    file: ForestFile | None = None
    shape: Shape | None = None
    postprocessor: str = ""
    problem: str = ""
    fix: str = ""


def parameters(model: Model) -> dict[str, str]:
    """The configuration's parameters, name to text."""
    return {name: value.string_value for name, value in model.config.parameters.items()}


def model_type(model: Model) -> str:
    """The file's format, as the configuration names it."""
    return parameters(model).get("model_type", DEFAULT_TYPE)


def read(model: Model) -> Iterator[Read]:
    """The file of each loaded version of a FIL model."""
    if model.served.backend != BACKEND or model_type(model) not in FILES:
        return
    name = model.config.default_model_filename or FILES[model_type(model)]
    for number in model.loaded:
        path = model.version(number) / name
        if is_file(path):
            stat = path.stat()
            yield _read(path, stat.st_mtime_ns, stat.st_size)
        else:
            yield Read(path)


@lru_cache(maxsize=256)
def _read(path: Path, _modified_ns: int, _size: int) -> Read:
    try:
        file = files.read(path)
    except TritonkitError as error:
        return Read(path, problem=error.message, fix=error.fix)
    if importlib.util.find_spec("treelite") is None:
        return Read(path, file)
    try:
        loaded = forest.load(file)
    except TritonkitError as error:
        return Read(path, file, problem=error.message, fix=error.fix)
    return Read(path, file, forest.shape_of(loaded), loaded.postprocessor)
