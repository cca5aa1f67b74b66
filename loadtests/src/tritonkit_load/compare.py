"""`make compare`: tritonkit beside the servers that a team would otherwise pick, with the same graphs and load.

On a CPU every server has one core and one onnxruntime thread, the generator the other core; on a GPU all have the same
GPU and half of the cores, the generator the other half. All are up at once and are measured turn by turn, so that a
noisy machine disturbs all of them alike. Prints a table a model and writes ``result.json`` and ``index.html`` to
``reports/compare``. Exit code: 0 all were measured, 1 some were not, 2 bad input, 3 something is missing.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
import time
from collections.abc import Callable, Iterable
from dataclasses import replace
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

from google.protobuf import json_format
from rich.console import Console
from rich.table import Table

import tritonkit
from tritonkit import atomic, graph, progress, samples
from tritonkit.cli.arguments import Parser
from tritonkit.cli.output import run_command
from tritonkit.errors import InputError, MissingError
from tritonkit.recipe import ForestRecipe, Precision, Recipe
from tritonkit.recipe import load as load_recipe
from tritonkit.repository import config, layout
from tritonkit.samples import Sample
from tritonkit_load.benchmarks.bench_serving import on_core
from tritonkit_load.benchmarks.peers import contest, forests, lines
from tritonkit_load.benchmarks.peers import environment as environments
from tritonkit_load.benchmarks.peers.catalog import PEERS, Peer
from tritonkit_load.benchmarks.peers.contest import Candidate, Effort, Entry, Stage
from tritonkit_load.benchmarks.peers.harness import Ours, Subject, Theirs
from tritonkit_load.load import environment, payloads
from tritonkit_load.load import models as recipe_files
from tritonkit_load.load import slo as slos
from tritonkit_load.load import target as targets
from tritonkit_load.reporting import comparepage, verbs
from tritonkit_load.reporting.comparison_result import ComparisonResult, Row, ordered
from tritonkit_load.reporting.page import NOTHING, figure, short
from tritonkit_load.tuning import space
from tritonkit_load.tuning.cores import Cores, divide

SERVER_CORE, LOAD_CORE = 0, 1
PASSES = 3  # over the samples, for the graph alone
BATCHES = 20  # for the graph alone on a GPU; the first quarter warms up
SHARED_OPTIONS = ("cudnn_conv_algo_search", "use_tf32")  # of the CUDA provider, that peers get, too
CHECKED = 8  # answers of each server that must be right before it is measured
QUICK = Effort(seconds=1.5, warm_up_s=0.5, rounds=1, resolution=1.15, trials=1)
INTERVAL = "where the limit lies with a probability of 95 %, from all runs"
INTERRUPTED = 130  # what shells call the end by Ctrl-C

Say = Callable[[str], None]


def main() -> int:
    """Compare, print, write the report; Ctrl-C and a polite kill leave a report of the models that were finished."""
    return run_command(_main)


def _main() -> int:
    try:
        options = _parser().parse_args()
        result = _run(options)
        _print(result)
        _write(options.reports, result)  # last, as the disk for it may be full
    except KeyboardInterrupt:
        return INTERRUPTED
    print(f"Report: {options.reports / 'index.html'}")
    if result.partial:
        return INTERRUPTED
    return int(any(row.problem for rows in result.models.values() for row in rows))


def _parser() -> Parser:
    parser = Parser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter,
        examples=["tritonkit-load compare --models efficientnet_lite0 --peers fastapi,litserve --quick"],
    )  # fmt: skip
    parser.add_argument("--peers", default="", help=f"some of {','.join(peer.key for peer in PEERS)}; all if not given")
    parser.add_argument("--models", default="", help=f"each {recipe_files.HELP}; all of that folder if none is given")
    parser.add_argument("--quick", action="store_true", help="one short round: does everything work?")
    parser.add_argument("--seconds", type=float, help=f"of one run; {Effort.seconds:g} if not given")
    parser.add_argument("--rounds", type=int, help=f"searches for each capacity; {Effort.rounds} if not given")
    parser.add_argument("--slo", default="", help="p99_ms=20,error_rate=0.001; the recipes' where it is not given")
    targets.add_options(parser)
    parser.add_argument("--reports", type=Path, default=Path("reports/compare"))
    return parser


def _run(options: argparse.Namespace) -> ComparisonResult:
    effort = _effort(options)
    stage = _stage(targets.supported(options.target))
    peers = _peers(options.peers)
    recipes = [_recipe(path, options.slo) for path in _paths(options.models)]
    models: dict[str, tuple[Row, ...]] = {}
    ceiling: dict[str, float] = {}
    partial = False
    peers_of = {recipe.name: forests.peers_of(recipe, peers) for recipe in recipes}
    with recipe_files.repository_of(recipes, options.repository, stage.target) as repository:
        subjects = {recipe.name: _subject(recipe, repository, stage.target) for recipe in recipes}
        problems = _installed({peer.place: peer for some in peers_of.values() for peer in some}.values(), stage.target)
        with on_core(*stage.cores.generator), progress.task(f"compare on {stage.target}") as tell:
            try:
                for recipe in recipes:
                    subject = subjects[recipe.name]
                    before = _ceiling(recipe, subject, stage)
                    entries = [_ours(recipe, subject, repository, stage)]
                    entries += [
                        _theirs(peer, subject, stage, problems.get(peer.place)) for peer in peers_of[recipe.name]
                    ]
                    try:
                        contest.hold(entries, recipe, effort, stage, _beside(recipe.name, tell))
                    finally:
                        models[recipe.name] = tuple(entry.row() for entry in entries)
                    if before is not None:
                        ceiling[recipe.name] = max(before, _ceiling(recipe, subject, stage) or 0.0)
            except KeyboardInterrupt:
                partial = True
    return ComparisonResult(
        created=datetime.now(UTC).astimezone().isoformat(timespec="seconds"),
        command=verbs.running("compare"),
        environment=environment.machine() | {"target": stage.target, "divided": str(stage.cores)},
        slo={recipe.name: _slo_text(recipe) for recipe in recipes},
        ceiling=ceiling,
        rounds=effort.rounds,
        interval=INTERVAL,
        models=models,
        notes=_notes(effort, stage, forests=any(isinstance(recipe, ForestRecipe) for recipe in recipes)),
        partial=partial,
    )


def _stage(target: targets.Target) -> Stage:
    if target == "cuda":
        return Stage(target, divide(target=target))
    if not {SERVER_CORE, LOAD_CORE} <= os.sched_getaffinity(0):
        raise InputError(f"cores {SERVER_CORE} and {LOAD_CORE} are needed, one for servers, one for load", "use two")
    return Stage(target, Cores((SERVER_CORE,), (LOAD_CORE,)))


def _recipe(path: Path, slo: str) -> Recipe:
    recipe = load_recipe(path)
    return recipe.model_copy(update={"slo": slos.parse(slo) or recipe.slo})


def _effort(options: argparse.Namespace) -> Effort:
    plain = QUICK if options.quick else Effort()
    seconds = plain.seconds if options.seconds is None else options.seconds
    rounds = plain.rounds if options.rounds is None else options.rounds
    if not 1 <= seconds <= 600:
        raise InputError(f"--seconds is {seconds:g}", "between 1 and 600")
    if not 1 <= rounds <= 100:
        raise InputError(f"--rounds is {rounds}", "between 1 and 100")
    return replace(plain, seconds=seconds, rounds=rounds)


def _peers(text: str) -> list[Peer]:
    known = {peer.key: peer for peer in PEERS}
    keys = [key.strip().lower() for key in text.split(",") if key.strip()] or list(known)
    if unknown := [key for key in keys if key not in known]:
        raise InputError(f"there is no peer {unknown[0]!r}", f"one of: {', '.join(known)}")
    return [known[key] for key in dict.fromkeys(keys)]


def _paths(text: str) -> list[Path]:
    return recipe_files.recipe_paths(name.strip() for name in text.split(",") if name.strip())


def _subject(recipe: Recipe, repository: Path, target: targets.Target) -> Subject:
    """The graph that the repository serves, and what onnxruntime answers with it."""
    if recipe.slo is None:
        raise InputError(f"{recipe.path} has no SLO to find a capacity for", "add  slo: {p99_ms: 50}, or --slo")
    if isinstance(recipe, ForestRecipe):
        return forests.subject(recipe, repository, target)
    folder = repository / recipe.name
    served = config.parse((folder / layout.CONFIG).read_text(encoding="utf-8"))
    path = folder / str(recipe.number) / (served.default_model_filename or "model.onnx")
    if not path.is_file():
        raise InputError(f"{path} is not there", f"build it again: `tritonkit build {recipe.path} --target {target}`")
    inputs = tuple(samples.batch([sample], 1) for sample in samples.load(recipe, CHECKED))
    session = graph.Session(path, threads=1)
    expected = tuple(next(iter(session.run(sample).values())).reshape(-1) for sample in inputs)
    accelerators = served.optimization.execution_accelerators.gpu_execution_accelerator
    options = {name: value for accelerator in accelerators for name, value in accelerator.parameters.items()}
    shared = {name: options[name] for name in SHARED_OPTIONS if name in options}
    return Subject(recipe.name, path.absolute(), inputs, expected, target, shared)


def _ceiling(recipe: Recipe, subject: Subject, stage: Stage) -> float | None:
    """Samples a second of the graph alone: on a CPU one by one, on a GPU in largest batches with their copies.

    None where this process's onnxruntime has no CUDA. A forest: its library alone.
    """
    if isinstance(recipe, ForestRecipe):
        return forests.alone(recipe, subject, stage.cores)
    if stage.target == "cuda":
        return _gpu_ceiling(recipe, subject) if graph.Session.has_cuda() else None
    with on_core(*stage.cores.server):
        session = graph.Session(subject.graph, threads=1)
        inputs = [samples.batch([sample], 1) for sample in samples.load(recipe, payloads.SAMPLES)]
        passes = [[_seconds(session, sample) for sample in inputs] for _ in range(PASSES)]
    typical: list[float] = [statistics.median(times) for times in zip(*passes, strict=True)]
    return 1 / statistics.mean(typical)


def _gpu_ceiling(recipe: Recipe, subject: Subject) -> float:
    size = max(recipe.serving("cuda").max_batch_size, 1)
    session = graph.Session(subject.graph, threads=1, device="cuda")
    rows = [samples.resized(sample, recipe, recipe.sizes("opt")) for sample in samples.load(recipe, size)]
    batch = samples.batch(rows, size)
    return size / statistics.median([_seconds(session, batch) for _ in range(BATCHES)][BATCHES // 4 :])


def _seconds(session: graph.Session, inputs: Sample) -> float:
    began = time.perf_counter()
    session.run(inputs)
    return time.perf_counter() - began


def _installed(peers: Iterable[Peer], target: targets.Target) -> dict[str, MissingError]:
    """Install every peer's environment; the errors of those that cannot be installed, by the peer's place."""
    problems = {}
    missing = [peer for peer in peers if not environments.installed(peer, target)]
    with progress.steps("install", len(missing)) as steps:
        for peer in missing:
            steps.next(f"{peer.name} {peer.version}, some minutes at most")
            try:
                environments.install(peer, target)
            except MissingError as error:
                problems[peer.place] = error
    return problems


def _ours(recipe: Recipe, subject: Subject, repository: Path, stage: Stage) -> Entry:
    """Triton with the repository's configuration, and on a CPU without batches; each over both of its protocols."""
    ways = _ways(recipe, repository, stage.target).items()
    candidates = [
        Candidate(
            f"{text}, {words}", lines.count([recipe.path]),
            partial(Ours, subject, protocol, repository, stage.cores.server, changed),
            as_configured=changed is None,
        )
        for text, changed in ways
        for protocol, words in (("grpc", "gRPC"), ("kserve", "HTTP"))
    ]  # fmt: skip
    return Entry("tritonkit", tritonkit.__version__, candidates, ours=True)


