"""Whatever the values, the chart never makes an invalid manifest: it is a valid one, or a refusal that names the value."""

from __future__ import annotations

import copy
import json
import os
import re
from typing import Any

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from manifests import cases, generated, policies, rendering

from tritonkit.kubetools import validation

EXAMPLES = int(os.environ.get("PROPERTY_EXAMPLES", "60"))  # more of them look further; each is a render
BASES = (
    "default",
    "hpa",
    "keda",
    "canary",
    "ingress",
    "engines by job",
    "monitoring",
    "tracing",
    "pvc",
    "nfs",
    "variants",
)
# What helm says when a template itself went wrong
_BROKEN = re.compile(
    r"nil pointer|can't evaluate|wrong type|error calling (?!fail|include)|YAML parse error|unable to parse|"
    r"error converting|unexpected|invalid character|index out of range|runtime error"
)


def judge(base: str, changes: list[tuple[generated.Path, Any]]) -> list[str]:
    """Render, and hold the outcome against the promise."""
    values = copy.deepcopy(cases.values_of(base))
    for path, value in changes:
        generated.put(values, path, value)
    case = rendering.case(values=values, kubernetes=cases.NEWEST)
    try:
        documents = rendering.documents(case)
    except rendering.Refused as refused:
        message = str(refused)
        names = {
            name for path, _ in changes for name in (".".join(path), "/" + "/".join(path), f"{path[0]}.", f"/{path[0]}")
        }
        if _BROKEN.search(_without_values(message, changes)) or not any(name in message for name in names):
            return [f"not a clear refusal: {message}"]
        return []
    return validation.errors(documents, cases.NEWEST) + policies.broken(documents, cases.external_names(case))


def _without_values(message: str, changes: list[tuple[generated.Path, Any]]) -> str:
    for _, value in changes:
        for text in (str(value), json.dumps(value), json.dumps(value, ensure_ascii=False)):
            message = message.replace(text, "…") if len(text) > 3 else message
    return message


@settings(
    max_examples=EXAMPLES,
    deadline=None,
    derandomize="PROPERTY_EXAMPLES" not in os.environ,
    database=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much],
)
@given(base=st.sampled_from(BASES), changes=generated.changes())
@example(base="default", changes=[(("models", "uri"), "s3://bucket/a b'\"\\\n{{ .Release.Name }}")])
@example(base="default", changes=[(("podLabels",), {"a": "yes", "b": "1e3"})])
@example(base="default", changes=[(("server", "extraArgs"), ["--cache-config=local,size=1048576", '--x="; rm -rf /'])])
@example(base="default", changes=[(("extraEnv",), [{"name": "A", "value": "$(B) {{ x }} \"'\n"}])])
def test_values_make_a_valid_manifest_or_a_clear_refusal(base: str, changes: list[tuple[generated.Path, Any]]) -> None:
    assert judge(base, changes) == []


@pytest.mark.parametrize("text", ["a: b", "A", "{{ fail }}", 'a"b', "a\nb", "-"])
def test_names_that_cannot_be_are_refused_by_their_value(text: str) -> None:
    for path in (
        ("fullnameOverride",),
        ("scheduling", "priorityClassName"),
        ("models", "credentials", "existingSecret"),
    ):
        with pytest.raises(rendering.Refused) as refused:
            rendering.documents(rendering.case(values=_with(path, text)))
        assert path[-1] in str(refused.value)


@pytest.mark.parametrize("word", ["yes", "no", "null", "1e3", "007", "true"])
def test_names_that_yaml_would_read_as_something_else_stay_names(word: str) -> None:
    names = ["serviceAccount.name", "scheduling.priorityClassName", "admin.existingSecret", "nameOverride", "image.tag"]
    names += [
        "models.credentials.existingSecret",
        "autoscaling.keda.authenticationRef",
        "models.region",
        "admin.secretKey",
    ]
    assert judge("keda", [(tuple(name.split(".")), word) for name in names]) == []


def _with(path: generated.Path, value: Any) -> dict[str, Any]:
    values = copy.deepcopy(cases.values_of("default"))
    generated.put(values, path, value)
    return values
