"""What a load test's processes note while it runs, in a form that adds up: HDR histograms and counts.

A process notes into a recording, hands it over now and then, and goes on with an empty one; the sum of all that was
handed over is the whole test. Which figures are made of it is for :mod:`.load.summary`.
"""

from __future__ import annotations

import csv
import io
import math
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from hdrh.histogram import HdrHistogram

from tritonkit import atomic
from tritonkit_load.load.arrivals import COLUMN

HIGHEST_US = 3_600_000_000  # an hour
DIGITS = 3  # values are kept to 0.1 %
SECOND_DIGITS = 2  # those of a single second to 1 %: 27 kB a second instead of 190
REQUEST_COLUMNS = (COLUMN, "latency_ms", "service_ms", "model", "error")
# One request of `--record`: scheduled start in seconds from the end of the warm-up, latency and service time in
# milliseconds, model, error.
Row = tuple[float, float, float, str, str]


def histogram(digits: int = DIGITS) -> HdrHistogram:
    """An empty histogram of microseconds."""
    return HdrHistogram(1, HIGHEST_US, digits)


def note(into: HdrHistogram, seconds: float) -> None:
    """Count one duration, clipped to between a microsecond and an hour."""
    into.record_value(min(max(int(seconds * 1e6), 1), HIGHEST_US))


def encoded(hdr: HdrHistogram) -> str:
    """A histogram as base64 text; `decoded` reads it."""
    text: str = hdr.encode().decode()
    return text


def decoded(text: str) -> HdrHistogram:
    """The inverse of `encoded`."""
    return HdrHistogram.decode(text)


@dataclass
class Counts:
    """One model's requests that were scheduled in the measured seconds.

    Attributes:
        completed: Successes that came in the measured seconds, whenever they were scheduled.
        latency, service: Of those that succeeded: from schedule, and from the actual send, to the answer.
        first: Of streams: from schedule to the first response.
        errors, messages: How many of each type, and the first message of each.
    """

    completed: int = 0
    latency: HdrHistogram = field(default_factory=histogram)
    service: HdrHistogram = field(default_factory=histogram)
    first: HdrHistogram | None = None
    errors: Counter[str] = field(default_factory=Counter)
    messages: dict[str, str] = field(default_factory=dict)

    @property
    def succeeded(self) -> int:
        """How many requests succeeded."""
        return int(self.latency.get_total_count())

    def add(self, other: Counts) -> None:
        """Add what another process noted."""
        self.completed += other.completed
        self.latency.add(other.latency)
        self.service.add(other.service)
        if other.first is not None:
            self.first = self.first or histogram()
            self.first.add(other.first)
        self.errors.update(other.errors)
        self.messages = other.messages | self.messages


@dataclass
class SecondCounts:
    """One second; ``latency`` is of the requests scheduled in it, the answers are those that came in it."""

    offered: int = 0
    completed: int = 0
    failed: int = 0
    latency: HdrHistogram | None = None

    def add(self, other: SecondCounts) -> None:
        """Add what another process noted."""
        self.offered += other.offered
        self.completed += other.completed
        self.failed += other.failed
        if other.latency is not None:
            self.latency = self.latency or histogram(SECOND_DIGITS)
            self.latency.add(other.latency)


@dataclass(frozen=True)
class Cpu:
    """CPU time and wall time of one process, in the measured seconds, and the cores that it may use."""

    cpu_s: float
    wall_s: float
    cores: tuple[int, ...] = ()


