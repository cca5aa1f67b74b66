"""`make loadtest`: one load test, what it found on both sides of the wire, and whether the SLO was met.

Prints a summary and writes ``result.json``, ``junit.xml`` and ``index.html`` below ``reports/loadtest``. Exit code:
0 met, 1 not met or not a valid run, 2 bad input.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from rich.console import Console

from tritonkit import atomic, progress, recipe
from tritonkit.cli.arguments import Parser
from tritonkit.cli.output import run_command
from tritonkit.errors import InputError
from tritonkit.recipe import LanguageRecipe
from tritonkit.server import TritonServer
from tritonkit_load.load import arrivals, headless, models, payloads, slo, text_report
from tritonkit_load.load import target as targets
from tritonkit_load.load.durations import seconds
from tritonkit_load.load.plan import AS_SAMPLED, Plan
from tritonkit_load.load.result import Result
from tritonkit_load.reporting import junit, loadpage, verbs
from tritonkit_load.tokens import loadtest, measuring

USERS = {"grpc": "TritonGrpcUser", "http": "TritonHttpUser", "stream": "TritonStreamUser"}


def main() -> int:
    """Run, print, write the report, and say with the exit code whether the SLO was met."""
    return run_command(_main)


def _main() -> int:
    try:
        options = _parser().parse_args()
        paths = _recipes(options)
        if language := models.language_recipe(paths.values()):
            return _of_tokens(options, language)
        measuring.refuse_token_options(options)
        result = _run(options, paths)
        # First, as the disk for the report may be full.
        Console(highlight=False, soft_wrap=True).print("\n".join(text_report.lines(result)), markup=False)
        folder = options.reports / "+".join(name.replace("/", "-") for name in result.models)  # clf/2 is one folder
        _write(folder, result)
    except KeyboardInterrupt:
        print("error: interrupted before there was a report", file=sys.stderr)
        return slo.NOT_MET
    print(f"Report: {folder / 'index.html'}")
    return slo.exit_code(result)


def _parser() -> Parser:
    parser = Parser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter,
        examples=["tritonkit-load run --model efficientnet_lite0 --arrivals poisson:100 --slo p99_ms=50",
                  "tritonkit-load run --model my_model.yaml --users 8 --host grpc://127.0.0.1:8001"],
    )  # fmt: skip
    parser.add_argument("--model", required=True,
                        help=f"{models.HELP}; a mix with weights: a:3,b:1; of versions: a/1:9,a/2:1")  # fmt: skip
    loop = parser.add_mutually_exclusive_group()
    loop.add_argument("--users", type=int, default=8, help="closed loop: callers, each with one request at a time")
    loop.add_argument("--arrivals", help=f"open loop: {arrivals.FORMS}")
    parser.add_argument("--duration", default="20s", help="seconds that are measured, for example 20s")
    parser.add_argument("--warm-up", default="2s", help="seconds before them")
    protocols = "stream: for decoupled models of tensors; http: of a language model, its OpenAI API"
    parser.add_argument("--protocol", choices=list(USERS), default="grpc", help=protocols)
    parser.add_argument("--processes", type=int, default=1, help="generator processes")
    parser.add_argument("--slo", default="", help=f"{slo.EXAMPLE}; else the recipe's")
    parser.add_argument("--batch-sizes", default="1", help="samples a request: 4, 1-8, or 1:0.7,8:0.3")
    parser.add_argument("--lengths", default=AS_SAMPLED, help="sizes of the dynamic dimension, likewise")
    parser.add_argument("--seed", type=int, default=0, help="of the schedule and of every choice")
    parser.add_argument("--host", help="a running server, grpc://HOST:PORT or http://HOST:PORT; else one is started")
    parser.add_argument("--metrics-url", default="", help="its metrics, for the GPU's figures")
    targets.add_options(parser)
    parser.add_argument("--record", type=Path, help="write every request to this CSV file, which can be replayed")
    parser.add_argument("--reports", type=Path, default=Path("reports/loadtest"))
    measuring.add_options(parser)
    return parser


def _of_tokens(options: argparse.Namespace, recipe: LanguageRecipe) -> int:
    """The same for a language model, whose load is counted in tokens."""
    replayed = (options.arrivals or "").startswith("replay:")
    return loadtest.run(
        options, recipe,
        duration_s=0.0 if replayed else seconds("DURATION", options.duration),
        warm_up_s=seconds("WARM_UP", options.warm_up, least=0),
    )  # fmt: skip


def _run(options: argparse.Namespace, paths: Mapping[str, Path]) -> Result:
    plan = _plan(options, paths)
    _check(plan, options, paths.values())
    target = None if options.host else targets.supported(options.target)
    environment = {"target": target} if target else {}
    how = plan.arrivals or f"{plan.users} users"
    long = f"{plan.warm_up_s + plan.duration_s:g} s" if plan.duration_s else "as long as it was"
    with progress.steps(f"load test of {', '.join(plan.models)}", 2) as steps:
        steps.next(f"ask {options.host}" if options.host else f"start Triton with {', '.join(plan.models)}")
        with _server(options, list(dict.fromkeys(paths.values())), target) as (host, metrics_url):
            steps.next(f"{how} over {options.protocol}, {long}")
            arguments = headless.command(
                plan, host, USERS[options.protocol], list(dict.fromkeys(paths.values())), processes=options.processes,
                slo=options.slo, metrics_url=metrics_url, record=options.record,
            )  # fmt: skip
            result = headless.run(arguments)
    return replace(
        result,
        command=verbs.running("run"),
        environment=result.environment | environment,
    )


def _recipes(options: argparse.Namespace) -> dict[str, Path]:
    """The recipe's file of each model that was named."""
    weights = payloads.mix(options.model)
    bases = {name: payloads.split_version(name)[0] for name in weights}
    return {name: models.recipe_path(of) for name, of in bases.items()}


