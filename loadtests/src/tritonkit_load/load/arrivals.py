"""When requests are due: schedules of an open loop, made whole before the first request leaves.

A schedule is written ``kind:numbers``. Every kind but ``constant`` and ``replay`` draws a Poisson process of its rate,
as independent callers make it. It knows no server, no request and no clock.
"""

from __future__ import annotations

import csv
import math
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from tritonkit.errors import InputError

Times: TypeAlias = NDArray[np.float64]
LARGEST_RATE = 100_000.0  # more is a slip of the pen: no generator of Python comes near
LEAST_STEP_S = 2.0  # its figures are made of whole seconds
MOST_ARRIVALS = 20_000_000  # 160 MB of times
COLUMN = "start_s"  # of a recording, as `--record` writes it
_TIME = re.compile(r"[-+.]*\d|[-+]?(nan|inf|infinity)$", re.IGNORECASE)  # meant as one, and no column's name

FORMS = (
    "constant:100  poisson:100  steps:50,100,200  ramp:10-200  spike:50,400@10+5  replay:FILE.csv  "
    "(requests a second; a spike of 400 from second 10 on, for 5 s)"
)


@dataclass(frozen=True)
class Step:
    """A part of a schedule with one rate; seconds from the end of the warm-up."""

    start_s: float
    end_s: float
    rate: float


@dataclass(frozen=True)
class Arrivals:
    """A schedule without its seed and duration.

    Attributes:
        text: As it was written.
        kind: ``constant``, ``poisson``, ``steps``, ``ramp``, ``spike``, ``replay``.
        rates: The rates that it names, in order.
        spike: Start and length of a spike, in seconds.
        recorded: A replay's times, from 0.
    """

    text: str
    kind: str
    rates: tuple[float, ...] = ()
    spike: tuple[float, float] = (0.0, 0.0)
    recorded: tuple[float, ...] = ()

    def duration_s(self, asked_s: float) -> float:
        """How long it lasts; a replay ends with its recording.

        Raises:
            InputError: The schedule has no end of its own and none was asked for, it ends before its spike, or its
                steps are too short.
        """
        if self.kind == "replay":
            own = self.recorded[-1] * (1 + 1 / len(self.recorded)) + 1e-6  # one gap after the last
            return min(asked_s or own, own)
        if not 0 < asked_s < math.inf:
            raise InputError(f"arrivals {self.text!r} need a duration, got {asked_s:g} s", "give a number of seconds")
        if self.kind == "steps" and asked_s < LEAST_STEP_S * len(self.rates):
            raise InputError(
                f"arrivals {self.text!r} in {asked_s:g} s leave too little for a step",
                f"a duration of {LEAST_STEP_S * len(self.rates):g} s or more, {LEAST_STEP_S:g} s a step",
            )
        if self.kind == "spike" and sum(self.spike) > asked_s:
            raise InputError(
                f"arrivals {self.text!r} end after the {asked_s:g} s of the test",
                f"a duration of {sum(self.spike):g} s or more, or a spike that starts sooner",
            )
        return asked_s

    def steps(self, asked_s: float) -> tuple[Step, ...]:
        """The parts of ``steps``, all equally long; nothing of any other kind."""
        if self.kind != "steps":
            return ()
        length = asked_s / len(self.rates)
        return tuple(Step(index * length, (index + 1) * length, rate) for index, rate in enumerate(self.rates))

    def times(self, asked_s: float, warm_up_s: float, seed: int) -> Times:
        """Every arrival, in seconds from the end of the warm-up, ascending.

        The warm-up goes before it (negative times), at the first rate; at a replay's mean rate.

        Raises:
            InputError: As `duration_s`, or these are more than anyone can send.
        """
        end_s = self.duration_s(asked_s)
        if self.kind == "replay":
            recorded = np.array(self.recorded)
            kept = recorded[recorded < end_s]
            warm_up = _Profile.flat(len(kept) / end_s, -warm_up_s, 0.0)
            return np.concatenate([warm_up.arrivals(_poisson(seed)), kept])
        profile = self._profile(end_s, warm_up_s)
        if profile.total > MOST_ARRIVALS:
            raise InputError(
                f"arrivals {self.text!r} are {profile.total:,.0f} requests", f"at most {MOST_ARRIVALS:,} a test"
            )
        return profile.arrivals(_evenly if self.kind == "constant" else _poisson(seed))

    def _profile(self, end_s: float, warm_up_s: float) -> _Profile:
        if self.kind == "ramp":
            first, last = self.rates
            # The grid's straight lines through the parabola of the cumulated rate are off by < 1e-6 of it.
            grid = np.linspace(0.0, end_s, 2001)
            rates = first + (last - first) * (grid[1:] + grid[:-1]) / (2 * end_s)
        elif self.kind == "spike":
            base, high = self.rates
            start, length = self.spike
            grid, rates = np.array([0.0, start, start + length, end_s]), np.array([base, high, base])
        else:
            grid, rates = np.linspace(0.0, end_s, len(self.rates) + 1), np.array(self.rates)
        return _Profile(np.insert(grid, 0, -warm_up_s), np.insert(rates, 0, self.rates[0]))


