"""Forests in the comparison: FastAPI with XGBoost gives the answers of our server, and what has no peer is refused."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tritonkit import pipeline, recipe
from tritonkit.errors import InputError
from tritonkit.recipe import ForestRecipe
from tritonkit_load import compare
from tritonkit_load.benchmarks.peers import environment, forests
from tritonkit_load.benchmarks.peers.catalog import FOREST_PEERS, PEERS, Peer
from tritonkit_load.benchmarks.peers.harness import Subject, Theirs
from tritonkit_load.tuning.cores import Cores

(FASTAPI,) = FOREST_PEERS
RECIPE = """
engine: fil
name: {name}
source: {{trees: forest.ubj}}
inputs: {{input__0: {{dtype: fp32, dims: [30]}}}}
outputs: {{output__0: {{dtype: fp32, dims: [{columns}]}}}}
prediction: {prediction}
samples: tritonkit.zoo.breast_cancer:samples
slo: {{p99_ms: 10}}
"""


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A forest, the recipes that answer with its probabilities, with its classes, and with both classes', built."""
    from tritonkit.zoo import breast_cancer

    folder = tmp_path_factory.mktemp("forests")
    breast_cancer.train().save_model(folder / "forest.ubj")
    kinds = {"probability": (1, "probabilities"), "class": (1, "classes"), "both": (2, "probabilities")}
    for name, (columns, prediction) in kinds.items():
        text = RECIPE.format(name=name, columns=columns, prediction=prediction)
        (folder / f"{name}.yaml").write_text(text, encoding="utf-8")
    pipeline.build([recipe.load(folder / f"{name}.yaml") for name in kinds], folder / "model_repository", "cpu")
    return folder


def forest(project: Path, name: str) -> ForestRecipe:
    loaded = recipe.load(project / f"{name}.yaml")
    assert isinstance(loaded, ForestRecipe)
    return loaded


@pytest.fixture(scope="module")
def subject(project: Path) -> Subject:
    return forests.subject(forest(project, "probability"), project / "model_repository", "cpu")


@pytest.mark.parametrize("variant", FASTAPI.variants, ids=lambda variant: variant.files[0])
def test_fastapi_with_xgboost_answers_as_the_fil_backend(variant: object, subject: Subject) -> None:
    if not environment.installed(FASTAPI):
        if os.environ.get("CI") != "true":
            pytest.skip("it has no environment yet; `make compare MODELS=breast_cancer QUICK=1` makes it")
        environment.install(FASTAPI)
    assert len(subject.expected) == 8
    with Theirs(FASTAPI, variant, subject, [0]) as contender:  # type: ignore[arg-type]
        assert contender.ready_s > 0  # each of its answers was right


def test_the_library_alone_is_the_ceiling(project: Path, subject: Subject) -> None:
    rate = forests.alone(forest(project, "probability"), subject, Cores((0,), (1,)))
    assert rate is not None
    assert 50 < rate < 1e6


@pytest.mark.parametrize(
    ("name", "target", "message"),
    [
        ("probability", "cuda", "which the embedded server runs on the CPU"),
        ("class", "cpu", "XGBoost predicts probabilities, 1 a row"),
        ("both", "cpu", "XGBoost predicts probabilities, 1 a row"),
    ],
)
def test_a_forest_that_no_peer_answers_alike_is_refused(project: Path, name: str, target: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        forests.subject(forest(project, name), project / "model_repository", target)  # type: ignore[arg-type]


def test_a_forest_is_compared_with_what_serves_forests(project: Path, root: Path) -> None:
    of_graph = recipe.load(root / "build/recipes/efficientnet_lite0.yaml")
    assert forests.peers_of(forest(project, "both"), PEERS) == [FASTAPI]
    assert forests.peers_of(of_graph, PEERS) == [*PEERS]
    litserve: list[Peer] = [peer for peer in PEERS if peer.key == "litserve"]
    with pytest.raises(InputError, match="which litserve does not serve") as refused:
        forests.peers_of(forest(project, "both"), litserve)
    assert "fastapi" in refused.value.fix


def test_compare_takes_a_forests_recipe(
    project: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ["compare.py", "--models", str(project / "class.yaml"), "--repository", str(project / "model_repository")]
    monkeypatch.setattr("sys.argv", [*command, "--target", "cpu"])
    assert compare.main() == 2
    assert "say  prediction: probabilities" in capsys.readouterr().err
