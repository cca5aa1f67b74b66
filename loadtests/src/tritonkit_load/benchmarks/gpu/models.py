"""The models of `make bench-gpu`: their recipes, the repositories they are built into, and what is sent to them."""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from google.protobuf import json_format, text_format
from tritonclient.grpc import service_pb2

from tritonkit import pipeline, recipe, samples, store
from tritonkit.errors import InputError
from tritonkit.recipe import Precision, Recipe
from tritonkit.repository import config
from tritonkit.zoo import noise
from tritonkit_load.reporting.gpu_result import GateRow

RECIPES = Path(__file__).parent / "recipes"
# Every variant that is measured in process, and the one of each model that is served as well.
VARIANTS: dict[str, tuple[Precision, ...]] = {
    "efficientnet_lite0": ("fp32",), "resnet50": ("fp32", "fp16"), "bert_base": ("fp32", "fp16"),
}  # fmt: skip
TOKENS = 128  # of a text where all are equally long
REQUESTS = 64  # different ones
SEED = 0


@dataclass(frozen=True)
class Model:
    """One variant of one model, as `tritonkit build --target cuda` lays it out.

    Attributes:
        recipe: Its recipe.
        precision: The variant.
        repository: A repository with this variant.
    """

    recipe: Recipe
    precision: Precision
    repository: Path

    @property
    def name(self) -> str:
        """The model's name in Triton."""
        return self.recipe.name

    @property
    def graph(self) -> Path:
        """The ONNX file."""
        return self.repository / self.name / "1" / store.GRAPH

    @property
    def served(self) -> bool:
        """Whether it is the variant that is served."""
        return self.precision == VARIANTS[self.name][-1]

    @property
    def of_texts(self) -> bool:
        """Whether its inputs have a length."""
        return bool(self.recipe.shapes)

    @property
    def tokens(self) -> int:
        """Of a text where all are equally long; 0 for images."""
        return TOKENS if self.of_texts else 0

    def config(self) -> dict[str, Any]:
        """``config.pbtxt`` as Triton gives it to a backend."""
        text = (self.repository / self.name / "config.pbtxt").read_text(encoding="utf-8")
        read: dict[str, Any] = json_format.MessageToDict(config.parse(text), preserving_proto_field_name=True)
        return read

    def singles(self, count: int, lengths: Sequence[int] = ()) -> list[samples.Sample]:
        """Requests of one sample each, with their batch dimension.

        Args:
            count: How many.
            lengths: Of texts, in turn; ``TOKENS`` if not given.
        """
        if self.of_texts:
            random = np.random.default_rng(SEED)
            rows = [noise.text((lengths or [TOKENS])[i % max(len(lengths), 1)], random) for i in range(count)]
        else:
            few = samples.load(self.recipe, min(count, REQUESTS))
            rows = [few[index % len(few)] for index in range(count)]
        return [samples.batch([row], 1) for row in rows]


def lengths(count: int) -> list[int]:
    """Lengths of texts, each from 8 to 256 tokens alike; always the same."""
    random = np.random.default_rng(SEED)
    return [int(length) for length in random.integers(noise.SHORTEST, noise.LONGEST + 1, count)]


def joined(singles: Sequence[samples.Sample]) -> samples.Sample:
    """One request of many samples, from requests of one each."""
    return {name: np.concatenate([single[name] for single in singles]) for name in singles[0]}


def message(name: str, inputs: Mapping[str, Any]) -> bytes:
    """A request as gRPC sends it."""
    request = service_pb2.ModelInferRequest(model_name=name)
    for tensor, array in inputs.items():
        kind = {"uint8": "UINT8", "int64": "INT64"}[array.dtype.name]
        request.inputs.add(name=tensor, datatype=kind).shape.extend(array.shape)
        request.raw_input_contents.append(np.ascontiguousarray(array).tobytes())
    data: bytes = request.SerializeToString()
    return data


def recipes(names: Sequence[str]) -> list[Recipe]:
    """Recipes by name.

    Raises:
        InputError: A name is not in :data:`VARIANTS`.
    """
    if unknown := sorted(set(names) - set(VARIANTS)):
        raise InputError(f"there is no model {unknown[0]!r} to benchmark", f"some of {', '.join(VARIANTS)}")
    return [recipe.load(RECIPES / f"{name}.yaml") for name in VARIANTS if name in names]


def build(recipes: Sequence[Recipe], folder: Path) -> tuple[list[Model], list[GateRow]]:
    """Build every variant for CUDA; the models, and the rows of the gate.

    Args:
        recipes: The recipes.
        folder: Where a repository for each precision goes; what lies there unchanged is built only once.
    """
    models, gate = [], []
    for precision in dict.fromkeys(kind for kinds in VARIANTS.values() for kind in kinds):
        chosen = [entry for entry in recipes if precision in VARIANTS[entry.name]]
        if not chosen:
            continue
        options = pipeline.Options(precisions=("fp32",), overwrite=True)
        if precision != "fp32":  # served whatever the gate says, so that a refusal shows with its figures
            options = pipeline.Options(force=precision, overwrite=True)
        built = pipeline.build(chosen, folder / precision, "cuda", options)
        models += [Model(entry, precision, folder / precision) for entry in chosen]
        gate += [
            GateRow(name, row.precision, row.verdict, row.why)
            for name, model in built.models.items()
            for row in model.gate
            if row.verdict != "base"
        ]
    return models, gate


def laid_out(model: Model, instances: int, folder: Path, queue: int = 0) -> Path:
    """A repository of this one model with so many instances, its files linked.

    Args:
        model: Which one.
        instances: On each GPU.
        folder: Where it goes.
        queue: Requests that may wait; 0: as built.
    """
    repository = folder / f"{model.name}-{model.precision}-{instances}"
    shutil.rmtree(repository, ignore_errors=True)
    origin, target = model.repository / model.name, repository / model.name
    shutil.copytree(origin, target, copy_function=_link, ignore=shutil.ignore_patterns("config.pbtxt"))
    model_config = config.parse((origin / "config.pbtxt").read_text(encoding="utf-8"))
    for group in model_config.instance_group:
        group.count = instances
    if queue:
        model_config.dynamic_batching.default_queue_policy.max_queue_size = queue
    (target / "config.pbtxt").write_text(text_format.MessageToString(model_config), encoding="utf-8")
    return repository


def work_folder() -> Path:
    """Where repositories lie between calls."""
    return store.home() / "bench-gpu"


def _link(source: str, target: str) -> None:
    """A second name of the same file, or a copy where the filesystem has no such thing."""
    try:
        os.link(source, target)
    except OSError:
        shutil.copy2(source, target)
