"""What Kubernetes does not let an upgrade change, taken out of manifests and compared."""

from __future__ import annotations

from typing import Any

from manifests.kube import Document, title

# Kind → the fields of spec that are fixed once the object is there. Source: the API reference, "immutable" and the
# update strategies of pkg/registry; a Job's template, a claim's and a device claim template's spec are fixed whole.
_FIXED = {
    "Deployment": ("selector",),
    "StatefulSet": ("selector", "serviceName", "podManagementPolicy", "volumeClaimTemplates"),
    "Job": ("selector", "template", "completions", "completionMode"),
    "PersistentVolumeClaim": ("accessModes", "storageClassName", "volumeName", "volumeMode", "selector"),
    "PersistentVolume": ("nfs", "csi", "volumeMode"),
    "ResourceClaimTemplate": ("metadata", "spec"),
    "Service": ("clusterIP",),
}
_HOOK = "helm.sh/hook"  # hooks are deleted before they are made again


def fixed(documents: list[Document]) -> dict[str, dict[str, Any]]:
    """The fixed fields of every object, by kind and name; claims are there even if they have none."""
    fixed_fields = {}
    for document in documents:
        if _HOOK in document["metadata"].get("annotations", {}):
            continue
        names = _FIXED.get(document["kind"], ())
        fields = {name: document["spec"][name] for name in names if name in document.get("spec", {})}
        if fields or document["kind"] == "PersistentVolumeClaim":
            fixed_fields[title(document)] = fields
    return fixed_fields


def conflicts(before: dict[str, dict[str, Any]], after: dict[str, dict[str, Any]]) -> list[str]:
    """Why the API server would refuse to make ``after`` of ``before``, or data would be lost."""
    reasons = []
    for name, fields in before.items():
        if name not in after:
            if name.startswith("PersistentVolumeClaim "):
                reasons.append(f"{name} is gone, and what it holds")
            continue
        changed = [field for field in {*fields, *after[name]} if fields.get(field) != after[name].get(field)]
        reasons += [
            f"{name}: spec.{field} changes from {fields.get(field)} to {after[name].get(field)}" for field in changed
        ]
    return reasons
