"""Rules about references between objects: names that must exist, selectors that must match, ports that must agree."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator
from typing import Any

from manifests.kube import Document, Pod, matches, of_kind, pods, title, walk

# Where a pod or another object names one: path's end → kind. What is not in the manifest must be in `external`.
_NAMED = {
    "configMap.name": "ConfigMap",
    "configMapRef.name": "ConfigMap",
    "configMapKeyRef.name": "ConfigMap",
    "secret.secretName": "Secret",
    "secret.name": "Secret",
    "secretRef.name": "Secret",
    "secretKeyRef.name": "Secret",
    "persistentVolumeClaim.claimName": "PersistentVolumeClaim",
    "resourceClaimTemplateName": "ResourceClaimTemplate",
    "spec.serviceAccountName": "ServiceAccount",
    "spec.priorityClassName": "PriorityClass",
    "authenticationRef.name": "TriggerAuthentication",
    "spec.volumeName": "PersistentVolume",
    "backend.service.name": "Service",
}
# Ports of the proxy that Istio puts into a pod, or before it ("Application Requirements", "Ports used by Istio")
_MESH_PORTS = [{"containerPort": port} for port in (15008, 15020, 15090)]
_KEYS = {"configMapKeyRef": "ConfigMap", "secretKeyRef": "Secret"}


def names_exist(documents: list[Document], external: Collection[str] = ()) -> Iterator[str]:
    """Every object that another one names is in the manifest, or was named by the person who deploys."""
    there = {(document["kind"], document["metadata"]["name"]) for document in documents}
    for document in documents:
        for path, value in walk(document):
            for end, kind in _NAMED.items():
                if not (path.endswith(f".{end}") and isinstance(value, str) and value):
                    continue
                if (
                    (kind, value) not in there
                    and value not in external
                    and (kind, value) != ("ServiceAccount", "default")
                ):
                    yield f"{title(document)}: {path} names {kind} {value}, which nobody makes"
            if isinstance(value, dict):
                yield from _references(document, path, value, there, external)


def _references(
    document: Document, path: str, value: Document, there: set[tuple[str, str]], external: Collection[str]
) -> Iterator[str]:
    """Those that say the kind themselves."""
    targets = [value["scaleTargetRef"]] if "scaleTargetRef" in value else []
    targets += [{"kind": "Service", **backend} for backend in value.get("backendRefs", []) if isinstance(backend, dict)]
    for target in targets:
        kind, name = target.get("kind", "Deployment"), target.get("name")
        if (kind, name) not in there and name not in external:
            yield f"{title(document)}: {path} names {kind} {name}, which nobody makes"


def keys_exist(documents: list[Document]) -> Iterator[str]:
    """Every key that is taken from a ConfigMap or Secret of the manifest is in it."""
    data = {
        (document["kind"], document["metadata"]["name"]): {*document.get("data", {}), *document.get("stringData", {})}
        for document in of_kind(documents, "ConfigMap", "Secret")
    }
    for document in documents:
        for path, value in walk(document):
            last = path.rpartition(".")[2]
            if last in _KEYS and isinstance(value, dict):
                keys, there = {value["key"]}, data.get((_KEYS[last], value["name"]))
            elif last in {"configMap", "secret"} and isinstance(value, dict) and "items" in value:
                kind = "ConfigMap" if last == "configMap" else "Secret"
                keys = {item["key"] for item in value["items"]}
                there = data.get((kind, value.get("name", value.get("secretName"))))
            else:
                continue
            if there is not None and (missing := keys - there):
                yield f"{title(document)}: {path} takes the key {', '.join(sorted(missing))}, which is not there"


def selectors_match(documents: list[Document]) -> Iterator[str]:
    """Every selector takes at least one pod (or Service), and none takes another workload's pods."""
    templates = list(pods(documents))
    services = [document["metadata"].get("labels", {}) for document in of_kind(documents, "Service")]
    for document in of_kind(documents, "Deployment", "StatefulSet", "DaemonSet"):
        taken = [pod for pod in templates if matches(document["spec"]["selector"], pod.labels)]
        if [pod.owner for pod in taken] != [document]:
            yield f"{title(document)}: its selector takes the pods of {[pod.name for pod in taken]}"
    for document in documents:
        for path, selector, of_services in _selectors(document):
            candidates = services if of_services else [pod.labels for pod in templates]
            if not any(matches(selector, labels) for labels in candidates):
                yield f"{title(document)}: {path} {selector} takes nothing"
    for pod in templates:
        budgets = [
            budget
            for budget in of_kind(documents, "PodDisruptionBudget")
            if matches(budget["spec"]["selector"], pod.labels)
        ]
        if len(budgets) > 1:  # the eviction API then refuses every eviction
            yield f"{pod.name}: is taken by {len(budgets)} PodDisruptionBudgets"


def _selectors(document: Document) -> Iterator[tuple[str, Document, bool]]:
    """Path, selector in its long form, and whether it selects Services instead of pods."""
    kind, spec = document["kind"], document.get("spec", {})
    if kind == "Service" and spec.get("selector"):
        yield "spec.selector", {"matchLabels": spec["selector"]}, False
    if kind in {"PodDisruptionBudget", "PodMonitor", "ServiceMonitor"}:
        yield "spec.selector", spec["selector"], kind == "ServiceMonitor"
    if kind == "NetworkPolicy" and spec["podSelector"]:
        yield "spec.podSelector", spec["podSelector"], False
    for path, value in walk(document):
        if path.rpartition(".")[2] == "labelSelector" and "template" in path.split("."):
            yield path, value, False


