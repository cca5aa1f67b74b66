"""`make bench-trees`: what serving a forest costs: through Triton, beside its own library and treelite in this process.

One thread each, on the same one core; the load comes from the other core. At each number of rows: the median time of
one request at a time, and rows a second with 8 in flight (in process: one call after another). Rounds alternate, so
that a noisy machine disturbs all three; what counts is the median of the rounds.
"""

from __future__ import annotations

import argparse
import os
import statistics
import sys
import tempfile
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

os.environ["OMP_NUM_THREADS"] = "1"  # before a library reads it

import numpy as np
from rich.console import Console
from rich.table import Table

from tritonkit import pipeline, progress, samples
from tritonkit.cli.arguments import Parser
from tritonkit.cli.output import run_command
from tritonkit.errors import InputError
from tritonkit.recipe import FOREST_INPUT, Batching, ForestRecipe
from tritonkit.recipe import load as load_recipe
from tritonkit.server import TritonServer
from tritonkit.server.backends.fil.forest_inference import Settings
from tritonkit.trees import checks, forest
from tritonkit.trees.forest import Rows
from tritonkit_client import Client
from tritonkit_load.benchmarks.bench_serving import IN_FLIGHT, LOAD_CORE, SERVER_CORE, latencies, on_core, throughput
from tritonkit_load.load import models

ROWS = (1, 8, 64, 1024)
ROUNDS, ROUND_S = 5, 1.0
LATENCIES = 50  # requests a round whose times are taken


@dataclass
class Figures:
    """One way of running a forest, at one number of rows: a figure a round."""

    p50_ms: list[float] = field(default_factory=list)
    rows_per_s: list[float] = field(default_factory=list)

    def __str__(self) -> str:
        """Both medians."""
        return f"{statistics.median(self.p50_ms):.2f} ms  {statistics.median(self.rows_per_s):,.0f} rows/s"


def main() -> int:
    """Measure a forest and print one table."""
    return run_command(_main)


def _main() -> int:
    options = _parser().parse_args()
    if not {SERVER_CORE, LOAD_CORE} <= os.sched_getaffinity(0):
        raise InputError(f"cores {SERVER_CORE} and {LOAD_CORE} are needed, one for the server, one for load", "use two")
    recipe = load_recipe(models.recipe_path(options.model))
    if not isinstance(recipe, ForestRecipe):
        raise InputError(f"{recipe.path} is no forest's recipe", "name one with  engine: fil, such as breast_cancer")
    one_each = Batching(instances=1, threads=1)
    load = os.getloadavg()[0]
    _print(recipe.name, _measure(recipe.model_copy(update={"batching": one_each})), load)
    return 0


def _parser() -> Parser:
    parser = Parser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter,
        examples=["python -m tritonkit_load.benchmarks.bench_trees",
                  "python -m tritonkit_load.benchmarks.bench_trees --model my_forest.yaml"],
    )  # fmt: skip
    parser.add_argument("--model", default="breast_cancer", help=f"{models.HELP}; default: %(default)s")
    return parser


def _measure(recipe: ForestRecipe) -> dict[int, dict[str, Figures]]:
    single = samples.batch(samples.load(recipe, max(ROWS)), max(ROWS))[FOREST_INPUT]
    figures: dict[int, dict[str, Figures]] = {count: {} for count in ROWS}
    with ExitStack() as stack:
        repository = Path(
            stack.enter_context(tempfile.TemporaryDirectory(prefix="tritonkit-bench-")), "model_repository"
        )
        file, library = stack.enter_context(checks.opened(recipe))
        treelite_forest = forest.load(file, Settings(model_type=file.model_type, threads=1))
        pipeline.build([recipe], repository, "cpu")
        server = stack.enter_context(TritonServer(repository, cores=[SERVER_CORE]))
        client = stack.enter_context(Client(server.grpc_url))
        steps = stack.enter_context(progress.steps("bench", ROUNDS))
        for _ in range(ROUNDS):
            steps.next(f"{recipe.name}, at {', '.join(map(str, ROWS))} rows")
            for count, ways in figures.items():
                rows = np.ascontiguousarray(single[:count])
                _served(ways.setdefault("served", Figures()), client, recipe.name, rows)
                _in_process(ways.setdefault("treelite", Figures()), partial(treelite_forest.scores, rows), count)
                if library is not None:
                    _in_process(ways.setdefault(library.library, Figures()), partial(library.scores, rows), count)
    return figures


def _served(figures: Figures, client: Client, name: str, rows: Rows) -> None:
    def serve(_: int) -> None:
        client.infer(name, {FOREST_INPUT: rows})

    with on_core(LOAD_CORE):
        figures.p50_ms.append(statistics.median(latencies(serve, LATENCIES)))
        figures.rows_per_s.append(len(rows) * throughput(serve, IN_FLIGHT, ROUND_S))


def _in_process(figures: Figures, run: Callable[[], object], count: int) -> None:
    with on_core(SERVER_CORE):
        figures.p50_ms.append(statistics.median(latencies(lambda _: run(), LATENCIES)))
        figures.rows_per_s.append(count * throughput(lambda _: run(), 1, ROUND_S))


def _print(name: str, figures: dict[int, dict[str, Figures]], load: float) -> None:
    ways = list(next(iter(figures.values())))
    table = Table("rows", *ways, box=None, pad_edge=False)
    for count, of_ways in figures.items():
        table.add_row(f"{count:,}", *(str(of_ways[way]) for way in ways))
    console = Console(highlight=False)
    console.print(
        f"{name}: median time of one call, and rows a second; one thread, load average {load:.1f} at the start"
    )
    console.print(table)


if __name__ == "__main__":
    sys.exit(main())
