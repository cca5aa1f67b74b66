"""Requests beside what nodes have: Kubernetes' quantities, the sum of a pod's containers, and what preflight says."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

import pytest

from tritonkit.deploying import room

GIB = 2**30


def node(name: str, cpu: str, memory: str) -> dict[str, Any]:
    return {"metadata": {"name": name}, "status": {"allocatable": {"cpu": cpu, "memory": memory}}}


def container(cpu: str = "", memory: str = "", **more: Any) -> dict[str, Any]:
    requests = {name: value for name, value in (("cpu", cpu), ("memory", memory)) if value}
    return {"resources": {"requests": requests}} | more


@pytest.mark.parametrize(
    ("text", "number"),
    [("2", 2), (2, 2), ("500m", "0.5"), ("1.5", "1.5"), ("2Gi", 2 * GIB), ("2G", 2_000_000_000), ("1e3", 1000),
     ("12E6", 12_000_000), ("1E", 10**18), ("100k", 100_000), ("129n", "0.000000129"), (".5Mi", 2**19)],
)  # fmt: skip
def test_a_quantity_is_read_as_kubernetes_reads_it(text: object, number: object) -> None:
    assert room.quantity(text) == Decimal(str(number))


@pytest.mark.parametrize("text", ["", "1 Gi", "2GB", "Gi", "1e", "0x10"])
def test_what_is_no_quantity(text: str) -> None:
    with pytest.raises(ValueError, match="no quantity"):
        room.quantity(text)


def test_containers_add_up_and_init_containers_run_before_them() -> None:
    spec = {"containers": [container("3", "12Gi"), container("250m", "128Mi")]}
    assert room.requests(spec) == {"cpu": Decimal("3.25"), "memory": 12 * GIB + 128 * 2**20}
    spec["initContainers"] = [container("4", "1Gi")]
    assert room.requests(spec)["cpu"] == 4
    spec["initContainers"] = [container("1", "1Gi", restartPolicy="Always"), container("3", "1Gi")]
    assert room.requests(spec) == {"cpu": Decimal("4.25"), "memory": 13 * GIB + 128 * 2**20}


def test_a_limit_without_a_request_is_one() -> None:
    spec = {"containers": [{"resources": {"limits": {"cpu": "2", "memory": "4Gi"}, "requests": {"cpu": "1"}}}, {}]}
    assert room.requests(spec) == {"cpu": 1, "memory": 4 * GIB}


def test_a_pod_that_fits_no_node_is_named_with_the_nearest() -> None:
    spec = {"containers": [container("3", "16Gi")]}
    small, tiny = node("g5-xlarge", "3920m", "14300000Ki"), node("t3", "1930m", "3Gi")
    check = room.check("Deployment/triton", spec, [tiny, small], on_demand=False)
    assert check is not None
    assert check.state == "missing"
    assert "asks for 3 CPUs and 16 GiB" in check.text
    assert "g5-xlarge has 3.92 CPUs and 13.6 GiB" in check.text
    assert "resources.requests" in check.fix
    later = room.check("Deployment/triton", spec, [tiny, small], on_demand=True)
    assert later is not None
    assert later.state == "note"
    fits = room.check("Deployment/triton", spec, [tiny, node("g5-2xlarge", "7910m", "30Gi")], on_demand=False)
    assert fits is not None
    assert fits.state == "ok"


def test_nothing_is_claimed_of_nodes_that_do_not_say() -> None:
    spec = {"containers": [container("3", "16Gi")]}
    assert room.check("D", spec, [{"metadata": {"name": "n"}, "status": {}}], on_demand=False) is None
    assert room.check("D", spec, [], on_demand=False) is None
    assert room.check("D", {"containers": [{}]}, [node("n", "1", "1Gi")], on_demand=False) is None
