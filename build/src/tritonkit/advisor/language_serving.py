"""What callers get from one replica of a language model: TTFT, time between tokens, tokens a second, at a load.

Prompts and answers share the same steps: each prompt that is read stretches the answers of the others. Times of single
steps are for :mod:`tritonkit.advisor.language_latency`.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace

from tritonkit.advisor.language_latency import Coefficients, Deployment, StepTime, prompt_ms, step

_TAIL = math.log(100)  # a 99th percentile of what decays exponentially
_MOST_BUSY = 0.97  # an open loop has no steady state at 1


@dataclass(frozen=True)
class Load:
    """What one request is: tokens of its prompt and answer, and the share of the prompt that is cached already."""

    prompt: int
    answer: int
    reuse: float = 0.0

    @property
    def fresh(self) -> float:
        """Tokens of the prompt that have to be read; one at least."""
        return max(1.0, self.prompt * (1 - self.reuse))

    @property
    def context(self) -> float:
        """Tokens of a sequence, on average over its answer."""
        return self.prompt + self.answer / 2


@dataclass(frozen=True)
class Served:
    """What one replica does at a load.

    Attributes:
        running: Requests that run at the same time.
        requests_per_s: Requests that it answers.
        ttft_p50_ms: Median time to the first token.
        ttft_p99_ms: 99th percentile of it, for requests that come at random.
        itl_ms: Mean time between the tokens of an answer.
        busy: Share of the time that the GPU works.
        step: The parts of a step without prompts.
        prompt_ms: What one prompt adds to the steps that read it.
    """

    running: float
    requests_per_s: float
    ttft_p50_ms: float
    ttft_p99_ms: float
    itl_ms: float
    busy: float
    step: StepTime
    prompt_ms: float

    @property
    def bound(self) -> str:
        """What takes most of the time."""
        answers = 1 - min(1.0, self.requests_per_s * self.prompt_ms / 1e3)
        return self.step.bound if answers >= 0.5 else "matrix products of prompts"


def closed(deployment: Deployment, fit: Coefficients, load: Load, running: float, batched: int) -> Served:
    """A replica with the same number of requests in flight all the time: after each answer comes the next request.

    A request sees its answer's steps, and one prompt of each of the others in that time.

    Args:
        deployment: The model and its GPUs.
        fit: The engine's coefficients.
        load: What a request is.
        running: Requests in flight.
        batched: Tokens of a step at most.
    """
    alone = step(deployment, running, load.context, fit)
    prompt = prompt_ms(deployment, load.fresh, fit, load.prompt - load.fresh) + fit.request_us / 1e3
    itl = alone.total + (running - 1) * prompt / load.answer
    rate = running / (running * prompt + load.answer * alone.total)
    # A prompt waits for those of the others only.
    others = rate * prompt * (running - 1) / running
    served = _served(load, running, rate, itl, alone, prompt, batched, others, busy=1.0)
    # And never for more than each of theirs.
    longest = served.ttft_p50_ms + itl / 2 + (running - 1) * prompt
    return replace(served, ttft_p99_ms=min(served.ttft_p99_ms, longest))


def open_loop(
    deployment: Deployment, fit: Coefficients, load: Load, requests_per_s: float, batched: int, most: float
) -> Served | None:
    """A replica that gets requests at random at a rate; None where it cannot keep up.

    Args:
        deployment: The model and its GPUs.
        fit: The engine's coefficients.
        load: What a request is.
        requests_per_s: The rate.
        batched: Tokens of a step at most.
        most: Requests that have room at the same time.
    """
    prompt = prompt_ms(deployment, load.fresh, fit, load.prompt - load.fresh) + fit.request_us / 1e3
    rate = requests_per_s / 1e3
    left = 1 - rate * prompt
    if left <= 1 - _MOST_BUSY:
        return None

    def needed(running: float) -> float:
        """Requests that run at the same time, by Little's law, where steps are of so many."""
        return rate * load.answer * step(deployment, max(1.0, running), load.context, fit).total / left

    if needed(most) > most * _MOST_BUSY:
        return None
    running = 1.0
    for _ in range(200):
        following = needed(running)
        if abs(following - running) < 1e-3 * max(1.0, running):
            break
        running = (running + following) / 2
    alone = step(deployment, max(1.0, running), load.context, fit)
    busy = min(1.0, rate * prompt + min(1.0, running) * left)
    return _served(load, running, rate, alone.total / left, alone, prompt, batched, rate * prompt, busy)


def _served(
    load: Load, running: float, rate: float, itl: float, alone: StepTime, prompt: float, batched: int, others: float,
    busy: float,
) -> Served:  # fmt: skip
    # Prompts wait for each other: an M/D/1 queue, whose tail decays with twice the free share over a prompt's time.
    used = min(_MOST_BUSY, others)
    steps = math.ceil(load.fresh / batched)
    # A step that has prompts of others in it is longer by their share of the time.
    loaded = alone.total / (1 - used)
    reading = prompt + steps * loaded
    # The median waits for half of the step that runs, and the 99th percentile for all of it.
    median = reading + loaded / 2 + used * prompt / (2 * (1 - used))
    tail = reading + loaded + max(0.0, (_TAIL + math.log(used)) if used > 0 else 0.0) * prompt / (2 * (1 - used))
    return Served(running, rate * 1e3, median, max(median, tail), itl, busy, alone, prompt)


def largest(keeps: Callable[[int], bool], most: int) -> int:
    """The largest load from 1 to ``most`` that keeps a promise, where a smaller load keeps it better; 0: none."""
    low, high = 0, most
    while low < high:
        middle = (low + high + 1) // 2
        low, high = (middle, high) if keeps(middle) else (low, middle - 1)
    return low
