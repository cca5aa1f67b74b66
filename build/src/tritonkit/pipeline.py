"""The road from recipes to a repository, in one place: export, make variants, choose, lay out.

Each step is another module's; this one only puts them in order and says how far it is.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence, Set
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from tritonkit import assemble, cached_export, queue_limits, store, trees
from tritonkit.assemble import Ready
from tritonkit.built_model import BuiltModel
from tritonkit.errors import CheckFailed, GraphError, InputError, RecipeError, SourceError
from tritonkit.graph import Session
from tritonkit.precision import gate, metrics, variants
from tritonkit.recipe import PRECISIONS, ForestRecipe, Precision, Recipe, Target
from tritonkit.repository import config, layout, python_models, text, versions


@dataclass(frozen=True)
class Options:
    """The options of a build, besides its recipes.

    Attributes:
        precisions: Variants to consider instead of the recipes' own; fp32 is always among them.
        force: Ship this precision, whatever the gate says; the passport records it.
        fallback: For TensorRT: add a graph that a node runs where no engine fits.
        overwrite: Replace configurations that were edited by hand.
    """

    precisions: tuple[Precision, ...] | None = None
    force: Precision | None = None
    fallback: bool = False
    overwrite: bool = False

    @property
    def alone(self) -> Precision | None:
        """The precision that was named, if exactly one was."""
        return self.precisions[0] if self.precisions and len(self.precisions) == 1 else None


DEFAULTS = Options()


@dataclass(frozen=True)
class Built:
    """The result of :func:`build`.

    Attributes:
        models: What each model is, by its name.
        exported: Names of the models that were exported now; the others came from the store.
        changed: Whether the repository was written.
        written: Names of the models whose folders in the repository are new or other than they were.
        kept: Paths in the repository of what tritonkit did not write and left where it was.
        beside: Name of each model that has several versions, to what there is of it and what is served.
    """

    models: dict[str, BuiltModel]
    exported: list[str]
    changed: bool
    written: list[str]
    kept: tuple[str, ...] = ()
    beside: dict[str, versions.Versions] = field(default_factory=dict)

    def as_json(self) -> dict[str, Any]:
        """Plain data, as ``tritonkit build --json`` prints it."""
        return {
            "models": {name: model.as_json() for name, model in self.models.items()},
            "exported": self.exported,
            "changed": self.changed,
            "written": self.written,
            "kept": list(self.kept),
            "beside": {name: asdict(several) for name, several in self.beside.items()},
        }


def build(recipes: Sequence[Recipe], repository: Path, target: Target = "cpu", options: Options = DEFAULTS) -> Built:
    """Bring ``repository`` to what the recipes say.

    Args:
        recipes: The recipes to build; models of other recipes in the repository stay.
        repository: A directory, made if it does not exist.
        target: Where the models will run.
        options: See :class:`Options`.

    Raises:
        TritonkitError: Anything is wrong; the repository is then as it was.
    """
    leaders = versions.leading(recipes)
    _check_names(leaders)
    layout.check_place(repository)
    # Before any export, so that a mistake there costs no time.
    for recipe in recipes:
        config.check_numbers(recipe, target)
    others = {
        name: [other for other in recipes if other.name == name and other is not leader]
        for name, leader in leaders.items()
    }
    for recipe in leaders.values():
        versions.check(repository, recipe, target, others[recipe.name])
    of_python = [
        model
        for recipe in leaders.values()
        for model in (*text.models(recipe, target), *python_models.models(recipe, target))
    ]
    labels = {
        id(recipe): f"{recipe.name}/{recipe.number}" if others[recipe.name] else recipe.name for recipe in recipes
    }
    exported_now: list[str] = []
    ready = []
    forests = {id(recipe): trees.check(recipe) for recipe in recipes if isinstance(recipe, ForestRecipe)}
    for recipe in recipes:
        if id(recipe) in forests:
            continue
        base, now = cached_export.exported(recipe)
        exported_now += [labels[id(recipe)]] if now else []
        python_models.check(recipe, base.graph)
        ready.append(_ready(recipe, base, target, options))
    single = {id(entry.recipe): assemble.model(entry, target, repository, fallback=options.fallback) for entry in ready}
    single |= {key: trees.model(checked, target) for key, checked in forests.items()}
    models = []
    for name, recipe in leaders.items():
        beside = [single[id(other)] for other in others[name]]
        versions.check_labels(repository, recipe, single[id(recipe)], beside)
        models.append(versions.merged(single[id(recipe)], beside))
    models += of_python
    new = {model.name for model in models if not layout.is_current(repository, [model])}
    if new:
        layout.write(repository, models, overwrite=options.overwrite)
    several = {
        leader.name: overview
        for leader in leaders.values()
        if len((overview := versions.look(repository, leader)).present) > 1
    }
    return Built(
        models={
            **{labels[id(entry.recipe)]: _built_model(entry, target) for entry in ready},
            **{labels[key]: trees.built_model(checked) for key, checked in forests.items()},
        },
        exported=exported_now,
        changed=bool(new),
        written=[labels[id(recipe)] for recipe in recipes if new & names(recipe)],
        kept=layout.foreign(repository, models),
        beside=several,
    )


def names(recipe: Recipe) -> set[str]:
    """Every model that a recipe puts into a repository."""
    return text.names(recipe) | python_models.names(recipe)


def _check_names(leaders: Mapping[str, Recipe]) -> None:
    owner: dict[str, Recipe] = {}
    for recipe in leaders.values():
        for name in names(recipe):
            if name in owner:
                raise RecipeError(
                    f"{owner[name].path}, {recipe.path}: two recipes have the name {name!r}", "rename one of them"
                )
            owner[name] = recipe


def _ready(recipe: Recipe, base: store.Artifact, target: Target, options: Options) -> Ready:
    """Make the variants and let the gate choose."""
    precisions: set[Precision] = {
        *(options.precisions or recipe.precisions),
        "fp32",
        *([options.force] if options.force else []),
    }
    metrics.bounds(recipe)  # a mistake there shows before minutes of work
    artifacts, absent = _variants(recipe, base, target, options, precisions)
    # On a GPU fp32 alone is worth a look too: what memory it takes, and what TF32 costs.
    # Where there is an SLO, service times say how long the queue may be.
    promised = target == "cpu" and recipe.slo is not None and recipe.slo.latency_ms is not None
    judged = len(precisions) > 1 or promised or (target == "cuda" and Session.has_cuda())
    decision = gate.decide(recipe, base, target, artifacts, absent) if judged else gate.Decision("fp32", [])
    chosen = recipe.serving(target).precision
    if chosen and target != "tensorrt" and options.precisions is None:
        decision = gate.tuned(recipe, decision, chosen)
    if options.alone and decision.unproven(options.alone):
        decision = replace(decision, precision=options.alone)  # asked for by name, and accurate
    if options.force and options.force != decision.precision:
        decision = replace(decision, precision=options.force, forced=True)
    return Ready(recipe, base, artifacts, decision)


def _variants(
    recipe: Recipe, base: store.Artifact, target: Target, options: Options, precisions: Set[Precision]
) -> tuple[dict[Precision, store.Artifact], dict[Precision, str]]:
    """Every variant of ``precisions``, or why there is none; an error where it was named alone or is forced."""
    artifacts: dict[Precision, store.Artifact] = {}
    absent: dict[Precision, str] = {}
    named = {"fp32", options.alone, options.force}
    for precision in (precision for precision in PRECISIONS if precision in precisions):
        reason = variants.unsuitable(recipe, target, precision)
        if not reason:
            try:
                artifacts[precision] = variants.make(recipe, base, target, precision)[0]
                continue
            except (CheckFailed, GraphError, SourceError) as error:
                of_recipe = isinstance(error, SourceError) and options.precisions is None
                if precision in named or of_recipe:
                    raise
                reason = error.message
        elif precision in named:
            raise InputError(f"{recipe.path}: {precision} cannot ship: {reason}", "name another precision")
        absent[precision] = reason
    return artifacts, absent


def _built_model(ready: Ready, target: Target) -> BuiltModel:
    base, shipped = ready.base, ready.shipped
    return BuiltModel(
        key=base.record.key[:16],
        graph_bytes=shipped.graph_bytes,
        export_seconds=base.record.seconds,
        worst_parity=max(base.record.parity, key=lambda measurement: measurement.relative, default=None),
        precision=ready.decision.precision,
        forced=ready.decision.forced,
        tuned=ready.decision.tuned,
        judged_on=ready.decision.judged_on,
        slo_ms=ready.recipe.slo.latency_ms if ready.recipe.slo else None,
        alone_ms=times.of(1) if (times := ready.service_times) else None,
        queue=ready.limits(target),
        queue_by_name=queue_limits.by_name(ready.recipe, target),
        gate=tuple(ready.decision.rows),
    )
