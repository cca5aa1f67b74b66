"""What may be set, as plain data: one configuration, and all of them."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields, replace
from typing import Any

from tritonkit import queue_limits
from tritonkit.recipe import Batching, Precision, Recipe, Target

# Microseconds. More than a fifth of a tight SLO of 50 ms only to wait would be hard to win back; on a GPU most batches
# take less than the longest of these.
QUEUE_DELAYS_US: dict[Target, tuple[int, ...]] = {
    "cpu": (0, 200, 500, 1000, 2000, 5000, 10_000), "cuda": (0, 100, 200, 500, 1000, 2000),
}  # fmt: skip
MOST_INSTANCES = 4  # on few cores; with more, one a core
MOST_ON_A_GPU = 8  # each has its own copy of the weights, and of what its sizes take


@dataclass(frozen=True)
class Settings:
    """One configuration.

    Attributes:
        precision: Which variant is served.
        max_batch_size: The largest batch.
        queue_delay_us: How long a batch may wait for more.
        instances: How many run at the same time.
        threads: Of onnxruntime, an instance.
        by_size: Whether a GPU runs batches at prepared sizes, or as they come; CPUs always do the latter.
    """

    precision: Precision
    max_batch_size: int
    queue_delay_us: int
    instances: int
    threads: int
    by_size: bool = False

    def normal(self) -> Settings:
        """The one form of configurations that behave alike: without batches there is no queue delay."""
        return self if self.max_batch_size > 1 else replace(self, queue_delay_us=0)

    def batching(self, recipe: Recipe, chosen: Precision, target: Target) -> Batching:
        """The recipe's ``batching`` that says this.

        Args:
            recipe: The recipe that gets this section.
            chosen: The precision that is served without being named here.
            target: What it was measured on, and holds for.
        """
        return Batching(
            target=target,
            max_batch_size=None if self.max_batch_size == recipe.max_batch_size else self.max_batch_size,
            max_queue_delay_us=self.queue_delay_us,
            instances=self.instances,
            threads=self.threads,
            precision=None if self.precision == chosen else self.precision,
            batch_sizes=self._batch_sizes(recipe, target),
            cuda_graphs=recipe.serving(target).cuda_graphs,
            **queue_bounds(recipe, target),
        )

    def _batch_sizes(self, recipe: Recipe, target: Target) -> tuple[int, ...] | None:
        """Those of the recipe as far as they fit; None where the default holds, empty for batches as they come."""
        if target != "cuda":
            return None
        if not self.by_size:
            return ()
        own = recipe.batching.on(target).batch_sizes
        return (*(size for size in own if size < self.max_batch_size), self.max_batch_size) if own else None

    def words(self) -> dict[str, str]:
        """As a person reads it."""
        batched = self.max_batch_size > 1
        return {
            "variant": self.precision,
            "max batch": str(self.max_batch_size),
            **({"batches run": "by size"} if self.by_size else {}),
            "queue delay": f"{self.queue_delay_us} µs" if batched else "-",
            "instances": str(self.instances),
            "threads": str(self.threads),
        }

    def __str__(self) -> str:
        words = self.words()
        parts = [words["variant"], f"batch {words['max batch']}", f"delay {words['queue delay']}"]
        parts += [f"{self.instances} instance{'s' if self.instances > 1 else ''}"]
        parts += [f"{self.threads} threads"] if self.threads > 1 else []
        parts += ["by size"] if self.by_size else []
        return ", ".join(parts).replace(", delay -", "")

    def as_json(self) -> dict[str, Any]:
        """Plain data; ``Settings(**data)`` reads it."""
        return asdict(self)


@dataclass(frozen=True)
class Space:
    """Every value that each setting may have, in order."""

    precision: tuple[Precision, ...]
    max_batch_size: tuple[int, ...]
    queue_delay_us: tuple[int, ...]
    instances: tuple[int, ...]
    threads: tuple[int, ...]
    by_size: tuple[bool, ...] = (False,)

    def grid(self) -> list[Settings]:
        """All configurations, each once."""
        values = itertools.product(*(getattr(self, name) for name in NAMES))
        configurations = (Settings(**dict(zip(NAMES, chosen, strict=True))).normal() for chosen in values)
        return list(dict.fromkeys(configurations))

    def near(self, settings: Settings) -> list[Settings]:
        """Configurations that differ in one setting: by one place in its order, or in what has no order."""
        neighbours = []
        for name in NAMES:
            values = getattr(self, name)
            place = values.index(getattr(settings, name))
            others = values if name in UNORDERED else values[max(place - 1, 0) : place + 2]
            neighbours += [replace(settings, **{name: value}).normal() for value in others]
        return [other for other in dict.fromkeys(neighbours) if other != settings]

    def holds(self, settings: Settings) -> bool:
        """Whether a configuration is one of these."""
        return all(getattr(settings, name) in getattr(self, name) for name in NAMES)

    def with_values_of(self, *others: Settings) -> Space:
        """The same, with the values of some configurations among them."""
        values = {name: {getattr(settings, name) for settings in others} - {*getattr(self, name)} for name in NAMES}
        return replace(self, **{
            name: tuple(sorted({*getattr(self, name), *more})) for name, more in values.items() if more
        })  # fmt: skip


# Settings without an order; of all others, values that stand beside each other are alike.
UNORDERED = {"precision", "by_size"}
NAMES = tuple(field.name for field in fields(Settings))


def of(
    recipe: Recipe, precisions: Sequence[Precision], cores: int, smallest_batch: int = 1, target: Target = "cpu"
) -> Space:
    """What is worth trying for a recipe.

    Args:
        recipe: Up to whose ``max_batch_size`` batches go; 0 leaves only the settings that need no batches.
        precisions: Variants that are accurate enough.
        cores: That the server has.
        smallest_batch: Rows in the largest request of the load: a smaller ``max_batch_size`` would refuse it.
        target: What runs it. A GPU's instances each need a core, and threads mean nothing to it.
    """
    on_gpu = target == "cuda"
    most = max(recipe.max_batch_size, 1)
    sizes = sorted({most, *(size for size in _doubled(most) if size >= smallest_batch)})
    batched = most > 1
    instances = min(cores, MOST_ON_A_GPU) if on_gpu else max(MOST_INSTANCES, cores)
    return Space(
        precision=tuple(precisions),
        max_batch_size=tuple(sizes) if recipe.max_batch_size else (0,),
        queue_delay_us=QUEUE_DELAYS_US[target] if batched else (0,),
        instances=tuple(range(1, instances + 1)),
        threads=(1,) if on_gpu else tuple(sorted({1, *_doubled(cores), cores})),
        by_size=(on_gpu,),
    )


def of_recipe(recipe: Recipe, chosen: Precision, target: Target = "cpu") -> Settings:
    """What a recipe says now, with the precision that it is served in."""
    serving = recipe.serving(target)
    return Settings(
        chosen, serving.max_batch_size, serving.max_queue_delay_us, serving.instances,
        1 if target == "cuda" else serving.threads, by_size=bool(serving.batch_sizes),
    ).normal()  # fmt: skip


def queue_bounds(recipe: Recipe, target: Target = "cpu") -> dict[str, Any]:
    """What a recipe says of its queue by name, which tuning leaves as it is; the rest follows from the SLO."""
    return queue_limits.by_name(recipe, target)


def tritons_default(recipe: Recipe, cores: int, target: Target = "cpu") -> Settings:
    """``dynamic_batching {}`` and one instance, of the graph as it was exported, batches as they come.

    On a CPU onnxruntime takes every core; on a GPU threads mean nothing to it.
    """
    threads = 1 if target == "cuda" else cores
    return Settings("fp32", recipe.max_batch_size, 0, 1, threads).normal()


def _doubled(most: int) -> list[int]:
    powers = [1]
    while powers[-1] * 2 <= most:
        powers.append(powers[-1] * 2)
    return powers
