"""Checks whether any node has as much CPU and memory for pods as one pod requests.

It reads only, and ignores what other pods take: a pod that fits here may still have to wait.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from decimal import Decimal
from typing import Any

from tritonkit.deploying.check import Check
from tritonkit.deploying.nodes import at_once

Object = dict[str, Any]
RESOURCES = ("cpu", "memory")
GIB = 2**30
# Kubernetes' quantities: a decimal number, an exponent or a suffix (apimachinery, pkg/api/resource/quantity.go).
_QUANTITY = re.compile(r"([+-]?\d*\.?\d+)(?:[eE]([+-]?\d+)|([numkMGTPE]|[KMGTPE]i)?)")
_FACTORS = {"n": Decimal("1e-9"), "u": Decimal("1e-6"), "m": Decimal("1e-3"), "": Decimal(1)}
_FACTORS |= {letter: Decimal(1000) ** power for power, letter in enumerate("kMGTPE", 1)}
_FACTORS |= {f"{letter}i": Decimal(1024) ** power for power, letter in enumerate("KMGTPE", 1)}


def check(name: str, spec: Object, nodes: Sequence[Object], on_demand: bool) -> Check | None:
    """Check whether any of the nodes is large enough for one pod; None where no node states its resources.

    Args:
        name: The object's name, for the sentence.
        spec: The pod's spec.
        nodes: The nodes that it may run on.
        on_demand: A cluster autoscaler adds nodes, larger ones perhaps.
    """
    needed = requests(spec)
    rooms = [(str(node["metadata"]["name"]), room) for node in nodes if (room := _allocatable(node))]
    if not rooms or not any(needed.values()):
        return None
    if any(all(room[resource] >= needed[resource] for resource in RESOURCES) for _, room in rooms):
        return Check("room", "ok", f"{name}: {_words(needed)} a pod, which a node has")
    # The node that is nearest: it has most of what it lacks most.
    largest, room = max(
        rooms, key=lambda pair: min(pair[1][resource] / needed[resource] for resource in RESOURCES if needed[resource])
    )
    text = (
        f"{name}: a pod asks for {_words(needed)}, and no node that fits has so much for pods; "
        f"{largest} has {_words(room)}"
    )
    if on_demand:
        return Check("room", "note", f"{text}. deploy.gpuNodes is onDemand: the autoscaler has to add a larger one")
    fix = "lower resources.requests (DaemonSets take their part of a node, too), or add larger nodes"
    return Check("room", "missing", text, fix)


def requests(spec: Object) -> dict[str, Decimal]:
    """The CPUs and bytes that the scheduler reserves; a limit without a request counts as a request."""
    total = at_once(spec, _own)
    return {resource: Decimal(total[resource]) for resource in RESOURCES}


def quantity(text: object) -> Decimal:
    """A Kubernetes quantity as a number: ``500m`` is 0.5, ``2Gi`` is 2147483648.

    Raises:
        ValueError: The text is not a quantity.
    """
    match = _QUANTITY.fullmatch(str(text).strip())
    if match is None:
        raise ValueError(f"{text!r} is no quantity")
    number, exponent, suffix = match.groups()
    return Decimal(number) * (Decimal(10) ** int(exponent) if exponent else _FACTORS[suffix or ""])


def _allocatable(node: Object) -> dict[str, Decimal]:
    """The node's resources for pods; empty if it does not state them."""
    allocatable = node["status"].get("allocatable", {})
    if not all(resource in allocatable for resource in RESOURCES):
        return {}
    return {resource: quantity(allocatable[resource]) for resource in RESOURCES}


def _own(container: Object) -> dict[str, Decimal]:
    resources = container.get("resources") or {}
    amounts = (resources.get("limits") or {}) | (resources.get("requests") or {})
    return {resource: quantity(amounts.get(resource, 0)) for resource in RESOURCES}


def _words(amount: dict[str, Decimal]) -> str:
    return f"{float(amount['cpu']):.3g} CPUs and {float(amount['memory'] / GIB):.3g} GiB"
