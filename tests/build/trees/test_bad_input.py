"""What cannot be served is refused with its place and a fix, and nothing is written."""

from __future__ import annotations

import os
import pickle
import struct
from pathlib import Path
from typing import Any

import pytest
import yaml
from forests import KINDS
from support import Project

FEATURES = 30


class Trap:
    """Unpickling it leaves a file behind."""

    def __init__(self, place: Path) -> None:
        self.place = place

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.place),)


@pytest.fixture(scope="session")
def files(trained: dict[str, Any], tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Files of three libraries' forests."""
    place = tmp_path_factory.mktemp("files")
    for name in ("xgboost_binary", "xgboost_multi", "xgboost_regression"):
        trained[name].save_model(place / f"{name}.ubj")
    trained["lightgbm_binary"].save_model(place / "lightgbm_binary.txt")
    ova = KINDS["lightgbm_multi"]
    import lightgbm

    parameters = {"objective": "multiclassova", "num_class": 10, "verbose": -1, "num_threads": 1}
    from forests import digits

    lightgbm.train(parameters, lightgbm.Dataset(*digits()), 2).save_model(place / "ova.txt")
    assert ova.columns == 10
    return {path.stem: path for path in place.iterdir()}


def build(
    project: Project, source: Path | str, features: int = FEATURES, columns: int = 1, **changes: Any
) -> tuple[int, str]:
    fields = {
        "engine": "fil",
        "name": "net",
        "source": source if isinstance(source, str) else {"trees": str(source)},
        "inputs": {"input__0": {"dtype": "fp32", "dims": [features]}},
        "outputs": {"output__0": {"dtype": "fp32", "dims": [columns]}},
    } | changes
    (project.directory / "net.yaml").write_text(yaml.safe_dump(fields, sort_keys=False))
    status, _, err = project.build()
    assert not project.repository.exists() or not status
    return status, err


@pytest.mark.parametrize(
    ("name", "features", "columns", "changes", "words"),
    [
        ("xgboost_binary", 29, 1, {}, ["net.yaml:8: inputs.input__0: dims is [29]", "30 features", "dims: [30]"]),
        ("xgboost_binary", 30, 3, {}, ["net.yaml:13: outputs.output__0: dims is [3]", "answers with [1] or [2]"]),
        ("xgboost_multi", 64, 1, {}, ["answers with [10]", "or another  prediction"]),
        ("xgboost_multi", 64, 1, {"prediction": "classes", "threshold": 0.3}, ["threshold", "10 classes", "remove it"]),
        ("xgboost_regression", 10, 1, {"prediction": "probabilities"}, ["is a regression, which has no probabilities"]),
        ("xgboost_regression", 10, 1, {"threshold": 0.3}, ["threshold: the forest is a regression"]),
        ("xgboost_binary", 30, 1, {"prediction": "values"}, ["is a binary classifier, without values"]),
        ("xgboost_binary", 30, 1, {"prediction": "probabilities", "threshold": 0.3}, ["prediction is probabilities"]),
        ("xgboost_binary", 30, 1, {"precisions": ["fp32", "int8"]}, ["a forest has no precisions"]),
        ("xgboost_binary", 30, 1, {"predicton": "classes"}, ["unknown key, did you mean 'prediction'?"]),
        ("xgboost_binary", 30, 1, {"inputs": {"x": {"dtype": "fp32", "dims": [30]}}}, ["a forest has one, input__0"]),
        ("xgboost_binary", 30, 1, {"fil": {"chunk_size": 3}}, ["fil.chunk_size"]),
        ("ova", 64, 10, {}, ["multiclassova", "prediction: classes"]),
    ],
)  # fmt: skip
def test_a_recipe_that_does_not_fit_its_forest_is_refused(
    name: str,
    features: int,
    columns: int,
    changes: dict[str, Any],
    words: list[str],
    project: Project,
    files: dict[str, Path],
) -> None:
    status, err = build(project, files[name], features, columns, **changes)
    assert status == 2
    for word in words:
        assert word in err


def test_a_pickle_is_refused_and_never_loaded(project: Project, trained: dict[str, Any]) -> None:
    trap = project.directory / "loaded"
    for name, protocol in (("a.pkl", 4), ("b.ubj", 4), ("c.pickle", 0), ("d.json", 2)):
        path = project.directory / name
        path.write_bytes(pickle.dumps(Trap(trap), protocol=protocol))
        status, err = build(project, path)
        assert status == 2
        assert "is a pickle, which can run any code when it is loaded, so it is not" in err
        assert "treelite.sklearn.import_model" in err
        assert project.run("init", path, "--output", project.directory / "r.yaml")[0] == 2
    assert not trap.exists()


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", ["is empty"]),
        (b"{\"a\": 1}", ["is JSON, and not XGBoost's"]),
        (b"{\"a\": ", ["is not JSON"]),
        (b"CBM1" + bytes(40), ["CatBoost", "tritonkit init model.onnx"]),
        (b"tree\nversion=v4\nmax_feature_idx=1\n", ["is cut"]),
        (struct.pack("<3i", 9, 0, 0) + bytes(80), ["(treelite 9.0.0)", "convert it again"]),
        (struct.pack("<3i", 4, 8, 1) + bytes(80), ["treelite"]),
        (bytes(range(256)), ["none of the formats"]),
    ],
)  # fmt: skip
def test_a_file_that_the_backend_does_not_read_is_refused(
    content: bytes, words: list[str], project: Project, trained: dict[str, Any]
) -> None:
    path = project.directory / "forest.bytes"
    path.write_bytes(content)
    status, err = build(project, path)
    assert status == 2
    for word in words:
        assert word in err


