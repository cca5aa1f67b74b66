"""`make capacity` of a language model: the highest rate of sessions at which it keeps its SLO in tokens.

``tritonkit-load capacity`` comes here with a recipe of a language model; the search is :mod:`.tuning.limit`'s.
"""

from __future__ import annotations

import argparse
import json
import math
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path

from rich.console import Console

from tritonkit import atomic, progress
from tritonkit.errors import CheckFailed, InputError
from tritonkit.recipe import LanguageRecipe
from tritonkit_load.reporting import tokenpage, verbs
from tritonkit_load.reporting.page import short
from tritonkit_load.tokens import measuring, slo, summary, text_report
from tritonkit_load.tokens.generator import Sender, sender
from tritonkit_load.tokens.loadtest import refuse_tensor_options
from tritonkit_load.tokens.measuring import Plan, Server
from tritonkit_load.tokens.result import RatePoint, TokenResult
from tritonkit_load.tokens.streams import Answer
from tritonkit_load.tuning import limit
from tritonkit_load.tuning.limit import OVERLOADED, Capacity, Probe
from tritonkit_load.tuning.probing import LEAST_ARRIVALS, LEAST_LONG

LEAST = 0.1  # sessions a second: answers of some seconds are usual on a CPU
RESOLUTION = 1.1  # the some dozen requests of a run do not tell finer rates apart
INTERRUPTED = 130  # as shells say it


@dataclass
class Asker:
    """From a rate to a :class:`.tuning.limit.Probe`; every run draws a schedule and prompts of its own.

    Attributes:
        generator: Sends.
        plan: All but the rate; has an SLO with a time.
        server: Where to.
        model: Its name.
        say: Called with a line before each run.
        results: Every run, in order.
    """

    generator: Sender
    plan: Plan
    server: Server
    model: str
    say: Callable[[str], None] = lambda _: None
    results: list[TokenResult] = field(default_factory=list)

    def __call__(self, rate: float) -> Probe:
        """Run one rate."""
        assert self.plan.slo is not None
        long_s = max(self.plan.duration_s, LEAST_ARRIVALS / rate, LEAST_LONG * slo.longest_s(self.plan.slo))
        self.say(f"{rate:.3g} sessions/s for {long_s:.0f} s")
        plan = replace(
            self.plan, arrivals=f"poisson:{rate:.6g}", duration_s=long_s, seed=self.plan.seed + len(self.results)
        )
        result, answers = measuring.measure(self.generator, plan, self.server, self.model)
        self.results.append(result)
        return probe(rate, result, answers)


def probe(rate: float, result: TokenResult, answers: list[Answer]) -> Probe:
    """What a run says of its rate.

    A server that falls behind has not met an SLO, even if the run was over before anybody had waited for too long.
    """
    of, duration_s = result.figures, result.load.duration_s
    offered = of.offered
    # Not the answers that came in the measured seconds: of few long ones, many are under way at the end.
    served = offered * (1 - min(summary.falls_behind(answers, duration_s), 1.0)) * (1 - of.failed / max(of.requests, 1))
    missed = text_report.missed(result)
    kept = not result.generator.why
    probed = Probe(
        rate, met=bool(result.verdict.met) and kept, served=served, p50_ms=_finite(of.e2e_ms.p50),
        p99_ms=_finite(of.e2e_ms.p99), error_rate=of.failed / max(of.requests, 1), offered=offered, kept=kept,
    )  # fmt: skip
    if not kept:
        return replace(probed, served=rate, why=f"the generator could not keep it: {'; '.join(result.generator.why)}")
    if probed.overloaded and of.requests * (1 - OVERLOADED) >= 1:
        missed.append("the server fell behind: requests piled up until the end")
        probed = replace(probed, met=False)
    return replace(probed, why=", ".join(missed))


