"""Ensembles: steps that exist, tensors that connect, types and shapes that agree along the way."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

from tritonkit.repository.lint import backends, graphs
from tritonkit.repository.lint.contents import Model
from tritonkit.repository.lint.findings import Problem
from tritonkit.repository.lint.pbtxt import Step
from tritonkit.repository.lint.registry import CORE, Context, rule

_DOCS = "docs/user_guide/ensemble_models.md"


def _steps(model: Model) -> Iterator[tuple[tuple[Step, ...], Any]]:
    """The steps, each with its place."""
    for index, step in enumerate(model.config.ensemble_scheduling.step):
        yield ("ensemble_scheduling", ("step", index)), step


def _resolved(model: Model, context: Context) -> Iterator[tuple[tuple[Step, ...], Any, Model]]:
    """The steps whose model is in the repository and has a configuration that can be used."""
    for place, step in _steps(model):
        step_model = context.repository.models.get(step.model_name)
        if step_model is not None and step_model.usable:
            yield place, step, step_model


@rule(
    "TK080",
    "ensemble-platform",
    "error",
    "an ensemble without its platform, or with a backend",
    enforced_by=CORE,
    source=_DOCS,
)
def ensemble_platform(model: Model, _: Context) -> Iterator[Problem]:
    """An ensemble says `platform: "ensemble"` and `ensemble_scheduling`, and no backend."""
    config = model.config
    scheduled = config.HasField("ensemble_scheduling")
    if scheduled and config.platform != backends.ENSEMBLE:
        yield Problem(
            'ensemble_scheduling without platform: "ensemble"', 'say platform: "ensemble", and no backend',
            model.line("platform") or model.line("ensemble_scheduling"),
        )  # fmt: skip
    elif config.platform == backends.ENSEMBLE and not scheduled:
        yield Problem('platform: "ensemble" without ensemble_scheduling', "add its steps", model.line("platform"))


@rule(
    "TK081",
    "ensemble-settings",
    "error",
    "settings that an ensemble has not, or steps that say too little",
    enforced_by=CORE,
    source=_DOCS,
)
def ensemble_settings(model: Model, _: Context) -> Iterator[Problem]:
    """An ensemble runs nothing itself, so it has no instance_group, optimization or model_warmup; its models have. It
    has at least one step, and each step names its model and maps inputs and outputs.
    """
    config = model.config
    if not config.HasField("ensemble_scheduling"):
        return
    for field, present in (
        ("instance_group", len(config.instance_group) > 0),
        ("optimization", config.HasField("optimization")),
        ("model_warmup", len(config.model_warmup) > 0),
    ):
        if present:
            yield Problem(f"an ensemble has no {field}", "move it to the ensemble's models", model.line(field))
    if not config.ensemble_scheduling.step:
        yield Problem("the ensemble has no step", "add one for each model", model.line("ensemble_scheduling"))
    for place, step in _steps(model):
        for field in ("model_name", "input_map", "output_map"):
            if not getattr(step, field):
                yield Problem(f"a step has no {field}", f"add {field}", model.line(*place))


@rule(
    "TK082",
    "ensemble-model-missing",
    "error",
    "a step whose model, or version of it, is not there",
    enforced_by=CORE,
    source="triton-inference-server/server#5474, #5890",
)
def ensemble_model_missing(model: Model, context: Context) -> Iterator[Problem]:
    """All models of an ensemble must be loaded by the same server. `model_version` -1 means the newest; left out it
    is 0, and Triton looks for a version 0. If the server has several repositories, lint sees only this one; say so with
    two `--server-arg=--model-repository=…`, and a missing model is a warning.
    """
    models = context.repository.models
    elsewhere = len(context.options.flag("model-repository")) > 1
    for place, step in _steps(model):
        if step.model_name and step.model_name not in models:
            yield Problem(
                f"the step's model {step.model_name!r} is not in the repository", "add it, or correct model_name",
                model.line(*place, "model_name"), severity="warning" if elsewhere else None,
            )  # fmt: skip
    for place, step, step_model in _resolved(model, context):
        if step.model_version != -1 and step.model_version not in step_model.loaded:
            loaded = ", ".join(map(str, step_model.loaded)) or "none"
            yield Problem(
                f"the step needs version {step.model_version} of {step.model_name!r}; loaded is {loaded}",
                "say model_version: -1 for the newest", model.line(*place, "model_version"),
            )  # fmt: skip


@rule("TK083", "ensemble-cycle", "error", "an ensemble that contains itself", enforced_by=CORE, source=_DOCS)
def ensemble_cycle(model: Model, context: Context) -> Iterator[Problem]:
    """Directly, or through other ensembles: nothing in the circle could be loaded first."""
    if not model.ensemble:
        return
    seen: set[str] = set()
    left = [(model.name, [model.name])]
    while left:
        name, path = left.pop()
        ensemble = context.repository.models.get(name)
        for _, step in _steps(ensemble) if ensemble is not None else ():
            if step.model_name == model.name:
                chain = " → ".join([*path, model.name])
                yield Problem(
                    f"the ensemble contains itself: {chain}", "break the chain", model.line("ensemble_scheduling")
                )
                return
            if step.model_name not in seen:
                seen.add(step.model_name)
                left.append((step.model_name, [*path, step.model_name]))


@rule(
    "TK084",
    "ensemble-unconnected",
    "error",
    "ensemble tensors that nothing makes or nothing uses",
    enforced_by=CORE,
    source=_DOCS,
)
def ensemble_unconnected(model: Model, _: Context) -> Iterator[Problem]:
    """Every input of the ensemble must go into a step, every output come out of one, and every tensor between steps be
    made by one step and used by another. A model's output that nobody needs is left out of its output_map.
    """
    if not model.config.HasField("ensemble_scheduling"):
        return
    produced, consumed, duplicates = _flow(model)
    for name, line in duplicates.items():
        yield Problem(f"the tensor {name!r} is made by two steps", "give one of them another name", line)
    ends = {entry.name for entry in (*model.config.input, *model.config.output)}
    yield from _loose_ends(model, {*produced, *consumed})
    for name, line in produced.items():
        if name not in consumed and name not in ends:
            yield Problem(f"the tensor {name!r} is made and nobody uses it", "leave it out of output_map", line)
    ready = _ready(model)
    for name, line in consumed.items():
        if name not in ready and name not in produced:
            yield Problem(f"the tensor {name!r} goes into a step and nothing makes it", "map it from a step", line)
        elif name not in ready:
            yield Problem(f"the tensor {name!r} can never be made", "see what its step waits for", line)


def _loose_ends(model: Model, mapped: set[str]) -> Iterator[Problem]:
    for kind, way in (("input", "goes into"), ("output", "comes out of")):
        for index, entry in enumerate(getattr(model.config, kind)):
            if entry.name and entry.name not in mapped:
                line = model.line((kind, index), "name")
                yield Problem(f"the ensemble's {kind} {entry.name!r} {way} no step", "map it, or remove it", line)


def _flow(model: Model) -> tuple[dict[str, int | None], dict[str, int | None], dict[str, int | None]]:
    """Tensors that steps make, that steps use, and that two steps make, with the line of each."""
    produced: dict[str, int | None] = {}
    consumed: dict[str, int | None] = {}
    duplicates: dict[str, int | None] = {}
    for place, step in _steps(model):
        for key, name in step.output_map.items():
            line = model.line(*place, ("output_map", key), "value")
            (duplicates if name in produced else produced)[name] = line
        for key, name in step.input_map.items():
            consumed.setdefault(name, model.line(*place, ("input_map", key), "value"))
    return produced, consumed, duplicates


def _ready(model: Model) -> set[str]:
    """Tensors that can be there when the ensemble runs, beginning with its inputs."""
    ready = {entry.name for entry in model.config.input}
    waiting = [step for _, step in _steps(model)]
    while True:
        runnable = [step for step in waiting if set(step.input_map.values()) <= ready]
        if not runnable:
            return ready
        ready |= {name for step in runnable for name in step.output_map.values()}
        waiting = [step for step in waiting if step not in runnable]


@rule(
    "TK085",
    "ensemble-map",
    "error",
    "a map that names what the step's model has not, or misses what it needs",
    enforced_by=CORE,
    source=_DOCS,
)
def ensemble_map(model: Model, context: Context) -> Iterator[Problem]:
    """The keys of input_map and output_map are the model's own names, the values are the ensemble's. Every input of the
    model that is not optional must be mapped; outputs may be left out.
    """
    for place, step, step_model in _resolved(model, context):
        signature = step_model.signature
        if signature is None:
            continue
        for field, known in (("input_map", signature.inputs), ("output_map", signature.outputs)):
            for key in getattr(step, field):
                if key not in known:
                    kind = field.removesuffix("_map")
                    yield Problem(
                        f"{step.model_name!r} has no {kind} {key!r}", f"use one of: {', '.join(known) or 'none'}",
                        model.line(*place, (field, key), "key"),
                    )  # fmt: skip
        missing = [name for name in signature.inputs if name not in step.input_map and name not in signature.optional]
        if missing and step.input_map:
            yield Problem(
                f"the input {missing[0]!r} of {step.model_name!r} is not mapped", "add it to input_map",
                model.line(*place, "input_map"),
            )  # fmt: skip


@rule(
    "TK086",
    "ensemble-tensor",
    "error",
    "a tensor that has another type or shape at its two ends",
    enforced_by=CORE,
    source=_DOCS,
)
def ensemble_tensor(model: Model, context: Context) -> Iterator[Problem]:
    """Types must be equal; dims must be equal or -1. The batch dimension counts once: [-1, 4] of a model that does not
    batch fits [4] of one that does.
    """
    if not model.config.HasField("ensemble_scheduling"):
        return
    first_ends: dict[str, tuple[graphs.Tensor, bool, str]] = {}
    for tensor in _ends(model):
        first_ends.setdefault(tensor.name, (tensor, model.config.max_batch_size > 0, "the ensemble"))
    for place, step, step_model in _resolved(model, context):
        signature = step_model.signature
        if signature is None:
            continue
        batched = signature.max_batch_size > 0
        for field, tensors in (("input_map", signature.inputs), ("output_map", signature.outputs)):
            for key, name in getattr(step, field).items():
                if key in tensors:
                    end = (tensors[key], batched, repr(step.model_name))
                    why = _differ(first_ends.setdefault(name, end), end)
                    if why:
                        line = model.line(*place, (field, key), "value")
                        yield Problem(
                            f"the tensor {name!r} {why}", "make both ends agree, or put a model between", line
                        )


def _ends(model: Model) -> Iterator[graphs.Tensor]:
    """The ensemble's own tensors as its steps see them: reshaped, if it says so."""
    signature = model.signature
    tensors = {**signature.inputs, **signature.outputs} if signature else {}
    for entry in (*model.config.input, *model.config.output):
        if entry.name in tensors:
            dims = entry.reshape.shape if entry.HasField("reshape") else entry.dims
            yield replace(tensors[entry.name], dims=tuple(dims))


