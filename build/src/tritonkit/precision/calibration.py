"""What activations look like on real samples: ranges, histograms, and per-channel figures, for int8 and fp8.

Samples run once; every calibration method reads its ranges from the same histograms.
"""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
import onnx
from numpy.typing import NDArray

from tritonkit import samples, store
from tritonkit.errors import SourceError
from tritonkit.graph import Session

Array = NDArray[Any]
Method = Literal["minmax", "percentile", "entropy"]
METHODS: tuple[Method, ...] = ("minmax", "percentile", "entropy")
BINS = 2048  # as TensorRT's entropy calibrator counts (NVIDIA, "8-bit inference with TensorRT", GTC 2017)
LOOKED_AT = 1 << 16  # values of a tensor that enter its histogram, per batch; so many give its shape
PERCENTILE = 99.99
BATCH = 8


@dataclass
class Observed:
    """One activation over all calibration samples.

    Attributes:
        low, high: The extremes.
        absmax, total: Per channel of the last axis (axis 1 for images): largest magnitude, and sum of values.
        count: Values a channel that ``total`` sums.
        histogram: Counts of ``BINS`` equal bins from ``low`` to ``high``.
    """

    low: float = np.inf
    high: float = -np.inf
    absmax: Array = field(default_factory=lambda: np.zeros(0))
    total: Array = field(default_factory=lambda: np.zeros(0))
    count: int = 0
    histogram: Array = field(default_factory=lambda: np.zeros(BINS))

    @property
    def mean(self) -> Array:
        """The mean of each channel."""
        return self.total / max(self.count, 1)


Statistics = Mapping[str, Observed]


def observe(
    facts: Mapping[str, object],
    model: onnx.ModelProto,
    channel_axes: Mapping[str, int],
    dataset: Sequence[samples.Sample],
    *,
    batched: bool,
) -> Statistics:
    """As :func:`collect`, but read from the store if the same was observed before.

    Args:
        facts: What the observations depend on: graph, rewriting, samples.
        model, channel_axes, dataset, batched: See :func:`collect`.
    """
    key = {
        "what": "calibration",
        "facts": dict(facts),
        "axes": dict(channel_axes),
        "samples": len(dataset),
        "tools": store.tool_versions(),
        "code": store.code_hash(*(Path(__file__).with_name(f"{name}.py") for name in _CODE)),
    }

    def write(stage: Path) -> dict[str, int]:
        seen = collect(model, channel_axes, dataset, batched=batched)
        arrays = {
            f"{field}/{name}": np.asarray(getattr(activation, field))
            for name, activation in seen.items()
            for field in _FIELDS
        }
        np.savez(stage / _FILE, **arrays)  # type: ignore[arg-type]
        return {"tensors": len(seen)}

    with np.load(store.derive(key, write)[0].path / _FILE) as kept:
        return {
            name: Observed(
                float(kept[f"low/{name}"]), float(kept[f"high/{name}"]), kept[f"absmax/{name}"], kept[f"total/{name}"],
                int(kept[f"count/{name}"]), kept[f"histogram/{name}"],
            )
            for name in channel_axes
        }  # fmt: skip


_FILE = "observed.npz"
_FIELDS = ("low", "high", "absmax", "total", "count", "histogram")
_CODE = ("calibration", "cpu", "onnxgraph", "refine")  # the modules that the observed numbers depend on


def collect(
    model: onnx.ModelProto, channel_axes: Mapping[str, int], dataset: Sequence[samples.Sample], *, batched: bool = True
) -> dict[str, Observed]:
    """Run samples and watch tensors.

    Args:
        model: A graph whose outputs are the tensors to watch.
        channel_axes: Every tensor's channel axis.
        dataset: Calibration samples.
        batched: Whether the graph takes a batch dimension that the samples lack.

    Raises:
        SourceError: There are no samples, all are the same, or an activation is not finite.
    """
    check_samples(dataset)
    session = Session(model)
    seen = {name: Observed() for name in channel_axes}
    groups = [
        samples.batch(group, len(group)) if batched else group[0] for group in grouped(dataset, BATCH if batched else 1)
    ]
    random = np.random.default_rng(0)
    # A histogram needs the whole range, which is known at the end: until then its values lie on disk.
    with tempfile.TemporaryDirectory(prefix="tritonkit-calibration-") as directory:
        files = [Path(directory, f"{index}.npz") for index in range(len(groups))]
        for index, (batch, file) in enumerate(zip(groups, files, strict=True)):
            drawn = {}
            for name, array in session.run(batch).items():
                _extend(seen[name], name, index, array, channel_axes[name])
                drawn[name] = _drawn(array.reshape(-1), random)
            np.savez(file, **drawn)  # type: ignore[arg-type]
        for file in files:
            with np.load(file) as kept:
                for name, activation in seen.items():
                    width = max(activation.high - activation.low, 1e-12)
                    values = kept[name].astype(np.float64)
                    activation.histogram += np.histogram(values, BINS, (activation.low, activation.low + width))[0]
    return seen


