"""A forest's ``config.pbtxt``: the parameters of NVIDIA's FIL backend (docs/model_config.md of fil_backend)."""

from __future__ import annotations

from tritonclient.grpc import model_config_pb2 as pb

from tritonkit.recipe import ForestRecipe, Target
from tritonkit.repository import config
from tritonkit.trees.checks import Checked

BACKEND = "fil"


def build(checked: Checked, target: Target) -> pb.ModelConfig:
    """The configuration of a forest.

    Args:
        checked: The recipe and its forest.
        target: ``cpu``, or where a GPU runs it.
    """
    recipe, settings = checked.recipe, checked.settings
    said = config.build(recipe, target)
    said.backend = BACKEND
    said.ClearField("optimization")
    said.ClearField("default_model_filename")
    for name in set(said.parameters) - {config.TRAFFIC}:
        said.parameters.pop(name)
    set_batching(said, recipe, target)
    parameters = {
        "model_type": settings.model_type,
        "is_classifier": _word(settings.is_classifier),
        "predict_proba": _word(settings.predict_proba),
    }
    if settings.is_classifier:
        parameters["threshold"] = f"{settings.threshold:g}"  # the backend does not load a classifier without one
    parameters |= {key: str(value) for key, value in recipe.fil.model_dump(exclude_none=True).items()}
    for name, value in parameters.items():
        said.parameters[name].string_value = value
    return said


def set_batching(said: pb.ModelConfig, recipe: ForestRecipe, target: Target) -> None:
    """Give a configuration what the recipe's ``batching`` says, instead of what it had of that."""
    config.set_batching(said, recipe, target)
    said.parameters.pop("intra_op_thread_count", None)
    if target == "cpu":
        said.parameters["cpu_nthread"].string_value = str(recipe.serving(target).threads)


def _word(value: bool) -> str:
    return "true" if value else "false"  # the backend takes no other spelling
