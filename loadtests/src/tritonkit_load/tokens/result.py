"""What a load test of a language model measured, as plain data; it computes nothing."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Literal

from tritonkit_load.load.result import Limit, Verdict
from tritonkit_load.tokens.figures import Times


@dataclass(frozen=True)
class TokenLoad:
    """What was sent.

    Attributes:
        protocol: ``grpc``: tensors through Triton; ``http``: an OpenAI API.
        host: Where it went.
        loop: ``open``: sessions begin when the schedule says; ``closed``: when a user's last one has ended.
        arrivals: The schedule of an open loop.
        users: Of a closed loop.
        processes: Of the generator.
        warm_up_s: Seconds before the measured ones.
        duration_s: Measured seconds.
        work: Prompts and answers, in words.
        seed: Of the schedule and of every choice.
    """

    protocol: str
    host: str
    loop: Literal["open", "closed"]
    arrivals: str | None
    users: int | None
    processes: int
    warm_up_s: float
    duration_s: float
    work: str
    seed: int


@dataclass(frozen=True)
class TokenFigures:
    """Of the requests that were due in the measured seconds; :data:`.tokens.summary.FORMULAS` says how.

    Attributes:
        requests: Due in them.
        failed: Of these, those without a whole answer.
        offered: Due, a second.
        throughput: Whole answers that ended in the measured seconds, a second.
        goodput: Share of the requests that kept every bound of the SLO; None without one.
        output_tokens: That came in the measured seconds.
        output_tokens_per_s: These, a second.
        prompt_tokens: Mean of a request; NaN where not known.
        answer_tokens: Mean of a whole answer.
        ttft_ms: See the formulas, as for the next three.
        itl_ms: Every gap of every answer.
        tpot_ms: A number a request.
        e2e_ms: A number a request.
        joined: Share of the gaps that are nothing, as both tokens came in one response.
        errors: Type of error to count.
        messages: Type of error to the first message of it.
    """

    requests: int
    failed: int
    offered: float
    throughput: float
    goodput: float | None
    output_tokens: int
    output_tokens_per_s: float
    prompt_tokens: float
    answer_tokens: float
    ttft_ms: Times
    itl_ms: Times
    tpot_ms: Times
    e2e_ms: Times
    joined: float
    errors: Mapping[str, int]
    messages: Mapping[str, str]


@dataclass(frozen=True)
class TokenSecond:
    """One second of the run, the warm-up included (its ``t_s`` is negative).

    Attributes:
        t_s: When it began, from the end of the warm-up.
        offered: Requests due in it.
        completed: Whole answers that ended in it.
        failed: Failures that ended in it.
        output_tokens: That came in it.
        in_flight: Requests without an end when it was over.
    """

    t_s: float
    offered: int
    completed: int
    failed: int
    output_tokens: int
    in_flight: int


@dataclass(frozen=True)
class EngineSample:
    """What the engine's metrics say at one moment; None where they do not say it.

    Attributes:
        t_s: From the end of the warm-up.
        running: Requests in its batch.
        waiting: Requests that are not in it yet.
        kv_usage: Share of the KV cache that is taken, 0 to 1.
        preemptions: Since the first sample.
    """

    t_s: float
    running: float | None
    waiting: float | None
    kv_usage: float | None
    preemptions: float | None


@dataclass(frozen=True)
class Generator:
    """Whether the generator kept its schedule.

    Attributes:
        lateness_p99_ms: Actual send less due; None in a closed loop.
        busiest: CPU time of its busiest process, in cores.
        why: What makes the figures unusable; empty where they may be used.
    """

    lateness_p99_ms: float | None
    busiest: float
    why: tuple[str, ...]


@dataclass(frozen=True)
class RatePoint:
    """One run of a search for a capacity: sessions a second, the figures of it, and its fate."""

    rate: float
    output_tokens_per_s: float
    ttft_p50_ms: float
    ttft_p95_ms: float
    itl_p95_ms: float
    error_rate: float
    valid: bool
    met: bool


@dataclass(frozen=True)
class TokenResult:
    """One load test of a language model.

    Attributes:
        created: ISO 8601.
        command: What a person would type to run it again.
        model: Its name.
        environment: Of the machine and the server.
        load: What was sent.
        slo: In words; empty without one.
        figures: What came of it.
        verdict: The SLO's bounds beside the figures.
        generator: Whether the figures may be used.
        series: By the second.
        first_tokens: (due s, TTFT ms) of each answer in the measured seconds.
        gaps: (share, ms) of the inter-token latencies.
        engine: The server's side over time.
        notes: What a reader has to know beside the figures.
        formulas: Name to formula.
        curve: The runs of a search for a capacity.
        capacity: Sessions a second, where it was searched for.
    """

    created: str
    command: str
    model: str
    environment: Mapping[str, str]
    load: TokenLoad
    slo: str
    figures: TokenFigures
    verdict: Verdict
    generator: Generator
    series: tuple[TokenSecond, ...]
    first_tokens: tuple[tuple[float, float], ...]
    gaps: tuple[tuple[float, float], ...]
    engine: tuple[EngineSample, ...]
    notes: tuple[str, ...]
    formulas: Mapping[str, str]
    curve: tuple[RatePoint, ...] = ()
    capacity: Limit | None = None

    @property
    def passed(self) -> bool:
        """The run is valid and met its SLO; without an SLO, no request failed and some were answered."""
        if not self.verdict.valid:
            return False
        if self.verdict.met is not None:
            return self.verdict.met
        return self.figures.failed == 0 and self.figures.requests > 0

    def to_json(self) -> dict[str, Any]:
        """Plain data without NaN, which JSON has not: None in its place."""
        data: dict[str, Any] = _finite(asdict(self))
        return data


def _finite(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {name: _finite(part) for name, part in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(part) for part in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
