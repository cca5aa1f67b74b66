"""Would a rendered pod find a node? The scheduler's rules for labels, taints and GPUs, as sentences.

Reads only; the scheduler also looks at what other pods take, which this does not.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any

from tritonkit.deploying.check import Check

Object = dict[str, Any]
PRODUCT = "nvidia.com/gpu.product"
_VENDOR = "nvidia.com/"
_TOO_FEW = "and the nodes have room for "
# Labels that something which runs on a node gives it (GPU feature discovery, node feature discovery): no autoscaler
# knows them of a node that it has yet to add.
_LATE = (_VENDOR, "feature.node.kubernetes.io/")
# Labels that say a GPU's product and are the autoscaler's own: of kubernetes/autoscaler (GPULabel for GCE), Karpenter's
# "Scheduling", EKS's "Create a node pool for EKS Auto Mode", AKS's "Configure node pools for node auto-provisioning".
# The last one every node has: AKS's own kubernetes.azure.com/accelerator says no more than the vendor.
POOL_PRODUCTS = {
    "cloud.google.com/gke-accelerator": "GKE",
    "karpenter.k8s.aws/instance-gpu-name": "Karpenter on AWS",
    "eks.amazonaws.com/instance-gpu-name": "EKS Auto Mode",
    "karpenter.azure.com/sku-gpu-name": "AKS, node auto-provisioning",
    "node.kubernetes.io/instance-type": "AKS and others",
}


def check(
    name: str, spec: Object, pods: int, nodes: Sequence[Object], on_demand: bool, pool_labels: Collection[str] = ()
) -> list[Check]:
    """Check GPU nodes and device plugin for the pods of one object.

    Args:
        name: The object's name, for the sentences.
        spec: The pods' spec.
        pods: How many there will be.
        nodes: The cluster's nodes, as the API has them.
        on_demand: A cluster autoscaler adds nodes: that there are none now is no obstacle, unless pods ask for a label
            that only a running node has.
        pool_labels: Labels of running nodes that the autoscaler's node pools are declared with too.
    """
    late = _late_labels(spec, pool_labels) if on_demand else []
    labelled = [node for node in nodes if _selects(spec, node)]
    if not labelled:
        return [_no_node(name, spec, nodes, on_demand, late)]
    usable = [node for node in labelled if _ready(node)]
    if not usable:
        text = f"{name}: all nodes that fit are cordoned or not ready: {_names(labelled)}"
        if on_demand and not late:
            return [Check("nodes", "note", f"{text}. deploy.gpuNodes is onDemand: the autoscaler has to add one")]
        return [Check("nodes", "missing", text, "kubectl uncordon NODE, or repair it")]
    tolerated = [node for node in usable if not _taints(spec, node)]
    if not tolerated:
        taint = _taints(spec, usable[0])[0]
        taint_text = f"{taint['key']}={taint.get('value', '')}:{taint['effect']}"
        return [Check("nodes", "missing", f"{name}: no toleration for the taint {taint_text} of {_names(usable)}",
                      "add it to scheduling.tolerations")]  # fmt: skip
    checks = [Check("nodes", "ok", f"{name}: {len(tolerated)} of {len(nodes)} nodes fit ({_products(tolerated)})")]
    devices = [_devices(name, resource, count, pods, tolerated) for resource, count in requested_devices(spec).items()]
    return checks + [_growing(check, late) if on_demand else check for check in devices]


def fitting(spec: Object, nodes: Sequence[Object]) -> list[Object]:
    """The nodes that a pod may run on."""
    return [node for node in nodes if _selects(spec, node) and _ready(node) and not _taints(spec, node)]


def driver(node: Object) -> tuple[str, tuple[int, int] | None]:
    """A node's driver and its GPUs' compute capability, as GPU feature discovery labels them; empty if it does not."""
    labels = node["metadata"].get("labels", {})
    version = labels.get(f"{_VENDOR}cuda.driver-version.full") or ""
    if not version and (major := labels.get(f"{_VENDOR}cuda.driver.major")):  # older releases
        version = f"{major}.{labels.get(f'{_VENDOR}cuda.driver.minor', '0')}"
    capability = [labels.get(f"{_VENDOR}gpu.compute.{part}", "") for part in ("major", "minor")]
    known = all(part.isdigit() for part in capability)
    return version, (int(capability[0]), int(capability[1])) if known else None


def requested_devices(spec: Object) -> dict[str, int]:
    """The devices that a pod requests: ``{"nvidia.com/gpu": 1}``."""
    return dict(at_once(spec, _limits))


def at_once(spec: Object, amounts: Callable[[Object], Mapping[str, Any]]) -> Counter[str]:
    """What a pod's containers take at the same time: their sum, or more where an init container takes more.

    An init container runs before the others, not beside them, but for one that stays (``restartPolicy: Always``).

    Args:
        spec: The pod's spec.
        amounts: What one container takes, by resource.
    """
    beside: Counter[str] = Counter()
    most: Counter[str] = Counter()
    for container in spec.get("initContainers") or []:
        if container.get("restartPolicy") == "Always":
            beside.update(amounts(container))
        else:
            most |= beside + Counter(amounts(container))
    for container in spec["containers"]:
        beside.update(amounts(container))
    return beside | most


def _limits(container: Object) -> dict[str, int]:
    limits = container.get("resources", {}).get("limits", {})
    return {name: int(count) for name, count in limits.items() if name.startswith(_VENDOR)}


def _no_node(name: str, spec: Object, nodes: Sequence[Object], on_demand: bool, late: Sequence[str]) -> Check:
    requirements = _described(spec)
    there = _products(nodes) or "no node with a GPU that has labels"
    text = f"{name} wants {requirements}; the cluster has {there}"
    if late:
        text += f". deploy.gpuNodes is onDemand, and no autoscaler knows {_and(late)} of a node that does not exist yet"
        return Check("nodes", "missing", f"{text}, so none would be added", _fix_late(late))
    if on_demand:
        return Check("nodes", "note", f"{text}. deploy.gpuNodes is onDemand: the autoscaler has to add one")
    fix = (
        "set accelerator.products to what there is, add such a node pool (deploy.gpuNodes: onDemand if an autoscaler "
        "will), or install GPU feature discovery, which sets these labels"
    )
    if labels := [label for label in POOL_PRODUCTS if any(label in _labels(node) for node in nodes if _offers(node))]:
        fix = f"set accelerator.productLabel={labels[0]}, with products as the nodes have them; or {fix}"
    return Check("nodes", "missing", text, fix)


def _growing(check: Check, late: Sequence[str]) -> Check:
    """Turn a lack of room into a note where an autoscaler adds nodes: it knows a pool's devices once it saw a node."""
    if _TOO_FEW not in check.text:
        return check
    text = f"{check.text}. deploy.gpuNodes is onDemand: the autoscaler has to add some"
    return Check(check.name, "note", f"{text}, which Karpenter does not for {_and(late)}" if late else text)


