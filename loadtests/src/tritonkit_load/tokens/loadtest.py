"""`make loadtest` of a language model: one load, its figures in tokens, and whether its SLO was met.

``tritonkit-load run`` comes here with a recipe that has ``engine: vllm`` or ``tensorrt_llm``, and its options.
"""

from __future__ import annotations

import argparse
import csv
import io
import json
from dataclasses import replace

from rich.console import Console

from tritonkit import atomic, progress
from tritonkit.errors import InputError
from tritonkit.recipe import LanguageRecipe
from tritonkit_load.load import arrivals
from tritonkit_load.reporting import tokenjunit, tokenpage, verbs
from tritonkit_load.tokens import measuring, slo, summary, text_report
from tritonkit_load.tokens.generator import sender
from tritonkit_load.tokens.measuring import Plan
from tritonkit_load.tokens.streams import Answer


def run(options: argparse.Namespace, recipe: LanguageRecipe, *, duration_s: float, warm_up_s: float) -> int:
    """Run, print, write the report; 0 if the SLO was met (without one: no request failed), else 1.

    Args:
        options: Of ``tritonkit-load run``.
        recipe: The model's.
        duration_s: Measured seconds; 0 for a replay's own.
        warm_up_s: Before them.

    Raises:
        TritonkitError: The options cannot be used, or the server does not start.
    """
    plan = _plan(options, recipe, duration_s, warm_up_s)
    how = plan.arrivals or f"{plan.users} users"
    with progress.steps(f"load test of {recipe.name}", 2) as steps:
        steps.next(f"use {options.host}" if options.host else f"start vLLM with {recipe.name}")
        with measuring.server(options, recipe) as server, sender(plan.processes) as generator:
            long = f"{warm_up_s + duration_s:g} s" if duration_s else "as long as it was"
            steps.next(f"{how}, {plan.workload.text}, {long}")
            result, answers = measuring.measure(generator, plan, server, recipe.name)
    result = replace(result, command=verbs.running("run"))
    Console(highlight=False, soft_wrap=True).print("\n".join(text_report.lines(result)), markup=False)
    folder = options.reports / recipe.name
    files = {
        "result.json": json.dumps(result.to_json(), indent=2) + "\n",
        "junit.xml": tokenjunit.render(result),
        "index.html": tokenpage.render(result),
    }
    atomic.put_files(folder, files)
    if options.record:
        atomic.write(options.record, _rows(recipe.name, answers, result.load.duration_s).encode())
    print(f"Report: {folder / 'index.html'}")
    return 0 if result.passed else 1


def _plan(options: argparse.Namespace, recipe: LanguageRecipe, duration_s: float, warm_up_s: float) -> Plan:
    refuse_tensor_options(options)
    if options.arrivals is not None:
        arrivals.parse(options.arrivals).duration_s(duration_s)
    elif options.users < 1:
        raise InputError(f"USERS is {options.users}", "at least one user")
    if options.processes < 1:
        raise InputError(f"{options.processes} processes cannot send anything", "at least one")
    bounds = slo.slo_of(recipe, options.slo)
    workload, tokenizer = measuring.prepare(options, recipe)
    return Plan(
        workload, tokenizer, bounds, options.arrivals, options.users, duration_s, warm_up_s, options.seed,
        options.processes,
    )  # fmt: skip


def refuse_tensor_options(options: argparse.Namespace) -> None:
    """Refuse what means nothing to a language model.

    Raises:
        InputError: Such an option was given.
    """
    if options.batch_sizes != "1" or options.lengths != "as sampled":
        raise InputError(
            "--batch-sizes and --lengths are of tensors, and a language model has none",
            "--prompt-tokens 32-256 and --answer-tokens 64, or --requests FILE.jsonl",
        )
    if getattr(options, "protocol", "grpc") == "stream":
        raise InputError(
            "PROTOCOL=stream is for decoupled models of tensors", "a language model always streams: grpc, or http"
        )


def _rows(model: str, answers: list[Answer], duration_s: float) -> str:
    """Every measured request as CSV, which ``replay:`` reads."""
    table = io.StringIO()
    writer = csv.writer(table)
    writer.writerow(("start_s", "model", "prompt_tokens", "answer_tokens", "ttft_ms", "tpot_ms", "e2e_ms", "error"))
    for answer in summary.measured(answers, duration_s):
        times = summary.times_ms(answer) if answer.arrivals and not answer.error else {}
        cells = (f"{times[name]:.2f}" if name in times else "" for name in ("ttft", "tpot", "e2e"))
        writer.writerow((f"{answer.due_s:.6f}", model, answer.prompt_tokens, answer.tokens, *cells, answer.error))
    return table.getvalue()
