"""Load tests and tuning take a forest's recipe as they take a graph's; what needs a graph leaves it out."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from forests import cancer

from tritonkit.recipe import Batching, ForestRecipe, load, writeback
from tritonkit_load.load import models, payloads
from tritonkit_load.load.plan import Plan
from tritonkit_load.tuning import trial_server
from tritonkit_load.tuning.space import Settings


@pytest.fixture
def recipe(root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ForestRecipe:
    for package in ("treelite", "xgboost"):
        pytest.importorskip(package)
    monkeypatch.chdir(root)
    path = tmp_path / "breast_cancer.yaml"
    path.write_text((root / "build/recipes/breast_cancer.yaml").read_text(encoding="utf-8"), encoding="utf-8")
    forest = load(path)
    assert isinstance(forest, ForestRecipe)
    return forest


def test_a_load_test_sends_rows_of_the_recipes_samples(recipe: ForestRecipe) -> None:
    library = payloads.Library([recipe.path])
    plan = Plan(arrivals="constant:10", duration_s=1, models={recipe.name: 1.0}, batch_sizes="8", seed=0)
    sent = library.requests(plan)[0].inputs["input__0"]
    assert sent.shape == (8, 30)
    assert all((row == cancer()[0]).all(axis=1).any() for row in sent)


def test_verbs_that_need_graphs_take_the_other_recipes(recipe: ForestRecipe) -> None:
    assert "breast_cancer" in {path.stem for path in models.shipped()}
    assert "breast_cancer" not in {path.stem for path in models.recipe_paths(())}


def test_tuning_serves_it_with_each_trials_settings(recipe: ForestRecipe) -> None:
    with trial_server.built(recipe) as build:
        tried: Any = trial_server.TrialServer.__new__(trial_server.TrialServer)
        tried.build = build
        settings = Settings(precision="fp32", max_batch_size=64, queue_delay_us=500, instances=1, threads=2)
        config = tried._configuration(settings)
    assert config["max_batch_size"] == 64
    assert config["parameters"]["cpu_nthread"] == {"string_value": "2"}
    assert "intra_op_thread_count" not in config["parameters"]
    assert "default_model_filename" not in config


def test_what_was_tuned_is_written_into_the_recipe(recipe: ForestRecipe) -> None:
    new = writeback.write(recipe, Batching(target="cpu", instances=1, max_queue_delay_us=0))
    assert isinstance(new, ForestRecipe)
    assert new.batching.instances == 1
    assert new.serving("cpu").max_queue_delay_us == 0
