"""A chosen variant becomes a model directory: its configuration, its passport, and what a GPU node falls back to."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from tritonkit import __version__, gpus, queue_limits, store, tuned
from tritonkit import passport as passports
from tritonkit import recipe as recipes
from tritonkit.errors import RecipeError
from tritonkit.passport import DeviceMemory, Gate, GateRow, ModelPassport, Queue, Section, Tf32, Tuning
from tritonkit.precision import gate
from tritonkit.recipe import Precision, Recipe, Target
from tritonkit.repository import config, layout
from tritonkit.repository.model_directory import ENGINE_GRAPH, custom_config

FALLBACK = "onnxruntime"  # the name of the other configuration: tritonserver --model-config-name=onnxruntime


@dataclass(frozen=True)
class Ready:
    """A recipe, its export and variants, and the gate's decision: all that the layout needs."""

    recipe: Recipe
    base: store.Artifact
    variants: dict[Precision, store.Artifact]
    decision: gate.Decision

    @property
    def shipped(self) -> store.Artifact:
        """The variant that is served."""
        return self.variants[self.decision.precision]

    def limits(self, target: Target) -> queue_limits.QueueLimits | None:
        """How many requests may wait within the SLO, by what the gate measured; None without one of these.

        The rate is what `make tune` saw on this machine; where it did not, that of as many CPU cores as this build may
        use.
        """
        figures = self.tuning(target)
        rate = figures.throughput if figures and figures.load.batch_sizes == "1" else None
        cores = queue_limits.usable_cores()
        return queue_limits.of_recipe(self.recipe, target, self.service_times, cores, rate)

    def tuning(self, target: Target) -> Tuning | None:
        """What tuning measured of the variant that ships; None where it did not, on this machine."""
        figures = tuned.find(self.recipe, self.shipped.record.graph_sha256, target)
        return Tuning(**figures) if figures else None

    @property
    def service_times(self) -> queue_limits.ServiceTimes | None:
        """The service times of the variant that ships, as the gate measured them; None where it did not."""
        row = next((row for row in self.decision.rows if row.precision == self.decision.precision), None)
        if row is None or not row.single_ms or not row.batched_ms:
            return None
        return queue_limits.ServiceTimes(row.single_ms, row.batched_ms, max(row.batch, 1))


def model(ready: Ready, target: Target, repository: Path, *, fallback: bool) -> layout.Model:
    """The directory of one model, before it is written.

    Args:
        ready: The recipe, its variants, and which one ships.
        target: Where it runs.
        repository: Where it goes; engines that lie there already are kept if they were built from the same graph.
        fallback: For TensorRT: add the fp32 graph and a configuration that runs it on onnxruntime.

    Raises:
        RecipeError: The target is TensorRT and the recipe names no GPUs.
    """
    base, shipped, version = ready.base, ready.shipped, ready.recipe.number
    limits = ready.limits(target)
    recipe = queue_limits.applied(ready.recipe, target, limits)
    shapes = base.record.warmup_shapes
    warmup = {name: np.empty(shape, dtype=recipe.inputs[name].type.numpy) for name, shape in shapes.items()}
    passport = _passport(ready, target, limits, fallback=fallback)
    if target != "tensorrt":
        text = config.make(recipe, target, warmup)
        return layout.Model(recipe.name, text, passport, version, layout.files_of(shipped, version))
    if not recipe.gpus:
        raise RecipeError(
            f"{recipe.path}: the target tensorrt has one engine a GPU, and the recipe names no `gpus`",
            f"add  gpus: [t4, a10g]; known are {', '.join(gpus.names())}",
        )
    text = config.make(recipe, target, warmup, plan_names(recipe))
    links = layout.files_of(base, version, graph=fallback) | {f"{version}/{ENGINE_GRAPH}": shipped.graph}
    links |= {f"{version}/{path.name}": path for path in shipped.weights}
    links |= _plans(repository / recipe.name, version, shipped)
    other = {custom_config(FALLBACK): config.make(recipe, "cuda", warmup, sized=False).encode()} if fallback else {}
    return layout.Model(recipe.name, text, passport, version, links, other)


def plan_names(recipe: Recipe) -> dict[str, str]:
    """Compute capability to the file name of its engine, as ``cc_model_filenames`` has them."""
    devices = gpus.get_all(recipe.gpus)
    return {gpu.compute: f"model_{gpu.sm}.plan" for gpu in devices}


def _plans(directory: Path, version: int, shipped: store.Artifact) -> dict[str, Path]:
    """Engines, with their passports, that were built from the very graph that ships."""
    plans: dict[str, Path] = {}
    for path in sorted(directory.glob(f"{version}/*.plan")):
        passport_path = path.with_name(f"{path.name}.json")
        engine = passports.find_engine(passport_path)
        if engine and engine.graph_sha256 == shipped.record.graph_sha256:
            plans |= {f"{version}/{file.name}": file for file in (path, passport_path)}
    return plans


def _passport(
    ready: Ready, target: Target, limits: queue_limits.QueueLimits | None, *, fallback: bool
) -> ModelPassport:
    """The passport: who made the model, from what, how it was judged, and what a node needs to run it."""
    base, shipped, decision = ready.base, ready.shipped, ready.decision
    judged = Gate(judged_on=decision.judged_on, variants=tuple(GateRow(**asdict(row)) for row in decision.rows))
    if decision.rows and target != "tensorrt":
        judged = judged.model_copy(update={"machine": gate.machine()})
    passport = ModelPassport(
        tritonkit=__version__,
        model=ready.recipe.name,
        version=ready.recipe.number,
        target=target,
        precision=decision.precision,
        forced=decision.forced,
        tuned=decision.tuned,
        recipe=recipes.as_json(ready.recipe),
        graph_sha256=shipped.record.graph_sha256,
        exported_sha256=base.record.graph_sha256,
        made_from=base.record.dependencies.distributions if base.record.dependencies else {},
        parity=base.record.parity,
        gate=judged,
    )
    more: dict[str, Section | str | tuple[str, ...] | None] = {}  # keys that only some passports have
    if limits:
        at_once = queue_limits.at_once(ready.recipe, target, queue_limits.usable_cores())
        more["queue"] = Queue(**limits.as_json(), at_once=at_once)
    if figures := ready.tuning(target):
        more["tuning"] = figures
    if target == "cuda":
        row = next((row for row in decision.rows if row.precision == decision.precision), None)
        base_row = next((row for row in decision.rows if row.precision == "fp32"), None)
        more["memory"] = DeviceMemory(**row.memory) if row and row.memory else None
        error = base_row.accuracy.get("largest_error") if base_row else None
        more["tf32"] = Tf32(allowed=ready.recipe.tf32, largest_error=error)
    if shipped.record.cpu_features:
        more["cpu_features"] = shipped.record.cpu_features
    if target == "tensorrt" and fallback:
        more["fallback"] = FALLBACK
    return passport.model_copy(update=more)
