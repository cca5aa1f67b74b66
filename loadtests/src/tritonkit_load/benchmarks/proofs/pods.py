"""Runs the pods of a rendered Deployment as processes, as a kubelet does: start, probes, preStop, signal, kill.

Command, args, env, files from ConfigMaps and Secrets, probes, hooks and the grace period are read from the manifest.
Ports and mounted paths are rewritten, as all pods share this host; images, init containers and cgroups are left out.
"""

from __future__ import annotations

import base64
import contextlib
import http.client
import os
import re
import shlex
import shutil
import signal
import socket
import subprocess
import tempfile
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tritonkit.errors import CheckFailed, InputError
from tritonkit.server import runtime
from tritonkit.server.ports import free_ports

HOST = "127.0.0.1"
Manifest = dict[str, Any]
# The signal that ends a container is its image's STOPSIGNAL: HAProxy's official image declares SIGUSR1, which is
# HAProxy's soft stop; NVIDIA's declares none, so SIGTERM.
STOP_SIGNALS = {"front": signal.SIGUSR1}


def deployment(manifests: Sequence[Manifest]) -> Manifest:
    """The only Deployment among rendered documents.

    Raises:
        InputError: The documents have no Deployment, or more than one.
    """
    deployments = [manifest for manifest in manifests if manifest.get("kind") == "Deployment"]
    if len(deployments) != 1:
        raise InputError(
            f"{len(deployments)} Deployments in the manifest, one is wanted", "render an example with one variant"
        )
    return deployments[0]


@dataclass
class Ended:
    """How a pod ended.

    Attributes:
        took_s: From the deletion until the last container was gone.
        containers: Seconds from the deletion until each container was gone.
        killed: Containers that the grace period's end found running.
        failed_hooks: preStop hooks that exited with something other than 0.
    """

    took_s: float = 0.0
    containers: dict[str, float] = field(default_factory=dict)
    killed: list[str] = field(default_factory=list)
    failed_hooks: list[str] = field(default_factory=list)


def _check(name: str, container: Manifest) -> None:
    if not container.get("command"):
        raise InputError(f"container {name} has no command", "the command of an image cannot be run here: give one")
    hook = container.get("lifecycle", {}).get("preStop")
    actions = {"preStop": (hook, {"sleep", "exec"})}
    actions |= {
        kind: (container.get(kind), {"httpGet", "tcpSocket", "exec"}) for kind in ("startupProbe", "readinessProbe")
    }
    for kind, (action, known) in actions.items():
        if action and not known & set(action):
            raise InputError(
                f"{kind} of container {name} is none of {', '.join(sorted(known))}", f"give it one: {action}"
            )


