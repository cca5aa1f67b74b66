"""TensorRT plans: the right file for each GPU, and passports that belong to them.

No TensorRT is at hand here, so these rules follow the tensorrt backend's sources and the passports that `tritonkit
engine` writes. A stranger's plans have no passport; what needs one is then not checked.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

from tritonkit.dependencies import sha256
from tritonkit.passport import EngineFacts, ShapeBounds
from tritonkit.repository.lint import backends
from tritonkit.repository.lint.contents import Model, PassportFile, PlanPassport, is_file
from tritonkit.repository.lint.findings import Problem
from tritonkit.repository.lint.registry import TENSORRT, Context, rule
from tritonkit.repository.model_directory import PASSPORT

_DOCS = "README of triton-inference-server/tensorrt_backend"
_SAYS_SM = re.compile(r"sm_?(\d{2,3})(?!\d)")
_AMPERE = 8  # major compute capability
Profile = dict[str, ShapeBounds]


def _files(model: Model) -> Iterator[tuple[str, Path]]:
    """The plans that the configuration leads to: compute capability (empty for the default) and path."""
    if model.served.backend != backends.TENSORRT:
        return
    for number in model.loaded:
        for capability, name in sorted(model.config.cc_model_filenames.items()):
            yield capability, model.version(number) / name
        yield "", model.version(number) / model.served.filename


def _passports(model: Model) -> Iterator[tuple[Path, EngineFacts]]:
    """Plans that have a passport that can be read."""
    if model.served.backend == backends.TENSORRT:
        for path, passport in model.plans.items():
            if passport.data:
                yield path, passport.data


@rule(
    "TK090",
    "plan-missing",
    "error",
    "cc_model_filenames, or the default, names a plan that is not there",
    enforced_by=TENSORRT,
    source=_DOCS,
)
def plan_missing(model: Model, _: Context) -> Iterator[Problem]:
    """On a GPU of compute capability 8.6 the backend opens the file under the key "8.6", else default_model_filename,
    else model.plan. The default may be missing if every GPU has its key; without any key it is needed.
    """
    for capability, path in _files(model):
        if is_file(path) or (not capability and model.config.cc_model_filenames):
            continue
        name = f"the plan for compute capability {capability}, " if capability else "the plan "
        line = (
            model.line(("cc_model_filenames", capability), "value")
            if capability
            else model.line("default_model_filename")
        )
        yield Problem(f"{name}{path.parent.name}/{path.name}, is not there", "build it, or remove the entry", line)


@rule("TK091", "capability-key", "warning", "a key of cc_model_filenames that no GPU has", source=_DOCS)
def capability_key(model: Model, _: Context) -> Iterator[Problem]:
    """Keys are compute capabilities as CUDA writes them, "8.6". Triton compares text, so "86" or "sm86" match no GPU
    and the default plan is opened instead.
    """
    for key in model.config.cc_model_filenames:
        if not re.fullmatch(r"\d{1,2}\.\d", key):
            digits = re.sub(r"\D", "", key)
            near = f'"{digits[:-1]}.{digits[-1]}"' if len(digits) >= 2 else '"8.6"'
            yield Problem(
                f"{key!r} is no compute capability",
                f"write it as {near}",
                model.line(("cc_model_filenames", key), "key"),
            )


@rule("TK092", "plan-without-passport", "info", "a plan that nothing is known about")
def plan_without_passport(model: Model, _: Context) -> Iterator[Problem]:
    """Nobody can say from a plan alone which GPU and which TensorRT it was built for; that shows when it fails to load.
    `tritonkit engine` writes a passport beside each plan.
    """
    for path in dict.fromkeys(path for _, path in _files(model)):
        passport = model.plans.get(path)
        if passport is not None and not passport.data and not passport.problem:
            yield Problem("the plan has no passport", "build it with `tritonkit engine`, which writes one", path=path)


@rule("TK093", "plan-differs", "error", "a plan that is not the one in its passport", enforced_by=TENSORRT)
def plan_differs(model: Model, _: Context) -> Iterator[Problem]:
    """A shorter file is a cut copy, which TensorRT refuses. Another hash means another plan: it may run, but nothing
    that the passport says was measured on it, so that is a warning.
    """
    for path, passport in _passports(model):
        size, plan_bytes = path.stat().st_size, passport.plan_bytes
        if plan_bytes is not None and size < plan_bytes:
            yield Problem(f"the plan has {size:,} bytes, its passport says {plan_bytes:,}", "copy it again", path=path)
        elif passport.plan_sha256 and sha256(path) != passport.plan_sha256:
            yield Problem(
                "the plan has another SHA-256 than its passport says", "copy both again", path=path, severity="warning"
            )


@rule("TK094", "passport-unreadable", "warning", "a passport that cannot be read")
def passport_unreadable(model: Model, _: Context) -> Iterator[Problem]:
    """Triton does not read passports, but the check on a GPU node does, and lint knows nothing without it."""
    files: list[PassportFile | PlanPassport] = [model.passport, *model.plans.values()]
    for passport in files:
        if passport.problem:
            fix = "build the model again" if passport.path.name == PASSPORT else "build the plan again"
            yield Problem(f"the passport {passport.problem}", fix, path=passport.path)


@rule(
    "TK095",
    "plan-for-another-gpu",
    "error",
    "a plan under the key, or the name, of another compute capability",
    enforced_by=TENSORRT,
    source="NVIDIA/TensorRT#3130",
)
def plan_for_another_gpu(model: Model, _: Context) -> Iterator[Problem]:
    """A plan runs on the compute capability that it was built for, unless it was built hardware-compatible. The key in
    cc_model_filenames and the passport must agree, and a file called model_sm86.plan should be one for 8.6.
    """
    for key, path in _files(model):
        passport = model.plans.get(path)
        built = _built_for(passport)
        line = model.line(("cc_model_filenames", key), "value") if key else None
        if passport and key and built and not _runs_on(passport, key):
            yield Problem(
                f"{path.name} is for {key} here, its passport says {built}", "build a plan for each GPU", line
            )
        elif (match := _SAYS_SM.search(path.name)) and (key or built) and match[1] != (built or key).replace(".", ""):
            yield Problem(
                f"{path.name} is called sm{match[1]} and is for {built or key}", "rename it, or correct the key", line,
                path=None if line else path, severity="warning",
            )  # fmt: skip


def _built_for(passport: PlanPassport | None) -> str:
    """The compute capability in a passport; empty where it says none."""
    return passport.data.compute_capability if passport and passport.data else ""


def _runs_on(passport: PlanPassport, capability: str) -> bool:
    """Whether a plan runs on GPUs of a compute capability, such as ``8.6``."""
    if _built_for(passport) == capability:
        return True
    major = capability.partition(".")[0]
    compatible = passport.data is not None and passport.data.hardware_compatibility == "ampere_plus"
    return compatible and major.isdigit() and int(major) >= _AMPERE


@rule("TK096", "plan-of-tensorrt-rtx", "error", "a plan that TensorRT-RTX built", enforced_by=TENSORRT)
def plan_of_tensorrt_rtx(model: Model, _: Context) -> Iterator[Problem]:
    """Triton's tensorrt backend loads plans of TensorRT, not of TensorRT-RTX, which tritonkit uses only to check graphs
    on machines without a GPU.
    """
    for path, passport in _passports(model):
        if passport.builder == "tensorrt_rtx":
            yield Problem("the plan was built by TensorRT-RTX", "build it with TensorRT on the GPU", path=path)


def _used_profiles(model: Model, passport: EngineFacts) -> list[Profile]:
    """The profiles that the instance groups choose: the first where none is said."""
    profiles = passport.profiles
    chosen = {int(name) for group in model.config.instance_group for name in group.profile if name.isdigit()} or {0}
    return [profiles[index] for index in sorted(chosen) if index < len(profiles)]


@rule(
    "TK097",
    "profile-batch",
    "error",
    "max_batch_size above the plan's optimization profile",
    enforced_by=TENSORRT,
    source="triton-inference-server/server#4384, #7056",
)
def profile_batch(model: Model, _: Context) -> Iterator[Problem]:
    """The profile's largest batch is what the plan was built for. The backend takes the largest over the profiles that
    the instance groups choose, and refuses a max_batch_size above it.
    """
    size = model.config.max_batch_size
    for path, passport in _passports(model):
        largest = [
            min(bounds.max[0] for bounds in profile.values() if bounds.max)
            for profile in _used_profiles(model, passport)
            if any(bounds.max for bounds in profile.values())
        ]
        if largest and size > max(largest):
            yield Problem(
                f"max_batch_size is {size}, {path.name} was built for batches up to {max(largest)}",
                f"set max_batch_size: {max(largest)}, or build it with a larger profile", model.line("max_batch_size"),
            )  # fmt: skip


@rule(
    "TK098",
    "profile-dims",
    "error",
    "dims outside the plan's optimization profile",
    enforced_by=TENSORRT,
    source=_DOCS,
)
def profile_dims(model: Model, _: Context) -> Iterator[Problem]:
    """A fixed size in `dims` must lie between the profile's min and max; requests of that size could not run. -1 leaves
    it to the requests.
    """
    batched = model.config.max_batch_size > 0
    for path, passport in _passports(model):
        for profile in _used_profiles(model, passport):
            for index, entry in enumerate(model.config.input):
                bounds = profile.get(entry.name)
                if bounds is None or entry.is_shape_tensor:
                    continue
                low, high = bounds.min[batched:], bounds.max[batched:]
                dims = list(entry.reshape.shape) if entry.HasField("reshape") else list(entry.dims)
                fits = len(dims) == len(low) == len(high) and all(
                    dim == -1 or a <= dim <= b for dim, a, b in zip(dims, low, high, strict=True)
                )
                if dims and not fits:
                    yield Problem(
                        f"input {entry.name!r} has dims {dims}, {path.name} was built for {low} to {high}",
                        "correct dims, or build the plan for them", model.line(("input", index), "dims"),
                    )  # fmt: skip


@rule(
    "TK099",
    "profile-index",
    "error",
    "an instance group with a profile that the plan has not",
    enforced_by=TENSORRT,
    source=_DOCS,
)
def profile_index(model: Model, _: Context) -> Iterator[Problem]:
    """`profile` in an instance group is the index of an optimization profile, as text, beginning with "0"."""
    for path, passport in _passports(model):
        count = len(passport.profiles)
        for index, group in enumerate(model.config.instance_group):
            for name in group.profile:
                if count and not (name.isdigit() and int(name) < count):
                    yield Problem(
                        f"instance group {index} chooses profile {name!r}, {path.name} has {count}",
                        f"give one from 0 to {count - 1}", model.line(("instance_group", index), "profile"),
                    )  # fmt: skip


@rule(
    "TK100",
    "no-plan-for-gpu",
    "error",
    "no plan for the GPU of the nodes",
    enforced_by=TENSORRT,
    source=_DOCS,
)
def no_plan_for_gpu(model: Model, context: Context) -> Iterator[Problem]:
    """Checked only with `--gpu`. A key for the GPU's compute capability is enough, or a default plan that was not built
    for another one.
    """
    gpu = context.options.gpu
    if gpu is None or model.served.backend != backends.TENSORRT or gpu.compute in model.config.cc_model_filenames:
        return
    for number in model.loaded:
        path = model.version(number) / model.served.filename
        passport = model.plans.get(path)
        built = _built_for(passport)
        if passport is None:
            why = f"there is no {path.name} either"
        elif built and not _runs_on(passport, gpu.compute):
            why = f"{path.name} is for {built}"
        else:
            continue
        yield Problem(
            f"cc_model_filenames has no plan for {gpu.key} ({gpu.compute}), and {why}", f"build one for {gpu.key}",
            model.line("cc_model_filenames"),
        )  # fmt: skip
