"""What an ONNX graph needs beside itself: operators that onnxruntime has, and weights where it looks for them."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache

from onnx import defs

from tritonkit.repository.lint.contents import Model
from tritonkit.repository.lint.findings import Problem
from tritonkit.repository.lint.registry import ONNXRUNTIME, Context, rule
from tritonkit.repository.lint.rules.precision import accelerated

_STANDARD = {"", "ai.onnx.ml"}
# Beginnings of the domains that onnxruntime brings itself (onnxruntime/core/graph/constants.h).
_RUNTIME = ("com.microsoft", "com.ms.internal", "org.pytorch.aten", "ai.onnx")
_PLUGINS = "trt.plugins"  # those of TensorRT, which its accelerator brings
# Operators that onnxruntime keeps under ONNX's own domain: ones that ONNX has dropped, and ones of any opset that ONNX
# has only from some opset on (onnxruntime/core/graph/contrib_ops).
_KEPT = {
    "Affine", "Crop", "DynamicSlice", "GivenTensorFill", "GroupNorm", "ImageScaler", "LayerNormalization",
    "MeanVarianceNormalization", "ParametricSoftplus", "Scale", "ScaledTanh", "SimplifiedLayerNormalization",
    "ThresholdedRelu",
}  # fmt: skip


@cache
def _first_opsets(domain: str) -> dict[str, int]:
    """Each operator of a standard domain, and the first opset that has it."""
    first: dict[str, int] = {}
    for schema in defs.get_all_schemas_with_history():
        if schema.domain == domain:
            first[schema.name] = min(first.get(schema.name, schema.since_version), schema.since_version)
    return first


@rule(
    "TK152",
    "operator-unknown",
    "error",
    "an operator that onnxruntime has not",
    enforced_by=ONNXRUNTIME,
    source="triton-inference-server/server#4894",
)
def operator_unknown(model: Model, _: Context) -> Iterator[Problem]:
    """ONNX's own operators are known by name and opset, and onnxruntime adds those of com.microsoft. Any other domain
    needs a library of operators: `model_operations { op_library_filename: "…" }`, which NVIDIA's C++ backend loads and
    tritonkit's does not. Plugins of TensorRT (EfficientNMS_TRT) run in an engine, or with the tensorrt accelerator
    under the domain trt.plugins; in onnxruntime itself ONNX's NonMaxSuppression takes their place.
    """
    if model.config.model_operations.op_library_filename:
        return
    for graph in model.graphs:
        for domain, name in sorted(graph.operators):
            where = f"the domain {domain}" if domain else "ONNX"
            if domain in _STANDARD:
                first = _first_opsets(domain).get(name)
                opset = graph.opsets.get(domain, 0)
                if name in _KEPT or (first is not None and first <= opset):
                    continue
                why = f"{where} has none" if first is None else f"{where} has it from opset {first} on, not in {opset}"
                fix = "correct the exporter, or export without it" if first is None else f"export it with opset {first}"
            elif domain.startswith(_RUNTIME) or (domain == _PLUGINS and any(accelerated(model))):
                continue
            else:
                why = f"operators of {where} need a library, and none is named"
                fix = _library(domain)
            yield Problem(f"the graph has the operator {name}: {why}", fix, path=graph.path)


def _library(domain: str) -> str:
    if domain in {"TRT", _PLUGINS}:
        return "build an engine with `tritonkit engine`, or export the graph without TensorRT's plugins"
    return "name it in model_operations { op_library_filename }, or export with ONNX's own operators"


@rule(
    "TK153",
    "weights-outside",
    "error",
    "an ONNX file's external weights lie outside of its folder",
    enforced_by=ONNXRUNTIME,
    source="onnxruntime from 1.24 on: External data path escapes model directory",
)
def weights_outside(model: Model, _: Context) -> Iterator[Problem]:
    """onnxruntime reads external weights only from the folder of the graph, or, where the graph is a link, also from
    the folder that it points to; links are followed before it looks. Older releases read them from anywhere, but what
    fetches a model from an object store brings its folder only.
    """
    for graph in model.graphs:
        allowed = {graph.path.parent.resolve(), graph.path.resolve().parent}
        for external in graph.externals:
            place = external.path.resolve()
            if external.path.exists() and not any(place.is_relative_to(folder) for folder in allowed):
                yield Problem(
                    f"the graph's weights are in {place}, outside of its folder",
                    f"copy the file into {graph.path.parent.name}/ and save the graph with that location (onnx.save, "
                    "save_as_external_data)",
                    path=graph.path,
                )  # fmt: skip