class Pod:
    """One pod of a Deployment.

    Args:
        manifests: The rendered documents.
        repository: The folder behind the pod's volume claim.
        folder: The folder of its files and logs.

    Raises:
        InputError: A container has no command, or a probe or hook of a kind that is not known here.
    """

    def __init__(self, manifests: Sequence[Manifest], repository: Path, folder: Path) -> None:
        self.spec: Manifest = deployment(manifests)["spec"]["template"]["spec"]
        self.folder = folder
        self.ports: dict[str, int] = {}
        self._numbers: dict[int, int] = {}
        self._manifests = manifests
        self._containers: dict[str, Manifest] = {entry["name"]: entry for entry in self.spec["containers"]}
        for name, container in self._containers.items():
            _check(name, container)
        self._processes: dict[str, subprocess.Popen[bytes]] = {}
        self._ready: dict[str, bool] = {}
        self._ending = threading.Event()
        self._choose_ports()
        self._volumes(repository)
        self._bin = _commands(folder / "bin")

    @property
    def ready(self) -> bool:
        """Every container's readiness probe has succeeded, as the probe's thresholds have it."""
        return all(self._ready.get(name, False) for name in self._containers)

    @property
    def grace_s(self) -> float:
        """``terminationGracePeriodSeconds``; Kubernetes' default is 30."""
        return float(self.spec.get("terminationGracePeriodSeconds", 30))

    def serving(self, protocol: str) -> int:
        """This host's port for the container port of that name, which is what a Service's targetPort names."""
        return self.ports[protocol]

    def start(self) -> Pod:
        """Start every container and its probes."""
        self.folder.mkdir(parents=True, exist_ok=True)
        for name, container in self._containers.items():
            command = [*container.get("command", []), *container.get("args", [])]
            with (self.folder / f"{name}.log").open("wb") as log:
                self._processes[name] = self._spawn(name, [self._here(name, word) for word in command], log)
        for name, container in self._containers.items():
            threading.Thread(target=self._probe, args=(name, container), daemon=True).start()
        return self

    def wait_ready(self, timeout_s: float = 60.0) -> None:
        """Block until the pod is ready.

        Raises:
            CheckFailed: A container ended, or it took too long.
        """
        deadline = time.monotonic() + timeout_s
        while not self.ready:
            for name, process in self._processes.items():
                if process.poll() is not None:
                    raise CheckFailed(f"container {name} ended with {process.returncode}:\n{self.log(name)}")
            if time.monotonic() > deadline:
                raise CheckFailed(f"not ready after {timeout_s:g} s: {self._ready}\n{self.log('triton')}")
            time.sleep(0.05)

    def log(self, container: str) -> str:
        """The end of a container's log."""
        path = self.folder / f"{container}.log"
        return path.read_text(errors="replace")[-2000:] if path.exists() else ""

    def terminate(self) -> Ended:
        """End the pod as a kubelet ends a deleted one: hooks and signals of all containers run in parallel."""
        self._ending.set()
        ended, start = Ended(), time.monotonic()
        threads = [
            threading.Thread(target=self._terminate, args=(name, start, ended), daemon=True)
            for name in self._containers
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        ended.took_s = time.monotonic() - start
        return ended

    def kill(self) -> None:
        """End everything at once."""
        self._ending.set()
        for process in self._processes.values():
            _kill(process)

    def _terminate(self, name: str, start: float, ended: Ended) -> None:
        process, deadline = self._processes[name], start + self.grace_s
        hook = self._containers[name].get("lifecycle", {}).get("preStop")
        if hook and not self._hook(name, hook, deadline):
            ended.failed_hooks.append(name)
        if process.poll() is None:
            process.send_signal(STOP_SIGNALS.get(name, signal.SIGTERM))
        try:
            process.wait(max(deadline - time.monotonic(), 0.001))
        except subprocess.TimeoutExpired:
            ended.killed.append(name)
        _kill(process)
        ended.containers[name] = time.monotonic() - start

    def _hook(self, name: str, hook: Manifest, deadline: float) -> bool:
        """Run a preStop hook until the grace period ends; whether it succeeded."""
        left = max(deadline - time.monotonic(), 0.0)
        if "sleep" in hook:
            time.sleep(min(float(hook["sleep"]["seconds"]), left))
            return True
        with (self.folder / f"{name}-prestop.log").open("wb") as log:
            process = self._spawn(name, [self._here(name, word) for word in hook["exec"]["command"]], log)
        try:
            return process.wait(left) == 0
        except subprocess.TimeoutExpired:
            _kill(process)
            return False

    def _spawn(self, name: str, command: list[str], log: Any) -> subprocess.Popen[bytes]:
        user = self._user(name)
        return subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT, start_new_session=True,
            env=self._environment(name), cwd=self.folder, user=user, group=user,
            extra_groups=None if user is None else [],
        )  # fmt: skip

    def _user(self, name: str) -> int | None:
        """The user id of the front, if this process may change it; the embedded Triton lies in this user's own home."""
        user = self._containers[name].get("securityContext", {}).get("runAsUser")
        user = user if user is not None else self.spec.get("securityContext", {}).get("runAsUser")
        return int(user) if name == "front" and user and os.geteuid() == 0 else None

    def _environment(self, name: str) -> dict[str, str]:
        variables = {"PATH": os.pathsep.join([str(self._bin), os.environ.get("PATH", os.defpath), "/usr/sbin"])}
        for variable in self._containers[name].get("env", []):
            value = variable.get("value")
            secret = variable.get("valueFrom", {}).get("secretKeyRef")
            if secret:
                value = self._data("Secret", secret["name"]).get(secret["key"])
            if value is not None:
                variables[variable["name"]] = self._here(name, str(value))
        return {"HOME": str(self.folder), "TMPDIR": str(self.folder)} | variables

    def _choose_ports(self) -> None:
        ports = [port for container in self._containers.values() for port in container.get("ports", [])]
        numbers = dict.fromkeys(int(port["containerPort"]) for port in ports)
        self._numbers = dict(zip(numbers, free_ports(len(numbers)), strict=True))
        self.ports = {port["name"]: self._numbers[int(port["containerPort"])] for port in ports}
        words = "|".join(map(str, self._numbers))
        self._port = re.compile(rf"(?<![\w.])({words})(?![\w.])") if words else None

    def _with_ports(self, text: str) -> str:
        if self._port is None:
            return text
        return self._port.sub(lambda match: str(self._numbers[int(match[1])]), text)

    def _here(self, name: str, word: str) -> str:
        """A word of the container's command, with this host's ports and paths."""
        word = self._with_ports(word)
        places = {
            mount["mountPath"]: str(self.folder / "volumes" / mount["name"] / mount.get("subPath", ""))
            for mount in self._containers[name].get("volumeMounts", [])
        }
        paths = "|".join(re.escape(path) for path in sorted(places, key=len, reverse=True))
        return re.sub(rf"(?<![\w./-])({paths})(?![\w.-])", lambda match: places[match[1]], word) if paths else word

    def _volumes(self, repository: Path) -> None:
        for volume in self.spec.get("volumes", []):
            place = self.folder / "volumes" / volume["name"]
            place.parent.mkdir(parents=True, exist_ok=True)
            if "persistentVolumeClaim" in volume:
                place.symlink_to(repository.absolute())
                continue
            place.mkdir()
            for kind, key in (("ConfigMap", "configMap"), ("Secret", "secret")):
                source = volume.get(key, {})
                for file, text in self._data(kind, source.get("name") or source.get("secretName", "")).items():
                    (place / file).write_text(_loopback(self._with_ports(text)))
        self.folder.chmod(0o755)

    def _data(self, kind: str, name: str) -> dict[str, str]:
        for manifest in self._manifests:
            if name and manifest.get("kind") == kind and manifest["metadata"]["name"] == name:
                encoded = manifest.get("data", {}) if kind == "Secret" else {}
                plain = manifest.get("stringData", {}) if kind == "Secret" else manifest.get("data", {})
                return dict(plain) | {key: base64.b64decode(value).decode() for key, value in encoded.items()}
        return {}

    def _probe(self, name: str, container: Manifest) -> None:
        """Run the startup probe until it succeeds, then the readiness probe until the pod ends."""
        startup, readiness = container.get("startupProbe"), container.get("readinessProbe")
        while startup and not self._ending.is_set() and not self._probed(name, startup):
            self._ending.wait(startup.get("periodSeconds", 10))
        if readiness is None:
            self._ready[name] = True
            return
        self._ending.wait(readiness.get("initialDelaySeconds", 0))
        right = wrong = 0
        while not self._ending.is_set():
            right, wrong = (right + 1, 0) if self._probed(name, readiness) else (0, wrong + 1)
            if right >= readiness.get("successThreshold", 1):
                self._ready[name] = True
            if wrong >= readiness.get("failureThreshold", 3):
                self._ready[name] = False
            self._ending.wait(readiness.get("periodSeconds", 10))

    def _probed(self, name: str, probe: Manifest) -> bool:
        timeout = probe.get("timeoutSeconds", 1)
        if "exec" in probe:
            process = self._spawn(
                name, [self._here(name, word) for word in probe["exec"]["command"]], subprocess.DEVNULL
            )
            try:
                return process.wait(timeout) == 0
            except subprocess.TimeoutExpired:
                return False
            finally:
                _kill(process)
        action = probe.get("httpGet") or probe["tcpSocket"]
        port = action["port"]
        here = self.ports[port] if isinstance(port, str) else self._numbers[int(port)]
        if "path" not in action:
            try:
                socket.create_connection((HOST, here), timeout).close()
                return True
            except OSError:
                return False
        connection = http.client.HTTPConnection(HOST, here, timeout=timeout)
        try:
            connection.request("GET", action["path"], headers={"Connection": "close"})
            return 200 <= connection.getresponse().status < 400
        except (OSError, http.client.HTTPException):
            return False
        finally:
            connection.close()


