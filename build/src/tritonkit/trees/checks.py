"""Whether a forest fits its recipe, and whether the backend answers as the forest's own library does."""

from __future__ import annotations

import hashlib
import re
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tritonkit import samples, sources
from tritonkit.dependencies import sha256
from tritonkit.errors import CheckFailed, RecipeError, SourceError
from tritonkit.recipe import FOREST_INPUT, FOREST_OUTPUT, ForestRecipe, ForestSource, Prediction, line_in
from tritonkit.server.backends.fil.forest_inference import Settings
from tritonkit.trees import files, forest, libraries
from tritonkit.trees.files import ForestFile
from tritonkit.trees.forest import Forest, Rows, Shape
from tritonkit.trees.libraries import Reference

REAL_ROWS = 1000
CHECKPOINT = "treelite_checkpoint"
PROBE_ROWS = 500  # of the forest's own thresholds
_WORDS = {"binary": "a binary classifier", "multiclass": "a classifier", "isolation": "an isolation forest"}


@dataclass(frozen=True)
class Parity:
    """How far the backend's scores are from the library's own.

    Attributes:
        library: Whose scores they are compared with; empty for a checkpoint, which has no library of its own.
        version: Its version.
        real_rows: How many of the recipe's samples were compared.
        probe_rows: How many rows beside them were made of the forest's own thresholds, with missing values.
        absolute: The largest difference.
        relative: The largest difference over the largest score.
        changed_on_gpu: Rows whose score changes by more than the tolerance where thresholds are rounded to fp32, as the
            backend does on a GPU.
    """

    library: str
    version: str
    real_rows: int
    probe_rows: int
    absolute: float
    relative: float
    changed_on_gpu: int


@dataclass(frozen=True)
class Checked:
    """A recipe and its forest, which fit each other.

    Attributes:
        recipe: The recipe.
        file: The forest's file, as it was found.
        model_type: The format that is served.
        content: The served file's bytes, where it lies in no lasting file; else None.
        settings: The parameters that the backend gets.
        prediction: What it answers with.
        shape: The forest's size.
        parity: How it compares with its library.
        notes: What is allowed and should be known.
    """

    recipe: ForestRecipe
    file: ForestFile
    model_type: str
    content: bytes | None
    settings: Settings
    prediction: Prediction
    shape: Shape
    parity: Parity
    notes: tuple[str, ...]

    @property
    def size(self) -> int:
        """Bytes of the file that is served."""
        return self.file.path.stat().st_size if self.content is None else len(self.content)

    @cached_property
    def sha256(self) -> str:
        """SHA-256 of the file that is served."""
        return sha256(self.file.path) if self.content is None else hashlib.sha256(self.content).hexdigest()

    def as_json(self) -> dict[str, Any]:
        """What a passport says of the forest."""
        return {
            "engine": self.recipe.engine,
            "model_type": self.model_type,
            "written_by": {"library": self.file.library, "version": self.file.version},
            "prediction": self.prediction,
            **{key: list(value) if isinstance(value, tuple) else value for key, value in asdict(self.shape).items()},
            "file_bytes": self.size,
            "notes": list(self.notes),
        }


def check(recipe: ForestRecipe) -> Checked:
    """Hold a recipe against its forest, and the forest against its library.

    Raises:
        RecipeError: The recipe contradicts the forest.
        SourceError: The forest cannot be read, or its library does not read it.
        CheckFailed: The backend's answers are not the library's.
        MissingError: A library is not installed.
    """
    with opened(recipe) as (file, reference), tempfile.TemporaryDirectory() as folder:
        plain = forest.load(file)
        shape = forest.shape_of(plain)
        prediction = _prediction(recipe, shape)
        temporary = not isinstance(recipe.source, ForestSource)
        served = file
        if recipe.convert or (temporary and file.model_type == CHECKPOINT):
            served = ForestFile(Path(folder, "checkpoint.tl"), CHECKPOINT, "")
            plain.fit_thresholds_to_fp32()
            plain.serialize(served.path)
        content = served.path.read_bytes() if temporary or served is not file else None
        return _judged(recipe, file, served, content, prediction, shape, plain, reference)


def _judged(
    recipe: ForestRecipe,
    file: ForestFile,
    served: ForestFile,
    content: bytes | None,
    prediction: Prediction,
    shape: Shape,
    plain: Forest,
    reference: Reference | None,
) -> Checked:
    threshold = 0.5 if recipe.threshold is None else recipe.threshold
    settings = Settings(
        served.model_type, shape.classifies, prediction == "probabilities", threshold, threads=recipe.batching.threads
    )
    loaded = forest.load(served, settings)
    _check_columns(recipe, loaded, shape)
    if loaded.postprocessor != plain.postprocessor and plain.postprocessor == "multiclass_ova":
        raise RecipeError(
            f"{recipe.path}: {file.path.name} has one probability a class, each by itself (multiclassova), and the FIL "
            "backend makes a softmax of them",
            "say  prediction: classes, which are the same, or train it with objective: multiclass",
        )
    parity = _parity(recipe, served, plain, loaded, reference, prediction)
    notes = [*(reference.notes if reference else ()), *_notes(shape, parity)]
    return Checked(recipe, file, served.model_type, content, settings, prediction, shape, parity, tuple(notes))


@contextmanager
def opened(recipe: ForestRecipe) -> Iterator[tuple[ForestFile, Reference | None]]:
    """The recipe's forest as a file that the backend reads, for as long as the block, and in its own library."""
    if isinstance(recipe.source, ForestSource):
        file = files.read(recipe.directory / recipe.source.trees)
        yield file, libraries.of_file(file)
        return
    key = f"{recipe.path}: source"
    model = sources.call(recipe.source, recipe.directory, key)
    reference = libraries.of_model(model, key)
    with tempfile.TemporaryDirectory() as folder:
        try:
            yield files.read(libraries.save(model, Path(folder), key)), reference
        except SourceError as error:  # the file that it was put into is gone when somebody reads this
            message = re.sub(rf"{re.escape(folder)}/\S+", f"{key}: {recipe.source}", error.message)
            raise SourceError(message, error.fix) from error