def _late_labels(spec: Object, pool_labels: Collection[str]) -> list[str]:
    """The labels that pods ask for and a new node does not have, if every alternative asks for one."""
    fixed = [key for key in spec.get("nodeSelector") or {} if _is_late(key, pool_labels)]
    terms = [
        [
            rule["key"]
            for rule in term.get("matchExpressions", [])
            if _needs(rule) and _is_late(rule["key"], pool_labels)
        ]
        for term in _terms(spec)
    ]
    choices = terms if all(terms) else []
    return sorted({*fixed, *(key for term in choices for key in term)})


def _needs(rule: Object) -> bool:
    return rule["operator"] not in {"NotIn", "DoesNotExist"}


def _is_late(label: str, pool_labels: Collection[str]) -> bool:
    return label.startswith(_LATE) and label not in pool_labels


def _fix_late(labels: Sequence[str]) -> str:
    known = "; ".join(f"{label} ({where})" for label, where in POOL_PRODUCTS.items())
    return (
        f"set accelerator.productLabel to a label of the node pools, and products as it says them: {known}. Where the "
        f"pools are declared with {_and(labels)}, say so: deploy.poolLabels: [{', '.join(labels)}]"
    )


def _and(labels: Sequence[str]) -> str:
    return " and ".join(labels)


def _labels(node: Object) -> dict[str, str]:
    return dict(node["metadata"].get("labels", {}))


def _offers(node: Object) -> bool:
    return any(name.startswith(_VENDOR) for name in node["status"].get("allocatable", {}))


