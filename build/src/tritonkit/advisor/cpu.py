"""How long a batch takes on one core of a CPU with onnxruntime, so that a graph's advice has a row without a GPU.

The coefficients are of one machine, an AMD EPYC virtual machine with AVX512-VNNI (docs/measurements/serving.md), fitted
and checked by :mod:`tritonkit.advisor.validation_cpu`. Another CPU is another machine: ``make tune`` measures it.
"""

from __future__ import annotations

import functools
import json
from collections.abc import Mapping
from dataclasses import dataclass
from importlib import resources
from typing import Literal

from tritonkit.advisor.graph_cost import Cost, Layer
from tritonkit.advisor.queueing import Service

KEY = "cpu"
Precision = Literal["fp32", "int8"]
PRECISIONS: tuple[Precision, ...] = ("fp32", "int8")
# What Triton adds to a lone request: 12.37 less 9.47 ms, and 8.41 less 5.29 ms (docs/measurements/serving.md).
REQUEST_MS = 3.1
# An instance keeps to one core, and Triton's work takes its own: served over in process is 0.93 and 1.00 on one core.
SERVED_SHARE = 0.93
_WEIGHTED = {"convolution", "depthwise", "matrix"}


@dataclass(frozen=True)
class CpuCoefficients:
    """What one core reaches.

    Attributes:
        gflops: 10^9 operations a second of products and convolutions in fp32.
        depthwise: Depthwise convolutions, as a share of that.
        int8: How many times faster both are in int8.
        memory_gbs: 10^9 bytes a second from memory: of weights, and of activations that no cache holds.
        cache_gbs: The same of activations that the cache holds.
        cache_mib: Of a layer's activations that the cache holds.
        layer_us: Microseconds of a layer beside its work.
    """

    gflops: float
    depthwise: float
    int8: float
    memory_gbs: float
    cache_gbs: float
    cache_mib: float
    layer_us: float


@functools.cache
def coefficients() -> CpuCoefficients:
    """The fitted coefficients, from ``coefficients.json``."""
    text = resources.files("tritonkit.advisor").joinpath("coefficients.json").read_text(encoding="utf-8")
    return CpuCoefficients(**json.loads(text)[KEY])


def batch_ms(cost: Cost, precision: Precision, known: CpuCoefficients) -> float:
    """The time of one batch on one core, from and to host memory."""
    return sum(_layer_ms(layer, precision, known) for layer in cost.layers)


def service(batches: Mapping[int, Cost], precision: Precision, known: CpuCoefficients) -> Service:
    """One core with one instance, behind Triton."""
    times = {size: batch_ms(cost, precision, known) / SERVED_SHARE for size, cost in batches.items()}
    return Service(times, REQUEST_MS)


def memory_bytes(batches: Mapping[int, Cost], precision: Precision) -> int:
    """Host memory of one instance: weights, and the activations of its largest batch twice, as arenas double."""
    largest = batches[max(batches)]
    return int(largest.weights * (1 if precision == "int8" else 4) + 2 * 4 * largest.peak_floats)


def _layer_ms(layer: Layer, precision: Precision, known: CpuCoefficients) -> float:
    narrow = precision == "int8" and layer.kind in _WEIGHTED
    width = 1 if narrow else 4
    rate = (
        known.gflops * 1e9 * (known.int8 if narrow else 1.0) * (known.depthwise if layer.kind == "depthwise" else 1.0)
    )
    activations = layer.floats * width + layer.other_bytes
    held = activations <= known.cache_mib * 2**20
    moved = activations / ((known.cache_gbs if held else known.memory_gbs) * 1e9)
    seconds = layer.operations / rate + moved + layer.weights * width / (known.memory_gbs * 1e9)
    return seconds * 1e3 + known.layer_us / 1e3
