"""Every example on three Kubernetes, and every switch on one, renders to what strict schemas and all policies accept."""

from __future__ import annotations

import functools

import pytest
from manifests import cases, kube, policies, rendering, running

from tritonkit.kubetools import validation

MATRIX = list(cases.matrix())
VALID = [(name, case) for name, case in MATRIX if cases.new_enough(name, case.kubernetes)]
TOO_OLD = [(name, case) for name, case in MATRIX if not cases.new_enough(name, case.kubernetes)]


@pytest.fixture(scope="module", autouse=True)
def _rendered() -> None:
    rendering.warm(case for _, case in MATRIX)


@functools.cache
def _broken(manifest: str, external: frozenset[str]) -> list[str]:
    """Asked once for each manifest: most examples are the same on several versions."""
    return policies.broken(rendering.parse(manifest), external)


def _ids(matrix: list[tuple[str, rendering.Case]]) -> list[str]:
    return [f"{name} on {case.kubernetes}" for name, case in matrix]


def test_the_matrix_is_wide() -> None:
    assert len(VALID) >= 60
    assert {case.kubernetes for _, case in VALID} == set(validation.VERSIONS)
    assert len(cases.EXAMPLES) >= 8


@pytest.mark.parametrize(("name", "case"), VALID, ids=_ids(VALID))
def test_a_render_is_valid_and_keeps_every_policy(name: str, case: rendering.Case) -> None:
    documents = rendering.documents(case)
    assert validation.errors(documents, case.kubernetes) == []
    assert _broken(rendering.text(case), frozenset(cases.external_names(case))) == []


@pytest.mark.parametrize(("name", "case"), TOO_OLD, ids=_ids(TOO_OLD))
def test_an_older_kubernetes_is_refused_with_what_is_needed(name: str, case: rendering.Case) -> None:
    with pytest.raises(rendering.Refused) as refused:
        rendering.documents(case)
    assert f"Kubernetes {cases.NEEDS[name]}" in str(refused.value)
    assert "fix:" in str(refused.value)


def test_no_kubernetes_before_the_oldest_is_deployed_to() -> None:
    with pytest.raises(rendering.Refused, match=r"1\.30"):
        rendering.documents(rendering.case(values=cases.values_of("default"), kubernetes="1.29"))


def test_the_default_manifest_fits_in_450_lines() -> None:
    """Two init containers among them, which copy the models and check them."""
    text = rendering.text(rendering.case(values={"models": cases.MODELS}))
    assert len(text.splitlines()) < 450


@pytest.mark.parametrize("switch", ["default", "engines in init", "engines by job"])
def test_the_startup_budget_covers_loading_and_building(switch: str) -> None:
    values = cases.values_of(switch) | {
        "probes": {"startup": {"loadSeconds": 120, "fetchSeconds": 90, "periodSeconds": 7}}
    }
    building = 1000 if switch != "default" else 0
    values["engineBuild"] = {**values.get("engineBuild", {}), "seconds": 1000}
    documents = rendering.documents(rendering.case(values=values))
    (pod,) = kube.pods(documents, "Deployment")
    budget = max(running.startup_seconds(container) for container in pod.containers)
    assert budget >= 120 + building
    assert pod.owner["spec"]["progressDeadlineSeconds"] >= budget + 90 + building


@pytest.mark.parametrize("switch", ["default", "front off", "exec sleep"])
def test_a_longer_end_makes_a_longer_grace_period(switch: str) -> None:
    def grace(**more: int) -> int:
        values = cases.values_of(switch)
        values["server"] = {"exitTimeoutSeconds": more.get("exit", 30)}
        values["lifecycle"] = {**values.get("lifecycle", {}), "preStopSeconds": more.get("stop", 10)}
        (pod,) = kube.pods(rendering.documents(rendering.case(values=values)), "Deployment")
        return int(pod.spec["terminationGracePeriodSeconds"])

    assert grace(exit=70) == grace() + 40
    assert grace(stop=25) == grace() + 15
