"""Writes ``values.schema.json``, ``files/defaults.json`` and the README's table from the chart's ``values.yaml``.

A value is thus described once, where it stands; what templates do with it is not looked at here.

Directly above a key, at its indentation::

    # -- What it does.
    # @schema {"enum": ["off", "init"]}
    mode: off

A map without a description is a section: it may have the keys that stand there and no others. A map with one is a
value: anything may stand in it. Types come from defaults; an empty list takes objects, a string is one line of text.
To a value whose type has ``null`` that is a choice; else ``null``, by which helm takes a value away, is the default,
which templates then read from ``files/defaults.json``. ``@schema`` is JSON Schema laid over that, in which
``{"is": "name"}`` stands for one of :data:`FORMS`. Which values an entry of ``variants`` may give is what the
templates' ``tritonkit.workloadKeys`` says.
"""

from __future__ import annotations

import difflib
import json
import re
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from tritonkit import atomic
from tritonkit.cli.arguments import Parser
from tritonkit.cli.output import run_command
from tritonkit.errors import CheckFailed, InputError

CHART = Path(__file__).parent / "tritonkit"
VARIANTS = "variants"  # its entries have the workload's schema
MARKER = "<!-- values -->"
_DNS = r"[a-z0-9]([a-z0-9-]*[a-z0-9])?"
_KEY = rf"^({_DNS}(\.{_DNS})*/)?[A-Za-z0-9]([A-Za-z0-9_.-]{{0,61}}[A-Za-z0-9])?$"
_OWN_LABELS = [f"app.kubernetes.io/{name}" for name in ("name", "instance", "component", "version", "managed-by")]
_OWN_LABELS += ["helm.sh/chart", "tritonkit/variant", "tritonkit/role", "tritonkit/service"]
_LINES = r"^[^\x00-\x08\x0b-\x1f\x7f-\x9f]*$"
_LABEL = "^([A-Za-z0-9]([A-Za-z0-9_.-]{0,61}[A-Za-z0-9])?)?$"
_QUANTITY = r"(0*[1-9][0-9]*(\.[0-9]+)?|0\.0*[1-9][0-9]*)"
_AMOUNT = {"type": ["string", "number"], "pattern": rf"^{_QUANTITY}(m|k|[KMGTPE]i|[MGTPE])?$", "minimum": 0.001}
_AMOUNT |= {"examples": ["500m", "16Gi"]}


def _map_of(value: dict[str, Any]) -> dict[str, Any]:
    """A map with Kubernetes' keys. Not by propertyNames, whose errors helm reports at a path that is not theirs."""
    return {"patternProperties": {_KEY: value}, "additionalProperties": False}


