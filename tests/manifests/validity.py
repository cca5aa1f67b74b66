"""What the API server refuses though the schemas allow it: names, labels and values that have a form."""

from __future__ import annotations

import re
from collections.abc import Iterator

from manifests.kube import Document, of_kind, pods, title, walk

# https://kubernetes.io/docs/concepts/overview/working-with-objects/names and …/labels
_LABEL = re.compile(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?")
_SUBDOMAIN = re.compile(r"(?=.{1,253}$)[a-z0-9]([a-z0-9-]*[a-z0-9])?(\.[a-z0-9]([a-z0-9-]*[a-z0-9])?)*")
_SERVICE = re.compile(r"[a-z]([a-z0-9-]{0,61}[a-z0-9])?")
_VALUE = re.compile(r"([A-Za-z0-9]([A-Za-z0-9_.-]{0,61}[A-Za-z0-9])?)?")
_PORT = re.compile(r"(?=.*[a-z])(?!.*--)[a-z0-9]([a-z0-9-]{0,13}[a-z0-9])?")
_VARIABLE = re.compile(r"[^\x00-\x1f=\x7f]+")
_QUANTITY = re.compile(r"[+-]?(\d+(\.\d*)?|\.\d+)([KMGTPE]i|[numkMGTPE]|[eE][+-]?\d+)?")
_NO_LABELS = {"checksum/config"}


def names_are_valid(documents: list[Document]) -> Iterator[str]:
    """Names have the form that their kind asks for, and no two objects have the same."""
    seen: set[tuple[str, str]] = set()
    for document in documents:
        kind, name = document["kind"], document["metadata"].get("name", "")
        form = _SERVICE if kind == "Service" else _SUBDOMAIN
        if kind in {"Deployment", "Job", "StatefulSet"} and len(name) > 63:
            yield f"{title(document)}: its pods' labels hold the name, which has more than 63 characters"
        if not form.fullmatch(name):
            yield f"{kind} {name!r}: not a valid name"
        if (kind, name) in seen:
            yield f"{title(document)} is there twice"
        seen.add((kind, name))
        if document["metadata"].get("namespace", "serving") != "serving":
            yield f"{title(document)}: in another namespace than the release"
    for pod in pods(documents):
        names = [container["name"] for container in pod.all_containers]
        if len(set(names)) != len(names):
            yield f"{pod.name}: two containers have one name: {names}"
        names += [volume["name"] for volume in pod.spec.get("volumes", [])]
        yield from (f"{pod.name}: {name!r} is no valid name" for name in names if not _LABEL.fullmatch(name))
        for port in pod.ports:
            if "name" in port and not _PORT.fullmatch(port["name"]):
                yield f"{pod.name}: port name {port['name']!r}"


def labels_are_valid(documents: list[Document]) -> Iterator[str]:
    """Keys and values of labels, selectors and annotations have their forms."""
    for document in documents:
        for path, value in walk(document):
            last = path.rpartition(".")[2]
            if not isinstance(value, dict):
                continue
            of_service = path == "spec.selector" and document["kind"] == "Service"
            if of_service or last in {"labels", "matchLabels", "nodeSelector"}:
                for key, label in value.items():
                    if not _key(key) or not isinstance(label, str) or not _VALUE.fullmatch(label):
                        yield f"{title(document)}: {path}: {key}: {label!r} is no valid label"
            elif last == "annotations":
                bad = [key for key, text in value.items() if not _key(key.lower()) or not isinstance(text, str)]
                yield from (f"{title(document)}: {path}: {key!r} is no valid annotation" for key in bad)


def _key(key: str) -> bool:
    prefix, slash, name = key.rpartition("/")
    return bool(name and _VALUE.fullmatch(name)) and (not slash or bool(_SUBDOMAIN.fullmatch(prefix)))


def standard_labels(documents: list[Document]) -> Iterator[str]:
    """Every object says what it belongs to, in Kubernetes' common labels."""
    for document in documents:
        labels = document["metadata"].get("labels", {})
        for name in ("name", "instance", "managed-by"):
            if f"app.kubernetes.io/{name}" not in labels:
                yield f"{title(document)}: no label app.kubernetes.io/{name}"


def environment_is_valid(documents: list[Document]) -> Iterator[str]:
    """No variable is given twice to a container, and each has a name that Kubernetes takes."""
    for pod in pods(documents):
        for container in pod.all_containers:
            names = [variable["name"] for variable in container.get("env", [])]
            if twice := {name for name in names if names.count(name) > 1}:
                yield f"{pod.name}: container {container['name']}: {', '.join(sorted(twice))} given twice"
            bad = [name for name in names if not _VARIABLE.fullmatch(name)]
            yield from (f"{pod.name}: {name!r} is no name of a variable" for name in bad)


def nothing_is_null(documents: list[Document]) -> Iterator[str]:
    """No key is left without a value, which is how a template forgets one."""
    for document in documents:
        yield from (f"{title(document)}: {path} has no value" for path, value in walk(document) if value is None)


def quantities_are_valid(documents: list[Document]) -> Iterator[str]:
    """Amounts of memory, CPU and storage are quantities above nothing."""
    for document in documents:
        for path, value in walk(document):
            last = path.rpartition(".")[2]
            is_map = last in {"requests", "limits"} and isinstance(value, dict)
            amounts = dict(value) if is_map else {last: value} if last == "sizeLimit" else {}
            for name, amount in amounts.items():
                if not _QUANTITY.fullmatch(str(amount)):
                    yield f"{title(document)}: {path}: {name} {amount!r} is no quantity"
                elif str(amount).startswith("-") or not re.search("[1-9]", str(amount)):
                    yield f"{title(document)}: {path}: {name} is {amount}"


def rollouts_are_valid(documents: list[Document]) -> Iterator[str]:
    """A Deployment's strategy can make progress, and Recreate has no settings of RollingUpdate."""
    for document in of_kind(documents, "Deployment"):
        strategy = document["spec"].get("strategy", {})
        rolling = strategy.get("rollingUpdate")
        if strategy.get("type") == "Recreate" and rolling:
            yield f"{title(document)}: Recreate has rollingUpdate"
        still = (
            [str(rolling.get(name, "25%")).rstrip("%") for name in ("maxSurge", "maxUnavailable")] if rolling else []
        )
        if still and all(number == "0" for number in still):
            yield f"{title(document)}: neither a pod more nor one less is allowed"