@contextmanager
def workplace() -> Iterator[Path]:
    """A folder for pods, gone afterwards; every user may look into it, as the front runs as a user of its own."""
    with tempfile.TemporaryDirectory(prefix="tritonkit-pods-") as folder:
        place = Path(folder)
        place.chmod(0o755)
        yield place


def _loopback(text: str) -> str:
    """HAProxy's ``bind :8080``, kept off this machine's network."""
    return re.sub(r"^(\s*bind )(?:\*|0\.0\.0\.0)?:", rf"\g<1>{HOST}:", text, flags=re.MULTILINE)


def _commands(folder: Path) -> Path:
    """A ``tritonserver`` for the PATH: the embedded one, told where its parts lie and to stay on loopback."""
    triton = runtime.find()
    backends = folder / "backends"
    backends.mkdir(parents=True)
    (backends / "python").symlink_to(triton.python_backend)
    for name, backend in runtime.BACKEND_FOLDERS.items():
        (backends / name).symlink_to(backend)
    variables = _different(triton.environment())
    lines = [f"export {name}={shlex.quote(value)}" for name, value in variables.items()]
    addresses = " ".join(f"--{name}-address={HOST}" for name in ("http", "grpc", "metrics"))
    lines.append(
        f"exec {shlex.quote(str(triton.binary))} --backend-directory={shlex.quote(str(backends))} "
        f'--cache-directory={shlex.quote(str(triton.cache_directory))} "$@" {addresses}'
    )
    script = folder / "tritonserver"
    script.write_text("#!/bin/sh\n" + "\n".join(lines) + "\n")
    script.chmod(0o755)
    return folder


def _different(environment: Mapping[str, str]) -> dict[str, str]:
    return {name: value for name, value in environment.items() if os.environ.get(name) != value}


def _kill(process: subprocess.Popen[bytes]) -> None:
    """End a container's whole process group; nobody else is in it."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def haproxy() -> str | None:
    """Where HAProxy is on this machine."""
    return shutil.which("haproxy", path=os.pathsep.join([os.environ.get("PATH", os.defpath), "/usr/sbin"]))
