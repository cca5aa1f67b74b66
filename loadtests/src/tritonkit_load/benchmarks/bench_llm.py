"""`make bench-llm`: what Triton costs a language model: its gRPC streams beside the same vLLM's own OpenAI streams.

One vLLM serves both, so that they differ in the way to it alone: the client, Triton, its Python stub and vLLM's server,
or the HTTP connection to that server. Both get the same requests, but for the first letter: no two prompts share a
beginning, so that none is in a cache. Answers are compared before anything is timed. Rounds alternate, and which comes
first does, too; what counts is the median of the rounds' ratios, with the lowest and the highest.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path

from rich.console import Console
from rich.table import Table

from tritonkit import atomic, progress
from tritonkit.cli.arguments import Parser
from tritonkit.cli.output import run_command
from tritonkit.errors import CheckFailed, InputError
from tritonkit_load.load import environment, models
from tritonkit_load.load import target as targets
from tritonkit_load.reporting.page import NOTHING
from tritonkit_load.tokens import figures, streams
from tritonkit_load.tokens.endpoints import Endpoint, OpenAIEndpoint, TritonEndpoint
from tritonkit_load.tokens.figures import Figures
from tritonkit_load.tokens.generator import Generator, Load
from tritonkit_load.tokens.serving import Served, install, load_recipe, served, write_recipe

TRITON, OWN = "Triton", "vLLM's own"
COMPARED = 6  # prompts whose answers are compared
BUSIEST = 0.7  # of a core: with more, Python's lock keeps the generator's threads waiting for each other


@dataclass(frozen=True)
class Round:
    """Both ways in one round, with the CPU time of the generator's busiest process in cores."""

    triton: Figures
    own: Figures
    generator: float

    @property
    def rate(self) -> float:
        """Output tokens a second, Triton's over vLLM's own."""
        return self.triton.output_tokens_per_s / self.own.output_tokens_per_s

    @property
    def wait_ms(self) -> float:
        """How much later the median first token comes through Triton."""
        return self.triton.ttft_ms.p50 - self.own.ttft_ms.p50


def main() -> int:
    """Measure and print one table; 1 if the answers differ or a request fails."""
    return run_command(_main)


def _main() -> int:
    options = _parser().parse_args()
    counts = [_count(text) for text in options.streams.split(",")]
    if options.quick:
        options.rounds, options.seconds, counts = 1, min(options.seconds, 5.0), counts[:1]
    _check(options)
    target = targets.supported(options.target)
    load = os.getloadavg()[0]
    with ExitStack() as stack:
        work = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="tritonkit-bench-")))
        path = models.recipe_path(options.model) if options.model else None
        recipe = load_recipe(path) if path else None
        install(target)
        recipe = recipe or load_recipe(write_recipe(work, target))
        model = stack.enter_context(served(recipe, work / "model_repository", target))
        ways: dict[str, Endpoint] = {
            TRITON: TritonEndpoint(model.server.grpc_url, model.model),
            OWN: OpenAIEndpoint(model.openai_url, model.model),
        }
        _compare(ways, options)
        rounds = _measure(stack.enter_context(Generator(options.processes)), ways, counts, options)
    _write(options, model, rounds, load)
    _print(options, model, rounds, load)
    return 0


def _parser() -> Parser:
    parser = Parser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter,
        examples=["python -m tritonkit_load.benchmarks.bench_llm --quick",
                  "python -m tritonkit_load.benchmarks.bench_llm --streams 8,32 --rounds 5"],
    )  # fmt: skip
    parser.add_argument("--model", help="the file of a recipe with  engine: vllm; default: SmolLM2-135M-Instruct")
    parser.add_argument("--target", choices=["cpu", "cuda"], help="default: what this machine has")
    parser.add_argument("--streams", default="8,32", help="numbers of requests in flight; default: %(default)s")
    parser.add_argument("--rounds", type=int, default=5, help="default: %(default)s")
    parser.add_argument("--seconds", type=float, default=20.0, help="of each way in a round; default: %(default)s")
    parser.add_argument("--warm-up", type=float, default=5.0, help="seconds before these; default: %(default)s")
    parser.add_argument("--words", type=int, default=64, help="of a prompt; default: %(default)s")
    parser.add_argument("--tokens", type=int, default=64, help="of the longest answer; default: %(default)s")
    parser.add_argument("--processes", type=int, default=1, help="that send the load; default: %(default)s")
    parser.add_argument("--quick", action="store_true", help="one round of 5 s at the first number of streams")
    parser.add_argument("--reports", type=Path, default=Path("reports/bench-llm"), help="default: %(default)s")
    return parser


def _count(text: str) -> int:
    if not text.strip().isdecimal() or not 1 <= int(text) <= 1024:
        raise InputError(
            f"--streams has {text.strip()!r}, which is no number of streams", "numbers from 1 to 1,024: 8,32"
        )
    return int(text)


def _check(options: argparse.Namespace) -> None:
    """Refuse numbers that measure nothing, before anything is installed or started."""
    bounds = {
        "processes": (1, 64),
        "rounds": (1, 100),
        "seconds": (1, 600),
        "warm_up": (0, 600),
        "words": (1, 10_000),
        "tokens": (2, 10_000),
    }
    for name, (least, most) in bounds.items():
        if not least <= getattr(options, name) <= most:
            option = f"--{name.replace('_', '-')} {getattr(options, name):g}"
            raise InputError(f"{option} measures nothing", f"give {least:,} to {most:,}")


