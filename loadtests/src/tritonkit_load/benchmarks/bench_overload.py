"""`make bench-overload`: what a server answers in time when more arrives than it can serve.

The same graph behind two queues, in turn: the one that follows from the SLO and measured service times
(`tritonkit.queue_limits`), and the one without an SLO, 256 requests and 2 s. First the capacity, where
everybody may wait; then multiples of it, over each protocol, from callers that retry and that do not; then a spike,
and how long after it the server is itself again. Exit code: 0 measured, 1 the SLO cannot be met, 2 bad input, 3
something is missing.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import tempfile
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from tritonkit import atomic, pipeline, progress
from tritonkit.cli.arguments import Parser
from tritonkit.cli.output import run_command
from tritonkit.errors import CheckFailed
from tritonkit.queue_limits import NAMES, QueueLimits
from tritonkit.recipe import Recipe, Slo
from tritonkit.recipe import load as load_recipe
from tritonkit.server import TritonServer, runtime
from tritonkit_load.benchmarks.bench_serving import on_core
from tritonkit_load.capacity import slo_of
from tritonkit_load.load import environment, models, overload, recording
from tritonkit_load.load import target as targets
from tritonkit_load.load.generator import Generator
from tritonkit_load.load.plan import Plan
from tritonkit_load.tuning import limit
from tritonkit_load.tuning.cores import Cores, divide
from tritonkit_load.tuning.probing import Asker

USERS = {
    "grpc": "TritonGrpcUser", "grpc, retries": "RetryingGrpcUser", "http": "TritonHttpUser",
    "http, retries": "RetryingHttpUser",
}  # fmt: skip
TIMES = (1.0, 2.0, 5.0)
SPIKE = 0.0  # in place of a multiple
BOUNDED, USUAL = QUEUES = ("from the SLO", "256 and 2 s")
SPIKE_AT_S, SPIKE_S, AFTER_S = 2.0, 4.0, 6.0
QUIET = 0.5  # of capacity, before and after a spike
INTERRUPTED = 130


@dataclass(frozen=True)
class Run:
    """One run: which queue, whose callers, how many times the capacity, and its figures."""

    queue: str
    callers: str
    times: float
    served: overload.Served
    recovery_s: float | None
    on_schedule: bool


def main() -> int:
    """Measure, print, and write ``result.json``."""
    return run_command(_main)


def _main() -> int:
    options = _parser().parse_args()
    try:
        result = _measure(options)
    except KeyboardInterrupt:
        print("interrupted; nothing was written", file=sys.stderr)
        return INTERRUPTED
    place = options.reports / f"{result['model']}.json"
    atomic.write(place, (json.dumps(result, indent=2, default=asdict) + "\n").encode())
    if options.json:
        print(json.dumps(result, indent=2, default=asdict))
    else:
        _print(result)
        print(f"All of it: {place}")
    return 0


def _measure(options: argparse.Namespace) -> dict[str, Any]:
    recipe = load_recipe(models.recipe_path(options.model))
    target = targets.supported(options.target)
    slo = slo_of(recipe, options.slo)
    cores = divide(target=target)
    runtime.find()  # a missing server is reported before anything is built
    count = 1 + len(USERS) * (len(TIMES) + 1) * options.rounds * 2
    with (
        tempfile.TemporaryDirectory(prefix="tritonkit-overload-") as directory,
        progress.steps(f"overload of {recipe.name}", count) as steps,
    ):
        place = Path(directory)
        limits = _build_repositories(recipe, slo, target, cores, place)
        steps.next("capacity, without bounds")
        capacity = _capacity(recipe, slo, place / BOUNDED, cores, options.seconds)
        runs: list[Run] = []
        for turn in range(options.rounds):
            for queue in QUEUES[:: 1 if turn % 2 == 0 else -1]:
                with _server(place / queue, cores) as server:
                    for callers in USERS:
                        with _generator(server, callers, recipe, cores) as generator:
                            for times in (*TIMES, SPIKE):
                                what = f"{times:g} times capacity" if times else "a spike"
                                steps.next(f"{queue}, {callers}, {what}, round {turn + 1} of {options.rounds}")
                                plan = _plan(times, capacity, options.seconds, turn)
                                outcome = _run(generator, plan, times, slo, place)
                                runs.append(Run(queue, callers, times, *outcome))
    return {
        "model": recipe.name, "target": target, "slo_ms": slo.latency_ms, "limits": limits, "capacity": capacity,
        "runs": runs, "seconds": options.seconds, "cores": str(cores), "environment": environment.machine(),
    }  # fmt: skip


def _build_repositories(recipe: Recipe, slo: Slo, target: targets.Target, cores: Cores, place: Path) -> dict[str, Any]:
    """A repository for each queue, under its name; the limits of the first.

    Raises:
        CheckFailed: No limits follow from the SLO.
    """
    plain = recipe.batching.on(target).model_copy(update=dict.fromkeys(NAMES))
    bounded = recipe.model_copy(update={"slo": slo, "batching": plain})
    by_hand = plain.model_copy(update={"max_queue_size": 256, "queue_timeout_ms": 2000})
    recipes = {BOUNDED: bounded, USUAL: bounded.model_copy(update={"slo": None, "batching": by_hand})}
    with on_core(*cores.server):  # limits are for the cores that the server will have
        built = {
            queue: pipeline.build([variant], place / queue, target).models[variant.name]
            for queue, variant in recipes.items()
        }
    limits = built[BOUNDED].queue
    if limits is None:
        raise CheckFailed(
            f"no queue limits follow from {slo.latency_ms:g} ms: one request takes longer", "loosen the SLO"
        )
    return limits.as_json()


def _server(repository: Path, cores: Cores, *, bounded: bool = True) -> TritonServer:
    return TritonServer(repository, cores=cores.server, exit_timeout_s=1, keep_queue_bounds=bounded)


def _generator(server: TritonServer, callers: str, recipe: Recipe, cores: Cores) -> Generator:
    host = server.grpc_url if callers.startswith("grpc") else server.http_url
    return Generator(
        host, USERS[callers], [recipe.path], core=cores.generator[0], processes=len(cores.generator)
    )  # fmt: skip


def _capacity(recipe: Recipe, slo: Slo, repository: Path, cores: Cores, seconds: float) -> float:
    """Requests a second that meet the SLO, over gRPC, where everybody may wait: refusals are no part of it."""
    with _server(repository, cores, bounded=False) as server, _generator(server, "grpc", recipe, cores) as generator:
        ask = Asker(generator, slo, Plan(duration_s=seconds, warm_up_s=1.0), lenient=True)
        return limit.capacity(ask).rate


def _plan(times: float, capacity: float, seconds: float, seed: int) -> Plan:
    if times:
        return Plan(f"poisson:{times * capacity:.6g}", duration_s=seconds, warm_up_s=1.0, seed=seed)
    high, low = max(TIMES) * capacity, QUIET * capacity
    arrivals = f"spike:{low:.6g},{high:.6g}@{SPIKE_AT_S:g}+{SPIKE_S:g}"
    return Plan(arrivals, duration_s=SPIKE_AT_S + SPIKE_S + AFTER_S, warm_up_s=1.0, seed=seed)


def _run(
    generator: Generator, plan: Plan, times: float, slo: Slo, place: Path
) -> tuple[overload.Served, float | None, bool]:
    """One run, how long it took to recover from a spike, and whether the generator kept its schedule."""
    rows_of = place / "rows.csv"
    result = generator.run(plan, slo=slo, record=rows_of)
    rows = recording.read_rows(rows_of)
    slo_ms = slo.latency_ms or 0.0
    served = overload.served(rows, plan.duration_s, slo_ms)
    recovered = None if times else overload.recovery_s(rows, SPIKE_AT_S, SPIKE_AT_S + SPIKE_S, slo_ms)
    return served, recovered, result.generator.valid


def _print(result: dict[str, Any]) -> None:
    out = Console(highlight=False, width=120)
    out.print(f"{BOUNDED}: {QueueLimits(**result['limits'])}", markup=False)
    out.print(f"capacity at {result['slo_ms']:g} ms: {result['capacity']:.0f} requests/s", markup=False)
    base = result["capacity"]
    for queue in QUEUES:
        table = Table("callers", "load", "in time : capacity", "late %", "refused %", "failed %", "p99 ms",
                      "refusal ms, p50", "p99", "recovers in s", title=f"queue: {queue}", title_justify="left",
                      title_style="bold", box=None, pad_edge=False)  # fmt: skip
        for callers in USERS:
            for times in (*TIMES, SPIKE):
                runs = [run for run in result["runs"] if (run.queue, run.callers, run.times) == (queue, callers, times)]
                table.add_row(callers, f"{times:g} x" if times else "spike", *_cells(runs, base))
        out.print()
        out.print(table)
    late = sum(not run.on_schedule for run in result["runs"])
    out.print(f"medians of {len(runs)} rounds of {result['seconds']:g} s; {result['cores']}", markup=False)
    if late:
        out.print(f"In {late} of {len(result['runs'])} runs the generator could not keep its schedule.")


def _cells(runs: list[Run], base: float) -> list[str]:
    def middle(name: str, form: str, factor: float = 1.0) -> str:
        values = [value * factor for run in runs if (value := getattr(run.served, name)) is not None]
        return format(statistics.median(values), form) if values else "-"

    shares = [run.served.goodput / base for run in runs]
    recovered = [run.recovery_s for run in runs if run.recovery_s is not None]
    in_time = f"{statistics.median(shares):.2f} ({min(shares):.2f} to {max(shares):.2f})"
    return [
        "" if recovered else in_time, middle("late", ".1f", 100), middle("refused", ".1f", 100),
        middle("failed", ".1f", 100), middle("p99_ms", ".1f"), middle("refusal_p50_ms", ".1f"),
        middle("refusal_p99_ms", ".1f"), f"{statistics.median(recovered):.2f}" if recovered else "",
    ]  # fmt: skip


def _parser() -> Parser:
    parser = Parser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter,
        examples=["python -m tritonkit_load.benchmarks.bench_overload --slo p99_ms=100 --rounds 1"],
    )  # fmt: skip
    parser.add_argument("--model", default="efficientnet_lite0", help=models.HELP)
    parser.add_argument("--slo", default="", help="p99_ms=100; the recipe's where it is not given")
    parser.add_argument("--seconds", type=float, default=5.0, help="of a run; default: %(default)s")
    parser.add_argument("--rounds", type=int, default=3, help="default: %(default)s")
    parser.add_argument("--target", choices=["cpu", "cuda"], help="cuda where this machine has an NVIDIA driver")
    parser.add_argument("--reports", type=Path, default=Path("reports/overload"))
    parser.add_argument("--json", action="store_true", help="print everything as JSON")
    return parser


if __name__ == "__main__":
    sys.exit(main())
