"""How long one batch takes on a GPU: a roofline for every layer, what a launch costs, and the copies around them.

The coefficients, fractions of the published peaks, are fitted and checked by :mod:`tritonkit.advisor.validation`. How
long a request waits for its batch is for :mod:`tritonkit.advisor.queueing`.
"""

from __future__ import annotations

import functools
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib import resources
from typing import Literal

from tritonkit.advisor.graph_cost import Cost, Layer, Precision
from tritonkit.gpus import Gpu

Engine = Literal["onnxruntime", "tensorrt"]
Bound = Literal["compute", "memory", "launches", "copies"]

BYTES: Mapping[str, float] = {"fp32": 4, "fp16": 2, "bf16": 2, "int8": 1, "fp8": 1}
_NARROW = {"int8", "fp8"}  # of layers with weights alone; all others stay in fp16
_WEIGHTED = {"convolution", "depthwise", "matrix"}
_TILE = 128  # rows and columns that one multiprocessor works on at a time: CUTLASS's usual threadblock tile
_GB, _MIB = 1e9, 2**20


@dataclass(frozen=True)
class Coefficients:
    """What an engine reaches of a GPU's published peaks.

    Attributes:
        convolution: Fraction of the peak of the precision that convolutions reach when all multiprocessors have work.
        matrix: The same of products with weights.
        attention: The same of products of activations.
        depthwise: Fraction of the fp32 peak without tensor cores that depthwise convolutions reach.
        memory: Fraction of the memory bandwidth.
        cache: How many times faster than memory the level 2 cache is, for layers whose activations fit into half of it.
        graph_us: Microseconds of a layer beside its work, on the GPU.
        launch_us: Microseconds of the host for a layer that is launched by itself, while the GPU works.
        copy_gbs: 10^9 bytes a second from and to pageable host memory.
        call_us: Microseconds of one call beside its layers and bytes.
        gpus: GPU to how much longer its layers take than these fractions say, by its own measured rows: a T4's clocks
            fall at its power limit of 70 W (Jia et al. 2019, arXiv:1903.07486), which no peak says.
    """

    convolution: float
    matrix: float
    attention: float
    depthwise: float
    memory: float
    cache: float
    graph_us: float
    launch_us: float
    copy_gbs: float
    call_us: float
    gpus: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class LayerTime:
    """One layer's time in milliseconds, by what it would take if only that counted."""

    compute_ms: float
    memory_ms: float
    begin_ms: float

    @property
    def ms(self) -> float:
        """The roofline, and what a kernel takes to begin and end."""
        return max(self.compute_ms, self.memory_ms) + self.begin_ms


@dataclass(frozen=True)
class Prediction:
    """The time of one batch.

    Attributes:
        layers: One a layer, in the cost's order.
        copy_ms: Bytes from and to the host, and the call itself.
        launch_ms: Of the host for launching all layers one by one; 0 in a CUDA graph.
    """

    layers: tuple[LayerTime, ...]
    copy_ms: float
    launch_ms: float = 0.0

    @property
    def gpu_ms(self) -> float:
        """Without copies: what the GPU works, or what the host launches, whichever is longer."""
        return max(sum(layer.ms for layer in self.layers), self.launch_ms)

    @property
    def ms(self) -> float:
        """From host memory to host memory."""
        return self.gpu_ms + self.copy_ms

    @property
    def shares(self) -> Mapping[Bound, float]:
        """Milliseconds by what bounds them; they add up to :attr:`ms`."""
        compute = sum(layer.compute_ms for layer in self.layers if layer.compute_ms >= layer.memory_ms)
        memory = sum(layer.memory_ms for layer in self.layers if layer.compute_ms < layer.memory_ms)
        launches = self.gpu_ms - compute - memory
        return {"compute": compute, "memory": memory, "launches": launches, "copies": self.copy_ms}

    @property
    def bound(self) -> Bound:
        """What most of the time goes to."""
        shares = self.shares
        return max(shares, key=lambda name: shares[name])


@functools.cache
def coefficients(engine: Engine) -> Coefficients:
    """The fitted coefficients of an engine, from ``coefficients.json``."""
    text = resources.files("tritonkit.advisor").joinpath("coefficients.json").read_text(encoding="utf-8")
    data = json.loads(text)
    return Coefficients(**data[engine], gpus=data["gpus"])


def supports(gpu: Gpu, precision: Precision) -> bool:
    """Whether a GPU's peak in a precision is published; without one nothing can be predicted."""
    return precision in gpu.peaks


def predict(
    cost: Cost, gpu: Gpu, precision: Precision, known: Coefficients, *, graphs: bool = True, share: float = 1.0
) -> Prediction:
    """The time of one batch.

    Args:
        cost: Of the graph at the batch's size.
        gpu: It has a peak in that precision.
        precision: Of the layers with weights; with int8 and fp8 all others are in fp16.
        known: What the engine reaches.
        graphs: Whether launches are replayed as a CUDA graph.
        share: Of the GPU, for a MIG slice: 2/7 for ``2g``.
    """
    layers = tuple(_layer(layer, gpu, precision, known, share) for layer in cost.layers)
    moved = cost.input_bytes + cost.output_bytes
    rate = min(known.copy_gbs, gpu.pcie_gbs) * _GB
    launch_ms = 0.0 if graphs else len(layers) * known.launch_us / 1e3
    return Prediction(layers, moved / rate * 1e3 + known.call_us / 1e3, launch_ms)


def tensor_peak(gpu: Gpu, precision: str) -> float:
    """Peak in 10^12 operations a second; fp32 runs as TF32 where the GPU has it, as both engines do by default."""
    return gpu.peaks.get("tf32", gpu.peaks["fp32"]) if precision == "fp32" else gpu.peaks[precision]


def _layer(layer: Layer, gpu: Gpu, precision: Precision, known: Coefficients, share: float) -> LayerTime:
    narrow = precision in _NARROW
    own = "fp16" if narrow and layer.kind not in _WEIGHTED else precision
    compute = 0.0
    if layer.kind == "depthwise":
        compute = layer.operations / (gpu.peaks["fp32"] * 1e12 * share * known.depthwise)
    elif layer.operations:
        fraction = {"convolution": known.convolution, "attention": known.attention}.get(layer.kind, known.matrix)
        used = _utilization(layer, max(1, round(gpu.sms * share)))
        compute = layer.operations / (tensor_peak(gpu, own) * 1e12 * share * fraction * used)
    bandwidth = gpu.bandwidth_gbs * _GB * share * known.memory
    activations = layer.floats * BYTES[own] + layer.other_bytes
    weights = layer.weights * BYTES[own]
    near = activations <= gpu.l2_mib * share * _MIB / 2
    seconds = activations / (bandwidth * (known.cache if near else 1.0)) + weights / bandwidth
    longer = known.gpus.get(gpu.key, 1.0) * 1e3
    return LayerTime(compute * longer, seconds * longer, known.graph_us / 1e3)


def _utilization(layer: Layer, sms: int) -> float:
    """Share of the multiprocessors with work, on average over waves of tiles; small products split their depth."""
    if not layer.rows:
        return 1.0
    tiles = max(1.0, layer.rows / _TILE) * max(1.0, layer.columns / _TILE)
    if tiles >= sms:
        waves = -(-tiles // sms)
        return float(tiles / (waves * sms))
    return float((tiles / sms) ** 0.5)
