"""Fits the coefficients of one CPU core, and says how far they are off on workloads that the fit never saw.

Each workload, a model in a precision, is predicted by a fit on the others. Rows are in ``measurements.json``.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass

from tritonkit.advisor import cpu, fitting, validation
from tritonkit.advisor.cpu import CpuCoefficients, Precision
from tritonkit.advisor.references import reference

BOUND = 0.30  # the goal: each row within so much of what was measured
# Where the fit begins: a core of some 3 GHz with two AVX-512 units, a share of the machine's memory, its part of the
# level 3 cache. What two models hardly say stays there.
START = CpuCoefficients(150.0, 0.5, 2.3, 12.0, 60.0, 16.0, 5.0)
_LIMITS = {
    "gflops": (20.0, 400.0), "depthwise": (0.02, 1.0), "int8": (1.0, 4.0), "memory_gbs": (2.0, 60.0),
    "cache_gbs": (10.0, 400.0),
}  # fmt: skip


@dataclass(frozen=True)
class Row:
    """One measured figure: a batch in one process, on one core, with one thread.

    Attributes:
        source: A key of the file's sources.
        model: A reference.
        sizes: Of its moving dimensions.
        precision: fp32 or int8.
        batch: Samples.
        ms: Milliseconds.
    """

    source: str
    model: str
    sizes: dict[str, int]
    precision: Precision
    batch: int
    ms: float

    @property
    def workload(self) -> str:
        """A model in a precision."""
        return f"{self.model} {self.precision}"

    def predict(self, known: CpuCoefficients) -> float:
        """The same, predicted."""
        return cpu.batch_ms(reference(self.model, self.sizes, self.batch), self.precision, known)


@dataclass(frozen=True)
class Check:
    """A row and what was predicted for it."""

    row: Row
    predicted: float

    @property
    def error(self) -> float:
        """Predicted over measured, less 1."""
        return self.predicted / self.row.ms - 1


def rows() -> list[Row]:
    """Every measured row."""
    data = validation.measurements()
    return [Row(**dict(zip(data["cpu_columns"], row, strict=True))) for row in data["cpu"]]


def fit(on: Sequence[Row]) -> CpuCoefficients:
    """Coefficients that fit some rows best, by relative error.

    Raises:
        MissingError: SciPy is not installed.
    """

    def misses(known: CpuCoefficients) -> list[float]:
        return [math.log(row.predict(known) / row.ms) for row in on]

    return fitting.fit(START, _LIMITS, misses)


def fit_all() -> dict[str, float]:
    """The coefficients that ship, rounded as the file has them."""
    return {name: round(value, 4) for name, value in asdict(fit(rows())).items()}


def held_out() -> list[Check]:
    """Every row, predicted by a fit on the rows of other workloads."""
    every = rows()
    checks = []
    for workload in dict.fromkeys(row.workload for row in every):
        known = fit([row for row in every if row.workload != workload])
        checks += [Check(row, row.predict(known)) for row in every if row.workload == workload]
    return checks


def fitted() -> list[Check]:
    """Every row, predicted by the coefficients that ship."""
    return [Check(row, row.predict(cpu.coefficients())) for row in rows()]