def _ways(recipe: Recipe, repository: Path, target: targets.Target) -> dict[str, dict[str, Any] | None]:
    """By description: the configuration that Triton gets instead of the repository's, None for the repository's own."""
    chosen: Precision = "fp32"  # whichever: the graph stays the repository's
    current = space.of_recipe(recipe, chosen, target)
    single = replace(current, max_batch_size=min(recipe.max_batch_size, 1), instances=1).normal()
    instances = f"{current.instances} instance{'s' * (current.instances > 1)}"
    batches = f"batches of up to {current.max_batch_size} within {current.queue_delay_us} µs"
    batches += ", run by size" if current.by_size else ""
    alone = "one request at a time"
    ways: dict[str, dict[str, Any] | None] = {f"{instances}, {batches if current.max_batch_size > 1 else alone}": None}
    if single != current and target == "cpu":
        model_config = config.parse((repository / recipe.name / layout.CONFIG).read_text(encoding="utf-8"))
        section = single.batching(recipe, chosen, target)
        config.set_batching(model_config, recipe.model_copy(update={"batching": section}), target)
        ways[f"1 instance, {alone}"] = json_format.MessageToDict(model_config, preserving_proto_field_name=True)
    return ways


def _theirs(peer: Peer, subject: Subject, stage: Stage, missing: MissingError | None) -> Entry:
    candidates = [
        Candidate(
            variant.settings,
            lines.count(peer.folder / name for name in variant.files),
            partial(Theirs, peer, variant, subject, stage.cores.server),
        )
        for variant in peer.variants_for(stage.target)
    ]
    problem, fix = (missing.message, missing.fix) if missing else (None, "")
    return Entry(peer.name, peer.version, candidates, problem=problem, fix=fix)


