"""Fits the coefficients of the latency model, and says how far it is off on rows that it was not fitted on.

Rows are in ``measurements.json``. TensorRT's are held out a GPU at a time, onnxruntime's a workload at a time (a model
in a precision): each is predicted with coefficients that never saw it. What ships is fitted on all rows,
and GPUs with rows of their own keep a factor of theirs.
"""

from __future__ import annotations

import json
import math
import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields
from importlib import resources
from pathlib import Path
from typing import Any, cast

from tritonkit import atomic, gpus
from tritonkit.advisor import fitting, latency, serving
from tritonkit.advisor.graph_cost import Precision
from tritonkit.advisor.latency import Coefficients, Engine
from tritonkit.advisor.references import reference

FILE = "coefficients.json"
SERVED = "Behind Triton on an H200, 256 in flight; HOST_MS is of the rows with two instances"
BATCHES = (1, 4, 16, 64, 256)  # of which a row without a batch takes the fastest
# The goals: held out, as shares of what was measured.
MEDIAN, WORST = 0.20, 0.40
# Where the fit begins, and between what it stays. TensorRT's rows are of full batches alone and say nothing of launches
# and copies: these stay. 2 µs is a small kernel's least time in a CUDA graph; 10^9 bytes a second are pinned copies'.
_START: dict[Engine, Coefficients] = {
    "tensorrt": Coefficients(0.5, 0.6, 0.3, 0.2, 0.75, 2.0, 2.0, 5.0, 20.0, 20.0),
    "onnxruntime": Coefficients(0.3, 0.5, 0.2, 0.1, 0.6, 2.0, 6.0, 15.0, 4.0, 50.0),
}
_FITTED: dict[Engine, tuple[str, ...]] = {
    "tensorrt": ("convolution", "matrix", "memory", "cache"),
    "onnxruntime": (
        "convolution", "matrix", "attention", "depthwise", "memory", "graph_us", "launch_us", "copy_gbs", "call_us",
    ),
}  # fmt: skip
_LIMITS = {
    "convolution": (0.05, 1.0), "matrix": (0.05, 1.0), "attention": (0.02, 1.0), "depthwise": (0.02, 1.0),
    "memory": (0.2, 0.95), "cache": (1.0, 4.0), "graph_us": (1.0, 20.0), "launch_us": (3.0, 60.0),
    "copy_gbs": (1.0, 60.0), "call_us": (0.0, 500.0),
}  # fmt: skip


@dataclass(frozen=True)
class Row:
    """One measured figure.

    Attributes:
        measured: Milliseconds a batch, or samples a second.
        unit: ``ms`` or ``samples/s``.
        batch: Samples in a batch; None where the source says none, and the fastest counts.
    """

    source: str
    model: str
    sizes: dict[str, int]
    gpu: str
    engine: Engine
    precision: Precision
    graphs: bool
    batch: int | None
    measured: float
    unit: str

    @property
    def workload(self) -> str:
        """A model in a precision."""
        return f"{self.model} {self.precision}"

    def predict(self, known: Coefficients) -> float:
        """The same figure, predicted."""
        gpu = gpus.get(self.gpu)

        def ms(batch: int) -> float:
            cost = reference(self.model, self.sizes, batch)
            prediction = latency.predict(cost, gpu, self.precision, known, graphs=self.graphs)
            # Offline, copies run beside the batch before: only what the GPU computes counts.
            return prediction.gpu_ms if self.unit == "samples/s" else prediction.ms

        if self.unit == "ms":
            return ms(self.batch or 1)
        return max(1e3 * batch / ms(batch) for batch in ([self.batch] if self.batch else BATCHES))


@dataclass(frozen=True)
class Check:
    """A row, what was predicted for it, and what was held out with it."""

    row: Row
    predicted: float
    held_out: str

    @property
    def error(self) -> float:
        """Predicted over measured, less 1."""
        return self.predicted / self.row.measured - 1


def rows() -> list[Row]:
    """Every measured row."""
    data = measurements()
    return [Row(**dict(zip(data["columns"], row, strict=True))) for row in data["rows"]]


def fit(engine: Engine, on: Sequence[Row]) -> Coefficients:
    """Coefficients that fit some rows best, by relative error.

    Raises:
        MissingError: SciPy is not installed.
    """
    limits = {name: _LIMITS[name] for name in _FITTED[engine]}

    def misses(known: Coefficients) -> list[float]:
        return [math.log(row.predict(known) / row.measured) for row in on]

    return fitting.fit(_START[engine], limits, misses, loss="soft_l1", f_scale=0.2)


def held_out(engine: Engine) -> list[Check]:
    """Every row of an engine, predicted by a fit on the rows of other GPUs (TensorRT) or workloads (onnxruntime)."""
    own = [row for row in rows() if row.engine == engine]
    by: Callable[[Row], str] = (lambda row: row.gpu) if engine == "tensorrt" else (lambda row: row.workload)
    checks = []
    for group in dict.fromkeys(map(by, own)):
        known = fit(engine, [row for row in own if by(row) != group])
        checks += [Check(row, row.predict(known), group) for row in own if by(row) == group]
    return checks


def fitted(engine: Engine) -> list[Check]:
    """Every row of an engine, predicted by the coefficients that ship, which were fitted on all of them."""
    return [Check(row, row.predict(latency.coefficients(engine)), "") for row in rows() if row.engine == engine]


def served() -> list[tuple[str, int, float, float]]:
    """Model, instances, requests a second measured with 256 in flight, and predicted, with the shipped coefficients."""
    results = []
    for _, model, sizes, key, precision, instances, _, measured, _ in measurements()["served"]:
        known = latency.coefficients("onnxruntime")
        batches = {size: reference(model, sizes, size) for size in serving.batch_sizes(64)}
        replica = serving.service(batches, gpus.get(key), precision, "onnxruntime", known, instances)
        results.append((f"{model} {precision}", instances, float(measured), replica.most_rps))
    return results


def summary(checks: Sequence[Check]) -> tuple[float, float]:
    """The median and the worst error, without signs."""
    errors = [abs(check.error) for check in checks]
    return statistics.median(errors), max(errors)


def write() -> Path:
    """Fit on all rows, and write ``coefficients.json`` beside this module."""
    from tritonkit.advisor import validation_cpu

    path = Path(__file__).with_name(FILE)
    engines: tuple[Engine, ...] = ("onnxruntime", "tensorrt")
    fits = {engine: fit(engine, [row for row in rows() if row.engine == engine]) for engine in engines}
    entries: dict[str, dict[str, float]] = {
        str(engine): {
            field.name: round(getattr(known, field.name), 4) for field in fields(known) if field.name != "gpus"
        }
        for engine, known in fits.items()
    }
    entries["gpus"] = _own_factors(fits["tensorrt"])
    entries["cpu"] = validation_cpu.fit_all()
    atomic.write(path, (json.dumps(entries, indent=2) + "\n").encode())
    return path


def _own_factors(known: Coefficients) -> dict[str, float]:
    """How much longer each GPU's rows take than a fit on all of them says: the geometric mean."""
    logs: dict[str, list[float]] = {}
    for row in rows():
        if row.engine == "tensorrt":
            logs.setdefault(row.gpu, []).append(math.log(row.predict(known) / row.measured))
    return {gpu: round(math.exp(statistics.fmean(own)), 3) for gpu, own in logs.items()}


def measurements() -> dict[str, Any]:
    """``measurements.json``, as parsed."""
    text = resources.files("tritonkit.advisor").joinpath("measurements.json").read_text(encoding="utf-8")
    return cast("dict[str, Any]", json.loads(text))
