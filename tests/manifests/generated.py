"""Values that nobody would write, made from the chart's own schema: for the property test."""

from __future__ import annotations

import json
import operator
from typing import Any

from hypothesis import strategies as st

from manifests.rendering import CHART

Strategy = st.SearchStrategy[Any]
Path = tuple[str, ...]
SCHEMA = json.loads((CHART / "values.schema.json").read_text(encoding="utf-8"))
# What breaks templates that forget to quote, and what Kubernetes refuses in a name.
HOSTILE = [
    "yes", "no", "on", "null", "~", "true", "0", "007", "1e3", "0x1F", "1_000", "12:30:45", "2024-01-01", ".inf", "", " ",
    "a b", " a", "a ", "a\nb", "a\n", "\ta", "a: b", "a #b", "#a", "- a", "{a: b}", "[a]", "*a", "&a", "!a", "|", ">", "%a",
    "@a", "`a`", "'", '"', "''", '"a"', "a'b\"c", "\\", "\\n", "a\\", "{{ .Values }}", "{{", "$(A)", "$A", "`id`", "$(id)",
    ";rm", "ä", "日本", "\u2028", "\u0085", "\ufeff", "🦜", "A", "a_b", "a/b", "-a", "a-", "a" * 64, "a." * 130, "latest",
]  # fmt: skip
_WORDS = st.from_regex(r"[a-z]([a-z0-9-]{0,14}[a-z0-9])?", fullmatch=True)
_TEXT = st.one_of(st.sampled_from(HOSTILE), st.text(max_size=12), _WORDS, _WORDS)
_QUANTITY = st.sampled_from(["1", "500m", "1Gi", "64Gi", "1e3", "1.5Gi", "0", "-1", "1GB", "much", "1 Gi", "", "12Ti"])


def resolve(schema: dict[str, Any]) -> dict[str, Any]:
    """A schema with its ``$ref`` followed."""
    while "$ref" in schema:
        schema = SCHEMA["definitions"][schema["$ref"].rpartition("/")[2]]
    return schema


def leaves(schema: dict[str, Any] = SCHEMA, above: Path = ()) -> dict[Path, dict[str, Any]]:
    """Every value that the schema describes, by path; ``global`` is helm's."""
    schemas: dict[Path, dict[str, Any]] = {}
    for name, below in schema.get("properties", {}).items():
        described = resolve(below)
        if "properties" in described:
            schemas |= leaves(described, (*above, name))
        elif name != "global":
            schemas[(*above, name)] = described
    return schemas


def _numbers(schema: dict[str, Any]) -> Strategy:
    least = schema.get("minimum", schema.get("exclusiveMinimum", -2))
    most = schema.get("maximum", schema.get("exclusiveMaximum", 100_000))
    edges = [least, most, least + 1, 7, 2**31, -1, 0]
    if schema["type"] == "integer":
        return st.one_of(st.sampled_from([int(edge) for edge in edges]), st.integers(int(least), int(most)))
    floats = st.floats(least, most, allow_nan=False, allow_infinity=False).map(lambda number: float(f"{number:.4g}"))
    return st.one_of(st.sampled_from(edges), floats)


def _objects(path: Path) -> Strategy:
    """Kubernetes' own objects: their schema is not the chart's, so these are well-formed with odd texts in them."""
    objects = {
        "extraEnv": st.lists(st.fixed_dictionaries({"name": _WORDS.map(str.upper), "value": _TEXT}), max_size=2),
        "tolerations": st.just([{"key": "a", "operator": "Exists"}]),
        "resources": st.fixed_dictionaries({"limits": st.fixed_dictionaries({"memory": _QUANTITY})}),
        "nodeSelector": st.dictionaries(_WORDS, _WORDS, max_size=2),
        "parentRefs": st.lists(st.fixed_dictionaries({"name": _WORDS}), max_size=2),
        "clients": st.just([{"podSelector": {"matchLabels": {"a": "b"}}}]),
    }
    return objects.get(path[-1], st.nothing())


def value(path: Path, schema: dict[str, Any]) -> Strategy:
    """A strategy for one value: valid ones, and invalid ones that a person may write; of alternatives the first."""
    schema = schema.get("anyOf", [schema])[0]
    kinds = schema.get("type", [])
    kinds = {kinds} if isinstance(kinds, str) else set(kinds)
    choices: list[Strategy] = [st.sampled_from(schema["enum"])] * 3 if "enum" in schema else []
    if "pattern" in schema:
        choices += [st.from_regex(schema["pattern"], fullmatch=True)] * 2
    if "boolean" in kinds:
        choices.append(st.booleans())
    if kinds & {"integer", "number"}:
        choices.append(_numbers({**schema, "type": "integer" if "integer" in kinds else "number"}))
    if "string" in kinds or "enum" in schema:
        choices.append(_QUANTITY if "size" in path[-1].lower() else _TEXT)
    if "array" in kinds:
        items = resolve(schema.get("items", {}))
        plain = items and "object" not in items.get("type", "")
        choices.append(st.lists(value((*path, "0"), items), max_size=3) if plain else _objects(path))
    if "object" in kinds:
        values = [*schema.get("patternProperties", {}).values(), schema.get("additionalProperties")]
        choices.append(_map(path, values[0]))
    return st.one_of(choices)


def _map(path: Path, inner: Any) -> Strategy:
    if path == ("variants",):
        return st.dictionaries(st.one_of(_WORDS, _TEXT), st.sampled_from([{}, {"replicas": 2}]), max_size=3)
    if isinstance(inner, dict):
        keys = st.one_of(_WORDS, st.sampled_from(["a.example/b", *HOSTILE]))
        return st.dictionaries(keys, value((*path, "0"), resolve(inner)), max_size=2)
    return _objects(path)


def changes() -> Strategy:
    """A few values, each at its path."""
    able = {path: value(path, schema) for path, schema in leaves().items()}
    pairs = [st.tuples(st.just(path), strategy) for path, strategy in able.items() if not strategy.is_empty]
    return st.lists(st.one_of(pairs), min_size=1, max_size=4, unique_by=operator.itemgetter(0))


def put(values: dict[str, Any], path: Path, setting: Any) -> None:
    """Set one value in nested maps."""
    for name in path[:-1]:
        values = values.setdefault(name, {})
    values[path[-1]] = setting
