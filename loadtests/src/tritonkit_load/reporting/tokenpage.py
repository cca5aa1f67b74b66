"""A load test of a language model as one self-contained HTML page: no script, no font and no style from elsewhere."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

from markupsafe import Markup

from tritonkit_load.load.result import Limit
from tritonkit_load.reporting import chart, page
from tritonkit_load.reporting.axis import Axis, Clock, Linear, Percentile, Whole, fitting
from tritonkit_load.reporting.page import Headline, counted, percent, short
from tritonkit_load.reporting.verdict_text import describe_check, sentence, times_met
from tritonkit_load.tokens.result import EngineSample, RatePoint, TokenResult

TIME = "seconds since the warm-up"
POINTS = 240  # of a line over time; more would blur it


def render(result: TokenResult) -> str:
    """The page."""
    charts = {
        "first_tokens": Markup(_first_tokens(result)),
        "gaps": Markup(_gaps(result)) if result.gaps else "",
        "tokens": Markup(_tokens(result)),
        "requests": Markup(_requests(result)),
    }
    charts |= {name: Markup(drawn) for name, drawn in _engine(result).items()}
    curve = Markup(_curve(result.curve)) if len(result.curve) > 1 else ""
    return page.render(
        "tokens.html.j2", result=result, charts=charts, curve=curve, headline=headline(result), facts=_facts(result),
        missed={check.name for check in result.verdict.checks if not check.met},
    )  # fmt: skip


def headline(result: TokenResult) -> Headline:
    """The outcome, in one line and its reasons."""
    verdict, of = result.verdict, result.figures
    if result.capacity is not None:
        return _capacity(result, result.capacity)
    if not verdict.valid:
        return Headline("unsure", "Not a valid run", tuple(map(sentence, result.generator.why)))
    checks = verdict.checks
    if verdict.met is None:
        why = ("No SLO was given, so times are not judged.",)
        if of.failed:
            return Headline(
                "bad", f"{of.failed:,} of {counted(of.requests, 'request')} failed", (*_failures(result), *why)
            )
        return Headline("good", f"{counted(of.requests, 'request')}, none failed", why)
    words = [_sentence(describe_check(check, alone=True)) for check in checks if not check.met or verdict.met]
    if not verdict.met:
        return Headline("bad", "The SLO is not met", (*words, *_failures(result)))
    if verdict.note:
        return Headline("unsure", "The SLO is met, by too few requests to be sure", (*words, verdict.note))
    return Headline("good", "The SLO is met", tuple(words))


def _sentence(words: str) -> str:
    name, _, rest = words.partition(" ")
    time, _, share = name.removesuffix("_ms").partition("_")
    return sentence(f"{time.upper()} {share} {rest}" if share else words.replace("the SLO's latency", "every bound"))


def _failures(result: TokenResult) -> tuple[str, ...]:
    of = result.figures
    return tuple(sentence(f"{count:,} x {kind}: {of.messages.get(kind, '')}") for kind, count in of.errors.items())


def _capacity(result: TokenResult, limit: Limit) -> Headline:
    rate = f"{short(limit.rate)} sessions a second"
    why = [f"The SLO was met in {times_met(limit.confirmed)} of {result.load.duration_s:,.3g} s at that rate."]
    if limit.high:
        why.append(
            f"With a probability of 95 %, the limit lies between {short(limit.low)} and {short(limit.high)} a second."
        )
    if limit.at_least:
        return Headline("unsure", f"At least {rate} within the SLO", tuple(why))
    return Headline("good", f"{rate} within the SLO", tuple(why))


def _facts(result: TokenResult) -> dict[str, str]:
    load = result.load
    how = f"open: {load.arrivals}" if load.loop == "open" else f"closed: {counted(load.users or 0, 'user')}"
    late = result.generator.lateness_p99_ms
    return {
        "loop": how, "sent": load.work, "over": load.protocol, "server": load.host,
        "measured": f"{load.duration_s:g} s after {load.warm_up_s:g} s", "seed": str(load.seed),
        "generator": f"{result.generator.busiest:.0%} of a core"
        + ("" if late is None else f", p99 of lateness {late:.1f} ms"),
    } | dict(result.environment)  # fmt: skip


def _first_tokens(result: TokenResult) -> str:
    values = [value for _, value in result.first_tokens]
    return chart.draw(
        "time to the first token", f"{counted(len(values), 'answer')}; the longest wait was {short(_most(values))} ms",
        Axis(TIME, Clock), fitting("time to the first token, ms", values),
        [chart.Dots("dot", result.first_tokens)], level=_level(result, "ttft"),
    )  # fmt: skip


def _level(result: TokenResult, time: str) -> chart.Level | None:
    bounds = [check for check in result.verdict.checks if check.name.startswith(f"{time}_")]
    if not bounds:
        return None
    largest = max(bounds, key=lambda check: check.wanted)
    return chart.Level("limit", largest.wanted, f"SLO {largest.name.split('_')[1]}")


def _gaps(result: TokenResult) -> str:
    values = [value for _, value in result.gaps]
    return chart.draw(
        "inter-token latency by percentile", f"at most {short(_most(values))} ms",
        Axis("percent of the gaps", Percentile), fitting("inter-token latency, ms", values),
        [chart.Line("measured", result.gaps, marked=False)], level=_level(result, "itl"),
    )  # fmt: skip


def _tokens(result: TokenResult) -> str:
    points = _thinned([(second.t_s + 0.5, float(second.output_tokens)) for second in result.series])
    return chart.draw(
        "output tokens a second", f"at most {short(_most([value for _, value in points]))} in a second",
        Axis(TIME, Clock), Axis("output tokens per second", Linear), [chart.Line("measured", points, marked=False)],
        _bands(result),
    )  # fmt: skip


def _requests(result: TokenResult) -> str:
    flight = _thinned([(second.t_s + 1.0, float(second.in_flight)) for second in result.series])
    failed = [(second.t_s + 0.5, float(second.failed)) for second in result.series]
    marks: list[chart.Mark] = [chart.Line("measured", flight, marked=False)]
    if any(count for _, count in failed):
        marks.insert(0, chart.Bars("failed", failed))
    words = f"at most {short(_most([value for _, value in flight]))} in flight; {result.figures.failed:,} failed"
    return chart.draw("requests in flight", words, Axis(TIME, Clock), Axis("requests", Whole), marks, _bands(result))


def _engine(result: TokenResult) -> dict[str, str]:
    """The engine's side: requests in its batch and before it, its KV cache, and its preemptions."""
    samples = [sample for sample in result.engine if sample.t_s >= -result.load.warm_up_s]
    if not samples:
        return {}
    running, waiting = _over(samples, lambda sample: sample.running), _over(samples, lambda sample: sample.waiting)
    usage = _over(samples, lambda sample: None if sample.kv_usage is None else sample.kv_usage * 100)
    preempted = _over(samples, lambda sample: sample.preemptions)
    charts = {
        "engine": chart.draw(
            "the engine's requests", f"at most {short(_most(_values(running)))} running and "
            f"{short(_most(_values(waiting)))} waiting", Axis(TIME, Clock), Axis("requests", Whole),
            [chart.Line("p50", running, marked=False), chart.Line("p99", waiting, marked=False)], _bands(result),
        ),
    }  # fmt: skip
    if usage:
        charts["kv"] = chart.draw(
            "use of the KV cache", f"at most {percent(_most(_values(usage)) / 100)}; "
            f"{short(_most(_values(preempted)))} preemptions", Axis(TIME, Clock),
            Axis("percent of the KV cache; preemptions", Linear),
            [chart.Line("measured", usage, marked=False), chart.Line("p99", preempted, marked=False)], _bands(result),
        )  # fmt: skip
    return charts


