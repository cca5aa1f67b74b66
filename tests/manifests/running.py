"""Rules about pods that run, end and scale: grace periods, probes, memory, images, secrets, autoscalers."""

from __future__ import annotations

import re
from collections.abc import Iterator

from manifests.kube import Document, Pod, argument, matches, of_kind, pods, pre_stop_seconds, quantity, title, walk

_DEFAULT_GRACE = 30.0  # seconds; Kubernetes' own
_DEFAULT_EXIT_TIMEOUT = 30.0  # seconds; Triton's own
_SECRET_NAME = re.compile(r"KEY|SECRET|TOKEN|PASSWORD|CREDENTIAL", re.IGNORECASE)
_SHORTEST_SECRET = 8  # characters; shorter ones stand in other words by chance
_NO_SECRET = re.compile(r"(_FILE|_PATH|_CREDENTIALS)$")  # these name files


def grace_covers_the_end(documents: list[Document]) -> Iterator[str]:
    """A pod's grace period is longer than any container's preStop hook and orderly end together."""
    for pod in pods(documents, "Deployment", "LeaderWorkerSet"):
        grace = pod.spec.get("terminationGracePeriodSeconds", _DEFAULT_GRACE)
        for container in pod.containers:
            needed = pre_stop_seconds(container) + _end_seconds(container, pod, documents)
            if grace <= needed:
                yield f"{pod.name}: {container['name']} takes up to {needed:g} s to end, the pod is killed after {grace:g} s"


def triton_outlasts_its_front(documents: list[Document]) -> Iterator[str]:
    """Triton gets its signal only after the front has ended, so that what the front still carries is answered."""
    for pod in pods(documents, "Deployment", "LeaderWorkerSet"):
        fronts = [container for container in pod.containers if _runs(container, "haproxy")]
        for front in fronts:
            over = pre_stop_seconds(front) + _end_seconds(front, pod, documents)
            for triton in (container for container in pod.containers if _runs(container, "tritonserver")):
                if pre_stop_seconds(triton) <= over:
                    yield f"{pod.name}: Triton is stopped after {pre_stop_seconds(triton):g} s, its front ends after {over:g} s"


def _runs(container: Document, program: str) -> bool:
    return any(program in word for word in [*container.get("command", []), *container.get("args", [])])


def _end_seconds(container: Document, pod: Pod, documents: list[Document]) -> float:
    """How long a container may take from its signal to its end."""
    if _runs(container, "tritonserver"):
        return float(argument(container, "--exit-timeout-secs") or _DEFAULT_EXIT_TIMEOUT)
    if not _runs(container, "haproxy"):
        return 0.0
    mounted = {volume.get("configMap", {}).get("name") for volume in pod.volumes.values()}
    texts = [
        text
        for document in of_kind(documents, "ConfigMap")
        if document["metadata"]["name"] in mounted
        for text in document.get("data", {}).values()
    ]
    match = re.search(r"hard-stop-after\s+(\d+)s", "\n".join(texts))
    return float(match[1]) if match else float("inf")


def probes_exist(documents: list[Document]) -> Iterator[str]:
    """A container that serves has readiness and liveness probes, and Triton a startup probe that outlasts neither."""
    for pod in pods(documents, "Deployment", "LeaderWorkerSet"):
        serving = [container for container in pod.containers if container.get("ports")]
        for container in serving:
            for probe in ("readinessProbe", "livenessProbe"):
                if probe not in container:
                    yield f"{pod.name}: container {container['name']} has no {probe}"
        if serving and not any("startupProbe" in container for container in serving):
            yield f"{pod.name}: no container has a startupProbe"


def rollout_waits(documents: list[Document]) -> Iterator[str]:
    """A rollout is called failed only after the startup budget of its pods has passed."""
    for pod in pods(documents, "Deployment"):
        budget = max((startup_seconds(container) for container in pod.containers), default=0.0)
        deadline = pod.owner["spec"].get("progressDeadlineSeconds", 600)
        if deadline <= budget:
            yield f"{pod.name}: progressDeadlineSeconds is {deadline}, starting may take {budget:g} s"


def startup_seconds(container: Document) -> float:
    """How long the kubelet lets a container start."""
    probe = container.get("startupProbe", {})
    if not probe:
        return 0.0
    return float(
        probe.get("initialDelaySeconds", 0) + probe.get("periodSeconds", 10) * probe.get("failureThreshold", 3)
    )


def autoscaler_owns_replicas(documents: list[Document]) -> Iterator[str]:
    """A Deployment says its replicas exactly when no autoscaler does, and no two autoscalers fight over it."""
    scalers = of_kind(documents, "HorizontalPodAutoscaler", "ScaledObject")
    targets = [scaler["spec"]["scaleTargetRef"]["name"] for scaler in scalers]
    if len(set(targets)) != len(targets):
        yield f"two autoscalers have one target: {targets}"
    for document in of_kind(documents, "Deployment", "LeaderWorkerSet"):
        scaled = document["metadata"]["name"] in targets
        if scaled and "replicas" in document["spec"]:
            yield f"{title(document)}: has spec.replicas, which its autoscaler owns"
        if not scaled and "replicas" not in document["spec"]:
            yield f"{title(document)}: has neither spec.replicas nor an autoscaler"
    for scaler in scalers:
        spec = scaler["spec"]
        least = spec.get("minReplicas", spec.get("minReplicaCount", 1))
        most = spec.get("maxReplicas", spec.get("maxReplicaCount", 100))
        if least > most:
            yield f"{title(scaler)}: at least {least}, at most {most} replicas"


