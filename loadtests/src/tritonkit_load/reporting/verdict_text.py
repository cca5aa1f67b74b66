"""A load test's verdict in words, for the page and for JUnit XML; judges nothing itself."""

from __future__ import annotations

import math
from collections.abc import Sequence

from tritonkit_load.load import slo
from tritonkit_load.load.result import Check, Limit, Result
from tritonkit_load.reporting import page
from tritonkit_load.reporting.page import NAMES, NOTHING, Headline, counted

MOST = 4  # bounds that do not hold and are told one by one
BOUNDS = {"p50_ms": "median latency", "p95_ms": "p95 latency", "p99_ms": "p99 latency", "error_rate": "failed requests",
          "goodput": "goodput"}  # fmt: skip
PHRASES = {
    "p50_ms": "half of the requests took up to {}", "p95_ms": "95 % of the requests took up to {}",
    "p99_ms": "99 % of the requests took up to {}", "error_rate": "{} of the requests failed",
    "goodput": "{} of the requests were answered within the SLO's latency",
}  # fmt: skip


def headline(result: Result) -> Headline:
    """What the run found, in one line and its reasons."""
    if result.capacity is not None:
        return _capacity(result, result.capacity)
    verdict, alone = result.verdict, len(result.models) == 1
    note = (sentence(verdict.note),) if verdict.note else ()
    if not result.generator.valid or not (verdict.valid or result.partial):
        whole = "The generator did not do what it was told, so these figures say little about the server."
        return Headline("unsure", "Not a valid run", (whole, *map(sentence, result.generator.why), *note))
    if result.partial:
        return Headline("unsure", f"Cut short after {result.load.duration_s:,.3g} s", (_until(result), *note))
    if verdict.met is None:
        return _without_slo(result, note)
    if not verdict.met:
        missed = [check for check in verdict.checks if not check.met]
        return Headline("bad", "The SLO is not met", (*_some(missed, alone=alone), *note))
    few = slo.few(result.models)
    title = "The SLO is met, by too few requests to be sure" if few else "The SLO is met"
    held = [f"All {counted(len(verdict.checks), 'bound')} of {counted(len(result.models), 'model')} hold."]
    if alone:
        held = [sentence(describe_check(check, alone=True)) for check in verdict.checks]
    return Headline("unsure" if few else "good", title, (*held, *note))


def _capacity(result: Result, limit: Limit) -> Headline:
    """The rate that was searched for, and its interval."""
    rate = f"{page.short(limit.rate)} requests a second"
    between = f"between {page.short(limit.low)} and {page.short(limit.high)}" if limit.high else "or more"
    why = [f"The SLO was met in {times_met(limit.confirmed)} of {result.load.duration_s:,.3g} s at that rate."]
    if limit.high:
        why.append(f"With a probability of 95 %, the limit lies between {page.short(limit.low)} and "
                   f"{page.short(limit.high)} requests a second.")  # fmt: skip
    if few := few_at_capacity(result, limit):
        why.append(few)
    if result.partial:
        why.append("The search was interrupted: the limit may be higher.")
    if late := result.environment.get("generator"):
        why.append(sentence(f"the generator {late}"))
    if limit.at_least:
        return Headline("unsure", f"At least {rate} within the SLO", tuple(why))
    return Headline("good", f"{rate} within the SLO, {between}", tuple(why))


def few_at_capacity(result: Result, limit: Limit) -> str:
    """A sentence where the runs at a capacity had too few requests, all of them together, to show that it is met."""
    (name,) = result.models
    model = result.model
    return slo.too_few(name, model.slo, (model.requests - model.failed) * limit.confirmed)


def _until(result: Result) -> str:
    """What a run that was cut short had found by then."""
    met = result.verdict.met
    if met is None:
        return "The figures cover what was measured until then."
    return f"Until then, the SLO was {'met' if met else 'not met'}; a run that is not whole does not count."


def _some(missed: Sequence[Check], *, alone: bool) -> tuple[str, ...]:
    """The first few bounds that do not hold as sentences, and how many more there are."""
    first = [sentence(describe_check(check, alone=alone)) for check in missed[:MOST]]
    more = len(missed) - len(first)
    return (*first, f"{counted(more, 'more bound does', 'more bounds do')} not hold.") if more else tuple(first)


def _without_slo(result: Result, note: tuple[str, ...]) -> Headline:
    requests = sum(model.requests for model in result.models.values())
    failed = sum(model.failed for model in result.models.values())
    why = ("No SLO was given, so latency is not judged.", *note)
    if not requests:
        return Headline("unsure", "No request was measured", why)
    if failed:
        return Headline("bad", f"{failed:,} of {counted(requests, 'request')} failed", why)
    return Headline("good", f"{counted(requests, 'request')}, none failed", why)


def describe_check(check: Check, *, alone: bool) -> str:
    """One bound as a sentence; with its model's name, unless that is the only one."""
    value, bound = value_and_bound(check)
    whose = "" if alone else f"{check.model}: "
    if check.name == "error_rate" and check.found == 0:
        return f"{whose}no request failed"
    if check.found is None or not math.isfinite(check.found):
        return f"{whose}nothing was answered, so there is no {BOUNDS.get(check.name, check.name)} ({bound} wanted)"
    return f"{whose}{PHRASES.get(check.name, check.name + ' {}').format(value)}; {bound} wanted"


def value_and_bound(check: Check) -> tuple[str, str]:
    """The measured value and its bound, with as many digits as it takes to tell them apart."""
    least = "at least" if check.name == "goodput" else "at most"
    bound = f"{least} {_valued(check.name, check.wanted, 12)}"
    if check.found is None or not math.isfinite(check.found):
        return NOTHING, bound
    for digits in range(3, 12):
        value = _valued(check.name, check.found, digits)
        if value != _valued(check.name, check.wanted, 12) or check.found == check.wanted:
            break
    return value, bound


def _valued(name: str, value: float, digits: int) -> str:
    if name.endswith("_ms"):
        return f"{_rounded(value, digits)} ms"
    return f"{_rounded(value * 100, digits)} %"


def _rounded(value: float, digits: int) -> str:
    """Significant digits without an exponent, and never fewer than its whole part has."""
    return f"{float(f'{value:.{digits}g}') if abs(value) < 10**digits else round(value):,.12g}"


def times_met(count: int) -> str:
    """How often a rate has met the SLO: "one run", "each of 3 runs"."""
    return "one run" if count == 1 else f"each of {count} runs"


def sentence(words: str) -> str:
    """With a full stop, and a capital letter unless it begins with a name."""
    first = words.split(" ", 1)[0]
    if first.isalpha() and first.islower():
        words = words[0].upper() + words[1:]
    return words + ("" if words.endswith((".", "!", "?")) else ".")


def sent(result: Result) -> str:
    """What was sent, as one sentence."""
    load = result.load
    over = NAMES.get(load.protocol, load.protocol)
    if load.loop == "open":
        return (
            f"Load: {load.arrivals} over {over} in an open loop: requests leave when the schedule says, "
            "whatever became of those before."
        )
    return f"Load: {counted(load.users or 0, 'user')} over {over} in a closed loop, each with one request at a time."
