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
# Keys of earlier versions and of other charts, by their full names, whose words no value of this chart has.
_FOREIGN: dict[str, tuple[str, ...]] = {
    "alerts": ("monitoring.prometheusRule.enabled",),
    "args": ("server.extraArgs",),
    "autoscaling.hpa.targetCPUUtilizationPercentage": ("autoscaling.signal", "autoscaling.hpa.metrics"),
    "autoscaling.keda.prometheus": ("autoscaling.keda.serverAddress",),
    "autoscaling.keda.query": ("autoscaling.keda.triggers", "autoscaling.signal"),
    "autoscaling.keda.threshold": ("autoscaling.target",),
    "autoscaling.prometheus": ("autoscaling.keda.serverAddress",),
    "autoscaling.targetCPUUtilizationPercentage": ("autoscaling.signal", "autoscaling.hpa.metrics"),
    "autoscaling.targetMemoryUtilizationPercentage": ("autoscaling.signal", "autoscaling.hpa.metrics"),
    "command": ("server.extraArgs",),
    "configMap": ("extraVolumes", "extraObjects"),
    "gpu": ("accelerator.count", "accelerator.products"),
    "grafana": ("monitoring.dashboard.enabled",),
    "image.imageName": ("image.repository", "image.tag"),
    "image.modelRepositoryPath": ("models.uri",),
    "image.name": ("image.repository",),
    "image.numGpus": ("accelerator.count",),
    "image.registry": ("global.imageRegistry", "image.repository"),
    "ingress.hosts": ("ingress.http.host", "ingress.grpc.host"),
    "ingress.paths": ("ingress.http.host", "ingress.grpc.host"),
    "logLevel": ("server.logVerbose",),
    "metrics": ("monitoring.podMonitor.enabled",),
    "modelRepository": ("models.uri",),
    "modelRepositoryPath": ("models.uri",),
    "networkPolicy.ingress.gateways": ("networkPolicy.ingress.proxies",),
    "numGpus": ("accelerator.count",),
    "otel": ("tracing.url",),
    "persistence": ("models.pvc.claimName", "engineBuild.cache"),
    "podDisruptionBudget": ("pdb.enabled",),
    "podSecurityContext": ("podSecurity.user",),
    "port": ("service.httpPort", "service.grpcPort"),
    "prometheus": ("autoscaling.keda.serverAddress", "monitoring.podMonitor.enabled"),
    "s3": ("models.uri", "models.region", "models.credentials.existingSecret"),
    "securityContext": ("podSecurity.user",),
    "serverArgs": ("server.extraArgs",),
    "shm": ("sharedMemory.size",),
    "shmSize": ("sharedMemory.size",),
    "sidecars": ("extraContainers",),
    "storage": ("models.uri", "models.pvc.claimName"),
    "strategy": ("rollout.profile",),
    "topologySpreadConstraints": ("scheduling.topologySpread",),
    "updateStrategy": ("rollout.profile",),
}


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
    """Full names of the values that a refused name may stand for: in its own section, else elsewhere in the chart."""
    known = list(_at(schema, place, schema).get("properties", {}))
    words = _words(name)
    if same := [key for key in known if words and words == _words(key)]:
        return [".".join([*place, key]) for key in same[:MOST]]
    variant = place[:2] if place[:1] == [_VARIANTS] else []
    workload: Schema = schema["definitions"]["workload"]
    if foreign := _FOREIGN.get(".".join([*place[len(variant) :], name])):
        own = workload["properties"] if variant else {}
        return [".".join([*variant, path]) if path.partition(".")[0] in own else path for path in foreign]
    if whole := [key for key in known if words and words <= _words(key)]:
        return [".".join([*place, key]) for key in whole[:MOST]]
    if variant and (own_paths := _elsewhere(name, place[2:], workload, schema)):
        return [".".join([*variant, path]) for path in own_paths]
    if paths := _elsewhere(name, place, schema, schema):
        return paths
    alike = closest(name, known)
    return [".".join([*place, alike])] if alike else []


def _elsewhere(name: str, place: list[str], here: Schema, schema: Schema) -> list[str]:
    """Paths whose last key is the name, or whose last two have its words; else those of the section with its words.

    ``scheduling.nodeSelector`` ends in a name, and ``probes.liveness`` has the words of ``livenessProbe``.
    """
    words = _words(name)
    paths = [path for path in _paths(here, schema) if words]
    alike = (
        [path for path in paths if _words(path[-1]) == words]
        or [path for path in paths if len(path) > 1 and _words(path[-2]) | _words(path[-1]) == words]
        or [path for path in paths if place and path[0] == place[0] and words <= _words(path[-1])]
    )
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
