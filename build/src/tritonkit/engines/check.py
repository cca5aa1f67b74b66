"""May this model run on this node? Compares passports with a node; each mismatch is one sentence with the fix.

Pure functions on what :mod:`tritonkit.engines.node` reads and :mod:`tritonkit.passport` holds.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from tritonclient.grpc import model_config_pb2 as pb

from tritonkit import passport as model_passports
from tritonkit.dependencies import sha256
from tritonkit.engines import cuda
from tritonkit.engines import passport as passports
from tritonkit.engines.builder import AMPERE
from tritonkit.engines.node import Node, NodeGpu
from tritonkit.errors import InputError
from tritonkit.passport import EnginePassport, ModelPassport
from tritonkit.repository import model_directory, ownership
from tritonkit.repository.model_directory import CONFIG, PASSPORT, PLAN

Kind = Literal[
    "builder", "compute_capability", "config", "cpu", "driver", "gpu", "image", "memory", "passport", "plan", "tensorrt"
]
_GIB = 2**30
_BUILD = "build one with `tritonkit engine` on such a node"
# Release of nvcr.io/nvidia/tritonserver to the TensorRT in it, as far as it is known: the first numbers.
_IMAGES = {"26.04": "10", "26.06": "11", "26.07": "11", "26.08": "11", "26.09": "11"}
_TRTLLM_IMAGES = "10.14"  # the -trtllm- variants of 26.x carry a TensorRT of their own


@dataclass(frozen=True)
class Problem:
    """One mismatch: what does not fit, and what to do. ``plan`` is the plan's file, empty for the model itself."""

    kind: Kind
    text: str
    fix: str
    plan: str = ""


@dataclass(frozen=True)
class ModelCheck:
    """The result of checking one model.

    Attributes:
        model: Its name.
        problems: Empty if it may run here.
        checked: How many passports were compared; 0 for a model that has none and needs none.
        fallback: The custom configuration that the model states for nodes where no plan fits; empty if it has none.
        notes: What could not be compared, as sentences.
    """

    model: str
    problems: tuple[Problem, ...]
    checked: int
    fallback: str = ""
    notes: tuple[str, ...] = ()


def check(passport: EnginePassport, node: Node) -> list[Problem]:
    """Every mismatch between a plan and a node."""
    if passport.builder == "tensorrt_rtx":
        return [
            Problem(
                "builder",
                "the plan was built by TensorRT-RTX, which Triton's tensorrt backend does not load",
                "build it with `tritonkit engine` and full TensorRT on a node with the GPU",
            )
        ]
    if not node.gpus:
        return [
            Problem(
                "gpu",
                "no GPU is visible here (nvidia-smi is missing or shows none), and the plan needs one",
                "schedule the pod on a GPU node, and give it a GPU: resources.limits of nvidia.com/gpu",
            )
        ]
    problems = []
    for gpu in node.gpus:
        problems += [*_capability(passport, gpu), *_memory(passport, gpu)]
    return [*problems, *_tensorrt(passport, node), *_image(passport, node)]


def _capability(passport: EnginePassport, gpu: NodeGpu) -> Iterator[Problem]:
    fits = gpu.capability == passport.capability
    if passport.hardware_compatibility == "ampere_plus":
        fits = gpu.capability >= AMPERE
    if not fits:
        yield Problem(
            "compute_capability",
            f"the plan is for compute capability {passport.compute_capability}, and {gpu.name} has {gpu.compute}",
            f"build one for {gpu.compute} on such a node, or schedule the pod on {passport.gpu or 'another GPU'}",
        )


def _memory(passport: EnginePassport, gpu: NodeGpu) -> Iterator[Problem]:
    if passport.memory_bytes > gpu.memory_bytes:
        yield Problem(
            "memory",
            f"one instance takes {passport.memory_bytes / _GIB:.1f} GiB, and {gpu.name} has "
            f"{gpu.memory_bytes / _GIB:.1f} GiB",
            "use a GPU with more memory, or build with a smaller largest batch",
        )


def _tensorrt(passport: EnginePassport, node: Node) -> Iterator[Problem]:
    built = passport.tensorrt_version
    if node.tensorrt_version is None:
        if known_tensorrt(node.image) is None:
            yield Problem(
                "tensorrt",
                f"no TensorRT was found here, and the plan needs {built}",
                "run the check in the Triton image that will serve the model, or say its tag with --image",
            )
    elif not _runs(passport, node.tensorrt_version):
        yield Problem(
            "tensorrt",
            f"the plan was built by TensorRT {built}, and {node.tensorrt_version} is installed here",
            _version_fix(passport, node.tensorrt_version),
        )


