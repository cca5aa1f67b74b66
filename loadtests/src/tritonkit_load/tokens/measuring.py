"""One run of a load on a language model, from a plan to its result: what `make loadtest` and `make capacity` share."""

from __future__ import annotations

import argparse
import contextlib
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from urllib.parse import urlsplit

from tritonkit.errors import InputError
from tritonkit.llm import directory
from tritonkit.recipe import LanguageRecipe, TokenSlo
from tritonkit_load.load import arrivals, environment
from tritonkit_load.load import target as targets
from tritonkit_load.tokens import engine_metrics, figures, slo, summary, workload
from tritonkit_load.tokens import tokenizer as tokenizers
from tritonkit_load.tokens.endpoints import Endpoint, OpenAIEndpoint, TritonEndpoint
from tritonkit_load.tokens.generator import Sender
from tritonkit_load.tokens.result import TokenLoad, TokenResult
from tritonkit_load.tokens.serving import install, load_recipe, served
from tritonkit_load.tokens.sessions import PATIENCE_S, Sessions, schedule
from tritonkit_load.tokens.streams import Answer
from tritonkit_load.tokens.tokenizer import Tokenizer
from tritonkit_load.tokens.workload import Workload

PROMPT, ANSWER = "128", "64"  # tokens, where nothing else is given
CONTEXT = 2048  # vLLM's own, where neither the recipe nor the directory says one
COUNTED = (
    "The server did not send the number of tokens of all its answers: they were counted with the tokenizer of the "
    "recipe's directory, and one of several tokens in a part has no time of its own."
)


@dataclass(frozen=True)
class Server:
    """A server of a language model.

    Attributes:
        endpoint: Where requests go.
        host: Its address.
        protocol: ``grpc`` or ``http``.
        metrics_url: Of the page with the engine's metrics; empty if there is none.
        facts: For the report.
    """

    endpoint: Endpoint
    host: str
    protocol: str
    metrics_url: str
    facts: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Plan:
    """All but the rate.

    Attributes:
        workload: What is sent.
        tokenizer: Counts where the server does not.
        slo: What is held against it.
        arrivals: The schedule of an open loop; None: users.
        users: Of a closed loop.
        duration_s: Measured seconds; 0 for a replay's own.
        warm_up_s: Before them.
        seed: Of the schedule and of every choice.
        processes: Of the generator.
        patience_s: After the load, until an answer is given up.
    """

    workload: Workload
    tokenizer: Tokenizer
    slo: TokenSlo | None
    arrivals: str | None
    users: int
    duration_s: float
    warm_up_s: float
    seed: int
    processes: int
    patience_s: float = PATIENCE_S


def add_options(parser: argparse.ArgumentParser) -> None:
    """Give a verb the options of language models."""
    group = parser.add_argument_group("language models")
    group.add_argument("--prompt-tokens", help=f"of a prompt: {workload.LENGTHS}; default: {PROMPT}")
    group.add_argument("--answer-tokens", help=f"of an answer, likewise; default: {ANSWER}")
    group.add_argument("--shared-prefix", type=int, help="tokens that all prompts begin with; default: 0")
    group.add_argument("--turns", type=int, help="requests of a session, each after the answer before; default: 1")
    group.add_argument("--requests", type=Path, help=f"recorded requests instead, JSON lines with {workload.KEYS}")


def given_options(options: argparse.Namespace) -> list[str]:
    """Those of :func:`add_options` that were given."""
    names = ("prompt_tokens", "answer_tokens", "shared_prefix", "turns", "requests")
    return [f"--{name.replace('_', '-')}" for name in names if getattr(options, name) is not None]


def refuse_token_options(options: argparse.Namespace) -> None:
    """Refuse what means nothing to a model of tensors.

    Raises:
        InputError: One of :func:`add_options` was given.
    """
    if given := given_options(options):
        raise InputError(
            f"{', '.join(given)}: of language models, and {options.model} is none",
            "--batch-sizes and --lengths say what tensors are sent",
        )


def prepare(options: argparse.Namespace, recipe: LanguageRecipe) -> tuple[Workload, Tokenizer]:
    """The workload of the options; everything that is wrong with it is refused before anything is started.

    Raises:
        InputError: The lengths or the recorded file cannot be used, or do not fit into the context.
        SourceError: The recipe's directory is missing or broken.
    """
    model = directory.read(recipe.directory / recipe.source.hf)
    context = recipe.max_model_len or model.longest[0] or CONTEXT
    tokenizer = Tokenizer(model.path)
    if options.requests is not None:
        others = [name for name in given_options(options) if name != "--requests"]
        if others:
            raise InputError(
                f"{', '.join(others)} beside --requests", "the recorded file says what is sent: one of both"
            )
        return workload.recorded(options.requests, tokenizer, context), tokenizer
    return workload.drawn(
        options.prompt_tokens or PROMPT, options.answer_tokens or ANSWER, tokenizer, context,
        turns=1 if options.turns is None else options.turns, prefix=options.shared_prefix or 0, seed=options.seed,
    ), tokenizer  # fmt: skip


