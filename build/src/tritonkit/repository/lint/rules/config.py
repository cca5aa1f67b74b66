"""Settings of a model as a whole: batch size, instances, parameters, accelerators."""

from __future__ import annotations

from collections.abc import Iterator

from tritonclient.grpc import model_config_pb2 as pb

from tritonkit.repository.lint import backends
from tritonkit.repository.lint.contents import Model
from tritonkit.repository.lint.findings import Problem
from tritonkit.repository.lint.registry import (
    CORE,
    ONNXRUNTIME,
    ONNXRUNTIME_CPP,
    PYTHON,
    TENSORRT,
    Context,
    rule,
)

_GROUP = pb.ModelInstanceGroup
_WHOLE_NUMBERS = ("intra_op_thread_count", "inter_op_thread_count", "execution_mode")
_BOOLEANS = ("enable_mem_arena", "enable_mem_pattern", "share_session_between_instances")
_TRUTHS = {"true", "on", "1", "false", "off", "0"}
_GRAPH_LEVELS = {-1, 0, 1, 2}
_TENSORRT_PARAMETERS = {
    "precision_mode", "max_workspace_size_bytes", "int8_calibration_table_name", "int8_use_native_calibration_table",
}  # fmt: skip
_PRECISION_MODES = {"FP32", "FP16", "BF16", "INT8"}


@rule("TK020", "batch-size-negative", "error", "max_batch_size is below 0", enforced_by=CORE)
def batch_size_negative(model: Model, _: Context) -> Iterator[Problem]:
    """0 means that requests carry the whole shape and are never batched; a negative number means nothing."""
    if model.config.max_batch_size < 0:
        yield Problem(
            f"max_batch_size is {model.config.max_batch_size}", "use 0 for a model without a batch dimension",
            model.line("max_batch_size"),
        )  # fmt: skip


@rule(
    "TK021",
    "gpus-without-gpu",
    "error",
    "an instance group lists GPUs and is not for GPUs",
    enforced_by=CORE,
    source="docs/user_guide/model_configuration.md, Instance Groups",
)
def gpus_without_gpu(model: Model, _: Context) -> Iterator[Problem]:
    """`gpus` belongs to KIND_GPU, and to KIND_AUTO, which then means the same. With KIND_CPU or KIND_MODEL Triton
    refuses it.
    """
    for index, group in enumerate(model.config.instance_group):
        if group.gpus and group.kind in {_GROUP.KIND_CPU, _GROUP.KIND_MODEL}:
            kind = _GROUP.Kind.Name(group.kind)
            yield Problem(
                f"instance group {index} is {kind} and lists gpus {list(group.gpus)}",
                "remove gpus, or say kind: KIND_GPU", model.line(("instance_group", index), "gpus"),
            )  # fmt: skip


@rule("TK022", "instance-count", "warning", "an instance count below 1")
def instance_count(model: Model, _: Context) -> Iterator[Problem]:
    """Triton takes 0 or less for "not given" and makes its default: 2 on a CPU for onnxruntime and tensorflow, else 1.
    Nobody who writes 0 wants that; to keep a model from loading, take it out of the repository.
    """
    for index, group in enumerate(model.config.instance_group):
        node = model.outline.find(("instance_group", index), "count")
        if node is not None and group.count < 1:
            yield Problem(
                f"instance group {index} has count {group.count}, which Triton takes for its default",
                "give the number that you want", node.line,
            )  # fmt: skip


@rule("TK023", "kind-differs-from-target", "warning", "an instance group for another device than the passport's target")
def kind_differs_from_target(model: Model, _: Context) -> Iterator[Problem]:
    """The passport says what the model was built and measured for. A graph quantized for a CPU is slow on a GPU and the
    other way round, and no number in the passport holds there.
    """
    target = model.passport.data.target
    target_kind = {"cpu": _GROUP.KIND_CPU, "cuda": _GROUP.KIND_GPU, "tensorrt": _GROUP.KIND_GPU}.get(target)
    for index, group in enumerate(model.config.instance_group):
        if target_kind is not None and group.kind in {_GROUP.KIND_CPU, _GROUP.KIND_GPU} and group.kind != target_kind:
            yield Problem(
                f"instance group {index} is {_GROUP.Kind.Name(group.kind)}, the passport says that the model was built "
                f"for {target}",
                f"build it for the other target, or say kind: {_GROUP.Kind.Name(target_kind)}",
                model.line(("instance_group", index), "kind"),
            )


@rule("TK024", "tensorrt-on-cpu", "error", "a TensorRT model on a CPU", enforced_by=TENSORRT)
def tensorrt_on_cpu(model: Model, _: Context) -> Iterator[Problem]:
    """A plan runs on GPUs only, and the tensorrt backend has no instances of another kind."""
    for index, group in enumerate(model.config.instance_group):
        if model.served.backend == backends.TENSORRT and group.kind == _GROUP.KIND_CPU:
            yield Problem(
                f"instance group {index} of a TensorRT model is KIND_CPU", "say kind: KIND_GPU",
                model.line(("instance_group", index), "kind"),
            )  # fmt: skip


