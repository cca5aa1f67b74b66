"""Every field of the model configuration, changed in every way that its kind allows.

The fields come from the protobuf's own descriptor, so a field that a newer schema adds is changed too. Each base is a
model that loads; a mutant is a base with one field absent, at its default, at each value of its kind, out of range, of
another kind, twice, or misspelt.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from google.protobuf import message_factory, text_format
from google.protobuf.descriptor import FieldDescriptor
from tritonclient.grpc import model_config_pb2 as pb

from .lab import BATCHED, XY, Files, ensemble, onnx_model, python, step

_F = FieldDescriptor
_INTEGERS = {
    _F.TYPE_INT32: (-(2**31), 2**31 - 1), _F.TYPE_INT64: (-(2**63), 2**63 - 1),
    _F.TYPE_UINT32: (0, 2**32 - 1), _F.TYPE_UINT64: (0, 2**64 - 1),
}  # fmt: skip
_NUMBERS = (0, 1, 2, 5)
_FLOATS = ("-1", "0", "0.5", "1", "2", "nan", "inf")
_STRINGS = ('""', '"x"', '"y"', '"nowhere"', '"2"', '"a/b"')
_UNKNOWN = 99  # of an enum
# As many processes, or as much memory, as no machine has.
_TOO_MUCH = {
    *((name, str(2**31 - 1)) for name in ("count", "max_candidate_sequences", "max_batch_size")),
    *((name, str(2**32 - 1)) for name in ("batch_size", "count")),
}
Path = tuple[str, ...]


@dataclass(frozen=True)
class Base:
    """A model that loads, and which fields of its configuration to change.

    Attributes:
        name: For people.
        files: The model.
        fields: Names of the top-level fields; empty for all of them.
        deep: Whether messages that it does not have are changed too, each as if it were there and empty.
        real: Whether its backend judges it too, not only Triton's core.
    """

    name: str
    files: Files
    fields: tuple[str, ...] = ()
    deep: bool = False
    real: bool = False


@dataclass(frozen=True)
class Mutant:
    """A base with one field changed."""

    base: Base
    path: Path
    change: str
    files: Files

    @property
    def title(self) -> str:
        """``base: input.dims [ -1 ]``."""
        return f"{self.base.name}: {'.'.join(self.path)} {self.change}"


_QUEUE = "timeout_action: REJECT default_timeout_microseconds: 9000 allow_timeout_override: true max_queue_size: 8"
_CONTROLS = """
  control_input { name: "start" control { kind: CONTROL_SEQUENCE_START int32_false_true: [0, 1] } }
  control_input { name: "ready" control { kind: CONTROL_SEQUENCE_READY bool_false_true: [false, true] } }
  control_input { name: "id" control { kind: CONTROL_SEQUENCE_CORRID data_type: TYPE_UINT64 } }
"""
_STATE = """
  state { input_name: "s" output_name: "t" data_type: TYPE_FP32 dims: 4
    initial_state { name: "zero" data_type: TYPE_FP32 dims: 4 zero_data: true } }
"""
_FILE_STATE = _STATE.replace("zero_data: true", 'data_file: "zero"')
_RAGGED = (
    XY.replace("dims: 4 }\no", "dims: -1 allow_ragged_batch: true }\no")
    + """
batch_input { kind: BATCH_ELEMENT_COUNT target_name: "count" data_type: TYPE_FP32 source_input: "x" }
batch_output { target_name: "y" kind: BATCH_SCATTER_WITH_INPUT_SHAPE source_input: "x" }
"""
)
_WARMUP = """
model_warmup { name: "zeros" batch_size: 1 count: 1
  inputs { key: "x" value { data_type: TYPE_FP32 dims: 4 zero_data: true } } }
"""
_GROUPS = """
instance_group { name: "g" count: 1 kind: KIND_CPU host_policy: "p" passive: false
  rate_limiter { resources { name: "r" count: 1 global: true } priority: 1 } }
"""
_OPTIMIZATION = """
optimization { graph { level: 1 } priority: PRIORITY_MAX input_pinned_memory { enable: true }
  output_pinned_memory { enable: false } gather_kernel_buffer_threshold: 1 eager_batching: true
  cuda { graphs: false busy_wait_events: true graph_spec { batch_size: 1 input { key: "x" value { dim: 4 } }
    graph_lower_bound { batch_size: 1 input { key: "x" value { dim: 4 } } } } } }
