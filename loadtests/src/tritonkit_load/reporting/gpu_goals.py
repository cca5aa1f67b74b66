"""What the figures of `make bench-gpu` are held against, and which of them keep it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from tritonkit_load.reporting.gpu_result import GpuResult, Memory, Served, Spread
from tritonkit_load.reporting.page import short

# Ratios, milliseconds, and a share of the device's figure; docs/measurements/gpu.md says what each is of.
MOST_CHANGING, LEAST_SERVED, MOST_ABOVE_MS, LEAST_MIXED, LEAST_TWO, MEMORY_WITHIN = 1.05, 0.90, 0.8, 0.7, 1.9, 0.10
TITLES = {"efficientnet_lite0": "EfficientNet-Lite0", "resnet50": "ResNet-50", "bert_base": "BERT-base"}
EFFICIENTNET_BYTES = 2.5 * 2**30  # of an instance with all its sizes


@dataclass(frozen=True)
class Goal:
    """One figure and its bound.

    Attributes:
        subject: The model, its variant and how it ran.
        what: The quantity that is measured.
        figure: The measured value, in words.
        bound: The limit that the figure should keep, in words.
        met: Whether the figure keeps it.
    """

    subject: str
    what: str
    figure: str
    bound: str
    met: bool


def goals(result: GpuResult) -> list[Goal]:
    """Every goal that there is a figure for; those of one kind stand together."""
    judged = [*_in_process(result), *_served(result), *_mixed(result), *_scaling(result), *_gate(result)]
    kinds = list(dict.fromkeys(goal.what for goal in judged))
    return sorted(judged, key=lambda goal: kinds.index(goal.what))


def title(model: str, precision: str) -> str:
    """A model's name and its variant, for a reader."""
    return f"{TITLES.get(model, model)} {precision}"


def built(result: GpuResult) -> list[Served]:
    """Of each model the number of instances with most loads: the one that `tritonkit build` configures."""
    chosen: dict[tuple[str, str], Served] = {}
    for served in result.served:
        key = (served.model, served.precision)
        if key not in chosen or len(served.loads) > len(chosen[key].loads):
            chosen[key] = served
    return list(chosen.values())


def per_instance(result: GpuResult, served: Served) -> float | None:
    """Bytes that the device says an instance takes: the slope over numbers of instances, without the server's own.

    None where only one number of instances was measured: what the server takes for itself is then in it.
    """
    points = sorted(
        (other.instances, other.memory.device)
        for other in result.served
        if (other.model, other.precision, other.gpus) == (served.model, served.precision, served.gpus)
    )
    (fewest, low), (most, high) = points[0], points[-1]
    return (high - low) / (most - fewest) if most > fewest else None


def _in_process(result: GpuResult) -> Iterator[Goal]:
    for graph in result.in_process:
        subject = f"{title(graph.model, graph.precision)}"
        yield _most(subject, "alternating sizes over fixed ones", graph.alternating, MOST_CHANGING)
        if graph.memory.device > 0:
            yield _close(f"{subject} in process", graph.memory, graph.memory.device)
        if graph.model == "efficientnet_lite0" and graph.memory.reported:
            gib, bound = graph.memory.reported / 2**30, EFFICIENTNET_BYTES / 2**30
            yield Goal(subject, "memory of an instance, GiB", f"{gib:.2f}", f"under {bound:g}", gib < bound)


def _served(result: GpuResult) -> Iterator[Goal]:
    for served in result.served:
        if served.above_ms is not None:
            yield _most(
                f"{title(served.model, served.precision)}, {served.instances} instances",
                "a lone request above in process, ms", served.above_ms, MOST_ABOVE_MS,
            )  # fmt: skip
    for served in built(result):
        subject = f"{title(served.model, served.precision)}"
        yield _least(f"{subject}, {served.instances} instances", "served over in process", served.ratio, LEAST_SERVED)
        device = per_instance(result, served)
        if device:
            yield _close(subject, served.memory, device * served.memory.instances)


def _mixed(result: GpuResult) -> Iterator[Goal]:
    for mixed in result.mixed:
        subject = f"{title(mixed.model, mixed.precision)} {mixed.where}"
        yield _least(subject, "mixed lengths over equal ones", mixed.ratio, LEAST_MIXED)
        allowed = mixed.error <= mixed.tolerance
        yield Goal(subject, "error of padded answers", f"{mixed.error:.0e}", f"at most {mixed.tolerance:.0e}", allowed)


def _scaling(result: GpuResult) -> Iterator[Goal]:
    pairs = [scaling for scaling in result.scaling if scaling.gpus == 2]
    for name in dict.fromkeys((pair.model, pair.precision) for pair in pairs):
        best = max((pair for pair in pairs if (pair.model, pair.precision) == name), key=lambda pair: pair.ratio.median)
        subject = f"{title(best.model, best.precision)}, {best.in_flight} in flight"
        yield _least(subject, "two GPUs over one", best.ratio, LEAST_TWO)


def _gate(result: GpuResult) -> Iterator[Goal]:
    for row in result.gate:
        yield Goal(f"{title(row.model, row.precision)}", "verdict of the gate", row.verdict, "accepted",
                   row.verdict == "accepted")  # fmt: skip


def _most(subject: str, what: str, value: Spread, bound: float) -> Goal:
    return Goal(subject, what, _exact(value.median), f"at most {bound:g}", value.median <= bound)


def _least(subject: str, what: str, value: Spread, bound: float) -> Goal:
    return Goal(subject, what, _exact(value.median), f"at least {bound:g}", value.median >= bound)


def _close(subject: str, memory: Memory, device: float) -> Goal:
    ratio = memory.reported / device
    return Goal(
        subject, "reported memory over the device's", _exact(ratio), f"within {MEMORY_WITHIN:.0%} of 1",
        abs(ratio - 1) <= MEMORY_WITHIN,
    )  # fmt: skip


def _exact(value: float) -> str:
    return f"{value:.3f}" if abs(value) < 10 else short(value)