def _beside(model: str, tell: Say) -> Say:
    return lambda text: tell(f"{model}, {text}")


def _slo_text(recipe: Recipe) -> str:
    assert recipe.slo is not None
    return slos.format_slo(recipe.slo).replace("=", " ≤ ").replace(",", ", ")


def _notes(effort: Effort, stage: Stage, *, forests: bool) -> tuple[str, ...]:
    held: tuple[str, ...]
    if stage.target == "cuda":
        held = (
            "The same ONNX file, the one that tritonkit's gate chose, in the same onnxruntime on the same GPU, with "
            "the same options of its CUDA provider.",
            f"The {stage.cores}, for every server.",
        )
        tried = (
            "Each server was tried with one request at a time in several processes, with batches as they come, and "
            "with batches filled up to one fixed size; of those that kept the SLO with "
            f"{contest.IN_FLIGHT['cuda']} callers the fastest is in the table. tritonkit was tried over gRPC and HTTP. "
            "All of one server's ways start at the same time, which its time to be ready shows."
        )
    else:
        held = (
            "The same ONNX file, the one that tritonkit's gate chose, in onnxruntime with one thread for all of them.",
            *(("Of a forest the same file, in XGBoost with one thread, and in treelite inside of Triton.",) * forests),
            f"All processes of a server on core {SERVER_CORE}, the generator on core {LOAD_CORE}.",
        )
        tried = (
            "Where a server can batch, it was tried with and without; the faster of both is in the table. "
            "tritonkit was tried as the recipe says and without batches, over gRPC and over HTTP."
        )
    return (
        *held,
        "The same samples, one a request, as bytes on the wire: raw tensors in an HTTP body, or KServe v2 over gRPC.",
        f"Every server answered {CHECKED} samples as onnxruntime does in one process, before it was measured.",
        tried,
        "All servers were up at once and took turns, the others stopped meanwhile. A turn was "
        f"{effort.seconds:g} s of Poisson arrivals after {effort.warm_up_s:g} s of warm-up.",
        "A rate counts as too high when the SLO was missed twice in a row, or the server fell behind.",
        "Memory is the proportional set size of all processes. Lines are those of code and configuration, without "
        "blanks, comments and docstrings; tritonkit's are the recipe's, which say how the graph is made, too.",
    )