def run(options: argparse.Namespace, recipe: LanguageRecipe, *, duration_s: float, warm_up_s: float) -> int:
    """Search, print, write the report; 0 if a rate was proved, 130 if the search was interrupted.

    Args:
        options: Of ``tritonkit-load capacity``.
        recipe: The model's.
        duration_s: Measured seconds of each run, at least.
        warm_up_s: Before them.

    Raises:
        CheckFailed: Not even :data:`LEAST` sessions a second keep the SLO; the last run is in the report.
        TritonkitError: The options cannot be used, or the server does not start.
    """
    refuse_tensor_options(options)
    bounds = slo.slo_of(recipe, options.slo)
    if bounds is None or not slo.has_times(bounds):
        raise InputError(
            f"{recipe.path} has no SLO to search by",
            f"add  slo: {{ttft: {{p95_ms: 500}}}}, or give --slo {slo.EXAMPLE}",
        )
    workload, tokenizer = measuring.prepare(options, recipe)
    plan = Plan(workload, tokenizer, bounds, None, 0, duration_s, warm_up_s, options.seed, options.processes)
    folder = options.reports / recipe.name
    with progress.task(f"capacity of {recipe.name} at {slo.format_slo(bounds)}") as say:
        say(f"use {options.host}" if options.host else f"start vLLM with {recipe.name}")
        with measuring.server(options, recipe) as server, sender(plan.processes) as generator:
            ask = Asker(generator, plan, server, recipe.name, say)
            try:
                estimate = limit.capacity(ask, resolution=RESOLUTION, least=LEAST)
            except CheckFailed as error:
                if ask.results:
                    _write(folder, replace(ask.results[-1], command=verbs.running("capacity")))
                    error = CheckFailed(error.message, f"{error.fix}; the last run is in {folder / 'index.html'}")
                raise error from None
    result = with_curve(estimate, ask.results)
    if options.json:
        print(json.dumps(result.to_json(), indent=2))
    else:
        Console(highlight=False, soft_wrap=True).print("\n".join(lines(estimate, result)), markup=False)
    _write(folder, result)
    if not options.json:
        print(f"Report: {folder / 'index.html'}")
    return INTERRUPTED if estimate.interrupted else 0


def with_curve(estimate: Capacity, results: list[TokenResult]) -> TokenResult:
    """The last run at the rate, with all runs as its curve."""
    runs = list(zip(results, estimate.points, strict=False))  # an interruption may come between the two
    at_rate = [result for result, probed in runs if probed is estimate.at_rate][-1]
    curve = [
        RatePoint(
            probed.rate, result.figures.output_tokens_per_s, result.figures.ttft_ms.p50, result.figures.ttft_ms.p95,
            result.figures.itl_ms.p95, probed.error_rate, probed.kept, probed.met,
        )
        for result, probed in sorted(runs, key=lambda pair: pair[1].rate)
    ]  # fmt: skip
    return replace(at_rate, curve=tuple(curve), capacity=estimate.limit, command=verbs.running("capacity"))


def lines(estimate: Capacity, result: TokenResult) -> list[str]:
    """The search in a few lines of text, for a terminal."""
    fates = {True: "met", False: "missed"}
    rows = [
        f"  {point.rate:8.2f}/s  {fates[point.met] if point.valid else 'unsent':6}  {short(point.output_tokens_per_s)} "
        f"tokens/s  TTFT p95 {short(point.ttft_p95_ms)} ms  ITL p95 {short(point.itl_p95_ms)} ms"
        for point in result.curve
    ]
    upwards = f"to {estimate.high:.2f}" if math.isfinite(estimate.high) else "upwards"
    return [
        *rows,
        f"{result.model}: {'at least ' * estimate.at_least}{estimate.rate:.2f} sessions/s at {result.slo} "
        f"(95 % interval {estimate.low:.2f} {upwards}); {result.load.work}",
        "at that rate:", *text_report.figure_lines(result.figures), *text_report.engine_lines(result.engine),
        *(f"  {note}" for note in result.notes),
        *(f"{name}: {words}" for name, words in result.formulas.items()),
    ]  # fmt: skip


def _write(folder: Path, result: TokenResult) -> None:
    """The page and the figures, both or neither."""
    files = {"result.json": json.dumps(result.to_json(), indent=2) + "\n", "index.html": tokenpage.render(result)}
    atomic.put_files(folder, files)


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None
