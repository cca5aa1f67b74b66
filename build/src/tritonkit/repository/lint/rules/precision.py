"""Whether a model is of the precision that it is said to be, and one that its target can use."""

from __future__ import annotations

from collections.abc import Iterator

from tritonkit.repository.lint import backends, images
from tritonkit.repository.lint.contents import Model
from tritonkit.repository.lint.findings import Problem
from tritonkit.repository.lint.registry import Context, rule

_PARSER = "TensorRT's ONNX parser"
_LOWER = {"fp16", "bf16", "int8", "fp8"}


def accelerated(model: Model) -> Iterator[tuple[int, dict[str, str]]]:
    """Index and parameters of each tensorrt accelerator; `tritonkit_onnxruntime` has none (TK026)."""
    if model.served.backend == backends.TRITONKIT_ONNXRUNTIME:
        return
    accelerators = model.config.optimization.execution_accelerators.gpu_execution_accelerator
    for index, accelerator in enumerate(accelerators):
        if accelerator.name == "tensorrt":
            yield index, dict(accelerator.parameters)


@rule(
    "TK105",
    "quantized-asymmetrically",
    "error",
    "asymmetric quantization in a graph for TensorRT",
    enforced_by=_PARSER,
    source="TensorRT documentation, Working with Quantized Types",
)
def quantized_asymmetrically(model: Model, _: Context) -> Iterator[Problem]:
    """TensorRT quantizes to int8 with zero point 0. Another zero point is refused, naming the node. uint8 with zero
    point 0 is accepted and taken for int8, so that everything above half of its range is cut off. CPUs are fast at
    those formats, so they are the sign of a graph quantized for the wrong target. Judged where the passport's target is
    tensorrt, or the configuration asks for the tensorrt accelerator; there onnxruntime may run such nodes itself, so it
    is a warning.
    """
    targeted = model.passport.data.target == "tensorrt"
    if not targeted and not any(accelerated(model)):
        return
    for graph in model.graphs:
        if graph.asymmetric:
            more = f" and {len(graph.asymmetric) - 1} more" if len(graph.asymmetric) > 1 else ""
            yield Problem(
                f"the graph is quantized asymmetrically: {graph.asymmetric[0]}{more}",
                "quantize it for TensorRT: int8, symmetric, zero point 0", path=graph.path,
                severity=None if targeted else "warning",
            )  # fmt: skip


@rule("TK106", "precision-not-there", "warning", "a model that is called fp16, bf16, int8 or fp8 and is not")
def precision_not_there(model: Model, _: Context) -> Iterator[Problem]:
    """From TensorRT 11 on, precision is a property of the graph: casts for fp16 and bf16, quantize and dequantize nodes
    for int8 and fp8. Tools that only set a flag write an fp32 model under the old name, without an error.
    """
    precision = model.passport.data.precision
    for graph in model.graphs:
        if precision in _LOWER and precision not in graph.precisions:
            what = f"no tensor of {precision}" if precision in {"fp16", "bf16"} else f"no {precision} quantization"
            yield Problem(
                f"the passport says {precision}, and the graph has {what}", "build that precision again",
                path=graph.path,
            )  # fmt: skip
    for path, passport in model.plans.items():
        facts = passport.data
        if facts and facts.layers is not None and facts.precision in _LOWER and not facts.layers.get(facts.precision):
            yield Problem(f"the plan is called {facts.precision} and has no such layer", "build it again", path=path)


@rule(
    "TK107",
    "precision-flag",
    "warning",
    "a precision_mode that TensorRT 11 no longer has",
    source="TensorRT 11 release notes; roboflow/rf-detr#1453",
)
def precision_flag(model: Model, context: Context) -> Iterator[Problem]:
    """`precision_mode: "FP16"` of the tensorrt accelerator sets a builder flag. TensorRT 11, in images from 26.06 on,
    has no such flags: the engine gets the graph's own precision. Up to 26.04 the flag works, so without `--image` this
    is a remark, and it is none where the graph has the precision itself.
    """
    image = context.options.image
    if image is not None and image < images.TENSORRT_11:
        return
    for index, parameters in accelerated(model):
        mode = parameters.get("precision_mode", "").lower()
        if mode in {"fp16", "int8"} and not all(mode in graph.precisions for graph in model.graphs):
            place = ("optimization", "execution_accelerators", ("gpu_execution_accelerator", index))
            yield Problem(
                f"precision_mode {mode.upper()} does nothing from TensorRT 11 (26.06) on; the graph is not {mode}",
                f"build an {mode} graph", model.line(*place, ("parameters", "precision_mode")),
                severity=None if image is not None else "info",
            )  # fmt: skip