"""
_REST = """
metric_tags { key: "team" value: "a" }
cc_model_filenames { key: "8.6" value: "model_sm86.plan" }
parameters { key: "threads" value { string_value: "2" } }
response_cache { enable: false }
model_transaction_policy { decoupled: false }
"""
_PARAMETERS = "".join(
    f'parameters {{ key: "{key}" value {{ string_value: "1" }} }}\n'
    for key in ("intra_op_thread_count", "execution_mode", "enable_mem_arena")
)
_IO = 'input [ { name: "x" data_type: TYPE_FP32 dims: [2, 2] reshape { shape: 4 } } ]\noutput [ { name: "y" data_type: TYPE_FP32 dims: [2, 2] reshape { shape: 4 } label_filename: "labels.txt" } ]\n'

BASES = (
    Base("plain", python(), deep=True),
    Base("two versions", python(BATCHED + XY + "version_policy { specific { versions: [1, 2] } }\n")
         | {"2/model.py": python()["1/model.py"]}, ("version_policy",)),
    Base("latest", python(BATCHED + XY + "version_policy { latest { num_versions: 1 } }\n"), ("version_policy",)),
    Base("queue", python(f"{BATCHED}{XY}dynamic_batching {{ preferred_batch_size: [2, 4] max_queue_delay_microseconds: 100 "
                         f"preserve_ordering: false priority_levels: 2 default_priority_level: 1 default_queue_policy {{ {_QUEUE} }} "
                         f"priority_queue_policy {{ key: 2 value {{ {_QUEUE} }} }} }}\n"), ("dynamic_batching", "max_batch_size")),
    Base("order", python(f"{BATCHED}{XY}dynamic_batching {{ preserve_ordering: true default_queue_policy {{ {_QUEUE} }} }}\n"),
         ("dynamic_batching", "max_batch_size")),
    Base("direct", python(f"{BATCHED}{XY}sequence_batching {{ direct {{ minimum_slot_utilization: 0.5 max_queue_delay_microseconds: 9 }} "
                          f"max_sequence_idle_microseconds: 5000000 {_CONTROLS} {_STATE} }}\n"), ("sequence_batching", "max_batch_size")),
    Base("oldest", python(f"{BATCHED}{XY}sequence_batching {{ oldest {{ max_candidate_sequences: 4 preferred_batch_size: 2 "
                          f"max_queue_delay_microseconds: 9 }} {_FILE_STATE} }}\n", initial_state__zero=bytes(16)),
         ("sequence_batching", "max_batch_size")),
    Base("iterative", python(f"{BATCHED}{XY}sequence_batching {{ iterative_sequence: true }}\n"
                             "model_transaction_policy { decoupled: true }\n"),
         ("sequence_batching", "model_transaction_policy", "max_batch_size")),
    Base("ragged", python(BATCHED + _RAGGED), ("batch_input", "batch_output", "input")),
    Base("warm-up", python(BATCHED + XY + _WARMUP), ("model_warmup",)),
    Base("random warm-up", python(BATCHED + XY + _WARMUP.replace("zero_data", "random_data")), ("model_warmup",)),
    Base("warm-up file", python(BATCHED + XY + _WARMUP.replace("zero_data: true", 'input_data_file: "x"'), warmup__x=bytes(16)),
         ("model_warmup",)),
    Base("groups", {**python(), "config.pbtxt": f'backend: "python"\n{BATCHED}{XY}{_GROUPS}'}, ("instance_group",)),
    Base("reshape", python(BATCHED + _IO) | {"labels.txt": "a\nb\n"}, ("input", "output", "max_batch_size")),
    Base("optimized", python(BATCHED + XY + _OPTIMIZATION), ("optimization",)),
    Base("rest", python(BATCHED + XY + _REST),
         ("metric_tags", "cc_model_filenames", "parameters", "response_cache", "model_transaction_policy")),
    Base("cache", python(BATCHED + XY + "response_cache { enable: true }\n"), ("response_cache", "model_transaction_policy", "sequence_batching")),
    Base("ensemble", ensemble(step("part", {"x": "x"}, {"y": "t"}), step("part", {"x": "t"}, {"y": "y"})),
         ("name", "platform", "backend", "max_batch_size", "input", "output", "ensemble_scheduling", "instance_group",
          "optimization", "model_warmup", "response_cache", "version_policy", "dynamic_batching")),
    Base("onnx", onnx_model(BATCHED + XY + _PARAMETERS + "optimization { graph { level: 1 } }\n"),
         ("platform", "backend", "max_batch_size", "input", "output", "parameters", "optimization", "default_model_filename",
          "instance_group"), real=True),
    Base("completed onnx", onnx_model("max_batch_size: 4\n"), ("max_batch_size", "input", "output"), real=True),
)  # fmt: skip


def mutants() -> list[Mutant]:
    """All of them, each text once, in an order that never changes."""
    seen: set[str] = set()
    kept = []
    for base in BASES:
        config = text_format.Parse(str(base.files["config.pbtxt"]), pb.ModelConfig())
        for path, change, text in _edits(config, base):
            rendered = render(config, path, text)
            if rendered not in seen:
                seen.add(rendered)
                kept.append(Mutant(base, path, change, base.files | {"config.pbtxt": rendered}))
    return kept


def _edits(config: pb.ModelConfig, base: Base) -> Iterator[tuple[Path, str, str]]:
    yield ("backend",), "unchanged", _text(config, config.DESCRIPTOR.fields_by_name["backend"])
    for field in config.DESCRIPTOR.fields:
        if not base.fields or field.name in base.fields:
            yield from _field_edits(config, (field.name,), base.deep)


def _field_edits(message: Any, path: Path, deep: bool) -> Iterator[tuple[Path, str, str]]:
    field = message.DESCRIPTOR.fields_by_name[path[-1]]
    for change, text in _changes(message, field, deep):
        yield path, change, text
    if field.message_type is None or not (deep or _is_set(message, field)):
        return
    if (
        field.containing_oneof is not None
        and not message.HasField(field.name)
        and message.WhichOneof(field.containing_oneof.name)
    ):
        return
    inner = _first(message, field)
    for child in inner.DESCRIPTOR.fields:
        yield from _field_edits(inner, (*path, child.name), deep)


def _is_set(message: Any, field: FieldDescriptor) -> bool:
    return any(entry is field or entry.name == field.name for entry, _ in message.ListFields())


def _is_map(field: FieldDescriptor) -> bool:
    return field.message_type is not None and field.message_type.GetOptions().map_entry


def _entries(message: Any, field: FieldDescriptor) -> Sequence[Any]:
    """The values of a field: none, one, or several; those of a map as messages of key and value."""
    if _is_map(field):
        values = getattr(message, field.name)
        return [_entry(field, key, values[key]) for key in values]
    if field.is_repeated:
        return list(getattr(message, field.name))
    return [getattr(message, field.name)] if _is_set(message, field) else []


def _entry(field: FieldDescriptor, key: Any, value: Any) -> Any:
    entry = _new(field)
    entry.key = key
    if isinstance(value, str):
        entry.value = value
    else:
        entry.value.CopyFrom(value)
    return entry


def _new(field: FieldDescriptor) -> Any:
    assert field.message_type is not None
    return message_factory.GetMessageClass(field.message_type)()


def _first(message: Any, field: FieldDescriptor) -> Any:
    entries = _entries(message, field)
    return entries[0] if entries else _new(field)


def _changes(message: Any, field: FieldDescriptor, deep: bool) -> Iterator[tuple[str, str]]:
    """What to write in a field's place, each with a name."""
    name, now = field.name, _text(message, field)
    if now:
        yield "absent", ""
        yield "twice", f"{now}\n{now}"
    if deep:
        yield "misspelt", f"{name}_x: 1"
        yield "of another kind", f"{name}: 1" if field.message_type else f"{name} {{ }}"
    if field.message_type:
        yield "{ }", f"{name} {{ }}"
        if field.is_repeated:
            yield "[ ]", f"{name}: [ ]"
        return
    for value in _values(field, deep):
        if (name, value) not in _TOO_MUCH:
            yield value, f"{name}: {value}"
    if field.is_repeated:
        yield "[ ]", f"{name}: [ ]"
        for value in _values(field, deep=False):
            yield f"[ {value}, {value} ]", f"{name}: [ {value}, {value} ]"


