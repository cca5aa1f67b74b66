"""Finds the 8-bit graph that loses least: calibration method, smoothing and bias correction, chosen by measuring.

Samples are split by their order: calibration, then selection (what this search compares by). The gate judges on
later ones still.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence, Set
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
import onnx

from tritonkit import samples
from tritonkit.advisor import operators
from tritonkit.errors import CheckFailed
from tritonkit.graph import Session
from tritonkit.precision import calibration, metrics, onnxgraph, qdq, refine, speed
from tritonkit.precision import work as works
from tritonkit.precision.calibration import METHODS, Method, Statistics
from tritonkit.precision.onnxgraph import OnnxGraph
from tritonkit.precision.qdq import Scheme
from tritonkit.recipe import Recipe

ALPHAS = (0.65, 0.8)  # SmoothQuant's migration strengths; below 0.5 made the shipped transformer worse
HOPELESS_DB = 6.0  # a method that is this much worse without smoothing is not tried again with it
MIN_CHANNELS = 16  # narrower convolutions are faster in fp16 on tensor cores (NVIDIA Model Optimizer's rule)


@dataclass(frozen=True)
class Choice:
    """One way to quantize.

    Attributes:
        method: How ranges are read from histograms.
        alpha: Strength of smoothing; None leaves activations as they are.
        corrected: Whether biases make up for rounded weights.
    """

    method: Method
    alpha: float | None = None
    corrected: bool = False


@dataclass(frozen=True)
class SearchResult:
    """The best graph, and how it was found.

    Attributes:
        model: With Q/DQ, in fp32 elsewhere.
        choice: What won.
        tried: Every choice with its signal to noise ratio (dB) on the selection samples.
        quantized: Names of the nodes in 8 bits.
        kept: Names of compute nodes with constant weights that are not.
        outputs: What the graph gives for the selection samples.
    """

    model: onnx.ModelProto
    choice: Choice
    tried: list[dict[str, Any]]
    quantized: list[str]
    kept: list[str]
    outputs: list[dict[str, Any]]


class Search:
    """Quantizes one graph in many ways; it keeps what it observed.

    Args:
        recipe: For its batching and its calibration method, if it names one.
        graph: In fp32. What it computes at first is the truth, whatever becomes of it before the search begins.
        scheme: What 8 bits mean on the target.
        facts: What the graph and the samples are, for the store.
        calibrating: Samples for ranges.
        selecting: Samples to compare by.
        step: Called with a text as each step begins.
    """

    def __init__(
        self,
        recipe: Recipe,
        graph: OnnxGraph,
        scheme: Scheme,
        facts: Mapping[str, object],
        calibrating: Sequence[samples.Sample],
        selecting: Sequence[samples.Sample],
        step: Callable[[str], None] = lambda _: None,
    ) -> None:
        self.recipe, self.graph, self.scheme = recipe, graph, scheme
        self.facts, self.calibrating, self.step = facts, calibrating, step
        self._truth = Session(graph.model)
        self.widen(selecting)
        self._observed: dict[float | None, Statistics] = {}
        self.all = eligible(graph, scheme)

    def best(self) -> SearchResult:
        """Try choices one after another, each from the best so far, with every node in 8 bits that can be."""
        tried: list[tuple[Choice, float]] = []
        winning: list[tuple[onnx.ModelProto, list[dict[str, Any]]]] = []  # the best so far

        def attempt(choice: Choice) -> None:
            if choice not in [other for other, _ in tried]:
                self.step(f"try {_words(choice)}")
                model = self.make(self.all, choice)
                outputs = self.outputs(model)
                tried.append((choice, metrics.sqnr(self.reference, outputs)))
                if _winner(tried) == choice:
                    winning[:] = [(model, outputs)]

        methods = (self.recipe.calibration.method,) if self.recipe.calibration.method else METHODS
        for method in methods:
            attempt(Choice(method))
        if any(node.op_type == "MatMul" and node.name in self.all for node in self.graph.nodes):
            for alpha in ALPHAS:
                attempt(replace(_winner(tried), alpha=alpha))
            near = max(score for _, score in tried[: len(methods)]) - HOPELESS_DB
            for method in [choice.method for choice, score in tried[: len(methods)] if score > near]:
                attempt(replace(_winner(tried), method=method))
        attempt(replace(_winner(tried), corrected=True))
        choice = _winner(tried)
        scores = [{**asdict(other), "sqnr_db": round(score, 2)} for other, score in tried]
        ((model, outputs),) = winning
        return SearchResult(model, choice, scores, sorted(self.all), [], outputs)

    def make(self, nodes: Set[str], choice: Choice) -> onnx.ModelProto:
        """The graph with these nodes quantized in this way."""
        seen = self.observe(choice.alpha)
        graph = self.graph.copy()
        if choice.alpha is not None:
            refine.smooth(graph, nodes, self.all, self._observed[None], choice.alpha)
        if choice.corrected:
            refine.correct_biases(graph, nodes, seen, self.scheme)
        tensors = qdq.plan(graph, nodes, self.scheme).tensors
        levels = 128 if self.scheme.activations == "int8" else 256
        ranges = {name: calibration.limits(seen[name], choice.method, levels) for name in tensors}
        qdq.insert(graph, nodes, ranges, self.scheme)
        return graph.model

    def score(self, nodes: Set[str], choice: Choice) -> float:
        """Signal to quantization noise on the selection samples, in dB."""
        return metrics.sqnr(self.reference, self.outputs(self.make(nodes, choice)))

    def outputs(self, model: onnx.ModelProto) -> list[dict[str, onnxgraph.Array]]:
        """What a variant gives for the selection samples."""
        return evaluate(Session(model, optimize=self.scheme is qdq.CPU_INT8), self.recipe, self.selecting)

    def observe(self, alpha: float | None) -> Statistics:
        """Ranges of all activations that may be quantized; with smoothing, those behind it."""
        if alpha not in self._observed:
            graph = self.graph.copy()
            if alpha is not None:
                refine.smooth(graph, self.all, self.all, self.observe(None), alpha)
            tensors = qdq.candidates(graph, self.all, self.scheme)
            axes = {name: channel_axis(graph, name) for name in tensors}
            facts = {**self.facts, "alpha": alpha, "scheme": asdict(self.scheme)}
            self._observed[alpha] = calibration.observe(
                facts, graph.with_outputs(tensors), axes, self.calibrating, batched=self.recipe.max_batch_size > 0
            )
        return self._observed[alpha]

    @functools.cached_property
    def work(self) -> works.Work:
        """The work of one sample."""
        return works.measure(self.graph, self.selecting[0], batched=self.recipe.max_batch_size > 0)

    def share(self, nodes: Set[str]) -> float:
        """How much of the work of nodes with constant weights is done in these nodes."""
        return sum(self.work.operations[name] for name in nodes) / self.total_work()

    def total_work(self) -> float:
        """The work of all nodes with constant weights."""
        work = self.work.operations
        return sum(work[node.name] for node in self.graph.compute_nodes() if self.graph.weight(node) is not None)

    def narrow(self, count: int) -> None:
        """Compare by the first selection samples only."""
        self.widen(self.selecting[:count])

    def widen(self, selecting: Sequence[samples.Sample]) -> None:
        """Compare by these samples."""
        self.selecting = selecting
        self.reference = evaluate(self._truth, self.recipe, selecting)


def eligible(graph: OnnxGraph, scheme: Scheme) -> set[str]:
    """Compute nodes that can be in 8 bits: with constant weights, and with enough channels for tensor cores.

    Raises:
        CheckFailed: The graph has no such node.
    """
    names = set()
    for node in graph.compute_nodes():
        weight = graph.weight(node)
        if weight is None or weight.dtype != np.float32 or node.input[0] in graph.constants:
            continue
        if weight.ndim < 2 or (node.op_type == "MatMul" and weight.ndim > 2):
            continue  # stacks of matrices: onnxruntime has no kernel for a scale a channel there
        if node.op_type != "ConvTranspose" and not _unfit_for_tensor_cores(node, weight, scheme):
            names.add(node.name)
    if not names:
        recurrent = sorted({node.op_type for node in graph.nodes if node.op_type in operators.RECURRENT})
        beside = f"; {works.no_8_bits(recurrent[0], scheme)}" if recurrent else ""
        if inside := sorted({node.op_type for node in graph.nodes if node.op_type in onnxgraph.CONTROL}):
            beside += f"; what runs inside {', '.join(inside)} stays as it is"
        raise CheckFailed(
            f"the graph has no convolution or matrix product with constant weights that 8 bits could speed up{beside}",
            "leave int8 and fp8 out of the recipe's `precisions`",
        )
    return names


def _unfit_for_tensor_cores(node: onnx.NodeProto, weight: onnxgraph.Array, scheme: Scheme) -> bool:
    """Narrow convolutions, and for fp8 those of one channel a group, which tensor cores do not run."""
    if node.op_type != "Conv" or scheme.outputs:
        return False
    groups = next((int(attribute.i) for attribute in node.attribute if attribute.name == "group"), 1)
    return max(weight.shape[1], groups) < MIN_CHANNELS or (scheme.activations == "fp8" and weight.shape[1] == 1)


def channel_axis(graph: OnnxGraph, name: str) -> int:
    """Where an activation's channels are: last for matrix products, second for images."""
    readers = graph.consumers[name]
    products = (reader for reader in readers if reader.op_type in {"MatMul", "Gemm"} and reader.input[0] == name)
    return -1 if not readers or any(graph.weight(reader) is not None for reader in products) else 1


def evaluate(session: speed.Runnable, recipe: Recipe, dataset: Sequence[samples.Sample]) -> list[dict[str, Any]]:
    """The outputs of every sample, without batch dimension, in the samples' order."""
    if not recipe.max_batch_size:
        return [dict(session.run(sample)) for sample in dataset]
    order = {id(sample): index for index, sample in enumerate(dataset)}
    results: list[dict[str, Any]] = [{} for _ in dataset]
    for group in calibration.grouped(dataset):
        outputs = session.run(samples.batch(group, len(group)))
        for row, sample in enumerate(group):
            results[order[id(sample)]] = {name: array[row] for name, array in outputs.items()}
    return results


def _winner(tried: Sequence[tuple[Choice, float]]) -> Choice:
    return max(tried, key=lambda pair: pair[1])[0]


def _words(choice: Choice) -> str:
    smoothed = "" if choice.alpha is None else f", smoothed by {choice.alpha:g}"
    return f"{choice.method}{smoothed}{', biases corrected' if choice.corrected else ''}"
