"""Lays out forests: the file under the backend's name for it, the configuration and a passport."""

from __future__ import annotations

from dataclasses import asdict

from google.protobuf import text_format

from tritonkit import __version__, tuned
from tritonkit import recipe as recipes
from tritonkit.built_model import BuiltModel
from tritonkit.passport import Forest, ForestParity, Measurement, ModelPassport, Tuning
from tritonkit.recipe import ForestRecipe, Target
from tritonkit.repository import config as configurations
from tritonkit.repository import layout
from tritonkit.server.backends.fil.forest_inference import FILES
from tritonkit.trees import checks, config
from tritonkit.trees.checks import Checked

__all__ = ["built_model", "check", "model"]


def check(recipe: ForestRecipe) -> Checked:
    """Hold a recipe against its forest, and the forest against its library: as :func:`checks.check`."""
    return checks.check(recipe)


def model(checked: Checked, target: Target) -> layout.Model:
    """A forest's directory to be.

    Args:
        checked: The recipe and its forest.
        target: Where it runs.
    """
    recipe, version = checked.recipe, checked.recipe.number
    place = f"{version}/{FILES[checked.model_type]}"
    files = {} if checked.content is None else {place: checked.content}
    links = {} if files else {place: checked.file.path.resolve()}
    digests = {} if files else {place: checked.sha256}
    labels = recipe.outputs[recipes.FOREST_OUTPUT].labels
    if labels:
        from tritonkit import sources

        name = configurations.labels_filename(recipe, recipes.FOREST_OUTPUT)
        files[name] = ("\n".join(sources.load_labels(labels, recipe)) + "\n").encode()
    text = configurations.seal(text_format.MessageToString(config.build(checked, target)), recipe.path.name)
    passport = ModelPassport(
        tritonkit=__version__,
        model=recipe.name,
        version=version,
        target=target,
        precision="fp32",
        recipe=recipes.as_json(recipe),
        forest=Forest(**checked.as_json()),
        parity=ForestParity(**asdict(checked.parity)),
    )
    if figures := tuned.find(recipe, checked.sha256, target):
        passport = passport.model_copy(update={"tuning": Tuning(**figures)})
    return layout.Model(recipe.name, text, passport, version, links, files, digests)


def built_model(checked: Checked) -> BuiltModel:
    """What a build says of a forest."""
    parity = checked.parity
    worst = Measurement(check="module", max_abs=parity.absolute, relative=parity.relative) if parity.library else None
    return BuiltModel(
        key=checked.sha256,
        graph_bytes=checked.size,
        export_seconds=0.0,
        worst_parity=worst,
        precision="fp32",
        forest=Forest(**checked.as_json()),
        parity=ForestParity(**asdict(parity)),
    )
