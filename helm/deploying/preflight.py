"""What a release needs of a cluster, held against it before anything is changed: one line each, with the fix.

Reads the rendered manifest rather than the values, so that it sees what the cluster will get.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

from deploying import chart, nodes, room
from deploying.chart import Rendered
from deploying.check import Check
from deploying.cluster import Cluster, Forbidden, Unreachable
from deploying.environment import Environment
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


def look(cluster: Cluster, environment: Environment, made: Rendered) -> list[Check]:
    """Everything about the cluster, in the order in which it would go wrong."""
    checks = [context(cluster)]
    if checks[0].state == "missing":
        return checks
    looks: tuple[Callable[[], Iterator[Check]], ...] = (
        lambda: _version(cluster),
        lambda: _namespace(cluster),
        lambda: _kinds(cluster, made),
        lambda: _rights(cluster, made),
        lambda: _nodes(cluster, environment, made),
        lambda: _claims(cluster, made),
        lambda: _references(cluster, made),
        lambda: _gateways(cluster, made),
        lambda: _ingress_classes(cluster, made),
        lambda: _authentications(cluster, made),
        lambda: _images(made),
    )
    for one in looks:
        try:
            checks += one()
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
    found = cluster.get("namespace", cluster.namespace)
    if found is None:
        yield Check("namespace", "missing", f"there is no namespace {cluster.namespace}",
                    f"kubectl --context {cluster.context} create namespace {cluster.namespace} && kubectl --context "
                    f"{cluster.context} label namespace {cluster.namespace} {label}=restricted")  # fmt: skip
        return
    level = found["metadata"].get("labels", {}).get(label)
    if level == "restricted":
        yield Check("namespace", "ok", f"{cluster.namespace} enforces the restricted Pod Security Standard")
    else:
        what = f"enforces {level}" if level else "enforces no Pod Security Standard"
        yield Check("namespace", "note", f"{cluster.namespace} {what}; the pods pass restricted",
                    f"kubectl label namespace {cluster.namespace} {label}=restricted")  # fmt: skip


def _kinds(cluster: Cluster, made: Rendered) -> Iterator[Check]:
    wanted: dict[str, set[str]] = {}
    for one in made.objects:
        if (one["apiVersion"], one["kind"]) not in cluster.kinds:
            wanted.setdefault(one["apiVersion"], set()).add(one["kind"])
    for api, names in sorted(wanted.items()):
        who, fix = _OPERATORS.get(api.partition("/")[0], (api, "install what serves it, or leave the object out"))
        yield Check("kinds", "missing", f"the cluster knows no {', '.join(sorted(names))} ({api}): that is {who}", fix)
    if not wanted:
        yield Check("kinds", "ok", f"the cluster knows all {len({one['kind'] for one in made.objects})} kinds")
    yield from _metrics(cluster, made)


def _metrics(cluster: Cluster, made: Rendered) -> Iterator[Check]:
    groups = {"Pods": "custom.metrics.k8s.io", "Object": "custom.metrics.k8s.io", "External": "external.metrics.k8s.io",
              "Resource": "metrics.k8s.io", "ContainerResource": "metrics.k8s.io"}  # fmt: skip
    for one in made.objects:
        if one["kind"] != "HorizontalPodAutoscaler":
            continue
        for group in sorted({groups[metric["type"]] for metric in one["spec"]["metrics"] if metric["type"] in groups}):
            if any(served.startswith(f"{group}/") for served in cluster.groups):
                yield Check("metrics", "ok", f"{group} is served, for {chart.name(one)}")
            else:
                server = "metrics-server" if group == "metrics.k8s.io" else "prometheus-adapter"
                yield Check("metrics", "missing", f"{chart.name(one)} reads {group}, which nothing serves",
                            f"install {server}, or set autoscaling.kind=keda")  # fmt: skip


def _rights(cluster: Cluster, made: Rendered) -> Iterator[Check]:
    served = {(one["apiVersion"], one["kind"]) for one in (*made.objects, *made.hooks)} & set(cluster.kinds)
    resources = {(api.rpartition("/")[0], cluster.kinds[api, kind].resource) for api, kind in served
                 if cluster.kinds[api, kind].namespaced}  # fmt: skip
    resources.add(("", "secrets"))  # where helm keeps releases
    wanted = [(verb, group, resource) for group, resource in sorted(resources) for verb in _VERBS]
    refused = cluster.may(wanted)
    if refused:
        by_resource: dict[str, list[str]] = {}
        for verb, group, resource in refused:
            by_resource.setdefault(f"{resource}.{group}" if group else resource, []).append(verb)
        said = "; ".join(f"{'/'.join(verbs)} {resource}" for resource, verbs in by_resource.items())
        yield Check("rights", "missing", f"in {cluster.namespace} you may not: {said}",
                    "ask for a Role with these; `kubectl auth can-i --list` shows what you have")  # fmt: skip
    else:
        yield Check(
            "rights", "ok", f"you may do all that helm does ({len(wanted)} verbs on {len(resources)} resources)"
        )


def _nodes(cluster: Cluster, environment: Environment, made: Rendered) -> Iterator[Check]:
    wanted = [(one, spec) for one, spec in chart.pods(made.objects) if nodes.asked(spec) or _claims_devices(spec)]
    if not wanted:
        yield Check("nodes", "ok", "no pod asks for a GPU")
    listed = (cluster.get("nodes") or {"items": []})["items"]
    on_demand = environment.deploy.gpu_nodes == "onDemand"
    for one, spec in chart.pods(made.objects):
        if space := room.check(chart.name(one), spec, nodes.fitting(spec, listed), on_demand):
            yield space
    for one, spec in wanted:
        count, _ = chart.replicas(one, made.objects)
        yield from nodes.check(chart.name(one), spec, count, listed, on_demand, environment.deploy.pool_labels)
        strategy = one["spec"].get("strategy", {}).get("rollingUpdate", {})
        if strategy.get("maxSurge") not in {None, 0, "0"}:
            yield Check("surge", "note", f"{chart.name(one)} starts a new pod before an old one ends: an update needs "
                        "a GPU to spare (rollout.profile=inPlace does not)")  # fmt: skip
    for name in sorted({request["exactly"]["deviceClassName"] for request in _requests(made)}):
        if cluster.get("deviceclass", name) is None:
            yield Check("device class", "missing", f"there is no DeviceClass {name}", "install NVIDIA's DRA driver")
        else:
            yield Check("device class", "ok", name)


def _claims_devices(spec: Object) -> bool:
    return bool(spec.get("resourceClaims"))


def _requests(made: Rendered) -> Iterator[Object]:
    for one in made.objects:
        if one["kind"] == "ResourceClaimTemplate":
            yield from (request for request in one["spec"]["spec"]["devices"]["requests"] if "exactly" in request)


def _claims(cluster: Cluster, made: Rendered) -> Iterator[Check]:
    classes = None
    for one in made.objects:
        if one["kind"] != "PersistentVolumeClaim":
            continue
        if classes is None:
            classes = (cluster.get("storageclass") or {"items": []})["items"]
        yield _storage_class(chart.name(one), one["spec"].get("storageClassName"), classes)


def _storage_class(claim: str, wanted: str | None, classes: Sequence[Object]) -> Check:
    names = [one["metadata"]["name"] for one in classes]
    default = next((one["metadata"]["name"] for one in classes if (one["metadata"].get("annotations") or {})
                    .get("storageclass.kubernetes.io/is-default-class") == "true"), None)  # fmt: skip
    have = f"the cluster has {', '.join(names)}" if names else "the cluster has none"
    if wanted and wanted not in names:
        return Check("storage", "missing", f"{claim} wants StorageClass {wanted}; {have}", "choose one that there is")
    if not wanted and default is None:
        return Check("storage", "missing", f"{claim} names no StorageClass, and none is the default; {have}",
                     "set engineBuild.cache.storageClass")  # fmt: skip
    return Check("storage", "ok", f"{claim}: StorageClass {wanted or default}; whether it gives volumes to several "
                 "nodes (ReadWriteMany) only its driver knows")  # fmt: skip


def _references(cluster: Cluster, made: Rendered) -> Iterator[Check]:
    """What pods name and the chart does not make."""
    ours = {(one["kind"], one["metadata"]["name"]) for one in (*made.objects, *made.hooks)}
    named: dict[tuple[str, str], str] = {}
    for one, spec in chart.pods((*made.objects, *made.hooks)):
        for reference in _named(spec):
            named.setdefault(reference, chart.name(one))
    for (kind, name), user in sorted(named.items()):
        if (kind, name) in ours:
            continue
        found = cluster.get(kind.lower(), name)
        if found is None:
            yield Check(kind, "missing", f"there is no {kind} {name} in {cluster.namespace}, and {user} uses it",
                        "make it, or correct the name in the values")  # fmt: skip
        elif kind == "PersistentVolumeClaim" and found.get("status", {}).get("phase") == "Lost":
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
            said = volume.get(key)
            if said and not said.get("optional"):
                yield kind, said.get("secretName") or said["name"]
    for container in (*spec["containers"], *spec.get("initContainers", [])):
        yield from _environment(container)


def _environment(container: Object) -> Iterator[tuple[str, str]]:
    sources = [entry.get("valueFrom") or {} for entry in container.get("env") or []] + (container.get("envFrom") or [])
    for source in sources:
        for key, kind in (("secretKeyRef", "Secret"), ("secretRef", "Secret"),
                          ("configMapKeyRef", "ConfigMap"), ("configMapRef", "ConfigMap")):  # fmt: skip
            if key in source and not source[key].get("optional"):
                yield kind, source[key]["name"]


def _gateways(cluster: Cluster, made: Rendered) -> Iterator[Check]:
    parents = {
        (parent.get("namespace", cluster.namespace), parent["name"])
        for one in made.objects
        if one["kind"].endswith("Route")
        for parent in one["spec"].get("parentRefs", [])
    }
    for namespace, name in sorted(parents):
        if cluster.get("gateway", name, f"--namespace={namespace}") is None:
            yield Check("gateway", "missing", f"there is no Gateway {name} in {namespace}",
                        "make it, or correct gateway.parentRefs")  # fmt: skip
        else:
            yield Check("gateway", "ok", f"{name} in {namespace}")


def _ingress_classes(cluster: Cluster, made: Rendered) -> Iterator[Check]:
    """An Ingress of no class, or of one that nobody serves, is taken by the API server and leads nowhere."""
    default, former = "ingressclass.kubernetes.io/is-default-class", "kubernetes.io/ingress.class"
    wanted = {
        one["spec"].get("ingressClassName", ""): chart.name(one)
        for one in made.objects
        if one["kind"] == "Ingress" and former not in (one["metadata"].get("annotations") or {})
    }
    if not wanted:
        return
    classes = (cluster.get("ingressclass") or {"items": []})["items"]
    names = [one["metadata"]["name"] for one in classes]
    have = f"the cluster has {', '.join(names)}" if names else "the cluster has none"
    fix = "install its controller, or correct ingress.className"
    for name, user in wanted.items():
        if name and name not in names:
            yield Check("IngressClass", "missing", f"there is no IngressClass {name}, and {user} names it; {have}", fix)
        elif not name and not any((one["metadata"].get("annotations") or {}).get(default) == "true" for one in classes):
            text = f"{user} names no IngressClass, and none is the default; {have}"
            yield Check("IngressClass", "missing", text, "set ingress.className")
        else:
            yield Check("IngressClass", "ok", name or "the cluster's default")


def _authentications(cluster: Cluster, made: Rendered) -> Iterator[Check]:
    """Without what its triggers name, a ScaledObject scales nothing, and says so in its own status only."""
    wanted: dict[tuple[str, str], str] = {}
    for one in made.objects:
        if one["kind"] == "ScaledObject":
            for trigger in one["spec"]["triggers"]:
                if reference := trigger.get("authenticationRef"):
                    key = (reference.get("kind", "TriggerAuthentication"), reference["name"])
                    wanted.setdefault(key, chart.name(one))
    ours = {(one["kind"], one["metadata"]["name"]) for one in made.objects}
    for (kind, name), user in sorted(wanted.items()):
        known = next((known for (_, served), known in cluster.kinds.items() if served == kind), None)
        if known is None or (kind, name) in ours:
            continue
        if cluster.get(known.resource, name) is None:
            yield Check("trigger", "missing", f"there is no {kind} {name}, and {user} uses it",
                        "make it, or correct autoscaling.keda.authenticationRef or the trigger's own")  # fmt: skip
        else:
            yield Check("trigger", "ok", f"{name}, for {user}")


def _images(made: Rendered) -> Iterator[Check]:
    images: dict[str, set[str]] = {}
    for _, spec in chart.pods((*made.objects, *made.hooks)):
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