def _plan(options: argparse.Namespace, paths: Mapping[str, Path]) -> Plan:
    weights = payloads.mix(options.model)
    replayed = (options.arrivals or "").startswith("replay:")
    return Plan(
        arrivals=options.arrivals,
        duration_s=0.0 if replayed else seconds("DURATION", options.duration),
        warm_up_s=seconds("WARM_UP", options.warm_up, least=0),
        users=options.users,
        seed=options.seed,
        models={_named(name, path): weights[name] for name, path in paths.items()},
        batch_sizes=options.batch_sizes,
        lengths=options.lengths,
    )


def _named(name: str, path: Path) -> str:
    """A model as requests name it: by its recipe's name, with the version that was asked for."""
    version = payloads.split_version(name)[1]
    return recipe.load(path).name + (f"/{version}" if version else "")


def _check(plan: Plan, options: argparse.Namespace, paths: Iterable[Path]) -> None:
    """Find mistakes before a server is started for them."""
    if plan.arrivals is not None:
        arrivals.parse(plan.arrivals).duration_s(plan.duration_s)
    elif plan.users < 1:
        raise InputError(f"USERS is {plan.users}", "at least one user")
    headless.run_time(plan)
    if options.processes < 1:
        raise InputError(f"{options.processes} processes cannot send anything", "at least one")
    slo.parse(options.slo)
    for path in paths:
        payloads.check(recipe.load(path), plan)
    versioned = [name for name in plan.models if payloads.split_version(name)[1]]
    if versioned and not (options.host or options.repository):
        raise InputError(
            f"{', '.join(versioned)}: what is built for the occasion has one version of each model",
            "--repository with the repository that has them, or --host with a server of it",
        )


@contextlib.contextmanager
def _server(
    options: argparse.Namespace, paths: Sequence[Path], target: targets.Target | None
) -> Iterator[tuple[str, str]]:
    """A server's address and metrics: the one that was named, or one that runs as long as the block."""
    if target is None:
        yield options.host, options.metrics_url
        return
    recipes = [recipe.load(path) for path in paths]
    with models.repository_of(recipes, options.repository, target) as repository, TritonServer(repository) as server:
        yield server.http_url if options.protocol == "http" else server.grpc_url, server.metrics_url


def _write(folder: Path, result: Result) -> None:
    """The whole report, or nothing."""
    files = {
        "result.json": json.dumps(result.to_json(), indent=2) + "\n",
        "junit.xml": junit.render(result),
        "index.html": loadpage.render(result),
    }
    atomic.put_files(folder, files)


if __name__ == "__main__":
    sys.exit(main())
