"""An upgrade never meets a field that Kubernetes does not let change: not from an earlier release, not to other values.

``previous/<version>/`` keeps each release's examples and what of their manifests is fixed. While the chart still has
that version, ``UPDATE_GOLDENS=1`` writes it anew; once the version has moved on, it stays as it was.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
import yaml
from manifests import cases, policies, rendering, upgrades

from tritonkit.kubetools import validation

PREVIOUS = Path(__file__).parent / "previous"
VERSION = yaml.safe_load((rendering.CHART / "Chart.yaml").read_text(encoding="utf-8"))["version"]
# Changes that people make to a release that runs; each must go through as an upgrade of every switch it applies to.
CHANGES: dict[str, dict[str, Any]] = {
    "another image": {"image": {"tag": "26.08-py3"}},
    "another tools image": {"tools": {"image": {"tag": "1.2.3"}}},
    "another models version": {"models": {"uri": "s3://models.example/versions/20261102-5e6f7a"}},
    "more replicas": {"replicas": 4},
    "more exit time": {"server": {"exitTimeoutSeconds": 90}},
    "other resources": {"resources": {"limits": {"memory": "32Gi"}}, "engineBuild": {"seconds": 3600}},
    "other GPUs": {"accelerator": {"products": ["NVIDIA-L4"]}},
    "labels and annotations": {"podLabels": {"a": "b"}, "podAnnotations": {"c": "d"}},
    "headless off": {"service": {"headless": False}},
    "another admin key": {"admin": {"existingSecret": "other"}},
}
BASES = ("engines by job", "dra", "variants", "nfs")


if os.environ.get("UPDATE_GOLDENS"):
    (PREVIOUS / VERSION).mkdir(parents=True, exist_ok=True)
    for example in cases.EXAMPLES:
        record = {
            "values": yaml.safe_load(example.read_text(encoding="utf-8")),
            "fixed": upgrades.fixed(rendering.documents(rendering.case(example, kubernetes=cases.NEWEST))),
        }
        target = PREVIOUS / VERSION / example.name.removeprefix("values-")
        target.write_text(yaml.safe_dump(record, sort_keys=False), encoding="utf-8")

RECORDS = sorted(PREVIOUS.glob("*/*.yaml"))


@pytest.fixture(scope="module", autouse=True)
def _rendered() -> None:
    rendering.warm(_changed(base, change) for base in BASES for change in [None, *CHANGES])


def _merged(below: dict[str, Any], above: dict[str, Any]) -> dict[str, Any]:
    both = {**below, **above}
    for name in below.keys() & above.keys():
        if isinstance(below[name], dict) and isinstance(above[name], dict):
            both[name] = _merged(below[name], above[name])
    return both


def _changed(base: str, change: str | None) -> rendering.Case:
    values = cases.values_of(base)
    more = CHANGES.get(change or "", {})
    if "uri" not in values["models"]:
        more = {name: value for name, value in more.items() if name != "models"}
    return rendering.case(values=_merged(values, more), upgrade=change is not None, kubernetes=cases.NEWEST)


def test_there_is_a_release_to_upgrade_from() -> None:
    assert RECORDS


@pytest.mark.parametrize("record", RECORDS, ids=lambda path: f"{path.parent.name}-{path.stem}")
def test_an_earlier_release_is_upgraded(record: Path) -> None:
    before = yaml.safe_load(record.read_text(encoding="utf-8"))
    case = rendering.case(values=before["values"], upgrade=True, kubernetes=cases.NEWEST)
    documents = rendering.documents(case)
    assert validation.errors(documents, cases.NEWEST) == []
    assert policies.broken(documents, cases.external_names(case)) == []
    assert upgrades.conflicts(before["fixed"], upgrades.fixed(documents)) == []


@pytest.mark.parametrize("change", CHANGES)
@pytest.mark.parametrize("base", BASES)
def test_values_may_change_in_a_running_release(base: str, change: str) -> None:
    before = upgrades.fixed(rendering.documents(_changed(base, None)))
    after = upgrades.fixed(rendering.documents(_changed(base, change)))
    assert upgrades.conflicts(before, after) == []


def test_a_fixed_field_that_changes_is_seen() -> None:
    case = _changed("engines by job", None)
    before, documents = upgrades.fixed(rendering.documents(case)), rendering.documents(case)
    for document in documents:
        spec = document.get("spec", {})
        if document["kind"] == "Deployment":
            spec["selector"]["matchLabels"]["a"] = "b"
        if document["kind"] == "Job":
            spec["template"]["spec"]["nodeName"] = "a"
    after = upgrades.fixed([document for document in documents if document["kind"] != "PersistentVolumeClaim"])
    assert sorted(sentence.split(" ")[0] for sentence in upgrades.conflicts(before, after)) == [
        "Deployment",
        "Job",
        "PersistentVolumeClaim",
    ]
