"""What `make compare` found: written by compare.py, drawn by comparepage.py; JSON both ways."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from pydantic import TypeAdapter

Json = dict[str, Any]


@dataclass(frozen=True)
class Trial:
    """What one way to serve the model did with callers who wait for each answer.

    Attributes:
        settings: The way, in words.
        callers: How many there were.
        throughput: Answers a second: the median of the trials.
        p99_ms: The 99th percentile of latency, the highest of the trials; None where nothing was answered.
        in_slo: Every trial kept the SLO's latency.
    """

    settings: str
    callers: int
    throughput: float
    p99_ms: float | None
    in_slo: bool


@dataclass(frozen=True)
class Row:
    """One server with one model; a figure that could not be had is None, and ``problem`` says why.

    Attributes:
        name: "FastAPI", "tritonkit".
        version: Of the server: "0.115.4".
        ours: It is this project's.
        capacity: The highest rate that met the SLO, requests/s: the median over the rounds.
        low: The lower end of the capacity's interval.
        high: The upper end of it.
        p50_ms: Median latency at half of the capacity, from the scheduled arrival.
        p99_ms: The 99th percentile there.
        memory_mb: Resident memory of all the server's processes after the load, MB (10^6 bytes).
        ready_s: From starting the process to the first right answer.
        config_lines: Lines of configuration and code a team would write for it.
        settings: How it was configured, in one line.
        problem: Why figures are missing; None where they are not.
        fix: What cures that, as the error says; empty where nothing is known.
        late_at: The lowest rate that the generator could not keep for it, requests/s; None where it kept all.
        as_configured: It ran as its recipe says; False where ours was faster in another way.
        trials: Every way to serve the model that was tried; one of them was measured.
    """

    name: str
    version: str
    ours: bool
    capacity: float | None
    low: float | None
    high: float | None
    p50_ms: float | None
    p99_ms: float | None
    memory_mb: float | None
    ready_s: float | None
    config_lines: int | None
    settings: str
    problem: str | None = None
    fix: str = ""
    late_at: float | None = None
    as_configured: bool = True
    trials: tuple[Trial, ...] = ()

    @property
    def key(self) -> str:
        """What PEERS calls it; empty for ours."""
        return "" if self.ours else self.name.lower()


@dataclass(frozen=True)
class ComparisonResult:
    """All servers on all models.

    Attributes:
        created: ISO time with its zone.
        command: As typed.
        environment: {"cpu": …, "cores": …}: what the figures depend on.
        slo: Of each model, in words: {"efficientnet_lite0": "p99 ≤ 50 ms, errors ≤ 0.1 %"}.
        ceiling: Of each model, how many samples a second one process runs the graph on, with nothing around it: on the
            servers' core one at a time, which no server can exceed without batches; on a GPU in largest batches.
        rounds: How often each server was measured, interleaved with the others.
        interval: What ``low`` and ``high`` are: "smallest and largest of the rounds".
        models: {model: its rows}.
        notes: Sentences for the reader: what was held equal, what differs.
        partial: The comparison was interrupted.
    """

    created: str
    command: str
    environment: dict[str, str]
    slo: dict[str, str]
    ceiling: dict[str, float]
    rounds: int
    interval: str
    models: dict[str, tuple[Row, ...]]
    notes: tuple[str, ...] = ()
    partial: bool = False

    @property
    def on_gpu(self) -> bool:
        """Whether the servers had a GPU."""
        return self.environment.get("target") == "cuda"

    def to_json(self) -> Json:
        """Plain data for json.dumps."""
        return asdict(self)

    @classmethod
    def from_json(cls, data: Json) -> ComparisonResult:
        """The result back; raises pydantic's ValidationError, which names the field, where the data does not fit."""
        return TypeAdapter(cls).validate_python(data)


def ordered(rows: Sequence[Row]) -> list[Row]:
    """By falling capacity; those without one last."""
    return sorted(rows, key=lambda row: (row.capacity is None, -(row.capacity or 0.0), row.name))


def overlap(row: Row, other: Row) -> bool:
    """Whether their intervals have a value in common."""
    ends = [row.low, row.high, other.low, other.high]
    if any(end is None for end in ends):
        return False
    low, high, other_low, other_high = (end or 0.0 for end in ends)
    return low <= other_high and other_low <= high
