"""Values that the chart does not have, and those that were meant: helm's own check names the former only."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tritonkit.cli.arguments import closest, did_you_mean

Schema = dict[str, Any]
MOST = 3  # keys that are named
# As helm 3.18 and newer print it: - at '/service/http': additional properties 'prot', 'typ' not allowed
_REFUSED = re.compile(r"at '(?P<place>[^']*)': additional properties (?P<names>'.*') not allowed")


def explain(line: str, chart: Path) -> str:
    """A line of helm's, with the values that were probably meant, in full: ``autoscaling.maxReplicas``.

    Args:
        line: As helm printed it; one that refuses no unknown value comes back as it is.
        chart: The chart's folder, with ``values.schema.json``.
    """
    refused = _REFUSED.search(line)
    if not refused:
        return line
    schema: Schema = json.loads((chart / "values.schema.json").read_text(encoding="utf-8"))
    place = [part.replace("~1", "/").replace("~0", "~") for part in refused["place"].split("/")[1:]]
    known = list(_at(schema, place).get("properties", {}))
    meant: dict[str, None] = {}
    for name in re.findall(r"'([^']*)'", refused["names"]):
        keys = _near(name, known)
        paths = [path for path in _paths(schema) if path.rpartition(".")[2] == name][:1]
        meant |= dict.fromkeys([".".join([*place, key]) for key in keys] or paths)
    return line + did_you_mean(meant)


def _near(name: str, known: list[str]) -> list[str]:
    """The keys that have all of a name's words, as ``minReplicas`` has ``min``; else the one spelt most alike."""
    words = set(_words(name))
    whole = [key for key in known if words and words <= set(_words(key))]
    alike = closest(name, known)
    return whole[:MOST] or ([alike] if alike else [])


def _words(name: str) -> list[str]:
    """A key's words, in small letters: ``minReplicas`` has two."""
    return [word.lower() for word in re.findall(r"[A-Z]+(?![a-z])|[A-Z]?[a-z0-9]+", name)]


def _at(schema: Schema, place: list[str]) -> Schema:
    """The schema of a value; an empty one where a key has no schema."""
    here = schema
    for part in place:
        inner = here.get("properties", {}).get(part) or here.get("items") or here.get("additionalProperties")
        here = _resolved(inner if isinstance(inner, dict) else {}, schema)
    return here


def _resolved(here: Schema, whole: Schema) -> Schema:
    found: Schema = whole["definitions"][here["$ref"].rpartition("/")[2]] if "$ref" in here else here
    return found


def _paths(schema: Schema, here: Schema | None = None, place: tuple[str, ...] = ()) -> Iterator[str]:
    """The full names of all values, groups too."""
    for name, inner in (schema if here is None else here).get("properties", {}).items():
        yield ".".join([*place, name])
        yield from _paths(schema, _resolved(inner, schema), (*place, name))
