"""Several versions of one model in a repository: what they must have in common, and which of them are served.

They share one ``config.pbtxt``: a version is another graph for the same inputs, outputs, labels and batching. A model
that differs in one of these is another model.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from tritonclient.grpc import model_config_pb2 as pb

from tritonkit import passport as passports
from tritonkit.errors import RecipeError
from tritonkit.recipe import Recipe, Target
from tritonkit.repository import config, layout, model_directory, ownership


@dataclass(frozen=True)
class Versions:
    """The versions of one model.

    Attributes:
        built: The one that the recipe says.
        present: Those that have a folder.
        served: Those that Triton loads.
        chosen: Whether the recipe says so; where it does not, Triton takes the highest.
    """

    built: int
    present: tuple[int, ...]
    served: tuple[int, ...]
    chosen: bool


def look(repository: Path, recipe: Recipe) -> Versions:
    """What there is of a recipe's model in a repository that was built; Triton loads the highest if not told."""
    present = tuple(model_directory.versions(repository / recipe.name))
    return Versions(recipe.number, present, recipe.served or present[-1:], bool(recipe.served))


def leading(recipes: Sequence[Recipe]) -> dict[str, Recipe]:
    """The recipe that says how each model is served: the one with ``traffic``, else the one with the highest version.

    Raises:
        RecipeError: Two recipes of one name have the same version, or both have ``traffic``.
    """
    leaders: dict[str, Recipe] = {}
    seen: dict[tuple[str, int], Recipe] = {}
    for recipe in recipes:
        other = seen.setdefault((recipe.name, recipe.number), recipe)
        if other is not recipe:
            raise RecipeError(
                f"{other.path}, {recipe.path}: two recipes have the name {recipe.name!r}",
                "rename one of them, or give it another `version` (docs/guides/versions.md)",
            )
        leader = leaders.setdefault(recipe.name, recipe)
        if leader is not recipe and leader.traffic and recipe.traffic:
            raise RecipeError(
                f"{leader.path}, {recipe.path}: both say the traffic of {recipe.name}", "leave it in one of them"
            )
        leaders[recipe.name] = max(leader, recipe, key=lambda of: (bool(of.traffic), of.number))
    return leaders


def check(repository: Path, recipe: Recipe, target: Target, beside: Sequence[Recipe] = ()) -> None:
    """Refuse a recipe whose model cannot be served beside the versions that it names, before any work is done.

    Args:
        repository: Where earlier versions are.
        recipe: The one that says how its model is served.
        target: What is built for.
        beside: Recipes of other versions that are built with it.

    Raises:
        RecipeError: ``traffic`` names a version that is not there, or one that takes or gives something else;
            or several, for TensorRT.
    """
    if target == "tensorrt" and len(recipe.served) > 1:
        raise RecipeError(
            f"{recipe.path}: traffic names {len(recipe.served)} versions, and engines are built on a node for one of "
            "them",
            "build for --target cuda, or give the second version a recipe with a name of its own",
        )
    for other in beside:
        _check_tensors(recipe, target, config.build(other, target), other.number)
    directory = repository / recipe.name
    present = model_directory.versions(directory)
    for version in set(recipe.served) - {recipe.number, *(other.number for other in beside)}:
        if version not in present:
            listing = f"version {', '.join(map(str, present))}" if present else "none of this model"
            raise RecipeError(
                f"{recipe.path}: traffic names version {version}, and {repository} has {listing}",
                f"build its recipe (version: {version}) first, or with this one: tritonkit build RECIPE RECIPE",
            )
        _check_target(directory, recipe, version, target)
        if before := model_directory.find_config(directory):  # else there is nothing to compare with
            _check_tensors(recipe, target, before, version)


def merged(leader: layout.Model, others: Sequence[layout.Model]) -> layout.Model:
    """One directory of all versions that are built together; ``leader``'s configuration, and a passport for each."""
    links = dict(leader.links)
    for other in others:
        links |= {path: origin for path, origin in other.links.items() if path.startswith(f"{other.version}/")}
    return replace(leader, links=links, beside={other.version: other.passport for other in others})


def check_labels(repository: Path, recipe: Recipe, leader: layout.Model, others: Sequence[layout.Model]) -> None:
    """Refuse labels that differ from those of the versions beside it: Triton has one file for all.

    Raises:
        RecipeError: The labels differ.
    """
    directory = repository / leader.name
    last_built = passports.find(directory / layout.PASSPORT)
    last = last_built.version if last_built else passports.FIRST
    beside = [(other.version, other.links) for other in others]
    if last in recipe.served and last not in {leader.version, *(version for version, _ in beside)}:
        beside.append((last, {path.name: path for path in directory.glob("*") if model_directory.is_labels(path.name)}))
    for version, links in beside:
        for name in filter(model_directory.is_labels, leader.links):
            if name not in links or links[name].read_bytes() != leader.links[name].read_bytes():
                raise _differs(recipe, version, f"{name} has other labels")


def _check_target(directory: Path, recipe: Recipe, version: int, target: Target) -> None:
    built = ownership.passports(directory).get(version)
    built_for = built.target if built else ""
    if built_for not in {"", target}:
        raise RecipeError(
            f"{recipe.path}: version {version} in {directory} was built for {built_for}, this build is for {target}",
            f"build version {version} for {target} first, or leave it out of traffic",
        )


def _check_tensors(recipe: Recipe, target: Target, other: pb.ModelConfig, version: int) -> None:
    new = config.build(recipe, target)
    for kind, ours, theirs in (("input", new.input, other.input), ("output", new.output, other.output)):
        now, then = _described(ours), _described(theirs)
        for name in sorted(now.keys() | then.keys()):
            if now.get(name) != then.get(name):
                raise _differs(
                    recipe, version, f"{kind} {name} is {now.get(name, 'absent')}, there {then.get(name, 'absent')}"
                )
    if bool(other.max_batch_size) != bool(new.max_batch_size):
        raise _differs(recipe, version, "only one of them is batched")


def _described(tensors: Sequence[pb.ModelInput | pb.ModelOutput]) -> dict[str, str]:
    return {
        tensor.name: f"{pb.DataType.Name(tensor.data_type).removeprefix('TYPE_')} {list(tensor.dims)}"
        for tensor in tensors
    }


def _differs(recipe: Recipe, version: int, what: str) -> RecipeError:
    return RecipeError(
        f"{recipe.path}: {recipe.name} cannot be served beside its version {version}: {what}. Versions of a model "
        "share inputs, outputs and labels",
        "give it a name of its own, or leave that version out of traffic",
    )
