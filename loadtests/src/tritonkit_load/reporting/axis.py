"""Where a value lies along an axis, and which values are written beside it; draws nothing."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Protocol, Self

HEADROOM = 1.06  # of the largest value: a mark at the edge is seen whole
WIDE = 50.0  # the largest value over the smallest, from which a linear axis would press the small ones flat
MOST_TICKS = 7
NINES = 6.0  # a percentile axis ends at 99.9999


class Scale(Protocol):
    """One kind of axis, fitted to values."""

    @classmethod
    def over(cls, values: Iterable[float]) -> Self:
        """The axis on which all of these values have a place."""

    def part(self, value: float) -> float:
        """How far along the axis a value lies, 0 to 1; NaN where it has no place."""

    def ticks(self) -> list[tuple[float, str]]:
        """The values to write beside it, and how they are written."""


@dataclass(frozen=True)
class Axis:
    """What an axis counts, with its unit, and its kind of scale."""

    label: str
    scale: type[Scale]


@dataclass(frozen=True)
class Linear:
    """From zero to ``reach``."""

    reach: float

    @classmethod
    def over(cls, values: Iterable[float]) -> Self:
        """Up to a little more than the largest value."""
        largest = max(values, default=0.0)
        return cls(largest * HEADROOM if largest > 0 else 1.0)

    def part(self, value: float) -> float:
        """In proportion."""
        return value / self.reach

    def ticks(self) -> list[tuple[float, str]]:
        """Round numbers from zero."""
        return [(value, written(value, self.reach)) for value in ticks(self.reach)]


@dataclass(frozen=True)
class Clock:
    """Seconds, with zero where the measurement begins; a warm-up lies before that."""

    start: float
    reach: float

    @classmethod
    def over(cls, values: Iterable[float]) -> Self:
        """From the first value, or zero, to a little more than the largest."""
        known = [*values]
        return cls(min([0.0, *known]), Linear.over(known).reach)

    def part(self, value: float) -> float:
        """In proportion."""
        return (value - self.start) / (self.reach - self.start)

    def ticks(self) -> list[tuple[float, str]]:
        """Round numbers from zero."""
        return Linear(self.reach).ticks()


class Whole(Linear):
    """From zero, for what is counted: ticks are whole numbers."""

    def ticks(self) -> list[tuple[float, str]]:
        """Those of the linear axis that are whole."""
        return [(value, text) for value, text in super().ticks() if value == int(value)]


@dataclass(frozen=True)
class Log:
    """Each factor of ten has the same length; what is not above zero has no place."""

    low: float
    high: float

    @classmethod
    def over(cls, values: Iterable[float]) -> Self:
        """From the smallest value above zero to the largest, each with some room."""
        positive = [value for value in values if value > 0] or [1.0]
        return cls(min(positive) / 1.25, max(positive) * 1.25)

    def part(self, value: float) -> float:
        """In proportion to the logarithms."""
        return math.log(value / self.low) / math.log(self.high / self.low) if value > 0 else math.nan

    def ticks(self) -> list[tuple[float, str]]:
        """1, 2 and 5 of each power of ten, or powers alone, whichever are few enough."""
        decades = range(math.floor(math.log10(self.low)), math.ceil(math.log10(self.high)) + 1)
        for factors, every in (((1, 2, 5), 1), ((1, 3), 1), ((1,), 1), ((1,), 2), ((1,), 4)):
            values = [factor * 10.0**power for power in decades if power % every == 0 for factor in factors]
            tick_values = [value for value in values if self.low <= value <= self.high]
            if len(tick_values) <= MOST_TICKS:
                break
        return [(value, written(value, value)) for value in tick_values]


@dataclass(frozen=True)
class Percentile:
    """Shares of all requests, 0 to 1; from 90 % to 99 % is as far as from 99 % to 99.9 %."""

    nines: float

    @classmethod
    def over(cls, values: Iterable[float]) -> Self:
        """Up to the largest share below one."""
        return cls(max((nines(value) for value in values), default=1.0) * HEADROOM or 1.0)

    def part(self, value: float) -> float:
        """In proportion to the number of nines."""
        return nines(value) / self.nines

    def ticks(self) -> list[tuple[float, str]]:
        """0, 50, 90, 99, 99.9 and so on, in percent."""
        shares = [0.0, 0.5, 0.9, *(1 - 10.0**-power for power in range(2, int(NINES) + 1))]
        return [(share, f"{share * 100:.6g}") for share in shares if nines(share) <= self.nines]


def nines(share: float) -> float:
    """How many nines a share of all has: 1 for 90 %, 2 for 99 %; at most ``NINES``."""
    return min(-math.log10(1 - share), NINES) if share < 1 else NINES


def fitting(label: str, values: Iterable[float]) -> Axis:
    """A linear axis, or a logarithmic one where the values differ too much for that, which its label then says."""
    positive = [value for value in values if value > 0 and math.isfinite(value)]
    if positive and max(positive) / min(positive) > WIDE:
        return Axis(f"{label}, log scale", Log)
    return Axis(label, Linear)


def ticks(reach: float) -> list[float]:
    """Round numbers from 0 up to ``reach``, four to seven of them."""
    raw = reach / 6.25
    power = 10.0 ** math.floor(math.log10(raw))
    step = next(power * factor for factor in (1, 2, 2.5, 5, 10) if power * factor >= raw)
    return [float(f"{step * i:.6g}") for i in range(math.floor(reach / step + 1e-9) + 1)]


def written(value: float, largest: float) -> str:
    """A tick as short as its axis needs: 2,000 and 20k and 3M."""
    for unit, letter in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if largest >= max(unit, 1e4):
            return f"{value / unit:,.6g}{letter}" if value else "0"
    return f"{value:,.6g}"
