"""Are a pod's requests for CPU and memory more than any of its nodes has for pods?

Reads only. What other pods take is not looked at, so what fits here may still have to wait.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from decimal import Decimal
from typing import Any

from deploying.check import Check
from deploying.nodes import at_once

Object = dict[str, Any]
RESOURCES = ("cpu", "memory")
GIB = 2**30
# Kubernetes' quantities: a decimal number, an exponent or a suffix (apimachinery, pkg/api/resource/quantity.go).
_QUANTITY = re.compile(r"([+-]?\d*\.?\d+)(?:[eE]([+-]?\d+)|([numkMGTPE]|[KMGTPE]i)?)")
_FACTORS = {"n": Decimal("1e-9"), "u": Decimal("1e-6"), "m": Decimal("1e-3"), "": Decimal(1)}
_FACTORS |= {letter: Decimal(1000) ** power for power, letter in enumerate("kMGTPE", 1)}
_FACTORS |= {f"{letter}i": Decimal(1024) ** power for power, letter in enumerate("KMGTPE", 1)}


def check(name: str, spec: Object, nodes: Sequence[Object], on_demand: bool) -> Check | None:
    """Whether any of the nodes is large enough for one pod; nothing where none says what it has.

    Args:
        name: Of the object, for the sentence.
        spec: The pod's spec.
        nodes: Those that it may run on.
        on_demand: A cluster autoscaler adds nodes, larger ones perhaps.
    """
    needed = requests(spec)
    rooms = [(str(node["metadata"]["name"]), room) for node in nodes if (room := _allocatable(node))]
    if not rooms or not any(needed.values()):
        return None
    if any(all(room[resource] >= needed[resource] for resource in RESOURCES) for _, room in rooms):
        return Check("room", "ok", f"{name}: {_words(needed)} a pod, which a node has")
    # The node that is nearest: it has most of what it lacks most.
    largest, room = max(rooms, key=lambda pair: min(pair[1][each] / needed[each] for each in RESOURCES if needed[each]))
    text = (
        f"{name}: a pod asks for {_words(needed)}, and no node that fits has so much for pods; "
        f"{largest} has {_words(room)}"
    )
    if on_demand:
        return Check("room", "note", f"{text}. deploy.gpuNodes is onDemand: the autoscaler has to add a larger one")
    fix = "lower resources.requests (DaemonSets take their part of a node, too), or add larger nodes"
    return Check("room", "missing", text, fix)


def requests(spec: Object) -> dict[str, Decimal]:
    """CPUs and bytes that the scheduler looks for; a limit without a request is a request."""
    total = at_once(spec, _own)
    return {resource: Decimal(total[resource]) for resource in RESOURCES}


def quantity(text: object) -> Decimal:
    """A Kubernetes quantity as a number: ``500m`` is 0.5, ``2Gi`` is 2147483648.

    Raises:
        ValueError: It is none.
    """
    match = _QUANTITY.fullmatch(str(text).strip())
    if match is None:
        raise ValueError(f"{text!r} is no quantity")
    number, exponent, suffix = match.groups()
    return Decimal(number) * (Decimal(10) ** int(exponent) if exponent else _FACTORS[suffix or ""])


def _allocatable(node: Object) -> dict[str, Decimal]:
    """What the node has for pods; empty if it does not say."""
    allocatable = node["status"].get("allocatable", {})
    if not all(each in allocatable for each in RESOURCES):
        return {}
    return {each: quantity(allocatable[each]) for each in RESOURCES}


def _own(container: Object) -> dict[str, Decimal]:
    resources = container.get("resources") or {}
    amounts = (resources.get("limits") or {}) | (resources.get("requests") or {})
    return {resource: quantity(amounts.get(resource, 0)) for resource in RESOURCES}


def _words(amount: dict[str, Decimal]) -> str:
    return f"{float(amount['cpu']):.3g} CPUs and {float(amount['memory'] / GIB):.3g} GiB"