def _prediction(recipe: ForestRecipe, shape: Shape) -> Prediction:
    kind = _WORDS.get(shape.task, f"a {shape.task}")
    prediction = recipe.prediction or ("classes" if recipe.threshold is not None else None)
    if not shape.classifies and prediction in {"probabilities", "classes"}:
        key = "prediction" if recipe.prediction else "threshold"
        raise RecipeError(
            f"{recipe.path}:{line_in(recipe.path, key)}: {key}: the forest is {kind}, which has no {prediction}",
            "say  prediction: values, or remove the line",
        )
    if shape.classifies and prediction == "values":
        raise RecipeError(
            f"{recipe.path}:{line_in(recipe.path, 'prediction')}: prediction: the forest is {kind}, without values",
            "say  prediction: probabilities, or classes",
        )
    if recipe.threshold is not None and shape.classes > 1:
        raise RecipeError(
            f"{recipe.path}:{line_in(recipe.path, 'threshold')}: threshold: the forest gives a score for each of "
            f"{shape.classes} classes, and a threshold decides over one score",
            "remove it: the class of the largest score is taken",
        )
    return prediction or ("probabilities" if shape.classifies else "values")


def _check_columns(recipe: ForestRecipe, loaded: Forest, shape: Shape) -> None:
    if recipe.features != shape.features:
        line = line_in(recipe.path, "inputs", FOREST_INPUT, "dims")
        raise RecipeError(
            f"{recipe.path}:{line}: inputs.{FOREST_INPUT}: dims is [{recipe.features}], and the forest has "
            f"{shape.features} features",
            f"say  dims: [{shape.features}], in the order of the columns that it was trained on",
        )
    if recipe.columns not in loaded.widths:
        line = line_in(recipe.path, "outputs", FOREST_OUTPUT, "dims")
        widths = " or ".join(f"[{width}]" for width in loaded.widths)
        raise RecipeError(
            f"{recipe.path}:{line}: outputs.{FOREST_OUTPUT}: dims is [{recipe.columns}], and this forest answers with "
            f"{widths}",
            f"say  dims: {widths}" + ("" if recipe.prediction else ", or another  prediction"),
        )


def _parity(
    recipe: ForestRecipe,
    served: ForestFile,
    plain: Forest,
    loaded: Forest,
    reference: Reference | None,
    prediction: Prediction,
) -> Parity:
    real = _real_rows(recipe)
    probes = forest.probe_rows(plain, PROBE_ROWS)
    if reference and not reference.takes_missing:
        probes = np.nan_to_num(probes)
    rows = np.concatenate([real, probes])
    scores = loaded.scores(rows)
    rounded = forest.load(served, loaded.settings)
    rounded.round_thresholds()
    scale = _largest(scores)
    changed = int((np.abs(rounded.scores(real) - scores[: len(real)]) > recipe.tolerance * scale).any(axis=1).sum())
    if reference is None:
        return Parity("", "", len(real), len(probes), 0.0, 0.0, changed)
    own = reference.scores(rows)
    if own.shape != scores.shape:
        raise CheckFailed(
            f"{recipe.path}: {reference.library} answers with {own.shape[1]} columns and the FIL backend with "
            f"{scores.shape[1]}",
            "serve it as ONNX",
        )
    differences = np.abs(scores - own)
    worst = np.unravel_index(int(np.nanargmax(differences)), differences.shape)
    relative = float(differences[worst]) / _largest(own)
    if relative > recipe.tolerance or np.isnan(scores).any() != np.isnan(own).any():
        kind = "sample" if worst[0] < len(real) else "row of its own thresholds"
        raise CheckFailed(
            f"{recipe.path}: {prediction} differ from those of {reference.library} {reference.version}: "
            f"{scores[worst]:.7g} and {own[worst]:.7g} for {kind} {int(worst[0]) % max(len(real), 1)} "
            f"({relative:.1e} relative, tolerance {recipe.tolerance:g})",
            "the backend does not run it as its library does (LightGBM's zero_as_missing is one reason): train it "
            "without what differs, or serve it as ONNX",
        )
    return Parity(
        reference.library, reference.version, len(real), len(probes), float(differences[worst]), relative, changed
    )


def _largest(scores: NDArray[Any]) -> float:
    """The largest magnitude of any score, and never 0."""
    return max(float(np.nanmax(np.abs(scores), initial=0)), float(np.finfo(np.float32).tiny))


def _real_rows(recipe: ForestRecipe) -> Rows:
    if recipe.samples is None:
        return np.zeros((0, recipe.features), np.float32)
    loaded_samples = samples.load(recipe, REAL_ROWS)
    return np.stack([sample[FOREST_INPUT] for sample in loaded_samples]).astype(np.float32)


def _notes(shape: Shape, parity: Parity) -> Iterator[str]:
    if not parity.library:
        yield "a treelite checkpoint has no library of its own to compare with: its answers are treelite's"
    if not parity.real_rows:
        yield "compared on rows made of its own thresholds; name real ones with  samples: module:function"
    if parity.changed_on_gpu:
        yield (
            f"on a GPU, where thresholds are rounded to fp32, {parity.changed_on_gpu} of {parity.real_rows} samples "
            "change, as their values lie between a threshold and its fp32;  convert: true  keeps them"
        )
    if shape.categorical:
        yield (
            f"features {', '.join(map(str, shape.categorical))} are categories: send the codes of training, as numbers"
        )
