"""The restricted Pod Security Standard, complete, and what this chart promises beyond it.

Source: https://kubernetes.io/docs/concepts/security/pod-security-standards, baseline and restricted, Linux.
"""

from __future__ import annotations

from collections.abc import Iterator

from manifests.kube import Document, Pod, pods

# Image volumes are allowed from 1.33 on, before which they were alpha (kubernetes/kubernetes#130394).
_VOLUMES = {
    "configMap", "csi", "downwardAPI", "emptyDir", "ephemeral", "image", "persistentVolumeClaim", "projected", "secret",
}  # fmt: skip
_SYSCTLS = {
    "kernel.shm_rmid_forced", "net.ipv4.ip_local_port_range", "net.ipv4.ip_local_reserved_ports",
    "net.ipv4.ip_unprivileged_port_start", "net.ipv4.ping_group_range", "net.ipv4.tcp_fin_timeout",
    "net.ipv4.tcp_keepalive_intvl", "net.ipv4.tcp_keepalive_probes", "net.ipv4.tcp_keepalive_time",
    "net.ipv4.tcp_syncookies", "net.ipv4.tcp_rmem", "net.ipv4.tcp_wmem",
}  # fmt: skip
_PLACES = (
    "_MOUNT_DIRECTORY",
    "_CACHE_DIR",
    "_CACHE_ROOT",
    "_CACHE_PATH",
    "_CONFIG_ROOT",
)  # ends of variables that name folders
_SELINUX = {None, "", "container_t", "container_init_t", "container_kvm_t", "container_engine_t"}


def restricted(documents: list[Document]) -> Iterator[str]:
    """Pods pass the restricted Pod Security Standard."""
    for pod in pods(documents):
        yield from (f"{pod.name}: {sentence}" for sentence in _pod(pod))
        for container in pod.all_containers:
            where = f"{pod.name}: container {container['name']}"
            yield from (f"{where}: {sentence}" for sentence in _container(pod, container))


def _pod(pod: Pod) -> Iterator[str]:
    for name in ("hostNetwork", "hostPID", "hostIPC"):
        if pod.spec.get(name):
            yield f"{name} is on"
    for volume in pod.volumes.values():
        if kinds := volume.keys() - {"name"} - _VOLUMES:
            yield f"volume {volume['name']} is of the kind {', '.join(sorted(kinds))}"
        if "name" in volume and len(volume) == 1:
            yield f"volume {volume['name']} is of no kind"
    context = pod.spec.get("securityContext", {})
    for sysctl in context.get("sysctls", []):
        if sysctl["name"] not in _SYSCTLS:
            yield f"sysctl {sysctl['name']}"
    for name, value in pod.annotations.items():
        if name.startswith("container.apparmor.security.beta.kubernetes.io/") and value == "unconfined":
            yield "AppArmor is off"
    yield from _profiles(context)


def _profiles(context: Document) -> Iterator[str]:
    options = context.get("seLinuxOptions", {})
    if options.get("type") not in _SELINUX or options.get("user") or options.get("role"):
        yield f"seLinuxOptions {options}"
    if context.get("appArmorProfile", {}).get("type") == "Unconfined":
        yield "AppArmor is off"
    if context.get("windowsOptions", {}).get("hostProcess"):
        yield "hostProcess is on"
    if context.get("runAsUser") == 0:
        yield "runs as user 0"


def _container(pod: Pod, container: Document) -> Iterator[str]:
    context = container.get("securityContext", {})
    around = pod.spec.get("securityContext", {})
    capabilities = context.get("capabilities", {})
    yield from _profiles(context)
    if context.get("privileged"):
        yield "privileged"
    if context.get("allowPrivilegeEscalation") is not False:
        yield "allowPrivilegeEscalation is not false"
    if "ALL" not in capabilities.get("drop", []):
        yield "capabilities.drop has no ALL"
    if added := set(capabilities.get("add", [])) - {"NET_BIND_SERVICE"}:
        yield f"capabilities.add has {', '.join(sorted(added))}"
    if context.get("runAsNonRoot", around.get("runAsNonRoot")) is not True:
        yield "runAsNonRoot is not true"
    profile = context.get("seccompProfile", around.get("seccompProfile", {})).get("type")
    if profile not in {"RuntimeDefault", "Localhost"}:
        yield f"seccompProfile is {profile}"
    if context.get("procMount", "Default") != "Default":
        yield "procMount is not Default"
    if any(port.get("hostPort") for port in container.get("ports", [])):
        yield "hostPort"
    hooks = [*(container.get(f"{kind}Probe", {}) for kind in ("startup", "readiness", "liveness"))]
    hooks += container.get("lifecycle", {}).values()
    if any(action.get("host") for hook in hooks for action in hook.values() if isinstance(action, dict)):
        yield "a probe or hook names a host"


def read_only_root(documents: list[Document]) -> Iterator[str]:
    """No container can write to its image, and what its programs must write to lies on a volume."""
    for pod in pods(documents):
        for container in pod.all_containers:
            where = f"{pod.name}: container {container['name']}"
            if container.get("securityContext", {}).get("readOnlyRootFilesystem") is not True:
                yield f"{where}: readOnlyRootFilesystem is not true"
            writable = [mount["mountPath"] for mount in container.get("volumeMounts", []) if not mount.get("readOnly")]
            for variable in container.get("env", []):
                name, path = variable["name"], variable.get("value", "")
                is_place = name in {"HOME", "TMPDIR", "HF_HOME"} or name.endswith(_PLACES)
                if is_place and not any(f"{path}/".startswith(f"{place.rstrip('/')}/") for place in writable):
                    yield f"{where}: {name} is {path}, which no writable volume holds"


def no_token(documents: list[Document]) -> Iterator[str]:
    """No pod is handed a token of the Kubernetes API, which none of them calls."""
    for pod in pods(documents):
        if pod.spec.get("automountServiceAccountToken") is not False:
            yield f"{pod.name}: automountServiceAccountToken is not false"
