"""Holds manifests against the strict schemas of Kubernetes 1.30 to 1.37 and of the custom kinds that the chart uses.

An unknown key, a wrong type or a missing field is an error, as with ``kubectl apply --validate=strict``; what a
cluster decides by rules beyond schemas is left to it.
"""

from __future__ import annotations

import functools
import importlib.util
import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import jsonschema
import referencing

from tritonkit.errors import InputError, MissingError

VERSIONS = ("1.30", "1.31", "1.32", "1.33", "1.34", "1.35", "1.36", "1.37")
CRDS = Path(__file__).parent / "crds"
DEFINITIONS = "https://kubernetes.io/api/_definitions.json#/$defs/"  # where the schemas of Kubernetes keep their types
Document = dict[str, Any]


def errors(documents: Iterable[Document], kubernetes: str = VERSIONS[-1]) -> list[str]:
    """The errors of ``documents`` against the schemas, one sentence each; foreign kinds are skipped.

    Args:
        documents: Manifests, as parsed.
        kubernetes: The cluster's version, ``1.34`` for example; one of :data:`VERSIONS`.

    Raises:
        InputError: There are no schemas for that version.
        MissingError: The package with the schemas is not installed.
    """
    return [
        sentence for document in documents if not foreign(document) for sentence in _errors_of(document, kubernetes)
    ]


def foreign(document: Document) -> bool:
    """Whether an object is of somebody's custom group, such as OpenShift's routes: only a cluster knows its schema."""
    group = str(document.get("apiVersion")).rpartition("/")[0]
    return "." in group and not group.endswith(".k8s.io") and not any(CRDS.glob(f"*-{group}-*.json"))


def _errors_of(document: Document, kubernetes: str) -> list[str]:
    kind, api = document.get("kind"), document.get("apiVersion")
    if not isinstance(kind, str) or not isinstance(api, str):
        return [f"a document has kind {kind!r} and apiVersion {api!r}: {str(document)[:80]}"]
    name = f"{kind} {(document.get('metadata') or {}).get('name')}"
    validator = _validator(kind, api, kubernetes)
    if validator is None:
        return [f"{name}: Kubernetes {kubernetes} knows no {api} {kind}"]
    return [
        f"{name}: {'.'.join(str(part) for part in error.absolute_path)}: {_short(error.message)}"
        for error in validator.iter_errors(document)
    ]


def _short(message: str) -> str:
    return message if len(message) < 240 else f"{message[:120]} … {message[-110:]}"


def _schemas(kubernetes: str) -> Path:
    package = importlib.util.find_spec("kubernetes_validate")
    if package is None or package.origin is None:
        raise MissingError("the Kubernetes schemas are not installed", "pip install kubernetes-validate")
    folder = Path(package.origin).parent / "kubernetes-json-schema" / f"v{kubernetes}.0-local-strict"
    if kubernetes not in VERSIONS or not folder.is_dir():
        raise InputError(f"there are no schemas for Kubernetes {kubernetes}", f"choose one of {', '.join(VERSIONS)}")
    return folder


@functools.cache
def definitions(kubernetes: str) -> Document:
    """The types that Kubernetes' own kinds are made of."""
    types: Document = json.loads((_schemas(kubernetes) / "_definitions.json").read_text(encoding="utf-8"))
    return types


@functools.cache
def _validator(kind: str, api: str, kubernetes: str) -> Any:
    # apps/v1 → apps-v1, rbac.authorization.k8s.io/v1 → rbac-v1: the schemas' names
    group, _, version = api.rpartition("/")
    own = _schemas(kubernetes) / f"{kind.lower()}-{'-'.join(filter(None, (group.partition('.')[0], version)))}.json"
    custom = CRDS / f"{kind.lower()}-{api.replace('/', '-')}.json"
    path = custom if custom.is_file() else own
    if not path.is_file():
        return None
    types = referencing.Resource.from_contents(definitions(kubernetes))
    registry: Any = types @ referencing.Registry()
    return jsonschema.Draft202012Validator(json.loads(path.read_text(encoding="utf-8")), registry=registry)