def images_are_pinned(documents: list[Document]) -> Iterator[str]:
    """Every image has a digest, or a tag that is not ``latest``."""
    for pod in pods(documents):
        images = [container["image"] for container in pod.all_containers]
        images += [volume["image"]["reference"] for volume in pod.volumes.values() if "image" in volume]
        for image in images:
            tag = image.rpartition("/")[2].partition(":")[2]
            if "@sha256:" not in image and tag in {"", "latest"}:
                yield f"{pod.name}: image {image} may change under its name"


def secrets_stay_secret(documents: list[Document]) -> Iterator[str]:
    """No secret stands in an argument, in a variable's own value, in a ConfigMap, or is expanded into an argument."""
    for pod in pods(documents):
        for container in pod.all_containers:
            yield from (f"{pod.name}: container {container['name']}: {text}" for text in _open_secrets(container))
    secrets = {value for document in of_kind(documents, "Secret") for value in document.get("stringData", {}).values()}
    long = {secret for secret in secrets if len(secret) >= _SHORTEST_SECRET}
    for document in documents:
        for path, value in walk(document) if document["kind"] != "Secret" else ():
            if isinstance(value, str) and any(secret in value for secret in long):
                yield f"{title(document)}: {path} holds what a Secret holds"


def _open_secrets(container: Document) -> Iterator[str]:
    words = [*container.get("command", []), *container.get("args", [])]
    for variable in container.get("env", []):
        name = variable["name"]
        if "secretKeyRef" in variable.get("valueFrom", {}):
            if any(f"$({name})" in word for word in words):
                yield f"the secret {name} is expanded into its arguments"
        elif "value" in variable and _SECRET_NAME.search(name) and not _NO_SECRET.search(name):
            yield f"{name} has its value in the manifest"


def memory_holds_shared_memory(documents: list[Document]) -> Iterator[str]:
    """Every container has a memory limit, and one that mounts memory volumes has room for more than those."""
    for pod in pods(documents):
        in_memory = {
            name: quantity(volume["emptyDir"]["sizeLimit"]) if "sizeLimit" in volume["emptyDir"] else float("inf")
            for name, volume in pod.volumes.items()
            if volume.get("emptyDir", {}).get("medium") == "Memory"
        }
        for container in pod.all_containers:
            where = f"{pod.name}: container {container['name']}"
            limit = container.get("resources", {}).get("limits", {}).get("memory")
            taken = sum(in_memory.get(mount["name"], 0.0) for mount in container.get("volumeMounts", []))
            if limit is None:
                yield f"{where}: no memory limit"
            elif quantity(limit) <= taken:
                yield f"{where}: its volumes in memory may take {taken:.0f} bytes of its {limit}"


def requests_fit_limits(documents: list[Document]) -> Iterator[str]:
    """Requests do not pass limits, and devices are asked for as Kubernetes wants: limits, whole, once."""
    for pod in pods(documents):
        for container in pod.all_containers:
            where = f"{pod.name}: container {container['name']}"
            resources = container.get("resources", {})
            requests, limits = resources.get("requests", {}), resources.get("limits", {})
            for name in requests.keys() & limits.keys():
                if quantity(requests[name]) > quantity(limits[name]):
                    yield f"{where}: requests {requests[name]} {name}, limit {limits[name]}"
            for name in {name for name in {*requests, *limits} if "/" in name}:
                if name not in limits or requests.get(name, limits[name]) != limits[name]:
                    yield f"{where}: {name} must be in limits, and the same in requests"
                elif quantity(limits[name]) % 1:
                    yield f"{where}: {limits[name]} {name} is not whole"


def gpu_pods_are_tolerated(documents: list[Document]) -> Iterator[str]:
    """A pod with a GPU tolerates the taint that GPU nodes usually carry."""
    for pod in pods(documents):
        names = {name for container in pod.all_containers for name in container.get("resources", {}).get("limits", {})}
        if any(name.startswith("nvidia.com/") for name in names) or pod.spec.get("resourceClaims"):
            keys = {toleration.get("key") for toleration in pod.spec.get("tolerations", [])}
            if not keys & {"nvidia.com/gpu", None}:
                yield f"{pod.name}: wants a GPU and tolerates only {keys}"


def budgets_let_nodes_drain(documents: list[Document]) -> Iterator[str]:
    """No PodDisruptionBudget forbids every eviction."""
    deployments = of_kind(documents, "Deployment")
    for budget in of_kind(documents, "PodDisruptionBudget"):
        spec = budget["spec"]
        if ("minAvailable" in spec) == ("maxUnavailable" in spec):
            yield f"{title(budget)}: needs one of minAvailable and maxUnavailable"
        if spec.get("maxUnavailable") in {0, "0", "0%"} or spec.get("minAvailable") == "100%":
            yield f"{title(budget)}: nothing may ever be evicted"
        for deployment in deployments:
            labels = deployment["spec"]["template"]["metadata"]["labels"]
            least = spec.get("minAvailable")
            replicas = deployment["spec"].get("replicas", 2)
            if isinstance(least, int) and matches(spec["selector"], labels) and least >= replicas:
                yield f"{title(budget)}: {title(deployment)} has no more than {least} pods, so none may be evicted"
