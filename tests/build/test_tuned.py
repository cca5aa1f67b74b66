"""What `make tune` writes into a recipe, and what a build makes of it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pydantic import ValidationError

from tritonkit import tuned
from tritonkit.errors import CheckFailed
from tritonkit.precision import gate
from tritonkit.precision.gate import Decision, Row
from tritonkit.recipe import Batching, Precision, Recipe
from tritonkit.repository import config


def a_recipe(**batching: Any) -> Recipe:
    data = {"name": "net", "source": "net.py:load", "max_batch_size": 16, "precisions": ["fp32", "fp16", "int8"],
            "inputs": {"x": {"dtype": "fp32", "dims": [4]}}, "outputs": {"y": {"dtype": "fp32", "dims": [3]}},
            "batching": batching}  # fmt: skip
    return Recipe.model_validate(data)


def configured(**batching: Any) -> Any:
    return config.parse(config.make(a_recipe(**batching), "cpu", {"x": np.zeros(4, np.float32)}))


def test_a_tuned_batch_size_stays_within_what_the_graph_was_checked_for() -> None:
    assert configured().max_batch_size == 16
    assert configured(max_batch_size=4).max_batch_size == 4
    assert not configured(max_batch_size=1).HasField("dynamic_batching")
    with pytest.raises(ValidationError, match=r"batching\.max_batch_size 32 is above max_batch_size 16"):
        a_recipe(max_batch_size=32)


@pytest.mark.parametrize(
    ("batching", "size", "timeout_us"),
    [
        ({"instances": 2}, 256, 2_000_000),
        ({"instances": 2, "max_queue_size": 0, "queue_timeout_ms": 0}, None, None),
        ({"instances": 2, "max_queue_size": 0}, 0, 2_000_000),
        ({"instances": 2, "queue_timeout_ms": 0}, 256, 0),
        ({"instances": 1}, None, None),
        ({"instances": 1, "max_queue_size": 0}, None, None),
        ({"instances": 1, "max_queue_size": 9}, 9, 2_000_000),
    ],
)
def test_a_bound_of_zero_is_none(batching: dict[str, int], size: int | None, timeout_us: int | None) -> None:
    configuration = configured(**batching).dynamic_batching
    assert configuration.HasField("default_queue_policy") == (size is not None)
    if size is not None:
        policy = configuration.default_queue_policy
        assert (policy.max_queue_size, policy.default_timeout_microseconds) == (size, timeout_us)


def decision(**verdicts: str) -> Decision:
    rows = [Row(name, "base" if name == "fp32" else "refused", why, {}, accurate=why != "inaccurate")  # type: ignore[arg-type]
            for name, why in verdicts.items()]  # fmt: skip
    return Decision("fp32", rows)


def test_the_variant_that_served_most_ships_whatever_the_gate_found_faster() -> None:
    result = gate.tuned(a_recipe(), decision(fp32="", fp16="not faster"), "fp16")
    assert (result.precision, result.tuned, result.forced) == ("fp16", True, False)


def test_a_variant_that_is_not_accurate_never_ships() -> None:
    with pytest.raises(CheckFailed, match=r"batching\.precision is int8, which is not accurate enough: inaccurate"):
        gate.tuned(a_recipe(), decision(fp32="", int8="inaccurate"), "int8")
    assert decision(fp32="", fp16="not faster", int8="inaccurate").accurate == ["fp32", "fp16"]


@pytest.mark.parametrize("named", ["fp16", "fp32"])
def test_a_target_without_that_variant_keeps_what_the_gate_chose(named: Precision) -> None:
    assert not gate.tuned(a_recipe(), decision(fp32=""), named).tuned


def test_a_recipe_names_only_a_variant_that_it_builds() -> None:
    assert a_recipe(precision="fp32").batching.precision == "fp32"
    with pytest.raises(ValidationError, match=r"batching\.precision fp8 is not one of precisions"):
        a_recipe(precision="fp8")


def test_figures_are_found_only_for_what_was_measured(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TRITONKIT_HOME", str(tmp_path))
    recipe = a_recipe(instances=3)
    assert tuned.find(recipe, "hash", "cpu") is None
    tuned.keep(recipe, "hash", "cpu", {"capacity": 1})
    tuned.keep(recipe, "hash", "cpu", {"capacity": 2})
    assert tuned.find(recipe, "hash", "cpu") == {"capacity": 2}
    other = recipe.model_copy(update={"batching": Batching(instances=4)})
    for changed in ((other, "hash", "cpu"), (recipe, "another", "cpu"), (recipe, "hash", "cuda")):
        assert tuned.find(*changed) is None
