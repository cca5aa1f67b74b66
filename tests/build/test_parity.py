"""Parity: a graph that differs from its module, or mixes the rows of a batch, is refused and not written."""

from __future__ import annotations

import json

import numpy as np
import pytest
from support import NET, Project

from tritonkit import parity


@pytest.mark.parametrize(
    ("forward", "messages"),
    [
        ("self.linear(x) + torch.rand(1) * 0.1", ["differs from the module it came from", "tolerance"]),
        ("self.linear(x - x.mean(0, keepdim=True))", ["beside other rows", "--max-batch-size 0"]),
        ("self.linear(x) / x.shape[0]", ["one at a time", "--max-batch-size 0"]),
    ],
    ids=["random numbers", "mixes the rows of a batch", "depends on the batch's size"],
)
def test_model_that_cannot_be_served_faithfully_exits_1_and_writes_nothing(
    project: Project, forward: str, messages: list[str]
) -> None:
    project.write(NET.replace("self.linear(x)", forward))
    status, _, err = project.build()
    assert status == 1, err
    for message in messages:
        assert message in err
    assert "relative error" in err
    assert not project.repository.exists()
    assert project.artifacts() == []


def test_dropout_is_off_in_the_graph_as_in_evaluation_mode(project: Project) -> None:
    project.write(NET.replace("self.linear(x)", "torch.nn.functional.dropout(self.linear(x), 0.5, self.training)"))
    assert project.build()[0] == 0


def test_tolerance_of_the_recipe_decides(project: Project) -> None:
    noisy = NET.replace("self.linear(x)", "self.linear(x) + torch.rand(1) * 1e-3")
    project.write(noisy)
    assert project.build()[0] == 1
    project.write(noisy, tolerance=0.1)
    assert project.build()[0] == 0


def test_errors_are_reported_for_all_batch_sizes_and_ends_of_a_range(project: Project) -> None:
    dynamic = {"dtype": "fp32", "dims": ["n"]}
    project.write(
        "import torch\nclass Net(torch.nn.Module):\n    def forward(self, x):\n        return torch.sin(x)\ndef load():\n    return Net()\n",
        inputs={"x": dynamic}, outputs={"y": dynamic}, shapes={"n": {"min": 2, "opt": 5, "max": 11}},
    )  # fmt: skip
    assert project.build()[0] == 0
    measured = json.loads((project.repository / "net/passport.json").read_text())["parity"]
    shapes = {entry["inputs"] for entry in measured if entry["check"] == "module"}
    assert shapes == {f"x float32[{batch}, {n}]" for batch, n in [(1, 5), (2, 5), (3, 5), (2, 2), (2, 11)]}
    assert {entry["check"] for entry in measured} == {"module", "batch", "alone"}


@pytest.mark.parametrize(
    ("expected", "got", "distance"),
    [
        ([1.0, -4.0], [1.0, -4.0], (0.0, 0.0)),
        ([1.0, -4.0], [1.5, -4.0], (0.5, 0.125)),
        ([np.inf, 1.0], [np.inf, 1.0], (0.0, 0.0)),
        ([np.nan, 1.0], [np.nan, 1.0], (0.0, 0.0)),
        ([np.nan, 1.0], [0.0, 1.0], (np.inf, np.inf)),
        ([np.inf, 1.0], [-np.inf, 1.0], (np.inf, np.inf)),
        ([0.0, 0.0], [0.0, 1e-30], (1e-30, np.inf)),
        ([1.0], [1.0, 1.0], (np.inf, np.inf)),
    ],
)
def test_distance_of_floats(expected: list[float], got: list[float], distance: tuple[float, float]) -> None:
    assert parity.distance(np.array(expected), np.array(got)) == distance


def test_distance_of_integers_and_strings_counts_what_differs() -> None:
    assert parity.distance(np.array([1, 2, 3]), np.array([1, 0, 0])) == (2.0, 2.0)
    assert parity.distance(np.array(["a", "b"], object), np.array(["a", "b"], object)) == (0.0, 0.0)
