"""What TensorRT says, collected and translated: node, operator, opset, reason, and what to do about it.

TensorRT answers with the C++ check that failed. The table below knows the ones that people meet; any other text is
passed on without its file names.
"""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import onnx

from tritonkit.errors import GraphError


@dataclass(frozen=True)
class Reason:
    """Why TensorRT refused.

    Attributes:
        text: One sentence.
        hint: What to do about it; empty where nothing is known.
        node, op, opset: The node that was refused, if TensorRT named it.
        limit: Whether only the builder at hand cannot do it; another TensorRT may.
    """

    text: str
    hint: str = ""
    node: str = ""
    op: str = ""
    opset: int = 0
    limit: bool = False

    def __str__(self) -> str:
        where = f"{self.node or 'a node without a name'} ({self.op}, opset {self.opset}): " if self.op else ""
        return where + self.text


class Refused(GraphError):
    """TensorRT refused a graph.

    Attributes:
        reasons: One for each node that it named, or one for all.
    """

    def __init__(self, where: str, reasons: Sequence[Reason]) -> None:
        lines = [str(reason) for reason in reasons]
        text = f" {lines[0]}" if len(lines) == 1 else "".join(f"\n  - {line}" for line in lines)
        hints = dict.fromkeys(reason.hint for reason in reasons if reason.hint)
        super().__init__(f"{where} is refused by TensorRT:{text}", "; ".join(hints))
        self.reasons = tuple(reasons)


@dataclass(frozen=True)
class _Rule:
    pattern: str
    text: str
    hint: str
    limit: bool = False


_RULES = (
    _Rule(
        "Plugin not found",
        "TensorRT has no such operator, and no plugin is loaded for it",
        "load its plugin with --plugin LIBRARY.so, or replace the operator before the export",
    ),
    _Rule(
        r"^false$|No importer registered",
        "TensorRT's ONNX parser does not know this operator",
        "replace it by operators that it knows before the export, write a plugin, or serve the ONNX graph itself",
    ),
    _Rule(
        "has type UInt8 but must have type",
        "TensorRT takes uint8 numbers from an input into a Cast and nowhere else",
        "cast first: in PyTorch, x.float() before permute, reshape or indexing",
    ),
    _Rule(
        r"must have same input types.*of types (\w+) and (\w+)",
        "its inputs are {0} and {1}, and a strongly typed network casts nothing by itself",
        "put a Cast before it",
    ),
    _Rule(
        "input has type Int32 but must have type FP8",
        "its bias is quantized to int32, which TensorRT does not take",
        "leave biases unquantized (onnxruntime: QuantizeBias=False)",
    ),
    _Rule(
        "Non-zero zero point|Defaulting to INT8 instead",
        "its quantization is asymmetric or unsigned; TensorRT's int8 is signed with zero point 0",
        "quantize symmetrically: int8, zero point 0 (`tritonkit build --target tensorrt` does)",
    ),
    _Rule(
        "Failed to convert ONNX dat[ea] type",
        "an input or weight has a type that TensorRT does not have, such as string",
        "keep that part of the graph outside, in a model of its own",
    ),
    _Rule(
        "FP32 GEMM is not supported",
        "TensorRT-RTX has no fp32 matrix multiply for compute capability 7.5; full TensorRT has",
        "fp16, or fp16 around the int8, can be checked here and is faster on a T4",
        limit=True,
    ),
    _Rule(
        r"HW-specific datatypes: fp8",
        "the graph has fp8 in it, which needs compute capability 8.9 or newer",
        "int8 or fp16 run on this GPU",
    ),
    _Rule(
        "libnvinfer_lean",
        "version-compatible plans need the lean runtime, which TensorRT-RTX does not have",
        "leave --version-compatible out to check the rest",
        limit=True,
    ),
    _Rule(
        r"MyelinCheckException.*CUDA_SUCCESS",
        "TensorRT-RTX needs a GPU to build a plan without weights",
        "leave --weight-stripped out to check the rest",
        limit=True,
    ),
    _Rule(
        r"Dimension mismatch for tensor (\S+) and profile (\d+)\. At dimension axis (\d+), profile has min=(\d+).*"
        r"but tensor has (\d+)",
        "profile {1} gives input {0} {3} at axis {2}, where the graph has {4}",
        "give the graph's own size there",
    ),
    _Rule(
        "Could not find any implementation",
        "no kernel fits the workspace or this GPU",
        "allow more with --workspace, or leave the limit out",
    ),
)
_QDQ = {"QuantizeLinear", "DequantizeLinear"}
_NOISE = re.compile(
    r"\[\w+\.cpp::\w+::\d+\] Error Code 1: Cuda Runtime.*"  # follows every error on a machine without a driver
    r"|I[A-Z]\w+::\w+: Error Code \d+: (API Usage Error|Internal Error|Myelin)? ?\(?"
    r"|\(?\[\w+\.cpp:\d+: \w+\] ?"
    r"| In \w+ at /[^ )]+"
    r"|Assertion failed: "
)


