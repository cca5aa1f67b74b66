"""Values that protobuf takes and Triton does not: numbers that an enum has not, agents and tags that end the server."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

from google.protobuf.descriptor import FieldDescriptor

from tritonkit.repository.lint.contents import Model
from tritonkit.repository.lint.findings import Problem
from tritonkit.repository.lint.registry import CORE, Context, rule

_REFUSED = {("instance_group", "kind"), ("batch_input", "kind"), ("batch_output", "kind")}
_AGENTS = {"checksum"}  # that NVIDIA's images carry


@rule("TK148", "enum-number", "error", "a number that an enum does not have", enforced_by=CORE)
def enum_number(model: Model, _: Context) -> Iterator[Problem]:
    """Protobuf's text format takes any number for an enum, so `kind: 99` parses. Triton refuses a kind of instance
    group or of batch tensor that it does not know, and an ensemble's tensor of a type that does not exist; for other
    fields it takes some default, which is a warning.
    """
    for path, field, number, place in _strange(model.config, (), ()):
        names = ", ".join(value.name for value in field.enum_type.values)
        refused = path in _REFUSED or (model.ensemble and field.name == "data_type")
        yield Problem(
            f"{'.'.join(path)} is {number}, which is no {field.enum_type.name}", f"say one of: {names}",
            model.line(*place), severity=None if refused else "warning",
        )  # fmt: skip


def _strange(message: Any, path: tuple[str, ...], place: tuple[Any, ...]) -> Iterator[tuple[Any, Any, int, Any]]:
    for field, value in message.ListFields():
        field_path = (*path, field.name)
        if field.message_type is not None and field.message_type.GetOptions().map_entry:
            if field.message_type.fields_by_name["value"].message_type is not None:
                for key in value:
                    yield from _strange(value[key], field_path, (*place, (field.name, str(key)), "value"))
            continue
        for index, entry in enumerate(value if field.is_repeated else [value]):
            entry_place = (*place, (field.name, index))
            if field.message_type is not None:
                yield from _strange(entry, field_path, entry_place)
            elif field.type == FieldDescriptor.TYPE_ENUM and entry not in field.enum_type.values_by_number:
                yield field_path, field, entry, entry_place


@rule(
    "TK149",
    "agents-incomplete",
    "error",
    "model_repository_agents without an agent, or an agent that is not there",
    enforced_by=CORE,
    source="docs/customization_guide/repository_agents.md",
)
def agents_incomplete(model: Model, _: Context) -> Iterator[Problem]:
    """Triton loads the library libtritonrepoagent_NAME.so for each agent. An empty list ends the whole server (24.10).
    The only agent in NVIDIA's images is `checksum`; another one is a warning, as an image of your own may have it.
    """
    if not model.config.HasField("model_repository_agents"):
        return
    agents = model.config.model_repository_agents.agents
    if not agents:
        yield Problem(
            "model_repository_agents names no agent", "remove it, or name one", model.line("model_repository_agents")
        )
    for index, agent in enumerate(agents):
        line = model.line("model_repository_agents", ("agents", index))
        if not agent.name:
            yield Problem(f"agent {index} has no name", "name it, for example checksum", line)
        elif agent.name not in _AGENTS:
            yield Problem(
                f"there is no agent {agent.name!r} in NVIDIA's images", "use an image that has it, or remove it", line,
                severity="warning",
            )  # fmt: skip


@rule(
    "TK154",
    "metric-tag",
    "error",
    "a metric_tags key that is no label name of Prometheus",
    enforced_by=CORE,
    source="Prometheus documentation, Metric names and labels",
)
def metric_tag(model: Model, _: Context) -> Iterator[Problem]:
    """The tags become labels of the model's metrics. A label name has letters, digits and underscores, and does not
    begin with two of these; at any other Triton 24.10 does not refuse the model but ends with all of them.
    """
    for key in model.config.metric_tags:
        if key and (not re.fullmatch(r"[A-Za-z0-9_]+", key) or key.startswith("__")):
            near = re.sub(r"[^A-Za-z0-9_]", "_", key).lstrip("_")
            yield Problem(
                f"the metric tag {key!r} is no label name of Prometheus, and ends the server",
                f"use letters, digits and underscores, for example {near or 'team'}",
                model.line(("metric_tags", key), "key"),
            )  # fmt: skip