def _compare(ways: dict[str, Endpoint], options: argparse.Namespace) -> None:
    """Refuse to time answers that differ.

    Raises:
        CheckFailed: The answers differ, or a request fails.
    """
    work = streams.requests(-1, options.words, options.tokens)
    count = 1 if options.quick else COMPARED
    with progress.steps("compare answers", count) as steps:
        for number, request in zip(range(count), work, strict=False):
            steps.next(f"{number + 1} of {count}")
            now = time.monotonic()
            # The first time, none of the prompt is in vLLM's cache: left out, so that both are computed alike.
            _, *answers = [streams.ask(ways[name], request, now, now) for name in (OWN, TRITON, OWN)]
            if problems := streams.failures(answers):
                raise CheckFailed(
                    f"a request failed: {problems[0]}", "a shorter --words or --tokens, if it is too long"
                )
            through, own = (answer.text for answer in answers)
            if through != own:
                raise CheckFailed(
                    f"the likeliest answer to {request.prompt!r} is {through!r} through Triton and {own!r} from vLLM's "
                    "own server", "times of different answers are not compared; please report this",
                )  # fmt: skip


def _measure(
    generator: Generator, ways: dict[str, Endpoint], counts: Sequence[int], options: argparse.Namespace
) -> dict[int, list[Round]]:
    rounds: dict[int, list[Round]] = {count: [] for count in counts}
    with progress.steps("bench", len(counts) * options.rounds * len(ways)) as steps:
        for number in range(options.rounds):
            order = list(ways) if number % 2 else list(reversed(ways))
            for count in counts:
                measured, busiest = {}, 0.0
                for name in order:
                    steps.next(
                        f"round {number + 1}, {count} in flight, {name}, {options.seconds + options.warm_up:.0f} s"
                    )
                    sent = generator.run(_load(ways[name], name[0], count, number, options))
                    if problems := streams.failures(sent.answers):
                        raise CheckFailed(
                            f"an answer failed at {count} in flight, {name}: {problems[0]}",
                            "fewer --streams, or shorter --words and --tokens, if the engine has too little room",
                        )
                    measured[name] = figures.figures(sent.answers, count, options.seconds)
                    busiest = max(busiest, sent.busiest)
                rounds[count].append(Round(measured[TRITON], measured[OWN], busiest))
    return rounds


def _load(endpoint: Endpoint, mark: str, count: int, number: int, options: argparse.Namespace) -> Load:
    """The load of one way; the ways differ in the prompts' first letter alone."""
    return Load(
        endpoint, count, options.seconds, options.warm_up, f"{number} {count}", options.words, options.tokens, mark
    )


def _write(options: argparse.Namespace, model: Served, rounds: dict[int, list[Round]], load: float) -> None:
    """Every figure of every round."""
    result = {
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
        "command": " ".join(sys.argv),
        "model": {"name": model.model} | model.facts.model_dump(exclude_unset=True), "vllm": model.vllm,
        "environment": environment.machine(), "load_average": load, "formulas": figures.FORMULAS,
        "words": options.words, "tokens": options.tokens, "warm_up_s": options.warm_up,
        "rounds": {str(count): [asdict(repeat) for repeat in repeats] for count, repeats in rounds.items()},
    }  # fmt: skip
    atomic.write(options.reports / "result.json", (json.dumps(result, indent=2) + "\n").encode())


def _print(options: argparse.Namespace, model: Served, rounds: dict[int, list[Round]], load: float) -> None:
    table = Table(
        "in flight", "", "tokens/s", "TTFT p50 ms", "TTFT p95 ms", "ITL p50 ms", "ITL p99 ms", box=None, pad_edge=False
    )
    for column in table.columns[2:]:
        column.justify = "right"
    for count, repeats in rounds.items():
        for name, way in ((TRITON, [repeat.triton for repeat in repeats]), (OWN, [repeat.own for repeat in repeats])):
            table.add_row(
                str(count), name, _spread([run.output_tokens_per_s for run in way]),
                *(_spread([getattr(getattr(run, times), part) for run in way])
                  for times, part in (("ttft_ms", "p50"), ("ttft_ms", "p95"), ("itl_ms", "p50"), ("itl_ms", "p99"))),
            )  # fmt: skip
    console = Console(highlight=False, soft_wrap=True, width=140)
    console.print(table)
    for count, repeats in rounds.items():
        console.print(
            f"{count} in flight: Triton's tokens/s over vLLM's own "
            f"{_spread([repeat.rate for repeat in repeats], '.3f')}; "
            f"median first token {_spread([repeat.wait_ms for repeat in repeats], '+.1f')} ms later; generator's "
            f"busiest process {_spread([repeat.generator for repeat in repeats], '.2f')} of a core"
        )
    if any(math.isnan(repeat.wait_ms) for repeats in rounds.values() for repeat in repeats):
        console.print("in some rounds no request was due in the measured seconds, so there is no TTFT: more --seconds")
    if any(repeat.generator > BUSIEST for repeats in rounds.values() for repeat in repeats):
        console.print(
            "the generator was busy, and both ways look slower than they are: more --processes, if cores are free"
        )
    console.print(
        f"{model.model} in {model.facts.dtype}, vLLM {model.vllm}: medians of {options.rounds} alternating rounds "
        f"of {options.seconds:g} s (lowest to highest); load average {load:.1f} at the start"
    )
    for name, words in figures.FORMULAS.items():
        console.print(f"{name}: {words}", markup=False)


def _spread(values: Sequence[float], form: str = ".1f") -> str:
    values = [value for value in values if math.isfinite(value)]
    if not values:
        return NOTHING
    middle = format(statistics.median(values), form)
    return middle if len(values) == 1 else f"{middle} ({min(values):{form}} to {max(values):{form}})"


if __name__ == "__main__":
    sys.exit(main())
