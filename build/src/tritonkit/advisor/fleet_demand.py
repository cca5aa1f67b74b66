"""What each model of a fleet takes of each device: memory, and how much of its rate one device carries.

Graphs may share a device; a language model has its GPUs to itself, as vLLM takes their memory.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal

from tritonkit.advisor import language, latency, queueing, serving
from tritonkit.advisor.fleet_nodes import Device
from tritonkit.advisor.graph_cost import Cost, Precision
from tritonkit.advisor.language import Request
from tritonkit.advisor.language_choice import Choice
from tritonkit.advisor.latency import Engine
from tritonkit.advisor.queueing import Service
from tritonkit.errors import InputError

# Shares of a device's time at which a promise is looked at, the largest first: the largest that keeps it counts.
_SHARES = (queueing.MOST_BUSY, 0.9, 0.85, 0.8, 0.7, 0.6, 0.5, 0.4, 0.3, 0.2, 0.1)
_UNQUANTIZED = ("bf16", "fp16", "fp32")
Bound = Literal["memory", "time", "precision"]


@dataclass(frozen=True)
class Graph:
    """A graph that is served at a rate.

    Attributes:
        name: Of the model in the repository.
        rps: Requests a second, of one sample each.
        batches: Batch size to its cost.
        p99_ms: What 99 % of the answers stay within; None promises nothing.
        precisions: Of the layers with weights, to choose from.
        engine: What runs it.
        instances: On each device.
    """

    name: str
    rps: float
    batches: Mapping[int, Cost]
    p99_ms: float | None
    precisions: tuple[Precision, ...]
    engine: Engine = "onnxruntime"
    instances: int = serving.INSTANCES


@dataclass(frozen=True)
class Language:
    """A language model that is served at a rate.

    Attributes:
        name: Of the model in the repository.
        rps: Requests a second that come at random.
        path: A Hugging Face directory, or its ``config.json``.
        request: Its lengths and promises, without rate and GPUs.
    """

    name: str
    rps: float
    path: Path
    request: Request


Model = Graph | Language


@dataclass(frozen=True)
class Fit:
    """One model on one kind of device, on its own.

    Attributes:
        model: Its name.
        device: What a pod gets.
        gpu_count: GPUs of a pod; 1 for a MIG instance.
        engine: What runs it.
        precision: Of the weights.
        memory_gib: Of each of a pod's GPUs.
        most_rps: Requests a second with all of the pod's time.
        batch_ms: Time of a full batch: what a request of another model on the same device may have to wait for.
        lone_ms: A request that meets no other; of a language model its time to the first token.
        service: A graph's batches; None of a language model.
        p99_ms: A graph's promise; None promises nothing.
    """

    model: str
    device: Device
    gpu_count: int
    engine: str
    precision: str
    memory_gib: float
    most_rps: float
    batch_ms: float
    lone_ms: float
    service: Service | None = field(default=None, compare=False)
    p99_ms: float | None = None
    _known: dict[float, float] = field(default_factory=dict, compare=False, repr=False)

    def share(self, others_ms: float) -> float:
        """The largest share of the device's time at which the promise is kept, 0.95 at most; 0: none.

        Args:
            others_ms: Of the longest full batch of another model on the device, which may just have begun.
        """
        if self.service is None or self.p99_ms is None:
            return queueing.MOST_BUSY
        return next((share for share in _SHARES if self._p99_ms(share) + others_ms <= self.p99_ms), 0.0)

    def _p99_ms(self, share: float) -> float:
        if self.service is None:
            return 0.0
        if share not in self._known:
            self._known[share] = queueing.p99_ms(self.service, share * self.most_rps)
        return self._known[share]


@dataclass(frozen=True)
class Miss:
    """Why a model does not go on a device.

    Attributes:
        device: Its name.
        bound: What forbids it.
        missing: By how much, in the bound's unit: GiB, milliseconds; 0 for a precision.
        sentence: Both in words.
    """

    device: str
    bound: Bound
    missing: float
    sentence: str


def fits(
    model: Model, devices: Iterable[Device], counts: Mapping[str, int], utilization: float
) -> tuple[list[Fit], list[Miss]]:
    """Where a model goes, and why it does not go elsewhere.

    Args:
        model: What is served.
        devices: To consider.
        counts: GPU's key to the most GPUs of one of its nodes.
        utilization: Largest share of the time that is planned with.
    """
    if isinstance(model, Language):
        return _language(model, [device for device in devices if not device.profile], counts, utilization)
    return _graph(model, list(devices))


def _graph(model: Graph, devices: Sequence[Device]) -> tuple[list[Fit], list[Miss]]:
    known = latency.coefficients(model.engine)
    precision = _precision(model, devices)
    placed: list[Fit] = []
    misses: list[Miss] = []
    for device in devices:
        if precision is None or not latency.supports(device.gpu, precision):
            words = precision or " or ".join(model.precisions)
            misses.append(Miss(device.name, "precision", 0, f"{device.name} has no published {words} peak"))
            continue
        memory = serving.memory_bytes(model.batches, precision, model.instances) / 2**30
        service = serving.service(model.batches, device.gpu, precision, model.engine, known, model.instances)
        lone = service.request_ms + service.ms(1)
        if memory > device.usable_gib:
            misses.append(Miss(
                device.name, "memory", memory - device.usable_gib,
                f"it takes {memory:.1f} GiB, {memory - device.usable_gib:.1f} more than {device.name} has for models",
            ))  # fmt: skip
        elif model.p99_ms is not None and lone > model.p99_ms:
            misses.append(Miss(
                device.name, "time", lone - model.p99_ms,
                f"a lone request takes {lone:.2f} ms on {device.name} in {precision}, {lone - model.p99_ms:.2f} more "
                f"than the {model.p99_ms:g} that are promised",
            ))  # fmt: skip
        else:
            placed.append(Fit(
                model.name, device, 1, model.engine, precision, memory, service.most_rps,
                service.batch_ms[service.largest], lone, service, model.p99_ms,
            ))  # fmt: skip
    return placed, misses


def _precision(model: Graph, devices: Sequence[Device]) -> Precision | None:
    """One for the whole fleet, as a repository has one: the fastest on most devices, then the least risky."""
    known = latency.coefficients(model.engine)
    size = max(model.batches)

    def speed(precision: Precision) -> float:
        """Sum of how fast a full batch is on each device beside the fastest precision there."""
        total = 0.0
        for device in devices:
            times = {
                other: latency.predict(model.batches[size], device.gpu, other, known).ms
                for other in model.precisions
                if latency.supports(device.gpu, other)
            }
            total += min(times.values()) / times[precision] if precision in times else 0.0
        return total

    able = [
        precision
        for precision in model.precisions
        if any(latency.supports(device.gpu, precision) for device in devices)
    ]
    order = list(latency.BYTES)
    return max(able, key=lambda precision: (round(speed(precision), 6), -order.index(precision)), default=None)


def _language(
    model: Language, devices: Sequence[Device], counts: Mapping[str, int], utilization: float
) -> tuple[list[Fit], list[Miss]]:
    """Each replica is planned for so much more than its part of the rate that ``utilization`` of it is the part."""
    placed: list[Fit] = []
    misses: list[Miss] = []
    refused: list[InputError] = []
    for device in devices:
        key = device.gpu.key
        gpu_counts = tuple(count for count in model.request.gpu_counts if count <= counts[key])
        if not gpu_counts:
            sizes = " or ".join(map(str, model.request.gpu_counts))
            misses.append(Miss(key, "precision", 0, f"no node has {sizes} {key}"))
            continue
        request = replace(model.request, rps=model.rps / utilization, gpus=(key,), gpu_counts=gpu_counts)
        try:
            choices = language.advise(model.path, request).choices
        except InputError as error:  # what holds for this GPU alone is a reason; what holds for all is an error
            refused.append(error)
            misses.append(Miss(key, "precision", 0, error.message))
            continue
        plain = [choice for choice in choices if choice.precision in _UNQUANTIZED]
        for choice in choices if model.request.precisions else plain or choices:
            if choice.verdict == "ok" and choice.replicas and choice.served:
                placed.append(Fit(
                    model.name, device, choice.gpu_count, model.request.engine, choice.precision,
                    choice.plan.total_bytes * choice.plan.settings.gpu_memory_utilization / 2**30,
                    model.rps / utilization / choice.replicas, 0.0, choice.served.ttft_p99_ms,
                ))  # fmt: skip
            else:
                misses.append(_language_miss(choice))
    if refused and len(refused) == len(devices):
        raise refused[0]
    return placed, misses


def _language_miss(choice: Choice) -> Miss:
    words = f"{choice.gpu_count} {choice.gpu.key} in {choice.precision}"
    if choice.verdict == "too slow":
        served = choice.served
        over = served.ttft_p99_ms + served.itl_ms if served else math.inf
        return Miss(words, "time", over, f"on {words}, {choice.reasons[0]}")
    lacking = (choice.plan.needed_utilization - choice.plan.settings.gpu_memory_utilization) * choice.plan.total_bytes
    return Miss(words, "memory", max(0.0, lacking) / 2**30, f"on {words}, {choice.reasons[0]}")