def _devices(name: str, resource: str, count: int, pods: int, nodes: Sequence[Object]) -> Check:
    have = {node["metadata"]["name"]: int(node["status"].get("allocatable", {}).get(resource, 0)) for node in nodes}
    total = sum(devices // count for devices in have.values())
    if not any(have.values()):
        others = sorted({key for node in nodes for key in node["status"].get("allocatable", {}) if _VENDOR in key})
        offer = f"; they offer {', '.join(others)}" if others else ""
        return Check("device plugin", "missing", f"{name}: {_names(nodes)} offer no {resource}{offer}",
                     "install NVIDIA's GPU operator or device plugin, or ask for what they offer "
                     "(accelerator.kind, mig.profile, timeSliced.renamed)")  # fmt: skip
    if total < pods:
        return Check("device plugin", "missing",
                     f"{name}: {pods} pods with {count} {resource} each, {_TOO_FEW}{total}",
                     "add nodes, or lower replicas")  # fmt: skip
    return Check("device plugin", "ok", f"{name}: {sum(have.values())} {resource}, {pods} × {count} wanted")


def _described(spec: Object) -> str:
    requirements = [f"{key}={value}" for key, value in (spec.get("nodeSelector") or {}).items()]
    for term in _terms(spec):
        for rule in term.get("matchExpressions", []):
            requirements.append(f"{rule['key']} {rule['operator']} {', '.join(rule.get('values', []))}".strip())
    return "a node with " + (" and ".join(requirements) if requirements else "a GPU")


def _terms(spec: Object) -> list[Object]:
    affinity = ((spec.get("affinity") or {}).get("nodeAffinity") or {}).get(
        "requiredDuringSchedulingIgnoredDuringExecution"
    )
    return list((affinity or {}).get("nodeSelectorTerms", []))


def _selects(spec: Object, node: Object) -> bool:
    labels = node["metadata"].get("labels", {})
    if any(labels.get(key) != value for key, value in (spec.get("nodeSelector") or {}).items()):
        return False
    terms = _terms(spec)
    return not terms or any(all(_matches(rule, labels) for rule in term.get("matchExpressions", [])) for term in terms)


def _matches(rule: Object, labels: dict[str, str]) -> bool:
    value, values = labels.get(rule["key"]), rule.get("values", [])
    match rule["operator"]:
        case "In":
            return value in values
        case "NotIn":
            return value not in values
        case "Exists":
            return value is not None
        case "DoesNotExist":
            return value is None
        case "Gt":
            return value is not None and int(value) > int(values[0])
        case "Lt":
            return value is not None and int(value) < int(values[0])
    return False


def _ready(node: Object) -> bool:
    conditions = {condition["type"]: condition["status"] for condition in node["status"].get("conditions", [])}
    return conditions.get("Ready") == "True" and not node.get("spec", {}).get("unschedulable")


def _taints(spec: Object, node: Object) -> list[Object]:
    """The node's taints that keep the pod away."""
    taints = [taint for taint in node.get("spec", {}).get("taints", []) if taint["effect"] != "PreferNoSchedule"]
    tolerations = spec.get("tolerations") or []
    return [taint for taint in taints if not any(_tolerates(toleration, taint) for toleration in tolerations)]


def _tolerates(toleration: Object, taint: Object) -> bool:
    if toleration.get("effect") not in {None, "", taint["effect"]}:
        return False
    if toleration.get("operator") == "Exists":
        return toleration.get("key") in {None, "", taint["key"]}
    return (toleration.get("key"), toleration.get("value", "")) == (taint["key"], taint.get("value", ""))


def _names(nodes: Sequence[Object]) -> str:
    names = [str(node["metadata"]["name"]) for node in nodes]
    return ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")


def _products(nodes: Sequence[Object]) -> str:
    """What the nodes' GPUs are, by GPU feature discovery or by their pool."""
    products: Counter[str] = Counter()
    for node in nodes:
        labels = _labels(node)
        if product := labels.get(PRODUCT):
            products[product] += 1
        elif _offers(node):
            products.update(f"{label}={labels[label]}" for label in POOL_PRODUCTS if label in labels)
    return ", ".join(f"{count} × {product}" for product, count in sorted(products.items()))
