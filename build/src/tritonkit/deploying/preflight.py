"""What a release needs of a cluster, held against it before anything is changed: one line each, with the fix.

Reads the rendered manifest rather than the values, so that it sees what the cluster will get.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

from tritonkit.deploying import chart, nodes, room
from tritonkit.deploying.chart import Rendered
from tritonkit.deploying.check import Check
from tritonkit.deploying.cluster import Cluster, Forbidden, Unreachable
from tritonkit.deploying.environment import Environment
from tritonkit.errors import MissingError

Object = dict[str, Any]
_OLDEST, _NEWEST = (1, 30), (1, 37)
_VERBS = ("get", "create", "patch", "delete")
# API group: what serves it, and how to get it or do without.
_OPERATORS = {
    "keda.sh": ("KEDA", "install KEDA, or set autoscaling.kind=hpa"),
    "gateway.networking.k8s.io": ("the Gateway API", "install its CRDs and a controller, or set gateway.enabled=false"),
    "monitoring.coreos.com": ("the Prometheus operator", "install it, or switch monitoring.podMonitor, serviceMonitor "
                              "and prometheusRule off"),
    "resource.k8s.io": ("dynamic resource allocation", "use Kubernetes 1.34 or newer with a DRA driver, or set "
                        "accelerator.kind=gpu"),
}  # fmt: skip


def look(cluster: Cluster, environment: Environment, rendered: Rendered) -> list[Check]:
    """Everything that the release needs of the cluster, checked in the order in which it would go wrong."""
    checks = [context(cluster)]
    if checks[0].state == "missing":
        return checks
    steps: tuple[Callable[[], Iterator[Check]], ...] = (
        lambda: _version(cluster),
        lambda: _namespace(cluster),
        lambda: _kinds(cluster, rendered),
        lambda: _rights(cluster, rendered),
        lambda: _nodes(cluster, environment, rendered),
        lambda: _claims(cluster, rendered),
        lambda: _references(cluster, rendered),
        lambda: _gateways(cluster, rendered),
        lambda: _ingress_classes(cluster, rendered),
        lambda: _authentications(cluster, rendered),
        lambda: _images(rendered),
    )
    for step in steps:
        try:
            checks += step()
        except Forbidden as error:
            checks.append(Check("rights", "unchecked", error.message, error.fix))
        except Unreachable as error:
            checks.append(Check("cluster", "missing", error.message, error.fix))
            break
    return checks


def context(cluster: Cluster) -> Check:
    """Whether the kubeconfig has the context, and its cluster answers."""
    try:
        known = cluster.contexts
    except Unreachable as error:
        return Check("context", "missing", error.message, error.fix)
    if cluster.context not in known:
        have = f"it has {', '.join(known)}" if known else "there is no kubeconfig, or it is empty"
        fix = "get the kubeconfig of that cluster, or correct deploy.context"
        return Check("context", "missing", f"the kubeconfig has no context {cluster.context!r}: {have}", fix)
    try:
        return Check("context", "ok", f"{cluster.context} is {known[cluster.context]}, Kubernetes {cluster.version}")
    except (Forbidden, MissingError) as error:
        return Check("context", "missing", error.message, error.fix)


def _version(cluster: Cluster) -> Iterator[Check]:
    major, minor = (int(part) for part in cluster.version.split("."))
    if (major, minor) < _OLDEST:
        yield Check("Kubernetes", "missing", f"{cluster.version} is older than 1.30, which the chart needs "
                    "(preStop sleep)", "upgrade the cluster")  # fmt: skip
    elif (major, minor) > _NEWEST:
        yield Check("Kubernetes", "note", f"{cluster.version} is newer than 1.37, the newest that the chart was "
                    "held against")  # fmt: skip
    else:
        yield Check("Kubernetes", "ok", cluster.version)


def _namespace(cluster: Cluster) -> Iterator[Check]:
    label = "pod-security.kubernetes.io/enforce"
    namespace = cluster.get("namespace", cluster.namespace)
    if namespace is None:
        yield Check("namespace", "missing", f"there is no namespace {cluster.namespace}",
                    f"kubectl --context {cluster.context} create namespace {cluster.namespace} && kubectl --context "
                    f"{cluster.context} label namespace {cluster.namespace} {label}=restricted")  # fmt: skip
        return
    level = namespace["metadata"].get("labels", {}).get(label)
    if level == "restricted":
        yield Check("namespace", "ok", f"{cluster.namespace} enforces the restricted Pod Security Standard")
    else:
        what = f"enforces {level}" if level else "enforces no Pod Security Standard"
        yield Check("namespace", "note", f"{cluster.namespace} {what}; the pods pass restricted",
                    f"kubectl label namespace {cluster.namespace} {label}=restricted")  # fmt: skip


def _kinds(cluster: Cluster, rendered: Rendered) -> Iterator[Check]:
    unserved: dict[str, set[str]] = {}
    for obj in rendered.objects:
        if (obj["apiVersion"], obj["kind"]) not in cluster.kinds:
            unserved.setdefault(obj["apiVersion"], set()).add(obj["kind"])
    for api, names in sorted(unserved.items()):
        who, fix = _OPERATORS.get(api.partition("/")[0], (api, "install what serves it, or leave the object out"))
        yield Check("kinds", "missing", f"the cluster knows no {', '.join(sorted(names))} ({api}): that is {who}", fix)
    if not unserved:
        yield Check("kinds", "ok", f"the cluster knows all {len({obj['kind'] for obj in rendered.objects})} kinds")
    yield from _metrics(cluster, rendered)


def _metrics(cluster: Cluster, rendered: Rendered) -> Iterator[Check]:
    groups = {"Pods": "custom.metrics.k8s.io", "Object": "custom.metrics.k8s.io", "External": "external.metrics.k8s.io",
              "Resource": "metrics.k8s.io", "ContainerResource": "metrics.k8s.io"}  # fmt: skip
    for obj in rendered.objects:
        if obj["kind"] != "HorizontalPodAutoscaler":
            continue
        for group in sorted({groups[metric["type"]] for metric in obj["spec"]["metrics"] if metric["type"] in groups}):
            if any(served.startswith(f"{group}/") for served in cluster.groups):
                yield Check("metrics", "ok", f"{group} is served, for {chart.name(obj)}")
            else:
                server = "metrics-server" if group == "metrics.k8s.io" else "prometheus-adapter"
                yield Check("metrics", "missing", f"{chart.name(obj)} reads {group}, which nothing serves",
                            f"install {server}, or set autoscaling.kind=keda")  # fmt: skip


def _rights(cluster: Cluster, rendered: Rendered) -> Iterator[Check]:
    served = {(obj["apiVersion"], obj["kind"]) for obj in (*rendered.objects, *rendered.hooks)} & set(cluster.kinds)
    resources = {(api.rpartition("/")[0], cluster.kinds[api, kind].resource) for api, kind in served
                 if cluster.kinds[api, kind].namespaced}  # fmt: skip
    resources.add(("", "secrets"))  # where helm keeps releases
    accesses = [(verb, group, resource) for group, resource in sorted(resources) for verb in _VERBS]
    refused = cluster.may(accesses)
    if refused:
        by_resource: dict[str, list[str]] = {}
        for verb, group, resource in refused:
            by_resource.setdefault(f"{resource}.{group}" if group else resource, []).append(verb)
        permissions = "; ".join(f"{'/'.join(verbs)} {resource}" for resource, verbs in by_resource.items())
        yield Check("rights", "missing", f"in {cluster.namespace} you may not: {permissions}",
                    "ask for a Role with these; `kubectl auth can-i --list` shows what you have")  # fmt: skip
    else:
        yield Check(
            "rights", "ok", f"you may do all that helm does ({len(accesses)} verbs on {len(resources)} resources)"
        )


def _nodes(cluster: Cluster, environment: Environment, rendered: Rendered) -> Iterator[Check]:
    gpu_workloads = [
        (workload, spec)
        for workload, spec in chart.pods(rendered.objects)
        if nodes.requested_devices(spec) or _claims_devices(spec)
    ]
    if not gpu_workloads:
        yield Check("nodes", "ok", "no pod asks for a GPU")
    listed = (cluster.get("nodes") or {"items": []})["items"]
    on_demand = environment.deploy.gpu_nodes == "onDemand"
    for workload, spec in chart.pods(rendered.objects):
        if space := room.check(chart.name(workload), spec, nodes.fitting(spec, listed), on_demand):
            yield space
    for workload, spec in gpu_workloads:
        count, _ = chart.replicas(workload, rendered.objects)
        yield from nodes.check(chart.name(workload), spec, count, listed, on_demand, environment.deploy.pool_labels)
        strategy = workload["spec"].get("strategy", {}).get("rollingUpdate", {})
        if strategy.get("maxSurge") not in {None, 0, "0"}:
            yield Check("surge", "note", f"{chart.name(workload)} starts a new pod before an old one ends: an update "
                        "needs a GPU to spare (rollout.profile=inPlace does not)")  # fmt: skip
    for name in sorted({request["exactly"]["deviceClassName"] for request in _requests(rendered)}):
        if cluster.get("deviceclass", name) is None:
            yield Check("device class", "missing", f"there is no DeviceClass {name}", "install NVIDIA's DRA driver")
        else:
            yield Check("device class", "ok", name)


def _claims_devices(spec: Object) -> bool:
    return bool(spec.get("resourceClaims"))


def _requests(rendered: Rendered) -> Iterator[Object]:
    for obj in rendered.objects:
        if obj["kind"] == "ResourceClaimTemplate":
            yield from (request for request in obj["spec"]["spec"]["devices"]["requests"] if "exactly" in request)


def _claims(cluster: Cluster, rendered: Rendered) -> Iterator[Check]:
    classes = None
    for obj in rendered.objects:
        if obj["kind"] != "PersistentVolumeClaim":
            continue
        if classes is None:
            classes = (cluster.get("storageclass") or {"items": []})["items"]
        yield _storage_class(chart.name(obj), obj["spec"].get("storageClassName"), classes)


def _storage_class(claim: str, name: str | None, classes: Sequence[Object]) -> Check:
    names = [storage_class["metadata"]["name"] for storage_class in classes]
    default = next((storage_class["metadata"]["name"] for storage_class in classes
                    if (storage_class["metadata"].get("annotations") or {})
                    .get("storageclass.kubernetes.io/is-default-class") == "true"), None)  # fmt: skip
    have = f"the cluster has {', '.join(names)}" if names else "the cluster has none"
    if name and name not in names:
        return Check("storage", "missing", f"{claim} wants StorageClass {name}; {have}", "choose one that there is")
    if not name and default is None:
        return Check("storage", "missing", f"{claim} names no StorageClass, and none is the default; {have}",
                     "set engineBuild.cache.storageClass")  # fmt: skip
    return Check("storage", "ok", f"{claim}: StorageClass {name or default}; whether it gives volumes to several "
                 "nodes (ReadWriteMany) only its driver knows")  # fmt: skip


def _references(cluster: Cluster, rendered: Rendered) -> Iterator[Check]:
    """Check what pods name and the chart does not create: Secrets, ConfigMaps, volume claims, service accounts."""
    ours = {(obj["kind"], obj["metadata"]["name"]) for obj in (*rendered.objects, *rendered.hooks)}
    named: dict[tuple[str, str], str] = {}
    for workload, spec in chart.pods((*rendered.objects, *rendered.hooks)):
        for reference in _named(spec):
            named.setdefault(reference, chart.name(workload))
    for (kind, name), user in sorted(named.items()):
        if (kind, name) in ours:
            continue
        obj = cluster.get(kind.lower(), name)
        if obj is None:
            yield Check(kind, "missing", f"there is no {kind} {name} in {cluster.namespace}, and {user} uses it",
                        "make it, or correct the name in the values")  # fmt: skip
        elif kind == "PersistentVolumeClaim" and obj.get("status", {}).get("phase") == "Lost":
            yield Check(kind, "missing", f"{kind} {name} has lost its volume", "restore it")
        else:
            yield Check(kind, "ok", f"{name}, for {user}")


def _named(spec: Object) -> Iterator[tuple[str, str]]:
    if account := spec.get("serviceAccountName"):
        yield "ServiceAccount", account
    for secret in spec.get("imagePullSecrets") or []:
        yield "Secret", secret["name"]
    for volume in spec.get("volumes") or []:
        if claim := volume.get("persistentVolumeClaim"):
            yield "PersistentVolumeClaim", claim["claimName"]
        for key, kind in (("secret", "Secret"), ("configMap", "ConfigMap")):
            source = volume.get(key)
            if source and not source.get("optional"):
                yield kind, source.get("secretName") or source["name"]
    for container in (*spec["containers"], *spec.get("initContainers", [])):
        yield from _environment(container)


def _environment(container: Object) -> Iterator[tuple[str, str]]:
    sources = [entry.get("valueFrom") or {} for entry in container.get("env") or []] + (container.get("envFrom") or [])
    for source in sources:
        for key, kind in (("secretKeyRef", "Secret"), ("secretRef", "Secret"),
                          ("configMapKeyRef", "ConfigMap"), ("configMapRef", "ConfigMap")):  # fmt: skip
            if key in source and not source[key].get("optional"):
                yield kind, source[key]["name"]


def _gateways(cluster: Cluster, rendered: Rendered) -> Iterator[Check]:
    parents = {
        (parent.get("namespace", cluster.namespace), parent["name"])
        for route in rendered.objects
        if route["kind"].endswith("Route")
        for parent in route["spec"].get("parentRefs", [])
    }
    for namespace, name in sorted(parents):
        if cluster.get("gateway", name, f"--namespace={namespace}") is None:
            yield Check("gateway", "missing", f"there is no Gateway {name} in {namespace}",
                        "make it, or correct gateway.parentRefs")  # fmt: skip
        else:
            yield Check("gateway", "ok", f"{name} in {namespace}")


def _ingress_classes(cluster: Cluster, rendered: Rendered) -> Iterator[Check]:
    """Check Ingress classes: the API server accepts an Ingress whose class is missing or unknown; nothing serves it."""
    default, former = "ingressclass.kubernetes.io/is-default-class", "kubernetes.io/ingress.class"
    users = {
        ingress["spec"].get("ingressClassName", ""): chart.name(ingress)
        for ingress in rendered.objects
        if ingress["kind"] == "Ingress" and former not in (ingress["metadata"].get("annotations") or {})
    }
    if not users:
        return
    classes = (cluster.get("ingressclass") or {"items": []})["items"]
    names = [ingress_class["metadata"]["name"] for ingress_class in classes]
    have = f"the cluster has {', '.join(names)}" if names else "the cluster has none"
    fix = "install its controller, or correct ingress.className"
    for name, user in users.items():
        if name and name not in names:
            yield Check("IngressClass", "missing", f"there is no IngressClass {name}, and {user} names it; {have}", fix)
        elif not name and not any(
            (ingress_class["metadata"].get("annotations") or {}).get(default) == "true" for ingress_class in classes
        ):
            text = f"{user} names no IngressClass, and none is the default; {have}"
            yield Check("IngressClass", "missing", text, "set ingress.className")
        else:
            yield Check("IngressClass", "ok", name or "the cluster's default")


def _authentications(cluster: Cluster, rendered: Rendered) -> Iterator[Check]:
    """Check what triggers name: without it a ScaledObject scales nothing, and only its own status says so."""
    users: dict[tuple[str, str], str] = {}
    for obj in rendered.objects:
        if obj["kind"] == "ScaledObject":
            for trigger in obj["spec"]["triggers"]:
                if reference := trigger.get("authenticationRef"):
                    key = (reference.get("kind", "TriggerAuthentication"), reference["name"])
                    users.setdefault(key, chart.name(obj))
    ours = {(obj["kind"], obj["metadata"]["name"]) for obj in rendered.objects}
    for (kind, name), user in sorted(users.items()):
        known = next((known for (_, served), known in cluster.kinds.items() if served == kind), None)
        if known is None or (kind, name) in ours:
            continue
        if cluster.get(known.resource, name) is None:
            yield Check("trigger", "missing", f"there is no {kind} {name}, and {user} uses it",
                        "make it, or correct autoscaling.keda.authenticationRef or the trigger's own")  # fmt: skip
        else:
            yield Check("trigger", "ok", f"{name}, for {user}")


def _images(rendered: Rendered) -> Iterator[Check]:
    images: dict[str, set[str]] = {}
    for _, spec in chart.pods((*rendered.objects, *rendered.hooks)):
        for container in (*spec["containers"], *spec.get("initContainers", [])):
            images.setdefault(container["image"], set()).add(container.get("imagePullPolicy", ""))
    for image, policies in sorted(images.items()):
        if _has_registry(image):
            continue
        if policies == {"Never"}:
            yield Check("images", "note", f"{image} is not pulled: every node must have it")
        else:
            yield Check("images", "missing", f"{image} names no registry, so nodes would look for it on Docker Hub",
                        "build it (build/Dockerfile), push it, and name it in values.tools.image.repository; or set "
                        "values.tools.image.pullPolicy: Never where every node has it")  # fmt: skip
    yield Check("images", "unchecked", f"{len(images)} images; no registry was asked, and it may still refuse a node: "
                f"{', '.join(sorted(images))}")  # fmt: skip


def _has_registry(image: str) -> bool:
    host, slash, _ = image.partition("/")
    return bool(slash) and ("." in host or ":" in host or host == "localhost")
