"""Whether a GPU can hold the models: a lower bound from the sizes of their files, or what the build measured."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from tritonclient.grpc import model_config_pb2 as pb

from tritonkit.repository import ownership
from tritonkit.repository.lint import backends
from tritonkit.repository.lint.contents import Model
from tritonkit.repository.lint.findings import Problem
from tritonkit.repository.lint.registry import Context, rule
from tritonkit.repository.lint.rules.batching import instances

_GIB = 2**30
_ON_GPU = {pb.ModelInstanceGroup.KIND_GPU, pb.ModelInstanceGroup.KIND_AUTO}


def gpu_bytes(model: Model) -> int:
    """What a model needs on one GPU at least: its weights once an instance, and a plan's working memory.

    Of `tritonkit_onnxruntime` it is what the build measured on a GPU, if it did: each instance is a process with a
    session, prepared sizes and a CUDA context of its own. Versions that are served together add up.
    A plan's weights are counted once, as instances may share an engine, and so are those of onnxruntime with
    ``share_session_between_instances``.
    """
    groups = model.config.instance_group
    if groups and not any(group.kind in _ON_GPU for group in groups):
        return 0
    count = instances(model)
    if model.served.backend == backends.TRITONKIT_ONNXRUNTIME:
        passports = ownership.passports(model.directory)
        measured = [passports.get(version, model.passport.data).instance_bytes for version in model.loaded]
        return count * (sum(measured) if all(measured) else sum(graph.weight_bytes for graph in model.graphs))
    if model.served.backend == backends.ONNXRUNTIME:
        shared = model.config.parameters["share_session_between_instances"].string_value.lower() if (
            "share_session_between_instances" in model.config.parameters) else ""  # fmt: skip
        return sum(graph.weight_bytes for graph in model.graphs) * (1 if shared in {"true", "1", "on"} else count)
    if model.served.backend == backends.TENSORRT:
        largest: dict[Path, int] = {}  # of each version, as a node opens one plan of it
        for path, passport in model.plans.items():
            size = path.stat().st_size + count * (passport.data.memory_bytes if passport.data else 0)
            largest[path.parent] = max(size, largest.get(path.parent, 0))
        return sum(largest.values())
    return 0


@rule(
    "TK110",
    "gpu-memory",
    "error",
    "instances that need more memory than the GPU has",
    enforced_by="CUDA's allocator, not run here",
)
def gpu_memory(model: Model, context: Context) -> Iterator[Problem]:
    """Checked only with `--gpu`. Counted are weights times instances on each GPU, and a plan's own working memory;
    activations, CUDA's context and the framework come on top, so what fits here may still not fit there. Of
    `tritonkit_onnxruntime` it is what the passport's `memory` says of one instance, with context and prepared sizes, if
    the model was built on a GPU. If no model is too large alone but all together are, the largest gets a warning.
    """
    gpu = context.options.gpu
    if gpu is None or not (model_bytes := gpu_bytes(model)):
        return
    memory = gpu.memory_gib * _GIB
    line = model.line("instance_group")
    if model_bytes > memory:
        yield Problem(
            f"{instances(model)} instances need at least {model_bytes / _GIB:.1f} GiB, {gpu.key} has {gpu.memory_gib}",
            "use fewer instances, or a larger GPU", line,
        )  # fmt: skip
        return
    bytes_by_model = {other.name: gpu_bytes(other) for other in context.repository.models.values() if other.usable}
    total = sum(bytes_by_model.values())
    if total > memory and max(bytes_by_model, key=lambda name: bytes_by_model[name]) == model.name:
        yield Problem(
            f"all models together need at least {total / _GIB:.1f} GiB, {gpu.key} has {gpu.memory_gib}",
            "use fewer instances, or spread the models over GPUs", line, severity="warning",
        )  # fmt: skip
