"""Forests of trees in the comparison: the file that peers load, its right answers, and what its library does alone."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

from tritonkit import samples
from tritonkit.errors import InputError, MissingError
from tritonkit.recipe import FOREST_INPUT, ForestRecipe, Recipe
from tritonkit.repository import config, layout
from tritonkit.server.backends.fil import forest_inference
from tritonkit.trees import files, forest, libraries
from tritonkit_load.benchmarks.bench_serving import on_core
from tritonkit_load.benchmarks.peers.catalog import FOREST_PEERS, Peer
from tritonkit_load.benchmarks.peers.harness import Subject
from tritonkit_load.load import payloads
from tritonkit_load.load.target import Target
from tritonkit_load.tuning.cores import Cores

PASSES = 3  # over the samples, for the library alone
CHECKED = 8  # answers of each server that must be right before it is measured


def peers_of(recipe: Recipe, chosen: Sequence[Peer]) -> list[Peer]:
    """Those of some peers that serve a recipe's kind of model.

    Raises:
        InputError: None of the chosen peers serves it.
    """
    if not isinstance(recipe, ForestRecipe):
        return list(chosen)
    keys = {peer.key for peer in chosen}
    serving = [peer for peer in FOREST_PEERS if peer.key in keys]
    if not serving:
        raise InputError(
            f"{recipe.name} is a forest of trees, which {', '.join(sorted(keys))} does not serve here",
            f"name one of: {', '.join(peer.key for peer in FOREST_PEERS)}, or leave --peers (PEERS) out",
        )
    return serving


def subject(recipe: ForestRecipe, repository: Path, target: Target) -> Subject:
    """The forest's file as the repository has it, and what the FIL backend answers.

    Raises:
        InputError: No peer gives the same answers.
    """
    if target == "cuda":
        raise InputError(
            f"{recipe.name} is a forest of trees, which the embedded server runs on the CPU",
            "compare it there: --target cpu (TARGET=cpu)",
        )
    folder = repository / recipe.name
    served = config.parse((folder / layout.CONFIG).read_text(encoding="utf-8"))
    settings = forest_inference.read_settings({name: value.string_value for name, value in served.parameters.items()})
    path = forest.path_of(folder / str(recipe.number), settings.model_type)
    if settings.model_type not in {"xgboost_json", "xgboost_ubj"}:
        raise InputError(f"{recipe.path}: {path.name} is no file of XGBoost's", "compare a forest that XGBoost wrote")
    fil_forest = forest_inference.Forest(path, settings)
    if settings.is_classifier and (not settings.predict_proba or recipe.columns != fil_forest.num_class):
        raise InputError(
            f"{recipe.path}: XGBoost predicts probabilities, {fil_forest.num_class} a row, and this model does not",
            f"say  prediction: probabilities, with  dims: [{fil_forest.num_class}], to compare it",
        )
    inputs = tuple(samples.batch([sample], 1) for sample in samples.load(recipe, CHECKED))
    expected = tuple(fil_forest.predict(rows[FOREST_INPUT], recipe.columns).reshape(-1) for rows in inputs)
    return Subject(recipe.name, path.absolute(), inputs, expected, target)


def alone(recipe: ForestRecipe, served: Subject, cores: Cores) -> float | None:
    """Rows a second of the library itself in this process, one by one on the servers' core.

    None where the library is not installed here.
    """
    try:
        library = libraries.of_file(files.read(served.graph))
    except MissingError:
        return None
    assert library is not None
    rows = [samples.batch([sample], 1)[FOREST_INPUT] for sample in samples.load(recipe, payloads.SAMPLES)]
    with on_core(*cores.server):
        passes = [[_seconds(partial(library.scores, row)) for row in rows] for _ in range(PASSES)]
    typical: list[float] = [statistics.median(times) for times in zip(*passes, strict=True)]
    return 1 / statistics.mean(typical)


def _seconds(run: Callable[[], object]) -> float:
    began = time.perf_counter()
    run()
    return time.perf_counter() - began
