"""Every kind of forest, served by the real server, answers as its own library does."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import forests
import numpy as np
import pytest
from forests import KINDS

from tritonkit import pipeline
from tritonkit.recipe import ForestRecipe
from tritonkit.server import TritonServer
from tritonkit_client import Client

from .conftest import write_recipe

# fp32 has 24 bits, and the backend adds up in fp32 where LightGBM and scikit-learn add up in fp64; so differences are
# relative to the largest score (a regression's lie in the hundreds).
LARGEST = 1e-6


@pytest.fixture(scope="module")
def served(
    trained: dict[str, Any], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[Client, dict[str, Any]]]:
    """A client of a server that has them all, and what the build reported of each."""
    place = tmp_path_factory.mktemp("kinds")
    recipes = [_recipe(place, name, model) for name, model in trained.items()]
    built = pipeline.build(recipes, place / "model_repository")
    threads = ["--model-load-thread-count=8"]
    with (
        TritonServer(place / "model_repository", arguments=threads, exit_timeout_s=0) as server,
        Client(server.grpc_url) as client,
    ):
        yield client, built.models


def _recipe(place: Path, name: str, model: Any) -> ForestRecipe:
    module = sys.modules[__name__]
    setattr(module, f"model_{name}", lambda: model)
    setattr(module, f"rows_{name}", lambda: ({"input__0": row} for row in KINDS[name].rows()))
    return write_recipe(
        place, name, KINDS[name].rows().shape[1], KINDS[name].columns,
        batching={"instances": 1}, source=f"{__name__}:model_{name}", samples=f"{__name__}:rows_{name}",
    )  # fmt: skip


@pytest.mark.parametrize("name", KINDS)
def test_a_forest_answers_as_its_library_does(
    name: str, served: tuple[Client, dict[str, Any]], trained: dict[str, Any]
) -> None:
    client, models = served
    rows = KINDS[name].rows()
    own = np.asarray(KINDS[name].reference(trained[name], rows), np.float64)
    answers = np.concatenate(
        [client.infer(name, {"input__0": part})["output__0"] for part in np.array_split(rows, [1, 9, 73])]
    )
    assert answers.shape == own.shape, "the backend drops dimensions of 1"
    if "poisson" in name:  # an exponential of a sum near 6, whose last bit is 5e-7 of the result
        answers, own = np.log(answers), np.log(own)
    relative = np.abs(answers - own).max() / np.abs(own).max()
    parity = models[name].as_json()["parity"]
    sys.stderr.write(f"{name:26} served {relative:.1e}, build {parity['relative']:.1e}\n")  # seen with pytest -s
    assert relative <= LARGEST
    assert parity["relative"] <= (2 if "poisson" in name else 1) * LARGEST
    assert parity["changed_on_gpu"] == 0
    assert parity["real_rows"] == len(rows)


def test_they_are_of_each_library_and_more_than_ten() -> None:
    assert len(KINDS) >= 10
    assert {name.partition("_")[0] for name in KINDS} == {"xgboost", "lightgbm", "sklearn"}
    assert np.isnan(forests.holes()[0]).any()
