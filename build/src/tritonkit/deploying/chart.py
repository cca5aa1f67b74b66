"""The chart before any cluster sees it: lint, render, and the schemas of Kubernetes."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from tritonkit.deploying import misspelt
from tritonkit.deploying.check import Check
from tritonkit.kubetools import binaries, manifest, validation

Object = dict[str, Any]
_HOOK = "helm.sh/hook"
# Lines of helm that say nothing of what is wrong.
_WRAPPING = ("Error: execution error", "Use --debug", "Error: values don't meet the spec", "tritonkit:", "level=INFO")
_FIX = "correct the values: helm/tritonkit/README.md lists them"
_OBJECTS_FIX = (
    "extraObjects takes whole objects, each with apiVersion, kind and metadata.name, or such a text as a template"
)
_SCALERS = {"HorizontalPodAutoscaler", "ScaledObject"}


@dataclass(frozen=True)
class Rendered:
    """A manifest.

    Attributes:
        text: helm's output without hooks.
        objects: The objects in that text.
        hooks: Objects of hooks: the pod of ``helm test``.
    """

    text: str
    objects: tuple[Object, ...]
    hooks: tuple[Object, ...]


def about(folder: Path) -> Object:
    """``Chart.yaml`` of the chart in a folder."""
    return dict(manifest.read((folder / "Chart.yaml").read_text(encoding="utf-8")))


def prove(
    helm: Path, folder: Path, release: str, namespace: str, files: Sequence[Path], kubernetes: str
) -> tuple[list[Check], Rendered | None]:
    """Lint the chart with these values, render it, and validate it with the schemas of a Kubernetes version.

    Returns:
        The checks, and the manifest; None if the chart does not render.
    """
    values = [word for file in files for word in ("--values", str(file))]
    version = ["--kube-version", f"{kubernetes}.0"]
    template = _helm(helm, "template", release, str(folder), "--namespace", namespace, *version, *values)
    if template.returncode:
        text, _, fix = _reason(template.stderr, folder).partition("\nfix: ")  # the chart's own refusals have one
        other = _OBJECTS_FIX if "templates/extra-objects.yaml" in text else _FIX
        return [Check("render", "missing", text, fix or other)], None
    checks = [_lint(_helm(helm, "lint", str(folder), "--strict", "--quiet", *version, *values), folder)]
    rendered = split(template.stdout)
    if nameless := [obj for obj in (*rendered.objects, *rendered.hooks) if not _is_named(obj)]:
        shown = "; ".join(yaml.safe_dump(obj, default_flow_style=True, width=200).strip() for obj in nameless)
        return [*checks, Check("render", "missing", f"no Kubernetes object: {shown[:200]}", _OBJECTS_FIX)], None
    lines = rendered.text.count("\n")
    checks.append(Check("render", "ok", f"{len(rendered.objects)} objects in {lines} lines"))
    checks.append(_schemas(rendered, kubernetes))
    return checks, rendered


def _is_named(obj: Object) -> bool:
    metadata = obj.get("metadata")
    return bool(obj.get("apiVersion") and obj.get("kind") and isinstance(metadata, dict) and metadata.get("name"))


def _helm(helm: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    environment = binaries.rendering_environment()
    return subprocess.run([str(helm), *arguments], capture_output=True, text=True, check=False, env=environment)


def _lint(done: subprocess.CompletedProcess[str], folder: Path) -> Check:
    if done.returncode == 0:
        return Check("lint", "ok", "helm lint --strict has nothing against chart and values")
    errors = [line.strip() for line in (done.stdout + done.stderr).splitlines() if "[ERROR]" in line or "[WARN" in line]
    return Check(
        "lint",
        "missing",
        "; ".join(misspelt.explain(line, folder) for line in errors) or _reason(done.stderr, folder),
        "correct the values or the chart",
    )


def _reason(stderr: str, folder: Path) -> str:
    """The chart's own refusals, without helm's wrapping."""
    lines = [line.strip() for line in stderr.splitlines() if line.strip()]
    kept = [line for line in lines if not line.startswith(_WRAPPING) and not line.endswith(": validation failed")]
    return "\n".join(misspelt.explain(line, folder) for line in kept) or stderr.strip()


def _schemas(rendered: Rendered, kubernetes: str) -> Check:
    known = kubernetes if kubernetes in validation.VERSIONS else validation.VERSIONS[-1]
    errors = validation.errors((*rendered.objects, *rendered.hooks), known)
    if errors:
        return Check("schemas", "missing", "\n".join(errors), "correct the values, extraObjects or the chart")
    foreign = ", ".join(name(obj) for obj in rendered.objects if validation.foreign(obj))
    others = f"; of kinds that only the cluster knows: {foreign}" if foreign else ""
    return Check("schemas", "ok", f"valid for Kubernetes {known}, no unknown field{others}")


def split(text: str) -> Rendered:
    """Split helm's output into a manifest and its hooks."""
    kept, objects, hooks = [], [], []
    for document in f"\n{text}".split("\n---\n"):
        obj = manifest.read(document)
        if not obj:
            continue
        if _HOOK in ((obj.get("metadata") or {}).get("annotations") or {}):
            hooks.append(obj)
        else:
            objects.append(obj)
            kept.append(document.strip("\n"))
    return Rendered("".join(f"---\n{document}\n" for document in kept), tuple(objects), tuple(hooks))


def pods(objects: Sequence[Object]) -> Iterator[tuple[Object, Object]]:
    """Every object that makes pods, with their spec."""
    for obj in objects:
        if obj["kind"] == "Pod":
            yield obj, obj["spec"]
        elif isinstance(template := obj.get("spec", {}).get("template"), dict) and "spec" in template:
            yield obj, template["spec"]


def replicas(workload: Object, objects: Sequence[Object]) -> tuple[int, int]:
    """The fewest and the most pods of an object: its autoscaler's where it has one. KEDA's own default is 0 and 100.

    1 and 1 where neither the object nor the manifest says: an autoscaler that is somebody else's.
    """
    for scaler in objects:
        spec = scaler.get("spec", {})
        if scaler["kind"] not in _SCALERS or spec["scaleTargetRef"]["name"] != workload["metadata"]["name"]:
            continue
        if scaler["kind"] == "ScaledObject":
            return spec.get("minReplicaCount", 0), spec.get("maxReplicaCount", 100)
        return spec.get("minReplicas", 1), spec["maxReplicas"]
    count = workload["spec"].get("replicas", 1)
    return count, count


def name(obj: Object) -> str:
    """``Deployment triton``."""
    return f"{obj['kind']} {obj['metadata']['name']}"


def as_stream(objects: Sequence[Object]) -> str:
    """Objects as a stream for kubectl's standard input.

    The stream begins as YAML: older kubectls (1.32) take one that begins with a brace for JSON, and refuse its ``---``.
    """
    return "".join(f"---\n{json.dumps(obj)}\n" for obj in objects)