def test_a_file_of_the_wrong_place_or_a_function_of_no_forest(project: Project, trained: dict[str, Any]) -> None:
    assert "cannot be read" in build(project, project.directory / "absent.ubj")[1]
    (project.directory / "net.py").write_text("def load():\n    return [1]\n")
    assert "a list is no forest of XGBoost, LightGBM or scikit-learn" in build(project, "net.py:load")[1]


@pytest.mark.parametrize(
    ("train", "words"),
    [
        ("xgboost.train({'booster': 'gblinear'}, xgboost.DMatrix(X, y), 2)", ["gblinear is a linear model"]),
        ("xgboost.XGBRegressor(n_estimators=2, n_jobs=1).fit(X, numpy.c_[y, y])", ["2 targets", "mine.py:load"]),
        ("xgboost.XGBRegressor(n_estimators=2, n_jobs=1, missing=-1).fit(X, y)", ["takes -1 for a missing value"]),
        ("lightgbm.train({'linear_tree': True, 'verbose': -1, 'num_threads': 1}, lightgbm.Dataset(X, y), 2)",
         ["linear trees", "without linear_tree"]),
        ("lightgbm.train({'zero_as_missing': True, 'verbose': -1, 'num_threads': 1}, "
         "lightgbm.Dataset(numpy.maximum(X, 0), y), 2)", ["values differ from those of lightgbm", "zero_as_missing"]),
    ],
)  # fmt: skip
def test_what_the_backend_does_not_run_as_the_library_does_is_refused(
    train: str, words: list[str], project: Project, trained: dict[str, Any]
) -> None:
    (project.directory / "mine.py").write_text(
        "import lightgbm, numpy, xgboost\nfrom forests import diabetes\nX, y = diabetes()\n"
        f"def load():\n    return {train}\n"
    )
    status, err = build(project, "mine.py:load", 10)
    assert status in {1, 2}
    for word in words:
        assert word in err


def test_options_of_graphs_are_refused(project: Project, files: dict[str, Path]) -> None:
    assert build(project, files["xgboost_binary"])[0] == 0
    status, _, err = project.build("--precision", "int8")
    assert status == 2
    assert "--precision is not for forests" in err