def _differ(a: tuple[graphs.Tensor, bool, str], b: tuple[graphs.Tensor, bool, str]) -> str:
    (left, left_batched, left_model), (right, right_batched, right_model) = a, b
    if left.dtype and right.dtype and left.dtype != right.dtype:
        return f"is {left.dtype} for {left_model} and {right.dtype} for {right_model}"
    if not left.dims or not right.dims or _agree(left.dims, right.dims):
        return ""
    if _agree((-1, *left.dims) if left_batched else left.dims, (-1, *right.dims) if right_batched else right.dims):
        return ""
    return f"has dims {list(left.dims)} for {left_model} and {list(right.dims)} for {right_model}"


def _agree(a: tuple[int, ...], b: tuple[int, ...]) -> bool:
    return len(a) == len(b) and all(x == y or -1 in {x, y} for x, y in zip(a, b, strict=True))


@rule(
    "TK087",
    "ensemble-batch-size",
    "error",
    "an ensemble that takes larger batches than one of its models",
    enforced_by=CORE,
    source=_DOCS,
)
def ensemble_batch_size(model: Model, context: Context) -> Iterator[Problem]:
    """A batch goes through the ensemble whole. A model with max_batch_size 0 may be a step if the shapes fit."""
    largest = model.config.max_batch_size
    for _, step, step_model in _resolved(model, context):
        size = step_model.signature.max_batch_size if step_model.signature else step_model.config.max_batch_size
        if 0 < size < largest:
            yield Problem(
                f"the ensemble takes batches of {largest}, its step {step.model_name!r} of {size}",
                f"set max_batch_size: {size}, or raise the step's", model.line("max_batch_size"),
            )  # fmt: skip


