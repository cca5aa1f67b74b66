"""How fast variants are, side by side in one process: they take turns, so that a noisy machine disturbs all alike."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from tritonkit import samples
from tritonkit.recipe import Recipe

ROUNDS = 7
ROUND_S = 0.3
BATCH = 8
GPU_BATCH = 32  # about what Triton's batches grow to where a GPU is busy (docs/measurements/gpu.md)


class Runnable(Protocol):
    """A graph that runs batches: a session, or a graph at prepared sizes."""

    def run(self, inputs: Mapping[str, Any]) -> Mapping[str, Any]:
        """All outputs of one batch."""


@dataclass(frozen=True)
class Ratio:
    """How many times faster one session is than another: the median of the rounds' ratios, and their middle half."""

    median: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.median:.2f}x ({self.low:.2f} to {self.high:.2f})"


@dataclass(frozen=True)
class Timing:
    """One variant's times.

    Attributes:
        batch: Samples in the batched requests.
        single_ms: Of one sample, one number a round.
        batched_ms: Of one batch, one number a round.
    """

    batch: int
    single_ms: tuple[float, ...]
    batched_ms: tuple[float, ...]

    @property
    def throughput(self) -> float:
        """Samples a second, batched: the median of the rounds."""
        return self.batch * 1000 / statistics.median(self.batched_ms)

    def over(self, other: Timing) -> Ratio:
        """How many times faster this is than ``other``, batched."""
        return _ratio(other.batched_ms, self.batched_ms)

    def over_single(self, other: Timing) -> Ratio:
        """The same for single samples."""
        return _ratio(other.single_ms, self.single_ms)


def measure(
    recipe: Recipe,
    sessions: Mapping[str, Runnable],
    dataset: Sequence[samples.Sample],
    step: Callable[[str], None] = lambda _: None,
    largest: int = BATCH,
) -> dict[str, Timing]:
    """Time every session on the same inputs, at the optimal size of what moves.

    Args:
        recipe: Says the sizes, and whether there are batches.
        sessions: By precision, each with the threads that it will be served with.
        dataset: Samples to run.
        step: Called as each round begins.
        largest: Samples in a batch, where the recipe allows as many.
    """
    fitted = [samples.resized(sample, recipe, recipe.sizes("opt")) for sample in dataset[:largest]]
    size = min(largest, recipe.max_batch_size)
    inputs = {1: samples.batch(fitted, 1), size: samples.batch(fitted, size)} if size else {0: fitted[0]}
    times: dict[str, dict[int, list[float]]] = {name: {count: [] for count in inputs} for name in sessions}
    for session in sessions.values():
        for batch in inputs.values():
            session.run(batch)
    for turn in range(ROUNDS):
        step(f"time {', '.join(sessions)}, round {turn + 1} of {ROUNDS}")
        for count, batch in inputs.items():
            for name, session in sessions.items():
                times[name][count].append(_milliseconds(session, batch))
    single, batched = min(inputs), max(inputs)
    return {
        name: Timing(max(batched, 1), tuple(by_count[single]), tuple(by_count[batched]))
        for name, by_count in times.items()
    }


def _milliseconds(session: Runnable, batch: samples.Sample) -> float:
    """One run, as the median of as many as fit into a round."""
    took: list[float] = []
    end = time.perf_counter() + ROUND_S
    while not took or time.perf_counter() < end:
        start = time.perf_counter()
        session.run(batch)
        took.append((time.perf_counter() - start) * 1000)
    return statistics.median(took)


def _ratio(slow: Sequence[float], fast: Sequence[float]) -> Ratio:
    ratios = [a / b for a, b in zip(slow, fast, strict=True)]
    low, high = np.percentile(ratios, [25, 75])
    return Ratio(statistics.median(ratios), float(low), float(high))
