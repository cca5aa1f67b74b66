"""Two small models of a user's own, exported once: a convolutional one with a residual, and a transformer's layer."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import yaml
from onnx import TensorProto, helper, numpy_helper

from tritonkit import cached_export, recipe, store
from tritonkit.precision import onnxgraph, speed
from tritonkit.recipe import Recipe

MODELS = '''
import numpy as np
import torch


class Pictures(torch.nn.Module):
    """Stem, a block with a skip connection, a depthwise convolution, and a classifier."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.stem = torch.nn.Conv2d(3, 16, 3, stride=2, padding=1)
        self.wide = torch.nn.Conv2d(16, 32, 1)
        self.deep = torch.nn.Conv2d(32, 32, 3, padding=1, groups=32)
        self.narrow = torch.nn.Conv2d(32, 16, 1)
        self.head = torch.nn.Linear(16, 10)

    def forward(self, image):
        x = image.permute(0, 3, 1, 2).float() / 255 - 0.5
        x = torch.nn.functional.relu6(self.stem(x))
        y = torch.nn.functional.relu6(self.wide(x))
        y = torch.nn.functional.relu6(self.deep(y))
        return self.head((self.narrow(y) + x).mean((2, 3))) * 10


class Tokens(torch.nn.Module):
    """Embedding, a residual feed-forward layer behind a normalisation, whose activations have an outlier channel."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.embed = torch.nn.Embedding(100, 32)
        self.norm = torch.nn.LayerNorm(32)
        self.up = torch.nn.Linear(32, 64)
        self.down = torch.nn.Linear(64, 32)
        self.last = torch.nn.LayerNorm(32)
        with torch.no_grad():
            self.norm.weight[3] = 60.0

    def forward(self, ids):
        x = self.norm(self.embed(ids))
        x = self.last(x + self.down(torch.nn.functional.gelu(self.up(x))))
        return x.mean(1)


def pictures():
    return Pictures()


def tokens():
    return Tokens()


def images(count=80, seed=0):
    random = np.random.default_rng(seed)
    for _ in range(count):
        base = random.integers(0, 256, (4, 4, 3))
        yield {"image": base.repeat(8, 0).repeat(8, 1).astype(np.uint8)}


def texts(count=80):
    random = np.random.default_rng(0)
    for _ in range(count):
        yield {"ids": random.integers(0, 100, (int(random.integers(4, 9)),))}


def one_image():
    for _ in range(40):
        yield {"image": np.full((32, 32, 3), 7, np.uint8)}


def three_images():
    yield from images(3)


def second_label_first(reference, got):
    return 0.25
'''
PICTURES = {
    "name": "pictures",
    "source": "models.py:pictures",
    "inputs": {"image": {"dtype": "uint8", "dims": [32, 32, 3]}},
    "outputs": {"logits": {"dtype": "fp32", "dims": [10]}},
    "samples": "models.py:images",
    "calibration": {"samples": 24},
    "gpus": ["t4", "l4"],
}
TOKENS = {
    "name": "tokens",
    "source": "models.py:tokens",
    "inputs": {"ids": {"dtype": "int64", "dims": ["length"]}},
    "outputs": {"vector": {"dtype": "fp32", "dims": [32]}},
    "shapes": {"length": {"min": 2, "opt": 8, "max": 16}},
    "samples": "models.py:texts",
    "calibration": {"samples": 24},
}


@dataclass(frozen=True)
class Exported:
    """A recipe and its export."""

    recipe: Recipe
    base: store.Artifact


@pytest.fixture(scope="session")
def models_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the models and their recipes, and a store beside it."""
    folder = tmp_path_factory.mktemp("precision")
    (folder / "models.py").write_text(MODELS, encoding="utf-8")
    for recipe_data in (PICTURES, TOKENS):
        (folder / f"{recipe_data['name']}.yaml").write_text(
            yaml.safe_dump(recipe_data, sort_keys=False), encoding="utf-8"
        )
    return folder


@pytest.fixture(autouse=True)
def home(models_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One store for all of these tests, and none of the user's."""
    monkeypatch.setenv("TRITONKIT_HOME", str(models_folder / "home"))
    monkeypatch.setenv("COLUMNS", "200")
    monkeypatch.setattr(speed, "ROUND_S", 0.02)  # these models are small, and who wins here is of no interest


def _exported(models_folder: Path, name: str) -> Iterator[Exported]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TRITONKIT_HOME", str(models_folder / "home"))
        loaded = recipe.load(models_folder / f"{name}.yaml")
        yield Exported(loaded, cached_export.exported(loaded)[0])


@pytest.fixture(scope="session")
def pictures(models_folder: Path) -> Exported:
    return next(_exported(models_folder, "pictures"))


@pytest.fixture(scope="session")
def tokens(models_folder: Path) -> Exported:
    return next(_exported(models_folder, "tokens"))


def value(name: str, *dims: int | str) -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info(name, TensorProto.FLOAT, dims)


def graph_of(nodes: list[onnx.NodeProto], **weights: Any) -> onnxgraph.OnnxGraph:
    graph = helper.make_graph(
        nodes, "g", [value("x", "batch", 8)], [value("y", "batch", "n")],
        [numpy_helper.from_array(np.asarray(array), name) for name, array in weights.items()],
    )  # fmt: skip
    return onnxgraph.OnnxGraph(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10))
