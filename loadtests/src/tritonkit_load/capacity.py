"""`make capacity`: the highest rate of requests at which a model meets its SLO, with an interval.

It asks the served model for one rate after another in an open loop: one request a second, then twice as many until the
SLO is missed, then halves what lies between, and at the end asks for the rate that it found again and again. What
was proved is kept where a search has to end early: Ctrl-C, or a generator that can send no more. Exit code: 0 found, 1
the SLO is not met at one request a second or the generator could not send even that (the page has the last run), 2 bad
input, 130 interrupted.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from rich.console import Console

from tritonkit import atomic, progress
from tritonkit.cli.arguments import Parser
from tritonkit.cli.output import run_command
from tritonkit.errors import CheckFailed, InputError
from tritonkit.recipe import Recipe, Slo
from tritonkit.recipe import load as load_recipe
from tritonkit.server import TritonServer
from tritonkit_load.load import models, payloads
from tritonkit_load.load import slo as slos
from tritonkit_load.load import target as targets
from tritonkit_load.load.durations import seconds
from tritonkit_load.load.generator import Generator
from tritonkit_load.load.plan import AS_SAMPLED, Plan
from tritonkit_load.load.result import Result
from tritonkit_load.reporting import loadpage, verbs, verdict_text
from tritonkit_load.tokens import capacity as of_tokens
from tritonkit_load.tokens import measuring
from tritonkit_load.tuning import limit
from tritonkit_load.tuning.cores import divide
from tritonkit_load.tuning.limit import Capacity, Probe, finite
from tritonkit_load.tuning.probing import Asker, at_least, bounds, point

__all__ = ["Capacity", "capacity", "main", "slo_of"]

INTERRUPTED = 130  # as shells say it


class Unmet(CheckFailed):
    """No rate was found; ``result`` has the last run."""

    def __init__(self, error: CheckFailed, result: Result) -> None:
        super().__init__(error.message, error.fix)
        self.result = result


def main() -> int:
    """Measure, print, and write the report."""
    return run_command(_main)


def _main() -> int:
    options = _parser().parse_args()
    out = Console(highlight=False, soft_wrap=True)
    path = models.recipe_path(options.model)
    if language := models.language_recipe([path]):
        return of_tokens.run(
            options, language, duration_s=seconds("DURATION", options.duration),
            warm_up_s=seconds("WARM_UP", options.warm_up, least=0),
        )  # fmt: skip
    measuring.refuse_token_options(options)
    try:
        estimate, result = _run(options)
        if options.json:
            print(json.dumps(as_json(estimate, result), indent=2))
        else:
            out.print("\n".join(lines(estimate, result)), markup=False)
        folder = options.reports / next(iter(result.models))
        write(folder, result)  # last, as the disk for it may be full
    except KeyboardInterrupt:
        print("interrupted before anything was proved", file=sys.stderr)
        return INTERRUPTED
    except Unmet as error:
        folder = options.reports / next(iter(error.result.models))
        write(folder, replace(error.result, command=verbs.running("capacity")))
        raise CheckFailed(error.message, f"{error.fix}; the last run is in {folder / 'index.html'}") from error
    if not options.json:
        print(f"Report: {folder / 'index.html'}")
    return INTERRUPTED if estimate.interrupted else 0


def capacity(
    generator: Generator,
    slo: Slo,
    start_rate: float | None = None,
    *,
    plan: Plan = Plan(),  # noqa: B008 -- frozen
    resolution: float = 1.05,
    times: int = 3,
    say: Callable[[str], None] = lambda _: None,
) -> tuple[Capacity, Result]:
    """The highest rate that meets an SLO, and the run at it with the whole curve.

    Args:
        generator: Running, against the server.
        slo: What every run is held against.
        start_rate: A first guess, requests a second.
        plan: Seconds, warm-up, and what is sent.
        resolution: Factor between rates that are told apart.
        times: Runs that confirm the rate.
        say: Is told of every run.

    Returns:
        What was found, and the run. Where a search had to end early or the generator could not send more, that is what
        was proved until then.

    Raises:
        Unmet: The SLO is not met at one request a second, or the generator could not even keep that.
    """
    ask = Asker(generator, slo, plan, say, lenient=True)
    try:
        estimate = limit.capacity(ask, start_rate, resolution=resolution, times=times)
    except CheckFailed as error:
        if not ask.results:
            raise
        raise Unmet(error, ask.results[-1]) from error
    runs = zip(ask.results, estimate.points, strict=False)  # an interruption may come between the two
    at_rate = [result for result, probe in runs if probe is estimate.at_rate][-1]
    if late := at_least(ask.late_at):
        at_rate = replace(at_rate, environment=at_rate.environment | {"generator": late})
    return estimate, replace(
        at_rate, curve=tuple(map(point, merged(estimate.points))), partial=estimate.interrupted,
        capacity=estimate.limit,
    )  # fmt: skip


def merged(points: tuple[Probe, ...]) -> list[Probe]:
    """One point a rate, by rising rate: the last run at it, which has met the SLO only if all have."""
    by_rate: dict[float, Probe] = {}
    for probe in sorted(points, key=lambda probe: probe.rate):
        before = by_rate.get(probe.rate)
        if before is None or (probe.kept and not before.kept):
            by_rate[probe.rate] = probe
        elif probe.kept:  # a run that the generator could not send says nothing beside one that it could
            by_rate[probe.rate] = replace(probe, met=probe.met and before.met)
    return list(by_rate.values())


def slo_of(recipe: Recipe, text: str) -> Slo:
    """The SLO that was given, or the recipe's.

    Raises:
        InputError: Neither is there, or the SLO has no bound on latency.
    """
    slo = slos.parse(text) or recipe.slo
    if slo is None or slo.latency_ms is None:
        raise InputError(f"{recipe.path} has no SLO to search by", "add  slo: {p99_ms: 50}, or give --slo p99_ms=50")
    return slo


def lines(estimate: Capacity, result: Result) -> list[str]:
    """The capacity in a few lines of text, for a terminal."""
    (name,) = result.models
    at_rate, slo = estimate.at_rate, result.slo
    return [
        *(
            f"  {probe.rate:8.1f}/s  {_fate(probe):6}  p50 {_ms(probe.p50_ms)}  p99 {_ms(probe.p99_ms)}"
            for probe in sorted(estimate.points, key=lambda probe: probe.rate)
        ),
        f"{name}: {'at least ' * estimate.at_least}{estimate.rate:.1f} requests/s at {bounds(slo) if slo else ''} "
        f"(95 % interval {estimate.low:.1f} {_upwards(estimate.high)})",
        f"  met in {verdict_text.times_met(estimate.confirmed)} of {result.load.duration_s:g} s at that rate, "
        f"p50 {_ms(at_rate.p50_ms)}, p99 {_ms(at_rate.p99_ms)} in the last of them",
        "  the interval is where nine of ten such runs meet the SLO: a logistic curve through all "
        f"{len(estimate.points)}",
        *([f"  {few}"] if (few := verdict_text.few_at_capacity(result, estimate.limit)) else []),
        *(["  interrupted: it may be higher"] if estimate.interrupted else []),
        *([f"  the generator {late}"] if (late := result.environment.get("generator")) else []),
    ]


def as_json(estimate: Capacity, result: Result) -> dict[str, Any]:
    """The capacity, every probe and the result as plain data."""
    return {
        "capacity": estimate.rate, "low": estimate.low, "high": finite(estimate.high), "confirmed": estimate.confirmed,
        "at_least": estimate.at_least, "interrupted": estimate.interrupted,
        "points": [asdict(point(probe)) for probe in estimate.points], "result": result.to_json(),
    }  # fmt: skip


def write(folder: Path, result: Result) -> None:
    """The page and the figures, both or neither."""
    files = {"result.json": json.dumps(result.to_json(), indent=2) + "\n", "index.html": loadpage.render(result)}
    atomic.put_files(folder, files)


def _parser() -> Parser:
    parser = Parser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter,
        examples=["tritonkit-load capacity --model efficientnet_lite0 --slo p99_ms=50"],
    )  # fmt: skip
    parser.add_argument("--model", required=True, help=models.HELP)
    parser.add_argument("--slo", default="", help=f"{slos.EXAMPLE}; else the recipe's")
    parser.add_argument("--duration", default="10s", help="measured seconds of every run")
    parser.add_argument("--warm-up", default="1s", help="seconds before them")
    parser.add_argument("--batch-sizes", default="1", help="samples a request: 4, 1-8, or 1:0.7,8:0.3")
    parser.add_argument("--lengths", default=AS_SAMPLED, help="sizes of the dynamic dimension, likewise")
    parser.add_argument("--host", help="a running server, grpc://HOST:PORT; else one is started")
    parser.add_argument("--metrics-url", default="", help="its metrics, for the engine of a language model")
    parser.add_argument(
        "--protocol", choices=["grpc", "http"], default="grpc", help="http: OpenAI's, of language models"
    )
    parser.add_argument("--processes", type=int, default=1, help="that send to a language model; default: %(default)s")
    parser.add_argument("--seed", type=int, default=0, help="of what is sent to a language model")
    targets.add_options(parser)
    parser.add_argument("--reports", type=Path, default=Path("reports/capacity"))
    parser.add_argument("--json", action="store_true", help="print everything as JSON")
    measuring.add_options(parser)
    return parser


def _run(options: argparse.Namespace) -> tuple[Capacity, Result]:
    recipe = load_recipe(models.recipe_path(options.model))
    slo = slo_of(recipe, options.slo)
    plan = Plan(
        duration_s=seconds("DURATION", options.duration), warm_up_s=seconds("WARM_UP", options.warm_up, least=0),
        batch_sizes=options.batch_sizes, lengths=options.lengths,
    )  # fmt: skip
    payloads.check(recipe, plan)
    with progress.task(f"capacity of {recipe.name} at {bounds(slo)}") as say:
        if options.host:
            with Generator(options.host, recipes=[recipe.path]) as generator:
                estimate, result = capacity(generator, slo, plan=plan, say=say)
        else:
            target = targets.supported(options.target)
            cores = divide(target=target)
            say(f"start Triton for target {target}: {cores}")
            with (
                models.repository_of([recipe], options.repository, target) as repository,
                TritonServer(repository, cores=cores.server) as server,
                Generator(
                    server.grpc_url, recipes=[recipe.path], core=cores.generator[0], processes=len(cores.generator)
                ) as generator,
            ):
                estimate, result = capacity(generator, slo, plan=plan, say=say)
                result = replace(result, environment=result.environment | {"target": target, "divided": str(cores)})
    return estimate, replace(result, command=verbs.running("capacity"))


def _fate(probe: Probe) -> str:
    return "met" if probe.met else "missed" if probe.kept else "unsent"


def _upwards(high: float) -> str:
    return f"to {high:.1f}" if math.isfinite(high) else "upwards"


def _ms(value: float | None) -> str:
    return "-" if value is None else f"{value:.1f} ms"


if __name__ == "__main__":
    sys.exit(main())
