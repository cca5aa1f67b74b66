"""`make bench-generator`: how much load one generator process makes, how late it is, and what a closed loop hides.

Against a model that returns its input, on the real server: server on one core, generator on the others. The first
table is what the gRPC user can send, in one and two processes, beside a user on raw `tritonclient`; the second is how
well it keeps a schedule; the third pauses the server for two seconds, once under an open and once under a closed loop.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import signal
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

from rich.console import Console
from rich.table import Table

from tritonkit import progress
from tritonkit.cli.arguments import Parser
from tritonkit.cli.output import run_command
from tritonkit.errors import InputError
from tritonkit.server import TritonServer
from tritonkit_load.benchmarks.bench_client import CONFIG, MODEL
from tritonkit_load.load.generator import Generator, Plan
from tritonkit_load.load.result import Result

SERVER_CORE, LOAD_CORE = 0, 1
RECIPE = """
name: identity
source: {onnx: identity.onnx}   # there is none: only what goes in and out is read here
inputs:
  x: {dtype: uint8, dims: [1000]}
outputs:
  y: {dtype: uint8, dims: [1000]}
max_batch_size: 0
"""
PROCESSES = (1, 2)
USERS, RATES = 32, (100, 500, 1000)
SECONDS, WARM_UP_S = 4.0, 1.0
PAUSED_S, PAUSED_RATE, PAUSED_USERS, PAUSED_TEST_S = 2.0, 100, 4, 10.0


def main() -> int:
    """Measure, and print three tables."""
    return run_command(_main)


def _main() -> int:
    _parser().parse_args()
    if len(os.sched_getaffinity(0)) < 2:
        raise InputError("the benchmark needs two CPU cores, one for the server and one for the load", "use two")
    with tempfile.TemporaryDirectory(prefix="tritonkit-bench-generator-") as directory:
        recipe = write_identity(Path(directory))
        with TritonServer(Path(directory, "repository"), cores=[SERVER_CORE], exit_timeout_s=1) as server:
            tables = list(_measure(server, recipe))
    console = Console(highlight=False, width=130)
    for table in tables:
        console.print(table)
        console.print()
    return 0


def _parser() -> Parser:
    return Parser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter,
        examples=["python -m tritonkit_load.benchmarks.bench_generator"],
    )  # fmt: skip


def write_identity(directory: Path) -> Path:
    """A repository with the model, and its recipe."""
    version = directory / "repository/identity/1"
    version.mkdir(parents=True)
    (version / "model.py").write_text(MODEL)
    (version.parent / "config.pbtxt").write_text(CONFIG)
    recipe = directory / "identity.yaml"
    recipe.write_text(RECIPE)
    return recipe


def _measure(server: TritonServer, recipe: Path) -> Iterator[Table]:
    users = {"TritonGrpcUser": "TritonGrpcUser", "raw tritonclient": "tritonkit_load.load.rawuser:RawGrpcUser"}
    shares = [(name, user, count) for count in PROCESSES for name, user in users.items()]
    with progress.steps("bench-generator", len(shares) + len(PROCESSES) + 2) as steps:
        throughputs = []
        for name, user, count in shares:
            steps.next(f"{name}, {count} processes, {SECONDS:g} s")
            with Generator(server.grpc_url, user, [recipe], core=LOAD_CORE, processes=count) as generator:
                result = generator.run(Plan(users=USERS, duration_s=SECONDS, warm_up_s=WARM_UP_S))
            throughputs.append((name, result))
        schedules = []
        for count in PROCESSES:
            steps.next(f"{len(RATES)} schedules, {count} processes, {len(RATES) * SECONDS:g} s")
            with Generator(server.grpc_url, recipes=[recipe], core=LOAD_CORE, processes=count) as generator:
                schedules += [
                    generator.run(Plan(f"poisson:{rate}", duration_s=SECONDS, warm_up_s=WARM_UP_S)) for rate in RATES
                ]
        plans = {
            f"open, poisson:{PAUSED_RATE}": Plan(f"poisson:{PAUSED_RATE}", PAUSED_TEST_S, WARM_UP_S),
            f"closed, {PAUSED_USERS} users": Plan(duration_s=PAUSED_TEST_S, warm_up_s=WARM_UP_S, users=PAUSED_USERS),
        }
        pauses = []
        with Generator(server.grpc_url, recipes=[recipe], core=LOAD_CORE) as generator:
            for loop, plan in plans.items():
                steps.next(f"{loop}, the server paused for {PAUSED_S:g} s of {PAUSED_TEST_S:g} s")
                with paused(server.pid, after_s=WARM_UP_S + 3, for_s=PAUSED_S):
                    pauses.append((loop, generator.run(plan)))
    yield _throughput_table(throughputs)
    yield _schedule_table(schedules)
    yield _pause_table(pauses)


@contextlib.contextmanager
def paused(pid: int, *, after_s: float, for_s: float) -> Iterator[None]:
    """Stop a process for a while, some time after the block began."""

    def pause() -> None:
        time.sleep(after_s)
        os.kill(pid, signal.SIGSTOP)
        time.sleep(for_s)
        os.kill(pid, signal.SIGCONT)

    thread = threading.Thread(target=pause)
    thread.start()
    try:
        yield
    finally:
        thread.join()


def _throughput_table(results: Sequence[tuple[str, Result]]) -> Table:
    cores = sum(core >= LOAD_CORE for core in os.sched_getaffinity(0))
    title = f"What it can send: {USERS} users, each with one request at a time; cores for all processes: {cores}"
    table = _table(title, "user", "processes", "requests/s", "CPU ms a request", "busiest process", "p50 ms", "failed")
    for name, result in results:
        model = result.model
        table.add_row(
            name, str(result.load.processes), f"{model.throughput:.0f}", f"{result.generator.cpu_ms_per_request:.3f}",
            f"{result.generator.cpu:.0%}", f"{model.latency.p50:.2f}" if model.latency else "-", str(model.failed),
        )  # fmt: skip
    return table


def _schedule_table(results: Sequence[Result]) -> Table:
    table = _table("How it keeps a schedule: TritonGrpcUser", "schedule", "processes", "requests/s", "CPU ms a request",
                   "busiest process", "late p50 ms", "late p99 ms", "late max ms", "valid")  # fmt: skip
    for result in results:
        health = result.generator
        table.add_row(
            result.load.arrivals, str(result.load.processes), f"{result.model.offered:.1f}",
            f"{health.cpu_ms_per_request:.3f}", f"{health.cpu:.0%}", f"{health.lateness_p50_ms or 0:.2f}",
            f"{health.lateness_p99_ms or 0:.2f}", f"{health.lateness_max_ms or 0:.2f}", "yes" if health.valid else "no",
        )  # fmt: skip
    return table


def _pause_table(results: Sequence[tuple[str, Result]]) -> Table:
    table = _table(f"What a closed loop hides: the server paused for {PAUSED_S:g} s", "loop", "requests", "p50 ms",
                   "p99 ms", "p99.9 ms", "largest ms")  # fmt: skip
    for loop, result in results:
        latency = result.model.latency
        if latency is not None:
            figures = (latency.p50, latency.p99, latency.p999, latency.max)
            table.add_row(loop, str(result.model.requests), *(f"{value:.2f}" for value in figures))
    return table


def _table(title: str, *columns: str) -> Table:
    table = Table(*columns, title=title, title_justify="left", box=None, pad_edge=False)
    for column in table.columns[1:]:
        column.justify = "right"
    return table


if __name__ == "__main__":
    sys.exit(main())
