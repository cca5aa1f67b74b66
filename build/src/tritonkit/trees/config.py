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
    model_config = config.build(recipe, target)
    model_config.backend = BACKEND
    model_config.ClearField("optimization")
    model_config.ClearField("default_model_filename")
    for name in set(model_config.parameters) - {config.TRAFFIC}:
        model_config.parameters.pop(name)
    set_batching(model_config, recipe, target)
    parameters = {
        "model_type": settings.model_type,
        "is_classifier": _word(settings.is_classifier),
        "predict_proba": _word(settings.predict_proba),
    }
    if settings.is_classifier:
        parameters["threshold"] = f"{settings.threshold:g}"  # the backend does not load a classifier without one
    parameters |= {key: str(value) for key, value in recipe.fil.model_dump(exclude_none=True).items()}
    for name, value in parameters.items():
        model_config.parameters[name].string_value = value
    return model_config


def set_batching(model_config: pb.ModelConfig, recipe: ForestRecipe, target: Target) -> None:
    """Set a configuration's batching to what the recipe's ``batching`` says."""
    config.set_batching(model_config, recipe, target)
    model_config.parameters.pop("intra_op_thread_count", None)
    if target == "cpu":
        model_config.parameters["cpu_nthread"].string_value = str(recipe.serving(target).threads)


def _word(value: bool) -> str:
    return "true" if value else "false"  # the backend takes no other spelling
