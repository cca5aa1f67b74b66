"""Every layer of a graph under the roofline of a GPU: what pages draw as SVG, and terminals in letters.

The model is that of S. Williams, A. Waterman and D. Patterson, "Roofline: an insightful visual performance model for
multicore architectures", Communications of the ACM 52(4), 2009.
"""

from __future__ import annotations

from dataclasses import dataclass

from tritonkit import gpus
from tritonkit.advisor import cpu, latency
from tritonkit.advisor.advise import Advice, Candidate
from tritonkit.advisor.graph_cost import Cost, Layer, Precision
from tritonkit.errors import MissingError
from tritonkit.gpus import Gpu

# What stands for a layer in a terminal, by its kind.
LETTERS = {
    "convolution": "c", "depthwise": "d", "matrix": "m", "attention": "a", "recurrent": "r", "elementwise": "e",
    "movement": "v",
}  # fmt: skip
_LINE = "·"
_MARGIN = 10  # columns of the frame and of the labels beside it
_STEPS = 400  # of the line: more than a terminal has columns


@dataclass(frozen=True)
class Point:
    """One layer.

    Attributes:
        layer: Its name, kind and cost.
        intensity: Operations for each byte that it moves.
        speed: Predicted, in TFLOP/s.
        ms: Predicted.
    """

    layer: Layer
    intensity: float
    speed: float
    ms: float


@dataclass(frozen=True)
class Roofline:
    """The two limits of a GPU, and the layers below them.

    Attributes:
        gpu: Whose limits they are.
        precision: Of the layers with weights.
        batch: Samples that the layers work on at once.
        peak: Of arithmetic, dense, in TFLOP/s.
        bandwidth: Of memory, in TB/s.
        points: Layers that compute something.
    """

    gpu: Gpu
    precision: Precision
    batch: int
    peak: float
    bandwidth: float
    points: tuple[Point, ...]

    @property
    def intensities(self) -> tuple[float, float]:
        """The least and the most that is drawn, operations a byte."""
        drawn = [point.intensity for point in self.points]
        return min([1.0, *drawn]), max([10 * self.peak / self.bandwidth, *drawn])

    @property
    def speeds(self) -> tuple[float, float]:
        """The least and the most that is drawn, TFLOP/s."""
        return min([self.peak / 1e3, *(point.speed for point in self.points)]), 2 * self.peak


def of(cost: Cost, candidate: Candidate, batch: int) -> Roofline:
    """The layers of a cost on a candidate's GPU.

    Args:
        cost: Of a batch.
        candidate: A GPU with engine and precision; not the CPU, which has no published peak.
        batch: Its samples.
    """
    gpu = gpus.get(candidate.gpu)
    times = latency.predict(cost, gpu, candidate.precision, latency.coefficients(candidate.engine)).layers
    points = tuple(
        Point(layer, _intensity(layer, candidate.precision), layer.operations / time.ms / 1e9, time.ms)
        for layer, time in zip(cost.layers, times, strict=True)
        if layer.operations and time.ms
    )
    peak = latency.tensor_peak(gpu, candidate.precision)
    return Roofline(gpu, candidate.precision, batch, peak, gpu.bandwidth_gbs / 1e3, points)


def drawn(advice: Advice) -> Candidate | None:
    """The candidate that is drawn: the best one on a GPU whose times are known; None if there is none."""
    known = (candidate for candidate in advice.candidates if candidate.bound and candidate.gpu != cpu.KEY)
    return next(known, None)


def in_letters(roofline: Roofline, width: int, height: int) -> str:
    """The plot for a terminal, a letter for each kind of layer.

    Args:
        roofline: What is drawn.
        width: Columns, frame and labels included.
        height: Lines of the plot itself.

    Raises:
        MissingError: uniplot is not installed.
    """
    try:
        import numpy as np
        from uniplot import plot_to_string
    except ModuleNotFoundError as error:
        raise MissingError(
            f"{error.name} is not installed, which draws in terminals", "pip install 'tritonkit[advisor]'"
        ) from error
    low, high = roofline.intensities
    line = np.geomspace(low, high, _STEPS)
    limit = np.minimum(line * roofline.bandwidth, roofline.peak)
    kinds = list(dict.fromkeys(point.layer.kind for point in roofline.points))
    layers = [[point for point in roofline.points if point.layer.kind == kind] for kind in kinds]
    text = plot_to_string(
        xs=[line, *([point.intensity for point in points] for points in layers)],
        ys=[limit, *([point.speed for point in points] for points in layers)],
        x_as_log=True, y_as_log=True, y_min=roofline.speeds[0], y_max=roofline.speeds[1],
        lines=False, color=False, character_set="ascii",
        force_ascii_characters=[_LINE, *(LETTERS[kind] for kind in kinds)],
        legend_labels=["limit", *kinds], width=width - _MARGIN, height=height,
    )  # fmt: skip
    title = f"TFLOP/s over operations a byte, batch {roofline.batch} on {roofline.gpu.name} in {roofline.precision}"
    title += "\nabove the slope is what the level 2 cache holds"
    return f"{title}\n{text if isinstance(text, str) else chr(10).join(text)}"


def _intensity(layer: Layer, precision: Precision) -> float:
    moved = (layer.floats + layer.weights) * latency.BYTES[precision] + layer.other_bytes
    return layer.operations / max(moved, 1.0)
