"""What an API server in memory holds, and what its controllers would do: the state behind :mod:`fakecluster.server`.

It knows server-side apply with several field managers and their conflicts; no schemas, no admission, no garbage
collection.
"""

from __future__ import annotations

import copy
import json
import threading
from typing import Any

Object = dict[str, Any]
Key = tuple[str, str, str, str]  # API version, resource, namespace, name
VERBS = ["create", "delete", "get", "list", "patch", "update", "watch"]
# API version: resources as (name, kind, in namespaces)
BUILT_IN: dict[str, list[tuple[str, str, bool]]] = {
    "v1": [
        ("namespaces", "Namespace", False), ("nodes", "Node", False), ("pods", "Pod", True),
        ("events", "Event", True),
        ("services", "Service", True), ("secrets", "Secret", True), ("configmaps", "ConfigMap", True),
        ("serviceaccounts", "ServiceAccount", True), ("persistentvolumeclaims", "PersistentVolumeClaim", True),
    ],
    "apps/v1": [("deployments", "Deployment", True), ("replicasets", "ReplicaSet", True)],
    "batch/v1": [("jobs", "Job", True)],
    "policy/v1": [("poddisruptionbudgets", "PodDisruptionBudget", True)],
    "networking.k8s.io/v1": [("networkpolicies", "NetworkPolicy", True), ("ingresses", "Ingress", True),
                             ("ingressclasses", "IngressClass", False)],
    "autoscaling/v2": [("horizontalpodautoscalers", "HorizontalPodAutoscaler", True)],
    "storage.k8s.io/v1": [("storageclasses", "StorageClass", False)],
    "authorization.k8s.io/v1": [("selfsubjectaccessreviews", "SelfSubjectAccessReview", False)],
}  # fmt: skip
KEDA = {
    "keda.sh/v1alpha1": [
        ("scaledobjects", "ScaledObject", True), ("triggerauthentications", "TriggerAuthentication", True),
        ("clustertriggerauthentications", "ClusterTriggerAuthentication", False),
    ]
}  # fmt: skip
GATEWAY = {
    "gateway.networking.k8s.io/v1": [
        ("gateways", "Gateway", True), ("httproutes", "HTTPRoute", True), ("grpcroutes", "GRPCRoute", True),
    ]
}  # fmt: skip
MONITORING = {
    "monitoring.coreos.com/v1": [
        ("podmonitors", "PodMonitor", True), ("servicemonitors", "ServiceMonitor", True),
        ("prometheusrules", "PrometheusRule", True),
    ]
}  # fmt: skip
DRA = {
    "resource.k8s.io/v1": [
        ("resourceclaimtemplates", "ResourceClaimTemplate", True), ("deviceclasses", "DeviceClass", False),
    ]
}  # fmt: skip