@rule(
    "TK088",
    "ensemble-decoupled-join",
    "error",
    "a step that takes tensors from two decoupled streams",
    enforced_by=CORE,
    source=_DOCS,
)
def ensemble_decoupled_join(model: Model, context: Context) -> Iterator[Problem]:
    """A decoupled model answers any number of times. A later step may follow one such stream, but not join it with
    another, nor with a tensor from before it: nobody could say which answers belong together.
    """
    stream = dict.fromkeys((entry.name for entry in model.config.input), "")
    waiting = list(_resolved(model, context))
    while True:
        runnable = [entry for entry in waiting if set(entry[1].input_map.values()) <= set(stream)]
        waiting = [entry for entry in waiting if not set(entry[1].input_map.values()) <= set(stream)]
        if not runnable:
            return
        for place, step, step_model in runnable:
            sources = {stream[name] for name in step.input_map.values()}
            if len(sources) > 1:
                names = " and ".join("a decoupled stream" if source else "one before it" for source in sorted(sources))
                yield Problem(
                    f"the step {step.model_name!r} joins tensors of {names}",
                    "let the decoupled model pass the other tensors through", model.line(*place),
                )  # fmt: skip
            decoupled = step_model.config.model_transaction_policy.decoupled
            stream_name = str(place) if decoupled else next(iter(sources), "")
            stream |= dict.fromkeys(step.output_map.values(), stream_name)