def _image(passport: EnginePassport, node: Node) -> Iterator[Problem]:
    known = known_tensorrt(node.image)
    if known is not None and not _runs(passport, known):
        yield Problem(
            "image",
            f"the plan was built by TensorRT {passport.tensorrt_version}, and the image {node.image} has {known}",
            "serve with the image that the plan was built in, or build the engine again in this one",
        )


def _runs(passport: EnginePassport, version: str) -> bool:
    """Whether a TensorRT of ``version``, which may be only its first numbers, loads the plan."""
    there = [int(part) for part in version.split(".")]
    built = [int(part) for part in passport.tensorrt_version.split(".")]
    shared = min(len(there), len(built))
    if passport.version_compatible:
        return there[:shared] >= built[:shared]
    return there[:shared] == built[:shared]


def _version_fix(passport: EnginePassport, version: str) -> str:
    fix = f"build the engine again with TensorRT {version}, or serve with the image it was built in"
    return fix if passport.version_compatible else f"{fix}; --version-compatible lets later versions run it"


def known_tensorrt(image: str | None) -> str | None:
    """The first numbers of the TensorRT in a Triton image; None where the tag is not known.

    Args:
        image: ``nvcr.io/nvidia/tritonserver:26.09-py3``, ``26.09-py3`` or ``26.09``.
    """
    match = re.search(r"(?:^|:)(\d\d\.\d\d)(-[\w.-]+)?$", image or "")
    if not match:
        return None
    if "trtllm" in (match[2] or ""):
        return _TRTLLM_IMAGES if match[1].startswith("26.") else None
    return _IMAGES.get(match[1])


def check_model(directory: Path, node: Node) -> ModelCheck:
    """Everything about one model's directory: what it needs of the CPU or of CUDA, and the plan that Triton would load.

    Raises:
        InputError: It is not a model directory, or its ``passport.json`` cannot be read.
    """
    passport = read_model(directory)
    versions = _served_passports(directory, passport)
    problems = [
        *(problem for passport in versions for problem in _cpu(passport, node)),
        *_cuda(versions, directory, node),
    ]
    notes: list[str] = []
    plans = _plans(directory, node, problems)
    for plan, nodes in plans.items():
        problems += check_plan(plan, nodes)
    if plans and node.image and known_tensorrt(node.image) is None:
        notes.append(f"which TensorRT the image {node.image} has is not known here")
    fallback = passport.fallback if passport else ""
    if fallback and problems and (why := _uncovered(directory, fallback, node)):
        problems.append(Problem("config", why, "build the model again with --fallback, or schedule the pod elsewhere"))
        fallback = ""
    return ModelCheck(directory.name, tuple(problems), len(plans) + (passport is not None), fallback, tuple(notes))


def _uncovered(directory: Path, fallback: str, node: Node) -> str:
    """Why the stated fallback does not help this node; empty if it does."""
    place = model_directory.custom_config(fallback)
    configuration = model_directory.read_config(directory / place)
    if configuration is None:
        return f"the stated fallback {fallback!r} has no {place}"
    if not node.gpus and any(group.kind == pb.ModelInstanceGroup.KIND_GPU for group in configuration.instance_group):
        return f"the stated fallback {fallback!r} needs a GPU, too"
    return ""


def read_model(directory: Path) -> ModelPassport | None:
    """A model's own ``passport.json``; None if it has none.

    Raises:
        InputError: The directory or the file cannot be read.
    """
    if not directory.is_dir():
        raise InputError(f"there is no model directory {directory}", "name a directory, or a model and --repository")
    return model_passports.read(directory / PASSPORT)


def _cpu(passport: ModelPassport, node: Node) -> Iterator[Problem]:
    features = passport.cpu_features
    if features and not node.cpu_features & set(features):
        yield Problem(
            "cpu",
            f"the graph was quantized for CPUs with {' or '.join(features)}, and this one has none of them: unsigned "
            "int8 products saturate there and results are wrong",
            f"schedule the pod on a CPU with {features[0]}, or build the model with --precision fp32",
        )


