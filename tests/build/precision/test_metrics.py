"""The numbers that a recipe bounds, on outputs whose answer is known."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from tritonkit.errors import RecipeError, SourceError
from tritonkit.precision import metrics

from .conftest import Exported


def rows(*vectors: list[float]) -> list[dict[str, Any]]:
    return [{"y": np.array(vector, np.float32)} for vector in vectors]


TRUE = rows([9.0, 0.0, 0.0, 0.0, 0.0, 0.0], [0.0, 1.0, 0.9, 0.0, 0.0, 0.0])
SWAPPED = rows([9.0, 0.0, 0.0, 0.0, 0.0, 0.0], [0.0, 0.9, 1.0, 0.0, 0.0, 0.0])


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("cosine", (1 + 1.8 / 1.81) / 2),
        ("min_cosine", 1.8 / 1.81),
        ("max_error", 0.1 / 9),
        ("mean_error", 0.2 / 10.9),
        ("sqnr_db", 10 * np.log10(82.81 / 0.02)),
        ("top1_agreement", 0.5),
        ("confident_top1_agreement", 1.0),  # the second sample is below one half
        ("top5_containment", 1.0),
        ("retrieval_overlap", 1.0),  # one other sample, which is the nearest either way
    ],
)
def test_a_metric_is_what_its_definition_says(name: str, expected: float, pictures: Exported) -> None:
    recipe = pictures.recipe.model_copy(update={"accuracy": {name: 0.0}})
    assert metrics.measure(recipe, TRUE, SWAPPED)[name] == pytest.approx(expected, rel=1e-5)


def test_retrieval_overlap_falls_when_neighbours_change() -> None:
    random = np.random.default_rng(0)
    true = random.standard_normal((40, 8))
    assert metrics.retrieval_overlap(true, true) == 1
    assert metrics.retrieval_overlap(true, random.standard_normal((40, 8))) < 0.6


def test_of_several_outputs_the_worst_counts_and_strings_are_left_out(pictures: Exported) -> None:
    label = np.array([b"cat"], object)
    true = [{"a": np.ones(3), "b": np.ones(3), "label": label}]
    got = [{"a": np.ones(3), "b": np.array([1.0, 1.0, -1.0]), "label": label}]
    recipe = pictures.recipe.model_copy(update={"accuracy": {"cosine": 0.9, "max_error": 0.5}})
    measured = metrics.measure(recipe, true, got)
    assert measured["cosine"] == pytest.approx(1 / 3)
    assert measured["max_error"] == pytest.approx(2)
    assert metrics.failures(recipe, measured) == ["cosine 0.3333 is below 0.9", "max_error 2 is above 0.5"]


def test_an_infinity_that_only_one_side_has_is_the_worst_difference(pictures: Exported) -> None:
    recipe = pictures.recipe.model_copy(update={"accuracy": {"cosine": 0.0, "max_error": 9.0}})
    measured = metrics.measure(recipe, rows([1.0, 2.0]), rows([1.0, np.inf]))
    assert metrics.failures(recipe, measured) == ["cosine -inf is below 0", "max_error inf is above 9"]
    both = metrics.measure(recipe, rows([1.0, -np.inf]), rows([1.0, -np.inf]))
    assert metrics.failures(recipe, both) == []


def test_what_cannot_be_computed_does_not_hold(pictures: Exported) -> None:
    recipe = pictures.recipe.model_copy(update={"accuracy": {"confident_top1_agreement": 0.9}})
    measured = metrics.measure(recipe, rows([1.0, 1.0, 1.1]), rows([1.0, 1.0, 1.1]))
    assert metrics.failures(recipe, measured) == ["confident_top1_agreement nan is below 0.9"]


def test_a_metric_of_the_users_own_gets_both_outputs(pictures: Exported) -> None:
    recipe = pictures.recipe.model_copy(update={"accuracy": {"models.py:second_label_first": 0.5}})
    measured = metrics.measure(recipe, TRUE, SWAPPED)
    assert metrics.failures(recipe, measured) == ["models.py:second_label_first 0.25 is below 0.5"]


def test_an_unknown_metric_and_one_that_fails_say_so(pictures: Exported) -> None:
    with pytest.raises(RecipeError, match="no metric 'cosin'"):
        metrics.bounds(pictures.recipe.model_copy(update={"accuracy": {"cosin": 0.5}}))
    broken = pictures.recipe.model_copy(update={"accuracy": {"models.py:pictures": 0.5}})
    with pytest.raises(SourceError, match=r"models\.py:pictures failed: TypeError"):
        metrics.measure(broken, TRUE, SWAPPED)