@dataclass
class Recording:
    """Everything that is noted of one load test.

    Attributes:
        window_s: How many seconds are measured.
        models: By name.
        seconds: By the second's number from the end of the warm-up; negative in it.
        lateness: Actual send less schedule, of the measured seconds of an open loop.
        cpu: By process, as ``host:pid``.
        capped: Arrivals that were not sent as too many were without an answer.
        measured_s: How far the test came.
        stopped: Whether it was ended before its time.
        problems: What else makes the test worthless, in words.
        rows: Every measured request, if that was asked for.
    """

    window_s: float = math.inf
    models: dict[str, Counts] = field(default_factory=dict)
    seconds: dict[int, SecondCounts] = field(default_factory=dict)
    lateness: HdrHistogram = field(default_factory=histogram)
    cpu: dict[str, Cpu] = field(default_factory=dict)
    capped: int = 0
    measured_s: float = 0.0
    stopped: bool = False
    problems: tuple[str, ...] = ()
    rows: list[Row] = field(default_factory=list)

    def offer(self, due_s: float) -> None:
        """Note an arrival."""
        self._second(due_s).offered += 1

    def cap(self, model: str, due_s: float, limit: int) -> None:
        """Note an arrival that was not sent."""
        self._fail(model, due_s, due_s, "NotSent", f"{limit} requests of this process were without an answer")
        if due_s >= 0:
            self.capped += 1

    def answer(
        self, model: str, due_s: float, sent_s: float, ended_s: float, error: Exception | None, first_s: float | None
    ) -> None:
        """Note how a request ended; all times count from the end of the warm-up."""
        if due_s >= 0:
            note(self.lateness, sent_s - due_s)
        if error is not None:
            self._fail(model, due_s, ended_s, type(error).__name__, str(error).partition("\n")[0])
            return
        self._second(ended_s).completed += 1
        if 0 <= ended_s < self.window_s:
            self._counts(model).completed += 1
        second = self._second(due_s)
        second.latency = second.latency or histogram(SECOND_DIGITS)
        note(second.latency, ended_s - due_s)
        if due_s < 0:
            return
        counts = self._counts(model)
        note(counts.latency, ended_s - due_s)
        note(counts.service, ended_s - sent_s)
        if first_s is not None:
            counts.first = counts.first or histogram()
            note(counts.first, first_s - due_s)

    def _fail(self, model: str, due_s: float, ended_s: float, kind: str, message: str) -> None:
        self._second(ended_s).failed += 1
        if due_s >= 0:
            counts = self._counts(model)
            counts.errors[kind] += 1
            counts.messages.setdefault(kind, message)

    def _counts(self, model: str) -> Counts:
        return self.models.get(model) or self.models.setdefault(model, Counts())

    def _second(self, time_s: float) -> SecondCounts:
        number = int(time_s // 1)
        return self.seconds.get(number) or self.seconds.setdefault(number, SecondCounts())

    def add(self, other: Recording) -> None:
        """Add what another process, or the same one later, noted."""
        self.window_s = min(self.window_s, other.window_s)
        for name, counts in other.models.items():
            self._counts(name).add(counts)
        for number, second in other.seconds.items():
            self._second(number).add(second)
        self.lateness.add(other.lateness)
        self.cpu |= other.cpu
        self.capped += other.capped
        self.measured_s = max(self.measured_s, other.measured_s)
        self.stopped = self.stopped or other.stopped
        self.problems += other.problems
        self.rows += other.rows

    def to_json(self) -> dict[str, Any]:
        """Plain data for JSON and for Locust's messages; `from_json` reads it."""
        return {
            "window_s": self.window_s,
            "models": {
                name: {
                    "completed": counts.completed,
                    "latency": encoded(counts.latency), "service": encoded(counts.service),
                    "first": encoded(counts.first) if counts.first else None,
                    "errors": dict(counts.errors), "messages": counts.messages,
                }
                for name, counts in self.models.items()
            },
            "seconds": [
                [number, second.offered, second.completed, second.failed,
                 encoded(second.latency) if second.latency else None]
                for number, second in self.seconds.items()
            ],
            "lateness": encoded(self.lateness),
            "cpu": {name: [cpu.cpu_s, cpu.wall_s, cpu.cores] for name, cpu in self.cpu.items()},
            "capped": self.capped, "measured_s": self.measured_s, "stopped": self.stopped,
            "problems": list(self.problems), "rows": self.rows,
        }  # fmt: skip

    @staticmethod
    def from_json(data: dict[str, Any]) -> Recording:
        """The inverse of `to_json`."""
        return Recording(
            window_s=data["window_s"],
            models={
                name: Counts(
                    counts["completed"], decoded(counts["latency"]), decoded(counts["service"]),
                    decoded(counts["first"]) if counts["first"] else None,
                    Counter(counts["errors"]), counts["messages"],
                )
                for name, counts in data["models"].items()
            },
            seconds={
                number: SecondCounts(offered, completed, failed, decoded(latency) if latency else None)
                for number, offered, completed, failed, latency in data["seconds"]
            },
            lateness=decoded(data["lateness"]),
            cpu={name: Cpu(cpu_s, wall_s, tuple(cores)) for name, (cpu_s, wall_s, cores) in data["cpu"].items()},
            capped=data["capped"], measured_s=data["measured_s"], stopped=data["stopped"],
            problems=tuple(data["problems"]), rows=[tuple(row) for row in data["rows"]],
        )  # fmt: skip


def merged(recordings: Iterable[Recording]) -> Recording:
    """The sum of some recordings."""
    total = Recording()
    for recording in recordings:
        total.add(recording)
    return total


def write_rows(path: Path, rows: Iterable[Row]) -> None:
    """Write requests as CSV, in the order in which they were due; :mod:`.load.arrivals` can replay it."""
    text = io.StringIO()
    writer = csv.writer(text)
    writer.writerow(REQUEST_COLUMNS)
    for start_s, latency_ms, service_ms, model, error in sorted(rows):
        writer.writerow((f"{start_s:.6f}", f"{latency_ms:.3f}", f"{service_ms:.3f}", model, error))
    atomic.write(path, text.getvalue().encode())


def read_rows(path: Path) -> list[Row]:
    """What `write_rows` wrote."""
    with path.open(newline="", encoding="utf-8") as file:
        return [
            (float(row[COLUMN]), float(row["latency_ms"]), float(row["service_ms"]), row["model"], row["error"])
            for row in csv.DictReader(file)
        ]