def spread_takes_its_own(documents: list[Document]) -> Iterator[str]:
    """A topology spread and an anti-affinity count the pods that they stand in."""
    for pod in pods(documents):
        for rule in pod.spec.get("topologySpreadConstraints", []):
            if not matches(rule.get("labelSelector", {}), pod.labels):
                yield f"{pod.name}: topologySpreadConstraints counts other pods: {rule.get('labelSelector')}"


def ports_agree(documents: list[Document]) -> Iterator[str]:
    """A port that a Service, probe, monitor, route or policy names is one that the pods behind it have."""
    templates = list(pods(documents, "Deployment", "StatefulSet", "DaemonSet", "LeaderWorkerSet"))
    for document in of_kind(documents, "Service"):
        yield from _service(document, templates)
    for pod in pods(documents):
        yield from _pod_ports(pod)
    for document in of_kind(documents, "PodMonitor", "ServiceMonitor", "NetworkPolicy"):
        yield from _watchers(document, documents, templates)
    for document in of_kind(documents, "HTTPRoute", "GRPCRoute", "Ingress"):
        yield from _routes(document, documents)


def _has(ports: Iterable[Document], target: Any, number: str = "containerPort") -> bool:
    return any(target in (port.get("name"), port[number]) for port in ports)


def _service(service: Document, templates: list[Pod]) -> Iterator[str]:
    ports = service["spec"].get("ports", [])
    for field in ("name", "port"):
        values = [port.get(field) for port in ports]
        if len(set(values)) != len(values):
            yield f"{title(service)}: two ports have the same {field}"
    for pod in templates:
        if not matches({"matchLabels": service["spec"].get("selector") or {"": ""}}, pod.labels):
            continue
        for port in ports:
            if not _has(pod.ports, target := port.get("targetPort", port["port"])):
                yield f"{title(service)}: its port {target} is none of {pod.name}"


def _pod_ports(pod: Pod) -> Iterator[str]:
    for field in ("name", "containerPort"):
        values = [port[field] for port in pod.ports if field in port]
        if len(set(values)) != len(values):
            yield f"{pod.name}: two container ports have the same {field}: {values}"
    for container in pod.all_containers:
        for probe in ("startupProbe", "readinessProbe", "livenessProbe"):
            for action in ("httpGet", "tcpSocket", "grpc"):
                port = container.get(probe, {}).get(action, {}).get("port")
                if port is not None and not _has(container.get("ports", []), port):
                    yield f"{pod.name}: {probe} of {container['name']} asks port {port}, which it does not have"


def _watchers(document: Document, documents: list[Document], templates: list[Pod]) -> Iterator[str]:
    spec = document["spec"]
    if document["kind"] == "NetworkPolicy":
        taken = [pod for pod in templates if matches(spec["podSelector"], pod.labels)]
        named_ports = [
            port["port"] for rule in spec.get("ingress", []) for port in rule.get("ports", []) if "port" in port
        ]
        ports = [[*pod.ports, *_MESH_PORTS] for pod in taken]
    elif document["kind"] == "PodMonitor":
        taken = [pod for pod in templates if matches(spec["selector"], pod.labels)]
        named_ports = [endpoint["port"] for endpoint in spec["podMetricsEndpoints"]]
        ports = [pod.ports for pod in taken]
    else:
        services = [
            service
            for service in of_kind(documents, "Service")
            if matches(spec["selector"], service["metadata"]["labels"])
        ]
        named_ports = [endpoint["port"] for endpoint in spec["endpoints"]]
        ports = [[{**port, "containerPort": port["port"]} for port in service["spec"]["ports"]] for service in services]
    for port in named_ports:
        if ports and not any(_has(there, port) for there in ports):
            yield f"{title(document)}: port {port} is none of those that it takes"


def _routes(document: Document, documents: list[Document]) -> Iterator[str]:
    services = {service["metadata"]["name"]: service["spec"]["ports"] for service in of_kind(documents, "Service")}
    for path, value in walk(document):
        if document["kind"] == "Ingress" and path.endswith("backend.service"):
            name, port = value["name"], value["port"].get("number", value["port"].get("name"))
        elif isinstance(value, dict) and "name" in value and "port" in value and "backend" in path.lower():
            name, port = value["name"], value["port"]
        else:
            continue
        if name in services and not _has(services[name], port, "port"):
            yield f"{title(document)}: {path} asks port {port}, which Service {name} does not have"


def volumes_agree(documents: list[Document]) -> Iterator[str]:
    """Every mount has its volume, every volume a mount, and no path is mounted over twice."""
    for pod in pods(documents):
        names = [volume["name"] for volume in pod.spec.get("volumes", [])]
        mounts = [mount for container in pod.all_containers for mount in container.get("volumeMounts", [])]
        used = {mount["name"] for mount in mounts}
        if missing := used - set(names):
            yield f"{pod.name}: no volume {', '.join(sorted(missing))}"
        if idle := set(names) - used:
            yield f"{pod.name}: nothing mounts {', '.join(sorted(idle))}"
        if len(set(names)) != len(names):
            yield f"{pod.name}: two volumes have the same name: {names}"
        for container in pod.all_containers:
            paths = [mount["mountPath"].rstrip("/") for mount in container.get("volumeMounts", [])]
            if len(set(paths)) != len(paths):
                yield f"{pod.name}: container {container['name']} mounts twice on a path: {paths}"


def claims_agree(documents: list[Document]) -> Iterator[str]:
    """Every device claim that a container uses is one of its pod's."""
    for pod in pods(documents):
        there = {claim["name"] for claim in pod.spec.get("resourceClaims", [])}
        used = {
            claim["name"]
            for container in pod.all_containers
            for claim in container.get("resources", {}).get("claims", [])
        }
        if there != used:
            yield f"{pod.name}: its device claims are {sorted(there)}, its containers use {sorted(used)}"
