"""`make bench`: what serving costs: throughput through Triton over throughput of onnxruntime in this process.

Both run the same fp32 graph with one onnxruntime thread on the same one core, and the load comes from the other core:
single samples, 8 in flight, against batches of 8 in process. Rounds alternate, so that a noisy machine
disturbs both; what counts is the median of the rounds' ratios.
"""

from __future__ import annotations

import argparse
import os
import statistics
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.table import Table

from tritonkit import graph, pipeline, progress, samples
from tritonkit.cli.arguments import Parser
from tritonkit.cli.output import run_command
from tritonkit.errors import InputError
from tritonkit.recipe import Batching, Recipe, load_graph
from tritonkit.server import TritonServer, runtime
from tritonkit_client import Client
from tritonkit_load.load import models

SERVER_CORE, LOAD_CORE = 0, 1
IN_FLIGHT = 8
ROUNDS, ROUND_S = 7, 3.0


@dataclass(frozen=True)
class Result:
    """One model's figures: requests a second in every round, and latency (ms) with one request in flight."""

    name: str
    in_process: list[float]
    served: list[float]
    p50_ms: float
    in_process_ms: float
    average_batch: float

    @property
    def ratios(self) -> list[float]:
        """Served over in-process, one a round."""
        return [served / alone for served, alone in zip(self.served, self.in_process, strict=True)]


def main() -> int:
    """Measure the models and print one table."""
    return run_command(_main)


def _main() -> int:
    options = _parser().parse_args()
    if len(os.sched_getaffinity(0)) < 2:
        raise InputError("the benchmark needs two CPU cores, one for the server and one for the load", "use two")
    _print(_measure(models.recipe_paths(options.model or ())))
    return 0


def _parser() -> Parser:
    parser = Parser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter,
        examples=["python -m tritonkit_load.benchmarks.bench_serving",
                  "python -m tritonkit_load.benchmarks.bench_serving --model efficientnet_lite0"],
    )  # fmt: skip
    parser.add_argument("--model", action="append", help=f"{models.HELP}; all of that folder if not given")
    return parser


def _measure(paths: Sequence[Path]) -> list[Result]:
    runtime.find()  # a missing server is reported before anything is built
    recipes = [load_graph(path) for path in paths]
    one_each = Batching(instances=1, threads=1)
    recipes = [recipe.model_copy(update={"batching": one_each}) for recipe in recipes]
    with tempfile.TemporaryDirectory(prefix="tritonkit-bench-") as directory:
        repository = Path(directory, "model_repository")
        pipeline.build(recipes, repository, "cpu", pipeline.Options(precisions=("fp32",)))
        with progress.steps("bench", len(recipes)) as steps, TritonServer(repository, cores=[SERVER_CORE]) as server:
            results = []
            for recipe in recipes:
                steps.next(f"{recipe.name}, {2 * ROUNDS * ROUND_S:.0f} s")
                results.append(_bench(server, recipe, repository / recipe.name / "1/model.onnx"))
    return results


def _bench(server: TritonServer, recipe: Recipe, path: Path) -> Result:
    originals = samples.load(recipe, 64)
    rows = [samples.resized(sample, recipe, recipe.sizes("opt")) for sample in originals]
    singles = [samples.batch([row], 1) for row in rows]
    eight = samples.batch(rows, IN_FLIGHT)
    with on_core(SERVER_CORE):
        session = graph.Session(path, threads=1)
    with Client(server.grpc_url) as client, on_core(LOAD_CORE):

        def serve(turn: int) -> None:
            client.infer(recipe.name, singles[turn % len(singles)])

        throughput(serve, IN_FLIGHT, 1.0)  # warm up both
        in_process, served = [], []
        before = client.statistics(recipe.name)[0]
        for _ in range(ROUNDS):
            with on_core(SERVER_CORE):
                in_process.append(IN_FLIGHT * throughput(lambda _: session.run(eight), 1, ROUND_S))
            served.append(throughput(serve, IN_FLIGHT, ROUND_S))
        after = client.statistics(recipe.name)[0]
        with on_core(SERVER_CORE):
            alone_ms = statistics.median(latencies(lambda turn: session.run(singles[turn % len(singles)])))
        p50_ms = statistics.median(latencies(serve))
    batch = (after.inference_count - before.inference_count) / (after.execution_count - before.execution_count)
    return Result(recipe.name, in_process, served, p50_ms, alone_ms, batch)


def throughput(call: Callable[[int], object], callers: int, seconds: float) -> float:
    """Calls a second of ``callers`` threads, each calling again when it has its answer."""
    end = time.perf_counter() + seconds
    counts = [0] * callers

    def run(caller: int) -> None:
        while time.perf_counter() < end:
            call(caller + callers * counts[caller])
            counts[caller] += 1

    start = time.perf_counter()
    if callers == 1:
        run(0)  # in this thread, which is the one that is pinned
    else:
        threads = [threading.Thread(target=run, args=(caller,)) for caller in range(callers)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    return sum(counts) / (time.perf_counter() - start)


def latencies(call: Callable[[int], object], count: int = 100) -> list[float]:
    """Milliseconds of each of ``count`` calls, one after another."""
    times_ms = []
    for turn in range(count):
        start = time.perf_counter()
        call(turn)
        times_ms.append((time.perf_counter() - start) * 1000)
    return times_ms


@contextmanager
def on_core(*cores: int) -> Iterator[None]:
    """Keep this thread, and those that it starts, on one core, or on some."""
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, cores)
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


def _print(results: Sequence[Result]) -> None:
    table = Table("model", "in process/s", "served/s", "served : in process", "average batch", "p50 ms, 1 in flight",
                  box=None, pad_edge=False)  # fmt: skip
    for result in results:
        ratios = result.ratios
        low, high = np.percentile(ratios, [25, 75])
        table.add_row(
            result.name,
            f"{statistics.median(result.in_process):.1f}",
            f"{statistics.median(result.served):.1f}",
            f"{statistics.median(ratios):.3f} (middle half {low:.3f} to {high:.3f})",
            f"{result.average_batch:.1f}",
            f"{result.p50_ms:.2f} (in process {result.in_process_ms:.2f})",
        )
    console = Console(highlight=False, width=120)
    console.print(table)
    console.print(f"medians of {ROUNDS} alternating rounds of {ROUND_S:g} s; one core each for server and load")


if __name__ == "__main__":
    sys.exit(main())
