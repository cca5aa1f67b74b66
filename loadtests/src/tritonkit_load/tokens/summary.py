"""From the answers of a load to its figures, its verdict and what a page draws. Its formulas are :data:`FORMULAS`."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from itertools import pairwise

from tritonkit.recipe import TokenSlo
from tritonkit_load.load.result import Check, Verdict
from tritonkit_load.load.slo import CONFIDENCE, SHARES
from tritonkit_load.tokens import figures, slo
from tritonkit_load.tokens.result import Generator, TokenFigures, TokenSecond
from tritonkit_load.tokens.streams import Answer

LATE_MS = 5.0  # as in load tests of tensors, docs/guides/loadtests.md
# Of the p95 of TTFT: it counts from when a request was due, so a late generator makes a server look slower, by so much.
LATE_SHARE = 0.1
BUSIEST = 0.9  # of a core
FIRST_TOKENS = 4000  # dots of a chart; with more, every n-th is kept
FORMULAS = {
    "TTFT": "time to the first token: from when the request was due until its first token came",
    "ITL": "inter-token latency: from one token of an answer to the next, each gap of each whole answer by itself; "
    "tokens that came in one response have no time between them",
    "TPOT": "time per output token of one answer: from its first token to its last, over its tokens less one",
    "E2E": "end to end: from when the request was due until its answer had ended",
    "tokens/s": "output tokens that came in the measured seconds, over these seconds",
    "goodput": "share of the requests that were answered and kept every bound: TTFT, TPOT and E2E the largest of their "
    "name, and of its own gaps as many as each bound of ITL names",
    "error rate": "requests without a whole answer, over all of them",
    "due": "in an open loop when the schedule says, whatever became of those before; in a closed loop when the user's "
    "last answer had ended; a later turn of a session when the answer before it had. Requests due in the measured "
    "seconds count, however late their answers came",
    "p50, p95, p99": "the smallest measured value that so many do not exceed",
}


def measured(answers: Sequence[Answer], duration_s: float) -> list[Answer]:
    """The answers whose requests were due in the measured seconds."""
    return [answer for answer in answers if 0 <= answer.due_s < duration_s]


def summarize(answers: Sequence[Answer], duration_s: float, bounds: TokenSlo | None) -> TokenFigures:
    """The figures of a load.

    Args:
        answers: All of them, with their tokens counted.
        duration_s: Measured seconds.
        bounds: What goodput is held against.
    """
    due = measured(answers, duration_s)
    whole = [answer for answer in due if not answer.error]
    gaps = [gaps_ms(answer) for answer in whole]
    all_gaps = [gap for own in gaps for gap in own]
    good = None
    if bounds is not None and slo.has_times(bounds) and due:
        kept = sum(slo.kept(bounds, times_ms(answer), sorted(own)) for answer, own in zip(whole, gaps, strict=True))
        good = kept / len(due)
    tokens = sum(count for answer in answers for at, count in answer.arrivals if 0 <= at < duration_s)
    kinds = [answer.error.partition(":")[0::2] for answer in due if answer.error]
    ended = sum(not answer.error and 0 <= answer.end_s < duration_s for answer in answers)
    times = [times_ms(answer) for answer in whole]
    by_name = {name: [own[name] for own in times if name in own] for name in ("ttft", "tpot", "e2e")}
    return TokenFigures(
        requests=len(due),
        failed=len(kinds),
        offered=len(due) / duration_s,
        throughput=ended / duration_s,
        goodput=good,
        output_tokens=tokens,
        output_tokens_per_s=tokens / duration_s,
        prompt_tokens=_mean([answer.prompt_tokens for answer in due if answer.prompt_tokens]),
        answer_tokens=_mean([answer.tokens for answer in whole]),
        ttft_ms=figures.summary(by_name["ttft"]),
        itl_ms=figures.summary(all_gaps),
        tpot_ms=figures.summary(by_name["tpot"]),
        e2e_ms=figures.summary(by_name["e2e"]),
        joined=sum(gap == 0 for gap in all_gaps) / len(all_gaps) if all_gaps else math.nan,
        errors=dict(Counter(kind for kind, _ in kinds)),
        messages={kind: message.strip() for kind, message in reversed(kinds)},
    )


def gaps_ms(answer: Answer) -> list[float]:
    """The inter-token latencies of one answer, in order."""
    gaps = [0.0] * (answer.arrivals[0][1] - 1) if answer.arrivals else []
    for (before, _), (at, count) in pairwise(answer.arrivals):
        gaps += [(at - before) * 1e3, *[0.0] * (count - 1)]
    return gaps


def times_ms(answer: Answer) -> dict[str, float]:
    """``ttft`` and ``e2e`` of an answer, and ``tpot`` where it has more than one token."""
    first, last = answer.arrivals[0][0], answer.arrivals[-1][0]
    times = {"ttft": (first - answer.due_s) * 1e3, "e2e": (answer.end_s - answer.due_s) * 1e3}
    return times | ({"tpot": (last - first) * 1e3 / (answer.tokens - 1)} if answer.tokens > 1 else {})


def judge(model: str, bounds: TokenSlo | None, of: TokenFigures, generator: Generator) -> Verdict:
    """Every bound beside its figure, and whether the run may say so."""
    checks = slo.checks(model, bounds, of) if bounds else ()
    met = all(check.met for check in checks) if checks else None
    return Verdict(met, not generator.why and of.requests > 0, checks, _few(checks, of.requests - of.failed))


def _few(checks: Sequence[Check], answers: int) -> str:
    """A sentence where so few answers do not show that a bound is kept; :func:`.load.slo.least_requests` says why.

    Inter-token latencies are many in each answer.
    """
    shares = {check.name: SHARES[check.name.partition("_")[2]] for check in checks if check.name.endswith("_ms")}
    strictest = max((name for name in shares if not name.startswith("itl")), key=lambda name: shares[name], default="")
    if not strictest or not answers:
        return ""
    needed = math.ceil(math.log(1 - CONFIDENCE) / math.log(shares[strictest]))
    if answers >= needed:
        return ""
    name = strictest.removesuffix("_ms").replace("_", " ")
    return f"The {name} rests on {answers} requests; it takes {needed} to show with 95 % confidence that it is kept."


def health(answers: Sequence[Answer], duration_s: float, busiest: float, of: TokenFigures, *, loop: str) -> Generator:
    """Whether the generator did what it was told."""
    late = [(answer.sent_s - answer.due_s) * 1e3 for answer in measured(answers, duration_s)]
    late = [lateness for lateness in late if math.isfinite(lateness)]
    lateness = figures.summary(late).p99 if late and loop == "open" else None
    allowed = max(LATE_MS, LATE_SHARE * of.ttft_ms.p95 if math.isfinite(of.ttft_ms.p95) else 0.0)
    why = []
    if lateness is not None and lateness > allowed:
        why.append(
            f"1 % of the requests left {lateness:.1f} ms or more after they were due; {allowed:.1f} ms are allowed"
        )
    if busiest >= BUSIEST:
        why.append(f"a process of the generator used {busiest:.0%} of a core: give it more PROCESSES")
    if of.requests == 0:
        why.append("no request was due in the measured seconds: measure for longer, or send more")
    return Generator(lateness, busiest, tuple(why))


def series(answers: Sequence[Answer], warm_up_s: float, duration_s: float) -> tuple[TokenSecond, ...]:
    """Second by second, until the last answer had ended."""
    last = max([duration_s, *(answer.end_s for answer in answers)])
    offered, completed, failed, tokens = (Counter[int]() for _ in range(4))
    for answer in answers:
        offered[math.floor(answer.due_s)] += 1
        (failed if answer.error else completed)[math.floor(answer.end_s)] += 1
        for at, count in answer.arrivals:
            tokens[math.floor(at)] += count
    seconds, open_requests = [], 0
    for second in range(-math.ceil(warm_up_s), math.ceil(last)):
        open_requests += offered[second] - completed[second] - failed[second]
        seconds.append(
            TokenSecond(second, offered[second], completed[second], failed[second], tokens[second], open_requests)
        )
    return tuple(seconds)


def first_tokens(answers: Sequence[Answer], duration_s: float) -> tuple[tuple[float, float], ...]:
    """(due s, TTFT ms) of each answer with a first token, for a chart."""
    dots = [
        (round(answer.due_s, 3), round((answer.arrivals[0][0] - answer.due_s) * 1e3, 2))
        for answer in measured(answers, duration_s)
        if answer.arrivals
    ]
    return tuple(dots[:: max(-(-len(dots) // FIRST_TOKENS), 1)])


def falls_behind(answers: Sequence[Answer], duration_s: float) -> float:
    """Which share of the requests that were due in the second half of a run piled up in it; 0 where chance explains it.

    In a steady state as many end as are due. How many are in flight at one moment is then about Poisson distributed
    (an M/G/infinity queue), so the difference of two moments has twice the mean for its variance; three standard
    deviations are left to chance.
    """
    middle = duration_s / 2

    def in_flight(at: float) -> int:
        return sum(answer.due_s < at <= answer.end_s for answer in answers)

    due = sum(middle <= answer.due_s < duration_s for answer in answers)
    growth = in_flight(duration_s) - in_flight(middle)
    excess = growth - 3 * math.sqrt(2 * max(in_flight(middle), 1))
    return max(excess, 0.0) / due if due else 0.0


def _mean(numbers: Sequence[float]) -> float:
    return sum(numbers) / len(numbers) if numbers else math.nan
