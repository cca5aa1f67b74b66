"""Renders charts with the real helm; what comes back is parsed the way Kubernetes would, or is helm's refusal.

A render is a process of a twentieth of a second: the same one is made once, and many are made side by side.
"""

from __future__ import annotations

import functools
import json
import os
import re
import subprocess
import tempfile
from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from tritonkit.kubetools import binaries

ROOT = Path(__file__).parents[2]
CHART = ROOT / "helm/tritonkit"
# JSON is YAML but for these, which YAML wants escaped
_NOT_YAML = re.compile("[\x7f-\x9f\u2028\u2029\ufeff\ufffe\uffff]")
Document = dict[str, Any]
Values = Mapping[str, Any]


class Refused(Exception):
    """Helm did not render; the message is what helm said, without its prefixes."""


class _Loader(yaml.CSafeLoader):
    """A YAML 1.1 loader, as Kubernetes has one, that refuses a key given twice."""


def _mapping(loader: _Loader, node: yaml.MappingNode) -> dict[Any, Any]:
    keys = [key.value for key, _ in node.value]
    if twice := {key for key in keys if keys.count(key) > 1}:
        raise yaml.constructor.ConstructorError(None, None, f"given twice: {sorted(twice)}", node.start_mark)
    return loader.construct_mapping(node, deep=True)


_Loader.add_constructor("tag:yaml.org,2002:map", _mapping)


@dataclass(frozen=True)
class Case:
    """One call of ``helm template``.

    Attributes:
        files: Values files, the later over the earlier.
        values: More values over those, as JSON.
        kubernetes: The cluster's version, such as ``1.34``.
        upgrade: Render as for ``helm upgrade``.
        apis: Group versions that the cluster has beyond Kubernetes' own.
        release: The release's name.
        chart: The chart's folder.
    """

    files: tuple[Path, ...] = ()
    values: str = "{}"
    kubernetes: str = "1.34"
    upgrade: bool = False
    apis: tuple[str, ...] = ()
    release: str = "demo"
    chart: Path = CHART


def case(*files: Path, values: Values | None = None, **other: Any) -> Case:
    """A case whose values are given as a map."""
    return Case(files=files, values=json.dumps(values or {}, ensure_ascii=False), **other)


def text(render: Case) -> str:
    """The manifest as helm prints it.

    Raises:
        Refused: Helm does not render this.
    """
    rendered, output = _template(render)
    if not rendered:
        raise Refused(output)
    return output


@functools.cache
def _template(render: Case) -> tuple[bool, str]:
    """Whether helm renders, and what it says; refusals are kept like renders."""
    with tempfile.NamedTemporaryFile("w", suffix=".json", encoding="utf-8") as values:
        values.write(_NOT_YAML.sub(lambda character: f"\\u{ord(character[0]):04x}", render.values))
        values.flush()
        command = [_helm(), "template", render.release, str(render.chart), "--namespace", "serving"]
        command += ["--kube-version", f"{render.kubernetes}.0", *(f"--api-versions={api}" for api in render.apis)]
        command += [part for file in (*render.files, values.name) for part in ("--values", str(file))]
        command += ["--is-upgrade"] if render.upgrade else []
        environment = binaries.rendering_environment()
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60, env=environment)
    return (False, done.stderr.strip()) if done.returncode else (True, done.stdout)


def documents(render: Case) -> list[Document]:
    """The manifest's objects.

    Raises:
        Refused: Helm does not render this.
    """
    return parse(text(render))


def parse(manifest: str) -> list[Document]:
    """The objects in ``manifest``; a document with nothing but comments is none."""
    return [document for document in yaml.load_all(manifest, Loader=_Loader) if document is not None]


def warm(cases: Iterable[Case]) -> None:
    """Make many renders side by side, so that asking for each later costs nothing."""

    with ThreadPoolExecutor(os.cpu_count()) as pool:
        list(pool.map(_template, cases))


@functools.cache
def _helm() -> str:
    return str(binaries.helm())