# Forms that Kubernetes gives its strings (its reference, "Object Names and IDs" and "Labels and Selectors"; the OCI
# distribution specification for images). Empty where a value may be left out.
FORMS: dict[str, dict[str, Any]] = {
    "text": {"pattern": r"^[^\x00-\x1f\x7f-\x9f]*$"},  # what YAML carries without escapes, on one line
    "name": {"pattern": rf"^({_DNS}(\.{_DNS})*)?$", "maxLength": 253},
    "host": {"pattern": rf"^((\*\.)?{_DNS}(\.{_DNS})*)?$", "maxLength": 253, "examples": ["triton.example.org"]},
    "label": {"pattern": _LABEL},
    "key": {"pattern": "^[A-Za-z0-9_.-]*$", "maxLength": 253},
    "subPath": {
        "pattern": "^([^/\\x00-\\x1f\\x7f-\\x9f][^\\x00-\\x1f\\x7f-\\x9f]*)?$",
        "not": {"pattern": r"(^|/)\.\.(/|$)"},
    },
    "imageRepository": {"pattern": "^([A-Za-z0-9]([A-Za-z0-9._/:-]*[A-Za-z0-9])?)?$"},
    "imageTag": {"pattern": "^([A-Za-z0-9_][A-Za-z0-9_.-]{0,127})?$", "not": {"const": "latest"}},
    "quantity": {
        "type": ["string", "integer"],
        "pattern": rf"^({_QUANTITY}(k|[KMGTPE]i|[MGTPE])?)?$",
        "minimum": 1,
        "examples": ["16Gi"],
    },
    "labels": _map_of({"type": "string", "pattern": _LABEL}),
    "moreLabels": {  # beside those that the chart gives every object
        **_map_of({"type": "string", "pattern": _LABEL}),
        "not": {"anyOf": [{"required": [name]} for name in _OWN_LABELS]},
    },
    "annotations": _map_of({"type": "string", "pattern": _LINES}),
    "variable": {
        "required": ["name"],
        "properties": {
            "name": {"type": "string", "pattern": "^[A-Za-z_.-][A-Za-z0-9_.-]*$"},
            "value": {"type": "string", "pattern": _LINES},
            "valueFrom": {"type": "object"},
        },
    },
    "resources": {
        "properties": {
            "requests": {"type": "object", **_map_of(_AMOUNT)},
            "limits": {"type": "object", **_map_of(_AMOUNT)},
            "claims": {"type": "array", "items": {"type": "object"}},
        }
    },
}
_CIDR = {"type": "string", "pattern": "^[0-9a-fA-F.:]+/[0-9]+$", "examples": ["10.0.0.0/16"]}
# What is handed on as it stands, and refused by the cluster where a key is misspelt or a number is no string
# (Kubernetes' reference, "NetworkPolicy"; KEDA's, "ScaledObject specification").
FORMS |= {
    "selector": {
        "properties": {"matchLabels": {"type": "object", **FORMS["labels"]}, "matchExpressions": {"type": "array"}}
    },
    "peer": {
        "minProperties": 1,
        "properties": {
            "podSelector": {"is": "selector"},
            "namespaceSelector": {"is": "selector"},
            "ipBlock": {
                "required": ["cidr"],
                "properties": {"cidr": _CIDR, "except": {"type": "array", "items": _CIDR}},
            },
        },
    },
    "trigger": {
        "required": ["type", "metadata"],
        "properties": {
            "type": {"type": "string"},
            "name": {"type": "string"},
            "metricType": {"enum": ["AverageValue", "Value", "Utilization"]},
            "metadata": {"type": "object", "additionalProperties": {"type": "string"}},
            "authenticationRef": {"type": "object"},
            "useCachedMetrics": {"type": "boolean"},
        },
    },
}
_SCALARS = {bool: "boolean", int: "integer", float: "number", str: "string"}
_LONGEST_DEFAULT = 60  # characters of a default that the table still shows
Schema = dict[str, Any]


@dataclass
class Value:
    """One key of ``values.yaml``: its path, its default, and the description and ``@schema`` of its comments."""

    path: tuple[str, ...]
    default: Any
    line: int
    description: str = ""
    annotation: Schema = field(default_factory=dict)
    children: list[Value] = field(default_factory=list)

    @property
    def name(self) -> str:
        """The path as ``helm --set`` writes it."""
        return ".".join(self.path)

    def leaves(self) -> Iterator[Value]:
        """The values below it that have a row in the table; the value itself if there is none below."""
        if not self.children:
            yield self
        for child in self.children:
            yield from child.leaves()


def read(path: Path) -> list[Value]:
    """The top-level values of a ``values.yaml``.

    Raises:
        InputError: A value has no description, or no type that its default or ``@schema`` says.
    """
    text = path.read_text(encoding="utf-8")
    node = yaml.compose(text, Loader=yaml.SafeLoader)
    if not isinstance(node, yaml.MappingNode):
        raise InputError(f"{path} is not a map", "give it keys")
    return _read_map(node, text.splitlines(), (), path)


def _read_map(node: yaml.MappingNode, lines: list[str], above: tuple[str, ...], path: Path) -> list[Value]:
    values = []
    for key, below in node.value:
        default = _plain(below)
        value = Value((*above, str(key.value)), default, key.start_mark.line + 1)
        _read_comments(value, lines, key.start_mark.column, path)
        if isinstance(below, yaml.MappingNode) and below.value and not value.description:
            value.children = _read_map(below, lines, value.path, path)
        elif not value.description:
            raise InputError(f"{path}:{value.line}: {value.name} has no description", "write `# -- …` above it")
        values.append(value)
    return values


