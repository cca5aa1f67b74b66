"""Optimization profiles: the rule, and what is refused before TensorRT is asked."""

from __future__ import annotations

from typing import Any

import pytest
from support import Project

from tritonkit import graph, recipe
from tritonkit.engines import builder, profiles
from tritonkit.engines.profiles import Bounds, Shapes
from tritonkit.errors import InputError

RECIPE: dict[str, Any] = {
    "inputs": {"x": {"dtype": "int64", "dims": ["sequence"]}, "n": {"dtype": "fp32", "dims": []}},
    "outputs": {"y": {"dtype": "fp32", "dims": [3]}},
    "shapes": {"sequence": {"min": 2, "opt": 64, "max": 256}},
}


def test_first_profile_holds_everything_and_a_wide_batch_gets_a_second(project: Project) -> None:
    actual = profiles.from_recipe(recipe.load(project.write(**RECIPE, max_batch_size=64)))
    assert actual == [
        {"x": Shapes((1, 2), (64, 64), (64, 256)), "n": Shapes((1,), (64,), (64,))},
        {"x": Shapes((1, 2), (1, 64), (1, 256)), "n": Shapes((1,), (1,), (1,))},
    ]


@pytest.mark.parametrize(("batch", "number"), [(0, 1), (1, 1), (3, 1), (4, 2)])
def test_a_narrow_batch_has_one_profile(project: Project, batch: int, number: int) -> None:
    actual = profiles.from_recipe(recipe.load(project.write(**RECIPE, max_batch_size=batch)))
    assert len(actual) == number
    assert len(actual[0]["x"].max) == (2 if batch else 1)


def test_dimensions_of_a_graph_without_names_are_called_by_input_and_axis(graphs: Any) -> None:
    signature = graph.Signature({"x": graph.GraphTensor("x", "fp32", ("batch", None, 3))}, {}, 20)
    actual = profiles.from_graph(signature, {"x.1": Bounds(1, 2, 5)}, 2)
    assert actual == [{"x": Shapes((1, 1, 3), (2, 2, 3), (2, 5, 3))}]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--shapes", "batch=8:4:16"], "1 <= min <= opt <= max must hold"),
        (["--shapes", "batch=0:4:16"], "1 <= min <= opt <= max must hold"),
        (["--shapes", "batch=1:4"], "is not NAME=MIN:OPT:MAX"),
        (["--shapes", "sequence=1:4:8", "--max-batch-size", "8"], "no such dynamic dimension"),
        ([], "'batch' has no range"),
        (["--max-batch-size", "-1"], "below 0"),
    ],
)
def test_ranges_that_cannot_be_are_bad_input(graphs: Any, project: Project, arguments: list[str], words: str) -> None:
    code, _, error = project.run("engine", graphs.mlp("fp16"), "--preflight", "--gpu", "l4", *arguments)
    assert code == 2
    assert words in error
    assert "fix:" in error


def test_a_fixed_batch_cannot_be_batched(graphs: Any, project: Project) -> None:
    path = graphs.mlp("fp16", batch=3)
    command = ("engine", path, "--preflight", "--gpu", "l4")
    code, _, error = project.run(*command, "--max-batch-size", "8")
    assert (code, "not dynamic" in error) == (2, True)
    assert project.run(*command)[0] == 0  # without, its one shape is its profile


def test_a_recipe_says_its_own_shapes(project: Project) -> None:
    code, _, error = project.run("engine", project.write(), "--preflight", "--gpu", "l4", "--max-batch-size", "4")
    assert (code, "put shapes and max_batch_size into the recipe" in error) == (2, True)


@pytest.mark.parametrize(
    ("shapes", "words"),
    [
        (Shapes((8, 32), (4, 32), (16, 32)), "axis 0: 1 <= min <= opt <= max must hold, got 8, 4, 16"),
        (Shapes((0, 32), (0, 32), (0, 32)), "axis 0"),
        (Shapes((1, 31), (1, 31), (1, 31)), "profile 0 gives input x 31 at axis 1, where the graph has 32"),
    ],
)
def test_profiles_are_held_against_the_parsed_network_without_a_gpu(graphs: Any, shapes: Shapes, words: str) -> None:
    network = builder.Network(builder.load("tensorrt_rtx"), graphs.mlp("fp16"))
    with pytest.raises(InputError) as caught:
        network.check_profiles([{"x": shapes}])
    assert words in caught.value.message
    network.check_profiles([{"x": Shapes((1, 32), (2, 32), (4, 32))}])