def _served_passports(directory: Path, last: ModelPassport | None) -> list[ModelPassport]:
    """The passports of the versions that Triton loads; that of the version built last where they have none."""
    configuration = model_directory.read_config(directory / CONFIG)
    known = ownership.passports(directory)
    served = model_directory.loaded(model_directory.versions(directory), configuration) if configuration else []
    return [known[version] for version in served if version in known] or ([last] if last else [])


def _cuda(versions: Sequence[ModelPassport], directory: Path, node: Node) -> Iterator[Problem]:
    """What a model that was built for onnxruntime on CUDA needs of each GPU, for all versions that are served."""
    if not any(passport.target == "cuda" for passport in versions):
        return
    if not node.gpus:
        yield Problem(
            "gpu",
            "no GPU is visible here (nvidia-smi is missing or shows none), and the model was built for target cuda",
            "schedule the pod on a GPU node, and give it a GPU: resources.limits of nvidia.com/gpu",
        )
    configuration = model_directory.read_config(directory / CONFIG)
    instances = sum(max(group.count, 1) for group in configuration.instance_group) if configuration else 1
    needed = instances * sum(passport.instance_bytes for passport in versions)
    for gpu in node.gpus:
        if problem := cuda.obstacle(gpu.driver, gpu.capability):
            new = gpu.capability >= cuda.CAPABILITY_SINCE
            yield Problem("driver" if new else "compute_capability", f"{gpu.name}: {problem[0]}", problem[1])
        if needed > gpu.memory_bytes:
            yield Problem(
                "memory",
                f"{instances} instances take {needed / _GIB:.1f} GiB, and {gpu.name} has {gpu.memory_bytes / _GIB:.1f}",
                "lower batching.instances or the largest batch size in the recipe, or use a GPU with more memory",
            )


def check_plan(plan: Path, node: Node) -> list[Problem]:
    """One plan file: its passport, its bytes, and the node."""
    try:
        passport = passports.read(plan)
    except InputError as error:
        return [Problem("passport", error.message, error.fix, plan.name)]
    problems = [*_bytes(plan, passport), *check(passport, node)]
    return [replace(problem, plan=plan.name) for problem in problems]


def _bytes(plan: Path, passport: EnginePassport) -> Iterator[Problem]:
    copy = "copy it again from where it was built, or build it again"
    size = plan.stat().st_size
    if size != passport.plan_bytes:
        yield Problem("plan", f"the plan has {size} bytes, its passport says {passport.plan_bytes}", copy)
    elif sha256(plan) != passport.plan_sha256:
        yield Problem("plan", "the plan is not the file that its passport was written for (SHA-256 differs)", copy)


def _plans(directory: Path, node: Node, problems: list[Problem]) -> dict[Path, Node]:
    """The plans that Triton would load here, each with the GPUs it would load it on.

    Without a GPU, or without a configuration to say which, these are all plans.
    """
    versions = model_directory.versions(directory)
    plans = [plan for version in versions for plan in sorted((directory / str(version)).glob("*.plan"))]
    plans = plans or sorted(directory.glob("*.plan"))  # a folder of engines that is no model yet
    configuration = model_directory.read_config(directory / CONFIG)
    by_tensorrt = configuration is not None and "tensorrt" in {
        configuration.backend,
        configuration.platform.removesuffix("_plan"),
    }
    if configuration is None or not (node.gpus and (plans or by_tensorrt)):
        if by_tensorrt and not plans:
            problems.append(
                Problem(
                    "plan",
                    "Triton serves it by TensorRT, and it has no plan",
                    "build one with `tritonkit engine` on a GPU node",
                )
            )
        return dict.fromkeys(plans, node)
    chosen: dict[Path, Node] = {}
    for version in (directory / str(number) for number in model_directory.loaded(versions, configuration)):
        for gpu in node.gpus:
            name = configuration.cc_model_filenames.get(gpu.compute) or configuration.default_model_filename or PLAN
            plan = version / name
            if plan.is_file():
                before = chosen[plan].gpus if plan in chosen else ()
                chosen[plan] = replace(node, gpus=(*before, gpu))
            elif by_tensorrt:
                problems.append(_no_plan(gpu, version, [path.name for path in plans]))
    return chosen


def _no_plan(gpu: NodeGpu, version: Path, names: Sequence[str]) -> Problem:
    return Problem(
        "compute_capability",
        f"there is no plan for {gpu.name} (compute capability {gpu.compute}) in version {version.name}; there are "
        f"{', '.join(names) or 'none'}",
        f"{_BUILD}, and name it in cc_model_filenames under {gpu.compute}",
    )
