"""How many requests may wait, and how long, from an SLO and measured service times: who waits is answered in time.

A server that lets everybody wait answers everybody late once more arrives than it can serve. With the limits from here,
whoever is let in is answered within the SLO, and everybody else is refused at once and may go elsewhere.
"""

from __future__ import annotations

import math
import os
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from tritonkit.recipe import Recipe, Target
from tritonkit.recipe.serving import default_batch_sizes

PREFERRED = "preferred_batch_size"
# What limits and a recipe's ``batching`` both have.
NAMES = (PREFERRED, "max_queue_size", "queue_timeout_ms")

# The share of the SLO that is planned with. The rest is for what the model's own times do not have: reading requests,
# the network, and service times that vary (docs/decisions/0015).
PLANNED = 0.8
# A larger batch has to serve this much more to be worth the longer wait for its end.
WORTH = 1.05


@dataclass(frozen=True)
class ServiceTimes:
    """What one instance takes, measured alone, in milliseconds.

    Attributes:
        single_ms: For one sample.
        batched_ms: For a batch.
        batch: Samples in it.
    """

    single_ms: float
    batched_ms: float
    batch: int

    def of(self, size: int) -> float:
        """Milliseconds for a batch of ``size`` samples: a straight line through the two that were measured."""
        if self.batch < 2:
            return self.single_ms * size
        per_sample_ms = max(self.batched_ms - self.single_ms, 0.0) / (self.batch - 1)
        return self.single_ms + per_sample_ms * (size - 1)


@dataclass(frozen=True)
class QueueLimits:
    """What keeps a queue within an SLO.

    Attributes:
        preferred_batch_size: The largest batch of waiting requests that the SLO can afford.
        max_queue_size: Requests that may wait.
        queue_timeout_ms: Milliseconds that one may wait.
        requests_per_s: What the server answers when it is never idle: estimated, or measured under load.
        slo_ms: The latency that was promised.
        service_ms: What a batch of the preferred size takes while all instances work.
        measured: The rate was seen under load; else it follows from the service times.
    """

    preferred_batch_size: int
    max_queue_size: int
    queue_timeout_ms: int
    requests_per_s: float
    slo_ms: float
    service_ms: float
    measured: bool = False

    def __str__(self) -> str:
        return (
            f"{self.max_queue_size} requests may wait, {self.queue_timeout_ms} ms at most, and run in batches of up to "
            f"{self.preferred_batch_size}: answered within {self.slo_ms:g} ms, {self._rate()}"
        )

    def _rate(self) -> str:
        """The rate with what it follows from, so that a reader can work it out again."""
        if self.measured:
            return f"at the {self.requests_per_s:.0f} requests/s that were measured under load"
        instances = round(self.requests_per_s * self.service_ms / 1000 / self.preferred_batch_size)
        return (
            f"at an estimated {self.requests_per_s:.0f} requests/s ({instances} x {self.preferred_batch_size} in "
            f"{self.service_ms:#.3g} ms: instances x batch, by the gate's service times)"
        )

    def as_json(self) -> dict[str, Any]:
        """Plain data; ``QueueLimits(**data)`` reads it."""
        return asdict(self)