class Nodes:
    """The nodes of an ONNX graph, to say which operator of which opset TensorRT means.

    Attributes:
        unsigned: Names of the Q/DQ nodes that have uint8 numbers.
    """

    def __init__(self, path: Path) -> None:
        model = onnx.load(path, load_external_data=False)
        self._opsets = {entry.domain or "ai.onnx": entry.version for entry in model.opset_import}
        self._nodes = [(node.name, node.op_type, node.domain or "ai.onnx") for node in model.graph.node]
        unsigned = {array.name for array in model.graph.initializer if array.data_type == onnx.TensorProto.UINT8}
        self.unsigned = [node.name for node in model.graph.node if node.op_type in _QDQ and unsigned & set(node.input)]

    def at(self, index: int, op: str) -> tuple[str, int]:
        """Name and opset of the node at ``index``; inside a subgraph it counts from 0 again, so ``op`` decides."""
        if 0 <= index < len(self._nodes) and self._nodes[index][1] == op:
            name, _, domain = self._nodes[index]
            return name, self._opsets.get(domain, 0)
        return "", next((self._opsets.get(domain, 0) for _, kind, domain in self._nodes if kind == op), 0)

    def named(self, name: str) -> tuple[str, int]:
        """Operator and opset of the node called ``name``; empty if there is none."""
        for known, op, domain in self._nodes:
            if name and known == name:
                return op, self._opsets.get(domain, 0)
        return "", 0


def explain(message: str) -> Reason:
    """One message of TensorRT as a reason, without a node."""
    for rule in _RULES:
        if match := re.search(rule.pattern, message, re.DOTALL):
            return Reason(rule.text.format(*match.groups()), rule.hint, limit=rule.limit)
    lines = [_NOISE.sub("", line).strip(" ()") for line in message.splitlines()]
    return Reason(next((line for line in lines if line and not line.startswith("Invalid Node")), message.strip()))


def of_parser(parser: Any, nodes: Nodes) -> list[Reason]:
    """Everything that an ``OnnxParser`` refused."""
    reasons = []
    for index in range(parser.num_errors):
        error = parser.get_error(index)
        reason = explain(error.desc())
        if op := error.node_operator():
            name, opset = nodes.at(error.node(), op)
            reason = at_node(reason, error.node_name() or name, op, opset)
        reasons.append(reason)
    return reasons or [Reason("its parser gave no reason")]


def of_build(messages: Sequence[tuple[str, str]], nodes: Nodes) -> Reason:
    """Why a build failed: what its errors say, and the node that they name."""
    errors = [text for severity, text in messages if severity in {"ERROR", "INTERNAL_ERROR"}]
    message = next((text for text in errors if not text.startswith("[")), "TensorRT gave no reason")
    match = re.search(r"operation '([^']+)'|implementation for node (\S+)", message)
    name = (match[1] or match[2]).rstrip(".") if match else ""
    op, opset = nodes.named(name)
    return at_node(explain(message), name, op, opset)


def ignored(messages: Sequence[tuple[str, str]]) -> list[str]:
    """Options that the builder at hand took and did nothing with, as sentences."""
    text = "\n".join(line for _, line in messages)
    options = dict.fromkeys(re.findall(r"set(\w+)\(\) is unsupported in ([\w-]+)", text))
    words = [(re.sub("([A-Z])", r" \1", option).strip().lower(), builder) for option, builder in options]
    return [f"{builder} ignores {option}: that was not checked" for option, builder in words]


def at_node(reason: Reason, node: str, op: str, opset: int) -> Reason:
    """The same reason, at a node."""
    return Reason(reason.text, reason.hint, node, op, opset, reason.limit)


def logger(module: Any, messages: list[tuple[str, str]]) -> Any:
    """A TensorRT logger that keeps what matters in ``messages`` and prints nothing.

    Args:
        module: ``tensorrt`` or ``tensorrt_rtx``.
        messages: Gets (severity, text) of warnings and errors.
    """

    class Collector(module.ILogger):  # type: ignore[misc]
        def __init__(self) -> None:
            module.ILogger.__init__(self)

        def log(self, severity: Any, text: str) -> None:
            if severity.name in {"WARNING", "ERROR", "INTERNAL_ERROR"}:
                messages.append((severity.name, text))

    return Collector()


@contextmanager
def silence() -> Iterator[None]:
    """Drop what a C++ library writes to this process's standard output and error, past its logger.

    TensorRT-RTX 1.7 writes warnings of its compiler to standard output, where ``--json`` must stand alone. Who has
    something to say meanwhile holds a stream of its own (:mod:`tritonkit.engines.build_progress`).
    """
    for stream in (sys.stdout, sys.stderr):
        stream.flush()
    with ExitStack() as undo, Path(os.devnull).open("wb") as nowhere:
        for number in (1, 2):
            kept = os.dup(number)
            undo.callback(os.close, kept)
            undo.callback(os.dup2, kept, number)
            os.dup2(nowhere.fileno(), number)
        yield
