"""A result in a few lines of text, for a terminal."""

from __future__ import annotations

from tritonkit_load.load import slo
from tritonkit_load.load.result import Check, ModelResult, Percentiles, Result


def lines(result: Result) -> list[str]:
    """The lines about each model, the generator, the curve and the SLO, in this order."""
    load = result.load
    how = load.arrivals if load.loop == "open" else _count(load.users or 0, "user")
    output = [] if not result.partial else ["PARTIAL: the test was ended before its time"]
    for name, model in result.models.items():
        output += [
            f"{name} over {load.protocol}, {how}, {load.duration_s:g} s after {load.warm_up_s:g} s of warm-up, "
            "which are in no figure",
            *_model(model, scheduled=load.loop == "open"),
        ]
    output.append(_generator(result))
    output += [
        f"  {point.rate:g}/s: {point.throughput:.1f} requests/s   p50 {_ms(point.p50_ms)}   p99 {_ms(point.p99_ms)}"
        for point in result.curve
    ]
    return output + _verdict(result)


def _model(model: ModelResult, *, scheduled: bool) -> list[str]:
    batch = f"   average batch {model.server.average_batch:.1f}" if model.server else ""
    output = [
        f"  {model.throughput:.1f} requests/s   {_latency(model.latency)}   {model.requests} requests, "
        f"{model.failed} failed{batch}"
    ]
    if scheduled:
        output.append(f"  from the actual send to the answer: {_latency(model.service)}")
    if model.first_response is not None:
        output.append(f"  to the first response: {_latency(model.first_response)}")
    output.append(f"  {model.explained}")
    output += [f"  {count} x {kind}: {model.messages.get(kind, '')}" for kind, count in model.errors.items()]
    return output


def _generator(result: Result) -> str:
    generator = result.generator
    late = "" if generator.lateness_p99_ms is None else f"p99 of lateness {generator.lateness_p99_ms:.2f} ms, "
    processes = result.load.processes
    cores = "of a core" if processes == 1 else f"of a core in the busiest of {processes} processes"
    return f"  generator: {late}{generator.cpu:.0%} {cores}, {generator.cpu_ms_per_request:.2f} ms of CPU a request"


def _verdict(result: Result) -> list[str]:
    output = [f"INVALID: {why}" for why in result.generator.why]
    checks = result.verdict.checks
    if checks:
        word = "met" if result.verdict.met else "NOT MET"
        if not result.verdict.valid:
            word += ", in a run that proves nothing"
        elif result.verdict.met and slo.few(result.models):
            word += ", by too few requests to be sure"
        output.append(f"SLO {word}: " + ", ".join(_check(check, named=len(result.models) > 1) for check in checks))
    if result.verdict.note:
        output.append(result.verdict.note)
    return output


def _check(check: Check, *, named: bool) -> str:
    sign = ("<=" if check.name != "goodput" else ">=") if check.met else (">" if check.name != "goodput" else "<")
    value = "nothing" if check.found is None else _distinguish(check.found, check.wanted)
    return f"{check.model + ' ' if named else ''}{check.name} {value} {sign} {check.wanted:g}"


def _distinguish(value: float, bound: float) -> str:
    """The value to three digits, and to more where it would else read like the bound."""
    digits = range(3 if value < 1000 else 4, 12)
    texts = (f"{value:.{count}g}" for count in digits)
    return next((text for text in texts if value == bound or float(text) != bound), f"{value:.12g}")


def _latency(latency: Percentiles | None) -> str:
    return "p50 - ms   p99 - ms" if latency is None else f"p50 {latency.p50:.1f} ms   p99 {latency.p99:.1f} ms"


def _ms(value: float | None) -> str:
    return "-" if value is None else f"{value:.1f} ms"


def _count(number: int, of: str) -> str:
    return f"{number} {of}" + ("" if number == 1 else "s")