@rule(
    "TK025",
    "parameter-value",
    "error",
    "an onnxruntime parameter with a value that it does not have",
    enforced_by=ONNXRUNTIME,
    source="README of triton-inference-server/onnxruntime_backend",
)
def parameter_value(model: Model, _: Context) -> Iterator[Problem]:
    """The backend reads these as text and converts them when it loads the model: thread counts and execution_mode (0 or
    1) to whole numbers, arenas to true or false. `optimization.graph.level` is -1, 1 or 2; the C++ backend takes
    another number for "all optimizations", the embedded one refuses it.
    """
    if model.served.backend not in backends.ONNX:
        return
    for name, parameter in model.config.parameters.items():
        value = parameter.string_value
        line = model.line(("parameters", name), "value", "string_value")
        if name in _WHOLE_NUMBERS and not value.strip().lstrip("+-").isdigit():
            yield Problem(f"parameter {name} is {value!r}", "give a whole number", line)
        elif name == "execution_mode" and value.strip() not in {"0", "1"}:
            yield Problem(f"parameter {name} is {value!r}", "give 0 (sequential) or 1 (parallel)", line)
        elif name in _BOOLEANS and value.lower() not in _TRUTHS:
            yield Problem(f"parameter {name} is {value!r}", "give 1 or 0", line)
    level = model.config.optimization.graph.level
    if level not in _GRAPH_LEVELS:
        yield Problem(
            f"optimization.graph.level is {level}", "give -1 (basic), 1 (extended) or 2 (none)",
            model.line("optimization", "graph", "level"),
            severity=None if model.served.backend == backends.TRITONKIT_ONNXRUNTIME else "warning",
        )  # fmt: skip


@rule(
    "TK026",
    "accelerator-unknown",
    "error",
    "an execution accelerator, or a parameter of one, that onnxruntime has not",
    enforced_by=ONNXRUNTIME_CPP,
    source="docs/user_guide/optimization.md, Framework-Specific Optimization",
)
def accelerator_unknown(model: Model, _: Context) -> Iterator[Problem]:
    """The C++ backend knows `tensorrt` and `cuda` for GPUs and `openvino` for CPUs, and refuses another name, a
    parameter of `tensorrt` that it does not know, and a precision_mode other than FP32, FP16, BF16 or INT8.
    `tritonkit_onnxruntime` knows `cuda` only and runs without another, which is a warning.
    """
    if model.served.backend not in backends.ONNX:
        return
    ours = model.served.backend == backends.TRITONKIT_ONNXRUNTIME
    accelerators = model.config.optimization.execution_accelerators
    for field, known in (
        ("gpu_execution_accelerator", ("cuda",) if ours else ("tensorrt", "cuda")),
        ("cpu_execution_accelerator", () if ours else ("openvino",)),
    ):
        for index, accelerator in enumerate(getattr(accelerators, field)):
            place = ("optimization", "execution_accelerators", (field, index))
            if accelerator.name not in known:
                yield Problem(
                    f"{model.served.backend} has no {field} {accelerator.name!r}",
                    f"use {' or '.join(known)}" if known else "remove it",
                    model.line(*place, "name"), severity="warning" if ours else None,
                )  # fmt: skip
            elif accelerator.name == "tensorrt":
                for name, why in _tensorrt_mistakes(dict(accelerator.parameters)):
                    yield Problem(why, "correct it", model.line(*place, ("parameters", name)))


def _tensorrt_mistakes(parameters: dict[str, str]) -> Iterator[tuple[str, str]]:
    for name, value in parameters.items():
        if name not in _TENSORRT_PARAMETERS and not name.startswith("trt_"):
            yield name, f"the tensorrt accelerator has no parameter {name!r}"
        elif name == "precision_mode" and value not in _PRECISION_MODES:
            yield name, f"there is no precision_mode {value!r}: it is one of {', '.join(sorted(_PRECISION_MODES))}"


@rule(
    "TK027",
    "environment-missing",
    "error",
    "EXECUTION_ENV_PATH names no file",
    enforced_by=PYTHON,
    source="README of triton-inference-server/python_backend, Creating Custom Execution Environments",
)
def environment_missing(model: Model, _: Context) -> Iterator[Problem]:
    """The Python backend unpacks this archive (or uses this folder) before it starts the model. Only paths inside the
    model's folder (`$$TRITON_MODEL_DIRECTORY/…`) can be checked here; another machine has others.
    """
    path = (
        model.config.parameters["EXECUTION_ENV_PATH"].string_value
        if "EXECUTION_ENV_PATH" in model.config.parameters
        else ""
    )
    prefix = "$$TRITON_MODEL_DIRECTORY/"
    if path.startswith(prefix) and not backends.exists(model.directory / path.removeprefix(prefix)):
        yield Problem(
            f"EXECUTION_ENV_PATH is {path}, which is not there", "put the environment's archive there",
            model.line(("parameters", "EXECUTION_ENV_PATH"), "value", "string_value"),
        )  # fmt: skip