def _curve(points: Sequence[RatePoint]) -> str:
    by_rate = sorted(points, key=lambda point: point.output_tokens_per_s)
    odd = [point for point in by_rate if not point.met]
    words = "; ".join(
        f"at {short(point.rate)} a second: {short(point.output_tokens_per_s)} tokens per second, "
        f"TTFT p95 {short(point.ttft_p95_ms)} ms"
        for point in by_rate
    )
    heights = [value for point in by_rate for value in (point.ttft_p50_ms, point.ttft_p95_ms)]
    return chart.draw(
        "time to the first token against throughput", words, Axis("output tokens per second", Linear),
        fitting("time to the first token, ms", heights),
        [
            chart.Dots("p99", [(point.output_tokens_per_s, point.ttft_p95_ms) for point in by_rate], radius=3.5),
            chart.Dots("p50", [(point.output_tokens_per_s, point.ttft_p50_ms) for point in by_rate], radius=3.5),
            chart.Dots("p99 hollow", [(point.output_tokens_per_s, point.ttft_p95_ms) for point in odd], radius=3.5),
            chart.Dots("p50 hollow", [(point.output_tokens_per_s, point.ttft_p50_ms) for point in odd], radius=3.5),
        ],
    )  # fmt: skip


def _bands(result: TokenResult) -> list[chart.Band]:
    load = result.load
    after = max((second.t_s + 1 for second in result.series), default=load.duration_s)
    bands = [chart.Band(-load.warm_up_s, 0.0, "warm-up", "w", shaded=True)] if load.warm_up_s else []
    if after > load.duration_s + 1:
        bands.append(chart.Band(load.duration_s, after, "after it", "", shaded=True))
    return bands


def _over(samples: Sequence[EngineSample], value: Callable[[EngineSample], float | None]) -> list[tuple[float, float]]:
    return _thinned([(sample.t_s, number) for sample in samples if (number := value(sample)) is not None])


def _thinned(points: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
    """At most :data:`POINTS` of them, of each stretch the largest."""
    step = max(-(-len(points) // POINTS), 1)
    return [max(points[at : at + step], key=lambda point: point[1]) for at in range(0, len(points), step)]


def _values(points: Sequence[tuple[float, float]]) -> list[float]:
    return [value for _, value in points]


def _most(values: Sequence[float]) -> float:
    return max((value for value in values if math.isfinite(value)), default=math.nan)
