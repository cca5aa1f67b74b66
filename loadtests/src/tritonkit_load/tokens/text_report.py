"""A result in a few lines of text, for a terminal."""

from __future__ import annotations

from tritonkit_load.load.result import Check
from tritonkit_load.reporting.page import counted, percent, short
from tritonkit_load.reporting.verdict_text import value_and_bound
from tritonkit_load.tokens.figures import Times
from tritonkit_load.tokens.result import EngineSample, TokenFigures, TokenResult


def lines(result: TokenResult) -> list[str]:
    """What was sent, every figure, the engine's side, the SLO, and the formulas, in this order."""
    load, of = result.load, result.figures
    how = load.arrivals if load.loop == "open" else counted(load.users or 0, "user")
    return [
        f"{result.model} over {load.protocol}, {how}, {load.duration_s:g} s after {load.warm_up_s:g} s of warm-up; "
        f"{load.work}",
        f"  {counted(of.requests, 'request')}, {of.failed:,} failed; {short(of.offered)} due and "
        f"{short(of.throughput)} answered per second; {short(of.output_tokens_per_s)} output tokens/s",
        *figure_lines(of),
        *(f"  {count:,} x {kind}: {of.messages.get(kind, '')}" for kind, count in of.errors.items()),
        *engine_lines(result.engine),
        f"  generator: {_late(result)}{result.generator.busiest:.0%} of a core in its busiest process",
        *(f"  {note}" for note in result.notes),
        *(f"INVALID: {why}" for why in result.generator.why),
        *verdict_lines(result),
        *(f"{name}: {words}" for name, words in result.formulas.items()),
    ]


def figure_lines(of: TokenFigures) -> list[str]:
    """The times, one a line, and goodput."""
    rows = (("TTFT", of.ttft_ms), ("ITL", of.itl_ms), ("TPOT", of.tpot_ms), ("E2E", of.e2e_ms))
    output = [f"  {name:<5}{_times(times)}" for name, times in rows]
    if of.goodput is not None:
        output.append(f"  goodput {percent(of.goodput)} of the requests")
    return output


def engine_lines(samples: tuple[EngineSample, ...]) -> list[str]:
    """The most of each of the engine's figures."""
    if not samples:
        return []
    running, waiting, usage, preemptions = (
        max((value for sample in samples if (value := getattr(sample, name)) is not None), default=None)
        for name in ("running", "waiting", "kv_usage", "preemptions")
    )
    return [
        f"  engine, at most: {short(running)} running, {short(waiting)} waiting, KV cache {percent(usage)} used; "
        f"{short(preemptions)} preemptions"
    ]


def verdict_lines(result: TokenResult) -> list[str]:
    """Whether the SLO was met, bound by bound; nothing without one."""
    checks = result.verdict.checks
    if not checks:
        return []
    word = "met" if result.verdict.met else "NOT MET"
    if not result.verdict.valid:
        word += ", in a run that proves nothing"
    output = [f"SLO {word}: " + "; ".join(_check(check) for check in checks)]
    return [*output, result.verdict.note] if result.verdict.note else output


def missed(result: TokenResult) -> list[str]:
    """The bounds that do not hold, each in words."""
    return [_check(check) for check in result.verdict.checks if not check.met]


def _check(check: Check) -> str:
    value, bound = value_and_bound(check)
    return f"{check.name.removesuffix('_ms').replace('_', ' ')} {value}, {bound}"


def _late(result: TokenResult) -> str:
    late = result.generator.lateness_p99_ms
    return "" if late is None else f"p99 of lateness {late:.2f} ms, "


def _times(times: Times) -> str:
    return "   ".join(f"{name} {short(getattr(times, name))} ms" for name in ("p50", "p95", "p99", "max"))
