"""What `make tune` found: written by tune.py, drawn by tunepage.py; JSON both ways."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, Literal

from pydantic import TypeAdapter

from tritonkit_load.load.result import Limit

Json = dict[str, Any]


@dataclass(frozen=True)
class Ratio:
    """A ratio of two capacities over repeated rounds, and the interval that holds it with a probability of 95 %."""

    median: float
    low: float
    high: float


@dataclass(frozen=True)
class Trial:
    """One configuration that was tried.

    Attributes:
        number: Its place in the order of trials; unique.
        settings: What was set, as a person reads it: {"instances": "2", "max batch": "8", "queue delay": "500 µs"}.
        status: "measured"; "pruned" (stopped early, so its figures are a lower bound or absent); "failed";
            "unsent" (the generator could not send its load).
        capacity: The highest rate that met the SLO, requests/s; None if there is none.
        p50_ms: The median latency at that rate, from the scheduled arrival.
        p99_ms: The 99th percentile at that rate.
        seconds: What the trial took.
        why: Why it was stopped or failed; empty where it was measured.
    """

    number: int
    settings: dict[str, str]
    status: Literal["measured", "pruned", "failed", "unsent"]
    capacity: float | None
    p50_ms: float | None
    p99_ms: float | None
    seconds: float
    why: str = ""


@dataclass(frozen=True)
class TuningResult:
    """A whole search.

    Attributes:
        model: The recipe's name.
        created: ISO time with its zone.
        command: As typed.
        environment: {"cpu": …, "cores": …}: what the figures depend on.
        slo: In words: "p99 ≤ 50 ms, errors ≤ 0.1 %".
        slo_p99_ms: Where the page draws the SLO's line; None if the SLO says nothing of p99.
        budget_s: How long the search was allowed to take.
        trials: In the order of their numbers.
        best: The number of the trial that won; None if none met the SLO.
        default: The number of Triton's `dynamic_batching {}` with one instance; None if it was not measured.
        ratio: The best's capacity over the default's, both measured again side by side; None if that was not done.
        partial: The search was interrupted.
        written: Files the winner was written to.
        current: The number of what was served before; None if it was not measured.
        over_current: As ``ratio``, over what was served before.
        capacity: The best's, confirmed in further runs as `make capacity` does it; None if there was no time for that.
        took_s: Seconds of the whole command, build included; None if not known.
        notes: What a reader must know of the search, a sentence each.
        failure: Why it came to nothing; empty where it did not.
        cause: What that is due to: the SLO, a generator that could not send its load, or a server that did not serve.
    """

    model: str
    created: str
    command: str
    environment: dict[str, str]
    slo: str
    slo_p99_ms: float | None
    budget_s: float
    trials: tuple[Trial, ...]
    best: int | None
    default: int | None
    ratio: Ratio | None
    partial: bool
    written: tuple[str, ...] = ()
    current: int | None = None
    over_current: Ratio | None = None
    capacity: Limit | None = None
    took_s: float | None = None
    notes: tuple[str, ...] = ()
    failure: str = ""
    cause: Literal["", "slo", "generator", "server"] = ""

    def to_json(self) -> Json:
        """Plain data for json.dumps."""
        return asdict(self)

    @classmethod
    def from_json(cls, data: Json) -> TuningResult:
        """The result back; raises pydantic's ValidationError, which names the field, where the data does not fit."""
        return TypeAdapter(cls).validate_python(data)