class ApiServer:
    """The state.

    Attributes:
        served: What it serves; add to it.
        denied: (verb, resource) that this user may not do.
        starting: A text; Deployments that have it are on their way for ever. Empty: none is.
        never_ready: A text; Deployments that have it never get ready. Empty: all do.
        test_passes: Whether pods (of ``helm test``) succeed.
        writes: What was written, as ``patch deployments triton``; dry runs are not.
    """

    def __init__(self) -> None:
        self.served = dict(BUILT_IN)
        self.denied: set[tuple[str, str]] = set()
        self.starting = ""
        self.never_ready = ""
        self.test_passes = True
        self.minor = "34"
        self.url = ""
        self.writes: list[str] = []
        self._objects: dict[Key, Object] = {}
        self._applied: dict[Key, dict[str, Object]] = {}  # by field manager
        self._events: list[tuple[int, str, Object]] = []
        self.lock = threading.RLock()
        self._clock = 100

    def add(self, *objects: Object) -> None:
        """Put objects there, as somebody else would have."""
        for obj in objects:
            api, namespace = obj["apiVersion"], obj["metadata"].get("namespace", "")
            resource = next(name for name, kind, _ in self.served[api] if kind == obj["kind"])
            self.put((api, resource, namespace, obj["metadata"]["name"]), copy.deepcopy(obj))

    def find(self, kind: str, name: str) -> Object | None:
        with self.lock:
            return next((obj for obj in self._objects.values()
                         if obj["kind"] == kind and obj["metadata"]["name"] == name), None)  # fmt: skip

    def all(self, api: str, resource: str, namespace: str) -> list[Object]:
        return [obj for key, obj in self._objects.items() if key[:2] == (api, resource) and namespace in ("", key[2])]

    def get(self, key: Key) -> Object | None:
        return self._objects.get(key)

    def put(self, key: Key, obj: Object) -> Object:
        with self.lock:
            before = self._objects.get(key)
            self._clock += 1
            meta = obj["metadata"]
            meta.setdefault("uid", f"00000000-0000-0000-0000-{self._clock:012d}")
            meta.setdefault("creationTimestamp", "2026-11-28T12:00:00Z")
            meta["resourceVersion"] = str(self._clock)
            changed = before is None or before.get("spec") != obj.get("spec")
            meta["generation"] = (before["metadata"].get("generation", 0) if before else 0) + changed
            self._control(obj)
            self._objects[key] = obj
            self._events.append((self._clock, "MODIFIED" if before else "ADDED", copy.deepcopy(obj)))
            return obj

    def delete(self, key: Key) -> Object | None:
        with self.lock:
            obj = self._objects.pop(key, None)
            self._applied.pop(key, None)
            if obj:
                self._clock += 1
                self._events.append((self._clock, "DELETED", copy.deepcopy(obj)))
            return obj

    def conflicts(self, key: Key, manifest: Object, manager: str) -> list[str]:
        """Fields that another manager applied with another value, as the API server names them."""
        return [
            f'conflict with "{other}" using {key[0]}: {path}'
            for other, theirs in self._applied.get(key, {}).items()
            if other != manager
            for path in _differing(theirs, manifest)
        ]

    def apply(self, key: Key, manifest: Object, manager: str, dry: bool) -> Object:
        """Server-side apply: fields that this manager set before and no longer sets are removed."""
        with self.lock:
            live = copy.deepcopy(self._objects.get(key) or {})
            result: Object = merged(_without(live, self._applied.get(key, {}).get(manager, {}), manifest), manifest)
            if key[2]:
                result["metadata"].setdefault("namespace", key[2])
            if dry:
                result["metadata"].setdefault("uid", "00000000-0000-0000-0000-000000000000")
                return result
            self._applied.setdefault(key, {})[manager] = copy.deepcopy(manifest)
            return self.put(key, result)

    def _control(self, obj: Object) -> None:
        """Set the status that controllers would set."""
        generation = obj["metadata"]["generation"]
        if obj["kind"] == "Deployment":
            spec = json.dumps(obj["spec"])
            starting = bool(self.starting) and self.starting in spec
            ready = not starting and (not self.never_ready or self.never_ready not in spec)
            replicas = obj["spec"].setdefault("replicas", 1)
            count = replicas if ready else 0
            obj["status"] = {
                "observedGeneration": generation, "replicas": replicas, "updatedReplicas": replicas,
                "readyReplicas": count, "availableReplicas": count,
                "conditions": [
                    {"type": "Available", "status": "True" if ready else "False"},
                    {"type": "Progressing", "status": "True" if ready or starting else "False",
                     "reason": "NewReplicaSetAvailable" if ready else
                               "ReplicaSetUpdated" if starting else "ProgressDeadlineExceeded"},
                ],
            }  # fmt: skip
        elif obj["kind"] == "Pod":
            serves = obj["metadata"].get("labels", {}).get("tritonkit/role") == "live"  # a Deployment's own
            obj["status"] = {"phase": "Running" if serves else "Succeeded" if self.test_passes else "Failed"}
        elif obj["kind"] == "Job":
            obj["status"] = {"succeeded": 1, "conditions": [{"type": "Complete", "status": "True"}]}
        elif obj["kind"] == "PersistentVolumeClaim":
            obj["status"] = {"phase": "Bound"}

    def events(self, after: int, api: str, resource: str, namespace: str) -> list[tuple[int, str, Object]]:
        kinds = {(a, kind) for a, listed in self.served.items() for name, kind, _ in listed
                 if (a, name) == (api, resource)}  # fmt: skip
        with self.lock:
            return [
                event for event in self._events
                if event[0] > after and (event[2]["apiVersion"], event[2]["kind"]) in kinds
                and namespace in ("", event[2]["metadata"].get("namespace", ""))
            ]  # fmt: skip

    @property
    def clock(self) -> str:
        return str(self._clock)


def _differing(theirs: Any, ours: Any, path: str = "") -> list[str]:
    if not (isinstance(theirs, dict) and isinstance(ours, dict)):
        return [path] if theirs != ours else []
    return [
        deeper for key in theirs.keys() & ours.keys() for deeper in _differing(theirs[key], ours[key], f"{path}.{key}")
    ]


def merged(old: Any, new: Any) -> Any:
    if not (isinstance(old, dict) and isinstance(new, dict)):
        return copy.deepcopy(new)
    return old | {key: merged(old.get(key), value) for key, value in new.items()}


def _without(live: Any, before: Any, now: Any) -> Any:
    if not (isinstance(live, dict) and isinstance(before, dict)):
        return live
    now = now if isinstance(now, dict) else {}
    gone = {key for key in before if key not in now}
    return {key: _without(value, before.get(key), now.get(key)) for key, value in live.items() if key not in gone}
