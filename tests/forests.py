"""Small forests of every kind that the FIL backend serves, trained on data that scikit-learn carries."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

Rows = NDArray[Any]
ROUNDS = 30


@dataclass(frozen=True)
class Kind:
    """A kind of forest: how it is trained, and how many columns its output has.

    Attributes:
        train: Makes the fitted model.
        rows: Real rows, as fp32.
        columns: Numbers in a row of its output.
        reference: The predictions of its own library for rows.
    """

    train: Callable[[], Any]
    rows: Callable[[], Rows]
    columns: int
    reference: Callable[[Any, Rows], Rows]


@cache
def cancer() -> tuple[Rows, Rows]:
    from sklearn.datasets import load_breast_cancer

    rows, labels = load_breast_cancer(return_X_y=True)
    return rows.astype(np.float32), labels


@cache
def digits() -> tuple[Rows, Rows]:
    from sklearn.datasets import load_digits

    rows, labels = load_digits(return_X_y=True)
    return rows[:800].astype(np.float32), labels[:800]


@cache
def diabetes() -> tuple[Rows, Rows]:
    from sklearn.datasets import load_diabetes

    rows, values = load_diabetes(return_X_y=True)
    return rows.astype(np.float32), values


@cache
def holes() -> tuple[Rows, Rows]:
    """As :func:`cancer`, and a fifth of the values is missing."""
    rows, labels = cancer()
    return np.where(np.random.default_rng(0).random(rows.shape) < 0.2, np.nan, rows).astype(np.float32), labels


@cache
def categories() -> tuple[Rows, Rows]:
    """Two columns of categories, one of 40 and one of 3, beside two numbers; some values are missing."""
    random = np.random.default_rng(0)
    rows = np.column_stack(
        [random.integers(0, 40, 800), random.integers(0, 3, 800), random.random(800), random.random(800)]
    ).astype(np.float32)
    values = np.isin(rows[:, 0], (3, 5, 17, 38)) * 2.0 + (rows[:, 1] == 1) + rows[:, 2]
    rows[random.random(800) < 0.1, 0] = np.nan
    return rows, values


def xgboost(data: Callable[[], tuple[Rows, Rows]], columns: int = 1, **parameters: Any) -> Kind:
    def matrix(rows: Rows, labels: Rows | None = None) -> Any:
        import xgboost

        kinds = ["c", "c", "q", "q"] if data is categories else None
        groups = [len(rows)] if labels is not None and str(parameters.get("objective", "")).startswith("rank") else None
        return xgboost.DMatrix(rows, labels, feature_types=kinds, enable_categorical=True, group=groups)

    def train() -> Any:
        import xgboost

        rows, labels = data()
        labels = labels > 4 if str(parameters.get("objective", "")).startswith("rank") else labels
        return xgboost.train({"max_depth": 5, "nthread": 1, "seed": 0} | parameters, matrix(rows, labels), ROUNDS)

    return Kind(train, lambda: data()[0], columns, lambda model, rows: model.predict(matrix(rows)))


def lightgbm(data: Callable[[], tuple[Rows, Rows]], columns: int = 1, **parameters: Any) -> Kind:
    def train() -> Any:
        import lightgbm

        rows, labels = data()
        columns = [0, 1] if data is categories else "auto"
        set_ = lightgbm.Dataset(rows, labels, categorical_feature=columns)
        return lightgbm.train({"verbose": -1, "num_threads": 1, "seed": 0} | parameters, set_, ROUNDS)

    return Kind(train, lambda: data()[0], columns, lambda model, rows: model.predict(rows))


def sklearn(data: Callable[[], tuple[Rows, Rows]], name: str, columns: int = 1, **parameters: Any) -> Kind:
    def train() -> Any:
        import sklearn.ensemble
        import threadpoolctl  # type: ignore[import-untyped]

        with threadpoolctl.threadpool_limits(1):  # on a busy machine OpenMP's threads wait for each other
            return getattr(sklearn.ensemble, name)(random_state=0, **parameters).fit(*data())

    def predict(model: Any, rows: Rows) -> Rows:
        if name == "IsolationForest":
            return np.asarray(-model.score_samples(rows))
        if not hasattr(model, "predict_proba"):
            return np.asarray(model.predict(rows))
        scores = np.asarray(model.predict_proba(rows))
        return scores[:, 1] if columns == 1 else scores

    return Kind(train, lambda: data()[0], columns, predict)


KINDS: dict[str, Kind] = {
    "xgboost_binary": xgboost(cancer, objective="binary:logistic"),
    "xgboost_base_score": xgboost(cancer, objective="binary:logistic", base_score=0.9),
    "xgboost_missing": xgboost(holes, objective="binary:logistic"),
    "xgboost_multi": xgboost(digits, 10, objective="multi:softprob", num_class=10),
    "xgboost_regression": xgboost(diabetes, objective="reg:squarederror"),
    "xgboost_poisson": xgboost(diabetes, objective="count:poisson"),
    "xgboost_rank": xgboost(digits, objective="rank:pairwise"),
    "xgboost_dart": xgboost(diabetes, booster="dart", rate_drop=0.3),
    "xgboost_categories": xgboost(categories, tree_method="hist", max_cat_to_onehot=4),
    "xgboost_forest": xgboost(cancer, objective="binary:logistic", num_parallel_tree=4, subsample=0.7),
    "lightgbm_binary": lightgbm(cancer, objective="binary"),
    "lightgbm_missing": lightgbm(holes, objective="binary"),
    "lightgbm_multi": lightgbm(digits, 10, objective="multiclass", num_class=10),
    "lightgbm_regression": lightgbm(diabetes, objective="regression"),
    "lightgbm_categories": lightgbm(categories, objective="regression"),
    "lightgbm_forest": lightgbm(cancer, objective="binary", boosting="rf", bagging_freq=1, bagging_fraction=0.8),
    "sklearn_forest_binary": sklearn(cancer, "RandomForestClassifier", 2, n_estimators=20),
    "sklearn_forest_multi": sklearn(digits, "RandomForestClassifier", 10, n_estimators=20),
    "sklearn_forest_regression": sklearn(diabetes, "RandomForestRegressor", n_estimators=20),
    "sklearn_extra_trees": sklearn(cancer, "ExtraTreesClassifier", 2, n_estimators=20),
    "sklearn_boosting": sklearn(cancer, "GradientBoostingClassifier", n_estimators=20),
    "sklearn_histograms": sklearn(digits, "HistGradientBoostingClassifier", 10, max_iter=10),
    "sklearn_isolation": sklearn(cancer, "IsolationForest", n_estimators=20),
}  # fmt: skip
