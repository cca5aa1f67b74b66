"""The shipped models in int8: as accurate as their recipes ask, and served as they were measured."""

from __future__ import annotations

import functools
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tritonkit import cached_export, graph, recipe, samples
from tritonkit.precision import metrics, search, variants
from tritonkit.recipe import Recipe
from tritonkit.server import TritonServer
from tritonkit.store import Artifact
from tritonkit.zoo import prose
from tritonkit_client import Client

MODELS = ["efficientnet_lite0", "all_minilm_l6_v2"]
JUDGED = 64  # of the gate's 256 samples: emulating what a GPU runs takes a third of a second each
ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def server(promoted_repository: Path) -> Iterator[TritonServer]:
    with TritonServer(promoted_repository) as running:
        yield running


def passport(repository: Path, name: str) -> Any:
    return json.loads((repository / name / "passport.json").read_text(encoding="utf-8"))


@functools.cache
def judged(name: str) -> tuple[Recipe, Artifact, list[samples.Sample], list[dict[str, Any]]]:
    """A model's recipe, its export, samples that made no variant of it, and what the export gives for them."""
    zoo_recipe = recipe.load(ROOT / f"build/recipes/{name}.yaml")
    base, _ = cached_export.exported(zoo_recipe)
    unseen = variants.judged(zoo_recipe)[:JUDGED]
    assert len(unseen) == JUDGED
    return zoo_recipe, base, unseen, search.evaluate(graph.Session(base.graph), zoo_recipe, unseen)


# What a GPU runs comes first: int8 for the CPU is in the store by then, as the promoted repository has it.
@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("target", ["tensorrt", "cpu"])
def test_int8_keeps_the_recipes_bounds_on_samples_that_made_no_variant(name: str, target: Any) -> None:
    zoo_recipe, base, unseen, truth = judged(name)
    artifact, _ = variants.make(zoo_recipe, base, target, "int8")
    got = search.evaluate(graph.Session(artifact.graph, optimize=target == "cpu"), zoo_recipe, unseen)
    measured = metrics.measure(zoo_recipe, truth, got)
    assert metrics.failures(zoo_recipe, measured) == []
    assert measured["sqnr_db"] < 40, "it is int8 indeed"
    assert artifact.about["work_share"] >= 0.6


@pytest.mark.parametrize("name", MODELS)
def test_the_variant_that_ships_is_one_that_the_gate_accepted(name: str, promoted_repository: Path) -> None:
    record = passport(promoted_repository, name)
    verdicts = {row["precision"]: row["verdict"] for row in record["gate"]["variants"]}
    assert list(verdicts) == ["fp32", "fp16", "int8"]
    assert verdicts[record["precision"]] in {"base", "accepted"}
    assert not record["forced"]


@pytest.mark.parametrize("name", MODELS)
def test_the_promoted_variant_is_served_bit_for_bit_alone_and_in_batches(
    name: str, server: TritonServer, promoted_repository: Path, root: Path
) -> None:
    zoo_recipe = recipe.load(root / f"build/recipes/{name}.yaml")
    rows = [samples.resized(row, zoo_recipe, zoo_recipe.sizes("opt")) for row in samples.load(zoo_recipe, 4)]
    session = graph.Session(promoted_repository / name / "1/model.onnx", threads=1)
    with Client(server.grpc_url) as client:
        for size in (1, 4):
            inputs = samples.batch(rows, size)
            expected, served = session.run(inputs), client.infer(name, inputs)
            for output, array in expected.items():
                np.testing.assert_array_equal(served[output], array)


def test_strings_and_their_token_ids_get_the_same_vectors(server: TritonServer) -> None:
    texts = ["How do I reset my password?", "I forgot my login and cannot get into my account.", "Rain is likely."]
    with Client(server.http_url) as client:
        vectors = client.infer("sentence_embedding", text=texts)["sentence_embedding"]
        of_ids = client.infer("all_minilm_l6_v2", prose.tokenize(texts))["sentence_embedding"]
    np.testing.assert_array_equal(vectors, of_ids)
    assert vectors[0] @ vectors[1] > vectors[0] @ vectors[2] + 0.3