@dataclass(frozen=True)
class _Profile:
    """A rate that is constant between the points of a grid."""

    grid: Times
    rates: Times

    @staticmethod
    def flat(rate: float, start_s: float, end_s: float) -> _Profile:
        return _Profile(np.array([start_s, end_s]), np.array([rate]))

    @property
    def cumulated(self) -> Times:
        return np.concatenate([[0.0], np.cumsum(np.diff(self.grid) * self.rates)])

    @property
    def total(self) -> float:
        """The expected number of arrivals."""
        return float(self.cumulated[-1])

    def arrivals(self, units: Callable[[float], Times]) -> Times:
        """Arrivals of rate one, stretched so that they come at this rate (time rescaling of a point process)."""
        return np.interp(units(self.total), self.cumulated, self.grid)


def _evenly(total: float) -> Times:
    return np.arange(math.ceil(total - 1e-9), dtype=np.float64)


def _poisson(seed: int) -> Callable[[float], Times]:
    def draw(total: float) -> Times:
        random = np.random.default_rng(seed)
        times = np.cumsum(random.exponential(size=int(total + 10 * math.sqrt(total) + 20)))
        return times[times < total]

    return draw


def parse(text: str) -> Arrivals:
    """Read a schedule.

    Raises:
        InputError: The text is no schedule, has a rate of zero, or names a recording that cannot be replayed.
    """
    kind, _, rest = text.strip().partition(":")
    forms: dict[str, str] = {
        "constant": r"(N)", "poisson": r"(N)", "steps": r"(N(?:,N)*)", "ramp": r"(N)-(N)",
        "spike": r"(N),(N)@(N)\+(N)",
    }  # fmt: skip
    if kind == "replay":
        return Arrivals(text, kind, recorded=_recorded(Path(rest)))
    match = re.fullmatch(forms[kind].replace("N", r"\d+(?:\.\d+)?"), rest) if kind in forms else None
    if match is None:
        raise InputError(f"arrivals {text!r} are no schedule", f"one of  {FORMS}")
    numbers = [float(number) for group in match.groups() for number in group.split(",")]
    rates, spike = (numbers[:2], numbers[2:]) if kind == "spike" else (numbers, [0.0, 0.0])
    zero = not any(rates) if kind == "ramp" else not all(rates)
    if zero or max(rates) > LARGEST_RATE:
        raise InputError(f"arrivals {text!r} have a rate that cannot be sent", f"above 0 and at most {LARGEST_RATE:g}")
    return Arrivals(text, kind, tuple(rates), (spike[0], spike[1]))


def _recorded(path: Path) -> tuple[float, ...]:
    """A recording's times, moved to begin at 0."""
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:  # spreadsheets put a mark before the first cell
            reader = csv.reader(file)
            rows = [(reader.line_num, row) for row in reader if row]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise InputError(f"cannot read the recording {path}: {error}", "a CSV file with times in seconds") from error
    column = 0
    heads = [cell.strip() for cell in rows[0][1]] if rows else []
    if heads and (COLUMN in heads or not _TIME.match(heads[0])):
        column = heads.index(COLUMN) if COLUMN in heads else 0
        rows = rows[1:]
    times: list[float] = []
    for number, row in rows:
        where = f"the recording {path}, line {number}"
        if len(row) <= column or not _is_number(row[column]):
            raise InputError(f"{where}: no time in {','.join(row)!r}", "seconds, in the first column or in `start_s`")
        time = float(row[column])
        if time < 0:
            raise InputError(f"{where}: {time:g} is negative", "times count up from a beginning; correct the recording")
        if times and time < times[-1]:
            raise InputError(f"{where}: {time:g} comes after {times[-1]:g}", "sort the recording by time")
        times.append(time)
    if len(times) < 2 or times[-1] == times[0]:
        raise InputError(f"the recording {path} has {len(times)} times", "at least two that differ")
    return tuple(time - times[0] for time in times)


def _is_number(text: str) -> bool:
    try:
        return math.isfinite(float(text))
    except ValueError:
        return False
