"""How much a graph computes and where, so that a variant can say what of it is in 8 bits and what is not.

Counted are multiplications and additions of what nearly all of a network's work is: convolutions, matrix products and
recurrent layers. What runs inside the bodies of Loop, Scan and If is not counted; :attr:`Work.uncounted` names these.
"""

from __future__ import annotations

from collections.abc import Mapping, Set
from dataclasses import dataclass

import onnx

from tritonkit import samples
from tritonkit.advisor import operators
from tritonkit.graph import Session
from tritonkit.precision.onnxgraph import COMPUTE, CONTROL, OnnxGraph
from tritonkit.precision.qdq import Scheme

LEAST_SHARE = 0.005  # of the work; less is not worth a word
# Why a recurrent layer is never in 8 bits: docs/decisions/0020.
_ON_CPU = (
    "of recurrent layers onnxruntime has the LSTM alone in 8 bits, with one scale for a whole batch: a row's answer "
    "would depend on the rows beside it, and lose too much"
)
_ON_TENSORRT = "TensorRT's parser makes a loop of a recurrent layer; it runs in fp16"


@dataclass(frozen=True)
class Work:
    """The work of one sample.

    Attributes:
        operations: Multiplications and additions of every counted node, by its name.
        kinds: The same names, with what to call the node in a sentence.
        uncounted: Types of nodes whose bodies are not counted.
    """

    operations: dict[str, float]
    kinds: dict[str, str]
    uncounted: tuple[str, ...]

    def missing(self, quantized: Set[str]) -> dict[str, float]:
        """What is not in 8 bits when some nodes are: kind to share of all work, the largest first."""
        total = sum(self.operations.values())
        shares: dict[str, float] = {}
        for name in self.operations.keys() - quantized:
            kind = self.kinds[name]
            shares[kind] = shares.get(kind, 0.0) + self.operations[name] / total
        large = {kind: round(share, 4) for kind, share in shares.items() if share >= LEAST_SHARE}
        return dict(sorted(large.items(), key=lambda item: -item[1]))


def measure(graph: OnnxGraph, sample: samples.Sample, *, batched: bool) -> Work:
    """Count by running: the shapes of a graph with moving dimensions are known only then.

    What one node is: :func:`tritonkit.advisor.operators.operations`.

    Args:
        graph: In fp32.
        sample: Real inputs, without batch dimension.
        batched: Whether the graph takes a batch dimension.
    """
    nodes = [node for node in graph.nodes if node.op_type in {*COMPUTE, *operators.RECURRENT, "Einsum"}]
    inputs = samples.batch([sample], 1) if batched else sample
    tensors = dict.fromkeys(name for node in nodes for name in (*node.input[:3], node.output[0]) if name)
    seen = Session(
        graph.with_outputs(name for name in tensors if name not in graph.inputs and name not in graph.constants)
    )
    arrays = {**graph.constants, **inputs, **(seen.run(inputs) if seen.output_names else {})}
    shapes = {name: array.shape for name, array in arrays.items()}
    return Work(
        {node.name: operators.operations(node, shapes) for node in nodes},
        {node.name: _kind(graph, node) for node in nodes},
        tuple(dict.fromkeys(node.op_type for node in graph.nodes if node.op_type in CONTROL)),
    )


def describe(missing: Mapping[str, float]) -> str:
    """What is not in 8 bits and how much of the work it is: ``LSTM 62 %, products of activations 3 %``."""
    return ", ".join(f"{kind} {100 * share:.0f} %" for kind, share in missing.items())


def no_8_bits(kind: str, scheme: Scheme) -> str:
    """Why a kind of layer is never in 8 bits on a target; empty where nothing but its shape is against it."""
    return (_ON_CPU if scheme.outputs else _ON_TENSORRT) if kind in operators.RECURRENT else ""


def _kind(graph: OnnxGraph, node: onnx.NodeProto) -> str:
    if node.op_type in operators.RECURRENT:
        return node.op_type
    if node.op_type.startswith("Conv"):
        return "convolutions" if node.op_type == "Conv" else "transposed convolutions"
    constant = any(name in graph.constants for name in node.input[:2])
    return "layers with weights" if constant else "products of activations"
