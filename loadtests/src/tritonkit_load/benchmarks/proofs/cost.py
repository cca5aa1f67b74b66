"""What the front costs: the same requests to one pod, past its front and through it, in turns.

Both roads end at the same Triton, so a noisy machine disturbs both; what counts is the ratio.
"""

from __future__ import annotations

import random
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np

from tritonkit_client import Client
from tritonkit_load.benchmarks.proofs.callers import MODEL
from tritonkit_load.benchmarks.proofs.drain import write_model
from tritonkit_load.benchmarks.proofs.pods import HOST, Manifest, Pod, workplace

ROUNDS = 15
# Name, elements of INT32, requests in a round.
SIZES = (("4 B", 1, 60), ("600 kB", 150_000, 20))


@dataclass(frozen=True)
class Cost:
    """Medians of one protocol and size.

    Attributes:
        protocol: ``grpc`` or ``http``.
        size: The tensor's, for reading.
        past_ms, through_ms: Latency to Triton itself, and through its front.
        ratios: Through over past, of each round, sorted.
    """

    protocol: str
    size: str
    past_ms: float
    through_ms: float
    ratios: tuple[float, ...]


def measure(manifests: Sequence[Manifest]) -> list[Cost]:
    """Start one pod and measure both roads into it.

    Raises:
        CheckFailed: The pod did not become ready.
    """
    with workplace() as folder:
        pod = Pod(manifests, write_model(folder / "models"), folder / "pod").start()
        try:
            pod.wait_ready()
            return [_measure(pod, protocol, *size) for protocol in ("grpc", "http") for size in SIZES]
        finally:
            pod.kill()


def _measure(pod: Pod, protocol: str, size: str, count: int, requests: int) -> Cost:
    array = np.arange(count, dtype=np.int32)
    with (
        Client(f"{protocol}://{HOST}:{pod.ports[f'triton-{protocol}']}") as past,
        Client(f"{protocol}://{HOST}:{pod.ports[protocol]}") as through,
    ):
        roads = {"past": past, "through": through}
        for client in roads.values():
            if not np.array_equal(client.infer(MODEL, x=array)["y"], array):
                raise AssertionError("the answer is not what was sent")
        calls = {name: partial(client.infer, MODEL, x=array) for name, client in roads.items()}
        rounds = [_round(calls, requests) for _ in range(ROUNDS + 1)][1:]
    medians = {name: statistics.median(latencies[name] for latencies in rounds) * 1e3 for name in roads}
    return Cost(
        protocol,
        size,
        medians["past"],
        medians["through"],
        tuple(sorted(latencies["through"] / latencies["past"] for latencies in rounds)),
    )


def _round(roads: Mapping[str, Callable[[], object]], requests: int) -> dict[str, float]:
    """Each road's median in seconds; their order is drawn anew for each request."""
    times: dict[str, list[float]] = {name: [] for name in roads}
    order = list(roads.items())
    for _ in range(requests):
        random.shuffle(order)
        for name, call in order:
            start = time.perf_counter()
            call()
            times[name].append(time.perf_counter() - start)
    return {name: statistics.median(seconds) for name, seconds in times.items()}