def derive(
    slo_ms: float,
    times: ServiceTimes,
    *,
    largest_batch: int,
    instances: int,
    at_once: int,
    sizes: Sequence[int] = (),
    delay_ms: float = 0.0,
    requests_per_s: float | None = None,
) -> QueueLimits | None:
    """The limits for one model.

    A request waits at most for the queue in front of it, then takes its own batch's time. The queue's time is what
    the SLO leaves for it, and its length what is served in that time (Little's law: number = rate x time).

    Args:
        slo_ms: The largest latency that was promised.
        times: Of one instance alone.
        largest_batch: Up to which batches may go.
        instances: Copies of the model that work at the same time.
        at_once: How many of them can work at full speed: CPU cores over threads, or 1 for the instances of a GPU.
        sizes: The batches that a GPU is prepared for; doublings if there are none.
        delay_ms: How long a request may wait for others: a timeout is longer, or Triton refuses every lone request.
        requests_per_s: What the server was seen to answer when it was never idle; estimated if not given.

    Returns:
        None where not even one request alone keeps the SLO.
    """
    if times.of(1) > slo_ms:
        return None
    slowed = max(instances / max(at_once, 1), 1.0)
    if requests_per_s:  # it is slower than alone: fewer cores, or work beside the model
        slowed *= max(1000 * instances / (times.of(1) * slowed) / requests_per_s, 1.0)
    planned = slo_ms * PLANNED
    candidates = [size for size in sizes if size <= largest_batch] or [*default_batch_sizes(largest_batch)]
    # The batch before and its own.
    fitting = [size for size in candidates if 2 * times.of(size) * slowed <= planned] or candidates[:1]
    most = max(size / times.of(size) for size in fitting)
    size = next(size for size in fitting if size / times.of(size) * WORTH >= most)
    service_ms = times.of(size) * slowed
    rate = requests_per_s or 1000 * instances * size / service_ms
    waits_ms = max(planned - service_ms, 0.0)
    return QueueLimits(
        preferred_batch_size=size,
        max_queue_size=max(int(rate * waits_ms / 1000), size),
        queue_timeout_ms=max(round(waits_ms), int(delay_ms) + 1),
        requests_per_s=rate,
        slo_ms=slo_ms,
        service_ms=service_ms,
        measured=requests_per_s is not None,
    )


def of_recipe(
    recipe: Recipe, target: Target, times: ServiceTimes | None, cores: int, requests_per_s: float | None = None
) -> QueueLimits | None:
    """The limits that a recipe's SLO asks for on a target.

    Args:
        recipe: With ``slo`` and ``batching``.
        target: Where it is served.
        times: Of the variant that is served, as the gate measured them; None: not measured.
        cores: CPU cores that the server has.
        requests_per_s: What the server was seen to answer when it was never idle; estimated if not given.

    Returns:
        None where there is no SLO or no measurement, or the SLO cannot be kept at all.
    """
    serving = recipe.serving(target)
    slo_ms = recipe.slo.latency_ms if recipe.slo else None
    if slo_ms is None or times is None:
        return None
    return derive(
        slo_ms, times, largest_batch=max(serving.max_batch_size, 1), instances=serving.instances,
        at_once=at_once(recipe, target, cores), sizes=serving.batch_sizes, requests_per_s=requests_per_s,
        delay_ms=serving.max_queue_delay_us / 1000,
    )  # fmt: skip


def at_once(recipe: Recipe, target: Target, cores: int) -> int:
    """How many of a model's instances can work at full speed on so many CPU cores, or on one GPU."""
    serving = recipe.serving(target)
    return 1 if target == "cuda" else max(min(cores // serving.threads, serving.instances), 1)


def usable_cores() -> int:
    """CPU cores that this process may use: those it may run on, or what its control group allows if that is less."""
    cores = len(os.sched_getaffinity(0))
    try:
        quota, period = Path("/sys/fs/cgroup/cpu.max").read_text(encoding="ascii").split()
        return max(1, min(cores, math.ceil(int(quota) / int(period))))
    except (OSError, ValueError, ZeroDivisionError):  # "max": no limit; or an older kernel
        return cores


def applied(recipe: Recipe, target: Target, limits: QueueLimits | None) -> Recipe:
    """The recipe with what its ``batching`` leaves open taken from the limits; what it says by name stays.

    Where it names the largest batch or the delay, batches were chosen (by `make tune`, say) and none is preferred.
    """
    if limits is None:
        return recipe
    section = recipe.batching.on(target)
    chosen = section.max_batch_size is not None or section.max_queue_delay_us is not None
    left_open = {name for name in NAMES if getattr(section, name) is None} - ({PREFERRED} if chosen else set())
    derived = {name: getattr(limits, name) for name in NAMES if name in left_open}
    return recipe.model_copy(update={"batching": section.model_copy(update=derived)})


def by_name(recipe: Recipe, target: Target) -> dict[str, int]:
    """What a recipe's ``batching`` says of the queue, which no limits replace."""
    section = recipe.batching.on(target)
    return {name: value for name in NAMES if (value := getattr(section, name)) is not None}
