"""Suggests the values that were meant for those that the chart refuses; helm's own check names only the latter."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from tritonkit.cli.arguments import closest, did_you_mean

Schema = dict[str, Any]
MOST = 3  # keys that are named
# As helm 3.18 and newer print it: - at '/service/http': additional properties 'prot', 'typ' not allowed
_REFUSED = re.compile(r"at '(?P<place>[^']*)': additional properties (?P<names>'.*') not allowed")
_TYPE = re.compile(r"at '[^']*': got (?P<got>\w+), want (?P<want>[\w ]+)$")
_PATTERN = re.compile(r"at '(?P<place>[^']*)': .* does not match pattern ")
_SCALARS = {"number", "integer", "boolean"}
_VARIANTS = "variants"


def explain(line: str, chart: Path) -> str:
    """Add what was probably meant to a line of helm's output: the value's full name, its type's syntax, or an example.

    Args:
        line: As helm printed it; a line without a refused value is returned unchanged.
        chart: The chart's folder, with ``values.schema.json``.
    """
    if mistyped := _TYPE.search(line):
        return line + _how_to_write(mistyped["got"], mistyped["want"])
    refused, unlike = _REFUSED.search(line), _PATTERN.search(line)
    if not refused and not unlike:
        return line
    schema: Schema = json.loads((chart / "values.schema.json").read_text(encoding="utf-8"))
    if unlike:
        form = _at(schema, _parts(unlike["place"]), schema)
        examples = [text for text in form.get("examples", [form.get("default")]) if text and isinstance(text, str)]
        return line + (f"; such as {' or '.join(examples)}" if examples else "")
    place = _parts(refused["place"]) if refused else []
    names = sorted(re.findall(r"'([^']*)'", refused["names"])) if refused else []  # helm's order changes by run
    return line + did_you_mean(dict.fromkeys(meant for name in names for meant in _meant(name, place, schema)))


def _parts(pointer: str) -> list[str]:
    return [part.replace("~1", "/").replace("~0", "~") for part in pointer.split("/")[1:]]


def _how_to_write(got: str, want: str) -> str:
    kinds = set(want.split(" or "))
    if "string" in kinds:
        return "; write it in quotes" if got in _SCALARS else ""
    if "array" in kinds:
        return "; write a list: [ … ]"
    if "object" in kinds:
        return "; write a mapping: {key: value}"
    return "; write it without quotes and unit" if got == "string" and kinds & _SCALARS else ""


def _meant(name: str, place: list[str], schema: Schema) -> list[str]:
    """Full names of the values that a misspelt name may stand for: in its own section, else elsewhere in the chart."""
    keys = _near(name, list(_at(schema, place, schema).get("properties", {})))
    if keys:
        return [".".join([*place, key]) for key in keys]
    if place[:1] == [_VARIANTS] and len(place) > 1:
        own = _elsewhere(name, place[2:], schema["definitions"]["workload"], schema)
        if own:
            return [".".join([*place[:2], path]) for path in own]
    return _elsewhere(name, place, schema, schema)


def _near(name: str, known: Sequence[str]) -> list[str]:
    """The keys with exactly the name's words; else those that contain its words; else the one with similar spelling."""
    words = _words(name)
    same = [key for key in known if words and words == _words(key)]
    whole = [key for key in known if words and words <= _words(key)]
    alike = closest(name, known)
    return same[:MOST] or whole[:MOST] or ([alike] if alike else [])


def _elsewhere(name: str, place: list[str], here: Schema, schema: Schema) -> list[str]:
    """Paths whose last key is the name, such as ``scheduling.nodeSelector``; else the section's with its words."""
    words = _words(name)
    paths = [path for path in _paths(here, schema) if words]
    same = [path for path in paths if _words(path[-1]) == words]
    alike = same or [path for path in paths if place and path[0] == place[0] and words <= _words(path[-1])]
    shared = [_shared(path, place) for path in alike]
    nearest = [path for path, count in zip(alike, shared, strict=True) if count == max(shared)]
    return [".".join(path) for path in nearest[:MOST]]


def _shared(path: Sequence[str], place: Sequence[str]) -> int:
    """How many sections two paths have in common."""
    return next(
        (i for i, pair in enumerate(zip(path, place, strict=False)) if pair[0] != pair[1]), min(len(path), len(place))
    )


def _words(name: str) -> set[str]:
    """A key's words, in small letters and the singular: ``minReplicas`` has two."""
    words = [word.lower() for word in re.findall(r"[A-Z]+(?![a-z])|[A-Z]?[a-z0-9]+", name)]
    return {word.removesuffix("s") for word in words}


def _at(here: Schema, place: Sequence[str], schema: Schema) -> Schema:
    """The schema of a value; an empty one where a key has no schema."""
    for part in place:
        here = _resolved(here, schema)
        matching = (inner for form, inner in here.get("patternProperties", {}).items() if re.search(form, part))
        inner = (
            here.get("properties", {}).get(part)
            or next(matching, None)
            or here.get("items")
            or here.get("additionalProperties")
        )
        here = inner if isinstance(inner, dict) else {}
    return _resolved(here, schema)


def _resolved(here: Schema, schema: Schema) -> Schema:
    known: Schema = schema["definitions"][here["$ref"].rpartition("/")[2]] if "$ref" in here else here
    return known


def _paths(here: Schema, schema: Schema, place: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    """The full names of all values, groups too."""
    for name, inner in here.get("properties", {}).items():
        yield (*place, name)
        yield from _paths(_resolved(inner, schema), schema, (*place, name))
