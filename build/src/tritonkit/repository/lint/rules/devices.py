"""Models on nodes of the other kind: a CPU's model beside a GPU, a GPU's model where there is none."""

from __future__ import annotations

from collections.abc import Iterator

from tritonkit.repository.lint import needs
from tritonkit.repository.lint.contents import Model
from tritonkit.repository.lint.findings import Problem
from tritonkit.repository.lint.registry import Context, rule

_DOCS = "model_configuration.md of triton-inference-server/server, Instance Groups"


@rule("TK155", "cpu-model-on-gpu", "warning", "a CPU model on nodes with a GPU", source=_DOCS)
def cpu_model_on_gpu(model: Model, context: Context) -> Iterator[Problem]:
    """With `KIND_CPU` in all its instance groups a model leaves the GPU idle that its pods pay for. A model that
    tritonkit built for the target cpu is one for it in more than that: its int8 is the kind that a CPU's VNNI
    multiplies, and its batching was measured there. Checked with `--gpu`. Python models and ensembles are not judged.
    """
    if context.options.on_gpu and needs.device(model) == "cpu":
        passport = model.passport.data
        built = f", and was built for the target cpu in {passport.precision}" if passport.target == "cpu" else ""
        yield Problem(
            f"all its instances are KIND_CPU{built}: the nodes' GPU does nothing for it",
            "build it for the GPU (tritonkit build RECIPE --target cuda, or tensorrt), or say kind: KIND_GPU",
            model.line(("instance_group", 0)),
        )  # fmt: skip


@rule(
    "TK156",
    "gpu-model-on-cpu",
    "error",
    "a GPU model on nodes without one",
    enforced_by="Triton's core, on a machine without a GPU",
    source=_DOCS,
)
def gpu_model_on_cpu(model: Model, context: Context) -> Iterator[Problem]:
    """Triton refuses an instance group of `KIND_GPU` where it sees no GPU, and a TensorRT model has no other kind.
    Checked with `--gpu none`.
    """
    if context.options.on_gpu is False and needs.device(model) == "gpu":
        yield Problem(
            "it has instances of KIND_GPU, and the nodes have no GPU",
            "build it for the CPU (tritonkit build RECIPE --target cpu), or serve it on nodes with a GPU",
            model.line(("instance_group", 0)),
        )
