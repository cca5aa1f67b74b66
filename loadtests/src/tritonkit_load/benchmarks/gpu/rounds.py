"""Medians and spreads of what was measured more than once; where two things are compared, they take turns."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Hashable, Mapping, Sequence
from typing import TypeVar

from tritonkit_load.reporting.gpu_result import Spread

Key = TypeVar("Key", bound=Hashable)
LEAST_RUNS = 3  # in one round


def spread(values: Sequence[float]) -> Spread:
    """The median of some rounds, and the lowest and highest of them."""
    return Spread(statistics.median(values), min(values), max(values), len(values))


def ratios(above: Sequence[float], below: Sequence[float]) -> Spread:
    """The spread of one ratio a round."""
    return spread([numerator / denominator for numerator, denominator in zip(above, below, strict=True)])


def run_ms(call: Callable[[], object], seconds: float) -> float:
    """What one call takes, in milliseconds: the median of as many as fit into a time."""
    times_ms: list[float] = []
    end = time.perf_counter() + seconds
    while len(times_ms) < LEAST_RUNS or time.perf_counter() < end:
        start = time.perf_counter()
        call()
        times_ms.append((time.perf_counter() - start) * 1000)
    return statistics.median(times_ms)


def take_turns(
    calls: Mapping[Key, Callable[[], object]], rounds: int, seconds: float, warm_up: int = 2
) -> dict[Key, list[float]]:
    """Milliseconds of every call, one number a round: each has its turn in every round.

    Args:
        calls: What is measured.
        rounds: How many numbers each gets.
        seconds: Of one turn.
        warm_up: Calls at the start of each turn that do not count: what changes from turn to turn (a batch's size)
            makes onnxruntime prepare anew.
    """
    times_ms: dict[Key, list[float]] = {key: [] for key in calls}
    for _ in range(rounds):
        for key, call in calls.items():
            for _ in range(warm_up):
                call()
            times_ms[key].append(run_ms(call, seconds))
    return times_ms
