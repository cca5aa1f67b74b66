"""From a forest's file to a model directory: `init`, `build`, and what lies there."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from forests import KINDS, cancer, diabetes
from support import Project

from tritonkit.repository import config, lint
from tritonkit.server.backends.fil.forest_inference import Forest, Settings
from tritonkit.trees import checks

from .conftest import write_recipe


def parameters(project: Project, name: str) -> dict[str, str]:
    model_config = config.parse((project.repository / name / "config.pbtxt").read_text(encoding="utf-8"))
    return {key: value.string_value for key, value in model_config.parameters.items()}


@pytest.mark.parametrize(
    ("name", "suffix", "model_type", "file"),
    [
        ("xgboost_binary", ".ubj", "xgboost_ubj", "xgboost.ubj"),
        ("xgboost_multi", ".json", "xgboost_json", "xgboost.json"),
        ("lightgbm_regression", ".txt", "lightgbm", "model.txt"),
        ("sklearn_forest_binary", ".tl", "treelite_checkpoint", "checkpoint.tl"),
    ],
)
def test_init_and_build_lay_out_what_the_backend_reads(
    name: str, suffix: str, model_type: str, file: str, project: Project, trained: dict[str, Any],
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.chdir(project.directory)
    path = project.directory / f"forest{suffix}"
    if suffix == ".tl":
        import treelite

        treelite.sklearn.import_model(trained[name]).serialize(path)
    else:
        trained[name].save_model(path)
    assert project.run("init", path)[0] == 0
    code, _, err = project.run("build", "forest.yaml", "--repository", project.repository)
    assert code == 0, err
    served = project.repository / "forest"
    assert (served / "1" / file).read_bytes() == path.read_bytes()
    served_parameters = parameters(project, "forest")
    assert served_parameters["model_type"] == model_type
    regression = "regression" in name
    assert served_parameters["is_classifier"] == ("false" if regression else "true")
    assert served_parameters.get("threshold") == (None if regression else "0.5")
    passport = json.loads((served / "passport.json").read_text())
    assert passport["forest"]["features"] == KINDS[name].rows().shape[1]
    assert bool(passport["parity"]["library"]) == (suffix != ".tl")
    report = lint.check(project.repository)
    assert [finding.rule for finding in report.findings if finding.severity != "info"] == []
    again = project.run("build", "forest.yaml", "--repository", project.repository)[1]
    assert "unchanged" in again
    assert "up to date" in again


def test_a_function_of_a_fitted_model_needs_no_file(project: Project, trained: dict[str, Any]) -> None:
    (project.directory / "mine.py").write_text(
        "def load():\n"
        "    import numpy, xgboost\n"
        "    rows = numpy.random.default_rng(0).random((400, 5))\n"
        "    labels = rows[:, 0] > 0.5\n"
        "    model = xgboost.XGBClassifier(n_estimators=30, early_stopping_rounds=2, learning_rate=1.0, n_jobs=1)\n"
        "    return model.fit(rows[:200], labels[:200], eval_set=[(rows[200:], labels[200:])], verbose=False)\n"
    )
    recipe = project.directory / "mine.yaml"
    assert project.run("init", f"{project.directory}/mine.py:load", "-o", recipe)[0] == 0
    code, _, err = project.run("build", recipe, "--repository", project.repository)
    assert code == 0, err
    passport = json.loads((project.repository / "mine/passport.json").read_text())
    assert passport["forest"]["trees"] < 30, "it ends at the best round, as the classifier's own predictions do"


def test_classes_and_both_columns(tmp_path: Path, trained: dict[str, Any]) -> None:
    rows, _ = cancer()
    trained["xgboost_binary"].save_model(tmp_path / "f.ubj")
    single = Forest(tmp_path / "f.ubj", Settings("xgboost_ubj", True, True)).predict(rows, 1)
    both = Forest(tmp_path / "f.ubj", Settings("xgboost_ubj", True, True)).predict(rows, 2)
    strict = Forest(tmp_path / "f.ubj", Settings("xgboost_ubj", True, False, 0.9)).predict(rows, 1)
    assert np.array_equal(both[:, 1:], single)
    assert np.array_equal(both[:, :1], 1 - single)
    assert np.array_equal(strict, (single > np.float32(0.9)).astype(np.float32))
    recipe = write_recipe(
        tmp_path, "f", 30, 1, source={"trees": "f.ubj"}, prediction="classes", threshold=0.9, samples=f"{__name__}:real"
    )
    checked = checks.check(recipe)
    assert checked.settings == Settings("xgboost_ubj", True, False, 0.9, threads=1)


def real() -> Any:
    return ({"input__0": row} for row in cancer()[0])


def test_a_checkpoint_splits_on_a_gpu_as_its_library_does(tmp_path: Path, trained: dict[str, Any]) -> None:
    """A GPU rounds thresholds to fp32; rows between a threshold and its fp32 would change sides."""
    source = f"{__name__}:forest_of_fp64"
    globals()["forest_of_fp64"] = lambda: trained["sklearn_forest_regression"]
    globals()["rows_of_fp64"] = lambda: ({"input__0": row} for row in diabetes()[0])
    recipe = write_recipe(tmp_path, "f", 10, 1, source=source, samples=f"{__name__}:rows_of_fp64")
    assert checks.check(recipe).parity.changed_on_gpu == 0
    import treelite

    treelite.sklearn.import_model(trained["sklearn_forest_regression"]).serialize(tmp_path / "f.tl")
    kept = write_recipe(tmp_path, "f", 10, 1, source={"trees": "f.tl"}, samples=f"{__name__}:rows_of_fp64")
    assert checks.check(kept).parity.changed_on_gpu > 0, "treelite's own checkpoint does not keep them"
    moved = write_recipe(
        tmp_path, "f", 10, 1, source={"trees": "f.tl"}, samples=f"{__name__}:rows_of_fp64", convert=True
    )
    assert checks.check(moved).parity.changed_on_gpu == 0


def test_a_target_with_a_gpu_asks_for_one(project: Project, trained: dict[str, Any], tmp_path: Path) -> None:
    trained["xgboost_binary"].save_model(tmp_path / "f.ubj")
    recipe = write_recipe(tmp_path, "f", 30, 1, source={"trees": "f.ubj"}, fil={"layout": "layered", "chunk_size": 4})
    assert project.run("build", recipe.path, "--target", "cuda", "--repository", project.repository)[0] == 0
    model_config = config.parse((project.repository / "f/config.pbtxt").read_text(encoding="utf-8"))
    assert model_config.instance_group[0].kind == model_config.instance_group[0].KIND_GPU
    assert model_config.backend == "fil"
    assert not model_config.HasField("optimization")
    assert parameters(project, "f") == {
        "model_type": "xgboost_ubj", "is_classifier": "true", "predict_proba": "true", "threshold": "0.5",
        "layout": "layered", "chunk_size": "4",
    }  # fmt: skip
