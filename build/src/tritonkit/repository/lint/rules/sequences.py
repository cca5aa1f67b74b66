"""Stateful models: the controls that the sequence batcher sends, and the states that it keeps."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from typing import Any

from tritonclient.grpc import model_config_pb2 as pb

from tritonkit.repository.lint.contents import Model, is_file
from tritonkit.repository.lint.findings import Problem
from tritonkit.repository.lint.registry import CORE, Context, rule

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
    said = [name for name in _PAIRS if getattr(control, name)]
    if control.kind == _CONTROL.CONTROL_SEQUENCE_CORRID:
        if said:
            yield f"{kind} has {said[0]}", "remove it; the value is the sequence's own"
        if control.data_type not in _CORRELATION:
            yield f"{kind} has no integer or string data_type", "say data_type: TYPE_UINT64"
    elif len(said) != 1:
        yield f"{kind} has {' and '.join(said) or 'no values'}", f"give one of {', '.join(_PAIRS)}"
    elif len(getattr(control, said[0])) != 2:
        yield f"{kind} has {len(getattr(control, said[0]))} values in {said[0]}", "give the false and the true value"


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
    if not 0 <= share <= 1:
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
            if initial.data_file and not is_file(model.directory / "initial_state" / initial.data_file):
                yield Problem(
                    f"the state {state.input_name!r} begins with initial_state/{initial.data_file}, which is not there",
                    "put the file there, or use zero_data: true",
                    model.line("sequence_batching", ("state", index), ("initial_state", number), "data_file"),
                )
