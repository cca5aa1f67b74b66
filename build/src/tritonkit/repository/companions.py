"""The directories that stand beside a model's own: Python models before and after it, and the ensemble of them all.

What they have in common, whatever recipe section asks for them (:mod:`tritonkit.repository.text`,
:mod:`tritonkit.repository.python_models`).
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from google.protobuf import text_format
from tritonclient.grpc import model_config_pb2 as pb

from tritonkit.passport import ModelPassport
from tritonkit.recipe import Recipe, TensorSpec
from tritonkit.repository import config
from tritonkit.repository.layout import VERSION, Model

# Processes of a Python model: two, so that one long text, or slow row, does not hold up the others. Beside a caller
# whose texts have 1 MB, four more got 17 requests a second from one instance, 1,230 from two. No batcher: encoding
# costs the same in a batch, the model's throughput behind it did not rise, and a bound on a batcher's queue stalls a
# model that is this fast even with two instances (docs/text.md).
INSTANCES = 2
# Triton wants a directory for each version; an ensemble has nothing to put in it, and git and S3 keep no empty ones.
_KEEP = "keep"
_KEPT = b"An ensemble has no files; this one keeps its version directory where empty ones are not stored.\n"
Specs = Mapping[str, TensorSpec]


def python_config(name: str, inputs: Specs, outputs: Specs, largest: int) -> pb.ModelConfig:
    """A Python model's configuration.

    Args:
        name: The model's.
        inputs: What it takes, by name.
        outputs: What it gives, by name.
        largest: ``max_batch_size``.
    """
    configuration = pb.ModelConfig(name=name, backend="python", max_batch_size=largest)
    _add_tensors(configuration, inputs, outputs)
    configuration.instance_group.add(count=INSTANCES, kind=pb.ModelInstanceGroup.KIND_CPU)
    return configuration


def ensemble_config(name: str, inputs: Specs, outputs: Specs, largest: int) -> pb.ModelConfig:
    """An ensemble's configuration, still without steps; arguments as those of :func:`python_config`."""
    configuration = pb.ModelConfig(name=name, platform="ensemble", max_batch_size=largest)
    _add_tensors(configuration, inputs, outputs)
    return configuration


def python_model(
    configuration: pb.ModelConfig, recipe: Recipe, passport: ModelPassport, files: Mapping[str, bytes]
) -> Model:
    """A Python model's directory.

    Args:
        configuration: Its configuration.
        recipe: The recipe that it is made of.
        passport: What its passport says beside its name.
        files: What goes into its version's folder: name to content.
    """
    named = passport.model_copy(update={"model": configuration.name})
    return _model(configuration, recipe, named, {f"{VERSION}/{name}": content for name, content in files.items()})


def ensemble(configuration: pb.ModelConfig, recipe: Recipe) -> Model:
    """An ensemble's directory, of its configuration with all steps."""
    steps = [step.model_name for step in configuration.ensemble_scheduling.step]
    passport = ModelPassport(model=configuration.name, kind="ensemble", of=recipe.name, steps=tuple(steps))
    return _model(configuration, recipe, passport, {f"{VERSION}/{_KEEP}": _KEPT})


def as_json(data: Mapping[str, Any]) -> str:
    """The JSON text of settings."""
    return json.dumps(data, indent=2) + "\n"


def _model(configuration: pb.ModelConfig, recipe: Recipe, passport: ModelPassport, files: Mapping[str, bytes]) -> Model:
    text = config.seal(text_format.MessageToString(configuration), recipe.path.name)
    return Model(configuration.name, text, passport, files=files)


def _add_tensors(configuration: pb.ModelConfig, inputs: Specs, outputs: Specs) -> None:
    for tensors, specs in ((configuration.input, inputs), (configuration.output, outputs)):
        for name, spec in specs.items():
            tensors.add(name=name, data_type=config.tensor_type(spec), dims=_dims(spec))


def _dims(spec: TensorSpec) -> list[int]:
    """Dims as the model's own configuration has them on the wire: one number a row is ``[1]``."""
    return [-1 if isinstance(dim, str) else dim for dim in spec.dims] or [1]