def _write(folder: Path, result: ComparisonResult) -> None:
    """The whole report, or nothing."""
    files = {
        "result.json": json.dumps(result.to_json(), indent=2) + "\n",
        "index.html": comparepage.render(result),
    }
    atomic.put_files(folder, files)


def _print(result: ComparisonResult) -> None:
    console = Console(highlight=False, width=120)
    for model, rows in result.models.items():
        table = Table("server", "capacity/s", "interval", "p50 ms", "p99 ms", "memory MB", "ready s", "lines", box=None,
                      pad_edge=False, title=f"{model}, {result.slo[model]}", title_justify="left")  # fmt: skip
        for row in ordered(rows):
            between = NOTHING if row.low is None else f"{short(row.low)} to {short(row.high)}"
            table.add_row(
                f"{row.name} {row.version}", short(row.capacity), between, short(row.p50_ms), short(row.p99_ms),
                figure(row.memory_mb, ",.0f"), figure(row.ready_s), figure(row.config_lines, "d"),
            )  # fmt: skip
        console.print(table)
        if model in result.ceiling:
            console.print(comparepage.ceiling(result.ceiling[model], on_gpu=result.on_gpu))
        for row in rows:
            if row.problem:
                console.print(f"{row.name}: {row.problem}", markup=False)
        console.print()
    console.print(f"p50 and p99 at half of each one's capacity; interval: {result.interval}")
    console.print(" ".join(comparepage.headline(result).why), markup=False)


if __name__ == "__main__":
    sys.exit(main())
