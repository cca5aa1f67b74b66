"""Ways to walk through manifests: the pods in them, their containers, ports and volumes, and Kubernetes' quantities."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

Document = dict[str, Any]
_TEMPLATED = ("Deployment", "StatefulSet", "DaemonSet", "Job")
_FACTORS = {
    "n": 1e-9, "u": 1e-6, "m": 1e-3, "": 1.0, "k": 1e3, "M": 1e6, "G": 1e9, "T": 1e12, "P": 1e15, "E": 1e18,
    "Ki": 2.0**10, "Mi": 2.0**20, "Gi": 2.0**30, "Ti": 2.0**40, "Pi": 2.0**50, "Ei": 2.0**60,
}  # fmt: skip


@dataclass(frozen=True)
class Pod:
    """A pod, or the template of pods, and the object that it stands in."""

    owner: Document
    labels: dict[str, str]
    annotations: dict[str, str]
    spec: Document

    @property
    def name(self) -> str:
        """Kind and name of the owner."""
        return title(self.owner)

    @property
    def containers(self) -> list[Document]:
        """Those that run beside each other for as long as the pod."""
        sidecars = [init for init in self.spec.get("initContainers", []) if init.get("restartPolicy") == "Always"]
        return [*sidecars, *self.spec["containers"]]

    @property
    def all_containers(self) -> list[Document]:
        """Every container, those that run first included."""
        return [*self.spec.get("initContainers", []), *self.spec["containers"]]

    @property
    def volumes(self) -> dict[str, Document]:
        """Volumes by name."""
        return {volume["name"]: volume for volume in self.spec.get("volumes", [])}

    @property
    def ports(self) -> list[Document]:
        """Ports of all containers."""
        return [port for container in self.all_containers for port in container.get("ports", [])]


def title(document: Document) -> str:
    """``Deployment demo``."""
    return f"{document['kind']} {document['metadata']['name']}"


def of_kind(documents: Iterable[Document], *kinds: str) -> list[Document]:
    """The objects of these kinds."""
    return [document for document in documents if document["kind"] in kinds]


def pods(documents: Iterable[Document], *kinds: str) -> Iterator[Pod]:
    """Every pod and pod template, or those of some kinds of object."""
    for document in documents:
        kind = document["kind"]
        if kinds and kind not in kinds:
            continue
        if kind == "LeaderWorkerSet":
            group = document["spec"]["leaderWorkerTemplate"]
            templates = [group.get("leaderTemplate", group["workerTemplate"]), group["workerTemplate"]]
        elif kind == "Pod":
            templates = [document]
        elif kind in _TEMPLATED:
            templates = [document["spec"]["template"]]
        elif kind == "CronJob":
            templates = [document["spec"]["jobTemplate"]["spec"]["template"]]
        else:
            continue
        for template in templates:
            metadata = template.get("metadata", {})
            yield Pod(document, metadata.get("labels", {}), metadata.get("annotations", {}), template["spec"])


def matches(selector: Document, labels: dict[str, str]) -> bool:
    """Whether a label selector takes ``labels``; an empty one takes all."""
    if any(labels.get(key) != value for key, value in selector.get("matchLabels", {}).items()):
        return False
    for rule in selector.get("matchExpressions", []):
        there, values = labels.get(rule["key"]), rule.get("values", [])
        good = {
            "In": there in values,
            "NotIn": there not in values,
            "Exists": there is not None,
            "DoesNotExist": there is None,
        }[rule["operator"]]
        if not good:
            return False
    return True


def quantity(value: str | float) -> float:
    """A Kubernetes quantity as a number: ``1Gi`` → 1073741824; not a number if it is none."""
    match = re.fullmatch(r"([+-]?[\d.]+(?:[eE][+-]?\d+)?)([A-Za-z]*)", str(value))
    return float(match[1]) * _FACTORS[match[2]] if match and match[2] in _FACTORS else float("nan")


def walk(value: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    """Every value in a document, with the dotted path to it."""
    yield path, value
    below = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, child in below:
        yield from walk(child, f"{path}.{key}".lstrip("."))


def pre_stop_seconds(container: Document) -> float:
    """How long the container's preStop hook sleeps."""
    hook = container.get("lifecycle", {}).get("preStop", {})
    if "sleep" in hook:
        return float(hook["sleep"]["seconds"])
    match = re.search(r"\bsleep (\d+)", " ".join(hook.get("exec", {}).get("command", [])))
    return float(match[1]) if match else 0.0


def argument(container: Document, name: str) -> str | None:
    """The value of ``--name=value`` or ``--name value`` among the container's arguments."""
    words = [*container.get("command", []), *container.get("args", [])]
    for i, word in enumerate(words):
        if word.startswith(f"{name}="):
            return str(word).partition("=")[2]
        if word == name and i + 1 < len(words):
            return str(words[i + 1])
    return None