def _plain(node: yaml.Node) -> Any:
    return yaml.SafeLoader("").construct_document(node)


def _read_comments(value: Value, lines: list[str], column: int, path: Path) -> None:
    prefix = " " * column + "#"
    first = value.line - 1
    while first > 0 and lines[first - 1].startswith(prefix):
        first -= 1
    block = [line[len(prefix) :].strip() for line in lines[first : value.line - 1]]
    starts = [i for i, line in enumerate(block) if line.startswith("-- ")]
    words, schema = [], []
    for line in block[starts[-1] :] if starts else block:
        if line.startswith("@schema "):
            schema.append(line.removeprefix("@schema "))
        elif starts:
            words.append(line.removeprefix("-- "))
    value.description = " ".join(words).strip()
    try:
        value.annotation = json.loads(" ".join(schema) or "{}", object_hook=_known_form)
    except ValueError as error:
        raise InputError(f"{path}:{value.line}: the @schema of {value.name}: {error}", "correct it") from error


def _known_form(annotation: Schema) -> Schema:
    if isinstance(form := annotation.get("is"), str) and form not in FORMS:
        raise ValueError(f"{form} is none of {', '.join(FORMS)}")
    return annotation


def workload_keys(chart: Path) -> list[str]:
    """The top-level values that make a workload, as the templates have them."""
    text = "".join(path.read_text(encoding="utf-8") for path in sorted((chart / "templates").glob("_*.tpl")))
    definition = re.search(r'define "tritonkit\.workloadKeys" -?}}(.*?){{', text, re.DOTALL)
    return definition[1].split() if definition else []


def schema_of(values: list[Value], workload: list[str], path: Path) -> Schema:
    """The whole JSON schema (draft 7, which helm reads)."""
    schemas = {value.path[0]: _schema(value, path) for value in values}
    definitions: Schema = {name: schema for name, schema in schemas.items() if name in workload}
    references = {name: {"$ref": f"#/definitions/{name}"} for name in definitions}
    if VARIANTS in schemas:
        definitions["workload"] = {"type": "object", "additionalProperties": False, "properties": references}
        schemas[VARIANTS]["additionalProperties"] = {"$ref": "#/definitions/workload"}
    return {
        "$schema": "http://json-schema.org/draft-07/schema#",
        "$comment": "generated from values.yaml by helm/schema.py",
        "type": "object",
        "additionalProperties": False,
        "properties": {**schemas, **references},
        "definitions": definitions,
    }


def _schema(value: Value, path: Path) -> Schema:
    schema: Schema = {"description": value.description} if value.description else {}
    annotation: Schema = _closed(value.annotation)
    if value.children:
        schema |= {
            "type": "object",
            "additionalProperties": False,
            "properties": {child.path[-1]: _schema(child, path) for child in value.children},
        }
        return schema | annotation
    if not {"type", "$ref", "enum", "anyOf", "oneOf", "allOf", "const"} & annotation.keys():
        schema |= _inferred(value, annotation, path)
    return {**schema, **annotation, "default": value.default}


def _inferred(value: Value, annotation: Schema, path: Path) -> Schema:
    default = value.default
    if isinstance(default, str):
        return {"type": "string"} if "pattern" in annotation else {"type": "string", **FORMS["text"]}
    if type(default) in _SCALARS:
        return {"type": _SCALARS[type(default)]}
    if isinstance(default, dict):
        return {"type": "object"}
    if isinstance(default, list):
        item = _SCALARS.get(type(default[0]), "object") if default else "object"
        return {"type": "array"} if "items" in annotation else {"type": "array", "items": {"type": item}}
    raise InputError(
        f"{path}:{value.line}: the default of {value.name}, {json.dumps(default)}, does not say what may stand there",
        'write `# @schema {"type": …}` above it',
    )