def _drawn(flat: Array, random: np.random.Generator) -> Array:
    """At most ``LOOKED_AT`` of the values, by chance."""
    return flat[random.integers(0, flat.size, LOOKED_AT)] if flat.size > LOOKED_AT else flat


def check_samples(dataset: Sequence[samples.Sample]) -> None:
    """Refuse samples that cannot give a range.

    Raises:
        SourceError: There are no samples, or all are equal.
    """
    if not dataset:
        raise SourceError(
            "there is no sample to calibrate on", "name `samples` in the recipe: a function that yields real inputs"
        )
    first = dataset[0]
    if len(dataset) > 1 and all(
        all(np.array_equal(sample[name], first[name]) for name in first) for sample in dataset[1:]
    ):
        raise SourceError(
            f"all {len(dataset)} calibration samples are the same",
            "let `samples` yield inputs that differ, as production's do",
        )


def grouped(dataset: Sequence[samples.Sample], size: int = BATCH) -> list[list[samples.Sample]]:
    """Samples of equal shapes together, at most ``size`` in a group."""
    groups: dict[tuple[tuple[int, ...], ...], list[samples.Sample]] = {}
    for sample in dataset:
        groups.setdefault(tuple(array.shape for array in sample.values()), []).append(sample)
    return [group[start : start + size] for group in groups.values() for start in range(0, len(group), size)]


def _extend(activation: Observed, name: str, index: int, array: Array, axis: int) -> None:
    # Reduced in place: bringing the channels of images to the end would copy every activation.
    others = tuple(other for other in range(array.ndim) if other != axis % array.ndim)
    low, high = array.min(axis=others), array.max(axis=others)
    if not (np.isfinite(low).all() and np.isfinite(high).all()):  # both keep a NaN
        raise SourceError(
            f"the activation {name!r} has NaN or infinite values on calibration batch {index}",
            "remove the sample that causes them, or keep this model at fp32",
        )
    activation.low, activation.high = min(activation.low, float(low.min())), max(activation.high, float(high.max()))
    absmax, total = np.maximum(np.abs(low), np.abs(high)), array.sum(axis=others, dtype=np.float64)
    activation.absmax = np.maximum(activation.absmax, absmax) if activation.absmax.size else absmax
    activation.total = activation.total + total if activation.total.size else total
    activation.count += array.size // array.shape[axis]


def limits(activation: Observed, method: Method, levels: int = 256) -> tuple[float, float]:
    """The range of an activation that a quantizer should resolve, by a method; it always contains zero."""
    low, high = activation.low, activation.high
    if method == "percentile":
        low, high = _percentile(activation)
    elif method == "entropy":
        low, high = _entropy(activation, levels)
    return min(low, 0.0), max(high, 0.0)


def _edges(activation: Observed) -> Array:
    return np.linspace(activation.low, activation.low + max(activation.high - activation.low, 1e-12), BINS + 1)


def _percentile(activation: Observed) -> tuple[float, float]:
    share = np.cumsum(activation.histogram) / max(activation.histogram.sum(), 1)
    edges = _edges(activation)
    tail = (100 - PERCENTILE) / 100
    low = edges[int(np.searchsorted(share, tail, side="right"))]
    high = edges[min(int(np.searchsorted(share, 1 - tail)) + 1, BINS)]
    return float(low), float(high)


def _entropy(activation: Observed, levels: int) -> tuple[float, float]:
    """The magnitude whose clipped and quantized histogram is nearest to the whole one (Kullback-Leibler divergence)."""
    edges = _edges(activation)
    centres = np.abs((edges[:-1] + edges[1:]) / 2)
    top = max(abs(activation.low), abs(activation.high), 1e-12)
    counts, _ = np.histogram(centres, BINS, (0, top), weights=activation.histogram)
    signed = activation.low < 0
    steps = levels // 2 if signed else levels
    best, bound = np.inf, top
    for stop in range(steps, BINS + 1, 16):
        divergence = _divergence(counts, stop, steps)
        if divergence < best:
            best, bound = divergence, top * stop / BINS
    return (max(-bound, activation.low), min(bound, activation.high)) if signed else (0.0, bound)


def _divergence(counts: Array, stop: int, steps: int) -> float:
    counts = counts.copy()
    counts[0] = counts[1]  # zeros are exact at any scale, and there are so many that they would decide
    reference = counts[:stop].copy()
    reference[-1] += counts[stop:].sum()
    groups = (np.arange(stop) * steps) // stop
    filled = counts[:stop] > 0
    sums = np.bincount(groups, counts[:stop], steps)
    members = np.bincount(groups, filled, steps)
    spread = np.divide(sums, members, out=np.zeros(steps), where=members > 0)[groups] * filled
    p, q = reference / max(reference.sum(), 1), spread / max(spread.sum(), 1)
    with np.errstate(divide="ignore", invalid="ignore"):
        terms = np.where((p > 0) & (q > 0), p * np.log(p / q), 0.0)
    lost = p[(p > 0) & (q == 0)].sum()
    return float(terms.sum() + lost * 20)  # what the quantized histogram cannot express at all weighs heavily
