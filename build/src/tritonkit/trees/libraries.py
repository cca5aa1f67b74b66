"""What the library that trained a forest predicts itself: the yardstick of every build.

Libraries are imported when a forest of theirs is met. Models come from files, or fitted from a function of the user's.
"""

from __future__ import annotations

import importlib
import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tritonkit.errors import MissingError, SourceError
from tritonkit.trees.files import ForestFile
from tritonkit.trees.forest import Rows

Scores = NDArray[np.float64]


@dataclass(frozen=True)
class Reference:
    """A forest in its own library.

    Attributes:
        library: The package's name.
        version: Its version here.
        scores: fp32 rows ``[n, features]`` to what it predicts of them, ``[n, columns]``: probabilities or values.
        takes_missing: Whether rows may lack values.
        notes: What its user should know.
    """

    library: str
    version: str
    scores: Callable[[Rows], Scores]
    takes_missing: bool = True
    notes: tuple[str, ...] = ()


def of_file(file: ForestFile) -> Reference | None:
    """The library's own model of a file; None for a checkpoint, which no library but treelite reads.

    Raises:
        MissingError: The library is not installed.
        SourceError: The library does not read the file.
    """
    if file.library == "treelite":
        return None
    library = _library(file.library, str(file.path))
    try:
        model = library.Booster(model_file=str(file.path))
    except Exception as error:
        raise SourceError(
            f"{file.path}: {file.library} {library.__version__} does not read it: {_first_line(error)}",
            f"install the version that wrote it{f' ({file.version})' if file.version else ''}, or a newer one",
        ) from error
    return of_model(model, str(file.path))


def of_model(model: Any, where: str) -> Reference:
    """A fitted model's own predictions.

    Raises:
        SourceError: ``model`` is not a forest of a known library.
    """
    if not is_model(model):
        raise SourceError(
            f"{where}: a {type(model).__name__} is no forest of XGBoost, LightGBM or scikit-learn",
            "return the fitted model itself, without what is around it",
        )
    booster = booster_of(model)
    package = type(booster).__module__.partition(".")[0]
    version = importlib.import_module(package).__version__
    if package == "xgboost":
        if '"gblinear"' in booster.save_config():
            raise SourceError(
                f"{where}: booster gblinear is a linear model, without trees",
                "serve it as ONNX, or train with booster gbtree",
            )
        return Reference("xgboost", version, _xgboost(booster), notes=_xgboost_notes(booster))
    if package == "lightgbm":
        return Reference("lightgbm", version, lambda rows: _columns(booster.predict(rows)))
    takes_missing = not type(booster).__name__.startswith("GradientBoosting")
    return Reference("scikit-learn", version, lambda rows: _columns(_sklearn(booster, rows)), takes_missing)


def is_model(value: object) -> bool:
    """Whether a value is a fitted model of one of the libraries."""
    package = type(value).__module__.partition(".")[0]
    return package in {"xgboost", "lightgbm", "sklearn"}


def booster_of(model: Any) -> Any:
    """What holds the trees: the booster inside of a classifier or regressor, cut after its best round."""
    if hasattr(model, "get_booster"):
        missing = model.get_params().get("missing", math.nan)
        if missing is not None and not math.isnan(missing):
            raise SourceError(
                f"the model takes {missing} for a missing value, and the FIL backend takes NaN alone",
                "fit it with missing=nan, and send NaN",
            )
        booster = model.get_booster()
        best = getattr(model, "best_iteration", None) if booster.attr("best_iteration") else None
        return booster if best is None else booster[: best + 1]
    return getattr(model, "booster_", model)


def save(model: Any, place: Path, where: str) -> Path:
    """Write a fitted model as the backend reads it; returns the file.

    Raises:
        SourceError: treelite does not take the model.
        MissingError: treelite is not installed.
    """
    booster = booster_of(model)
    package = type(booster).__module__.partition(".")[0]
    if package == "xgboost":
        booster.save_model(str(place / "xgboost.ubj"))
        return place / "xgboost.ubj"
    if package == "lightgbm":
        booster.save_model(str(place / "model.txt"))
        return place / "model.txt"
    treelite = _library("treelite", where)
    try:
        treelite.sklearn.import_model(booster).serialize(place / "checkpoint.tl")
    except Exception as error:
        raise SourceError(
            f"{where}: treelite does not take a {type(model).__name__}: {_first_line(error)}",
            "it takes RandomForest, ExtraTrees, GradientBoosting, HistGradientBoosting and IsolationForest, fitted",
        ) from error
    return place / "checkpoint.tl"


def _library(name: str, where: str) -> Any:
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise MissingError(
            f"{where}: {name} is not installed, with whose own predictions the build compares",
            "pip install 'tritonkit[trees]'",
        ) from error


def _xgboost(booster: Any) -> Callable[[Rows], Scores]:
    xgboost = importlib.import_module("xgboost")
    softmax = '"multi:softmax"' in booster.save_config()

    def scores(rows: Rows) -> Scores:
        matrix = xgboost.DMatrix(
            rows, feature_names=booster.feature_names, feature_types=booster.feature_types, enable_categorical=True
        )
        if not softmax:
            return _columns(booster.predict(matrix))
        margins = _columns(booster.predict(matrix, output_margin=True))  # its own answer is the class
        powers = np.exp(margins - margins.max(axis=1, keepdims=True))
        return _columns(powers / powers.sum(axis=1, keepdims=True))

    return scores


def _xgboost_notes(booster: Any) -> tuple[str, ...]:
    best = booster.attr("best_iteration")
    rounds = booster.num_boosted_rounds()
    if best is None or int(best) + 1 >= rounds:
        return ()
    return (
        f"training found round {int(best) + 1} best and the file has {rounds}: the backend, like Booster.predict, uses "
        f"them all (booster[: {int(best) + 1}].save_model(…) keeps the best alone)",
    )


def _sklearn(model: Any, rows: Rows) -> Any:
    if type(model).__name__ == "IsolationForest":
        return -model.score_samples(rows)  # treelite gives the score of the paper, which scikit-learn negates
    if not hasattr(model, "predict_proba"):
        return model.predict(rows)
    scores = model.predict_proba(rows)
    # Boosted classifiers have one score where there are two classes; forests of them have both.
    return scores[:, 1] if "Boosting" in type(model).__name__ and scores.shape[1] == 2 else scores


def _columns(scores: Any) -> Scores:
    array = np.asarray(scores, np.float64)
    return array[:, None] if array.ndim == 1 else array


def _first_line(error: BaseException) -> str:
    lines = [line for line in str(error).splitlines() if line.strip()]
    return f"{type(error).__name__}: {lines[0] if lines else ''}"
