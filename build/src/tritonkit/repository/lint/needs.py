"""What a model needs of where it runs: a CPU or a GPU, and what NVIDIA's own image does not have.

Read from configurations, passports and Python files. Lint's rules, `tritonkit publish` and `make deploy` use it.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Literal

from tritonclient.grpc import model_config_pb2 as pb

from tritonkit.repository.lint import backends, images, imports
from tritonkit.repository.lint.contents import Model, Repository

Device = Literal["cpu", "gpu", ""]
_GROUP = pb.ModelInstanceGroup
# Backends whose work a GPU would do. A Python model decides for itself, and before or after another a CPU is usual.
_COMPUTES = frozenset(
    {*backends.ONNX, "fil", backends.TENSORRT, backends.PYTORCH, backends.OPENVINO, backends.TENSORFLOW}
)

VLLM, TENSORRT_LLM = "vllm", "tensorrtllm"  # NVIDIA's backends for language models; the second for engines up to 1.2
LLMAPI_ARGUMENTS = "model.yaml"  # what TensorRT-LLM's Python model, its template `llmapi`, reads
_VARIANTS = {VLLM: "vllm-python-py3", TENSORRT_LLM: "trtllm-python-py3"}


def variant(model: Model) -> str:
    """The variant of NVIDIA's image that a language model's engine is in; empty for other models."""
    if any(llmapi_sources(model)):
        return _VARIANTS[TENSORRT_LLM]
    return _VARIANTS.get(model.served.backend, "")


def llmapi_sources(model: Model) -> Iterator[Path]:
    """The ``model.py`` of each loaded version that runs TensorRT-LLM's template."""
    for source in imports.sources(model):
        text = source.read_text(encoding="utf-8", errors="replace")
        if LLMAPI_ARGUMENTS in text and "tensorrt_llm" in text:
            yield source


def device(model: Model) -> Device:
    """Where a model's work is done; empty where that depends on the node, or is nothing for a GPU."""
    kinds = {group.kind for group in model.config.instance_group}
    if _GROUP.KIND_GPU in kinds or model.served.backend == backends.TENSORRT:
        return "gpu"
    return "cpu" if kinds == {_GROUP.KIND_CPU} and model.served.backend in _COMPUTES else ""


def beyond_nvidias_image(model: Model) -> tuple[str, ...]:
    """What a model loads that NVIDIA's `-py3` image lacks: a backend, modules of Python, or packages.

    A package that only an image of one's own can have is ``name==version``.
    """
    if model.served.backend == backends.TRITONKIT_ONNXRUNTIME:
        return (backends.TRITONKIT_ONNXRUNTIME,)
    modules = {entry.module for entry in imports.foreign(model) if entry.certain}
    packages = {
        name if name in images.TOOLS_MODULES else requirement for name, requirement in imports.packages(model).items()
        if name not in images.PYTHON_MODULES | modules
    }  # fmt: skip
    return tuple(sorted((modules - images.PYTHON_MODULES) | packages))


def of_image(repository: Repository) -> dict[str, tuple[str, ...]]:
    """What each model of a repository needs that NVIDIA's image lacks; models that need nothing are left out.

    An ensemble needs what its steps need: Triton loads them with it.
    """
    models = {name: model for name, model in repository.models.items() if not name.startswith(".")}
    needs = {name: _with_steps(name, models, frozenset()) for name in models}
    return {name: tuple(sorted(words)) for name, words in needs.items() if words}


def _with_steps(name: str, models: dict[str, Model], above: frozenset[str]) -> set[str]:
    if name not in models or name in above:  # TK082 and TK083 say so
        return set()
    words = set(beyond_nvidias_image(models[name]))
    for step in models[name].config.ensemble_scheduling.step:
        words |= _with_steps(step.model_name, models, above | {name})
    return words
