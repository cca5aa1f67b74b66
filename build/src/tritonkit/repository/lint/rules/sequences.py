"""Stateful models: the controls that the sequence batcher sends, and the states that it keeps."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from math import prod
from typing import Any

from tritonclient.grpc import model_config_pb2 as pb

from tritonkit.repository.lint.contents import Model, is_file
from tritonkit.repository.lint.findings import Problem
from tritonkit.repository.lint.pbtxt import Step
from tritonkit.repository.lint.registry import CORE, REQUESTS, Context, rule
from tritonkit.repository.lint.widths import WIDTHS

_CONTROL = pb.ModelSequenceBatching.Control
_DOCS = "docs/user_guide/model_execution.md, Stateful Models"
_CORRELATION = {pb.TYPE_UINT64, pb.TYPE_INT64, pb.TYPE_UINT32, pb.TYPE_INT32, pb.TYPE_STRING}
_PAIRS = ("int32_false_true", "fp32_false_true", "bool_false_true")


@rule(
    "TK060", "sequence-control", "error", "a control input that does not say one thing", enforced_by=CORE, source=_DOCS
)
def sequence_control(model: Model, _: Context) -> Iterator[Problem]:
    """Each control tensor carries one kind of signal, each kind goes to one tensor. START, END and READY need exactly
    one pair of values, of one type; CORRID needs an integer or string data_type and no pair.
    """
    controls = model.config.sequence_batching.control_input
    names = Counter(entry.name for entry in controls)
    kinds = Counter(control.kind for entry in controls for control in entry.control)
    for index, entry in enumerate(controls):
        place = ("sequence_batching", ("control_input", index))
        line = model.line(*place)
        if not entry.name:
            yield Problem(f"control_input {index} has no name", "name the tensor that gets the control", line)
        elif names[entry.name] > 1:
            yield Problem(f"control_input {entry.name!r} is given twice", "use one tensor for each kind", line)
        for number, control in enumerate(entry.control):
            place_of = model.line(*place, ("control", number))
            kind = _CONTROL.Kind.Name(control.kind) if control.kind in _CONTROL.Kind.values() else str(control.kind)
            if kinds[control.kind] > 1:
                yield Problem(f"{kind} goes to several tensors", "send it to one", place_of)
            for why, fix in _mistakes(control, kind):
                yield Problem(why, fix, place_of)


def _mistakes(control: Any, kind: str) -> Iterator[tuple[str, str]]:
    pairs = [name for name in _PAIRS if getattr(control, name)]
    if control.kind == _CONTROL.CONTROL_SEQUENCE_CORRID:
        if pairs:
            yield f"{kind} has {pairs[0]}", "remove it; the value is the sequence's own"
        if control.data_type not in _CORRELATION:
            yield f"{kind} has no integer or string data_type", "say data_type: TYPE_UINT64"
    elif len(pairs) != 1:
        yield f"{kind} has {' and '.join(pairs) or 'no values'}", f"give one of {', '.join(_PAIRS)}"
    elif len(getattr(control, pairs[0])) != 2:
        yield f"{kind} has {len(getattr(control, pairs[0]))} values in {pairs[0]}", "give the false and the true value"


@rule(
    "TK061",
    "slot-utilization",
    "error",
    "minimum_slot_utilization outside 0 to 1",
    enforced_by=CORE,
    source=_DOCS,
)
def slot_utilization(model: Model, _: Context) -> Iterator[Problem]:
    """It is the share of slots that must be filled before the direct strategy runs a batch."""
    share = model.config.sequence_batching.direct.minimum_slot_utilization
    if share < 0 or share > 1:  # Triton takes nan for neither
        yield Problem(
            f"minimum_slot_utilization is {share:g}", "give a share from 0 to 1",
            model.line("sequence_batching", "direct", "minimum_slot_utilization"),
        )  # fmt: skip


@rule(
    "TK062", "initial-state-missing", "error", "a file of an initial state is missing", enforced_by=CORE, source=_DOCS
)
def initial_state_missing(model: Model, _: Context) -> Iterator[Problem]:
    """`data_file` of an initial state is looked for in the folder `initial_state` of the model."""
    for index, state in enumerate(model.config.sequence_batching.state):
        for number, initial in enumerate(state.initial_state):
            from_file = initial.WhichOneof("state_data") == "data_file"
            if from_file and not is_file(model.directory / "initial_state" / initial.data_file):
                yield Problem(
                    f"the state {state.input_name!r} begins with initial_state/{initial.data_file}, which is not there",
                    "put the file there, or use zero_data: true",
                    model.line("sequence_batching", ("state", index), ("initial_state", number), "data_file"),
                )


@rule(
    "TK145",
    "initial-state",
    "error",
    "an initial state that does not fit its state, or says too little",
    enforced_by=CORE,
    source=f"{_DOCS}; triton-inference-server/server#4775, #5446",
)
def initial_state(model: Model, _: Context) -> Iterator[Problem]:
    """A state has one initial state or none. It has a name, the state's data_type and as many dims as the state; each
    is a number, and the state's own where that is one. Its values are zero_data or data_file, and a file holds all of
    them.
    """
    states = model.config.sequence_batching.state
    initial_states = Counter(state.input_name for state in states if state.initial_state)
    for index, state in enumerate(states):
        place: tuple[Step, ...] = ("sequence_batching", ("state", index))
        if len(state.initial_state) > 1:
            line = model.line(*place, ("initial_state", 1))
            yield Problem(f"the state {state.input_name!r} has several initial states", "keep one", line)
        if state.initial_state and initial_states[state.input_name] > 1:
            initial_states[state.input_name] = 0
            yield Problem(
                f"two states with an initial state have the input_name {state.input_name!r}", "give each its own",
                model.line(*place, "input_name"),
            )  # fmt: skip
        if len(state.initial_state) == 1:
            line = model.line(*place, "initial_state")
            for why, fix in _misfits(model, state, state.initial_state[0]):
                yield Problem(f"the initial state of {state.input_name!r} {why}", fix, line)


def _misfits(model: Model, state: Any, initial: Any) -> Iterator[tuple[str, str]]:
    dims, state_dims = list(initial.dims), list(state.dims)
    if initial.data_type != state.data_type:
        yield "is of another data_type than the state", "say the same data_type in both"
    if not initial.name:
        yield "has no name", "give it one"
    if -1 in dims:
        yield "has -1 in its dims", "say the size that a sequence begins with"
    elif len(dims) != len(state_dims) or any(size not in {-1, dim} for dim, size in zip(dims, state_dims, strict=True)):
        yield f"has dims {dims}, the state has {state_dims}", "give dims that fit the state's"
    if initial.WhichOneof("state_data") is None:
        yield "says no values", "say zero_data: true, or data_file"
    elif initial.WhichOneof("state_data") == "data_file" and initial.data_type in WIDTHS and -1 not in dims:
        path = model.directory / "initial_state" / initial.data_file
        size, needed = (path.stat().st_size if is_file(path) else None), prod(dims) * WIDTHS[initial.data_type]
        if size is not None and size < needed:
            yield f"is {needed:,} bytes, {initial.data_file} has {size:,}", "write the file again, or correct dims"


@rule(
    "TK146",
    "growable-state",
    "error",
    "use_growable_memory on a CPU, or without use_same_buffer_for_input_output",
    enforced_by=REQUESTS,
    source=_DOCS,
)
def growable_state(model: Model, _: Context) -> Iterator[Problem]:
    """A state that grows is kept in one buffer of CUDA's virtual memory, for what goes in and what comes out, so it
    needs instances of KIND_GPU.
    """
    kinds = {group.kind for group in model.config.instance_group}
    for index, state in enumerate(model.config.sequence_batching.state):
        if not state.use_growable_memory:
            continue
        line = model.line("sequence_batching", ("state", index), "use_growable_memory")
        if not state.use_same_buffer_for_input_output:
            yield Problem(
                f"the state {state.input_name!r} grows and has two buffers",
                "say use_same_buffer_for_input_output",
                line,
            )
        if kinds & {pb.ModelInstanceGroup.KIND_CPU, pb.ModelInstanceGroup.KIND_MODEL}:
            yield Problem(
                f"the state {state.input_name!r} grows, and its instances are not of KIND_GPU",
                "say kind: KIND_GPU, or remove use_growable_memory", line,
            )  # fmt: skip