@contextlib.contextmanager
def server(options: argparse.Namespace, recipe: LanguageRecipe) -> Iterator[Server]:
    """The server that was named, or one that runs as long as the block.

    Raises:
        InputError: The address is none, or the recipe is for an engine that does not run here.
        TritonkitError: The server cannot be installed or does not start.
    """
    if options.host:
        yield named(options.host, options.metrics_url, recipe.name)
        return
    load_recipe(recipe.path)  # for vLLM, or refused
    target = targets.supported(options.target)
    install(target)
    with (
        tempfile.TemporaryDirectory(prefix="tritonkit-models-") as place,
        served(recipe, options.repository or Path(place, "model_repository"), target) as model,
    ):
        through = options.protocol == "grpc"
        url = model.server.grpc_url if through else model.openai_url
        endpoint = TritonEndpoint(url, model.model) if through else OpenAIEndpoint(url, model.model)
        facts = {"target": target, "vllm": model.vllm, "dtype": model.facts.dtype}
        yield Server(endpoint, url, options.protocol, model.server.metrics_url, facts)


def named(host: str, metrics_url: str, model: str) -> Server:
    """A running server: ``grpc://HOST:PORT`` is Triton, ``http://HOST:PORT/v1`` an OpenAI API.

    Raises:
        InputError: It is neither.
    """
    try:
        parts = urlsplit(host)
        address = parts.hostname and parts.port
    except ValueError:
        address = None
    if not address or parts.scheme not in ("grpc", "http"):
        raise InputError(
            f"{host!r} is no server of a language model",
            "grpc://HOST:PORT of Triton, or http://HOST:PORT/v1 of an OpenAI API",
        )
    if parts.scheme == "grpc":
        return Server(TritonEndpoint(host, model), host, "grpc", metrics_url)
    base = host.rstrip("/") if parts.path.strip("/") else f"{host.rstrip('/')}/v1"
    return Server(OpenAIEndpoint(base, model), base, "http", metrics_url or f"http://{parts.netloc}/metrics")


def measure(generator: Sender, plan: Plan, on: Server, model: str) -> tuple[TokenResult, list[Answer]]:
    """Send the load of a plan and make the figures of it; the command is left empty.

    Raises:
        InputError: The schedule cannot be used.
    """
    duration_s = plan.duration_s
    due_s: tuple[float, ...] = ()
    if plan.arrivals is not None:
        parsed = arrivals.parse(plan.arrivals)
        duration_s = parsed.duration_s(plan.duration_s)
        due_s = schedule(parsed.times(plan.duration_s, plan.warm_up_s, plan.seed), duration_s)
    users = 0 if plan.arrivals is not None else plan.users
    load = Sessions(
        on.endpoint, plan.workload, duration_s, plan.warm_up_s, str(plan.seed), due_s, users, plan.patience_s
    )
    with engine_metrics.Watch(on.metrics_url, model) as watch:
        sent = generator.run(load)
    answers = tokenizers.counted(sent.answers, plan.tokenizer)
    loop = "closed" if users else "open"
    numbers = summary.summarize(answers, duration_s, plan.slo)
    health = summary.health(answers, duration_s, sent.busiest, numbers, loop=loop)
    engine = watch.samples(sent.begun + plan.warm_up_s)
    notes = [COUNTED] if any(answer.pieces for answer in sent.answers) else []
    gaps = [
        gap for answer in summary.measured(answers, duration_s) if not answer.error for gap in summary.gaps_ms(answer)
    ]
    return TokenResult(
        created=datetime.now(UTC).isoformat(timespec="seconds"),
        command="",
        model=model,
        environment=_machine() | on.facts,
        load=TokenLoad(
            on.protocol, on.host, "closed" if users else "open", plan.arrivals, users or None, plan.processes,
            plan.warm_up_s, duration_s, plan.workload.text, plan.seed,
        ),
        slo=slo.format_slo(plan.slo) if plan.slo else "",
        figures=numbers,
        verdict=summary.judge(model, plan.slo, numbers, health),
        generator=health,
        series=summary.series(answers, plan.warm_up_s, duration_s),
        first_tokens=summary.first_tokens(answers, duration_s),
        gaps=tuple(figures.quantiles(gaps)),
        engine=engine,
        notes=(*notes, *engine_metrics.notes(engine)),
        formulas=summary.FORMULAS,
    ), answers  # fmt: skip


def _machine() -> dict[str, str]:
    """This machine, without the versions of what takes no part."""
    return {name: value for name, value in environment.machine().items() if name not in ("onnxruntime", "locust")}