def _closed(node: Any) -> Any:
    """Expand the forms of an ``@schema``, and close maps with named keys to other keys."""
    if isinstance(node, list):
        return [_closed(item) for item in node]
    if not isinstance(node, dict):
        return node
    node = {**FORMS.get(node.get("is", ""), {}), **node}
    closed = {name: _closed(item) for name, item in node.items() if name != "is"}
    if isinstance(node.get("properties"), dict):
        closed = {"type": "object", "additionalProperties": False} | closed
    return closed


def defaults_of(values: list[Value]) -> dict[str, dict[str, Any]]:
    """Every default by its path: ``choices`` are values for which ``null`` is a choice, the rest are ``defaults``."""
    leaves = [leaf for top in values for leaf in top.leaves()]
    choices = {leaf.name: leaf.default for leaf in leaves if "null" in leaf.annotation.get("type", ())}
    return {"choices": choices, "defaults": {leaf.name: leaf.default for leaf in leaves if leaf.name not in choices}}


def table_of(values: list[Value]) -> str:
    """The README's table: one row for each value that has a default of its own."""
    rows = ["| Value | Default | What it does |", "|---|---|---|"]
    for top in values:
        for leaf in top.leaves():
            default = json.dumps(leaf.default, ensure_ascii=False)
            shown = f"`{default}`" if len(default) <= _LONGEST_DEFAULT else "see values.yaml"
            words = leaf.description
            if choices := leaf.annotation.get("enum"):
                named = (
                    choice if isinstance(choice, str) else json.dumps(choice) for choice in choices if choice != ""
                )
                words += ". One of " + ", ".join(f"`{choice}`" for choice in named)
            rows.append("| " + " | ".join(_cell(text) for text in (f"`{leaf.name}`", shown, words)) + " |")
    return "\n".join(rows) + "\n"


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("\n", " ")


def generated(chart: Path) -> dict[Path, str]:
    """The content of the files that are generated from ``values.yaml``.

    Raises:
        InputError: ``values.yaml`` says too little, or the README has no place for its table.
    """
    values = read(chart / "values.yaml")
    schema = schema_of(values, workload_keys(chart), chart / "values.yaml")
    defaults = defaults_of(values)
    files = {
        chart / "values.schema.json": json.dumps(schema, indent=2, ensure_ascii=False) + "\n",
        chart / "files/defaults.json": json.dumps(defaults, indent=1, ensure_ascii=False) + "\n",
    }
    readme = chart / "README.md"
    if readme.exists():
        head, marker, _ = readme.read_text(encoding="utf-8").partition(MARKER)
        if not marker:
            raise InputError(f"{readme} has no line {MARKER}", "put it above the place of the table")
        files[readme] = f"{head}{MARKER}\n\n{table_of(values)}"
    return files


def drift(chart: Path) -> str:
    """The unified diff that writing the files would make; empty if nothing would change."""
    changes: list[str] = []
    for path, text in generated(chart).items():
        there = path.read_text(encoding="utf-8") if path.exists() else ""
        changes += difflib.unified_diff(
            there.splitlines(keepends=True), text.splitlines(keepends=True), str(path), f"{path} (generated)"
        )
    return "".join(changes)


def main(arguments: list[str] | None = None) -> int:
    """Write the files, or with ``--check`` say what would change."""
    return run_command(lambda: _main(arguments))


def _main(arguments: list[str] | None = None) -> int:
    options = _parser().parse_args(arguments)
    if options.check:
        if changes := drift(options.chart):
            print(changes, end="")
            raise CheckFailed("values.yaml has changed since these were generated", "run `python helm/schema.py`")
    else:
        for path, text in generated(options.chart).items():
            path.parent.mkdir(exist_ok=True)
            atomic.write(path, text.encode())
            print(f"wrote {path}", file=sys.stderr)
    return 0


def _parser() -> Parser:
    parser = Parser(
        description="values.yaml → values.schema.json and the README's table",
        examples=["python helm/schema.py --check"],
    )  # fmt: skip
    parser.add_argument("--check", action="store_true", help="write nothing; exit 1 and show a diff if something would")
    parser.add_argument("--chart", type=Path, default=CHART, help="the chart's folder")
    return parser


if __name__ == "__main__":
    sys.exit(main())