def _values(field: FieldDescriptor, deep: bool) -> Iterator[str]:
    """Every value of a kind that is worth trying; those that the text format refuses only if ``deep``."""
    taken, refused = _kind_values(field)
    yield from taken
    if deep:
        yield from refused


def _kind_values(field: FieldDescriptor) -> tuple[Sequence[str], Sequence[str]]:
    """Values that the text format takes for a kind of field, and others."""
    if field.type in _INTEGERS:
        low, high = _INTEGERS[field.type]
        below = ("-1", str(low)) if low else ()
        return (*map(str, _NUMBERS), str(high), *below), (str(high + 1), str(low - 1), '"1"', "1.5", "true")
    if field.type in {_F.TYPE_FLOAT, _F.TYPE_DOUBLE}:
        return _FLOATS, ('"1"',)
    if field.type == _F.TYPE_BOOL:
        return ("true", "false"), ("2", '"true"')
    if field.enum_type is not None:
        return (*(value.name for value in field.enum_type.values), str(_UNKNOWN)), ("NOBODY", '"x"')
    return _STRINGS, ("7", "word")


def render(message: Any, path: Path = (), text: str = "") -> str:
    """A message in protobuf's text format, with ``text`` where ``path`` leads; of several entries, in the first."""
    lines = []
    for field in message.DESCRIPTOR.fields:
        if path == (field.name,):
            lines.append(text)
        elif path and path[0] == field.name:
            entries = _entries(message, field) or [_first(message, field)]
            lines.append(f"{field.name} {{\n{render(entries[0], path[1:], text)}}}")
            lines += [f"{field.name} {{\n{render(entry)}}}" for entry in entries[1:]]
        else:
            lines.append(_text(message, field))
    return "".join(f"{line}\n" for line in lines if line)


def _text(message: Any, field: FieldDescriptor) -> str:
    """A field with all its entries; empty if it has none."""
    entries = _entries(message, field)
    if field.message_type is not None:
        return "\n".join(f"{field.name} {{\n{render(entry)}}}" for entry in entries)
    return "\n".join(f"{field.name}: {_literal(field, value)}" for value in entries)


def _literal(field: FieldDescriptor, value: Any) -> str:
    if field.enum_type is not None:
        return str(field.enum_type.values_by_number[value].name)
    if field.type == _F.TYPE_BOOL:
        return str(value).lower()
    return f'"{value}"' if isinstance(value, str) else str(value)
